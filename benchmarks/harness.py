"""Interleaved timing: absolute times drift on a shared machine, ratios of one round do not."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping

Work = Callable[[], object]


def ratios(
    peer: Work, candidates: Mapping[str, Work], *, rounds: int, calls: int
) -> tuple[float, dict[str, float]]:
    """Return the peer's median seconds a call, and each candidate's median ratio to it.

    In each round the peer runs before and after every candidate, and the ratio is to the mean of
    the two, so that a drift of the machine's speed falls on both alike.
    """
    absolute: list[float] = []
    found: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(rounds):
        before = _seconds(peer, calls)
        for name, candidate in candidates.items():
            taken = _seconds(candidate, calls)
            after = _seconds(peer, calls)
            found[name].append(2 * taken / (before + after))
            absolute.append(after / calls)
            before = after
    return statistics.median(absolute), {
        name: statistics.median(values) for name, values in found.items()
    }


def _seconds(work: Work, calls: int) -> float:
    start = time.perf_counter()
    for _ in range(calls):
        work()
    return time.perf_counter() - start
