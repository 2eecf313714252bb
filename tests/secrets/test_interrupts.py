"""Signal handlers that ask for secrets, and looks that never end: nobody waits for ever."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import pytest

from sentra_kms.errors import KMSError
from sentra_kms.hookspecs import BatchSecretHooks, hookimpl
from sentra_kms.hooktypes import SecretRequest, SecretValue
from sentra_kms.material import KeyMaterial
from tests.binding.fakes import Secrets, bind
from tests.conftest import ManualClock
from tests.secrets.sources import PATIENCE, Source, make_manager

pytestmark = pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs POSIX signals")


@pytest.fixture
def on_signal() -> Iterator[Callable[[Callable[[], object]], None]]:
    """Return what sets the handler of SIGUSR1; who waits for ever is woken by an alarm."""

    def wake(*_: object) -> None:
        raise AssertionError("this thread waited for itself")

    def install(work: Callable[[], object]) -> None:
        signal.signal(signal.SIGUSR1, lambda *_: work() and None)

    before = signal.signal(signal.SIGALRM, wake), signal.getsignal(signal.SIGUSR1)
    signal.setitimer(signal.ITIMER_REAL, PATIENCE)
    yield install
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before[0])
    signal.signal(signal.SIGUSR1, before[1])


@pytest.mark.parametrize("how", ["get", "refresh"])
def test_signal_handler_asks_while_its_thread_looks(
    how: str, on_signal: Callable[[Callable[[], object]], None], clock: ManualClock
) -> None:
    """A handler gets the value of now, and what its thread fetched before does not replace it."""
    answers = iter([b"old", b"new"])
    got: list[str] = []

    def interrupted() -> bytes:
        value = next(answers)
        if value == b"old":
            os.kill(os.getpid(), signal.SIGUSR1)
        return value

    source = Source(a=interrupted)
    made = make_manager(source, clock, A="fake://a")
    source._lock = threading.RLock()  # type: ignore[assignment]
    on_signal(lambda: got.append(getattr(made, how)("A").reveal()))
    assert made.get("A").reveal() == "new"
    assert got == ["new"]
    assert made.get("A").reveal() == "new"
    assert len(source.asked) == 2


def test_signal_handler_asks_while_its_thread_looks_at_many(
    on_signal: Callable[[Callable[[], object]], None], clock: ManualClock
) -> None:
    """Two threads whose calls for many overlap, and a handler in one of them, all end."""
    both, asked = threading.Barrier(2), threading.Event()
    got: list[str] = []

    class Batched(Secrets, BatchSecretHooks):
        @hookimpl
        def fetch_secrets(
            self, requests: tuple[SecretRequest, ...], timeout: float
        ) -> list[SecretValue | KMSError]:
            asked.set()
            both.wait(PATIENCE)
            if threading.current_thread() is threading.main_thread():
                os.kill(os.getpid(), signal.SIGUSR1)
            return [SecretValue(KeyMaterial(each.reference.path.encode())) for each in requests]

    source = Source(a=b"a", b=b"b", c=b"c", d=b"d")
    source.binding = bind(lambda: Batched(source._answer))
    made = make_manager(source, clock)
    on_signal(lambda: got.append(made.refresh("fake://a").reveal()))
    found: list[dict[str, Any]] = []
    other = threading.Thread(
        target=lambda: found.append(made.get_many(["fake://a", "fake://b", "fake://c"])),
        daemon=True,
    )
    other.start()
    assert asked.wait(PATIENCE)
    assert set(made.get_many(["fake://c", "fake://d", "fake://e"])) >= {"fake://d"}
    other.join(PATIENCE)
    assert got == ["a"]
    assert len(found) == 1


def test_signal_handler_asks_at_any_call(clock: ManualClock) -> None:
    """Wherever in a `refresh` a signal comes, a handler that refreshes too comes to its end.

    The interpreter runs handlers at calls, so each call and return is one such place in turn.
    """
    source = Source(a=b"start")
    made = make_manager(source, clock, A="fake://a")
    watch = made.watch("A", lambda _: None, interval=3600.0)
    ours = ("sentra_kms/secrets", "threading.py", "queue.py")
    places = 0

    def refresh_interrupted_at(place: int) -> int:
        seen = 0

        def interrupt(frame: FrameType, event: str, argument: object) -> None:
            nonlocal seen
            if any(each in frame.f_code.co_filename for each in ours):
                seen += 1
                if seen == place:
                    source.answers["a"] = b"in %d" % place
                    made.refresh("A")
                    made.get(f"fake://a?inner={place}")

        source.answers["a"] = b"out %d" % place
        sys.setprofile(interrupt)
        try:
            made.get(f"fake://a?outer={place}")
            made.refresh("A")
        finally:
            sys.setprofile(None)
        return seen

    def work() -> None:
        nonlocal places
        while refresh_interrupted_at(places + 1) > places:
            places += 1
            assert made.get("A").reveal() == f"in {places}"

    thread = threading.Thread(target=work, daemon=True)  # a hang is this thread's alone
    thread.start()
    thread.join(PATIENCE)
    assert not thread.is_alive()
    assert places > 50
    watch.stop()


def test_interrupted_look_is_no_answer(clock: ManualClock) -> None:
    """Who refreshes while a look is broken off asks the source, and is not given the old value."""
    asked, go = threading.Event(), threading.Event()
    waiting = threading.Semaphore(0)
    state = {"looks": 0}

    def broken_off() -> bytes:
        state["looks"] += 1
        if state["looks"] == 1:
            asked.set()
            go.wait(PATIENCE)
            raise KeyboardInterrupt
        return b"new"

    source = Source(a=b"old")
    made = make_manager(source, clock, A="fake://a")
    made.get("A")
    source.answers["a"] = broken_off
    found: list[str] = []
    ends: list[str] = []

    def leader() -> None:
        try:
            made.refresh("A")
        except KeyboardInterrupt:
            ends.append("interrupted")

    def waiter() -> None:
        waiting.release()
        found.append(made.refresh("A").reveal())

    first = threading.Thread(target=leader)
    first.start()
    assert asked.wait(PATIENCE)
    others = [threading.Thread(target=waiter) for _ in range(10)]
    for other in others:
        other.start()
        assert waiting.acquire(timeout=PATIENCE)
    go.set()
    for thread in [first, *others]:
        thread.join(PATIENCE)
    assert ends == ["interrupted"]
    assert found == ["new"] * 10


def test_look_broken_off_by_who_came_later_is_no_answer(clock: ManualClock) -> None:
    """A look that began after somebody asked, and came to no end, does not answer them."""
    source = Source(a=b"old")
    made = make_manager(source, clock, A="fake://a")
    made.get("A")
    slot = made._documents._slot(next(iter(made._documents._slots)))
    asked = threading.Event()
    found: list[str] = []
    ticks = made._documents._ticks

    class Told:
        """A count that says when somebody asked."""

        def __next__(self) -> int:
            tick = next(ticks)
            if threading.current_thread() is waiter:
                asked.set()
            return tick

    def broken_off() -> bytes:
        source.answers["a"] = b"new"
        raise KeyboardInterrupt

    made._documents._ticks = Told()  # type: ignore[assignment]
    waiter = threading.Thread(target=lambda: found.append(made.refresh("A").reveal()))
    with slot.lock:
        waiter.start()
        assert asked.wait(PATIENCE)
        source.answers["a"] = broken_off
        with pytest.raises(KeyboardInterrupt):
            made._documents._look(next(iter(made._documents._slots)), slot)
    waiter.join(PATIENCE)
    assert found == ["new"]
