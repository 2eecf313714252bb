"""From settings to a working `KMS`: backends bound, managers built over them."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Self

from sentra_kms.config import read_settings
from sentra_kms.errors import ConfigurationError, KMSError, UnsupportedOperation
from sentra_kms.forks import ProcessBound
from sentra_kms.hooktypes import Finding
from sentra_kms.keys.manager import KeyManager
from sentra_kms.reference import TENANT_PLACE, KekName
from sentra_kms.settings import AuthSource, Settings
from sentra_kms.wiring import Ground, Wiring, wrapping_keks

if TYPE_CHECKING:
    from sentra_kms import health
    from sentra_kms.keys.background import Runner
    from sentra_kms.observers import Observers

_HEALTH_TIME = 5.0  # seconds for which an answer of `health` holds
_Source = str | os.PathLike[str] | Mapping[str, object] | None


class KMS(ProcessBound):
    """One environment of one configuration, in use. Made by `sentra_kms.load`.

    Opens no connection and reads no secret before the first operation that needs it. A context
    manager, synchronous and asynchronous; `close` may be called more than once.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        clock: Callable[[], float] = time.time,
        now: Callable[[], float] = time.monotonic,
        source: _Source = None,
        background: Runner | None = None,
    ) -> None:
        self.environment: str = settings.environment
        self._source = source
        self._now = now
        self._observers = _observers(settings.audit.observers)
        emit = None if self._observers is None else self._observers.emit
        self._ground = Ground(clock=clock, now=now, emit=emit)
        self._wiring = Wiring(settings, self._ground)
        plan = self._wiring.plan
        self._keys = (
            None
            if plan is None
            else KeyManager(plan, settings.cache, clock=clock, now=now, background=background)
        )
        self._closed = False
        self._health: tuple[float, health.Health] | None = None
        self._reloading = threading.Lock()

    def __repr__(self) -> str:
        return f"KMS(environment={self.environment!r})"

    @property
    def keys(self) -> KeyManager:
        """Tenants' key rings and messages under them."""
        if self._keys is None:
            raise ConfigurationError(
                f"{self._wiring.settings.source}: [{self.environment}] has no table "
                f"[{self.environment}.keys]: add it to use kms.keys"
            )
        return self._keys

    def warm(self, tenants: Iterable[str]) -> dict[str, KMSError]:
        """Fetch these tenants' primary keys before they are needed, several at a time.

        Returns, by tenant, the error of each that failed: a process may well start without.
        Raises `MalformedInput` for an id that is not valid.
        """
        return self.keys.warm(tenants)

    def health(self) -> health.Health:
        """Ask every backend of keys and key rings whether it answers; decrypts nothing.

        For the probes of an orchestrator: an answer holds for 5 s, however often it is asked for.
        """
        from sentra_kms import health

        kept = self._health
        if kept is not None and self._now() < kept[0] + _HEALTH_TIME:
            return kept[1]
        if self._closed:
            return health.Health(live=False, ready=False, backends=())
        backends = health.examine(self._wiring)
        answers = all(backend.ok for backend in backends)
        ready = answers or (self._keys is not None and self._keys.can_coast())
        found = health.Health(live=True, ready=ready, backends=backends)
        self._health = self._now(), found
        return found

    def reload(self, source: _Source = None) -> None:
        """Read the configuration again and go on by it; handles and keys in memory stay.

        `source` replaces the one that `load` was given; a mapping that was given then is read as
        it is now. Backends that are configured as before stay open; the others are closed once
        what is under way has had its time. Observers stay those of `load`. Raises as `load`, and
        then everything stays as it was.
        """
        with self._reloading:
            if self._closed:
                raise UnsupportedOperation("this KMS is closed: load() again")
            given = self._source if source is None else source
            settings = read_settings(given, self.environment)
            if (settings.keys is None) != (self._keys is None):
                raise ConfigurationError(
                    f"{settings.source}: the table [{self.environment}.keys] can be changed, but "
                    "neither added nor taken away without a restart"
                )
            before = self._wiring
            wiring = Wiring(settings, self._ground, before)
            if self._keys is not None and wiring.plan is not None:
                self._keys.adopt(wiring.plan, settings.cache)
            self._wiring, self._source, self._health = wiring, given, None
        grace = max((each.timeout for each in before.settings.backends.values()), default=0.0)
        timer = threading.Timer(2 * grace, before.close, args=(wiring,))
        timer.daemon = True
        timer.start()

    def examine(self) -> list[Finding]:
        """Try every backend, KEK, ring authentication key and the store; change nothing."""
        wiring = self._wiring
        found = [finding for binding in wiring.bindings.values() for finding in binding.check()]
        keys = wiring.settings.keys
        if keys is None:
            return found
        found += [
            _tried(kek, partial(self._describe, kek))
            for kek in wrapping_keks(wiring.settings.policies)
            if TENANT_PLACE not in kek
        ]
        found += [
            _tried(source, partial(self._describe_auth, source))
            for source in keys.authenticate_with
        ]
        stores = [keys.store] + ([keys.previous_store] if keys.previous_store else [])
        return [*found, *(_tried(store, partial(self._describe_store, store)) for store in stores)]

    def close(self) -> None:
        """Forget keys and close every backend; later operations raise."""
        self._closed = True
        self._health = None
        if self._keys is not None:
            self._keys.close()
        failures = self._wiring.close()
        if self._observers is not None:
            self._observers.close()
        if failures:
            raise failures[0]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        import asyncio  # only who uses it pays for it

        await asyncio.to_thread(self.close)

    def _describe(self, kek: KekName) -> str:
        found = self._wiring.bindings[kek.backend].describe_key(kek.key)
        version = "" if found.key_version is None else f", version {found.key_version}"
        return f"wraps and unwraps, key id {found.key_id}{version}"

    def _describe_auth(self, source: AuthSource) -> str:
        return f"authenticates rings, auth id {self._wiring.auth_key(source).auth_id}"

    def _describe_store(self, name: str) -> str:
        page = self._wiring.bindings[name].list_rings(None, 1)
        return "keeps key rings" if page.tenants else "keeps key rings, none yet"


def _observers(names: Sequence[str]) -> Observers | None:
    if not names:
        return None
    from sentra_kms.observers import Observers, find_observer

    return Observers([(name, find_observer(name)) for name in names])


def _tried(subject: str, look: Callable[[], str]) -> Finding:
    try:
        return Finding("ok", str(subject), look())
    except KMSError as error:
        return Finding("error", str(subject), error.message)


def open_kms(source: _Source, environment: str | None) -> KMS:
    """Read a configuration and bind it; what `sentra_kms.load` does."""
    return KMS(read_settings(source, environment), source=source)
