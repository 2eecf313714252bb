"""Whoever writes the store and encrypts under the KEKs gets no ring of theirs accepted."""

from __future__ import annotations

import random
import tracemalloc
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest

from sentra_kms.errors import KeyNotFound, KMSError, RingRejected
from sentra_kms.hooktypes import StoredRing
from sentra_kms.keys import store
from sentra_kms.keys.ring import Ring
from sentra_kms.runtime import KMS
from tests.keys.attacker import (
    KEKS,
    KNOWN,
    Attack,
    Attacker,
    Scene,
    place,
    raised,
    reads,
    text,
    with_state,
)
from tests.keys.attacks import ATTACKS, CHOSEN_KEYS
from tests.keys.conftest import Crew, ManualClock, Site, Spy, in_threads, salt_of
from tests.soak import scale, seed

MESSAGES: dict[str, Callable[[KMS, bytes], object]] = {
    "encrypt": lambda kms, _: kms.keys.encrypt("acme", b"x"),
    "encrypt_many": lambda kms, _: kms.keys.encrypt_many("acme", [b"x"]),
    "decrypt": lambda kms, message: kms.keys.decrypt("acme", message),
    "decrypt_many": lambda kms, message: kms.keys.decrypt_many("acme", [message]),
}
RINGS: dict[str, Callable[[KMS, bytes], object]] = {
    "rotate": lambda kms, _: kms.keys.rotate("acme"),
    "rotate with a request that was made": lambda kms, _: kms.keys.rotate("acme", request_id="r-1"),
    "rewrap": lambda kms, _: kms.keys.rewrap("acme"),
    "describe": lambda kms, _: kms.keys.describe("acme"),
    "create": lambda kms, _: kms.keys.create("acme"),
    "create with exist_ok": lambda kms, _: kms.keys.create("acme", exist_ok=True),
}


@pytest.fixture
def scene(key_site: Site) -> Scene:
    """Acme's ring of three versions, the second disabled, and others beside it."""
    return Scene(key_site)


@pytest.fixture(scope="module")
def _built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    site = Site(tmp_path_factory.mktemp("scene"), ManualClock())
    yield Scene(site)
    site.close()


@pytest.fixture
def shared(_built: Scene) -> Scene:
    """The same, made once for the many tests that each put it back as it was."""
    _built.site.put(_built.past[-1])
    return _built


class Watch:
    """Counts what a KMS asks of its KEKs, and what it saves."""

    def __init__(self, kms: KMS) -> None:
        self._kek = [
            Spy(kms, backend, operation)
            for backend in ("local", "spare")
            for operation in ("wrap_key", "unwrap_key", "describe_key")
        ]
        self._save = Spy(kms, "local", "save_ring")

    @property
    def asked(self) -> int:
        """How often a KEK was asked for anything."""
        return sum(spy.count for spy in self._kek)

    @property
    def saved(self) -> int:
        """How often a ring was to be saved."""
        return self._save.count


class Reader:
    """A process of the fleet: one that has just begun, or one that holds the ring and its keys."""

    def __init__(self, scene: Scene, *, warm: bool) -> None:
        self.scene = scene
        self.kms = scene.open()
        self.salt: bytes | None = None
        if warm:
            for message in (scene.messages[0], scene.messages[2]):
                assert self.kms.keys.decrypt("acme", message) == b"x"
            self.salt = salt_of(self.kms.keys.encrypt("acme", b"x"))
        self.watch = Watch(self.kms)

    def refuses(self, told: str, operations: Iterable[str] = (*MESSAGES, *RINGS)) -> None:
        """Assert that each operation is refused, asks no KEK, and saves nothing."""
        stored = self.scene.site.document()
        for name in operations:
            with pytest.raises(RingRejected, match=told) as caught:
                (MESSAGES | RINGS)[name](self.kms, self.scene.messages[0])
            assert caught.value.subject == "acme"
            assert not caught.value.retryable
        assert (self.watch.asked, self.watch.saved) == (0, 0)
        assert self.scene.site.document() == stored

    def uses_what_it_holds(self) -> None:
        """Assert that messages go on under the keys that are held."""
        for use in MESSAGES.values():
            assert use(self.kms, self.scene.messages[0])
        assert self.watch.asked == 0

    def goes_on(self) -> None:
        """Assert that all works, and that what was held before is held still."""
        for message in (self.scene.messages[0], self.scene.messages[2]):
            assert self.kms.keys.decrypt("acme", message) == b"x"
        sealed = self.kms.keys.encrypt("acme", b"x")
        assert self.kms.keys.describe("acme").sequence == 4
        if self.salt is not None:
            assert salt_of(sealed) == self.salt
            assert self.watch.asked == 0
        assert self.scene.witness.keys.decrypt("acme", sealed) == b"x"


def never(payload: bytes, tenant: str) -> Ring:
    """Stand where rings are parsed."""
    raise AssertionError(f"a ring of {tenant} was parsed that was not authenticated")


def is_refused(
    scene: Scene, forged: bytes, told: str, *, authentic: bool, cold: bool = True
) -> None:
    """Assert that a stored ring is refused whatever a process holds, and leaves no trace in it.

    It must not even be parsed if it is not `authentic`.
    """
    good = scene.site.document()
    warm = Reader(scene, warm=True)
    readers = [warm, Reader(scene, warm=False)] if cold else [warm]
    scene.site.put(forged)
    with pytest.MonkeyPatch.context() as patched:
        if not authentic:
            patched.setattr(store, "decode", never)
        warm.refuses(told, RINGS)
        warm.uses_what_it_holds()  # until the ring is due
        scene.site.clock.advance(60)
        for reader in readers:
            reader.refuses(told)
    scene.site.put(good)
    for reader in readers:
        reader.goes_on()


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
def test_attack_is_refused_by_every_operation_before_a_kek_is_asked(
    shared: Scene, attack: Attack
) -> None:
    """Nothing of it is parsed, used, mended or saved, and afterwards all is as it was."""
    forged = attack(Attacker(shared))
    assert forged not in shared.past
    is_refused(shared, forged, "was refused|is larger than any ring", authentic=False)


@pytest.mark.parametrize("payload", CHOSEN_KEYS.values(), ids=CHOSEN_KEYS)
def test_what_the_attacker_writes_lacks_nothing_but_the_authentication_key(
    scene: Scene, payload: Callable[[Attacker], bytes]
) -> None:
    """Signed, each of their rings would be taken: what refuses them is the MAC and no accident."""
    made = payload(Attacker(scene))
    scene.site.put(scene.sign(made))
    fields = scene.site.payload()
    message = scene.open().keys.encrypt("acme", b"the tenant's data")
    if fields["versions"][-1]["version"] == fields["primary"]:
        assert reads(message, fields) == b"the tenant's data"
    else:
        assert fields["primary"] == 3


# --- rightly signed, and refused all the same -------------------------------------------------


def _older(scene: Scene) -> bytes:
    return scene.past[0]


def _lower(scene: Scene) -> bytes:
    return scene.sign(text(scene.site.payload() | {"sequence": 3}))


def _equal(scene: Scene) -> bytes:
    fields = scene.site.payload()
    fields["versions"][0]["created"] = "2000-01-01T00:00:00Z"
    return scene.sign(text(fields))


def _spaced(scene: Scene) -> bytes:
    return scene.sign(text(scene.site.payload()) + b"\n")


ROLLED_BACK: dict[str, Callable[[Scene], bytes]] = {
    "the ring as it was once": _older,
    "the ring of now, one sequence lower": _lower,
    "another ring of the same sequence": _equal,
    "the same ring, written with other white space": _spaced,
}


@pytest.mark.parametrize("attack", ROLLED_BACK.values(), ids=ROLLED_BACK)
def test_authentic_ring_that_is_not_the_newest_is_refused_by_who_saw_more(
    shared: Scene, attack: Callable[[Scene], bytes]
) -> None:
    """A lower sequence, or an equal one with other bytes, whatever the operation."""
    is_refused(shared, attack(shared), "store was rolled back", authentic=True, cold=False)


def _many_wraps(scene: Scene) -> bytes:
    fields = raised(scene.site.payload())
    wrap = fields["versions"][2]["wraps"][0]
    more = [{**wrap, "kek": f"local:k{number}"} for number in range(15)]
    fields["versions"][2]["wraps"] += more
    return scene.sign(text(fields))


def _of_another(tenant: str) -> Callable[[Scene], bytes]:
    return lambda scene: scene.sign(Attacker(scene).others[tenant][96:])


def _with_disabled_primary(scene: Scene) -> bytes:
    return scene.sign(text(raised(scene.site.payload()) | {"primary": 2}))


def _without_wraps(scene: Scene) -> bytes:
    fields = raised(scene.site.payload())
    fields["versions"][2]["wraps"] = []
    return scene.sign(text(fields))


BUGGY: dict[str, tuple[Callable[[Scene], bytes], str]] = {
    "17 wraps": (_many_wraps, "has 17 wraps, 16 is the bound"),
    "another tenant's ring": (_of_another("mallory"), "ring of another tenant"),
    "the ring of a tenant of another case": (_of_another("Acme"), "ring of another tenant"),
    "a primary that is disabled": (_with_disabled_primary, "not an enabled, generated version"),
    "no wraps": (_without_wraps, "is enabled with 0 wraps"),
}


@pytest.mark.parametrize(("make", "told"), BUGGY.values(), ids=BUGGY)
def test_ring_that_breaks_a_rule_is_refused_though_it_is_signed(
    shared: Scene, make: Callable[[Scene], bytes], told: str
) -> None:
    """A writer with a fault, or one who has the authentication key, cannot make us ask a KEK."""
    is_refused(shared, make(shared), told, authentic=True)


@pytest.mark.parametrize("kek", KEKS)
def test_wrap_of_another_key_is_refused_by_its_check_value_though_it_is_signed(
    scene: Scene, kek: str
) -> None:
    """Who has only that KEK is refused and holds nothing of it; who has both uses the right one."""
    attacker = Attacker(scene)
    alone = scene.open(kek)
    fields = scene.site.payload()
    for version in fields["versions"]:
        where = place(fields, version["version"])
        version["wraps"][KEKS.index(kek)] = attacker.wrap(KNOWN, where, kek)
    scene.sign_and_put(fields)
    before = scene.site.document()
    for use in MESSAGES.values():
        with pytest.raises(RingRejected, match="check value differs"):
            use(alone, scene.messages[0])
        assert not alone.keys._cache.entries["acme"].all_held()
        assert not alone.keys._cache.epochs
    assert scene.site.document() == before
    both = scene.open()
    assert both.keys.decrypt("acme", scene.messages[0]) == b"x"
    assert both.keys.decrypt("acme", both.keys.encrypt("acme", b"y")) == b"y"


@pytest.mark.parametrize("kek", KEKS)
def test_rewrap_spreads_no_key_that_fails_its_check_value(scene: Scene, kek: str) -> None:
    """Where the only wraps hold another key nothing is wrapped and nothing saved."""
    attacker = Attacker(scene)
    fields = scene.site.payload()
    for version in fields["versions"]:
        where = place(fields, version["version"])
        version["wraps"] = [attacker.wrap(KNOWN, where, kek)]
    scene.sign_and_put(fields)
    before = scene.site.document()
    kms = scene.open()
    wraps = [Spy(kms, backend, "wrap_key") for backend in ("local", "spare")]
    with pytest.raises(RingRejected, match="check value differs"):
        kms.keys.rewrap("acme")
    assert [spy.count for spy in wraps] == [0, 0]
    assert scene.site.document() == before


def test_kek_that_is_not_configured_is_never_asked_though_the_ring_is_signed(scene: Scene) -> None:
    """Not to unwrap and not by a rewrap, even if there is a backend of that name."""
    fields = scene.site.payload()
    for version in fields["versions"]:
        version["wraps"] = [wrap for wrap in version["wraps"] if wrap["kek"] == "spare:m2"]
    scene.sign_and_put(fields)
    kms = scene.open("local:m1", authenticate_with=(scene.site.reference("auth"), "spare:m2"))
    watch = [Spy(kms, "spare", name) for name in ("wrap_key", "unwrap_key", "describe_key")]
    unwraps = Spy(kms, "local", "unwrap_key")
    for use in (MESSAGES["encrypt"], MESSAGES["decrypt"], RINGS["rewrap"]):
        with pytest.raises(KeyNotFound, match="add the KEK to unwrap_with"):
            use(kms, scene.messages[0])
    assert [spy.count for spy in (*watch, unwraps)] == [0, 0, 0, 0]


@pytest.mark.parametrize("moved", [1, 3])
def test_wrap_at_another_versions_place_opens_nowhere_though_it_is_signed(
    scene: Scene, moved: int
) -> None:
    """A wrap is bound to its version: the KEK itself refuses it elsewhere."""
    fields = scene.site.payload()
    other = fields["versions"][3 - moved]["wraps"]
    fields["versions"][moved - 1]["wraps"] = other
    scene.sign_and_put(fields)
    kms = scene.open()
    with pytest.raises(KMSError) as caught:
        kms.keys.decrypt("acme", scene.messages[moved - 1])
    assert type(caught.value).__name__ == "DecryptionFailed"
    kept = 4 - moved
    assert kms.keys.decrypt("acme", scene.messages[kept - 1]) == b"x"


# --- without end ------------------------------------------------------------------------------


def test_refusing_a_ring_costs_no_memory(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """However its payload would unfold, a few copies of its bytes are all that is made of it."""
    kms = scene.open()
    kms.keys.describe("acme")
    payload = b"[" + b"{}," * 80_000 + b"{}]"
    stored = StoredRing(scene.past[-1][:96] + payload, "1")
    Spy(kms, "local", "load_ring").instead = lambda _: stored
    with pytest.raises(RingRejected):
        kms.keys.describe("acme")
    tracemalloc.start()
    try:
        for use in RINGS.values():
            with pytest.raises(RingRejected):
                use(kms, b"")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 3 * len(payload)


def test_document_without_end_from_a_store_is_refused_unread(scene: Scene) -> None:
    """A backend may answer any size: what is larger than any ring is not even searched."""
    kms = scene.open()
    endless = StoredRing(scene.past[-1] + b" " * 50_000_000, "1")
    Spy(kms, "local", "load_ring").instead = lambda _: endless
    tracemalloc.start()
    try:
        for name, use in (MESSAGES | RINGS).items():
            with pytest.raises(RingRejected, match="larger than any ring"):
                use(kms, scene.messages[0])
            assert tracemalloc.get_traced_memory()[1] < 1_000_000, name
    finally:
        tracemalloc.stop()


@pytest.mark.soak
def test_no_splice_of_all_documents_is_accepted(scene: Scene) -> None:
    """Pieces of every document there ever was, put together at random, are never a ring."""
    chance = random.Random(seed())
    attacker = Attacker(scene)
    pool = [*attacker.past, *attacker.others.values(), attacker.appended(), attacker.renewed()]
    kms = scene.open()
    kms.keys.describe("acme")
    loads = Spy(kms, "local", "load_ring")
    watch = Watch(kms)
    for _ in range(scale(ci=3_000, soak=300_000)):
        spliced = _splice(chance, pool)
        if spliced == attacker.current:
            continue
        loads.instead = lambda _, document=spliced: StoredRing(document, "1")
        with pytest.raises(RingRejected):
            kms.keys.describe("acme")
    assert watch.asked == 0
    loads.instead = None
    assert kms.keys.describe("acme").sequence == 4


def _splice(chance: random.Random, pool: list[bytes]) -> bytes:
    """Return pieces of some documents, each from where the one before it ended, or not."""
    made, at = b"", 0
    for _ in range(chance.randint(1, 4)):
        source = chance.choice(pool)
        end = chance.choice([14, 31, 96, chance.randint(at, max(at, len(source))), len(source)])
        made += source[at:end]
        at = end if chance.random() < 0.8 else chance.randint(0, len(source))
    return made + chance.choice(pool)[at:] if chance.random() < 0.8 else made


# --- a refused ring and what is held ----------------------------------------------------------


def test_message_under_an_unknown_version_fails_on_a_refused_ring_and_no_other(
    scene: Scene,
) -> None:
    """The forced look is refused; messages under what is held go on, and it is tried again."""
    reader = Reader(scene, warm=True)
    elsewhere = scene.open()
    elsewhere.keys.rotate("acme")
    news = elsewhere.keys.encrypt("acme", b"new")
    newer = scene.site.document()
    scene.site.put(Attacker(scene).others["mallory"])
    with pytest.raises(RingRejected):
        reader.kms.keys.decrypt("acme", news)
    reader.uses_what_it_holds()
    assert salt_of(reader.kms.keys.encrypt("acme", b"x")) == reader.salt
    scene.site.put(newer)
    scene.site.clock.advance(1)
    assert reader.kms.keys.decrypt("acme", news) == b"new"


def test_refused_ring_is_never_coasted_over(scene: Scene) -> None:
    """Once it is due its tenant is out of use, past every TTL; it comes back with one unwrap."""
    good = scene.site.document()
    reader = Reader(scene, warm=True)
    scene.site.put(Attacker(scene).others["Acme"])
    for _ in range(10):
        scene.site.clock.advance(60)
        reader.refuses("its MAC is wrong")
    scene.site.put(good)
    sealed = reader.kms.keys.encrypt("acme", b"x")
    assert salt_of(sealed) != reader.salt
    assert reader.watch.asked == 1


def test_threads_that_meet_a_refused_ring_share_it_and_lose_nothing(scene: Scene) -> None:
    """All are told, the store is read once for those who come at once, and all go on after it."""
    good = scene.site.document()
    reader = Reader(scene, warm=True)
    acme = reader.kms.keys.tenant("acme")
    scene.site.put(Attacker(scene).others["Acme"])
    scene.site.clock.advance(60)

    def use(index: int) -> bytes:
        return acme.decrypt(scene.messages[0]) if index % 2 else acme.encrypt(b"x")

    outcomes = Crew(use, 50).join()
    assert {type(outcome) for outcome in outcomes} == {RingRejected}
    scene.site.put(good)
    in_threads(use, 50)
    assert salt_of(acme.encrypt(b"x")) == reader.salt
    assert reader.watch.asked == 0


def test_other_tenants_are_not_touched_by_a_refused_ring(scene: Scene) -> None:
    """Neither those that are held nor those that are read while it lies there."""
    kms = scene.open()
    message = kms.keys.encrypt("mallory", b"x")
    scene.site.put(b"nonsense")
    scene.site.clock.advance(60)
    for _ in range(3):
        with pytest.raises(RingRejected):
            kms.keys.encrypt("acme", b"x")
        assert kms.keys.decrypt("mallory", message) == b"x"
        assert kms.keys.decrypt("Acme", kms.keys.encrypt("Acme", b"x")) == b"x"
    assert kms.keys.rotate("mallory").primary == 2


# --- the authentication key is replaced -------------------------------------------------------


def uses(kms: KMS, message: bytes, tenant: str = "acme") -> list[Callable[[], Any]]:
    """Return every operation on a tenant's ring."""
    return [
        lambda: kms.keys.encrypt(tenant, b"x"),
        lambda: kms.keys.decrypt(tenant, message),
        lambda: kms.keys.describe(tenant),
        lambda: kms.keys.rotate(tenant),
        lambda: kms.keys.rewrap(tenant),
        lambda: kms.keys.create(tenant, exist_ok=True),
    ]


def test_old_rings_are_good_until_the_old_authentication_key_is_dropped(scene: Scene) -> None:
    """Every operation works on them; rewrapped ones go on without it, the others name both keys."""
    new, old = scene.site.reference("auth2"), scene.site.reference("auth")
    kept = scene.messages[0]
    between = scene.open(authenticate_with=(new, old))
    other = between.keys.encrypt("Acme", b"x")
    for use in uses(between, kept)[:3]:
        assert use()
    assert scene.site.document()[14:30] == scene.auth_key("auth").auth_id.encode()
    before = scene.site.document()
    info = between.keys.rewrap("acme")
    assert (info.sequence, info.primary) == (5, 3)
    assert scene.site.document()[14:30] == scene.auth_key("auth2").auth_id.encode()

    after = scene.open(authenticate_with=(new,))
    for use in uses(after, kept):
        assert use()
    watch = Watch(after)
    for use in uses(after, other, "Acme"):
        with pytest.raises(RingRejected) as caught:
            use()
        for told in ("auth", "auth2"):
            assert scene.auth_key(told).auth_id in str(caught.value)
        assert "another master key?" in str(caught.value)
    assert (watch.asked, watch.saved) == (0, 0)

    # Who kept the retired key can sign with it for nobody any more.
    scene.site.put(before)
    fresh = scene.open(authenticate_with=(new,))
    watch = Watch(fresh)
    for use in uses(fresh, kept):
        with pytest.raises(RingRejected, match="authenticated by a key with id"):
            use()
    assert (watch.asked, watch.saved) == (0, 0)
    assert scene.open(authenticate_with=(new, old)).keys.decrypt("Acme", other) == b"x"


def test_disabled_version_that_is_enabled_by_a_signer_is_the_design(scene: Scene) -> None:
    """The same edit, signed, is taken: states are the ring's, and the ring is its signer's."""
    with pytest.raises(KMSError, match="disabled"):
        scene.open().keys.decrypt("acme", scene.messages[1])
    scene.sign_and_put(with_state(scene.site.payload(), 2, "enabled"))
    assert scene.open().keys.decrypt("acme", scene.messages[1]) == b"x"
