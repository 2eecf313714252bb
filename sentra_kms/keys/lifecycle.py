"""What becomes of tenants' rings over the years: KEKs, states, stores, backups and ends."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import TYPE_CHECKING

from sentra_kms.errors import KeyUnavailable, MalformedInput
from sentra_kms.forks import ProcessBound
from sentra_kms.keys.cache import KeyCache
from sentra_kms.keys.changes import Rings
from sentra_kms.keys.ring import Ring, Version, with_policy, with_versions
from sentra_kms.keys.store import Loaded
from sentra_kms.keys.wrapping import Wrapping
from sentra_kms.settings import DEFAULT_POLICY
from sentra_kms.tenant import check_tenant

if TYPE_CHECKING:
    from sentra_kms.keys.backup import BackupReport
    from sentra_kms.keys.destruction import DestroyReport, Destruction, Shredded
    from sentra_kms.keys.info import RingInfo
    from sentra_kms.keys.receipt import Receipt
    from sentra_kms.keys.restore_report import RestoreReport

_MAX_GRACE = timedelta(days=3650)


class Lifecycle(ProcessBound):
    """The part of `KeyManager` that operators use more than the platform does.

    `clock` gives seconds since the epoch.
    """

    def __init__(self, rings: Rings, cache: KeyCache, clock: Callable[[], float]) -> None:
        self._rings = rings
        self._cache = cache
        self._clock = clock

    def rewrap(self, tenant: str) -> RingInfo:
        """Wrap every version under the KEKs of its policy as they are now, and no others.

        The keys stay the same. What the current KEK version wrapped is left as it is, if it opens
        where other wraps of its version change, and what was missing is wrapped too. If none that
        stays was seen to open, one that was made now has to, or nothing changes. A ring that
        the first key of `authenticate_with` did not sign is signed anew all the same. Raises as
        `rotate` does.
        """
        check_tenant(tenant)

        def change(loaded: Loaded) -> Ring | None:
            ring = loaded.ring
            versions = self._renewed(ring, self._rings.wrapping(ring.policy, tenant))
            if versions == ring.versions and self._rings.store.is_signed_by_first(loaded):
                return None
            return with_versions(ring, versions)

        return self._changed(self._rings.change(tenant, change))

    def set_policy(self, tenant: str, policy: str) -> RingInfo:
        """Put a tenant under another policy: its KEKs wrap every version, and no others do.

        The KEKs of the policy before must still unwrap, and one of the new ones what it wraps.
        Nothing changes if one cannot: policy and wraps are saved together. Raises
        `ConfigurationError` for an unknown policy, and as `rotate` does.
        """
        check_tenant(tenant)
        target = self._rings.wrapping_anew(policy, tenant)

        def change(loaded: Loaded) -> Ring | None:
            ring = loaded.ring
            versions = self._renewed(ring, target)
            same = (ring.policy, ring.versions) == (policy, versions)
            if same and self._rings.store.is_signed_by_first(loaded):
                return None
            return with_policy(ring, policy, versions)

        return self._changed(self._rings.change(tenant, change))

    def release(self, tenant: str, policy: str = DEFAULT_POLICY) -> RingInfo:
        """Let go of a tenant's own KEK and keep the data: the KEKs of `policy` wrap it instead.

        For a customer who takes back a KEK of theirs but leaves the data with us, which opens as
        before. Their KEK must still unwrap; when this returns it wraps nothing of the ring any
        more, so that they may destroy it. Theirs are the KEKs of the policy before that the
        default policy does not have. (`revoke` is the other end: the data goes with the KEK.)
        Raises as `set_policy` does, and `KeyUnavailable`, with nothing changed, if a KEK of
        theirs would go on wrapping.
        """
        check_tenant(tenant)
        before = self._rings.store.load(tenant).ring
        after, own = (set(self._rings.wrapping(p, tenant).keks(tenant)) for p in (policy, None))
        theirs = set(self._rings.wrapping(before.policy, tenant).keks(tenant)) - own
        if before.policy != policy and after & theirs:
            raise KeyUnavailable(
                f"{', '.join(sorted(after & theirs))} would go on wrapping the keys of '{tenant}' "
                f"under policy '{policy}': release it to a policy without that KEK",
                subject=tenant,
            )
        return self.set_policy(tenant, policy)

    def disable(self, tenant: str, version: int) -> RingInfo:
        """Let a key version neither encrypt nor decrypt until it is enabled again.

        In force here at once, in other processes within `ring_ttl`. The primary version cannot be
        disabled: rotate first. Raises `KeyNotFound`, `KeyUnavailable` for one that is scheduled
        or destroyed, `UnsupportedOperation` for the primary one, and as `rotate` does.
        """
        from sentra_kms.keys import states

        return self._to_state(tenant, lambda ring: states.disabled(ring, version))

    def enable(self, tenant: str, version: int) -> RingInfo:
        """Let a disabled version decrypt again; raises as `disable` does."""
        from sentra_kms.keys import states

        return self._to_state(tenant, lambda ring: states.enabled(ring, version))

    def schedule_destroy(self, tenant: str, version: int, after: timedelta) -> RingInfo:
        """Have a key version destroyed by the first `destroy_due` when `after` has passed.

        Until then it opens nothing and `cancel_destroy` brings it back, disabled. A version that
        is scheduled already keeps its time. `after` is from nothing to ten years, from now on, or
        from when the newest version was made if the clock is behind that. Raises as `disable`
        does, and `MalformedInput`.
        """
        from sentra_kms.keys import states

        if type(after) is not timedelta or not timedelta(0) <= after <= _MAX_GRACE:
            raise MalformedInput("after is a timedelta from 0 to 3650 days, the time of grace")
        now, grace = self._clock(), after.total_seconds()
        return self._to_state(tenant, lambda ring: states.scheduled(ring, version, now, grace))

    def cancel_destroy(self, tenant: str, version: int) -> RingInfo:
        """Take a scheduled version back; it is disabled then. Raises as `disable` does."""
        from sentra_kms.keys import states

        return self._to_state(tenant, lambda ring: states.taken_back(ring, version))

    def destroy_due(self) -> DestroyReport:
        """Destroy every scheduled version whose time has come, of all tenants.

        *Destroyed* means that the version's wraps are erased from the live ring; the report says
        what may still hold them, and until when. A tenant that fails is reported and the others
        go on. May be stopped and repeated at any point. Raises what listing the store raises.
        """
        return self._destruction().due()

    def shred(self, tenant: str, confirm: str) -> Shredded:
        """Destroy every key of a tenant now, for good: all of its data is gone with them.

        `confirm` is the tenant's id again. The ring stays, without keys, so that the id is never
        given new ones. Returns the report, with a receipt for the evidence file. To shred a
        tenant again is no error. Raises `MalformedInput` and as `rotate` does.
        """
        return self._destruction().all_of(tenant, confirm, "shred")

    def revoke(self, tenant: str, confirm: str) -> Shredded:
        """End a tenant whose own KEK is withdrawn: no KEK is asked, the data is gone with it.

        As `shred`, for a tenant of a policy with KEKs of its own; `UnsupportedOperation` for one
        of the default policy. (`release` is the other end: the KEK goes and the data stays.)
        """
        return self._destruction().all_of(tenant, confirm, "revoke")

    def move(self, tenant: str) -> RingInfo:
        """Move a tenant's ring from `previous_store` to `store`; one that is there stays.

        May be stopped at any point: whoever next reads the ring finishes the move. Raises as
        `rotate` does.
        """
        check_tenant(tenant)
        return self._changed(self._rings.retried(lambda: self._rings.store.move(tenant).ring))

    def backup(
        self, path: str | os.PathLike[str], tenants: Iterable[str] | None = None
    ) -> BackupReport:
        """Write the key rings of all tenants, or of some, into a new file of mode 600.

        The rings are as they are stored: wrapped. A ring that cannot be read is left out, and the
        report says so in `failed`. Raises `AlreadyExists` if the file is there, `AccessDenied`,
        `MalformedInput` and `ServiceUnavailable` for what keeps it from being written, and
        `TenantNotFound` if there is no ring at all; then there is no file.
        """
        from sentra_kms.keys.backup import back_up

        return back_up(self._rings.store, path, tenants, self._clock)

    def restore(
        self,
        path: str | os.PathLike[str],
        *,
        force: bool = False,
        dry_run: bool = False,
        tenants: Iterable[str] | None = None,
        confirm: Callable[[RestoreReport], object] | None = None,
    ) -> RestoreReport:
        """Restore the key rings of a backup, of all its tenants or of some.

        A tenant without a ring gets the backup's, one with an earlier state of it goes forward. A
        ring that is newer, another, or cannot be read is left as it is; with `force` it gives way,
        and what that loses is in the report. `dry_run` changes nothing. `confirm` gets the plan
        before anything is changed, and may raise; only the rings that the plan saw are replaced.

        The whole file is verified first: `MalformedInput` if it is no whole backup, `RingRejected`
        if it was changed or is not ours, `TenantNotFound` if it lacks a tenant that is named. What
        goes wrong with one tenant does not stop the others: look at `failed` in the report.
        """
        from sentra_kms.keys.restore import restore

        return restore(
            self._rings.store,
            path,
            force=force,
            dry_run=dry_run,
            tenants=tenants,
            confirm=confirm,
            saved=self._cache.replace,
        )

    def verify_receipt(self, data: bytes) -> Receipt:
        """Return what the receipt of a shredded or revoked tenant says, if it is authentic.

        Raises `MalformedInput` for what is no receipt, `RingRejected` for one that was changed or
        that a key made which is not configured.
        """
        from sentra_kms.keys.receipt import verify_receipt

        return verify_receipt(self._rings.store.authenticator, data)

    def _renewed(self, ring: Ring, target: Wrapping) -> tuple[Version, ...]:
        """Wrap every version under the KEKs of `target`."""
        renewal = target.renewal(ring.tenant, self._rings.wrapping(ring.policy, ring.tenant))
        return tuple(
            renewal.renew(version, ring.where(version.version)) for version in ring.versions
        )

    def _destruction(self) -> Destruction:
        from sentra_kms.keys.destruction import Destruction

        return Destruction(
            self._rings,
            clock=self._clock,
            replace=self._cache.replace,
            staleness=self._cache.staleness,
        )

    def _to_state(self, tenant: str, change: Callable[[Ring], Ring | None]) -> RingInfo:
        check_tenant(tenant)
        return self._changed(self._rings.change(tenant, lambda loaded: change(loaded.ring)))

    def _changed(self, ring: Ring) -> RingInfo:
        self._cache.replace(ring)
        return self._info(ring)

    def _info(self, ring: Ring) -> RingInfo:
        from sentra_kms.keys.info import ring_info

        policy = self._rings.policy(ring)
        return ring_info(ring, None if policy is None else policy.rotate_after, self._clock())
