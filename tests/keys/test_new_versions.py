"""Messages under a version that was made elsewhere, met by many readers at once."""

from __future__ import annotations

import sys
import threading

import pytest

from sentra_kms.errors import KeyNotFound
from sentra_kms.runtime import KMS
from tests.keys.conftest import (
    WAIT,
    Crew,
    Site,
    Spy,
    in_threads,
    until,
    version_in,
    with_version,
)

READERS = 16


@pytest.fixture
def warm(key_site: Site) -> tuple[KMS, bytes]:
    """A KMS that holds acme's ring with one version, and a message that it opened."""
    kms = key_site.open()
    kms.keys.create("acme")
    message = kms.keys.encrypt("acme", b"1")
    assert kms.keys.decrypt("acme", message) == b"1"
    return kms, message


def written_elsewhere(site: Site, plaintext: bytes) -> bytes:
    """Rotate in another process and return a message under the version made."""
    other = site.open()
    other.keys.rotate("acme")
    return other.keys.encrypt("acme", plaintext)


def is_waiting(thread: threading.Thread) -> bool:
    """Whether a thread waits for a flight that another one leads."""
    frame = sys._current_frames().get(thread.ident or 0)
    inside = []
    while frame is not None:
        inside.append(frame.f_code.co_name)
        frame = frame.f_back
    return "wait" in inside and "do" in inside and "_lead" not in inside


def test_readers_of_a_new_version_share_one_look(key_site: Site, warm: tuple[KMS, bytes]) -> None:
    """Who comes while the ring is read anew waits for it, and finds the version."""
    kms, _ = warm
    message = written_elsewhere(key_site, b"2")
    acme = kms.keys.tenant("acme")
    loads, unwraps = Spy(kms, "local", "load_ring"), Spy(kms, "local", "unwrap_key")
    release = threading.Event()
    loads.before = lambda: release.wait(WAIT)
    crew = Crew(lambda _: acme.decrypt(message), READERS)

    def all_but_one_are_settled() -> bool:
        return sum(is_waiting(t) or not t.is_alive() for t in crew.threads) == READERS - 1

    until(all_but_one_are_settled)
    release.set()
    assert crew.join() == [b"2"] * READERS
    assert (loads.count, unwraps.count) == (1, 1)


def test_readers_that_start_together_all_open_it(key_site: Site, warm: tuple[KMS, bytes]) -> None:
    """However they fall, none is told that the version is not there, over many rotations."""
    kms, _ = warm
    acme = kms.keys.tenant("acme")
    loads = Spy(kms, "local", "load_ring")
    for number in range(1, 11):
        message = written_elsewhere(key_site, b"new")

        def read(_: int, message: bytes = message) -> bytes:
            return acme.decrypt(message)

        assert in_threads(read, READERS) == [b"new"] * READERS
        assert loads.count == number
        key_site.clock.advance(1)


def test_reader_that_was_held_up_gets_what_was_read_meanwhile(
    key_site: Site, warm: tuple[KMS, bytes]
) -> None:
    """A thread that still holds the old ring when another has read the new one asks nobody."""
    kms, _ = warm
    old = kms.keys._cache.entry("acme")
    message = written_elsewhere(key_site, b"2")
    loads = Spy(kms, "local", "load_ring")
    assert kms.keys.decrypt("acme", message) == b"2"
    held_up = kms.keys._cache.reload(old)
    assert held_up is kms.keys._cache.entries["acme"]
    assert held_up.state(2) is not None
    assert loads.count == 1


def test_reader_of_a_tenant_that_was_dropped_meanwhile_looks_once(
    key_site: Site, warm: tuple[KMS, bytes]
) -> None:
    """That others took its place in memory does not let a tenant's readers ask more often."""
    kms, _ = warm
    old = kms.keys._cache.entry("acme")
    kms.keys._cache.clear()
    loads = Spy(kms, "local", "load_ring")
    read = kms.keys._cache.reload(old)
    assert read is not old
    for _ in range(3):
        assert kms.keys._cache.reload(read) is read
    assert loads.count == 1
    key_site.clock.advance(1)
    assert kms.keys._cache.reload(read) is not read
    assert loads.count == 2


def test_second_version_within_a_second_is_worth_a_retry(
    key_site: Site, warm: tuple[KMS, bytes]
) -> None:
    """Two looks a second are one too many: the reader is told to come again, and then opens it."""
    kms, _ = warm
    second = written_elsewhere(key_site, b"2")
    assert kms.keys.decrypt("acme", second) == b"2"
    third = written_elsewhere(key_site, b"3")
    loads = Spy(kms, "local", "load_ring")
    key_site.clock.advance(0.5)
    with pytest.raises(KeyNotFound, match="a moment ago") as caught:
        kms.keys.decrypt("acme", third)
    assert caught.value.retryable is True
    assert caught.value.subject == "acme"
    assert loads.count == 0
    key_site.clock.advance(0.5)
    assert kms.keys.decrypt("acme", third) == b"3"
    assert loads.count == 1


def test_reader_that_shares_a_look_begun_before_its_message_may_come_again(
    key_site: Site, warm: tuple[KMS, bytes]
) -> None:
    """The ring that another thread was reading already is older than the message: worth a retry."""
    kms, message = warm
    loads = Spy(kms, "local", "load_ring")
    read, go_on = loads.hold_answers()
    clock = key_site.clock
    first = Crew(lambda _: kms.keys.decrypt("acme", with_version(message, 99)), 1)
    until(read.is_set)
    genuine = written_elsewhere(key_site, b"2")
    clock.advance(0.001)
    second = Crew(lambda _: kms.keys.decrypt("acme", genuine), 1)
    until(lambda: is_waiting(second.threads[0]))
    go_on.set()
    (forged,), (told,) = first.join(), second.join()
    assert isinstance(forged, KeyNotFound)
    assert not forged.retryable
    assert isinstance(told, KeyNotFound)
    assert told.retryable
    assert "a moment ago" in str(told)
    loads.instead = None
    clock.advance(1)
    assert kms.keys.decrypt("acme", genuine) == b"2"


def test_forged_versions_of_many_threads_cost_one_look_a_second(
    key_site: Site, warm: tuple[KMS, bytes]
) -> None:
    """Numbers that nobody made are refused, and the store hears of them once a second."""
    kms, message = warm
    loads = Spy(kms, "local", "load_ring")

    def forge(index: int) -> type[BaseException] | None:
        for number in range(20):
            with pytest.raises(KeyNotFound):
                kms.keys.decrypt("acme", with_version(message, 2 + index * 20 + number))
        return None

    for second in range(1, 4):
        in_threads(forge, READERS)
        assert loads.count == second
        key_site.clock.advance(1)


def test_forged_version_does_not_hide_a_new_one_for_more_than_a_second(
    key_site: Site, warm: tuple[KMS, bytes]
) -> None:
    """A genuine message that comes right after a forged one is asked to come again, no more."""
    kms, message = warm
    with pytest.raises(KeyNotFound) as caught:
        kms.keys.decrypt("acme", with_version(message, 99))
    assert caught.value.retryable is False
    genuine = written_elsewhere(key_site, b"2")
    assert version_in(genuine) == 2
    with pytest.raises(KeyNotFound) as caught:
        kms.keys.decrypt("acme", genuine)
    assert caught.value.retryable is True
    key_site.clock.advance(1)
    assert kms.keys.decrypt("acme", genuine) == b"2"
