"""What a restore does or did, tenant by tenant, and what is lost where a ring gives way."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

import msgspec

from sentra_kms.errors import KMSError
from sentra_kms.keys.ring import Ring, State, Version

Action = Literal["create", "forward", "unchanged", "force", "refuse", "fail"]
_USABLE = {"enabled": 3, "disabled": 2, "scheduled": 1, "destroyed": 0}


class StateBack(msgspec.Struct, frozen=True):
    """A key version that is usable again: its state in the store now, and in the backup."""

    version: int
    now: State
    then: State


class Losses(msgspec.Struct, frozen=True):
    """What is lost if a ring of the store gives way to the one of a backup.

    `versions`: key versions that the backup does not have, or has destroyed; their messages open
    no more.
    `states`: versions that were disabled, scheduled or destroyed since, and come back. `keks`:
    KEKs that wrap nothing now, and would unwrap again. `unknown`: the store's ring cannot be
    read, or is gone, so that more may be lost than is known.
    """

    versions: tuple[int, ...] = ()
    states: tuple[StateBack, ...] = ()
    keks: tuple[str, ...] = ()
    unknown: bool = False


class Restored(msgspec.Struct, frozen=True):
    """One tenant of a backup: what is done with its ring, or was.

    `stored` is the sequence in the store before, `None` if there is no ring or it cannot be read;
    `backed_up` that in the backup; `saved` what the store has after, `None` if it is left as it
    is. `error` says why a ring was refused or failed.
    """

    tenant: str
    action: Action
    ring_id: str
    stored: int | None
    backed_up: int
    saved: int | None = None
    losses: Losses = Losses()
    error: KMSError | None = None


class RestoreReport(msgspec.Struct, frozen=True):
    """What a restore does, after a dry run, or did. `time` is when the backup began."""

    path: str
    backup_id: str
    time: datetime
    dry_run: bool
    tenants: tuple[Restored, ...]

    @property
    def failed(self) -> tuple[Restored, ...]:
        """The tenants whose rings are not as the backup has them."""
        return tuple(each for each in self.tenants if each.error is not None)


def losses_of(now: Ring, then: Ring) -> Losses:
    """Return what is lost if `then` takes the place of `now`."""
    same = now.ring_id == then.ring_id
    kept: dict[int, Version] = {version.version: version for version in then.versions}
    lost: list[int] = []
    back: list[StateBack] = []
    for version in now.versions:
        again = kept.get(version.version)
        if again is None or not same or _is_lost(version, again):
            lost.append(version.version)
        elif _USABLE[again.state] > _USABLE[version.state]:
            back.append(StateBack(version.version, version.state, again.state))
    return Losses(tuple(lost), tuple(back), tuple(sorted(_keks(then) - _keks(now))))


def _is_lost(now: Version, then: Version) -> bool:
    return now.check != then.check or (then.state == "destroyed" and now.state != "destroyed")


def _keks(ring: Ring) -> set[str]:
    return {wrap.kek for version in ring.versions for wrap in version.wraps}


def told(losses: Losses) -> str:
    """Return in words what a restore that is forced does.

    >>> told(Losses(versions=(3,), states=(StateBack(1, "disabled", "enabled"),)))
    'loses key version 3; makes version 1 enabled again, which is disabled now'
    """
    parts: list[str] = []
    if losses.unknown:
        parts.append("loses whatever is not in the backup")
    if losses.versions:
        parts.append(
            f"loses key version{'' if len(losses.versions) == 1 else 's'} "
            + ", ".join(map(str, losses.versions))
        )
    parts += [
        f"makes version {back.version} {back.then} again, which is {back.now} now"
        for back in losses.states
    ]
    if losses.keks:
        parts.append(f"lets {', '.join(losses.keks)} unwrap it again")
    return "; ".join(parts) or "undoes what was changed since"
