"""What the short way through a warm handle must not skip."""

from __future__ import annotations

from typing import Any

import pytest

from sentra_kms.errors import DecryptionFailed, KeyNotFound, KeyUnavailable, MalformedInput
from sentra_kms.keys import memory
from sentra_kms.keys.message import NO_OPENER
from sentra_kms.runtime import KMS
from tests.keys.conftest import ManualClock, Site, Spy, memory_config, salt_of, with_version

OVERHEAD = 96


def messages_of_many_salts(kms: KMS, size: int) -> list[bytes]:
    """Return messages of which each has a salt, and so a prefix, of its own."""
    messages = []
    for number in range(size):
        kms.keys._cache.clear()
        messages.append(kms.keys.encrypt("acme", b"%d" % number))
    assert len({salt_of(message) for message in messages}) == size
    return messages


def newest_is_held(kms: KMS) -> bool:
    """Whether each entry's newest opener is one of its openers, if it has one."""
    return all(
        entry.newest is NO_OPENER or entry.openers[entry.newest.prefix] is entry.newest
        for entry in kms.keys._cache.entries.values()
    )


@pytest.mark.parametrize("size", range(OVERHEAD + 5))
def test_cut_message_is_told_for_what_it_is(memory_kms: KMS, size: int) -> None:
    """Also once its prefix is known: too short is malformed, anything longer does not open."""
    acme = memory_kms.keys.tenant("acme")
    message = acme.encrypt(b"plain")
    assert acme.decrypt(message) == b"plain"
    refusal = MalformedInput if size < OVERHEAD else DecryptionFailed
    with pytest.raises(refusal):
        acme.decrypt(message[:size])
    with pytest.raises(refusal):
        acme.decrypt_many([message, message[:size]])


def test_message_over_the_bound_is_refused_under_a_known_prefix(memory_kms: KMS) -> None:
    """The bound of 64 MiB holds for what would open, too."""
    acme = memory_kms.keys.tenant("acme")
    message = acme.encrypt(b"x")
    acme.decrypt(message)
    large = message + bytes(64 * 1024 * 1024)
    for attempt in (acme.decrypt, lambda data: acme.decrypt_many([data])):
        with pytest.raises(MalformedInput, match="has 96 to"):
            attempt(large)


@pytest.mark.parametrize("at", [0, 4, 16, 19, 20, 35, 36, 67, 68, 79, 80, 85, 90])
def test_changed_message_does_not_open_by_a_known_prefix(memory_kms: KMS, at: int) -> None:
    """A byte changed anywhere is found, by a handle that just opened the message unchanged."""
    acme = memory_kms.keys.tenant("acme")
    message = acme.encrypt(b"plain")
    acme.decrypt(message)
    changed = message[:at] + bytes([message[at] ^ 1]) + message[at + 1 :]
    with pytest.raises((DecryptionFailed, MalformedInput, KeyNotFound)):
        acme.decrypt(changed)
    with pytest.raises((DecryptionFailed, MalformedInput, KeyNotFound)):
        acme.decrypt_many([message, changed])
    assert acme.decrypt(message) == b"plain"


def test_known_prefix_opens_nothing_for_another_tenant(memory_kms: KMS) -> None:
    """What one tenant's handle knows, another's does not."""
    message = memory_kms.keys.encrypt("acme", b"x")
    memory_kms.keys.decrypt("acme", message)
    memory_kms.keys.decrypt("other", memory_kms.keys.encrypt("other", b"y"))
    with pytest.raises(DecryptionFailed):
        memory_kms.keys.decrypt("other", message)
    with pytest.raises(DecryptionFailed):
        memory_kms.keys.decrypt_many("other", [message])


def test_messages_of_many_writers_open_in_any_order(memory_kms: KMS) -> None:
    """The newest prefix is only the first to be looked at; singly and in batches."""
    messages = messages_of_many_salts(memory_kms, 9)
    acme = memory_kms.keys.tenant("acme")
    for step in (1, 2, 4, 5, 7, 8):
        order = [(step * number) % 9 for number in range(9)]
        assert [acme.decrypt(messages[number]) for number in order] == [b"%d" % n for n in order]
        assert acme.decrypt_many([messages[n] for n in order]) == [b"%d" % n for n in order]
        assert newest_is_held(memory_kms)


@pytest.mark.parametrize("bound", [1, 2, 3])
def test_newest_opener_is_dropped_with_the_others(
    memory_kms: KMS, monkeypatch: pytest.MonkeyPatch, bound: int
) -> None:
    """No entry holds a subkey beyond the bound by way of its newest."""
    monkeypatch.setattr(memory, "MAX_OPENERS", bound)
    messages = messages_of_many_salts(memory_kms, 4)
    theirs = memory_kms.keys.encrypt("other", b"y")
    for message in messages * 2:
        memory_kms.keys.decrypt("acme", message)
        assert newest_is_held(memory_kms)
        memory_kms.keys.decrypt("other", theirs)
        assert newest_is_held(memory_kms)
    entries = memory_kms.keys._cache.entries.values()
    assert sum(entry.newest is not NO_OPENER for entry in entries) <= bound


def test_versions_dropped_one_by_one_leave_no_newest(manual_clock: ManualClock) -> None:
    """One tenant with more versions than may be held keeps no subkey of a dropped one."""
    from sentra_kms.config import read_settings

    settings = read_settings(memory_config(max_keys=2), "test")
    with KMS(settings, now=manual_clock) as kms:
        kms.keys.create("acme")
        messages = [kms.keys.encrypt("acme", b"x")]
        for _ in range(4):
            kms.keys.rotate("acme")
            messages.append(kms.keys.encrypt("acme", b"x"))
        for message in messages * 2:
            kms.keys.decrypt("acme", message)
            assert newest_is_held(kms)
        kms.keys.decrypt("acme", messages[0])
        assert kms.keys._cache.entries["acme"].newest.version == 1
        for _ in range(2):
            kms.keys.rotate("acme")
            kms.keys.encrypt("acme", b"x")
            assert newest_is_held(kms)


def test_newest_subkey_of_a_disabled_version_is_gone(key_site: Site) -> None:
    """Once the ring is read anew, a handle that opened the message a moment ago refuses it."""
    kms = key_site.open(cache={"key_ttl": "1d"})
    kms.keys.create("acme")
    acme = kms.keys.tenant("acme")
    old = acme.encrypt(b"x")
    kms.keys.rotate("acme")
    acme.decrypt(old)
    assert kms.keys._cache.entries["acme"].newest.version == 1
    key_site.set_state(1, "disabled")
    key_site.clock.advance(60)
    for attempt in (acme.decrypt, lambda data: acme.decrypt_many([data])):
        with pytest.raises(KeyUnavailable):
            attempt(old)
    assert kms.keys._cache.entries["acme"].newest is NO_OPENER


def test_opener_lives_with_its_entry(memory_kms: KMS, manual_clock: ManualClock) -> None:
    """It is good until the ring is due, and again once the ring was read; never past its key."""
    acme = memory_kms.keys.tenant("acme")
    message = acme.encrypt(b"x")
    acme.decrypt(message)
    loads = Spy(memory_kms, "memory", "load_ring")
    unwraps = Spy(memory_kms, "memory", "unwrap_key")
    for _ in range(9):  # 280 s, within the key's shortest life of 270 s only at the eighth
        acme.decrypt(message)
        acme.decrypt_many([message])
        entry = memory_kms.keys._cache.entries["acme"]
        held = entry.key(1)
        assert held is not None
        assert entry.newest.deadline == min(entry.deadline, held.deadline)
        manual_clock.advance(30)
    assert 4 <= loads.count <= 5
    manual_clock.advance(60)
    acme.decrypt(message)
    assert unwraps.count == 1


@pytest.mark.parametrize("size", [1, 20_000])
def test_batch_looks_at_the_clock_while_it_works(memory_kms: KMS, size: int) -> None:
    """However long a batch is, its keys' time is kept: once for 128 small messages or a large."""
    acme = memory_kms.keys.tenant("acme")
    looks = 0
    original = acme._now

    def now() -> float:
        nonlocal looks
        looks += 1
        return original()

    acme._now = now
    plains = [bytes(size)] * 300
    messages = acme.encrypt_many(plains)
    assert looks >= (299 if size > 16 * 1024 else 3)
    acme.decrypt(messages[0])
    looks = 0
    assert acme.decrypt_many(messages) == plains
    assert looks >= (299 if size > 16 * 1024 else 3)


def test_batch_ends_with_its_key(memory_kms: KMS, manual_clock: ManualClock) -> None:
    """A batch that outlasts its key's time goes on under a key unwrapped anew."""
    acme = memory_kms.keys.tenant("acme")
    unwraps = Spy(memory_kms, "memory", "unwrap_key")

    def now() -> float:
        manual_clock.advance(50)
        return manual_clock()

    acme._now = now
    messages = acme.encrypt_many([b"x"] * 2000)
    assert unwraps.count >= 1
    assert len({salt_of(message) for message in messages}) > 1
    unwraps.calls.clear()
    assert acme.decrypt_many(messages) == [b"x"] * 2000
    assert unwraps.count >= 1


def test_batch_of_other_buffers(memory_kms: KMS) -> None:
    """Messages that are no plain bytes are taken between those that are."""
    acme = memory_kms.keys.tenant("acme")
    plains: list[Any] = [b"a", bytearray(b"b"), memoryview(b"c"), b"d"]
    messages: list[Any] = list(acme.encrypt_many(plains))
    assert acme.decrypt_many(messages) == [b"a", b"b", b"c", b"d"]
    messages[1], messages[2] = bytearray(messages[1]), memoryview(messages[2])
    assert acme.decrypt_many(messages) == [b"a", b"b", b"c", b"d"]


def test_batch_raises_for_the_first_that_fails(memory_kms: KMS) -> None:
    """An earlier message that does not open is told before a later one's bad context."""
    acme = memory_kms.keys.tenant("acme")
    message = acme.encrypt(b"x")
    changed = message[:-1] + bytes([message[-1] ^ 1])
    bad: Any = 1
    with pytest.raises(DecryptionFailed):
        acme.decrypt_many([message, changed, message], [None, None, bad])
    with pytest.raises(MalformedInput, match="a context is"):
        acme.decrypt_many([message, message, message[:-1]], [None, bad, None])


def test_context_is_looked_at_before_the_tenant(memory_kms: KMS) -> None:
    """What can be refused without asking anybody is."""
    loads = Spy(memory_kms, "memory", "load_ring")
    bad: Any = 1
    for attempt in (
        lambda: memory_kms.keys.encrypt("nobody", b"x", bad),
        lambda: memory_kms.keys.decrypt("nobody", b"x", bad),
        lambda: memory_kms.keys.encrypt_many("nobody", [b"x"], [bad]),
    ):
        with pytest.raises(MalformedInput, match="a context is"):
            attempt()
    assert loads.count == 0


def test_version_that_a_known_prefix_does_not_name(memory_kms: KMS) -> None:
    """The version is part of what is looked up: another one is another prefix."""
    acme = memory_kms.keys.tenant("acme")
    message = acme.encrypt(b"x")
    acme.decrypt(message)
    memory_kms.keys.rotate("acme")
    acme.decrypt(message)
    with pytest.raises(DecryptionFailed):
        acme.decrypt(with_version(message, 2))
