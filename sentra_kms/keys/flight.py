"""Single flight: however many threads ask for one thing, one fetches it and all get it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from sentra_kms.errors import KMSError, afresh
from sentra_kms.forks import Lock, RLock, get_ident, tell_after_fork

T = TypeVar("T")


class _Flight(Generic[T]):
    def __init__(self) -> None:
        self.leader = get_ident()
        self.is_over = False
        self.answer: T | None = None
        self.failure: KMSError | None = None
        self.landed = Lock()
        self.landed.acquire()

    def wait(self) -> None:
        """Return when it has landed."""
        with self.landed:
            pass


class SingleFlight(Generic[T]):
    """Runs one function for a key at a time; whoever comes meanwhile shares its outcome.

    An error is shared too, so that an outage costs one attempt and not one a thread. A signal
    handler that asks while its own thread fetches the same does not wait: it fetches for itself.
    """

    def __init__(self) -> None:
        self.after_fork()
        tell_after_fork(self)

    def after_fork(self) -> None:
        """Forget flights of threads that a child does not have."""
        self._lock = RLock()  # a signal handler may come while it is held
        self._flights: dict[object, _Flight[T]] = {}

    def do(self, key: object, fetch: Callable[[], T]) -> T:
        """Return `fetch()`, called by this thread or by one that is already at it."""
        while True:
            flight = self._lead(key, fetch)
            if not flight.is_over:
                flight.wait()
            if flight.failure is not None:
                raise afresh(flight.failure)
            if flight.answer is not None:
                return flight.answer
            # The leader was interrupted and has no outcome to share: try again.

    def _lead(self, key: object, fetch: Callable[[], T]) -> _Flight[T]:
        """Return a flight of this thread's own with its answer, or that of another to wait for."""
        mine: _Flight[T] = _Flight()
        try:
            with self._lock:
                found = self._flights.get(key)
                if found is None or found.is_over:
                    found = self._flights[key] = mine
            if found is not mine and found.leader != get_ident():
                return found
            mine.answer = fetch()
        except KMSError as error:
            mine.failure = afresh(error)
            raise
        else:
            return mine
        finally:
            # A signal handler may raise after any call, but between calls it does not come: the
            # flight is over before its waiters go on, and gone from the rest without a call.
            mine.is_over = True
            try:
                mine.landed.release()
            finally:
                with self._lock:
                    if key in self._flights and self._flights[key] is mine:
                        del self._flights[key]
