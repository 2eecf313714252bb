"""Key rings: create, rotate, describe, list; no tenant is ever made implicitly."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from sentra_kms.config import read_settings
from sentra_kms.errors import (
    AlreadyExists,
    ConfigurationError,
    Conflict,
    KMSError,
    MalformedInput,
    RingRejected,
    ServiceUnavailable,
    TenantNotFound,
    UnsupportedOperation,
)
from sentra_kms.keys import changes, store
from sentra_kms.runtime import KMS
from tests.keys.conftest import (
    Site,
    Spy,
    in_threads,
    memory_config,
    version_in,
)

USES: dict[str, Callable[[KMS], object]] = {
    "encrypt": lambda kms: kms.keys.encrypt("nobody", b"x"),
    "decrypt": lambda kms: kms.keys.decrypt("nobody", b"SK\x01\x01" + bytes(92)),
    "encrypt_many": lambda kms: kms.keys.encrypt_many("nobody", [b"x"]),
    "decrypt_many": lambda kms: kms.keys.decrypt_many("nobody", [b"SK\x01\x01" + bytes(92)]),
    "rotate": lambda kms: kms.keys.rotate("nobody"),
    "rotate with a request": lambda kms: kms.keys.rotate("nobody", request_id="r"),
    "rewrap": lambda kms: kms.keys.rewrap("nobody"),
    "describe": lambda kms: kms.keys.describe("nobody"),
}


@pytest.mark.parametrize("use", USES.values(), ids=USES)
@pytest.mark.parametrize("others", [[], ["acme"]], ids=["empty store", "others there"])
def test_tenant_that_was_not_created_is_not_found(
    key_site: Site, use: Callable[[KMS], object], others: list[str]
) -> None:
    """Nothing makes a tenant implicitly, not even the key directory for it."""
    kms = key_site.open()
    for name in others:
        kms.keys.create(name)
    with pytest.raises(TenantNotFound) as caught:
        use(kms)
    assert "create" in str(caught.value)
    assert caught.value.subject == "nobody"
    assert caught.value.backend == "local"
    assert list(kms.keys.tenants()) == others
    assert key_site.directory.exists() == bool(others)


def test_create_makes_a_ring_of_one_version(key_site: Site) -> None:
    """The first version is 1, primary, enabled, generated, and wrapped by the configured KEK."""
    before = datetime.now(UTC).replace(microsecond=0)
    kms = key_site.open()
    info = kms.keys.create("acme")
    (version,) = info.versions
    assert (info.tenant, info.sequence, info.policy, info.primary) == ("acme", 1, "default", 1)
    assert len(bytes.fromhex(info.ring_id)) == 12
    assert (version.version, version.state, version.origin) == (1, "enabled", "generated")
    assert before <= version.created <= datetime.now(UTC)
    assert version.created.tzinfo == UTC
    assert (version.request, version.destroy_after, version.missing) == (None, None, ())
    assert [(wrap.kek, wrap.key_version) for wrap in version.wraps] == [("local:m1", None)]
    assert kms.keys.describe("acme") == info
    assert key_site.open().keys.describe("acme") == info


def test_created_time_is_the_clocks() -> None:
    """The wall clock given to the KMS is what rings record, to the second."""
    with KMS(read_settings(memory_config(), "test"), clock=lambda: 1_000_000_000.9) as kms:
        (version,) = kms.keys.create("acme").versions
    assert version.created == datetime(2001, 9, 9, 1, 46, 40, tzinfo=UTC)


def test_create_again_is_refused_and_changes_nothing(key_site: Site) -> None:
    """AlreadyExists leaves the ring as it was, in this process and in another."""
    kms = key_site.open()
    kms.keys.create("acme")
    message = kms.keys.encrypt("acme", b"x")
    before = key_site.document()
    for opened in (kms, key_site.open()):
        with pytest.raises(AlreadyExists, match="tenant 'acme' has a key ring already") as caught:
            opened.keys.create("acme")
        assert caught.value.subject == "acme"
    assert key_site.document() == before
    assert kms.keys.decrypt("acme", message) == b"x"


def test_create_with_exist_ok_describes_what_is_there(key_site: Site) -> None:
    """It makes the ring once, and later gives the one that is there, versions and all."""
    kms = key_site.open()
    made = kms.keys.create("acme", exist_ok=True)
    assert made.primary == 1
    rotated = kms.keys.rotate("acme")
    before = key_site.document()
    assert key_site.open().keys.create("acme", exist_ok=True) == rotated
    assert key_site.document() == before


def test_create_does_not_cover_a_ring_that_is_refused(key_site: Site) -> None:
    """A damaged ring is neither overwritten nor passed over, with exist_ok or without."""
    key_site.open().keys.create("acme")
    key_site.put(key_site.document()[:-1])
    damaged = key_site.document()
    with pytest.raises(RingRejected):
        key_site.open().keys.create("acme", exist_ok=True)
    with pytest.raises((AlreadyExists, RingRejected)):
        key_site.open().keys.create("acme")
    assert key_site.document() == damaged


def test_unknown_policy_is_refused(memory_kms: KMS) -> None:
    """Only `default` is there; nothing is made under another name."""
    with pytest.raises(ConfigurationError, match="no policy 'gold'"):
        memory_kms.keys.create("new", policy="gold")
    assert "new" not in list(memory_kms.keys.tenants())
    assert memory_kms.keys.create("new", policy="default").policy == "default"


BAD_TENANTS = {
    "empty": "",
    "slash": "a/b",
    "parent": "..",
    "parent within": "../acme",
    "leading dot": ".acme",
    "leading dash": "-acme",
    "NUL": "ac\0me",
    "newline": "acme\n",
    "space": "ac me",
    "non-ASCII letter": "café",
    "non-ASCII digit": "acme\u0663",
    "equals sign": "=acme",
    "too long": "a" * 121,
    "bytes": b"acme",
    "number": 7,
    "None": None,
    "subclass of str": type("Text", (str,), {})("acme"),
}


@pytest.mark.parametrize("tenant", BAD_TENANTS.values(), ids=BAD_TENANTS)
def test_bad_tenant_id_is_malformed_everywhere(memory_kms: KMS, tenant: Any) -> None:
    """The rule holds wherever an id enters, before any backend is asked."""
    keys = memory_kms.keys
    spies = [Spy(memory_kms, "memory", name) for name in ("load_ring", "save_ring", "wrap_key")]
    uses: list[Callable[[], object]] = [
        lambda: keys.create(tenant),
        lambda: keys.create(tenant, exist_ok=True),
        lambda: keys.tenant(tenant),
        lambda: keys.encrypt(tenant, b"x"),
        lambda: keys.decrypt(tenant, bytes(96)),
        lambda: keys.encrypt_many(tenant, []),
        lambda: keys.decrypt_many(tenant, []),
        lambda: keys.rotate(tenant),
        lambda: keys.rewrap(tenant),
        lambda: keys.describe(tenant),
    ]
    for use in uses:
        with pytest.raises(MalformedInput, match="tenant id"):
            use()
    assert [spy.count for spy in spies] == [0, 0, 0]


def test_ids_that_differ_in_case_are_two_tenants(key_site: Site) -> None:
    """Each has its own ring and key, and neither opens the other's messages."""
    kms = key_site.open()
    for tenant in ("acme", "Acme", "ACME", "aCME"):
        kms.keys.create(tenant)
    message = kms.keys.encrypt("Acme", b"x")
    for tenant in ("acme", "ACME", "aCME"):
        with pytest.raises(KMSError):
            kms.keys.decrypt(tenant, message)
    assert key_site.open().keys.decrypt("Acme", message) == b"x"
    assert sorted(kms.keys.tenants()) == ["ACME", "Acme", "aCME", "acme"]
    names = [path.name.lower() for path in key_site.directory.glob("*.ring")]
    assert len(set(names)) == 4


@pytest.mark.parametrize("tenant", ["a", "9", "A" * 120, "Z" + "._-" * 39 + "zz"])
def test_shortest_and_longest_ids_work(key_site: Site, tenant: str) -> None:
    """120 upper-case letters have the longest file names, and all of it works on a disk."""
    kms = key_site.open()
    kms.keys.create(tenant)
    message = kms.keys.encrypt(tenant, b"x")
    kms.keys.rotate(tenant)
    assert key_site.open().keys.decrypt(tenant, message) == b"x"
    assert list(kms.keys.tenants()) == [tenant]


# --- rotate -----------------------------------------------------------------------------------


def test_rotate_moves_the_primary_and_keeps_the_old_versions(key_site: Site) -> None:
    """New messages are under the new version; messages of every earlier one still open."""
    kms = key_site.open()
    kms.keys.create("acme")
    messages = [kms.keys.encrypt("acme", b"1")]
    for number in (2, 3, 4):
        info = kms.keys.rotate("acme")
        assert info.primary == number
        assert info.sequence == number
        assert [version.version for version in info.versions] == list(range(1, number + 1))
        assert all(version.state == "enabled" for version in info.versions)
        messages.append(kms.keys.encrypt("acme", str(number).encode()))
    assert [version_in(message) for message in messages] == [1, 2, 3, 4]
    for opened in (kms, key_site.open()):
        assert opened.keys.decrypt_many("acme", messages) == [b"1", b"2", b"3", b"4"]


def test_rotate_leaves_earlier_versions_untouched(key_site: Site) -> None:
    """Check value, wraps and times of a version do not change when another is added."""
    kms = key_site.open()
    kms.keys.create("acme")
    before = key_site.payload()
    kms.keys.rotate("acme")
    after = key_site.payload()
    assert after["versions"][0] == before["versions"][0]
    assert after["ring_id"] == before["ring_id"]
    assert after["versions"][1]["check"] != before["versions"][0]["check"]


def test_numbers_go_on_after_a_gap(key_site: Site) -> None:
    """The next version is one above the highest, whichever is primary."""
    kms = key_site.open()
    kms.keys.create("acme")
    kms.keys.rotate("acme")
    fields = key_site.payload()
    fields["primary"] = 1
    key_site.forge(fields)
    assert kms.keys.rotate("acme").primary == 3


def test_extensions_are_kept_over_a_save(key_site: Site) -> None:
    """What a later version of the software wrote is saved again, value and name."""
    kms = key_site.open()
    kms.keys.create("acme")
    extensions = {"x-later": {"b": [1, 2.5, None], "a": "é"}, "x-": False}
    key_site.forge({**key_site.payload(), "extensions": extensions})
    kms.keys.rotate("acme")
    assert key_site.payload()["extensions"] == extensions


def test_rotate_with_a_request_id_makes_one_version(key_site: Site) -> None:
    """A retry gives the same ring, in this process, in another, and after other rotations."""
    kms = key_site.open()
    kms.keys.create("acme")
    first = kms.keys.rotate("acme", request_id="r-1")
    assert first.versions[1].request == "r-1"
    assert kms.keys.rotate("acme", request_id="r-1") == first
    assert key_site.open().keys.rotate("acme", request_id="r-1") == first
    assert kms.keys.rotate("acme", request_id="r-2").primary == 3
    assert kms.keys.rotate("acme").primary == 4
    before = key_site.document()
    assert key_site.open().keys.rotate("acme", request_id="r-1").primary == 4
    assert key_site.document() == before


def test_request_ids_are_a_tenants_own(memory_kms: KMS) -> None:
    """The same request id rotates two tenants."""
    assert memory_kms.keys.rotate("acme", request_id="r").primary == 2
    assert memory_kms.keys.rotate("other", request_id="r").primary == 2


def test_retries_at_once_make_one_version(key_site: Site) -> None:
    """Threads of two processes' worth of KMS retry one request together: one version."""
    opened = [key_site.open(), key_site.open()]
    opened[0].keys.create("acme")
    infos: list[Any] = in_threads(
        lambda index: opened[index % 2].keys.rotate("acme", request_id="once"), 8
    )
    assert {info.primary for info in infos} == {2}
    assert [version.request for version in opened[0].keys.describe("acme").versions] == [
        None,
        "once",
    ]


@pytest.mark.parametrize("request_id", ["", "r" * 257, "\ud800", 7, b"r"])
def test_bad_request_id_is_malformed(memory_kms: KMS, request_id: Any) -> None:
    """A request id is text of 1 to 256 characters that JSON can hold; nothing is saved."""
    with pytest.raises(MalformedInput, match="request id"):
        memory_kms.keys.rotate("acme", request_id=request_id)
    assert memory_kms.keys.describe("acme").primary == 1


@pytest.mark.parametrize("request_id", ["r", "r" * 256, 'é "quoted"\n\0', "😀" * 256])
def test_any_other_text_is_a_request_id(key_site: Site, request_id: str) -> None:
    """It comes back as it was given."""
    kms = key_site.open()
    kms.keys.create("acme")
    kms.keys.rotate("acme", request_id=request_id)
    assert key_site.open().keys.rotate("acme", request_id=request_id).primary == 2
    assert kms.keys.describe("acme").versions[1].request == request_id


def test_lost_races_are_tried_again(memory_kms: KMS) -> None:
    """A conflict makes rotate read the ring anew and add its version to what is there then."""
    saves = Spy(memory_kms, "memory", "save_ring")
    losses = [1, 2, 3]

    def somebody_else_first() -> None:
        if losses:
            losses.pop()
            saves.before = None
            memory_kms.keys.rotate("acme")
            saves.before = somebody_else_first

    saves.before = somebody_else_first
    info = memory_kms.keys.rotate("acme")
    assert info.primary == 5
    assert saves.count == 7
    assert len(info.versions) == 5


def test_races_lost_for_too_long_are_a_conflict(
    memory_kms: KMS, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a bounded time of conflicts rotate gives up and says that a retry may do."""
    monkeypatch.setattr(changes, "_SAVE_TIME", 0.1)
    saves = Spy(memory_kms, "memory", "save_ring")
    saves.failure = Conflict("somebody else was first")
    with pytest.raises(Conflict) as caught:
        memory_kms.keys.rotate("acme")
    assert caught.value.retryable
    assert saves.count > 1
    saves.failure = None
    assert memory_kms.keys.rotate("acme").primary == 2


def test_failed_save_leaves_the_old_version_in_use(memory_kms: KMS) -> None:
    """A version that was not stored is never used to encrypt."""
    saves = Spy(memory_kms, "memory", "save_ring")
    saves.failure = ServiceUnavailable("the disk is full")
    with pytest.raises(ServiceUnavailable):
        memory_kms.keys.rotate("acme")
    assert version_in(memory_kms.keys.encrypt("acme", b"x")) == 1
    with pytest.raises(ServiceUnavailable):
        memory_kms.keys.create("new")
    with pytest.raises(TenantNotFound):
        memory_kms.keys.encrypt("new", b"x")


# --- rings that this version does not serve ---------------------------------------------------

REFUSALS: dict[str, tuple[dict[str, object], type[KMSError], str]] = {
    "moved": ({"moved_to": "vault"}, UnsupportedOperation, "has moved to 'vault'"),
    "policy": ({"policy": "gold"}, ConfigurationError, "no policy 'gold', which 'acme' follows"),
}


@pytest.mark.parametrize(("change", "kind", "told"), REFUSALS.values(), ids=REFUSALS)
def test_ring_that_moved_or_follows_a_policy_is_refused(
    key_site: Site, change: dict[str, object], kind: type[KMSError], told: str
) -> None:
    """It is neither used nor changed, and the error says why."""
    kms = key_site.open()
    kms.keys.create("acme")
    message = kms.keys.encrypt("acme", b"x")
    key_site.forge({**key_site.payload(), **change})
    before = key_site.document()
    fresh = key_site.open()
    uses: list[Callable[[], object]] = [
        lambda: fresh.keys.encrypt("acme", b"x"),
        lambda: fresh.keys.decrypt("acme", message),
        lambda: fresh.keys.rotate("acme"),
        lambda: fresh.keys.rewrap("acme"),
    ]
    for use in uses:
        with pytest.raises(kind, match=told):
            use()
    assert key_site.document() == before


# --- listing ----------------------------------------------------------------------------------


def test_tenants_lists_each_once_over_many_pages(
    key_site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The listing is whole however small the store's pages are, and empty without a directory."""
    monkeypatch.setattr(store, "_PAGE", 2)
    kms = key_site.open()
    assert list(kms.keys.tenants()) == []
    names = ["a", "B", "c1", "C1", "d.e", "f-g", "z_z"]
    for name in names:
        kms.keys.create(name)
    assert list(kms.keys.tenants()) == sorted(names)


def test_tenants_made_while_listing_do_not_disturb_it(
    key_site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was there at the start is listed once, whatever is made meanwhile."""
    monkeypatch.setattr(store, "_PAGE", 2)
    kms = key_site.open()
    for name in ("b", "d", "f", "h"):
        kms.keys.create(name)
    found = []
    for count, name in enumerate(kms.keys.tenants()):
        found.append(name)
        kms.keys.create(f"{'ace'[count % 3]}{count}")
    assert [name for name in found if len(name) == 1] == ["b", "d", "f", "h"]
    assert len(found) == len(set(found))


def test_memory_store_lists_in_pages_too(memory_kms: KMS, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both built-in stores page alike."""
    monkeypatch.setattr(store, "_PAGE", 1)
    memory_kms.keys.create("B")
    assert list(memory_kms.keys.tenants()) == ["B", "acme", "other"]
