"""How long an operation may still take."""

from __future__ import annotations

import time

from sentra_kms_vault.failures import late


class Deadline:
    """The end of the time that an operation was given, in seconds.

    >>> 0 < Deadline(5.0).left() <= 5.0
    True
    """

    def __init__(self, timeout: float) -> None:
        self._end = time.monotonic() + timeout

    def left(self) -> float:
        """Return the seconds that are left, more than 0; raises `Unanswered` when none are."""
        seconds = self._end - time.monotonic()
        if seconds <= 0:
            raise late()
        return seconds

    def rest(self) -> float:
        """Return the seconds that are left, 0 when none are."""
        return max(0.0, self._end - time.monotonic())

    def allows(self, seconds: float) -> bool:
        """Whether more than that is left."""
        return self._end - time.monotonic() > seconds
