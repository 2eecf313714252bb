"""`kms.keys`: tenants' key rings, and messages under them."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING

from sentra_kms.context import RING_ID_SIZE, Context, WrapContext
from sentra_kms.errors import (
    AlreadyExists,
    Conflict,
    KeyUnavailable,
    KMSError,
    MalformedInput,
    RingRejected,
    TenantNotFound,
)
from sentra_kms.keys import states
from sentra_kms.keys.background import Runner
from sentra_kms.keys.cache import Bounds, KeyCache
from sentra_kms.keys.changes import KeySource, Made, Plan, Rings, check_request
from sentra_kms.keys.destruction import DestroyReport, Destruction, Shredded
from sentra_kms.keys.info import RingInfo, ring_info
from sentra_kms.keys.message import Buffer
from sentra_kms.keys.ring import Ring, Version, first_ring, with_policy, with_version, with_versions
from sentra_kms.keys.store import Loaded
from sentra_kms.keys.tenant_keys import TenantKeys, WarmKeys
from sentra_kms.keys.wrapping import Wrapping
from sentra_kms.settings import DEFAULT_POLICY, CacheSettings
from sentra_kms.tenant import check_tenant

if TYPE_CHECKING:
    from sentra_kms.keys.aio import AsyncKeyManager

_MAX_GRACE = timedelta(days=3650)
_MAX_HANDLES = 4096


class KeyManager:
    """Per-tenant envelope encryption. Safe to use from many threads and after a fork.

    >>> import sentra_kms
    >>> backends = {"memory": {"type": "memory"}}
    >>> keys = {"wrap_with": ["memory:k"], "store": "memory"}
    >>> table = {"development": True, "backends": backends, "keys": keys}
    >>> with sentra_kms.load({"try": table}, "try") as kms:
    ...     kms.keys.create("acme").primary
    ...     kms.keys.rotate("acme").primary
    ...     [each.state for each in kms.keys.disable("acme", 1).versions]
    ...     kms.keys.shred("acme", confirm="acme").destroyed.versions
    1
    2
    ['disabled', 'enabled']
    (1, 2)

    `clock` gives seconds since the epoch for the times in rings; `now` is monotonic.
    """

    def __init__(
        self,
        plan: Plan,
        cache: CacheSettings,
        *,
        clock: Callable[[], float] = time.time,
        now: Callable[[], float] = time.monotonic,
        background: Runner | None = None,
    ) -> None:
        self._clock = clock
        self._rings = Rings(plan, clock)
        self._cache = KeyCache(
            KeySource(self._rings), _bounds(cache), now=now, background=background
        )
        self._destruction = Destruction(
            self._rings, clock=clock, replace=self._cache.replace, staleness=self._cache.staleness
        )
        self._handles: dict[str, TenantKeys] = {}
        self._aio: AsyncKeyManager | None = None

    def create(
        self,
        tenant: str,
        policy: str | None = None,
        exist_ok: bool = False,  # noqa: FBT001, FBT002 - the face of the design
    ) -> RingInfo:
        """Make a tenant's key ring with its first version; nothing else ever makes a tenant.

        `policy` names one of the configuration's policies, whose KEKs wrap the ring; `None` is
        the default one, that of `[keys]`. With `exist_ok` a ring that is there is described
        instead, whatever its policy. Raises `AlreadyExists`, `MalformedInput` for an id that is
        not valid, `ConfigurationError` for an unknown policy, and what the store or the KEKs
        raise.
        """
        check_tenant(tenant)
        wrapping = self._rings.wrapping(policy, tenant)
        existing = self._find(tenant)
        if existing is None:
            made = self._create(tenant, wrapping)
            if made is not None:
                return self._info(made)
            existing = self._rings.store.load(tenant).ring  # somebody else was faster
        if exist_ok:
            return self._info(existing)
        raise AlreadyExists(f"tenant '{tenant}' has a key ring already", subject=tenant)

    @property
    def aio(self) -> AsyncKeyManager:
        """The same face for asyncio; it never holds the loop up."""
        if self._aio is None:
            from sentra_kms.keys.aio import AsyncKeyManager  # with asyncio, for who uses it

            self._aio = AsyncKeyManager(self, lambda tenant: WarmKeys(self._cache, tenant))
        return self._aio

    def tenant(self, tenant: str) -> TenantKeys:
        """Return the handle for a tenant's messages; looks nothing up yet."""
        found = self._handles.get(tenant) if type(tenant) is str else None
        if found is None:
            found = TenantKeys(self._cache, tenant)
            if len(self._handles) >= _MAX_HANDLES:
                self._handles.clear()  # they are cheap to make, and hold nothing
            self._handles[tenant] = found
        return found

    def encrypt(self, tenant: str, plaintext: Buffer, context: Context = None) -> bytes:
        """Encrypt for a tenant; see `TenantKeys.encrypt`."""
        return self.tenant(tenant).encrypt(plaintext, context)

    def decrypt(self, tenant: str, message: Buffer, context: Context = None) -> bytes:
        """Decrypt for a tenant; see `TenantKeys.decrypt`."""
        return self.tenant(tenant).decrypt(message, context)

    def encrypt_many(
        self,
        tenant: str,
        plaintexts: Sequence[Buffer],
        contexts: Sequence[Context] | None = None,
    ) -> list[bytes]:
        """Encrypt many for a tenant; see `TenantKeys.encrypt_many`."""
        return self.tenant(tenant).encrypt_many(plaintexts, contexts)

    def decrypt_many(
        self,
        tenant: str,
        messages: Sequence[Buffer],
        contexts: Sequence[Context] | None = None,
    ) -> list[bytes]:
        """Decrypt many for a tenant; see `TenantKeys.decrypt_many`."""
        return self.tenant(tenant).decrypt_many(messages, contexts)

    def rotate(self, tenant: str, request_id: str | None = None) -> RingInfo:
        """Make a new key version, primary from now on; earlier ones go on decrypting.

        With `request_id` (text, 1 to 256 characters) a retry makes no second version, however often
        and wherever it is made: the ring keeps the id. Rotations at once make a version each. When
        the store's answer is lost, `ServiceUnavailable`, the version may have been saved. Raises
        `TenantNotFound`, `KeyUnavailable` for a shredded tenant, `RingRejected` (also when the
        ring is full), `Conflict` after 30 s of lost races, and what the store or the KEKs raise.
        """
        check_tenant(tenant)
        if request_id is not None:
            check_request(request_id)
        made: Made | None = None

        def change(loaded: Loaded) -> Ring | None:
            nonlocal made
            ring = loaded.ring
            if request_id is not None and any(v.request == request_id for v in ring.versions):
                return None
            if made is not None and any(v.check == made.version.check for v in ring.versions):
                return None  # saved by this call, though the answer was lost
            states.refuse_shredded(ring)
            wrapping = self._rings.wrapping(ring.policy, tenant)
            where = ring.where(ring.next_number())
            made = self._rings.new_version(wrapping, where, request_id)
            return with_version(ring, made.version)

        ring = self._rings.change(tenant, change)
        self._hold(ring, made)
        return self._info(ring)

    def rewrap(self, tenant: str) -> RingInfo:
        """Wrap every version under the KEKs of its policy as they are now, and no others.

        The keys stay the same. What the current KEK version wrapped is left as it is, if it opens
        where other wraps of its version change, and what was missing is wrapped too; a ring that
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

        The KEKs of the policy before must still unwrap. Nothing changes if one cannot: policy
        and wraps are saved together. Raises `ConfigurationError` for an unknown policy, and as
        `rotate` does.
        """
        check_tenant(tenant)
        target = self._rings.wrapping(policy, tenant)

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
        more, so that they may destroy it. (`revoke` is the other end: the data goes with the
        KEK.) Raises as `set_policy` does, and `KeyUnavailable`, with nothing changed, if a KEK
        of the policy before would go on wrapping.
        """
        check_tenant(tenant)
        before = self._rings.store.load(tenant).ring
        ours = set(self._rings.wrapping(policy, tenant).keks(tenant))
        theirs = set(self._rings.wrapping(before.policy, tenant).keks(tenant))
        if before.policy != policy and ours & theirs:
            raise KeyUnavailable(
                f"{', '.join(sorted(ours & theirs))} would go on wrapping the keys of '{tenant}' "
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
        return self._to_state(tenant, lambda ring: states.disabled(ring, version))

    def enable(self, tenant: str, version: int) -> RingInfo:
        """Let a disabled version decrypt again; raises as `disable` does."""
        return self._to_state(tenant, lambda ring: states.enabled(ring, version))

    def schedule_destroy(self, tenant: str, version: int, after: timedelta) -> RingInfo:
        """Have a key version destroyed by the first `destroy_due` when `after` has passed.

        Until then it opens nothing and `cancel_destroy` brings it back, disabled. A version that
        is scheduled already keeps its time. `after` is from nothing to ten years. Raises as
        `disable` does, and `MalformedInput`.
        """
        if type(after) is not timedelta or not timedelta(0) <= after <= _MAX_GRACE:
            raise MalformedInput("after is a timedelta from 0 to 3650 days, the time of grace")
        when = self._clock() + after.total_seconds()
        return self._to_state(tenant, lambda ring: states.scheduled(ring, version, when))

    def cancel_destroy(self, tenant: str, version: int) -> RingInfo:
        """Take a scheduled version back; it is disabled then. Raises as `disable` does."""
        return self._to_state(tenant, lambda ring: states.taken_back(ring, version))

    def destroy_due(self) -> DestroyReport:
        """Destroy every scheduled version whose time has come, of all tenants.

        *Destroyed* means that the version's wraps are erased from the live ring; the report says
        what may still hold them, and until when. A tenant that fails is reported and the others
        go on. May be stopped and repeated at any point. Raises what listing the store raises.
        """
        return self._destruction.due()

    def shred(self, tenant: str, confirm: str) -> Shredded:
        """Destroy every key of a tenant now, for good: all of its data is gone with them.

        `confirm` is the tenant's id again. The ring stays, without keys, so that the id is never
        given new ones. Returns the report, with a receipt for the evidence file. To shred a
        tenant again is no error. Raises `MalformedInput` and as `rotate` does.
        """
        return self._destruction.all_of(tenant, confirm, "shred")

    def revoke(self, tenant: str, confirm: str) -> Shredded:
        """End a tenant whose own KEK is withdrawn: no KEK is asked, the data is gone with it.

        As `shred`, for a tenant of a policy with KEKs of its own; `UnsupportedOperation` for one
        of the default policy. (`release` is the other end: the KEK goes and the data stays.)
        """
        return self._destruction.all_of(tenant, confirm, "revoke")

    def move(self, tenant: str) -> RingInfo:
        """Move a tenant's ring from `previous_store` to `store`; one that is there stays.

        May be stopped at any point: whoever next reads the ring finishes the move. Raises as
        `rotate` does.
        """
        check_tenant(tenant)
        return self._changed(self._rings.retried(lambda: self._rings.store.move(tenant).ring))

    def describe(self, tenant: str) -> RingInfo:
        """Return the tenant's ring as it is in the store now, without its ciphertexts."""
        return self._info(self._rings.store.load(check_tenant(tenant)).ring)

    def tenants(self) -> Iterator[str]:
        """Yield the names of all tenants, as the store lists them."""
        return self._rings.store.tenants()

    def warm(self, tenants: Iterable[str]) -> dict[str, KMSError]:
        """Fetch the primary keys of tenants before they are needed; return who failed, and why."""
        from sentra_kms.keys.warming import warm

        return warm([self.tenant(tenant) for tenant in tenants])

    def adopt(self, plan: Plan, cache: CacheSettings) -> None:
        """Go on by another configuration; handles and what is held stay."""
        self._rings.plan = plan
        self._cache.adopt(_bounds(cache))

    def can_coast(self) -> bool:
        """Whether something in memory may serve although store or KEKs are out of reach."""
        return self._cache.can_coast()

    def close(self) -> None:
        """Forget every key, and hold none from now on."""
        if self._aio is not None:
            self._aio.close()
        self._cache.close()
        self._rings.store.close()

    def _find(self, tenant: str) -> Ring | None:
        try:
            return self._rings.store.load(tenant).ring
        except TenantNotFound:
            return None

    def _create(self, tenant: str, wrapping: Wrapping) -> Ring | None:
        ring_id = os.urandom(RING_ID_SIZE)
        made = self._rings.new_version(wrapping, WrapContext(tenant, ring_id, 1), None)
        ring = first_ring(tenant, ring_id, wrapping.policy.name, made.version)
        try:
            self._rings.store.save(ring, None)
        except Conflict:
            found = self._find(tenant)
            if found is None:
                raise  # who was faster has deleted it again
            if found.ring_id != ring_id:
                return None
            ring = found  # saved by this call, though the answer was lost
        except RingRejected:
            if self._find(tenant) is not None:
                return None  # another thread of this process was faster
            raise
        self._hold(ring, made)
        return ring

    def _hold(self, ring: Ring, made: Made | None) -> None:
        """Hold a ring that was just saved, with the key made for it if that is its primary's."""
        primary = ring.find(ring.primary) if ring.primary is not None else None
        own = made is not None and primary is not None and primary.check == made.version.check
        self._cache.replace(ring, made.key if made is not None and own else None)

    def _renewed(self, ring: Ring, target: Wrapping) -> tuple[Version, ...]:
        """Wrap every version under the KEKs of `target`."""
        renewal = target.renewal(ring.tenant, self._rings.wrapping(ring.policy, ring.tenant))
        return tuple(
            renewal.renew(version, ring.where(version.version)) for version in ring.versions
        )

    def _to_state(self, tenant: str, change: Callable[[Ring], Ring | None]) -> RingInfo:
        check_tenant(tenant)
        return self._changed(self._rings.change(tenant, lambda loaded: change(loaded.ring)))

    def _changed(self, ring: Ring) -> RingInfo:
        self._cache.replace(ring)
        return self._info(ring)

    def _info(self, ring: Ring) -> RingInfo:
        policy = self._rings.policy(ring)
        return ring_info(ring, None if policy is None else policy.rotate_after, self._clock())


def _bounds(cache: CacheSettings) -> Bounds:
    return Bounds(float(cache.ring_ttl), float(cache.max_stale), cache.max_keys)
