"""Where rings and keys come from: for the cache, with its times, and for the store."""

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
    from collections.abc import Sequence

    from sentra_kms.hooktypes import Remainder, RingPage, StoredRing

    class RingService(Protocol):
        """What the store needs of a bound backend."""

        name: str
        operations: frozenset[str]

        def load_ring(self, tenant: str) -> StoredRing:
            """Load."""
            ...

        def save_ring(self, tenant: str, document: bytes, expected: str | None) -> str:
            """Save by compare-and-set; return the new revision."""
            ...

        def delete_ring(self, tenant: str, expected: str) -> None:
            """Delete by compare-and-set."""

        def list_rings(self, cursor: str | None, limit: int) -> RingPage:
            """List a page."""
            ...

        def purge_ring_history(self, tenant: str) -> Sequence[Remainder]:
            """Erase earlier revisions; say what remains."""
            ...

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
