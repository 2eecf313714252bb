"""What the stored key rings ask for: rotations, rewraps, policies; a bounded number is read."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice

from sentra_kms.errors import KMSError, ServiceUnavailable
from sentra_kms.hooktypes import Finding
from sentra_kms.keys.info import RingInfo, VersionInfo
from sentra_kms.reference import KekName
from sentra_kms.runtime import KMS
from sentra_kms.settings import Policy, Settings

MOST_RINGS = 1000
"""Rings read unless somebody asks for more, so that a look at a big store ends."""

_NAMES = 5  # tenants named in a finding
_LATE = timedelta(days=1)  # after which what was due should have been destroyed


def ring_findings(kms: KMS, settings: Settings, limit: int | None) -> Iterator[Finding]:
    """Read up to `limit` rings, all of them for `None`, and yield what they ask for."""
    look = _Look(settings)
    names = kms.keys.tenants()
    try:
        for name in islice(names, limit):
            look.at(kms, name)
        more = limit is not None and next(names, None) is not None
    except KMSError as error:  # of the list, or of a store that is out of reach
        yield Finding("error", settings.keys.store if settings.keys else "", error.message)
        return
    scope = f"{look.read} of more were read: `--rings all` reads every one" if more else ""
    yield Finding("ok", "key rings", scope or f"{look.read} read, which is all of them")
    yield from look.findings()


class _Look:
    """Tenants by what is to be said of them."""

    def __init__(self, settings: Settings) -> None:
        self.read = 0
        self._policies = settings.policies
        self._now = datetime.fromtimestamp(time.time(), UTC)
        self._overdue: list[str] = []
        self._late: list[str] = []
        self._lacking: defaultdict[str, list[str]] = defaultdict(list)  # by policy
        self._unwrapped: defaultdict[str, list[str]] = defaultdict(list)  # by KEK that should wrap
        self._older: defaultdict[str, list[str]] = defaultdict(
            list
        )  # by KEK that need not any more
        self._lost: list[str] = []
        self._refused: defaultdict[str, list[str]] = defaultdict(list)  # by type of error
        self._first: dict[str, str] = {}

    def at(self, kms: KMS, tenant: str) -> None:
        """Look at one tenant's ring."""
        self.read += 1
        try:
            ring = kms.keys.describe(tenant)
        except ServiceUnavailable:
            raise
        except KMSError as error:
            kind = type(error).__name__
            self._refused[kind].append(tenant)
            self._first.setdefault(kind, error.message)
            return
        if ring.is_overdue:
            self._overdue.append(tenant)
        if any(_is_late(version, self._now) for version in ring.versions):
            self._late.append(tenant)
        policy = self._policies.get(ring.policy)
        if policy is None:
            self._lacking[ring.policy].append(tenant)
        else:
            self._look_at_wraps(ring, policy)

    def findings(self) -> Iterator[Finding]:
        """Yield one finding for each thing that is to be done, naming some tenants."""
        for kind, tenants in self._refused.items():
            yield Finding(
                "error",
                "key rings",
                f"the ring of {_of(tenants)} cannot be read ({kind}): {self._first[kind]}",
                "docs/operations.md says what to do for each error",
            )
        for name, tenants in self._lacking.items():
            yield Finding(
                "error",
                f"policies.{name}",
                f"is followed by {_of(tenants)}, and the configuration lacks it: these keys cannot "
                "be unwrapped",
                "write it again, then put them under another with `sentra-kms tenant set-policy`",
            )
        if self._lost:
            yield Finding(
                "error",
                "key rings",
                f"no KEK of the policy unwraps a version of {_of(self._lost)}",
                "add a KEK that wraps it to unwrap_with: `sentra-kms tenant show` names them",
            )
        for kek, tenants in self._unwrapped.items():
            yield Finding(
                "warning",
                kek,
                f"does not wrap every version of {_of(tenants)}, although it should",
                "`sentra-kms tenant rewrap --all` mends it, once this KEK works",
            )
        for kek, tenants in self._older.items():
            yield Finding(
                "ok",
                kek,
                f"still wraps versions of {_of(tenants)}, and wraps nothing new",
                "`sentra-kms tenant rewrap --all` makes it needless",
            )
        if self._overdue:
            yield Finding(
                "warning",
                "rotate_after",
                f"rotation is due for {_of(self._overdue)}",
                "`sentra-kms tenant rotate`; `sentra-kms tenant list` shows since when",
            )
        if self._late:
            yield Finding(
                "warning",
                "destroy-due",
                f"a version of {_of(self._late)} should have been destroyed a day ago or more",
                "run `sentra-kms tenant destroy-due` from a timer",
            )

    def _look_at_wraps(self, ring: RingInfo, policy: Policy) -> None:
        due = _own(policy.wrap_with, ring.tenant)
        usable = set(_own(policy.unwrap_with, ring.tenant))
        unwrapped: set[str] = set()
        older: set[str] = set()
        lost = False
        for version in ring.versions:
            if version.state == "destroyed":
                continue
            wraps = {wrap.kek for wrap in version.wraps}
            unwrapped.update(kek for kek in due if kek not in wraps)
            older |= wraps.difference(due)
            lost = lost or not wraps & usable
        for found, keks in ((self._unwrapped, unwrapped), (self._older, older)):
            for kek in sorted(keks):
                found[kek].append(ring.tenant)
        if lost:
            self._lost.append(ring.tenant)


def _own(keks: Iterable[KekName], tenant: str) -> list[str]:
    return [str(kek.of(tenant)) for kek in keks]


def _is_late(version: VersionInfo, now: datetime) -> bool:
    when = version.destroy_after
    return version.state == "scheduled" and when is not None and when + _LATE <= now


def _of(tenants: list[str]) -> str:
    """Say how many tenants, and name some."""
    named = ", ".join(tenants[:_NAMES])
    if len(tenants) == 1:
        return f"tenant {named}"
    more = f" and {len(tenants) - _NAMES} more" if len(tenants) > _NAMES else ""
    return f"{len(tenants)} tenants ({named}{more})"
