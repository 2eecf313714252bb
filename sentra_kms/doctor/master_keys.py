"""The ids of an environment's master keys, as far as they can be read here."""

from __future__ import annotations

from collections.abc import Iterator
from types import TracebackType
from typing import Self

from sentra_kms.doctor.places import local_settings
from sentra_kms.errors import KMSError
from sentra_kms.reference import KekName, Reference
from sentra_kms.settings import Settings
from sentra_kms.sources import Sources


class MasterKeys:
    """Binds the local backends and what their references lead to, and nothing else.

    So it works where the environment as a whole cannot be bound. `unreadable` names the KEKs whose
    master keys could not be read.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._sources = Sources(settings)
        self.unreadable: list[KekName] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._sources.__exit__(kind, error, traceback)

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
            return self._sources.bound(kek.backend).describe_key(kek.key).key_id
        except KMSError:
            self.unreadable.append(kek)
            return None
