"""What the cache is told of its times, and where it gets rings and keys from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import msgspec

from sentra_kms.errors import KMSError
from sentra_kms.keys.ring import Ring, Version
from sentra_kms.material import KeyMaterial


class NotAtHandError(Exception):
    """A backend would have to be asked."""


class Bounds(msgspec.Struct, frozen=True):
    """How long rings are held, in seconds, and how many keys."""

    ring_ttl: float
    max_stale: float
    max_keys: int


if TYPE_CHECKING:

    class Source(Protocol):
        """Where rings and keys come from."""

        def load(self, tenant: str) -> tuple[Ring, str]:
            """Read and verify a ring; return it and its place: nothing for the main store."""
            ...

        def failed_at(self, error: KMSError) -> str:
            """Return the place of the store that did not answer."""
            ...

        def seen(self, tenant: str) -> int:
            """Return the highest sequence of a tenant's ring that was read or saved here."""
            ...

        def unwrap(self, ring: Ring, version: Version) -> KeyMaterial:
            """Ask a KEK for a key."""
            ...

        def key_ttl(self, policy: str) -> float:
            """Return how long keys of a policy are held, in seconds."""
            ...

        def is_out_of_reach(self, ring: Ring, version: Version) -> bool:
            """Whether everybody who could unwrap failed a moment ago."""
            ...
