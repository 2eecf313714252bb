"""What `describe` and the operations on rings return: a ring without its ciphertexts."""

from __future__ import annotations

from datetime import datetime

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
    """A tenant's key ring as it was when it was read or saved. `ring_id` is hex."""

    tenant: str
    ring_id: str
    sequence: int
    policy: str
    primary: int | None
    versions: tuple[VersionInfo, ...]


def ring_info(ring: Ring) -> RingInfo:
    """Describe a ring."""
    return RingInfo(
        tenant=ring.tenant,
        ring_id=ring.ring_id.hex(),
        sequence=ring.sequence,
        policy=ring.policy,
        primary=ring.primary,
        versions=tuple(_version_info(version) for version in ring.versions),
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
