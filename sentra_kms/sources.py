"""The backends of one environment, each bound when it is first asked for a secret.

For what needs secrets and no keys, and for what must work where not every backend can be bound.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, MutableMapping
from contextlib import ExitStack
from types import TracebackType
from typing import Self

from sentra_kms.binding import Binding
from sentra_kms.discovery import UNDECLARED, find_type
from sentra_kms.errors import ConfigurationError
from sentra_kms.events import Event
from sentra_kms.hooktypes import Host
from sentra_kms.material import KeyMaterial
from sentra_kms.reference import Reference
from sentra_kms.settings import DEFAULT_TIMEOUT, BackendConfig, Settings


class Sources:
    """Binds lazily; a context manager that closes what it bound. `emit` gets the events."""

    def __init__(self, settings: Settings, emit: Callable[[Event], None] | None = None) -> None:
        self._settings = settings
        self._emit = emit
        self._bindings: dict[str, Binding] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with ExitStack() as closing:  # also of those after one that fails
            for binding in self._bindings.values():
                closing.callback(binding.close)
            self._bindings.clear()

    def secret(self, reference: Reference) -> KeyMaterial:
        """Return a secret as its source holds it now."""
        from sentra_kms.secrets.fetch import fetch_value

        return fetch_value(self.bound, reference)

    def bound(self, name: str) -> Binding:
        """Return a backend, bound now if it is not; raises what binding it does."""
        found = self._bindings.get(name)
        if found is not None:
            return found
        made = bind(
            self._settings,
            backend_config(self._settings, name),
            clock=time.time,
            secret=self.secret,
            state={},
            emit=self._emit,
        )
        # Of two threads that bind one at once, both use the first: another would not be closed.
        return self._bindings.setdefault(name, made)


def bind(
    settings: Settings,
    backend: BackendConfig,
    *,
    clock: Callable[[], float],
    secret: Callable[[Reference], KeyMaterial],
    state: MutableMapping[str, object],
    emit: Callable[[Event], None] | None,
) -> Binding:
    """Bind a backend of an environment; the rest is what its host lends it, and who observes."""
    host = Host(
        name=backend.name,
        environment=settings.environment,
        development=settings.development,
        clock=clock,
        secret=secret,
        resolve=lambda path: os.path.abspath(os.path.join(settings.base, path)),
        state=state,
    )
    return Binding(backend.type, backend.settings, host, timeout=backend.timeout, emit=emit)


def backend_config(settings: Settings, name: str) -> BackendConfig:
    """Return the configuration of a backend, also of one that needs no declaration.

    Raises `ConfigurationError` for any other name that is not declared, and for a type that is for
    development only where this is none.
    """
    declared = settings.backends.get(name)
    if declared is not None:
        return declared
    place = f"{settings.source}: [{settings.environment}]"
    if name not in UNDECLARED:
        known = ", ".join(sorted(settings.backends)) or "none"
        raise ConfigurationError(f"{place} has no backend '{name}'; there are {known}")
    found = find_type(name)
    if found.kind.development_only and not settings.development:
        raise ConfigurationError(
            f"{place}: {name}:// is for development only, and this is not a development "
            "environment: keep the secret in a file (file:///…) or a secret service"
        )
    return BackendConfig(name, found, found.kind.settings(), DEFAULT_TIMEOUT)
