"""A signal handler that comes while its own thread notes something does not wait for it."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from types import FrameType

import pytest

from sentra_kms.events import Event
from sentra_kms.hookspecs import ObserverHooks, hookimpl
from sentra_kms.keys.outages import PROBE_INTERVAL, Outages
from sentra_kms.keys.seen import Seen
from sentra_kms.observers import Observers
from sentra_kms.runtime import KMS
from tests.keys.conftest import WAIT, in_fork

TIMES = 100


def shaken(work: Callable[[int], object]) -> None:
    """Do some work again and again while a handler does it, too, in a process that may hang."""

    def child() -> bytes:
        handled = 0
        inside = False

        def handler(_: int, frame: FrameType | None) -> None:
            nonlocal handled, inside
            if not inside:  # one at a time is what is tried
                inside = True
                handled += 1
                work(handled)
                inside = False

        signal.signal(signal.SIGVTALRM, handler)
        signal.setitimer(signal.ITIMER_VIRTUAL, 1e-3, 1e-3)  # a hanging child takes no time
        number = 0
        while handled < TIMES:
            work(number := number + 1)
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        return b"done"

    assert in_fork(child) == b"done"


def test_handler_may_note_a_ring_while_its_thread_notes_one(memory_kms: KMS) -> None:
    """The highest sequence of a tenant is kept under a lock."""
    document = memory_kms._wiring.bindings["memory"].load_ring("acme").document
    ring = memory_kms.keys._rings.store.load("acme").ring
    seen = Seen()

    def work(_: int) -> None:
        for _ in range(50):
            seen.saved(ring, document)

    shaken(work)


@pytest.mark.parametrize("forgives", [False, True])
def test_handler_may_meet_an_outage_while_its_thread_meets_one(
    forgives: bool,  # noqa: FBT001 - a case
) -> None:
    """Whatever the two find of it, at the same time: neither hangs, nor fails."""
    began = time.monotonic()
    outages = Outages(lambda: (time.monotonic() - began) * 1000 * PROBE_INTERVAL, forgives=forgives)

    def work(number: int) -> None:
        for step in range(number, number + 50):
            if step % 3 == 0:
                outages.failed("kek", "acme")
            elif step % 3 == 1:
                outages.should_wait("kek", "other")
            else:
                outages.worked("kek")
            outages.is_known("kek")

    shaken(work)


class Counting(ObserverHooks):
    """Counts the events that it sees."""

    count = 0

    @hookimpl
    def audit_event(self, event: Event) -> None:
        """Count."""
        self.count += 1


def an_event() -> Event:
    """Return some event."""
    return Event(time=0.0, operation="save_ring", backend="memory", subject="acme")


def test_handler_may_tell_of_an_event_while_its_thread_tells_of_one() -> None:
    """Observers are told by whoever asks a backend, and that may be the handler."""
    counting = Counting()
    observers = Observers([("counting", counting)])
    emit = observers.emit
    assert emit is not None
    shaken(lambda _: [emit(an_event()) for _ in range(20)])


def test_handler_may_close_while_its_thread_begins_the_first_observers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What was told until then is seen, and the thread ends."""
    counting = Counting()
    observers = Observers([("counting", counting)])
    emit = observers.emit
    assert emit is not None
    start = threading.Thread.start
    threads: list[threading.Thread] = []

    def interrupted(thread: threading.Thread) -> None:
        threads.append(thread)
        signal.raise_signal(signal.SIGUSR1)
        start(thread)

    def child() -> bytes:
        signal.signal(signal.SIGUSR1, lambda *_: observers.close())
        monkeypatch.setattr(threading.Thread, "start", interrupted)
        emit(an_event())
        (thread,) = threads
        thread.join(WAIT)
        assert not thread.is_alive()
        assert counting.count == 1
        return b"ended"

    assert in_fork(child) == b"ended"
