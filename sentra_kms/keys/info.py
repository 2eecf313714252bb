"""What `describe` and the operations on rings return: a ring without its ciphertexts."""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime, timedelta

import msgspec

from sentra_kms.keys.ring import Origin, Ring, State, Version, parse_time


class WrapInfo(msgspec.Struct, frozen=True):
    """One wrap: the KEK's name, and its id and version as its service reported them."""

    kek: str
    key_id: str
    key_version: str | None


class VersionInfo(msgspec.Struct, frozen=True):
    """One key version. Times are aware datetimes in UTC."""

    version: int
    state: State
    origin: Origin
    created: datetime
    request: str | None
    destroy_after: datetime | None
    missing: tuple[str, ...]
    wraps: tuple[WrapInfo, ...]


class RingInfo(msgspec.Struct, frozen=True):
    """A tenant's key ring as it was when it was read or saved. `ring_id` is hex.

    `rotation_due` is when its policy's `rotate_after` has passed for the primary version, `None`
    if there is no such time; `is_overdue` says whether that was before now.
    """

    tenant: str
    ring_id: str
    sequence: int
    policy: str
    primary: int | None
    versions: tuple[VersionInfo, ...]
    rotation_due: datetime | None = None
    is_overdue: bool = False


def ring_info(ring: Ring, rotate_after: float | None = None, now: float = 0.0) -> RingInfo:
    """Describe a ring; `rotate_after` is in seconds, `now` in seconds since 1970."""
    primary = ring.find(ring.primary) if ring.primary is not None else None
    due: datetime | None = None
    if primary is not None and rotate_after is not None:
        with suppress(OverflowError):  # never, as the calendar goes
            due = _time(primary.created) + timedelta(seconds=rotate_after)
    return RingInfo(
        tenant=ring.tenant,
        ring_id=ring.ring_id.hex(),
        sequence=ring.sequence,
        policy=ring.policy,
        primary=ring.primary,
        versions=tuple(_version_info(version) for version in ring.versions),
        rotation_due=due,
        is_overdue=due is not None and due.timestamp() <= now,
    )


def _version_info(version: Version) -> VersionInfo:
    return VersionInfo(
        version=version.version,
        state=version.state,
        origin=version.origin,
        created=_time(version.created),
        request=version.request,
        destroy_after=_time(version.destroy_after) if version.destroy_after else None,
        missing=version.missing,
        wraps=tuple(WrapInfo(wrap.kek, wrap.key_id, wrap.key_version) for wrap in version.wraps),
    )


def _time(text: str) -> datetime:
    found = parse_time(text)
    assert found is not None  # noqa: S101 - a ring's times were checked when it was decoded
    return found
