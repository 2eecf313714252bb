"""When things are due: few distinct times, and not the same ones in every process."""

from __future__ import annotations

import os
from math import floor

from sentra_kms.forks import tell_after_fork

_JITTER = 0.1  # of a TTL, taken off
_MAX_TICKS = 4096


class Times:
    """The times of one process's cache."""

    def __init__(self) -> None:
        self._ticks: dict[float, float] = {}
        self.after_fork()
        tell_after_fork(self)

    def after_fork(self) -> None:
        """Give the child other times than its siblings have."""
        self._salt = os.urandom(8)

    def tick(self, seconds: float) -> float:
        """Round down to a sixteenth of a second, and return an object that others hold too.

        Of a hundred thousand tenants each would else keep four floats of its own, 128 bytes.
        """
        if len(self._ticks) >= _MAX_TICKS:
            self._ticks.clear()
        rounded = floor(seconds * 16) / 16
        return self._ticks.setdefault(rounded, rounded)

    def shortened(self, ttl: float, tenant: str) -> float:
        """Take up to a tenth off a TTL.

        Of a tenant always the same, so that it need not be kept; of two processes never.
        """
        return ttl * (1 - _JITTER * (hash((self._salt, tenant)) & 0xFFFF) / 0xFFFF)
