"""Single flight: however many threads ask for one thing, one fetches it and all get it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Generic, TypeVar

from sentra_kms.errors import KMSError, afresh
from sentra_kms.forks import RLock, get_ident, tell_after_fork

if TYPE_CHECKING:
    from threading import Event

T = TypeVar("T")


class _Flight(Generic[T]):
    def __init__(self) -> None:
        self.leader = get_ident()
        self.landed: Event | None = None  # made by the first who waits
        self.answer: T | None = None
        self.failure: KMSError | None = None


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
            with self._lock:
                flight = self._flights.get(key)
                if flight is None:
                    flight = self._flights[key] = _Flight()
                    landed = None
                elif flight.leader == get_ident():
                    flight = landed = None
                else:
                    landed = flight.landed = flight.landed or _new_event()
            if flight is None:
                return fetch()
            if landed is None:
                return self._lead(key, flight, fetch)
            landed.wait()
            if flight.failure is not None:
                raise afresh(flight.failure)
            if flight.answer is not None:
                return flight.answer
            # The leader was interrupted and has no outcome to share: try again.

    def _lead(self, key: object, flight: _Flight[T], fetch: Callable[[], T]) -> T:
        try:
            flight.answer = answer = fetch()
        except KMSError as error:
            flight.failure = afresh(error)
            raise
        else:
            return answer
        finally:
            with self._lock:
                self._flights.pop(key, None)
            if flight.landed is not None:  # from now on nobody finds it to wait for
                flight.landed.set()


def _new_event() -> Event:
    from threading import Event

    return Event()
