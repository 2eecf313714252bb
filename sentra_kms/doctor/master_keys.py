"""The ids of an environment's master keys, as far as they can be read here."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from types import TracebackType
from typing import Self

from sentra_kms.binding import Binding
from sentra_kms.doctor.places import local_settings
from sentra_kms.errors import KMSError
from sentra_kms.hooktypes import Host
from sentra_kms.material import KeyMaterial
from sentra_kms.reference import KekName, Reference
from sentra_kms.secrets.fetch import fetch_value
from sentra_kms.settings import Settings


class MasterKeys:
    """Binds the local backends and what their references lead to, and nothing else.

    So it works where the environment as a whole cannot be bound. `unreadable` names the KEKs whose
    master keys could not be read.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._bindings: dict[str, Binding] = {}
        self._stack = ExitStack()
        self.unreadable: list[KekName] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stack.close()

    def references(self) -> Iterator[tuple[KekName, Reference]]:
        """Yield every local KEK and the reference of its master key."""
        for name in self._settings.backends:
            local = local_settings(self._settings, name)
            for key, reference in local.master_keys.items() if local else ():
                if key:  # a KEK without a name cannot be used
                    yield KekName(f"{name}:{key}"), reference

    def key_id(self, kek: KekName) -> str | None:
        """Return the id of a KEK's master key, `None` if it cannot be read."""
        try:
            return self._binding(kek.backend).describe_key(kek.key).key_id
        except KMSError:
            self.unreadable.append(kek)
            return None

    def _secret(self, reference: Reference) -> KeyMaterial:
        return fetch_value(self._binding, reference)

    def _binding(self, name: str) -> Binding:
        if name not in self._bindings:
            backend, settings = self._settings.backends[name], self._settings
            host = Host(
                name=name,
                environment=settings.environment,
                development=settings.development,
                clock=time.time,
                secret=self._secret,
                resolve=lambda path: os.path.abspath(os.path.join(settings.base, path)),
                state={},
            )
            made = Binding(backend.type, backend.settings, host, timeout=backend.timeout)
            self._bindings[name] = self._stack.enter_context(closing(made))
        return self._bindings[name]
