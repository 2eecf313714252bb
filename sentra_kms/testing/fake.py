"""A KMS for an application's tests: memory in the place of every backend, a clock that stands."""

from __future__ import annotations

import json
from collections.abc import Generator, Iterator, Mapping, MutableMapping
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec

from sentra_kms.backends.memory import STATE, MemorySettings, MemoryState
from sentra_kms.config import read_settings
from sentra_kms.discovery import UNDECLARED, find_type
from sentra_kms.errors import MalformedInput
from sentra_kms.events import Event
from sentra_kms.material import KeyMaterial
from sentra_kms.reference import Reference
from sentra_kms.runtime import KMS
from sentra_kms.secret_settings import SecretEntry, SecretSource
from sentra_kms.settings import (
    DEFAULT_TIMEOUT,
    AuditSettings,
    AuthSource,
    BackendConfig,
    KeysSettings,
    Settings,
)
from sentra_kms.testing.bench import ManualClock

if TYPE_CHECKING:
    import os

START = 1_800_000_000.0
"""Where a fake's clock begins: 15 January 2027, in seconds since the epoch."""

_OWN = "memory"
_PLANTED = "sentra-kms-fake"
_EMPTY: dict[str, object] = {
    "test": {
        "development": True,
        "backends": {_OWN: {"type": "memory", "secrets": {}}},
        "keys": {"wrap_with": [f"{_OWN}:tenants"], "store": _OWN},
    }
}


class Fake:
    """What the fixture `sentra_kms_fake` gives.

    `kms` is what `sentra_kms.load` returns while it lasts: with the secrets and keys of the
    configuration that was loaded last, but every backend in memory under its own name. `secrets`
    is where a test puts values, by name or reference; `clock` stands until `advance`; `events` is
    what observers would have seen, in order.
    """

    def __init__(self) -> None:
        self.clock: ManualClock = ManualClock(START)
        self.events: list[Event] = []
        self.reached: list[str] = []
        self._states: dict[str, MutableMapping[str, object]] = {}
        self._kms: list[KMS] = []
        self._entries: dict[str, SecretEntry] = {}
        self._planted: dict[str, SecretEntry] = {}
        self.secrets: MutableMapping[str, str | bytes] = _Planted(self)
        self.kms: KMS = self.load(_EMPTY, "test")

    def load(
        self,
        source: str | os.PathLike[str] | Mapping[str, object] | None = None,
        environment: str | None = None,
    ) -> KMS:
        """Do what `sentra_kms.load` does, with memory in the place of every backend."""
        settings = read_settings(source, environment)
        entries = {**settings.secrets, **self._planted}
        names = {*settings.backends, *UNDECLARED, _OWN}
        replaced = msgspec.structs.replace(
            settings,
            backends={name: self._memory(name) for name in sorted(names)},
            audit=AuditSettings(),
            secrets=entries,
            keys=_with_memory(settings),
        )
        self._entries = entries
        self.kms = KMS(
            replaced,
            clock=self.clock,
            now=self.clock,
            emit=self.events.append,
            spawn=lambda work: work(),
            states=self._states,
        )
        self._kms.append(self.kms)
        return self.kms

    def outage(self, backend: str) -> AbstractContextManager[None]:
        """Make a backend unreachable: until `recover`, or the end of a `with` block."""
        if backend not in self._states:
            known = ", ".join(sorted(self._states))
            raise MalformedInput(f"there is no backend '{backend}' here; there are {known}")
        self.state(backend).outage = True
        return self._outage(backend)

    def recover(self, backend: str) -> None:
        """End an outage."""
        self.state(backend).outage = False

    def state(self, backend: str) -> MemoryState:
        """Return what a backend holds."""
        found = self._states.setdefault(backend, {}).setdefault(STATE, MemoryState())
        assert isinstance(found, MemoryState)  # noqa: S101 - nobody else writes there
        return found

    def close(self) -> None:
        """Close every KMS that was loaded."""
        for kms in self._kms:
            kms.close()

    @contextmanager
    def _outage(self, backend: str) -> Generator[None]:
        try:
            yield
        finally:
            self.recover(backend)

    def _memory(self, name: str) -> BackendConfig:
        self.state(name)
        return BackendConfig(name, find_type("memory"), MemorySettings(secrets={}), DEFAULT_TIMEOUT)

    def plant(self, secret: str, value: str | bytes) -> None:
        """Put a value where `kms.secrets.get(secret)` finds it, at once."""
        data = value.encode("utf-8") if isinstance(value, str) else bytes(value)
        if "://" in secret:
            reference = Reference(secret)
        else:
            entry = self._entries.get(secret)
            backend = _OWN if entry is None else _first(entry).backend
            reference = Reference(f"{backend}://{_PLANTED}/{secret}")
            ttl = None if entry is None else entry.ttl
            planted = SecretEntry({"": SecretSource((reference,))}, ttl=ttl)
            self._planted[secret] = self._entries[secret] = planted
        self._put(reference, data)
        self._changed()

    def uproot(self, secret: str) -> None:
        """Take a planted value away: the secret is then not found."""
        entry = self._planted.get(secret)
        reference = Reference(secret) if entry is None else _first(entry)
        if self.state(reference.backend).secrets.pop(reference.path, None) is None:
            raise KeyError(secret)
        self._changed()

    def _put(self, reference: Reference, data: bytes) -> None:
        state = self.state(reference.backend)
        if reference.keys:
            versions = state.secrets.get(reference.path)
            document: dict[str, Any] = json.loads(versions[-1].data.reveal()) if versions else {}
            place = document
            for key in reference.keys[:-1]:
                place = place.setdefault(key, {})
            place[reference.keys[-1]] = data.decode("utf-8")
            data = json.dumps(document).encode("utf-8")
        state.put(reference.path, KeyMaterial(data), datetime.fromtimestamp(self.clock(), UTC))

    def _changed(self) -> None:
        """Have what is held looked at anew, so that a test need not wait for a time to live."""
        for kms in self._kms:
            kms.secrets.expire()


class _Planted(MutableMapping[str, "str | bytes"]):
    """`fake.secrets`: what a test put there, by name or reference."""

    def __init__(self, fake: Fake) -> None:
        self._fake = fake
        self._names: dict[str, None] = {}

    def __setitem__(self, secret: str, value: str | bytes) -> None:
        self._fake.plant(secret, value)
        self._names[secret] = None

    def __getitem__(self, secret: str) -> str:
        if secret not in self._names:
            raise KeyError(secret)
        return self._fake.kms.secrets.get(secret).reveal()

    def __delitem__(self, secret: str) -> None:
        del self._names[secret]
        self._fake.uproot(secret)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def __repr__(self) -> str:
        return f"secrets({', '.join(self._names)})"


def _first(entry: SecretEntry) -> Reference:
    return next(iter(entry.parts.values())).references[0]


def _with_memory(settings: Settings) -> KeysSettings | None:
    """Return the keys' settings with rings authenticated by keys in memory."""
    if settings.keys is None:
        return None
    sources = tuple(AuthSource.of_kek(kek) for kek in settings.keys.wrap_with)
    return msgspec.structs.replace(settings.keys, authenticate_with=sources)
