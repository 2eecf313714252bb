"""Interleaved timing: absolute times drift on a shared machine, ratios of one round do not."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping

Work = Callable[[], object]


def ratios(
    peer: Work, candidates: Mapping[str, Work], *, rounds: int, seconds: float = 0.002
) -> tuple[float, dict[str, float]]:
    """Return the peer's median seconds a call, and each candidate's median ratio to it.

    In each round the peer runs before and after every candidate, and the ratio is to the mean of
    the two, so that a drift of the machine's speed falls on both alike. Each run has as many calls
    as take about `seconds` of CPU: short, so that what else the machine does spoils few rounds.
    """
    count = _calls(peer, seconds)
    counts = {name: _calls(candidate, seconds) for name, candidate in candidates.items()}
    absolute: list[float] = []
    found: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(rounds):
        before = _seconds(peer, count)
        for name, candidate in candidates.items():
            taken = _seconds(candidate, counts[name])
            after = _seconds(peer, count)
            found[name].append(2 * taken / (before + after))
            absolute.append(after)
            before = after
    return statistics.median(absolute), {
        name: statistics.median(values) for name, values in found.items()
    }


def _calls(work: Work, seconds: float) -> int:
    work()  # what the first call prepares is not counted
    return max(1, int(seconds / min(_seconds(work, 5) for _ in range(3))))


def _seconds(work: Work, calls: int) -> float:
    """Return the process's CPU seconds of one call, of as many: no time that others took."""
    start = time.process_time()
    for _ in range(calls):
        work()
    return (time.process_time() - start) / calls
