"""Rings that vanish, are made anew or are restored: no writer goes on under a key of before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from sentra_kms.errors import AlreadyExists, Conflict, RingRejected
from sentra_kms.keys.ring import Ring
from sentra_kms.runtime import KMS
from tests.keys.conftest import Site, Spy, salt_of, version_in


def ring_in(message: bytes) -> str:
    """Return the id of the ring that a message names, as `describe` tells it."""
    return message[4:16].hex()


def another_ring(site: Site, tmp_path: Path, rotations: int = 0) -> dict[str, Any]:
    """Return the fields of a ring of acme with an id of its own, under the same master key."""
    elsewhere = site.open(directory=str(tmp_path / "elsewhere"))
    elsewhere.keys.create("acme")
    for _ in range(rotations):
        elsewhere.keys.rotate("acme")
    here, site.directory = site.directory, tmp_path / "elsewhere"
    fields = site.payload()
    site.directory = here
    return fields


# --- made anew --------------------------------------------------------------------------------


@pytest.mark.parametrize("exist_ok", [False, True])
@pytest.mark.parametrize("rotations", [0, 1, 3])
def test_ring_that_vanished_is_not_made_anew(
    key_site: Site,
    rotations: int,
    exist_ok: bool,  # noqa: FBT001 - a case
) -> None:
    """A process that has seen the ring says to restore it, and writes nothing in its place."""
    kms = key_site.open()
    kms.keys.create("acme")
    for _ in range(rotations):
        kms.keys.rotate("acme")
    acme = kms.keys.tenant("acme")
    message = acme.encrypt(b"x")
    document = key_site.document()
    key_site.path("acme").unlink()
    saves = Spy(kms, "local", "save_ring")
    with pytest.raises(RingRejected, match=r"(?i)restore") as caught:
        kms.keys.create("acme", exist_ok=exist_ok)
    assert caught.value.subject == "acme"
    assert not caught.value.retryable
    assert saves.count == 0
    assert not key_site.path("acme").exists()
    key_site.put(document)
    key_site.path("acme").chmod(0o600)
    key_site.clock.advance(600)
    assert acme.decrypt(message) == b"x"
    assert key_site.open().keys.decrypt("acme", acme.encrypt(b"y")) == b"y"


def test_ring_that_was_only_read_is_not_made_anew_either(key_site: Site) -> None:
    """Seeing a ring is enough: who never saved it does not replace it."""
    key_site.open().keys.create("acme")
    kms = key_site.open()
    assert kms.keys.describe("acme").sequence == 1
    key_site.path("acme").unlink()
    with pytest.raises(RingRejected):
        kms.keys.create("acme")
    assert not key_site.path("acme").exists()


def test_ring_that_another_process_made_anew_is_not_trusted(key_site: Site) -> None:
    """The warm process keeps to what it saw: a ring of the same sequence but another id fails."""
    kms = key_site.open()
    kms.keys.create("acme")
    acme = kms.keys.tenant("acme")
    acme.encrypt(b"x")
    key_site.path("acme").unlink()
    key_site.open().keys.create("acme")
    key_site.clock.advance(60)
    with pytest.raises(RingRejected):
        acme.encrypt(b"y")


@pytest.mark.parametrize("exist_ok", [False, True])
def test_create_that_another_of_this_process_overtakes(
    memory_kms: KMS,
    exist_ok: bool,  # noqa: FBT001 - a case
) -> None:
    """What was made while this one wrapped its key is there, not gone: no ring is missing."""
    wraps = Spy(memory_kms, "memory", "wrap_key")
    made: list[str] = []

    def overtake() -> None:
        if wraps.count == 1:
            made.append(memory_kms.keys.create("new").ring_id)

    wraps.before = overtake
    if exist_ok:
        assert memory_kms.keys.create("new", exist_ok=True).ring_id == made[0]
    else:
        with pytest.raises(AlreadyExists):
            memory_kms.keys.create("new")
    assert memory_kms.keys.describe("new").ring_id == made[0]


# --- replaced ---------------------------------------------------------------------------------


def test_ring_of_another_id_ends_the_epoch_when_it_is_read(key_site: Site, tmp_path: Path) -> None:
    """After the ring's TTL a warm writer seals under the ring that is there."""
    kms = key_site.open()
    ring_id = kms.keys.create("acme").ring_id
    acme = kms.keys.tenant("acme")
    assert ring_in(acme.encrypt(b"x")) == ring_id
    key_site.forge(another_ring(key_site, tmp_path))
    key_site.clock.advance(60)
    message = acme.encrypt(b"y")
    assert ring_in(message) == key_site.open().keys.describe("acme").ring_id != ring_id
    assert key_site.open().keys.decrypt("acme", message) == b"y"


@pytest.mark.parametrize("rotations", [1, 2])
def test_rotation_on_a_ring_of_another_id_ends_the_epoch(
    key_site: Site, tmp_path: Path, rotations: int
) -> None:
    """The version number is the same, the ring is not: the old key seals nothing more."""
    kms = key_site.open()
    kms.keys.create("acme")
    for _ in range(rotations):
        kms.keys.rotate("acme")
    acme = kms.keys.tenant("acme")
    before = acme.encrypt(b"x")
    key_site.forge(another_ring(key_site, tmp_path, rotations - 1), up=10)
    info = kms.keys.rotate("acme")
    messages = [acme.encrypt(b"y"), *acme.encrypt_many([b"y"]), kms.keys.encrypt("acme", b"y")]
    assert info.primary == version_in(before)
    for message in messages:
        assert ring_in(message) == info.ring_id != ring_in(before)
        assert salt_of(message) != salt_of(before)
        for reader in (kms, key_site.open()):
            assert reader.keys.decrypt("acme", message) == b"y"


def test_rotation_after_a_forced_restore_ends_the_epoch(key_site: Site) -> None:
    """The second version 2 of a ring holds another key than the first, and seals from now on."""
    kms = key_site.open()
    kms.keys.create("acme")
    backup = key_site.payload()
    kms.keys.rotate("acme")
    acme = kms.keys.tenant("acme")
    lost = acme.encrypt(b"x")
    key_site.forge(backup, up=2)
    assert kms.keys.rotate("acme").primary == version_in(lost) == 2
    messages = [acme.encrypt(b"y"), *acme.encrypt_many([b"y"] * 2)]
    for message in messages:
        assert salt_of(message) != salt_of(lost)
        for reader in (kms, key_site.open()):
            assert reader.keys.decrypt("acme", message) == b"y"


def test_retried_rotation_that_finds_a_restored_ring_ends_the_epoch(key_site: Site) -> None:
    """A rotation that another process answered brings its key, though the number is the same."""
    kms = key_site.open()
    kms.keys.create("acme")
    backup = key_site.payload()
    kms.keys.rotate("acme")
    acme = kms.keys.tenant("acme")
    acme.encrypt(b"x")
    key_site.forge(backup, up=2)
    key_site.open().keys.rotate("acme", request_id="r")
    kms.keys.rotate("acme", request_id="r")
    message = acme.encrypt(b"y")
    assert version_in(message) == 2
    assert key_site.open().keys.decrypt("acme", message) == b"y"


def test_rotation_keeps_no_epoch_and_rewrap_keeps_it(key_site: Site) -> None:
    """A save that leaves the primary as it is leaves its writers their salt."""
    key_site.open("local:m1").keys.create("acme")
    kms = key_site.open("local:m2", unwrap_with=("local:m1",), authenticate_with=("local:m1",))
    acme = kms.keys.tenant("acme")
    before = salt_of(acme.encrypt(b"x"))
    kms.keys.rewrap("acme")
    assert salt_of(acme.encrypt(b"x")) == before
    kms.keys.rotate("acme")
    assert salt_of(acme.encrypt(b"x")) != before


# --- what the store refuses to save -----------------------------------------------------------


def save_at(kms: KMS, sequence: int, expected: str | None) -> Ring:
    """Save acme's ring again with a sequence; return it."""
    store = kms.keys._rings.store
    loaded = store.load("acme")
    ring: Ring = msgspec.structs.replace(loaded.ring, sequence=sequence)
    if expected == "stored":
        store.save(ring, loaded)
    else:
        store.create(ring)
    return ring


@pytest.mark.parametrize("sequence", [1, 2, 3])
@pytest.mark.parametrize("expected", ["stored", None])
def test_sequence_that_does_not_rise_is_not_saved(
    key_site: Site, sequence: int, expected: str | None
) -> None:
    """At or below what this process has seen nothing is written, whatever the store holds."""
    kms = key_site.open()
    kms.keys.create("acme")
    kms.keys.rotate("acme")
    kms.keys.rotate("acme")
    before = key_site.document()
    saves = Spy(kms, "local", "save_ring")
    with pytest.raises((RingRejected, Conflict) if expected else RingRejected):
        save_at(kms, sequence, expected)
    assert saves.count == 0
    assert key_site.document() == before


def test_sequence_that_rises_is_saved(key_site: Site) -> None:
    """One above, or far above as a forced restore is, is written; another tenant counts apart."""
    kms = key_site.open()
    kms.keys.create("acme")
    kms.keys.create("other")
    assert save_at(kms, 2, "stored").sequence == 2
    assert save_at(kms, 100, "stored").sequence == 100
    assert kms.keys.rotate("other").sequence == 2
    assert key_site.open().keys.describe("acme").sequence == 100
