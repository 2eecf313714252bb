"""Several KEKs: all wrap, any unwraps, none is asked that the configuration does not name."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from sentra_kms.backends.master_key import MasterKey
from sentra_kms.context import WrapContext
from sentra_kms.errors import (
    AccessDenied,
    KeyNotFound,
    KMSError,
    PluginError,
    RingRejected,
    ServiceUnavailable,
    TenantNotFound,
)
from sentra_kms.material import KeyMaterial
from sentra_kms.runtime import KMS
from tests.keys.conftest import Site, Spy, version_in

TWO = ("local:m1", "spare:m2")
AUTH = ("local:m1",)


def keks(kms: KMS, version: int = 1) -> list[str]:
    """Return the names of the KEKs that wrap a version of acme's ring."""
    found = kms.keys.describe("acme").versions[version - 1]
    return [wrap.kek for wrap in found.wraps]


def rewrite_wrap(site: Site, kek: str, ciphertext: bytes) -> None:
    """Store acme's ring with another ciphertext in the wrap of a KEK, rightly signed."""
    fields = site.payload()
    for wrap in fields["versions"][0]["wraps"]:
        if wrap["kek"] == kek:
            wrap["ciphertext"] = base64.b64encode(ciphertext).decode()
    site.forge(fields)


def wrap_of_another_key(site: Site, master: str) -> bytes:
    """Return a valid wrap of a key that is not acme's, at the place of acme's first version."""
    fields = site.payload()
    where = WrapContext("acme", base64.b64decode(fields["ring_id"]), 1)
    kek = MasterKey(KeyMaterial(site.secret(master)))
    return kek.wrap(KeyMaterial(b"another key of 32 bytes, not it."), where).ciphertext


def test_every_kek_wraps_and_each_alone_unwraps(key_site: Site) -> None:
    """A ring made under three KEKs is opened by a configuration that has any one of them."""
    three = (*TWO, "third:m3")
    kms = key_site.open(*three)
    kms.keys.create("acme")
    kms.keys.rotate("acme")
    assert keks(kms, 1) == keks(kms, 2) == list(three)
    messages = [kms.keys.encrypt("acme", b"2")]
    for kek in three:
        alone = key_site.open(kek, authenticate_with=AUTH)
        assert alone.keys.decrypt("acme", messages[0]) == b"2"


def test_wraps_name_the_keys_that_made_them(key_site: Site) -> None:
    """Each wrap records its own KEK's id, so that it can be told later which key is needed."""
    info = key_site.open(*TWO).keys.create("acme")
    ids = [wrap.key_id for wrap in info.versions[0].wraps]
    expected = [MasterKey(KeyMaterial(key_site.secret(name))).key_id for name in ("m1", "m2")]
    assert ids == expected


@pytest.mark.parametrize("failing", TWO)
def test_wrap_fails_if_one_kek_fails_and_nothing_is_saved(key_site: Site, failing: str) -> None:
    """Neither create nor rotate leaves a ring that one of the KEKs could not open."""
    kms = key_site.open(*TWO)
    wraps = Spy(kms, failing.partition(":")[0], "wrap_key")
    wraps.failure = ServiceUnavailable("down for maintenance")
    with pytest.raises(ServiceUnavailable, match="down for maintenance"):
        kms.keys.create("acme")
    with pytest.raises(TenantNotFound):
        kms.keys.describe("acme")
    wraps.failure = None
    kms.keys.create("acme")
    before = key_site.document()
    wraps.failure = ServiceUnavailable("down for maintenance")
    with pytest.raises(ServiceUnavailable):
        kms.keys.rotate("acme")
    assert key_site.document() == before
    assert version_in(kms.keys.encrypt("acme", b"x")) == 1


def test_unwrap_goes_by_the_configurations_order(key_site: Site) -> None:
    """The first KEK that answers is enough; the ring's order does not matter."""
    key_site.open(*TWO).keys.create("acme")
    kms = key_site.open(*reversed(TWO), authenticate_with=AUTH)
    first, second = Spy(kms, "spare", "unwrap_key"), Spy(kms, "local", "unwrap_key")
    kms.keys.encrypt("acme", b"x")
    assert (first.count, second.count) == (1, 0)


FAILURES: list[KMSError] = [
    ServiceUnavailable("unreachable"),
    KeyNotFound("the KEK was deleted"),
    PluginError("the plugin broke"),
    RingRejected("it answered with another key"),
]


@pytest.mark.parametrize("failure", FAILURES, ids=lambda failure: type(failure).__name__)
def test_a_kek_that_fails_is_passed_over(key_site: Site, failure: KMSError) -> None:
    """Gone, unreachable or broken: the next KEK opens the ring."""
    writer = key_site.open(*TWO)
    writer.keys.create("acme")
    message = writer.keys.encrypt("acme", b"x")
    kms = key_site.open(*TWO)
    Spy(kms, "local", "unwrap_key").failure = failure
    assert kms.keys.decrypt("acme", message) == b"x"


def test_when_no_kek_unwraps_all_are_told(key_site: Site) -> None:
    """One error names every KEK's reason, and is of the kind that is worth a retry if one is."""
    key_site.open(*TWO).keys.create("acme")
    kms = key_site.open(*TWO)
    Spy(kms, "local", "unwrap_key").failure = KeyNotFound("deleted long ago", subject="local:m1")
    Spy(kms, "spare", "unwrap_key").failure = ServiceUnavailable("asleep", subject="spare:m2")
    with pytest.raises(ServiceUnavailable) as caught:
        kms.keys.encrypt("acme", b"x")
    assert caught.value.retryable
    for told in ("local:m1", "deleted long ago", "spare:m2", "asleep"):
        assert told in str(caught.value)


def test_one_kek_that_cannot_unwrap_is_told_as_it_is(key_site: Site) -> None:
    """With a single KEK its own error comes up, once and unchanged."""
    key_site.open().keys.create("acme")
    kms = key_site.open()
    unwraps = Spy(kms, "local", "unwrap_key")
    unwraps.failure = ServiceUnavailable("asleep", backend="local")
    with pytest.raises(ServiceUnavailable, match=r"^asleep$") as caught:
        kms.keys.encrypt("acme", b"x")
    assert caught.value.backend == "local"
    assert unwraps.count == 1


def test_kek_that_only_the_ring_names_is_never_asked(key_site: Site) -> None:
    """The configuration decides: a KEK that it does not name is not used, though it is there."""
    writer = key_site.open(*TWO)
    writer.keys.create("acme")
    message = writer.keys.encrypt("acme", b"x")
    kms = key_site.open("spare:m2", authenticate_with=AUTH)
    asked = Spy(kms, "local", "unwrap_key")
    assert kms.keys.decrypt("acme", message) == b"x"
    failing = key_site.open("spare:m2", authenticate_with=AUTH)
    asked_too = Spy(failing, "local", "unwrap_key")
    Spy(failing, "spare", "unwrap_key").failure = ServiceUnavailable("down")
    with pytest.raises(ServiceUnavailable):
        failing.keys.decrypt("acme", message)
    assert asked.count == asked_too.count == 0


def test_ring_that_no_configured_kek_wraps_says_which_one_to_add(key_site: Site) -> None:
    """The error names the ring's KEKs and the configuration's, and asks nobody."""
    key_site.open().keys.create("acme")
    kms = key_site.open("spare:m2", authenticate_with=AUTH)
    spies = [Spy(kms, name, "unwrap_key") for name in ("local", "spare")]
    with pytest.raises(KeyNotFound) as caught:
        kms.keys.encrypt("acme", b"x")
    for told in ("local:m1", "spare:m2", "add the KEK to unwrap_with"):
        assert told in str(caught.value)
    assert [spy.count for spy in spies] == [0, 0]


def test_key_that_does_not_fit_its_check_value_is_refused(key_site: Site) -> None:
    """A wrap of another key, valid in itself, is found out and never used."""
    kms = key_site.open()
    kms.keys.create("acme")
    message = kms.keys.encrypt("acme", b"x")
    rewrite_wrap(key_site, "local:m1", wrap_of_another_key(key_site, "m1"))
    fresh = key_site.open()
    uses: list[Any] = [
        lambda: fresh.keys.encrypt("acme", b"x"),
        lambda: fresh.keys.decrypt("acme", message),
    ]
    for use in uses:
        with pytest.raises(RingRejected, match="its check value differs") as caught:
            use()
        assert "local:m1" in str(caught.value)


def test_two_wraps_of_different_keys_do_not_split_the_fleet(key_site: Site) -> None:
    """Whoever has the other KEK is refused, whoever has both gets the one right key."""
    writer = key_site.open(*TWO)
    writer.keys.create("acme")
    message = writer.keys.encrypt("acme", b"x")
    rewrite_wrap(key_site, "spare:m2", wrap_of_another_key(key_site, "m2"))
    with pytest.raises(RingRejected, match="check value differs"):
        key_site.open("spare:m2", authenticate_with=AUTH).keys.encrypt("acme", b"x")
    for order in (TWO, tuple(reversed(TWO))):
        both = key_site.open(*order, authenticate_with=AUTH)
        assert both.keys.decrypt("acme", message) == b"x"


@pytest.mark.parametrize(
    "ciphertext", [b"x", bytes(69), b"SKW\x01\x00" + bytes(64), b"SKW\x01\x01" + bytes(64)]
)
def test_broken_wrap_is_passed_over_if_another_opens(key_site: Site, ciphertext: bytes) -> None:
    """A wrap that is no wrap fails alone, and the ring opens under the second KEK."""
    key_site.open(*TWO).keys.create("acme")
    rewrite_wrap(key_site, "local:m1", ciphertext)
    key_site.open(*TWO).keys.encrypt("acme", b"x")
    with pytest.raises(KMSError) as caught:
        key_site.open("local:m1").keys.encrypt("acme", b"x")
    assert type(caught.value).__name__ == "DecryptionFailed"


def test_wrap_moved_to_another_version_does_not_open(key_site: Site) -> None:
    """A wrap is bound to its version: put at another's place it is refused."""
    kms = key_site.open()
    kms.keys.create("acme")
    kms.keys.rotate("acme")
    fields = key_site.payload()
    one, two = fields["versions"]
    one["wraps"], two["wraps"] = two["wraps"], one["wraps"]
    key_site.forge(fields)
    with pytest.raises(KMSError) as caught:
        key_site.open().keys.encrypt("acme", b"x")
    assert type(caught.value).__name__ == "DecryptionFailed"


def test_another_master_key_under_the_same_name_is_named_by_its_id(key_site: Site) -> None:
    """The error tells the id of the key that wrapped and of the one that is there now."""
    auth = (key_site.reference("auth"),)
    info = key_site.open(authenticate_with=auth).keys.create("acme")
    (key_site.home / "m1.secret").unlink()
    now = MasterKey(KeyMaterial(key_site.secret("m1"))).key_id
    with pytest.raises(KeyNotFound) as caught:
        key_site.open(authenticate_with=auth).keys.encrypt("acme", b"x")
    for told in (info.versions[0].wraps[0].key_id, now, "'local:m1'", "unwrap_with"):
        assert told in str(caught.value)


# --- rewrap -----------------------------------------------------------------------------------


def test_rewrap_changes_nothing_when_nothing_is_to_do(key_site: Site) -> None:
    """A ring that is as the configuration wants it is neither wrapped nor saved again."""
    kms = key_site.open(*TWO)
    kms.keys.create("acme")
    kms.keys.rotate("acme")
    before = key_site.document()
    spies = [
        Spy(kms, backend, name) for backend in ("local", "spare") for name in ("wrap_key",)
    ] + [Spy(kms, "local", "save_ring"), Spy(kms, "local", "unwrap_key")]
    assert kms.keys.rewrap("acme") == kms.keys.describe("acme")
    assert key_site.document() == before
    assert [spy.count for spy in spies] == [0, 0, 0, 0]


def test_rewrap_adds_a_kek_and_keeps_the_wraps_that_are_current(key_site: Site) -> None:
    """The keys stay the same; each version opens under the new KEK alone."""
    kms = key_site.open()
    kms.keys.create("acme")
    messages = [kms.keys.encrypt("acme", b"1")]
    kms.keys.rotate("acme", request_id="r")
    messages.append(kms.keys.encrypt("acme", b"2"))
    before = key_site.payload()
    wider = key_site.open(*TWO)
    info = wider.keys.rewrap("acme")
    after = key_site.payload()
    assert keks(wider, 1) == keks(wider, 2) == list(TWO)
    assert (info.sequence, info.primary, info.ring_id) == (3, 2, kms.keys.describe("acme").ring_id)
    for old, new in zip(before["versions"], after["versions"], strict=True):
        assert new["wraps"][0] == old["wraps"][0]
        assert {**new, "wraps": None} == {**old, "wraps": None}
    alone = key_site.open("spare:m2", authenticate_with=AUTH)
    assert alone.keys.decrypt_many("acme", messages) == [b"1", b"2"]


BAD_WRAPS = ["another key", "no wrap"]


def spoil(site: Site, kek: str, how: str) -> None:
    """Store acme's ring with a wrap that is current by its KEK's id and does not open."""
    master = kek.partition(":")[2]
    bad = wrap_of_another_key(site, master) if how == "another key" else b"SKW\x01\x00" + bytes(64)
    rewrite_wrap(site, kek, bad)


@pytest.mark.parametrize("how", BAD_WRAPS)
def test_rewrap_does_not_drop_the_last_wrap_that_opens(key_site: Site, how: str) -> None:
    """When a KEK is retired, the wrap that stays must open, or is made anew while it can be."""
    writer = key_site.open(*TWO)
    writer.keys.create("acme")
    message = writer.keys.encrypt("acme", b"x")
    spoil(key_site, "local:m1", how)
    narrow = key_site.open("local:m1", unwrap_with=("spare:m2",), authenticate_with=AUTH)
    narrow.keys.rewrap("acme")
    assert keks(narrow) == ["local:m1"]
    assert key_site.open("local:m1").keys.decrypt("acme", message) == b"x"


@pytest.mark.parametrize("how", BAD_WRAPS)
@pytest.mark.parametrize("bad", TWO)
def test_rewrap_mends_a_wrap_that_does_not_open(key_site: Site, bad: str, how: str) -> None:
    """A KEK that is added brings every version to wraps that each open alone."""
    writer = key_site.open(*TWO)
    writer.keys.create("acme")
    message = writer.keys.encrypt("acme", b"x")
    spoil(key_site, bad, how)
    three = (*TWO, "third:m3")
    key_site.open(*three).keys.rewrap("acme")
    for kek in three:
        alone = key_site.open(kek, authenticate_with=AUTH)
        assert alone.keys.decrypt("acme", message) == b"x"


def test_rewrap_saves_nothing_while_a_wrap_that_stays_cannot_be_tried(key_site: Site) -> None:
    """A KEK that is out of reach might hold a bad wrap: the others are not dropped for it."""
    writer = key_site.open(*TWO)
    writer.keys.create("acme")
    before = key_site.document()
    narrow = key_site.open("local:m1", unwrap_with=("spare:m2",), authenticate_with=AUTH)
    for operation in ("wrap_key", "unwrap_key"):
        Spy(narrow, "local", operation).failure = ServiceUnavailable("down")
    with pytest.raises(ServiceUnavailable):
        narrow.keys.rewrap("acme")
    assert key_site.document() == before


@pytest.mark.parametrize("fault", ["denied", "another key"])
def test_rewrap_does_not_drop_what_opens_for_what_was_never_tried(
    key_site: Site, fault: str
) -> None:
    """A KEK that cannot unwrap what it wraps, by its rights or another key, takes over nothing."""
    writer = key_site.open("local:m1")
    writer.keys.create("acme")
    message = writer.keys.encrypt("acme", b"x")
    before = key_site.document()
    narrow = key_site.open("spare:m2", unwrap_with=("local:m1",), authenticate_with=AUTH)
    if fault == "denied":
        Spy(narrow, "spare", "unwrap_key").failure = AccessDenied("you may encrypt only")
    else:
        spy = Spy(narrow, "spare", "wrap_key")
        spy.instead = lambda key, _, where: spy._original(key, KeyMaterial(bytes(32)), where)
    told = "nothing was changed, since no KEK opens what it has just wrapped of 'acme'"
    with pytest.raises(AccessDenied if fault == "denied" else RingRejected, match=told):
        narrow.keys.rewrap("acme")
    assert key_site.document() == before
    assert key_site.open("local:m1").keys.decrypt("acme", message) == b"x"


@pytest.mark.parametrize("sealed", TWO)
def test_rewrap_lets_a_kek_wrap_that_is_kept_for_an_emergency(key_site: Site, sealed: str) -> None:
    """Its key to unwrap may lie in a safe, as long as another one of those that take over opens."""
    key_site.open("third:m3").keys.create("acme")
    config = {"unwrap_with": ("third:m3",), "authenticate_with": ("third:m3",)}
    kms = key_site.open(*TWO, **config)
    Spy(kms, sealed.partition(":")[0], "unwrap_key").failure = AccessDenied("it is in the safe")
    kms.keys.rewrap("acme")
    assert keks(kms) == list(TWO)
    assert kms.keys.decrypt("acme", kms.keys.encrypt("acme", b"x")) == b"x"


def test_rewrap_drops_a_kek_that_no_longer_wraps(key_site: Site) -> None:
    """Wraps of KEKs outside wrap_with are erased from every version."""
    kms = key_site.open(*TWO)
    kms.keys.create("acme")
    kms.keys.rotate("acme")
    message = kms.keys.encrypt("acme", b"x")
    narrow = key_site.open("spare:m2", authenticate_with=AUTH)
    narrow.keys.rewrap("acme")
    assert keks(narrow, 1) == keks(narrow, 2) == ["spare:m2"]
    assert narrow.keys.decrypt("acme", message) == b"x"
    with pytest.raises(KeyNotFound):
        key_site.open("local:m1").keys.encrypt("acme", b"x")


@pytest.mark.parametrize("wrapped_by", [("local:m1",), TWO])
def test_rewrap_mends_what_was_missing(key_site: Site, wrapped_by: tuple[str, ...]) -> None:
    """Once all KEKs of wrap_with have wrapped a version, none is recorded as missing."""
    key_site.open(*wrapped_by, authenticate_with=AUTH).keys.create("acme")
    fields = key_site.payload()
    fields["versions"][0]["missing"] = ["spare:m2", "gone:k"]
    key_site.forge(fields)
    kms = key_site.open(*TWO, authenticate_with=AUTH)
    assert kms.keys.describe("acme").versions[0].missing == ("spare:m2", "gone:k")
    (version,) = kms.keys.rewrap("acme").versions
    assert version.missing == ()
    assert keks(kms, 1) == list(TWO)
    sequence = kms.keys.describe("acme").sequence
    assert kms.keys.rewrap("acme").sequence == sequence  # nothing more to do


def test_rewrap_covers_disabled_versions_and_leaves_destroyed_ones(key_site: Site) -> None:
    """What may be enabled again is wrapped anew; what is destroyed stays without wraps."""
    kms = key_site.open()
    kms.keys.create("acme")
    for _ in range(4):
        kms.keys.rotate("acme")
    states = ["disabled", "scheduled", "destroyed", "enabled", "enabled"]
    for number, state in enumerate(states, 1):
        key_site.set_state(number, state)
    wider = key_site.open(*TWO)
    info = wider.keys.rewrap("acme")
    assert [version.state for version in info.versions] == states
    assert [len(version.wraps) for version in info.versions] == [2, 2, 0, 2, 2]


def test_rewrap_that_fails_midway_saves_nothing(key_site: Site) -> None:
    """When a KEK fails at the third of three versions, the stored ring is the old one."""
    kms = key_site.open()
    kms.keys.create("acme")
    kms.keys.rotate("acme")
    kms.keys.rotate("acme")
    before = key_site.document()
    wider = key_site.open(*TWO)
    wraps = Spy(wider, "spare", "wrap_key")

    def fail_third() -> None:
        if wraps.count == 3:
            wraps.failure = ServiceUnavailable("down")

    wraps.before = fail_third
    with pytest.raises(ServiceUnavailable):
        wider.keys.rewrap("acme")
    assert key_site.document() == before


def test_rewrap_needs_a_kek_that_unwraps(key_site: Site) -> None:
    """Without one the ring is left as it is."""
    key_site.open().keys.create("acme")
    before = key_site.document()
    with pytest.raises(KeyNotFound, match="unwrap_with"):
        key_site.open("spare:m2", authenticate_with=AUTH).keys.rewrap("acme")
    assert key_site.document() == before


def test_rewrap_does_not_disturb_a_warm_process(key_site: Site) -> None:
    """Keys held in memory stay good over a rewrap, here and elsewhere."""
    kms = key_site.open(*TWO, authenticate_with=AUTH)
    kms.keys.create("acme")
    message = kms.keys.encrypt("acme", b"x")
    unwraps = Spy(kms, "local", "unwrap_key")
    key_site.open("spare:m2", authenticate_with=AUTH).keys.rewrap("acme")
    key_site.clock.advance(60)
    assert kms.keys.decrypt("acme", message) == b"x"
    assert version_in(kms.keys.encrypt("acme", b"x")) == 1
    assert unwraps.count == 0


def test_master_key_is_retired_end_to_end(key_site: Site) -> None:
    """New KEK wraps, the old one unwraps, rewrap, and the old one is not needed any more."""
    old = key_site.open("local:m1")
    messages = {}
    for tenant in ("acme", "other"):
        old.keys.create(tenant)
        messages[tenant] = [old.keys.encrypt(tenant, b"1")]
        old.keys.rotate(tenant)
        messages[tenant].append(old.keys.encrypt(tenant, b"2"))

    between = key_site.open("local:m2", unwrap_with=("local:m1",))
    for tenant in ("acme", "other"):
        assert between.keys.decrypt_many(tenant, messages[tenant]) == [b"1", b"2"]
        between.keys.rotate(tenant)
        messages[tenant].append(between.keys.encrypt(tenant, b"3"))
    for tenant in between.keys.tenants():
        info = between.keys.rewrap(tenant)
        assert {wrap.kek for version in info.versions for wrap in version.wraps} == {"local:m2"}

    (key_site.home / "m1.secret").unlink()
    new = key_site.open("local:m2")
    for tenant in ("acme", "other"):
        assert new.keys.decrypt_many(tenant, messages[tenant]) == [b"1", b"2", b"3"]
        assert new.keys.rotate(tenant).primary == 4
    assert not (key_site.home / "m1.secret").exists()


def test_retired_master_key_is_refused_before_the_rewrap(key_site: Site) -> None:
    """Taking the old key away too early is an error that names it, and loses nothing."""
    old = key_site.open("local:m1")
    old.keys.create("acme")
    message = old.keys.encrypt("acme", b"x")
    early = key_site.open("local:m2")
    for use in (
        lambda: early.keys.decrypt("acme", message),
        lambda: early.keys.rotate("acme"),
        lambda: early.keys.rewrap("acme"),
    ):
        with pytest.raises(RingRejected, match="another master key"):
            use()
    assert key_site.open("local:m1").keys.decrypt("acme", message) == b"x"
