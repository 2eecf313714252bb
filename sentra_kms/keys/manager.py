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
    KMSError,
    RingRejected,
    TenantNotFound,
)
from sentra_kms.keys.cache import KeyCache
from sentra_kms.keys.changes import KeySource, Made, Plan, Rings, check_request
from sentra_kms.keys.handles import Handles
from sentra_kms.keys.lifecycle import Lifecycle
from sentra_kms.keys.message import Buffer
from sentra_kms.keys.ring import Ring, first_ring, with_version
from sentra_kms.keys.source import Bounds
from sentra_kms.keys.store import Loaded
from sentra_kms.keys.tenant_keys import TenantKeys, WarmKeys
from sentra_kms.keys.wrapping import Wrapping
from sentra_kms.settings import CacheSettings
from sentra_kms.tenant import check_tenant

if TYPE_CHECKING:
    from sentra_kms.keys.aio import AsyncKeyManager
    from sentra_kms.keys.background import Runner
    from sentra_kms.keys.info import RingInfo

_MAX_GRACE = timedelta(days=3650)


class KeyManager(Lifecycle):
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
        rings = Rings(plan, clock)
        keys = KeyCache(KeySource(rings), _bounds(cache), now=now, background=background)
        super().__init__(rings, keys, clock)
        self._handles = Handles(lambda tenant: TenantKeys(keys, tenant))
        self._asynchronous: dict[None, AsyncKeyManager] = {}  # none or one
        self._closed = False

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
        not valid, `ConfigurationError` for an unknown policy or one whose `{tenant}` makes a KEK
        of others for this id, and what the store or the KEKs raise.
        """
        check_tenant(tenant)
        wrapping = self._rings.wrapping_anew(policy, tenant)
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
        found = self._asynchronous.get(None)
        if found is None:
            from sentra_kms.keys.aio import AsyncKeyManager  # with asyncio, for who uses it

            warm = Handles(lambda tenant: WarmKeys(self._cache, tenant))
            made = AsyncKeyManager(self, warm)
            found = self._asynchronous.setdefault(None, made)  # of two threads one is first
            if self._closed:
                found.close()
        return found

    def tenant(self, tenant: str) -> TenantKeys:
        """Return the handle for a tenant's messages; looks nothing up yet."""
        return self._handles.of(tenant)

    def encrypt(self, tenant: str, plaintext: Buffer, context: Context = None) -> bytes:
        """Encrypt for a tenant; see `TenantKeys.encrypt`."""
        return self._handles.of(tenant).encrypt(plaintext, context)

    def decrypt(self, tenant: str, message: Buffer, context: Context = None) -> bytes:
        """Decrypt for a tenant; see `TenantKeys.decrypt`."""
        return self._handles.of(tenant).decrypt(message, context)

    def encrypt_many(
        self,
        tenant: str,
        plaintexts: Sequence[Buffer],
        contexts: Sequence[Context] | None = None,
    ) -> list[bytes]:
        """Encrypt many for a tenant; see `TenantKeys.encrypt_many`."""
        return self._handles.of(tenant).encrypt_many(plaintexts, contexts)

    def decrypt_many(
        self,
        tenant: str,
        messages: Sequence[Buffer],
        contexts: Sequence[Context] | None = None,
    ) -> list[bytes]:
        """Decrypt many for a tenant; see `TenantKeys.decrypt_many`."""
        return self._handles.of(tenant).decrypt_many(messages, contexts)

    def rotate(self, tenant: str, request_id: str | None = None) -> RingInfo:
        """Make a new key version, primary from now on; earlier ones go on decrypting.

        With `request_id` (text, 1 to 256 characters) a retry makes no second version, however often
        and wherever it is made: the ring keeps the id. Rotations at once make a version each. When
        the store's answer is lost, `ServiceUnavailable`, the version may have been saved. Raises
        `TenantNotFound`, `KeyUnavailable` for a shredded tenant, `RingRejected` (also when the
        ring is full), `Conflict` after 30 s of lost races, and what the store or the KEKs raise.
        """
        from sentra_kms.keys import states

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

    def describe(self, tenant: str) -> RingInfo:
        """Return the tenant's ring as it is in the store now, without its ciphertexts."""
        return self._info(self._rings.store.look(check_tenant(tenant)).ring)

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
        self._closed = True
        for found in list(self._asynchronous.values()):
            found.close()
        self._cache.close()
        self._rings.store.close()

    def _find(self, tenant: str) -> Ring | None:
        store = self._rings.store
        try:
            return store.settled(store.load(tenant)).ring
        except TenantNotFound:
            return None

    def _create(self, tenant: str, wrapping: Wrapping) -> Ring | None:
        ring_id = os.urandom(RING_ID_SIZE)
        made = self._rings.new_version(wrapping, WrapContext(tenant, ring_id, 1), None)
        ring = first_ring(tenant, ring_id, wrapping.policy.name, made.version)
        try:
            ring = self._saved_first(ring)
        except Conflict:
            if self._find(tenant) is None:
                raise  # who was faster has deleted it again
            return None
        except RingRejected:
            found = self._find(tenant)
            if found is not None and found.ring_id != ring_id:
                return None  # another thread of this process was faster
            raise
        self._hold(ring, made)
        return ring

    def _saved_first(self, ring: Ring) -> Ring:
        try:
            return self._rings.store.create(ring).ring
        except KMSError:
            # Another thread may have read it before it was taken back.
            self._cache.drop(ring.tenant, ring.ring_id)
            raise

    def _hold(self, ring: Ring, made: Made | None) -> None:
        """Hold a ring that was just saved, with the key made for it if that is its primary's."""
        primary = ring.find(ring.primary) if ring.primary is not None else None
        own = made is not None and primary is not None and primary.check == made.version.check
        self._cache.replace(ring, made.key if made is not None and own else None)


def _bounds(cache: CacheSettings) -> Bounds:
    return Bounds(float(cache.ring_ttl), float(cache.max_stale), cache.max_keys)
