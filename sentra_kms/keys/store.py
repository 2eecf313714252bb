"""Rings as stores keep them: authenticated, checked, and never older than what was seen.

While tenants move from one store to another there are two. A ring is where it is: read and saved
there until it is moved, by marking the old one and then creating the new one. Whoever finds a
mark and no new ring finishes the move. A tenant's first ring is put to use in two steps then.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime
from typing import TYPE_CHECKING

import msgspec

from sentra_kms.errors import (
    Conflict,
    KMSError,
    RingRejected,
    TenantNotFound,
    UnsupportedOperation,
)
from sentra_kms.keys.document import Authenticator, signer_of
from sentra_kms.keys.ring import (
    Ring,
    decode,
    encode,
    format_time,
    in_use,
    is_unsettled,
    moved,
    moved_here,
    parse_time,
    unsettled,
)
from sentra_kms.keys.seen import Seen
from sentra_kms.tenant import check_tenant

_PAGE = 10_000  # tenants asked for at once
_ROOM = 1024  # bytes; a version that is scheduled takes some 20 more, and less once destroyed

if TYPE_CHECKING:
    from sentra_kms.keys.receipt import Remains
    from sentra_kms.keys.source import RingService


class Loaded(msgspec.Struct, frozen=True):
    """A ring, the document that it was stored as, the revision to save over, and where it is."""

    ring: Ring
    document: bytes
    revision: str
    service: RingService


class RingStore:
    """The configured store, and the previous one if there is one. Safe from many threads."""

    def __init__(
        self,
        service: RingService,
        authenticator: Authenticator,
        seen: Seen | None = None,
        previous: RingService | None = None,
    ) -> None:
        self._service = service
        self._previous = previous
        self._authenticator = authenticator
        self._seen = seen or Seen()

    @property
    def authenticator(self) -> Authenticator:
        """What signs and verifies rings."""
        return self._authenticator

    @property
    def name(self) -> str:
        """The store's backend."""
        return self._service.name

    def load(self, tenant: str) -> Loaded:
        """Return a tenant's ring; raises `TenantNotFound` or `RingRejected`.

        `UnsupportedOperation` for one that has moved to a store which is not configured.
        """
        loaded = self.look(tenant)
        _refuse_moved(loaded.ring)
        return loaded

    def look(self, tenant: str) -> Loaded:
        """Return a tenant's ring as `load` does, also one that has moved to another store."""
        seen = self._seen.sequence(tenant)  # before the reads, as in `_load`
        try:
            return self._rather(self._load(self._service, tenant), seen)
        except TenantNotFound:
            if self._previous is None:
                raise
        try:
            found = self._load(self._previous, tenant)
        except (TenantNotFound, RingRejected):
            # It may have been moved between the two looks.
            with suppress(TenantNotFound):
                return self._rather(self._load(self._service, tenant), seen)
            raise
        return self._rather(found, seen) if found.ring.moved_to is None else self._finish(found)

    def is_signed_by_first(self, loaded: Loaded) -> bool:
        """Whether the auth key that signs now signed this ring too; fetches that key."""
        return self._authenticator.signs_as(signer_of(loaded.document))

    def create(self, ring: Ring) -> Loaded:
        """Store a tenant's first ring, and return it as it is then; raises `Conflict`.

        Where there is a previous store it is unsettled at first, and nothing is sealed under it:
        a process for which the two stand the other way round may be making one at the same time.
        """
        first = ring if self._previous is None else unsettled(ring)
        try:
            made = self._save(self._service, first, None)
        except Conflict:
            # A client below may have lost the answer, and tried again.
            if (own := self._own(ring)) is None:
                raise
            made = own
        try:
            return self.settled(made)
        except KMSError as error:
            if not isinstance(error, Conflict):
                with suppress(KMSError):  # then whoever creates it next settles it
                    self._take_back(made)
            raise

    def settled(self, loaded: Loaded) -> Loaded:
        """Return a ring in use: one that is unsettled is put to use, if there is no other one.

        Whoever does so looks into the other store after it was saved, so of two at least one is
        seen to be the second; one that is in use is never taken back. Raises `Conflict`.
        """
        if not is_unsettled(loaded.ring):
            return loaded
        other = self._previous if self.is_here(loaded) else self._service
        with suppress(Conflict, TenantNotFound):  # if somebody else was faster
            if other is None or not self._has_another(other, loaded.ring):
                return self._save(loaded.service, in_use(loaded.ring), loaded.revision)
            self._take_back(loaded)
        return self._in_use(loaded)

    def save(self, ring: Ring, over: Loaded) -> Loaded:
        """Store a ring whose sequence the caller has raised; raises `Conflict`.

        `over` is what was read and is changed, where it is. What makes it larger leaves room in
        it, so that versions of a full ring can still change their states.
        """
        room = _ROOM if ring.weight() > over.ring.weight() else 0
        return self._save(over.service, ring, over.revision, room=room)

    def save_over(self, ring: Ring, revision: str | None) -> None:
        """Store a ring over a revision of the store, whatever that holds; as `save` does."""
        self._save(self._service, ring, revision)

    def put_back(self, ring: Ring, document: bytes, revision: str | None) -> None:
        """Store the document of a ring, verified and decoded, byte for byte; as `save_over` does.

        Raises `RingRejected` if this process has seen a newer one, or another of its sequence.
        """
        if self.has_seen_newer(ring, document):
            raise RingRejected(
                f"the ring of '{ring.tenant}' of sequence {ring.sequence} was not put back: this "
                f"process has seen sequence {self.seen(ring.tenant)}, or another of its own",
                subject=ring.tenant,
            )
        self._put(self._service, ring, document, revision)

    def revision(self, tenant: str) -> str:
        """Return the revision of what is stored, though it be refused as a ring."""
        return self._service.load_ring(tenant).revision

    def is_here(self, loaded: Loaded) -> bool:
        """Whether a ring is in the store itself, and not in the previous one."""
        return loaded.service is self._service

    def has_seen_newer(self, ring: Ring, document: bytes) -> bool:
        """Whether this process has seen a ring above this one, or another of its sequence."""
        return self._seen.has_newer(ring, document)

    def seen(self, tenant: str) -> int:
        """Return the highest sequence that was read or saved of a tenant's ring, 0 if none was."""
        return self._seen.sequence(tenant)

    def move(self, tenant: str) -> Loaded:
        """Move a tenant's ring from the previous store; returns it where it then is.

        A ring that is in the store already stays. Raises `Conflict` if the ring was changed at
        the same time, and changes nothing if something is in its way there that does not give way.
        """
        loaded = self.load(tenant)
        if self.is_here(loaded):
            return loaded
        self._make_way(tenant)
        marked = self._save(loaded.service, moved(loaded.ring, self.name), loaded.revision)
        return self._finish(marked)

    def place(self, loaded: Loaded) -> str:
        """Return where a ring was found: the previous store's name, nothing for the store."""
        return "" if loaded.service is self._service else loaded.service.name

    def failed_at(self, error: KMSError) -> str:
        """Return which store an error of `load` is of, as `place` does."""
        previous = self._previous
        return previous.name if previous is not None and error.backend == previous.name else ""

    def purge(self, live: Ring) -> list[Remains]:
        """Erase what is stored of a tenant's ring beside the live one; return what remains.

        That is what is older in the previous store, such as a move's mark, and earlier revisions
        where a store keeps them. What cannot be erased is told and no error: the live ring is
        changed already.
        """
        found: list[Remains] = []
        for service in (self._service, self._previous):
            if service is not None:
                found += self._purged(service, live)
        return found

    def _purged(self, service: RingService, live: Ring) -> list[Remains]:
        from sentra_kms.keys.receipt import Remains  # rarely needed

        where = f"store '{service.name}'"
        try:
            if service is self._previous and not self._delete_older(service, live):
                return [Remains(f"{where}: another ring, or a newer one than is in use", None)]
            if "purge_ring_history" in service.operations:
                return [
                    Remains(f"{where}: {each.place}", _text(each.until))
                    for each in service.purge_ring_history(live.tenant)
                ]
        except KMSError as error:
            return [Remains(f"{where}, which could not be purged: {error.message}", None)]
        return [Remains(f"{where}: earlier revisions, where it or its backups keep any", None)]

    def _delete_older(self, service: RingService, live: Ring) -> bool:
        """Delete what a move left, or a backup of it brought back; not held against what was seen.

        A ring that was never moved is the live one, and stays, whatever somebody made of it. So
        does one that is not an older state of the live one, which may be in use; then not true.
        """
        tenant = live.tenant
        with suppress(TenantNotFound):
            stored = service.load_ring(tenant)
            left = decode(self._authenticator.verify(tenant, stored.document), tenant)
            self._service.load_ring(tenant)  # or it is not moved
            if left.ring_id != live.ring_id or left.sequence >= live.sequence:
                return False
            service.delete_ring(tenant, stored.revision)
        return True

    def tenants(self) -> Iterator[str]:
        """Yield the tenants that have a ring, each once, in the stores' order."""
        found: set[str] = set()  # a store's pages may shift while they are read
        for service in (self._service, self._previous):
            for tenant in () if service is None else _listed(service):
                if tenant not in found:
                    found.add(tenant)
                    yield tenant

    def unmoved(self) -> Iterator[str]:
        """Yield the tenants that the previous store lists and this one does not; reads no ring."""
        if self._previous is not None:
            here = set(_listed(self._service))
            yield from (tenant for tenant in _listed(self._previous) if tenant not in here)

    def close(self) -> None:
        """Forget the authentication keys."""
        self._authenticator.clear()

    def _own(self, ring: Ring) -> Loaded | None:
        with suppress(TenantNotFound):
            found = self._load(self._service, ring.tenant)
            if found.ring.ring_id == ring.ring_id:
                return found
        return None

    def _rather(self, found: Loaded, seen: int) -> Loaded:
        """Return a ring, or for one that is unsettled the one that is in use in the other store."""
        ring = found.ring
        if not is_unsettled(ring):
            return found
        if self._previous is not None and self.is_here(found):
            with suppress(TenantNotFound):
                other = self._load(self._previous, ring.tenant)
                if other.ring.ring_id != ring.ring_id and not is_unsettled(other.ring):
                    # Its creation was cut short. It is in nobody's way but a move's.
                    with suppress(KMSError if other.ring.moved_to is None else Conflict):
                        self._take_back(found)
                    return other if other.ring.moved_to is None else self._finish(other)
        if seen:
            told = "is as it was created, but this process has seen it in use: it was rolled back"
            raise RingRejected(f"the stored ring of '{ring.tenant}' {told}", subject=ring.tenant)
        return found

    def _in_use(self, before: Loaded) -> Loaded:
        """Return what an unsettled ring has become; raises `Conflict` if it was taken back."""
        tenant = before.ring.tenant
        with suppress(TenantNotFound):
            found = self._load(before.service, tenant)
            if found.ring.ring_id == before.ring.ring_id and not is_unsettled(found.ring):
                return found
        told = f"tenant '{tenant}' was created in two stores at the same time: create it again"
        raise Conflict(told, subject=tenant)

    def _has_another(self, service: RingService, ring: Ring) -> bool:
        with suppress(TenantNotFound):  # a move's mark is of the same one
            return self._load(service, ring.tenant).ring.ring_id != ring.ring_id
        return False

    def _take_back(self, made: Loaded) -> None:
        try:
            made.service.delete_ring(made.ring.tenant, made.revision)
        except KMSError:
            with suppress(TenantNotFound):  # then only the answer was lost
                made.service.load_ring(made.ring.tenant)
                raise

    def _make_way(self, tenant: str) -> None:
        """Take back what a creation that was cut short left in the store."""
        with suppress(TenantNotFound):
            found = self._load(self._service, tenant)
            if not is_unsettled(found.ring):
                raise Conflict(f"the ring of '{tenant}' was moved by somebody else", subject=tenant)
            self._take_back(found)

    def _finish(self, marked: Loaded) -> Loaded:
        """Create what a move's mark announces, unless somebody has done so meanwhile."""
        if marked.ring.moved_to != self.name:
            _refuse_moved(marked.ring)
        try:
            return self._save(self._service, moved_here(marked.ring), None)
        except (Conflict, RingRejected):
            if (there := self._own(marked.ring)) is None:
                raise
            return there

    def _load(self, service: RingService, tenant: str) -> Loaded:
        # Noted before the read: a slow read may lawfully return what was newest when it began.
        seen = self._seen.mark(tenant)
        stored = service.load_ring(tenant)
        ring = decode(self._authenticator.verify(tenant, stored.document), tenant)
        if not is_unsettled(ring):
            self._seen.refuse_rollback(ring, stored.document, seen)
        return Loaded(ring, stored.document, stored.revision, service)

    def _save(
        self, service: RingService, ring: Ring, expected: str | None, *, room: int = 0
    ) -> Loaded:
        check_tenant(ring.tenant)
        self._seen.refuse_regress(ring, expected)
        payload = encode(ring)
        decode(payload, ring.tenant)  # what no reader would accept is not saved
        document = self._authenticator.sign(ring.tenant, payload, room=room)
        return self._put(service, ring, document, expected)

    def _put(
        self, service: RingService, ring: Ring, document: bytes, expected: str | None
    ) -> Loaded:
        revision = service.save_ring(ring.tenant, document, expected)
        if not is_unsettled(ring):  # that one may be taken back, or another be made
            self._seen.saved(ring, document)
        return Loaded(ring, document, revision, service)


def _listed(service: RingService) -> Iterator[str]:
    cursor: str | None = None
    while True:
        page = service.list_rings(cursor, _PAGE)
        yield from page.tenants
        if page.cursor is None:
            return
        cursor = page.cursor


def _refuse_moved(ring: Ring) -> None:
    if ring.moved_to is not None:
        raise UnsupportedOperation(
            f"the ring of '{ring.tenant}' has moved to '{ring.moved_to}': name that as store",
            subject=ring.tenant,
        )


def _text(until: datetime | None) -> str | None:
    """Return a time as a receipt has it; one that it cannot have is as good as none."""
    if until is not None:
        with suppress(OverflowError, ValueError):  # beyond the calendar, in its time zone
            text = format_time(until.timestamp())
            return text if parse_time(text) else None
    return None
