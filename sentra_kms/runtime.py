"""From settings to a working `KMS`: backends bound, managers built over them."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Self

from sentra_kms.binding import Binding
from sentra_kms.config import read_settings, references_in
from sentra_kms.encoding import strict_base64
from sentra_kms.errors import (
    ConfigurationError,
    KMSError,
    MalformedInput,
    UnsupportedOperation,
    afresh,
)
from sentra_kms.events import Event
from sentra_kms.hooktypes import Finding, Host
from sentra_kms.keys.document import Authenticator, AuthKey
from sentra_kms.keys.manager import KeyManager
from sentra_kms.keys.store import RingStore
from sentra_kms.keys.wrapping import Wrapping
from sentra_kms.material import KeyMaterial
from sentra_kms.observers import Observers, find_observer
from sentra_kms.reference import KekName, Reference
from sentra_kms.settings import (
    AuthSource,
    BackendConfig,
    KeysSettings,
    Settings,
)
from sentra_kms.sources import backend_config

if TYPE_CHECKING:
    from sentra_kms.secrets.documents import Spawn
    from sentra_kms.secrets.manager import SecretManager

_AUTH_KEY_SIZE = 32


class KMS:
    """One environment of one configuration, in use. Made by `sentra_kms.load`.

    Opens no connection and reads no secret before the first operation that needs it. A context
    manager; `close` may be called more than once.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        clock: Callable[[], float] = time.time,
        now: Callable[[], float] = time.monotonic,
        emit: Callable[[Event], None] | None = None,
        spawn: Spawn | None = None,
        states: dict[str, dict[str, object]] | None = None,
    ) -> None:
        self.environment: str = settings.environment
        self._settings = settings
        self._clock = clock
        self._now = now
        self._observers = Observers(
            [(name, find_observer(name)) for name in settings.audit.observers]
        )
        self._emit = emit or self._observers.emit
        self._states: dict[str, dict[str, object]] = {} if states is None else states
        self._bindings: dict[str, Binding] = {}
        self._closed = False
        for name, backend in settings.backends.items():
            self._bindings[name] = self._bind(backend)
        for name, backend in settings.backends.items():
            for reference in references_in(backend.settings):
                self._bindings[reference.backend].require(
                    "fetch_secret", f"[{self.environment}.backends.{name}] refers to {reference}"
                )
        for name, entry in settings.secrets.items():
            for reference in references_in(entry):
                self._bindings[reference.backend].require(
                    "fetch_secret", f"[{self.environment}.secrets] {name} refers to {reference}"
                )
        self._spawn = spawn
        self._secrets: dict[str, SecretManager] = {}
        self._keys = self._build_keys(settings.keys) if settings.keys else None

    def __repr__(self) -> str:
        return f"KMS(environment={self.environment!r})"

    @property
    def keys(self) -> KeyManager:
        """Tenants' key rings and messages under them."""
        if self._keys is None:
            raise ConfigurationError(
                f"{self._settings.source}: [{self.environment}] has no table "
                f"[{self.environment}.keys]: add it to use kms.keys"
            )
        return self._keys

    @property
    def secrets(self) -> SecretManager:
        """Secrets by name or reference."""
        return self._secrets.get("") or self._open_secrets()

    def examine(self) -> list[Finding]:
        """Try every backend, secret, KEK, ring authentication key and the store; change nothing."""
        found = [finding for binding in self._bindings.values() for finding in binding.check()]
        found += [
            _tried(name, partial(self._describe_secret, name)) for name in self._settings.secrets
        ]
        keys = self._settings.keys
        if keys is None:
            return found
        keks = dict.fromkeys(keys.wrap_with + keys.unwrap_with)
        found += [_tried(kek, partial(self._describe, kek)) for kek in keks]
        found += [
            _tried(source, partial(self._describe_auth, source))
            for source in keys.authenticate_with
        ]
        return [*found, _tried(keys.store, partial(self._describe_store, keys.store))]

    def close(self) -> None:
        """Forget keys and secrets and close every backend; later operations raise."""
        self._closed = True
        if self._keys is not None:
            self._keys.close()
        for secrets in self._secrets.values():
            secrets.close()
        failures = [_closed(binding) for binding in list(self._bindings.values())]
        self._observers.close()
        for failure in failures:
            if failure is not None:
                raise failure

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _open_secrets(self) -> SecretManager:
        from sentra_kms.secrets.manager import DEFAULT_MAX_STALE, SecretManager

        made = SecretManager(
            self._bound,
            self._settings.secrets,
            max_stale=getattr(self._settings.cache, "max_stale", DEFAULT_MAX_STALE),
            clock=self._clock,
            now=self._now,
            spawn=self._spawn,
            where=f"[{self.environment}.secrets]",
        )
        return self._secrets.setdefault("", made)  # of two threads both use the first

    def _describe_secret(self, name: str) -> str:
        found = self.secrets.get(name)
        return "can be had" if found.version is None else f"can be had, version {found.version}"

    def _describe(self, kek: KekName) -> str:
        found = self._bindings[kek.backend].describe_key(kek.key)
        version = "" if found.key_version is None else f", version {found.key_version}"
        return f"wraps and unwraps, key id {found.key_id}{version}"

    def _describe_auth(self, source: AuthSource) -> str:
        return f"authenticates rings, auth id {self._auth_source(source)().auth_id}"

    def _describe_store(self, name: str) -> str:
        page = self._bindings[name].list_rings(None, 1)
        return "keeps key rings" if page.tenants else "keeps key rings, none yet"

    def _bind(self, backend: BackendConfig) -> Binding:
        settings = self._settings
        host = Host(
            name=backend.name,
            environment=settings.environment,
            development=settings.development,
            clock=self._clock,
            secret=self._secret,
            resolve=lambda path: os.path.abspath(os.path.join(settings.base, path)),
            state=self._states.setdefault(backend.name, {}),
        )
        return Binding(
            backend.type, backend.settings, host, timeout=backend.timeout, emit=self._emit
        )

    def _secret(self, reference: Reference) -> KeyMaterial:
        from sentra_kms.secrets.fetch import fetch_value

        return fetch_value(self._bound, reference)

    def _bound(self, name: str) -> Binding:
        """Return a backend in use; one that needs no declaration is bound when it is asked for."""
        found = self._bindings.get(name)
        if found is not None:
            return found
        if self._closed:
            raise UnsupportedOperation("this KMS is closed: load() again")
        # Of two threads that bind one at once, both use the first.
        made = self._bind(backend_config(self._settings, name))
        return self._bindings.setdefault(name, made)

    def _build_keys(self, keys: KeysSettings) -> KeyManager:
        place = f"[{self.environment}.keys]"
        for kek in keys.wrap_with + keys.unwrap_with:
            self._bindings[kek.backend].require("wrap_key", f"{place} names the KEK '{kek}'")
        self._bindings[keys.store].require("save_ring", f"{place} keeps rings in '{keys.store}'")
        for source in keys.authenticate_with:
            operation = "fetch_secret" if isinstance(source.target, Reference) else "ring_auth_key"
            self._bindings[source.target.backend].require(
                operation, f"{place} authenticates rings with '{source}'"
            )
        sources = [self._auth_source(source) for source in keys.authenticate_with]
        return KeyManager(
            RingStore(self._bindings[keys.store], Authenticator(sources)),
            Wrapping(self._bindings, keys.wrap_with, keys.unwrap_with),
            self._settings.cache,
            clock=self._clock,
            now=self._now,
        )

    def _auth_source(self, source: AuthSource) -> Callable[[], AuthKey]:
        target = source.target
        if isinstance(target, KekName):
            return lambda: self._auth_key_of(target)
        return lambda: AuthKey(str(target), _decode_auth_key(self._secret(target), target))

    def _auth_key_of(self, kek: KekName) -> AuthKey:
        binding = self._bindings[kek.backend]
        key_id = binding.describe_key(kek.key).key_id
        return AuthKey(f"{kek}, master key id {key_id}", binding.ring_auth_key(kek.key))


def _closed(binding: Binding) -> KMSError | None:
    try:
        binding.close()
    except KMSError as error:
        return afresh(error)
    return None


def _tried(subject: str, look: Callable[[], str]) -> Finding:
    try:
        return Finding("ok", str(subject), look())
    except KMSError as error:
        return Finding("error", str(subject), error.message)


def open_kms(
    source: str | os.PathLike[str] | Mapping[str, object] | None, environment: str | None
) -> KMS:
    """Read a configuration and bind it; what `sentra_kms.load` does."""
    return KMS(read_settings(source, environment))


def _decode_auth_key(text: KeyMaterial, reference: Reference) -> KeyMaterial:
    raw: KeyMaterial | None = None
    with suppress(MalformedInput):
        raw = KeyMaterial(strict_base64(_without_newline(text).reveal()))
    if raw is None or len(raw.reveal()) != _AUTH_KEY_SIZE:
        raise ConfigurationError(
            f"{reference} authenticates rings: it must hold standard base64 of exactly "
            f"{_AUTH_KEY_SIZE} bytes: make it with `sentra-kms keygen`"
        )
    return raw


def _without_newline(text: KeyMaterial) -> KeyMaterial:
    ending = b"\r\n" if text.reveal().endswith(b"\r\n") else b"\n"
    return KeyMaterial(text.reveal().removesuffix(ending))
