"""`kms.keys.aio`: the same face for asyncio, which never holds the loop up.

What is warm and small is done at once, in the loop: that takes microseconds, and a thread would
take longer to be told. All else goes to threads of this package's own, so that a key service that
hangs uses up none of the application's.

To cancel a waiting task ends the waiting. What its thread does goes on to its end: a rotation may
or may not have been saved, so retry it with the same `request_id`.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from contextvars import copy_context
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from sentra_kms.context import Context
from sentra_kms.errors import KMSError, UnsupportedOperation
from sentra_kms.forks import tell_after_fork
from sentra_kms.keys.destruction import DestroyReport, Shredded
from sentra_kms.keys.info import RingInfo
from sentra_kms.keys.message import Buffer
from sentra_kms.settings import DEFAULT_POLICY

if TYPE_CHECKING:
    from sentra_kms.keys.backup import BackupReport
    from sentra_kms.keys.handles import Handles
    from sentra_kms.keys.manager import KeyManager
    from sentra_kms.keys.receipt import Receipt
    from sentra_kms.keys.restore_report import RestoreReport
    from sentra_kms.keys.tenant_keys import WarmKeys

THREADS = 32  # calls to backends at once
SMALL = 16 * 1024
"""Bytes up to which a message is done in the loop: some 10 µs."""

_PAGE = 1000  # names of tenants fetched at once
_T = TypeVar("_T")


class AsyncKeyManager:
    """`KeyManager` for asyncio; each method is that of the same name there, awaited.

    Safe to use from many tasks, and from several loops.

    >>> import asyncio, sentra_kms
    >>> backends = {"memory": {"type": "memory"}}
    >>> keys = {"wrap_with": ["memory:k"], "store": "memory"}
    >>> table = {"development": True, "backends": backends, "keys": keys}
    >>> async def serve():
    ...     async with sentra_kms.load({"try": table}, "try") as kms:
    ...         await kms.keys.aio.create("acme")
    ...         return await kms.keys.aio.decrypt(
    ...             "acme", await kms.keys.aio.encrypt("acme", b"from the loop")
    ...         )
    >>> asyncio.run(serve())
    b'from the loop'
    """

    def __init__(self, keys: KeyManager, warm: Handles[WarmKeys]) -> None:
        self._keys = keys
        self._warm = warm
        self._closed = False
        self.after_fork()
        tell_after_fork(self)

    def after_fork(self) -> None:
        """Start anew: the threads stayed in the parent."""
        self._lock = threading.Lock()
        self._threads: ThreadPoolExecutor | None = None

    def tenant(self, tenant: str) -> AsyncTenantKeys:
        """Return the handle for a tenant's messages; looks nothing up yet."""
        self._keys.tenant(tenant)  # refuses an id that is none
        return AsyncTenantKeys(self, tenant)

    async def encrypt(self, tenant: str, plaintext: Buffer, context: Context = None) -> bytes:
        """Encrypt for a tenant."""
        if _size(plaintext) <= SMALL:
            made = self._warm.of(tenant).try_encrypt(plaintext, context)
            if made is not None:
                return made
        return await self._run(partial(self._keys.encrypt, tenant, plaintext, context))

    async def decrypt(self, tenant: str, message: Buffer, context: Context = None) -> bytes:
        """Decrypt for a tenant."""
        if _size(message) <= SMALL:
            made = self._warm.of(tenant).try_decrypt(message, context)
            if made is not None:
                return made
        return await self._run(partial(self._keys.decrypt, tenant, message, context))

    async def encrypt_many(
        self,
        tenant: str,
        plaintexts: Sequence[Buffer],
        contexts: Sequence[Context] | None = None,
    ) -> list[bytes]:
        """Encrypt many for a tenant."""
        return await self._run(partial(self._keys.encrypt_many, tenant, plaintexts, contexts))

    async def decrypt_many(
        self,
        tenant: str,
        messages: Sequence[Buffer],
        contexts: Sequence[Context] | None = None,
    ) -> list[bytes]:
        """Decrypt many for a tenant."""
        return await self._run(partial(self._keys.decrypt_many, tenant, messages, contexts))

    async def warm(self, tenants: Iterable[str]) -> dict[str, KMSError]:
        """Fetch the primary keys of tenants before they are needed."""
        return await self._run(partial(self._keys.warm, tenants))

    async def create(
        self,
        tenant: str,
        policy: str | None = None,
        exist_ok: bool = False,  # noqa: FBT001, FBT002 - the face of the design
    ) -> RingInfo:
        """Make a tenant's key ring."""
        return await self._run(partial(self._keys.create, tenant, policy, exist_ok))

    async def rotate(self, tenant: str, request_id: str | None = None) -> RingInfo:
        """Make a new key version."""
        return await self._run(partial(self._keys.rotate, tenant, request_id))

    async def rewrap(self, tenant: str) -> RingInfo:
        """Wrap every version under the KEKs of its policy as they are now."""
        return await self._run(partial(self._keys.rewrap, tenant))

    async def set_policy(self, tenant: str, policy: str) -> RingInfo:
        """Put a tenant under another policy."""
        return await self._run(partial(self._keys.set_policy, tenant, policy))

    async def release(self, tenant: str, policy: str = DEFAULT_POLICY) -> RingInfo:
        """Let go of a tenant's own KEK and keep the data."""
        return await self._run(partial(self._keys.release, tenant, policy))

    async def disable(self, tenant: str, version: int) -> RingInfo:
        """Disable a key version."""
        return await self._run(partial(self._keys.disable, tenant, version))

    async def enable(self, tenant: str, version: int) -> RingInfo:
        """Enable a key version."""
        return await self._run(partial(self._keys.enable, tenant, version))

    async def schedule_destroy(self, tenant: str, version: int, after: timedelta) -> RingInfo:
        """Have a key version destroyed when `after` has passed."""
        return await self._run(partial(self._keys.schedule_destroy, tenant, version, after))

    async def cancel_destroy(self, tenant: str, version: int) -> RingInfo:
        """Take a scheduled version back."""
        return await self._run(partial(self._keys.cancel_destroy, tenant, version))

    async def destroy_due(self) -> DestroyReport:
        """Destroy every scheduled version whose time has come."""
        return await self._run(self._keys.destroy_due)

    async def shred(self, tenant: str, confirm: str) -> Shredded:
        """Destroy every key of a tenant."""
        return await self._run(partial(self._keys.shred, tenant, confirm))

    async def revoke(self, tenant: str, confirm: str) -> Shredded:
        """End a tenant whose own KEK is withdrawn."""
        return await self._run(partial(self._keys.revoke, tenant, confirm))

    async def move(self, tenant: str) -> RingInfo:
        """Move a tenant's ring from `previous_store` to `store`."""
        return await self._run(partial(self._keys.move, tenant))

    async def backup(
        self, path: str | os.PathLike[str], tenants: Iterable[str] | None = None
    ) -> BackupReport:
        """Write the key rings of all tenants, or of some, into a new file."""
        return await self._run(partial(self._keys.backup, path, tenants))

    async def restore(
        self,
        path: str | os.PathLike[str],
        *,
        force: bool = False,
        dry_run: bool = False,
        tenants: Iterable[str] | None = None,
        confirm: Callable[[RestoreReport], object] | None = None,
    ) -> RestoreReport:
        """Restore the key rings of a backup; `confirm` is called in a thread."""
        return await self._run(
            partial(
                self._keys.restore,
                path,
                force=force,
                dry_run=dry_run,
                tenants=tenants,
                confirm=confirm,
            )
        )

    async def verify_receipt(self, data: bytes) -> Receipt:
        """Return what an authentic receipt says."""
        return await self._run(partial(self._keys.verify_receipt, data))

    async def describe(self, tenant: str) -> RingInfo:
        """Return the tenant's ring as it is in the store now."""
        return await self._run(partial(self._keys.describe, tenant))

    async def tenants(self) -> AsyncIterator[str]:
        """Yield the names of all tenants."""
        names = self._keys.tenants()

        def page() -> list[str]:
            return [name for _, name in zip(range(_PAGE), names)]  # noqa: B905 - a page of them

        while found := await self._run(page):
            for name in found:
                yield name

    def close(self) -> None:
        """Let the threads end when what they do is done, and begin none from now on.

        What waits for a thread is not cancelled, since no task asked for that: it meets closed
        backends, and its task their error.
        """
        self._closed = True
        self._end_threads()

    def _end_threads(self) -> None:
        # Whoever holds the lock gives the threads work, and ends them after it: waiting for him
        # would be for ever if this is a signal handler in the midst of him.
        if self._lock.acquire(blocking=False):
            threads, self._threads = self._threads, None
            self._lock.release()
            if threads is not None:
                threads.shutdown(wait=False)

    async def _run(self, work: Callable[[], _T]) -> _T:
        context = copy_context()  # on whose behalf, for the events
        loop = asyncio.get_running_loop()
        try:
            with self._lock:
                if self._closed:
                    raise UnsupportedOperation("this KMS is closed: load() again")
                if self._threads is None:
                    self._threads = ThreadPoolExecutor(THREADS, "sentra-kms-aio")
                waiting = loop.run_in_executor(self._threads, partial(context.run, work))
        finally:
            if self._closed:
                self._end_threads()
        return await waiting


class AsyncTenantKeys:
    """Encrypts and decrypts for one tenant; made by `AsyncKeyManager.tenant`, cheap to keep."""

    __slots__ = ("_keys", "_tenant")

    def __init__(self, keys: AsyncKeyManager, tenant: str) -> None:
        self._keys = keys
        self._tenant = tenant

    def __repr__(self) -> str:
        return f"AsyncTenantKeys({self._tenant!r})"

    @property
    def tenant(self) -> str:
        """The tenant's id."""
        return self._tenant

    async def warm(self) -> None:
        """Fetch the primary key now; see `TenantKeys.warm`."""
        failed = await self._keys.warm([self._tenant])
        for error in failed.values():
            raise error

    async def encrypt(self, plaintext: Buffer, context: Context = None) -> bytes:
        """Encrypt; see `TenantKeys.encrypt`."""
        return await self._keys.encrypt(self._tenant, plaintext, context)

    async def decrypt(self, message: Buffer, context: Context = None) -> bytes:
        """Decrypt; see `TenantKeys.decrypt`."""
        return await self._keys.decrypt(self._tenant, message, context)

    async def encrypt_many(
        self, plaintexts: Sequence[Buffer], contexts: Sequence[Context] | None = None
    ) -> list[bytes]:
        """Encrypt each; see `TenantKeys.encrypt_many`."""
        return await self._keys.encrypt_many(self._tenant, plaintexts, contexts)

    async def decrypt_many(
        self, messages: Sequence[Buffer], contexts: Sequence[Context] | None = None
    ) -> list[bytes]:
        """Decrypt each; see `TenantKeys.decrypt_many`."""
        return await self._keys.decrypt_many(self._tenant, messages, contexts)


def _size(data: Buffer) -> int:
    if type(data) is bytes:
        return len(data)
    if isinstance(data, (bytes, bytearray, memoryview)):
        with suppress(ValueError), memoryview(data) as view:  # one that was released
            return view.nbytes
    return 0  # refused where it is used
