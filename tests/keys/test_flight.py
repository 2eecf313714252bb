"""A flight whose leader a signal handler interrupts, wherever that is, is over for everybody."""

from __future__ import annotations

import gc
import signal
from collections.abc import Iterator
from types import FrameType
from typing import Any

import pytest

from sentra_kms.keys.flight import SingleFlight
from tests.keys.conftest import Crew, in_threads

TIMES = 1000


class Interruption(BaseException):
    """What the handler raises."""


@pytest.fixture
def fired() -> Iterator[list[None]]:
    """Has one more element each time that an alarm's handler raised."""
    found: list[None] = []

    def handler(_: int, frame: FrameType | None) -> None:
        found.append(None)
        raise Interruption

    before = signal.signal(signal.SIGALRM, handler)
    gc.disable()  # an error within a collection is heard by nobody
    yield found
    gc.enable()
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def fly_until_interrupted(flight: SingleFlight[str], number: int) -> None:
    """Lead one flight after the other, of next to no length, until the alarm comes."""
    signal.setitimer(signal.ITIMER_REAL, 3e-5 + number % 50 * 1e-7)
    while True:
        flight.do("key", lambda: "by the interrupted")


def test_leader_that_is_interrupted_anywhere_leaves_no_flight_behind(fired: list[None]) -> None:
    """Neither before it began nor after it has landed: nothing of it is kept."""
    flight: SingleFlight[str] = SingleFlight()
    for number in range(TIMES):
        with pytest.raises(Interruption):
            fly_until_interrupted(flight, number)
        assert not flight._flights
    assert len(fired) == TIMES
    assert in_threads(lambda _: flight.do("key", lambda: "by another"), 1) == ["by another"]


def test_nobody_waits_for_ever_for_a_leader_that_is_interrupted(fired: list[None]) -> None:
    """Others are at it all the time, some waiting when the leader goes."""
    flight: SingleFlight[str] = SingleFlight()
    ended: list[None] = []

    def work(_: int) -> int:
        flown = 0
        while not ended:
            assert flight.do("key", lambda: "by another") in {"by another", "by the interrupted"}
            flown += 1
        return flown

    crew = Crew(work, 3)
    for number in range(TIMES):
        with pytest.raises(Interruption):
            fly_until_interrupted(flight, number)
    ended.append(None)
    for flown in crew.join():
        assert isinstance(flown, int)
        assert flown > 0
    assert not flight._flights


class Torn:
    """A lock that is had once, and at the second time is come between."""

    def __init__(self) -> None:
        self._had = 0

    def __enter__(self) -> None:
        self._had += 1
        if self._had == 2:
            raise Interruption

    def __exit__(self, *error: object) -> None:
        pass


def test_flight_that_could_not_be_taken_away_is_over_all_the_same() -> None:
    """Nobody is given its answer for ever, and its key is fetched anew."""
    flight: SingleFlight[str] = SingleFlight()
    lock: Any = flight._lock
    torn: Any = Torn()
    flight._lock = torn
    with pytest.raises(Interruption):
        flight.do("key", lambda: "old")
    flight._lock = lock
    assert "key" in flight._flights
    assert in_threads(lambda _: flight.do("key", lambda: "new"), 1) == ["new"]
    assert flight.do("key", lambda: "newer") == "newer"
    assert not flight._flights
