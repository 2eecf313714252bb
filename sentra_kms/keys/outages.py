"""What has failed a moment ago, so that not everybody finds it out again for himself."""

from __future__ import annotations

from collections.abc import Callable

from sentra_kms.forks import RLock, tell_after_fork

PROBE_INTERVAL = 5.0
"""Seconds for which a failure is remembered; then one caller tries again."""


class Outages:
    """Names of services that are out of reach. `now` gives monotonic seconds.

    With `forgives` a failure says nothing of a service that has answered somebody within
    `PROBE_INTERVAL`: then it is not out of reach, but in trouble with that one thing alone.
    """

    def __init__(self, now: Callable[[], float], *, forgives: bool = False) -> None:
        self._now = now
        self._forgives = forgives
        # Who is in one of these two is in the other: a signal handler comes after calls, so each
        # change of both is made without one in between.
        self._until: dict[str, float] = {}
        self._probes: dict[str, tuple[float, str]] = {}  # the next one's time; who failed last
        self._answered: dict[str, float] = {}
        self.after_fork()
        tell_after_fork(self)

    def after_fork(self) -> None:
        """Replace a lock that another thread may have held."""
        self._lock = RLock()  # a signal handler may come while it is held

    def failed(self, name: str, who: str = "") -> None:
        """Remember that `name` was out of reach just now; `who` had asked."""
        with self._lock:
            now = self._now()
            answered = self._answered.get(name)
            if answered is not None and now < answered + PROBE_INTERVAL:
                return
            end = now + PROBE_INTERVAL
            # Who fails again and again without being told to probe puts no probe off.
            due = self._probes.get(name, (end, who))[0]
            self._probes[name] = due, who
            self._until[name] = end

    def worked(self, name: str) -> None:
        """Forget what is remembered of `name`."""
        if self._forgives:
            self._answered[name] = self._now()
        if name in self._until:
            with self._lock:
                if name in self._until:
                    del self._until[name]
                    del self._probes[name]

    def is_known(self, name: str) -> bool:
        """Whether `name` failed a moment ago; changes nothing."""
        until = self._until.get(name)
        return until is not None and self._now() < until

    def should_wait(self, name: str, who: str = "") -> bool:
        """Whether to do without `name` for now.

        When the memory of a failure ends, one caller is told to go ahead and probe it, and the
        others go on waiting until that has worked, or for another interval. `who` failed last goes
        ahead an interval after the others.
        """
        if name not in self._until:
            return False
        now = self._now()
        with self._lock:
            if name not in self._until:
                return False
            due, last = self._probes[name]
            if now < due + (PROBE_INTERVAL if who and who == last else 0):
                return True
            end = now + PROBE_INTERVAL
            until = max(self._until[name], end)
            self._probes[name] = end, last
            self._until[name] = until
            return False
