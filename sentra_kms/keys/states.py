"""What may become of a key version: pure functions from a ring to the ring to save.

Enabled ⇄ disabled; either → scheduled, which can be taken back to disabled; scheduled →
destroyed, for good. Each function returns `None` where the version is in that state already.
"""

from __future__ import annotations

from math import ceil

import msgspec

from sentra_kms.errors import KeyNotFound, KeyUnavailable, UnsupportedOperation
from sentra_kms.keys.ring import (
    Ring,
    State,
    Version,
    format_time,
    parse_time,
    with_versions,
    without_primary,
)

_LAST = 253_402_300_799  # 9999-12-31T23:59:59Z, the last time that a ring can name


def disabled(ring: Ring, number: int) -> Ring | None:
    """Return the ring with an enabled version disabled."""
    version = _version(ring, number)
    if version.state == "disabled":
        return None
    _refuse_unless(ring, version, "enabled", "disable it")
    _refuse_primary(ring, number, "disabled")
    return _with_state(ring, version, "disabled", None)


def enabled(ring: Ring, number: int) -> Ring | None:
    """Return the ring with a disabled version enabled."""
    version = _version(ring, number)
    if version.state == "enabled":
        return None
    _refuse_unless(ring, version, "disabled", "enable it")
    return _with_state(ring, version, "enabled", None)


def scheduled(ring: Ring, number: int, now: float, grace: float) -> Ring | None:
    """Return the ring with a version scheduled for destruction `grace` seconds after `now`.

    That is in seconds since 1970, and no earlier than any version of the ring was made: a clock
    that is behind takes nothing off the time of grace. A version that is scheduled already keeps
    its time.
    """
    version = _version(ring, number)
    if version.state == "scheduled":
        return None
    _refuse_destroyed(ring, version, "schedule it")
    _refuse_primary(ring, number, "destroyed")
    made = (parse_time(each.created) for each in ring.versions)
    begun = max(now, *(time.timestamp() for time in made if time is not None))
    return _with_state(ring, version, "scheduled", format_time(min(ceil(begun + grace), _LAST)))


def taken_back(ring: Ring, number: int) -> Ring | None:
    """Return the ring with a scheduled version disabled, so that it is not destroyed."""
    version = _version(ring, number)
    if version.state == "disabled":
        return None
    _refuse_unless(ring, version, "scheduled", "cancel its destruction")
    return _with_state(ring, version, "disabled", None)


def due(ring: Ring, now: float) -> tuple[Version, ...]:
    """Return the scheduled versions whose time has come; `now` is in seconds since 1970."""
    return tuple(
        version
        for version in ring.versions
        if version.state == "scheduled"
        and version.destroy_after is not None
        and (when := parse_time(version.destroy_after)) is not None
        and when.timestamp() <= now
    )


def destroyed(ring: Ring, versions: tuple[Version, ...]) -> Ring:
    """Return the ring with the wraps of these versions erased; their check values stay."""
    numbers = {version.version for version in versions}
    left = tuple(_erased(each) if each.version in numbers else each for each in ring.versions)
    return with_versions(ring, left)


def shredded(ring: Ring) -> Ring | None:
    """Return the ring with every version destroyed and none of them primary."""
    if is_shredded(ring):
        return None
    return without_primary(ring, tuple(_erased(each) for each in ring.versions))


def is_shredded(ring: Ring) -> bool:
    """Whether every version is destroyed."""
    return ring.primary is None and all(each.state == "destroyed" for each in ring.versions)


def refuse_shredded(ring: Ring) -> None:
    """Raise `KeyUnavailable` for a tenant that was shredded: it gets no new key."""
    if is_shredded(ring):
        raise KeyUnavailable(
            f"tenant '{ring.tenant}' was shredded: its keys are destroyed, and it gets no new one",
            subject=ring.tenant,
        )


def _erased(version: Version) -> Version:
    return msgspec.structs.replace(version, state="destroyed", wraps=(), missing=())


def _with_state(ring: Ring, version: Version, state: State, destroy_after: str | None) -> Ring:
    changed = msgspec.structs.replace(version, state=state, destroy_after=destroy_after)
    versions = tuple(changed if each is version else each for each in ring.versions)
    return with_versions(ring, versions)


def _version(ring: Ring, number: int) -> Version:
    found = ring.find(number)
    if found is None:
        raise KeyNotFound(
            f"the ring of '{ring.tenant}' has no version {number}: it has "
            f"{', '.join(str(version.version) for version in ring.versions)}",
            subject=ring.tenant,
        )
    return found


def _refuse_unless(ring: Ring, version: Version, state: State, what: str) -> None:
    if version.state == state:
        return
    _refuse_destroyed(ring, version, what)
    way = {
        "enabled": "there is nothing to cancel",
        "disabled": "enable it first",
        "scheduled": "cancel its destruction first",
    }
    raise KeyUnavailable(
        f"version {version.version} of '{ring.tenant}' is {version.state}, so nobody can {what}: "
        + way.get(version.state, "nothing brings it back"),
        subject=ring.tenant,
    )


def _refuse_destroyed(ring: Ring, version: Version, what: str) -> None:
    if version.state == "destroyed":
        raise KeyUnavailable(
            f"version {version.version} of '{ring.tenant}' is destroyed: nobody can {what} any "
            "more",
            subject=ring.tenant,
        )


def _refuse_primary(ring: Ring, number: int, state: str) -> None:
    if ring.primary == number:
        raise UnsupportedOperation(
            f"version {number} of '{ring.tenant}' is primary and may not be {state} while nothing "
            "else encrypts: rotate first, so that another version is",
            subject=ring.tenant,
        )
