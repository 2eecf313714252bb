"""The memory backend: KEKs that are made at their first wrap, and rings in a dict."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

import pytest

from sentra_kms.backends import memory
from sentra_kms.backends.memory import MemoryKeys, MemoryRings
from sentra_kms.context import WrapContext
from sentra_kms.errors import (
    Conflict,
    DecryptionFailed,
    KeyNotFound,
    KMSError,
    MalformedInput,
    SecretNotFound,
    ServiceUnavailable,
    TenantNotFound,
)
from sentra_kms.hooktypes import Host, SecretRequest
from sentra_kms.material import KeyMaterial
from sentra_kms.reference import Reference
from tests.backends.hosts import fetch, make_host

WHERE = WrapContext("acme", bytes(12), 1)
KEY = KeyMaterial(bytes(range(32)))


def parts(host: Host) -> tuple[MemoryKeys, MemoryRings]:
    """Return both parts over a host."""
    keys, rings = memory.create(memory.MemorySettings(), host)
    assert isinstance(keys, MemoryKeys)
    assert isinstance(rings, MemoryRings)
    return keys, rings


@pytest.fixture
def keys() -> MemoryKeys:
    """Return a keys part without KEKs."""
    return parts(make_host("mem"))[0]


@pytest.fixture
def rings() -> MemoryRings:
    """Return a rings part without rings."""
    return parts(make_host("mem"))[1]


def test_type_is_for_development_only() -> None:
    """The core refuses the type elsewhere."""
    assert memory.backend_type().development_only is True


# --- KEKs --------------------------------------------------------------------------------------


def test_round_trip(keys: MemoryKeys) -> None:
    """What was wrapped is unwrapped under the same KEK and context."""
    wrapped = keys.wrap_key("k", KEY, WHERE, 5.0)
    assert KEY.reveal() not in wrapped.ciphertext
    assert wrapped.key_id == keys.describe_key("k", 5.0).key_id
    assert wrapped.key_version is None
    assert keys.unwrap_key("k", wrapped, WHERE, 5.0) == KEY


@pytest.mark.parametrize(
    "where",
    [
        WrapContext("other", bytes(12), 1),
        WrapContext("acme", bytes(11) + b"\x01", 1),
        WrapContext("acme", bytes(12), 2),
    ],
)
def test_context_is_bound(keys: MemoryKeys, where: WrapContext) -> None:
    """Another tenant, ring or version does not open it."""
    wrapped = keys.wrap_key("k", KEY, WHERE, 5.0)
    with pytest.raises(DecryptionFailed, match="'mem:k' cannot unwrap"):
        keys.unwrap_key("k", wrapped, where, 5.0)


def test_keks_differ(keys: MemoryKeys) -> None:
    """Each name has a KEK of its own, and another one's wrap is told by both ids."""
    wrapped = keys.wrap_key("a", KEY, WHERE, 5.0)
    keys.wrap_key("b", KEY, WHERE, 5.0)
    with pytest.raises(KeyNotFound) as caught:
        keys.unwrap_key("b", wrapped, WHERE, 5.0)
    for name in ("a", "b"):
        assert keys.describe_key(name, 5.0).key_id in caught.value.message
    assert keys.ring_auth_key("a") != keys.ring_auth_key("b")


def test_kek_that_never_wrapped(keys: MemoryKeys) -> None:
    """To unwrap makes no KEK."""
    wrapped = keys.wrap_key("a", KEY, WHERE, 5.0)
    with pytest.raises(KeyNotFound, match="'mem' has made no KEK 'b'"):
        keys.unwrap_key("b", wrapped, WHERE, 5.0)


def test_kek_is_made_once_for_all_threads(keys: MemoryKeys) -> None:
    """However many threads wrap first, there is one KEK."""
    with ThreadPoolExecutor(16) as pool:
        ids = set(pool.map(lambda _: keys.describe_key("k", 5.0).key_id, range(200)))
    assert len(ids) == 1


def test_two_hosts_share_nothing() -> None:
    """Two backends under one name's worth of KEKs are two."""
    one, other = parts(make_host("m")), parts(make_host("m"))
    assert one[0].describe_key("k", 5.0) != other[0].describe_key("k", 5.0)
    one[1].save_ring("acme", b"ring", None, 5.0)
    with pytest.raises(TenantNotFound):
        other[1].load_ring("acme", 5.0)


def test_state_survives_the_parts() -> None:
    """Parts that are made anew over one host have its KEKs and rings."""
    host = make_host("m")
    keys, rings = parts(host)
    wrapped = keys.wrap_key("k", KEY, WHERE, 5.0)
    rings.save_ring("acme", b"ring", None, 5.0)
    keys, rings = parts(host)
    assert keys.unwrap_key("k", wrapped, WHERE, 5.0) == KEY
    assert rings.load_ring("acme", 5.0).document == b"ring"


def test_foreign_state_is_refused() -> None:
    """State that is not this backend's is never used."""
    host = make_host("m")
    host.state["memory"] = {}
    with pytest.raises((TypeError, KMSError)):
        memory.create(memory.MemorySettings(), host)


# --- rings -------------------------------------------------------------------------------------


def test_ring_round_trip(rings: MemoryRings) -> None:
    """A ring comes back as it was saved, with the revision that saving gave."""
    revision = rings.save_ring("acme", b"one", None, 5.0)
    stored = rings.load_ring("acme", 5.0)
    assert (stored.document, stored.revision) == (b"one", revision)
    changed = rings.save_ring("acme", b"two", revision, 5.0)
    assert changed != revision
    assert rings.load_ring("acme", 5.0).document == b"two"


def test_create_only(rings: MemoryRings) -> None:
    """What should be created must not be there."""
    rings.save_ring("acme", b"one", None, 5.0)
    with pytest.raises(Conflict):
        rings.save_ring("acme", b"two", None, 5.0)
    assert rings.load_ring("acme", 5.0).document == b"one"


@pytest.mark.parametrize("act", ["save", "delete"])
def test_stale_revision(act: str, rings: MemoryRings) -> None:
    """A revision that is no longer the stored one changes nothing."""
    stale = rings.save_ring("acme", b"one", None, 5.0)
    rings.save_ring("acme", b"two", stale, 5.0)
    acts: dict[str, Callable[[], object]] = {
        "save": lambda: rings.save_ring("acme", b"three", stale, 5.0),
        "delete": lambda: rings.delete_ring("acme", stale, 5.0),
    }
    with pytest.raises(Conflict):
        acts[act]()
    assert rings.load_ring("acme", 5.0).document == b"two"


@pytest.mark.parametrize("act", ["load", "save", "delete"])
def test_ring_that_is_not_there(act: str, rings: MemoryRings) -> None:
    """Reading, replacing and deleting need a ring; its tenant is named."""
    acts: dict[str, Callable[[], object]] = {
        "load": lambda: rings.load_ring("acme", 5.0),
        "save": lambda: rings.save_ring("acme", b"one", "0" * 64, 5.0),
        "delete": lambda: rings.delete_ring("acme", "0" * 64, 5.0),
    }
    with pytest.raises(TenantNotFound, match="acme"):
        acts[act]()
    assert rings.list_rings(None, 10, 5.0).tenants == ()


def test_delete(rings: MemoryRings) -> None:
    """A deleted ring is gone and may be created anew."""
    revision = rings.save_ring("acme", b"one", None, 5.0)
    rings.delete_ring("acme", revision, 5.0)
    with pytest.raises(TenantNotFound):
        rings.load_ring("acme", 5.0)
    rings.save_ring("acme", b"two", None, 5.0)


def test_case_makes_two_tenants(rings: MemoryRings) -> None:
    """Ids that differ only in case have two rings."""
    rings.save_ring("acme", b"small", None, 5.0)
    rings.save_ring("Acme", b"large", None, 5.0)
    assert rings.load_ring("acme", 5.0).document == b"small"
    assert rings.load_ring("Acme", 5.0).document == b"large"


@pytest.mark.parametrize("limit", [1, 2, 3, 6, 7, 8, 100])
def test_pages(limit: int, rings: MemoryRings) -> None:
    """Pages of any size list every tenant once, and the last one has no cursor."""
    names = [f"t{number}" for number in range(7)]
    for name in reversed(names):
        rings.save_ring(name, b"ring", None, 5.0)
    found: list[str] = []
    cursor: str | None = None
    pages = 0
    while pages == 0 or cursor is not None:
        page = rings.list_rings(cursor, limit, 5.0)
        assert 1 <= len(page.tenants) <= limit
        found += page.tenants
        cursor = page.cursor
        pages += 1
    assert found == names
    assert pages == -(-len(names) // limit)


def test_page_of_nothing(rings: MemoryRings) -> None:
    """Without rings there is one empty page."""
    page = rings.list_rings(None, 10, 5.0)
    assert (page.tenants, page.cursor) == ((), None)


def test_pages_while_rings_come_and_go(rings: MemoryRings) -> None:
    """A cursor whose tenant is gone goes on behind it."""
    revisions = {name: rings.save_ring(name, b"r", None, 5.0) for name in ("a", "b", "c", "d")}
    page = rings.list_rings(None, 2, 5.0)
    assert page.tenants == ("a", "b")
    rings.delete_ring("b", revisions["b"], 5.0)
    assert rings.list_rings(page.cursor, 2, 5.0).tenants == ("c", "d")


def test_one_of_many_threads_saves(rings: MemoryRings) -> None:
    """Of those who save over one revision, one wins and all others learn it."""
    revision = rings.save_ring("acme", b"start", None, 5.0)

    def save(number: int) -> bool:
        try:
            rings.save_ring("acme", b"%d" % number, revision, 5.0)
        except Conflict:
            return False
        return True

    with ThreadPoolExecutor(16) as pool:
        assert sum(pool.map(save, range(100))) == 1


def test_child_starts_from_a_copy() -> None:
    """A forked child has the KEKs and rings of its parent, and changes only its own."""
    host = make_host("m")
    keys, rings = parts(host)
    wrapped = keys.wrap_key("k", KEY, WHERE, 5.0)
    revision = rings.save_ring("acme", b"ring", None, 5.0)
    receive, send = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            keys, rings = parts(host)
            same = keys.unwrap_key("k", wrapped, WHERE, 5.0) == KEY
            rings.save_ring("acme", b"changed", revision, 5.0)
            os.write(send, b"same" if same else b"other")
        finally:
            os._exit(0)
    os.close(send)
    with os.fdopen(receive, "rb") as answer:
        assert answer.read() == b"same"
    os.waitpid(child, 0)
    assert rings.load_ring("acme", 5.0).document == b"ring"


# --- secrets -----------------------------------------------------------------------------------


def test_secrets_are_filled_through_references() -> None:
    """A path's value comes through its reference; another value is another version."""
    held = {"value": b"one"}
    host = make_host("m", secret=lambda _: KeyMaterial(held["value"]))
    settings = memory.MemorySettings(secrets={"a/b": Reference("env://SEED")})
    part = memory.create(settings, host)[2]

    def fetched(reference: str) -> tuple[bytes, str | None]:
        found = cast("Any", part).fetch_secret(SecretRequest(Reference(reference)), 5.0)
        return found.data.reveal(), found.version

    assert fetched("m://a/b") == (b"one", "1")
    assert fetched("m://a/b") == (b"one", "1")
    held["value"] = b"two"
    assert fetched("m://a/b") == (b"two", "2")
    assert fetched("m://a/b?version=1") == (b"one", "1")
    with pytest.raises(SecretNotFound, match="version 3"):
        fetched("m://a/b?version=3")
    with pytest.raises(SecretNotFound):
        fetched("m://a")
    for odd in ("m://a/b#field", "m://a/b?stage=x"):
        with pytest.raises(MalformedInput):
            fetched(odd)


def test_secrets_only_with_a_table() -> None:
    """Without `secrets` the backend has no secrets part: capability follows configuration."""
    assert len(memory.create(memory.MemorySettings(), make_host("m"))) == 2
    assert len(memory.create(memory.MemorySettings(secrets={}), make_host("m"))) == 3


def test_outage_is_played() -> None:
    """While the state says so, every operation is unavailable."""
    host = make_host("m")
    parts: Any = memory.create(memory.MemorySettings(secrets={}), host)
    state = host.state[memory.STATE]
    assert isinstance(state, memory.MemoryState)
    state.outage = True
    for call in (
        lambda: fetch(parts[2], "m://a"),
        lambda: parts[0].describe_key("k", 5.0),
        lambda: parts[0].ring_auth_key("k"),
        lambda: parts[1].load_ring("acme", 5.0),
        lambda: parts[1].save_ring("acme", b"x", None, 5.0),
        lambda: parts[1].delete_ring("acme", "x", 5.0),
        lambda: parts[1].list_rings(None, 5, 5.0),
    ):
        with pytest.raises(ServiceUnavailable, match="plays an outage"):
            call()
