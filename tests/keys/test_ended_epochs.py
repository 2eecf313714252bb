"""Handles keep the epoch that they used last: it is the memory that says when it has ended."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable
from contextlib import suppress

import pytest

from sentra_kms.errors import KMSError, MalformedInput
from sentra_kms.keys import handles, memory
from sentra_kms.keys.handles import Handles
from sentra_kms.keys.memory import Memory
from sentra_kms.keys.message import Epoch, Sealer
from sentra_kms.keys.tenant_keys import TenantKeys
from sentra_kms.runtime import KMS
from tests.keys.conftest import ManualClock, Site, salt_of, version_in

LARGE = 3 * 2**14  # bytes: more than one tick


def held_sealers() -> int:
    """Return how many subkeys to seal with are in this process's memory."""
    gc.collect()
    return sum(type(each) is Sealer for each in gc.get_objects())


def test_ended_epoch_gives_no_ticks_whatever_its_times_become(memory_kms: KMS) -> None:
    """A thread that looked at it before may still write a later deadline into it."""
    acme = memory_kms.keys.tenant("acme")
    acme.encrypt(b"x")
    epoch = memory_kms.keys._cache.epochs["acme"]
    epoch.end()
    epoch.deadline = epoch.expires = float("inf")
    assert epoch.draw(1) is None
    assert not list(epoch.uses)


@pytest.mark.parametrize("size", [0, 5_000, LARGE, 8 * LARGE])
def test_nothing_is_sealed_with_an_ended_epoch(memory_kms: KMS, size: int) -> None:
    """Nor is its end an error: the next message begins a new one, of every size and in batches."""
    acme = memory_kms.keys.tenant("acme")
    salt = salt_of(acme.encrypt(b"x"))
    for seal in (acme.encrypt, lambda plain: acme.encrypt_many([plain])[0]):
        held: Epoch = memory_kms.keys._cache.epochs["acme"]
        held.end()
        held.deadline = held.expires = float("inf")
        message = seal(bytes(size))
        assert salt_of(message) != salt
        assert acme.decrypt(message) == bytes(size)
        salt = salt_of(message)


@pytest.mark.parametrize("kind", [bytes, bytearray])
@pytest.mark.parametrize("size", [0, 5_000, LARGE])
@pytest.mark.parametrize("many", [False, True])
def test_handle_looks_at_its_ring_in_time_whatever_it_seals(
    key_site: Site,
    size: int,
    kind: type[bytes | bytearray],
    many: bool,  # noqa: FBT001 - a case
) -> None:
    """A rotation made elsewhere is in force then, and not before: until then nothing is read."""
    one, two = key_site.open(), key_site.open()
    one.keys.create("acme")
    acme = two.keys.tenant("acme")
    acme.encrypt(b"x")
    one.keys.rotate("acme")
    for seconds, version in ((30, 1), (30, 2)):
        key_site.clock.advance(seconds)
        plain = kind(size)
        message = acme.encrypt_many([plain])[0] if many else acme.encrypt(plain)
        assert version_in(message) == version


def test_handles_of_one_tenant_share_an_epoch(memory_kms: KMS) -> None:
    """One that has none yet, or whose own is used up, goes on with what others use."""
    cache = memory_kms.keys._cache
    one, other = TenantKeys(cache, "acme"), TenantKeys(cache, "acme")
    salt = salt_of(one.encrypt(b"x"))
    assert salt_of(other.encrypt(b"x")) == salt
    assert salt_of(TenantKeys(cache, "acme").encrypt(bytes(LARGE))) == salt
    assert salt_of(TenantKeys(cache, "acme").encrypt_many([b"x"])[0]) == salt
    list(cache.epochs["acme"].uses)  # uses it up
    newer = salt_of(other.encrypt(b"x"))
    assert newer != salt
    assert salt_of(one.encrypt(b"x")) == newer


def _rotate(kms: KMS) -> None:
    kms.keys.rotate("acme")


def _disable(kms: KMS) -> None:
    kms.keys.rotate("acme")
    kms.keys.disable("acme", 1)


def _shred(kms: KMS) -> None:
    kms.keys.shred("acme", confirm="acme")


def _forget(kms: KMS) -> None:
    kms.keys._cache.clear()


def _forget_key(kms: KMS) -> None:
    kms.keys._cache._memory.forget("acme", 1)  # what a KEK's refusal does


def _close(kms: KMS) -> None:
    kms.close()


@pytest.mark.parametrize("end", [_rotate, _disable, _shred, _forget, _forget_key, _close])
def test_handle_keeps_no_key_of_an_epoch_that_has_ended(
    memory_kms: KMS, end: Callable[[KMS], None]
) -> None:
    """What a handle keeps is empty then, and the handle seals nothing more with it."""
    before = held_sealers()
    acme = memory_kms.keys.tenant("acme")
    salt = salt_of(acme.encrypt(b"x"))
    assert held_sealers() == before + 1
    end(memory_kms)
    assert held_sealers() == before
    try:
        message = acme.encrypt(b"x")
    except KMSError:
        assert end in {_shred, _close}
    else:
        assert end not in {_shred, _close}
        assert salt_of(message) != salt


def test_handle_of_a_forgotten_tenant_keeps_no_key(key_site: Site) -> None:
    """So what is held in memory is bounded by the tenants that are, and not by the handles."""
    before = held_sealers()
    kms = key_site.open(cache={"max_keys": 2})
    made = []
    for number in range(5):
        tenant = f"tenant-{number}"
        kms.keys.create(tenant)
        made.append(kms.keys.tenant(tenant))
        made[-1].encrypt(b"x")
    assert held_sealers() <= before + 2
    for handle in made:
        assert handle.decrypt(handle.encrypt(b"x")) == b"x"


def test_epoch_that_may_not_be_kept_serves_one_message(key_site: Site) -> None:
    """Where keys are held for no time, each message is sealed under a salt of its own."""
    kms = key_site.open(cache={"key_ttl": "0s"})
    kms.keys.create("acme")
    acme = kms.keys.tenant("acme")
    salts = {salt_of(acme.encrypt(b"x")) for _ in range(4)}
    assert len(salts) == 4
    assert version_in(acme.encrypt(b"x")) == 1


def test_one_of_two_epochs_made_at_once_ends(memory_kms: KMS) -> None:
    """Two threads may each make one: else the first's handle would go on after a rotation."""
    cache = memory_kms.keys._cache
    one, other = TenantKeys(cache, "acme"), TenantKeys(cache, "acme")
    salt = salt_of(one.encrypt(b"x"))
    kept = cache.epochs.pop("acme")  # as if `other` had looked before it was kept
    made = salt_of(other.encrypt(b"x"))
    assert made != salt
    held = cache.key(cache.entry("acme"), 1)
    cache._memory.keep_epoch(cache.entry("acme"), held, kept)
    assert {salt_of(each.encrypt(b"x")) for each in (one, other)} == {salt}
    memory_kms.keys.rotate("acme")
    assert {version_in(each.encrypt(b"x")) for each in (one, other)} == {2}


def test_epoch_that_makes_room_for_another_tenant_s_ends(
    memory_kms: KMS, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory holds few epochs: whose is given up begins a new one, and notices a rotation."""
    monkeypatch.setattr(memory, "MAX_EPOCHS", 1)
    acme, other = memory_kms.keys.tenant("acme"), memory_kms.keys.tenant("other")
    before = held_sealers()
    salt = salt_of(acme.encrypt(b"x"))
    other.encrypt(b"x")
    assert held_sealers() == before + 1
    memory_kms.keys.rotate("acme")
    message = acme.encrypt(b"x")
    assert salt_of(message) != salt
    assert version_in(message) == 2


# --- a signal handler in the midst of it ------------------------------------------------------


def _seal(kms: KMS) -> None:
    kms.keys.encrypt("acme", b"x")


def _use_up_and_seal(kms: KMS) -> None:
    list(kms.keys._cache.epochs["acme"].uses)
    _seal(kms)


def _drop(kms: KMS) -> None:
    cache = kms.keys._cache
    cache.drop("acme", cache.entry("acme").ring_id)


def once_after(
    monkeypatch: pytest.MonkeyPatch, owner: type[object], name: str, act: Callable[[], object]
) -> list[None]:
    """Have something done when a method returns for the first time; return when it was done."""
    real: Callable[..., object] = getattr(owner, name)
    done: list[None] = []

    def interrupted(*arguments: object) -> object:
        found = real(*arguments)
        if not done:
            done.append(None)
            act()
        return found

    monkeypatch.setattr(owner, name, interrupted)
    return done


Work = Callable[[KMS], None]
WORKS: list[Work] = [_use_up_and_seal, _rotate, _shred, _forget, _close, _drop]
MIDST: list[tuple[type[object], str, Work]] = [
    (Memory, "_holds", _use_up_and_seal),
    *((Memory, "_end_epoch", work) for work in WORKS),
    *((Epoch, "end", work) for work in WORKS),
]


@pytest.mark.parametrize(("owner", "name", "work"), MIDST)
def test_handler_that_seals_while_an_epoch_is_replaced_is_left_with_none_of_its_own(
    memory_kms: KMS, monkeypatch: pytest.MonkeyPatch, owner: type[object], name: str, work: Work
) -> None:
    """Memory would not know of it, and the handler's handle seal on under the old version."""
    cache = memory_kms.keys._cache
    mine, other = memory_kms.keys.tenant("acme"), TenantKeys(cache, "acme")
    mine.encrypt(b"x")

    def handler() -> None:
        with suppress(KMSError):  # it is closed, or shredded, already
            other.encrypt(b"x")

    done = once_after(monkeypatch, owner, name, handler)
    work(memory_kms)
    assert done
    kept = cache.epochs.get("acme")
    for handle in (mine, other):
        assert handle._epoch is kept or not list(handle._epoch.uses)
    if work not in {_shred, _close}:
        memory_kms.keys.rotate("acme")
        newest = memory_kms.keys.describe("acme").primary
        assert {version_in(each.encrypt(b"x")) for each in (mine, other)} == {newest}


@pytest.mark.parametrize("act", [_rotate, _forget, _close])
@pytest.mark.parametrize(("owner", "name", "work"), MIDST)
def test_handler_that_drops_an_epoch_while_it_is_replaced_does_no_harm(
    memory_kms: KMS,
    monkeypatch: pytest.MonkeyPatch,
    owner: type[object],
    name: str,
    work: Work,
    act: Work,
) -> None:
    """Neither of the two fails by it, and what begins afterwards is under the newest version."""
    acme, before = memory_kms.keys.tenant("acme"), held_sealers()
    acme.encrypt(b"x")

    def handler() -> None:
        with suppress(KMSError):
            act(memory_kms)

    done = once_after(monkeypatch, owner, name, handler)
    with suppress(KMSError):
        work(memory_kms)
    assert done
    try:
        message = acme.encrypt(b"x")
    except KMSError:
        assert {act, work} & {_close, _shred}
        assert held_sealers() == before
    else:
        assert version_in(message) == memory_kms.keys.describe("acme").primary


@pytest.mark.parametrize("work", WORKS)
def test_epoch_that_an_error_keeps_from_its_end_is_not_forgotten(
    memory_kms: KMS, monkeypatch: pytest.MonkeyPatch, work: Work
) -> None:
    """What a handler raises there ends the work, and leaves the epoch where it is found again."""
    cache = memory_kms.keys._cache
    acme, before = memory_kms.keys.tenant("acme"), held_sealers()
    acme.encrypt(b"x")
    held, end = cache.epochs["acme"], Epoch.end

    def interrupted(epoch: Epoch) -> None:
        monkeypatch.setattr(Epoch, "end", end)
        raise TimeoutError

    monkeypatch.setattr(Epoch, "end", interrupted)
    with pytest.raises(TimeoutError):
        work(memory_kms)
    assert cache.epochs.get("acme") is held
    memory_kms.keys._cache.clear()
    assert held_sealers() == before


@pytest.mark.parametrize("moment", ["_carry", "_carry_epoch", "_keep_ring", "_trim", "_end"])
@pytest.mark.parametrize("after", [False, True])
def test_handler_that_rotates_while_a_ring_is_put_in_place_is_not_overwritten(
    memory_kms: KMS,
    manual_clock: ManualClock,
    monkeypatch: pytest.MonkeyPatch,
    moment: str,
    after: bool,  # noqa: FBT001 - a case
) -> None:
    """What its thread had read by then is older; the next message has the new version."""
    acme = memory_kms.keys.tenant("acme")
    acme.encrypt(b"x")
    held = memory_kms.keys._cache._memory
    real: Callable[..., None] = getattr(held, moment)
    done: list[int] = []

    def interrupted(*arguments: object) -> None:
        if after:
            real(*arguments)
        if not done:
            done.append(0)
            done.append(memory_kms.keys.rotate("acme").primary or 0)
        if not after:
            real(*arguments)

    manual_clock.advance(3600)
    monkeypatch.setattr(held, moment, interrupted)
    acme.encrypt(b"x")
    assert done == [0, 2]
    assert version_in(acme.encrypt(b"x")) == 2
    assert held._held == sum(len(entry.all_held()) for entry in held.entries.values())


# --- handles ----------------------------------------------------------------------------------


def test_handles_are_kept_and_bounded(memory_kms: KMS, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever asks for a tenant again gets the same handle, of however many tenants."""
    monkeypatch.setattr(handles, "MAX_HANDLES", 3)
    kept = Handles(lambda tenant: TenantKeys(memory_kms.keys._cache, tenant))
    assert kept.of("acme") is kept.of("acme")
    for number in range(10):
        assert kept.of(f"tenant-{number}").tenant == f"tenant-{number}"
        assert len(kept._kept) <= 3


class Same(str):
    """Equal to any other tenant's id."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = str.__hash__


def test_what_only_looks_like_a_tenant_s_id_gets_no_handle(memory_kms: KMS) -> None:
    """Also where the real one's handle is at hand."""
    memory_kms.keys.tenant("acme")
    with pytest.raises(MalformedInput):
        memory_kms.keys.tenant(Same("acme"))
    with pytest.raises(MalformedInput):
        asyncio.run(memory_kms.keys.aio.encrypt(Same("acme"), b"x"))
