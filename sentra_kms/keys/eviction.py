"""Which tenant to forget when memory is full: not those who are used again and again.

S3-FIFO (Yang, Zhang, Qiu, Yue, Vinayak: "FIFO queues are all you need for cache eviction", SOSP
2023) without its ghost queue: newcomers wait in a small queue, a tenth of all; who was used there
moves to the main queue, and who was not is forgotten. So a job that visits every tenant once
drives out nobody who is in daily use. A hit takes no lock and costs nothing: a writer's epoch
counts, and a reader is asked to come by once before he is taken for gone.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

from sentra_kms.keys.held import Entry
from sentra_kms.keys.message import NEVER, Epoch

_SMALL_SHARE = 10  # one in so many
_MAIN = 1  # in a seat: queued in the main queue
_CALLED = 2  # in a seat: its readers were asked to come by


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
        # Each pass takes a name off a queue, clears a flag or calls once, so this ends.
        passes = 3 * (len(self._small) + len(self._main)) + 1
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
            if entry.openers and not entry.seat & _CALLED:
                self._call(entry)
                queue.append(entry.tenant)
                continue
            return entry
        return None

    def _call(self, entry: Entry) -> None:
        """Have the next reader look the entry up, which leaves a trace, before he goes on."""
        entry.seat |= _CALLED
        for opener in entry.openers.values():
            opener.deadline = NEVER

    def _was_used(self, entry: Entry) -> bool:
        """Whether a message was read or written since this was asked the last time."""
        epoch = self._epochs.get(entry.tenant)
        wrote = epoch is not None and epoch.was_used()
        asked, entry.asked = entry.asked, False
        return asked or wrote
