"""`kms.keys`: tenants' key rings, and messages under them."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from sentra_kms.context import RING_ID_SIZE, Context, WrapContext
from sentra_kms.errors import (
    AlreadyExists,
    ConfigurationError,
    Conflict,
    MalformedInput,
    RingRejected,
    TenantNotFound,
    UnsupportedOperation,
)
from sentra_kms.forks import ProcessBound
from sentra_kms.keys.cache import KeyCache
from sentra_kms.keys.info import RingInfo, ring_info
from sentra_kms.keys.message import Buffer
from sentra_kms.keys.ring import (
    DEFAULT_POLICY,
    Ring,
    Version,
    check_value,
    first_ring,
    new_version,
    with_version,
    with_versions,
)
from sentra_kms.keys.store import Loaded, RingStore
from sentra_kms.keys.tenant_keys import TenantKeys
from sentra_kms.keys.wrapping import Wrapping
from sentra_kms.material import KeyMaterial
from sentra_kms.settings import CacheSettings
from sentra_kms.tenant import check_tenant

if TYPE_CHECKING:
    from sentra_kms.keys.backup import BackupReport
    from sentra_kms.keys.receipt import Receipt
    from sentra_kms.keys.restore_report import RestoreReport

_SAVE_TIME = 30.0  # seconds over which a lost compare-and-set is tried again
_MAX_REQUEST = 256  # characters of a request id
_KEY_SIZE = 32


class KeyManager(ProcessBound):
    """Per-tenant envelope encryption. Safe to use from many threads and after a fork.

    `clock` gives seconds since the epoch for the times in rings; `now` is monotonic.
    """

    def __init__(
        self,
        store: RingStore,
        wrapping: Wrapping,
        cache: CacheSettings,
        *,
        clock: Callable[[], float] = time.time,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._wrapping = wrapping
        self._clock = clock
        self._cache = KeyCache(
            load=self._load,
            unwrap=lambda ring, version: wrapping.unwrap(version, ring.where(version.version)),
            now=now,
            key_ttl=cache.key_ttl,
            ring_ttl=cache.ring_ttl,
            max_keys=cache.max_keys,
        )

    def create(
        self,
        tenant: str,
        policy: str | None = None,
        exist_ok: bool = False,  # noqa: FBT001, FBT002 - the face of the design
    ) -> RingInfo:
        """Make a tenant's key ring with its first version; nothing else ever makes a tenant.

        With `exist_ok` a ring that is there is described instead. Raises `AlreadyExists`,
        `MalformedInput` for an id that is not valid, and what the store or the KEKs raise.
        """
        check_tenant(tenant)
        if policy not in {None, DEFAULT_POLICY}:
            raise ConfigurationError(
                f"there is no policy '{policy}': this version has only '{DEFAULT_POLICY}'"
            )
        existing = self._find(tenant)
        if existing is None:
            made = self._create(tenant)
            if made is not None:
                return ring_info(made)
            existing = self._store.load(tenant).ring  # somebody else was faster
        if exist_ok:
            return ring_info(existing)
        raise AlreadyExists(f"tenant '{tenant}' has a key ring already", subject=tenant)

    def tenant(self, tenant: str) -> TenantKeys:
        """Return the handle for a tenant's messages; looks nothing up yet."""
        return TenantKeys(self._cache, tenant)

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
        and wherever it is made: the ring keeps the id. Rotations at once make a version each.
        Raises `TenantNotFound`, `RingRejected` (also when the ring is full), `Conflict` after
        30 s of lost races, and what the store or the KEKs raise.
        """
        check_tenant(tenant)
        if request_id is not None:
            _check_request(request_id)
        key: KeyMaterial | None = None

        def change(loaded: Loaded) -> Ring | None:
            nonlocal key
            ring = loaded.ring
            if request_id is not None and any(v.request == request_id for v in ring.versions):
                key = None
                return None
            version, key = self._new_version(ring.where(ring.next_number()), request_id)
            return with_version(ring, version)

        ring = self._change(tenant, change)
        self._cache.replace(ring, key)
        return ring_info(ring)

    def rewrap(self, tenant: str) -> RingInfo:
        """Wrap every version under the KEKs of `wrap_with` as they are now, and no others.

        The keys stay the same. What is wrapped by the current KEK version is left as it is; a
        ring that the first key of `authenticate_with` did not sign is signed anew all the same.
        Raises as `rotate` does.
        """
        check_tenant(tenant)

        def change(loaded: Loaded) -> Ring | None:
            ring = loaded.ring
            versions = tuple(
                self._wrapping.renew(version, ring.where(version.version))
                for version in ring.versions
            )
            if versions == ring.versions and loaded.signed_by_first:
                return None
            return with_versions(ring, versions)

        ring = self._change(tenant, change)
        self._cache.replace(ring)
        return ring_info(ring)

    def describe(self, tenant: str) -> RingInfo:
        """Return the tenant's ring as it is in the store now, without its ciphertexts."""
        return ring_info(self._store.load(check_tenant(tenant)).ring)

    def tenants(self) -> Iterator[str]:
        """Yield the names of all tenants, as the store lists them."""
        return self._store.tenants()

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

        return back_up(self._store, path, tenants, self._clock)

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
            self._store,
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

        return verify_receipt(self._store.authenticator, data)

    def close(self) -> None:
        """Forget every key, and hold none from now on."""
        self._cache.close()
        self._store.close()

    def _find(self, tenant: str) -> Ring | None:
        try:
            return self._store.load(tenant).ring
        except TenantNotFound:
            return None

    def _create(self, tenant: str) -> Ring | None:
        ring_id = os.urandom(RING_ID_SIZE)
        version, key = self._new_version(WrapContext(tenant, ring_id, 1), None)
        ring = first_ring(tenant, ring_id, DEFAULT_POLICY, version)
        try:
            self._store.save(ring, None)
        except Conflict:
            return None
        except RingRejected:
            if self._find(tenant) is not None:
                return None  # another thread of this process was faster
            raise
        self._cache.replace(ring, key)
        return ring

    def _load(self, tenant: str) -> Ring:
        ring = self._store.load(tenant).ring
        _refuse_elsewhere(ring)
        return ring

    def _change(self, tenant: str, change: Callable[[Loaded], Ring | None]) -> Ring:
        """Read, change and save a ring; when somebody else saved first, all of it again.

        `change` returns the ring to save, or `None` to leave it as it is.
        """
        deadline = time.monotonic() + _SAVE_TIME
        pause = 0.001
        while True:
            loaded = self._store.load(tenant)
            _refuse_elsewhere(loaded.ring)
            changed = change(loaded)
            if changed is None:
                return loaded.ring
            try:
                self._store.save(changed, loaded.revision)
            except Conflict:
                if time.monotonic() >= deadline:
                    raise
            else:
                return changed
            time.sleep(pause * int.from_bytes(os.urandom(1), "big") / 255)
            pause = min(pause * 2, 0.1)

    def _new_version(
        self, where: WrapContext, request_id: str | None
    ) -> tuple[Version, KeyMaterial]:
        key = KeyMaterial(os.urandom(_KEY_SIZE))
        version = new_version(
            where.version,
            self._clock(),
            check_value(key, where),
            self._wrapping.wrap(key, where),
            request_id,
        )
        return version, key


def _check_request(request_id: str) -> None:
    try:
        valid = type(request_id) is str and bool(request_id.encode("utf-8"))
    except UnicodeEncodeError:
        valid = False
    if not valid or len(request_id) > _MAX_REQUEST:
        raise MalformedInput(f"a request id is text of 1 to {_MAX_REQUEST} characters")


def _refuse_elsewhere(ring: Ring) -> None:
    """Raise for rings that need what this version does not do."""
    if ring.moved_to is not None:
        raise UnsupportedOperation(
            f"the ring of '{ring.tenant}' has moved to '{ring.moved_to}': name it as store",
            subject=ring.tenant,
        )
    if ring.policy != DEFAULT_POLICY:
        raise ConfigurationError(
            f"the ring of '{ring.tenant}' follows policy '{ring.policy}', which the configuration "
            "does not have",
            subject=ring.tenant,
        )
