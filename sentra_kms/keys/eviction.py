"""Which tenant to forget when memory is full: not those who are used again and again.

S3-FIFO (Yang, Zhang, Qiu, Yue, Vinayak: "FIFO queues are all you need for cache eviction", SOSP
2023) without its ghost queue: newcomers wait in a small queue, a tenth of all; who was used there
moves to the main queue, and who was not is forgotten. So a job that visits every tenant once
drives out nobody who is in daily use. A hit takes no lock and costs nothing: the epoch counts.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

from sentra_kms.keys.held import Entry
from sentra_kms.keys.message import Epoch

_SMALL_SHARE = 10  # one in so many
USED = 1  # in a seat: asked for since the queue was last here
_MAIN = 2  # in a seat: queued in the main queue


class Eviction:
    """Two queues of tenants; whoever calls holds the lock of the cache."""

    def __init__(self, entries: Mapping[str, Entry], epochs: Mapping[str, Epoch]) -> None:
        self._entries = entries
        self._epochs = epochs
        self._small: deque[str] = deque()
        self._main: deque[str] = deque()

    def admit(self, entry: Entry) -> None:
        """Queue a newcomer."""
        self._small.append(entry.tenant)

    def clear(self) -> None:
        """Forget both queues."""
        self._small.clear()
        self._main.clear()

    def choose(self, keep: str) -> Entry | None:
        """Return the entry to forget next, never that of `keep`; `None` if there is no other."""
        # Each pass takes a name off a queue or clears a flag, so this ends.
        passes = 2 * (len(self._small) + len(self._main)) + 1
        for _ in range(passes):
            small = len(self._small) * _SMALL_SHARE >= len(self._entries) or not self._main
            queue = self._small if small else self._main
            if not queue:
                return None
            entry = self._entries.get(queue.popleft())
            if entry is None or bool(entry.seat & _MAIN) is small:
                continue  # forgotten, or queued anew, since it was queued here
            if self._was_used(entry) or entry.tenant == keep:
                entry.seat = _MAIN
                self._main.append(entry.tenant)
                continue
            return entry
        return None

    def _was_used(self, entry: Entry) -> bool:
        """Whether a message was read or written since this was asked the last time."""
        epoch = self._epochs.get(entry.tenant)
        wrote = epoch is not None and epoch.was_used()
        asked = bool(entry.seat & USED)
        entry.seat &= ~USED
        return asked or wrote
