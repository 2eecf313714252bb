"""`kms.secrets.aio`: the same for `asyncio`; the event loop never waits for a source or a lock."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from functools import partial
from typing import TYPE_CHECKING, TypeVar, cast
from weakref import WeakKeyDictionary

from sentra_kms.errors import KMSError, UnsupportedOperation, afresh
from sentra_kms.forks import tell_after_fork
from sentra_kms.material import Secret
from sentra_kms.secrets.compose import named

if TYPE_CHECKING:
    from sentra_kms.secrets.manager import SecretManager

MAX_THREADS = 8
_T = TypeVar("_T")
_Flights = dict[object, "asyncio.Future[object]"]


class AsyncSecrets:
    """Secrets by name or reference, awaited. What is held is returned without a thread.

    Tasks that ask for one thing at once share one look, in a thread of a pool of this object's own.
    A task that is cancelled leaves the look to the others.
    """

    def __init__(self, manager: SecretManager) -> None:
        self._manager = manager
        self._closed = False
        self.after_fork()
        tell_after_fork(self)

    def after_fork(self) -> None:
        """Forget threads and loops that a child does not have."""
        self._pools: dict[None, ThreadPoolExecutor] = {}  # none or one
        self._flights: WeakKeyDictionary[asyncio.AbstractEventLoop, _Flights] = WeakKeyDictionary()

    async def get(self, secret: str) -> Secret:
        """Return a secret; see `SecretManager.get`."""
        held = self._manager.held(secret)
        if held is not None:
            return held
        key = "get", self._manager.adoptions, secret
        return await self._share(key, partial(self._manager.get, secret))

    async def get_many(self, secrets: Iterable[str]) -> dict[str, Secret]:
        """Return several secrets; see `SecretManager.get_many`."""
        names = named(secrets)
        held = self._manager.held_together(names)
        if held is not None:
            return held
        key = "get_many", self._manager.adoptions, *names
        return dict(await self._share(key, partial(self._manager.get_many, names)))

    async def refresh(self, secret: str) -> Secret:
        """Ask the source now; see `SecretManager.refresh`."""
        # Not shared here: a look that began before this was asked for is no answer to it.
        return await self._share(object(), partial(self._manager.refresh, secret))

    def close(self) -> None:
        """Start no more threads."""
        self._closed = True
        for pool in list(self._pools.values()):
            pool.shutdown(wait=False, cancel_futures=True)

    async def _share(self, key: object, work: Callable[[], _T]) -> _T:
        loop = asyncio.get_running_loop()
        flights = self._flights.setdefault(loop, {})
        flight = flights.get(key)
        if flight is None:
            flight = flights[key] = self._start(loop, work)
            flight.add_done_callback(lambda done: _land(flights, key, done))
        try:
            # A waiter that is cancelled cancels its waiting, not the look that others wait for.
            return cast("_T", await asyncio.shield(flight))
        except KMSError as error:
            failure = afresh(error)  # one object raised in many tasks would collect their frames
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if not flight.cancelled() or (task is not None and task.cancelling()):
                raise
            failure = _closed()  # nobody cancelled this task: close() gave up a look not begun
        raise failure

    def _start(
        self, loop: asyncio.AbstractEventLoop, work: Callable[[], object]
    ) -> asyncio.Future[object]:
        if self._closed:
            raise _closed()
        pool = self._pools.get(None)
        if pool is None:  # of two threads with a loop each one is first
            made = ThreadPoolExecutor(MAX_THREADS, "sentra-kms-secrets-aio")
            pool = self._pools.setdefault(None, made)
        try:
            return loop.run_in_executor(pool, copy_context().run, work)
        except RuntimeError:
            if not self._closed:  # no thread can be started
                raise
        raise _closed()


def _land(flights: _Flights, key: object, done: asyncio.Future[object]) -> None:
    flights.pop(key, None)
    if not done.cancelled():
        done.exception()  # seen, also if every waiter was cancelled


def _closed() -> KMSError:
    return UnsupportedOperation("these secrets are closed: load() again")
