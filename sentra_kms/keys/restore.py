"""Restoring key rings from a backup, and never over a newer one unless that is forced."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import UTC, datetime
from typing import BinaryIO

import msgspec

from sentra_kms.errors import (
    Conflict,
    KMSError,
    RingRejected,
    TenantNotFound,
    UnsupportedOperation,
    afresh,
)
from sentra_kms.keys.backup_file import Record, read_records
from sentra_kms.keys.private_file import absolute, whole_file
from sentra_kms.keys.restore_report import (
    Action,
    Losses,
    Restored,
    RestoreReport,
    losses_of,
    told,
)
from sentra_kms.keys.ring import Ring
from sentra_kms.keys.store import Loaded, RingStore
from sentra_kms.tenant import check_tenant

_NONE = Losses()


class _Step(msgspec.Struct, frozen=True):
    """What is planned for a tenant: for which record, and over which revision."""

    outcome: Restored
    digest: bytes
    revision: str | None


def restore(
    store: RingStore,
    path: str | os.PathLike[str],
    *,
    force: bool,
    dry_run: bool,
    tenants: Iterable[str] | None,
    confirm: Callable[[RestoreReport], object] | None,
    saved: Callable[[Ring], object],
) -> RestoreReport:
    """Restore rings; see `KeyManager.restore`. `saved` is told of each ring that was saved."""
    named = None if tenants is None else {check_tenant(tenant) for tenant in tenants}
    target = absolute(path)
    with whole_file(target) as stream:
        steps, plan = _plan(store, stream, target, named, force=force)
        if dry_run:
            return plan
        if confirm is not None:
            confirm(plan)
        stream.seek(0)
        # Verified once more: nothing keeps a file from being written over meanwhile.
        done: dict[str, Restored] = {}
        failure: KMSError | None = None
        try:
            for record in read_records(stream, store.authenticator):
                tenant = record.ring.tenant
                if tenant in steps:
                    done[tenant] = _carry_out(store, record, steps[tenant], saved)
        except KMSError as error:
            failure = afresh(error)  # told of the rest: some may be restored
        outcomes = tuple(done.get(each) or _gone(steps[each], failure) for each in steps)
    return msgspec.structs.replace(plan, dry_run=False, tenants=outcomes)


def _plan(
    store: RingStore, stream: BinaryIO, path: str, named: set[str] | None, *, force: bool
) -> tuple[dict[str, _Step], RestoreReport]:
    """Verify the whole file, and say of each tenant what to do with it."""
    steps: dict[str, _Step] = {}
    backup_id, time = b"", 0
    for record in read_records(stream, store.authenticator):
        backup_id, time = record.backup_id, record.time
        tenant = record.ring.tenant
        if named is None or tenant in named:
            steps[tenant] = _step(store, record, force=force)
    absent = sorted((named or set()) - set(steps))
    if absent:
        raise TenantNotFound(f"the backup has no key ring of {', '.join(absent)}")
    return steps, RestoreReport(
        path,
        backup_id.hex(),
        datetime.fromtimestamp(time, UTC),
        dry_run=True,
        tenants=tuple(step.outcome for step in steps.values()),
    )


def _step(store: RingStore, record: Record, *, force: bool) -> _Step:
    ring = record.ring
    revision: str | None = None
    try:
        found, revision = _look(store, ring.tenant)
    except TenantNotFound:
        outcome = _over_nothing(store, record)
    except KMSError as error:
        outcome = _outcome(ring, "fail", None, error=afresh(error))
    else:
        outcome = _over(found, ring)
    if force and outcome.action == "refuse":
        # What was loaded was seen, too.
        sequence = max(ring.sequence, store.seen(ring.tenant)) + 1
        outcome = msgspec.structs.replace(outcome, action="force", saved=sequence, error=None)
    return _Step(outcome, hashlib.sha256(record.document).digest(), revision)


def _look(store: RingStore, tenant: str) -> tuple[Ring | RingRejected, str | None]:
    """Return the store's ring or why it is refused, and the revision that this was said of.

    There is none of one that is refused where it was before, in the previous store.
    """
    revision: str | None = None
    try:
        return _usable(store, store.load(tenant))
    except RingRejected:
        # Read before it is looked at again: if it is mended meanwhile, the save conflicts.
        with suppress(TenantNotFound):
            revision = store.revision(tenant)
    try:
        return _usable(store, store.load(tenant))[0], revision
    except RingRejected as error:
        return error, revision


def _usable(store: RingStore, loaded: Loaded) -> tuple[Ring, str]:
    if not store.is_here(loaded):
        raise UnsupportedOperation(
            f"the ring of '{loaded.ring.tenant}' is still in '{loaded.service.name}': move it "
            "first",
            subject=loaded.ring.tenant,
        )
    return loaded.ring, loaded.revision


def _over_nothing(store: RingStore, record: Record) -> Restored:
    then = record.ring
    if not store.has_seen_newer(then, record.document):
        return _outcome(then, "create", None, saved=then.sequence)
    return _refused(
        then,
        None,
        f"the ring of '{then.tenant}' is gone from the store, and this process has seen it with "
        f"sequence {store.seen(then.tenant)}, the backup's has {then.sequence}",
        Losses(unknown=True),
    )


def _over(now: Ring | RingRejected, then: Ring) -> Restored:
    if isinstance(now, RingRejected):
        return _refused(then, None, now.message, Losses(unknown=True))
    if now.sequence >= then.sequence and _up_to(now, then.sequence) == then:
        return _outcome(then, "unchanged", now.sequence)
    losses = losses_of(now, then)
    if now.ring_id != then.ring_id:
        why = "is another one, made anew"
    elif now.sequence >= then.sequence:
        why = "is not older"
    elif losses.versions or any(back.now == "destroyed" for back in losses.states):
        why = "is no earlier state of the backup's"
    else:
        return _outcome(then, "forward", now.sequence, saved=then.sequence)
    return _refused(
        then,
        now.sequence,
        f"the store's ring of '{now.tenant}' {why} (sequence {now.sequence}, the backup's has "
        f"{then.sequence})",
        losses,
    )


def _up_to(ring: Ring, sequence: int) -> Ring:
    return msgspec.structs.replace(ring, sequence=sequence)


def _refused(then: Ring, stored: int | None, why: str, losses: Losses) -> Restored:
    error = Conflict(
        f"{why}: it was left as it is. A restore that is forced {told(losses)}",
        subject=then.tenant,
        retryable=False,
    )
    return _outcome(then, "refuse", stored, losses=losses, error=error)


def _outcome(
    then: Ring,
    action: Action,
    stored: int | None,
    *,
    saved: int | None = None,
    losses: Losses = _NONE,
    error: KMSError | None = None,
) -> Restored:
    return Restored(
        then.tenant, action, then.ring_id.hex(), stored, then.sequence, saved, losses, error
    )


def _carry_out(
    store: RingStore, record: Record, step: _Step, saved: Callable[[Ring], object]
) -> Restored:
    outcome = step.outcome
    ring = record.ring
    try:
        if hashlib.sha256(record.document).digest() != step.digest:
            raise RingRejected(
                f"the backup's record of '{ring.tenant}' changed while it was restored",
                subject=ring.tenant,
            )
        if outcome.action in {"create", "forward"}:
            # Byte for byte, so that a process that has seen this very document goes on with it.
            store.put_back(ring, record.document, step.revision)
        elif outcome.action == "force" and outcome.saved is not None:
            ring = _up_to(ring, outcome.saved)
            store.save_over(ring, step.revision)
        else:
            return outcome
    except KMSError as error:
        return msgspec.structs.replace(outcome, action="fail", saved=None, error=afresh(error))
    saved(ring)
    return outcome


def _gone(step: _Step, failure: KMSError | None) -> Restored:
    """Return what became of a tenant whose record the file has no more."""
    tenant = step.outcome.tenant
    error = failure or RingRejected(
        f"the backup's record of '{tenant}' went from the file while it was restored: restore "
        "from a file that nobody writes to",
        subject=tenant,
    )
    return msgspec.structs.replace(step.outcome, action="fail", saved=None, error=error)
