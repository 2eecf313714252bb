"""Backing up key rings into a file: wrapped as they are, and authenticated."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime

import msgspec

from sentra_kms.errors import KMSError, TenantNotFound, afresh
from sentra_kms.keys.backup_file import BACKUP_ID_SIZE, write_records
from sentra_kms.keys.private_file import absolute, new_file
from sentra_kms.keys.store import RingStore
from sentra_kms.tenant import check_tenant


class BackedUp(msgspec.Struct, frozen=True):
    """One tenant's ring in a backup that was made; or the error for which it is not in it."""

    tenant: str
    ring_id: str | None = None
    sequence: int | None = None
    versions: int | None = None
    error: KMSError | None = None


class BackupReport(msgspec.Struct, frozen=True):
    """What a backup holds. `backup_id` is hex and names it; `time` is when it began."""

    path: str
    backup_id: str
    time: datetime
    tenants: tuple[BackedUp, ...]

    @property
    def failed(self) -> tuple[BackedUp, ...]:
        """The tenants whose rings are not in the file."""
        return tuple(each for each in self.tenants if each.error is not None)


def back_up(
    store: RingStore,
    path: str | os.PathLike[str],
    tenants: Iterable[str] | None,
    clock: Callable[[], float],
) -> BackupReport:
    """Write the rings of tenants, or of all, into a new file; see `KeyManager.backup`."""
    named = None if tenants is None else dict.fromkeys(check_tenant(tenant) for tenant in tenants)
    target = absolute(path)
    outcomes: list[BackedUp] = []
    backup_id, time = os.urandom(BACKUP_ID_SIZE), int(clock())
    with new_file(target) as stream:
        found = _documents(store, store.tenants() if named is None else named, outcomes)
        key = store.authenticator.signer()
        if not write_records(stream, key, backup_id, time, found):
            _refuse_empty(outcomes)
    return BackupReport(target, backup_id.hex(), datetime.fromtimestamp(time, UTC), tuple(outcomes))


def _documents(
    store: RingStore, tenants: Iterable[str], outcomes: list[BackedUp]
) -> Iterator[tuple[str, bytes]]:
    """Yield each ring that is sound; note of each tenant how it went."""
    for tenant in tenants:
        try:
            loaded = store.load(tenant)
            ring = loaded.ring
        except KMSError as error:
            outcomes.append(BackedUp(tenant, error=afresh(error)))
            continue
        outcomes.append(BackedUp(tenant, ring.ring_id.hex(), ring.sequence, len(ring.versions)))
        yield tenant, loaded.document


def _refuse_empty(outcomes: list[BackedUp]) -> None:
    for outcome in outcomes:
        if outcome.error is not None:
            raise outcome.error
    raise TenantNotFound("there is no key ring to back up: nothing was written")
