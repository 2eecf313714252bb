"""Rings as a store keeps them: authenticated, checked, and never older than what was seen."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Protocol

import msgspec

from sentra_kms.errors import Conflict, RingRejected
from sentra_kms.forks import tell_after_fork
from sentra_kms.hooktypes import RingPage, StoredRing
from sentra_kms.keys.document import Authenticator
from sentra_kms.keys.ring import Ring, decode, encode
from sentra_kms.tenant import check_tenant

_PAGE = 10_000  # tenants asked for at once


class RingService(Protocol):
    """What the store needs of a bound backend."""

    def load_ring(self, tenant: str) -> StoredRing:
        """Load."""
        ...

    def save_ring(self, tenant: str, document: bytes, expected: str | None) -> str:
        """Save by compare-and-set; return the new revision."""
        ...

    def list_rings(self, cursor: str | None, limit: int) -> RingPage:
        """List a page."""
        ...


class Loaded(msgspec.Struct, frozen=True):
    """A ring with the revision to save over, and whether the first auth key signed it."""

    ring: Ring
    revision: str
    signed_by_first: bool
    document: bytes


class RingStore:
    """The configured store. Safe to use from many threads."""

    def __init__(self, service: RingService, authenticator: Authenticator) -> None:
        self._service = service
        self._authenticator = authenticator
        # Highest sequence seen of each tenant, with 64 bits of that document's MAC below it: one
        # integer a tenant, kept for the life of the process.
        self._seen: dict[str, int] = {}
        self.after_fork()
        tell_after_fork(self)

    def after_fork(self) -> None:
        """Replace a lock that another thread may have held."""
        self._lock = threading.Lock()

    @property
    def authenticator(self) -> Authenticator:
        """What signs and verifies the rings here."""
        return self._authenticator

    def load(self, tenant: str) -> Loaded:
        """Return a tenant's ring; raises `TenantNotFound` or `RingRejected`."""
        # Noted before the read: a slow read may lawfully return what was newest when it began.
        seen = self._seen.get(tenant, 0)
        stored = self._service.load_ring(tenant)
        ring = decode(self._authenticator.verify(tenant, stored.document), tenant)
        self._refuse_rollback(ring, seen, _mark(ring, stored.document))
        signed_by_first = self._authenticator.signs(stored.document)
        return Loaded(ring, stored.revision, signed_by_first, stored.document)

    def save(self, ring: Ring, expected: str | None) -> str:
        """Store a ring whose sequence the caller has raised; raises `Conflict`.

        `expected` is the revision that was read, `None` to create. Returns the new revision.
        """
        check_tenant(ring.tenant)
        self._refuse_regress(ring, expected)
        payload = encode(ring)
        decode(payload, ring.tenant)  # what no reader would accept is not saved
        document = self._authenticator.sign(ring.tenant, payload)
        return self._put(ring, document, expected)

    def put_back(self, ring: Ring, document: bytes, expected: str | None) -> str:
        """Store the document of a ring, verified and decoded, byte for byte; as `save` does.

        Raises `RingRejected` if this process has seen a newer one, or another of its sequence.
        """
        if self.has_seen_newer(ring, document):
            raise RingRejected(
                f"the ring of '{ring.tenant}' of sequence {ring.sequence} was not put back: this "
                f"process has seen sequence {self.seen(ring.tenant)}, or another of its own",
                subject=ring.tenant,
            )
        return self._put(ring, document, expected)

    def revision(self, tenant: str) -> str:
        """Return the revision of what is stored, though it be refused as a ring."""
        return self._service.load_ring(tenant).revision

    def has_seen_newer(self, ring: Ring, document: bytes) -> bool:
        """Whether this process has seen a ring above this one, or another of its sequence."""
        seen, mark = self._seen.get(ring.tenant, 0), _mark(ring, document)
        return mark != seen and mark >> 64 <= seen >> 64

    def seen(self, tenant: str) -> int:
        """Return the highest sequence of a tenant that this process has seen, 0 if none."""
        return self._seen.get(tenant, 0) >> 64

    def tenants(self) -> Iterator[str]:
        """Yield the tenants that have a ring, each once, in the store's order."""
        cursor: str | None = None
        while True:
            page = self._service.list_rings(cursor, _PAGE)
            yield from page.tenants
            if page.cursor is None:
                return
            cursor = page.cursor

    def close(self) -> None:
        """Forget the authentication keys."""
        self._authenticator.clear()

    def _put(self, ring: Ring, document: bytes, expected: str | None) -> str:
        revision = self._service.save_ring(ring.tenant, document, expected)
        self._note(ring.tenant, _mark(ring, document))
        return revision

    def _refuse_regress(self, ring: Ring, expected: str | None) -> None:
        seen = self._seen.get(ring.tenant, 0) >> 64
        if ring.sequence > seen:
            return
        if expected is not None:
            raise Conflict(f"the ring of '{ring.tenant}' was saved by somebody else: read it again")
        raise RingRejected(
            f"the ring of '{ring.tenant}' was not created: this process has seen one of sequence "
            f"{seen} that is gone from the store. Restore it: what was encrypted under it opens "
            "under no other",
            subject=ring.tenant,
        )

    def _refuse_rollback(self, ring: Ring, seen: int, mark: int) -> None:
        if mark >> 64 < seen >> 64 or (mark >> 64 == seen >> 64 and mark != seen):
            raise RingRejected(
                f"the stored ring of '{ring.tenant}' has sequence {ring.sequence}, but this "
                f"process has seen {'another ' if mark >> 64 == seen >> 64 else ''}{seen >> 64}: "
                "the store was rolled back, or holds a copy of another store",
                subject=ring.tenant,
            )
        self._note(ring.tenant, mark)

    def _note(self, tenant: str, mark: int) -> None:
        with self._lock:
            if mark > self._seen.get(tenant, 0):
                self._seen[tenant] = mark


def _mark(ring: Ring, document: bytes) -> int:
    # The header holds the MAC in hex at a fixed place: "sentra-ring 1 " + 16 + " " + 64.
    return ring.sequence << 64 | int(document[31:47], 16)
