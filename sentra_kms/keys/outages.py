"""What has failed a moment ago, so that not everybody finds it out again for himself."""

from __future__ import annotations

import threading
from collections.abc import Callable

from sentra_kms.forks import tell_after_fork

PROBE_INTERVAL = 5.0
"""Seconds for which a failure is remembered; then one caller tries again."""


class Outages:
    """Names of services that are out of reach. `now` gives monotonic seconds."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._until: dict[str, float] = {}
        self.after_fork()
        tell_after_fork(self)

    def after_fork(self) -> None:
        """Replace a lock that another thread may have held."""
        self._lock = threading.Lock()

    def failed(self, name: str) -> None:
        """Remember that `name` was out of reach just now."""
        with self._lock:
            self._until[name] = self._now() + PROBE_INTERVAL

    def worked(self, name: str) -> None:
        """Forget what is remembered of `name`."""
        if name in self._until:
            with self._lock:
                self._until.pop(name, None)

    def is_known(self, name: str) -> bool:
        """Whether `name` failed a moment ago; changes nothing."""
        until = self._until.get(name)
        return until is not None and self._now() < until

    def should_wait(self, name: str) -> bool:
        """Whether to do without `name` for now.

        When the memory of a failure ends, one caller is told to go ahead and probe it, and the
        others go on waiting until that has worked, or for another interval.
        """
        if name not in self._until:
            return False
        with self._lock:
            until = self._until.get(name)
            if until is None:
                return False
            if self._now() < until:
                return True
            self._until[name] = self._now() + PROBE_INTERVAL
            return False
