"""From settings to a working `KMS`: backends bound, managers built over them."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping, MutableMapping, Sequence
from contextlib import suppress
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Self

from sentra_kms.config import read_settings
from sentra_kms.errors import ConfigurationError, KMSError, UnsupportedOperation
from sentra_kms.forks import ProcessBound, RLock, tell_after_fork
from sentra_kms.hooktypes import Finding
from sentra_kms.keys.flight import SingleFlight
from sentra_kms.keys.manager import KeyManager
from sentra_kms.reference import TENANT_PLACE, KekName
from sentra_kms.settings import AuthSource, Settings
from sentra_kms.wiring import Ground, Wiring, is_same_source, wrapping_keks

if TYPE_CHECKING:
    from sentra_kms.binding import Binding
    from sentra_kms.events import Event
    from sentra_kms.health import Health
    from sentra_kms.keys.background import Runner
    from sentra_kms.observers import Observers
    from sentra_kms.secrets.documents import Spawn
    from sentra_kms.secrets.manager import SecretManager

_HEALTH_TIME = 5.0  # seconds for which an answer of `health` holds
_Source = str | os.PathLike[str] | Mapping[str, object] | None


class KMS(ProcessBound):
    """One environment of one configuration, in use. Made by `sentra_kms.load`.

    Opens no connection and reads no secret before the first operation that needs it. A context
    manager, synchronous and asynchronous; `close` may be called more than once.

    >>> import sentra_kms
    >>> backends = {"ours": {"type": "memory"}}
    >>> keys = {"wrap_with": ["ours:k"], "store": "ours"}
    >>> table = {"development": True, "backends": backends, "keys": keys}
    >>> with sentra_kms.load({"try": table}, "try") as kms:
    ...     kms.keys.create("acme").policy
    ...     sorted(kms.warm(["acme", "nobody"]))  # who failed
    ...     kms.health().ready
    ...     backends["theirs"] = {"type": "memory"}
    ...     table["policies"] = {"bank": {"wrap_with": ["theirs:k"]}}
    ...     kms.reload()
    ...     kms.keys.create("bigbank", policy="bank").policy
    'default'
    ['nobody']
    True
    'bank'
    """

    def __init__(
        self,
        settings: Settings,
        *,
        clock: Callable[[], float] = time.time,
        now: Callable[[], float] = time.monotonic,
        source: _Source = None,
        background: Runner | None = None,
        emit: Callable[[Event], None] | None = None,
        spawn: Spawn | None = None,
        states: dict[str, MutableMapping[str, object]] | None = None,
    ) -> None:
        self.environment: str = settings.environment
        self._source = source
        self._now = now
        self._observers = _observers(settings.audit.observers)
        if emit is None and self._observers is not None:
            emit = self._observers.emit
        self._ground = Ground(clock=clock, now=now, emit=emit, states=states)
        self._wiring = Wiring(settings, self._ground)
        plan = self._wiring.plan
        self._keys = (
            None
            if plan is None
            else KeyManager(plan, settings.cache, clock=clock, now=now, background=background)
        )
        self._spawn = spawn
        self._made_secrets: dict[None, SecretManager] = {}  # none or one
        self._closed = False
        self._health: tuple[float, Health] | None = None
        self._probes: SingleFlight[Health] = SingleFlight()
        self._retiring: list[_Retiring] = []
        self.after_fork()
        tell_after_fork(self)

    def __repr__(self) -> str:
        return f"KMS(environment={self.environment!r})"

    def after_fork(self) -> None:
        """Replace a lock that another thread may have held."""
        self._changing = RLock()  # a signal handler may close what is being reloaded

    @property
    def keys(self) -> KeyManager:
        """Tenants' key rings and messages under them."""
        if self._keys is None:
            raise ConfigurationError(
                f"{self._wiring.settings.source}: [{self.environment}] has no table "
                f"[{self.environment}.keys]: add it to use kms.keys"
            )
        return self._keys

    @property
    def secrets(self) -> SecretManager:
        """Secrets by name or reference."""
        found = self._made_secrets.get(None)
        if found is None:
            with self._changing:  # a reload meanwhile would not know of it
                # Of two one is first: a signal handler may come in between.
                found = self._made_secrets.setdefault(None, self._make_secrets())
                if self._closed:
                    found.close()
        return found

    def _make_secrets(self) -> SecretManager:
        from sentra_kms.secrets.manager import SecretManager  # for who uses it

        settings = self._wiring.settings
        return self._made_secrets.get(None) or SecretManager(
            self._bound,
            settings.secrets,
            max_stale=float(settings.cache.max_stale),
            clock=self._ground.clock,
            now=self._now,
            spawn=self._spawn,
            where=f"[{self.environment}.secrets]",
        )

    def warm(self, tenants: Iterable[str]) -> dict[str, KMSError]:
        """Fetch these tenants' primary keys before they are needed, several at a time.

        Returns, by tenant, the error of each that failed: a process may well start without.
        Raises `MalformedInput` for an id that is not valid.
        """
        return self.keys.warm(tenants)

    def health(self) -> Health:
        """Ask every backend of keys and key rings whether it answers; decrypts nothing.

        For the probes of an orchestrator: an answer holds for 5 s, however often it is asked for,
        and who asks meanwhile waits for the one that is being found.
        """
        from sentra_kms.health import Health  # most processes are asked later, if ever

        if self._closed:
            return Health(live=False, ready=False, backends=())
        wiring = self._wiring
        return self._kept_health() or self._probes.do(wiring, partial(self._asked_health, wiring))

    def _kept_health(self) -> Health | None:
        kept = self._health
        return kept[1] if kept is not None and self._now() < kept[0] + _HEALTH_TIME else None

    def _asked_health(self, wiring: Wiring) -> Health:
        from sentra_kms.health import Health, examine

        kept = self._kept_health()  # by who asked while this thread looked
        if kept is not None:
            return kept
        examined = examine(wiring)
        ready = examined.suffices or (self._keys is not None and self._keys.can_coast())
        found = Health(live=True, ready=ready, backends=examined.backends)
        if self._wiring is wiring:  # else it is of backends that were
            self._health = self._now(), found
        return found

    def reload(self, source: _Source = None) -> None:
        """Read the configuration again and go on by it; handles and keys in memory stay.

        `source` replaces the one that `load` was given; a mapping that was given then is read as
        it is now, and a file is the one that was found then, whatever the working directory is by
        now. Backends that are configured as before stay open; the others are closed once what is
        under way has had its time, and secrets that came of them are fetched anew when they are
        next asked for. Observers stay those of `load`. Raises as `load`, and then everything stays
        as it was.
        """
        with self._changing:
            self._refuse_closed()
            given = self._source if source is None else source
            # What was read stays where it was, also when the process goes to another directory.
            base = self._wiring.settings.base if source is None else None
            settings = read_settings(given, self.environment, base=base)
            if (settings.keys is None) != (self._keys is None):
                raise ConfigurationError(
                    f"{settings.source}: the table [{self.environment}.keys] can be changed, but "
                    "neither added nor taken away without a restart"
                )
            before = self._wiring
            wiring = Wiring(settings, self._ground, before)
            if self._closed:
                wiring.close()
                self._refuse_closed()
            self._wiring, self._source, self._health = wiring, _found(given, settings), None
            if self._keys is not None and wiring.plan is not None:
                self._keys.adopt(wiring.plan, settings.cache)
            for secrets in list(self._made_secrets.values()):
                secrets.adopt(
                    settings.secrets,
                    float(settings.cache.max_stale),
                    partial(is_same_source, settings=settings, before=before.settings),
                )
            self._retire(before, wiring)

    def examine(self) -> list[Finding]:
        """Try every backend, secret, KEK, ring authentication key and the store; change nothing."""
        wiring = self._wiring
        used = self._try(wiring)
        # After that, since a backend can tell of no KEK or lease that it has not seen.
        return [each for binding in wiring.bindings.values() for each in binding.check()] + used

    def _try(self, wiring: Wiring) -> list[Finding]:
        found = [
            _tried(name, partial(self._describe_secret, name)) for name in wiring.settings.secrets
        ]
        keys = wiring.settings.keys
        if keys is None:
            return found
        found += [
            _tried(kek, partial(self._describe, kek))
            for kek in wrapping_keks(wiring.settings.policies)
            if TENANT_PLACE not in kek
        ]
        found += [
            Finding("ok", kek, "is another KEK for each tenant, none of which was tried")
            for kek in wrapping_keks(wiring.settings.policies)
            if TENANT_PLACE in kek
        ]
        found += [
            _tried(source, partial(self._describe_auth, source))
            for source in keys.authenticate_with
        ]
        stores = [keys.store] + ([keys.previous_store] if keys.previous_store else [])
        found += [_tried(store, partial(self._describe_store, store)) for store in stores]
        if keys.previous_store is None or any(f.level == "error" for f in found[-2:]):
            return found
        return [*found, self._unmoved(keys.store, keys.previous_store)]

    def close(self) -> None:
        """Forget keys and secrets and close every backend; later operations raise."""
        self._closed = True
        with self._changing:
            self._health = None
            for secrets in list(self._made_secrets.values()):
                secrets.close()
            if self._keys is not None:
                self._keys.close()
            failures = self._wiring.close()
            for retiring in list(self._retiring):
                failures += retiring.end()
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

    def _refuse_closed(self) -> None:
        if self._closed:
            raise UnsupportedOperation("this KMS is closed: load() again")

    def _retire(self, before: Wiring, after: Wiring) -> None:
        """Close what is not in use any more once what is under way has had its time."""
        grace = max((each.timeout for each in before.settings.backends.values()), default=0.0)
        _Retiring(before, after, 2 * grace, self._retiring)

    def _bound(self, name: str) -> Binding:
        return self._wiring.bound(name)  # of the wiring that is in use when it is asked

    def _describe_secret(self, name: str) -> str:
        found = self.secrets.get(name)
        return "can be had" if found.version is None else f"can be had, version {found.version}"

    def _describe(self, kek: KekName) -> str:
        found = self._wiring.bindings[kek.backend].describe_key(kek.key)
        version = "" if found.key_version is None else f", version {found.key_version}"
        return f"wraps and unwraps, key id {found.key_id}{version}"

    def _describe_auth(self, source: AuthSource) -> str:
        return f"authenticates rings, auth id {self._wiring.auth_key(source).auth_id}"

    def _describe_store(self, name: str) -> str:
        page = self._wiring.bindings[name].list_rings(None, 1)
        return "keeps key rings" if page.tenants else "keeps key rings, none yet"

    def _unmoved(self, store: str, previous: str) -> Finding:
        """Say which tenants are in the previous store alone, by the names that both list."""
        plan = self._wiring.plan
        try:
            names = [] if plan is None else list(plan.store.unmoved())
        except KMSError as error:
            return Finding("error", previous, error.message)
        if not names:
            advice = "take previous_store out of [keys] when every process reads the new store"
            return Finding("ok", previous, f"holds no key ring that is not in '{store}'", advice)
        shown = ", ".join(names[:5]) + (" …" if len(names) > 5 else "")
        told = f"{len(names)} key rings are here and not in '{store}' yet: {shown}"
        return Finding("warning", previous, told, "`sentra-kms tenant move --all` moves them")


class _Retiring:
    """A wiring whose backends are closed in `seconds`, or when `end` is called before.

    Those that `after` uses too stay open. It is in `among` until then.
    """

    def __init__(
        self, before: Wiring, after: Wiring, seconds: float, among: list[_Retiring]
    ) -> None:
        self._before = before
        self._after = after
        self._among = among
        import threading

        self._timer = threading.Timer(seconds, self.end)
        self._timer.daemon = True
        among.append(self)
        self._timer.start()

    def end(self) -> list[KMSError]:
        """Close now; return what failed."""
        self._timer.cancel()
        with suppress(ValueError):  # the timer and a close may come at once
            self._among.remove(self)
        return self._before.close(self._after)


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
    settings = read_settings(source, environment)
    return KMS(settings, source=_found(source, settings))


def _found(source: _Source, settings: Settings) -> _Source:
    """Return a mapping, or where the file is that was found."""
    return source if isinstance(source, Mapping) else settings.source
