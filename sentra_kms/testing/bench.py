"""A backend built as `sentra_kms.load` builds it: found, guarded and bound."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping

from sentra_kms.binding import Binding
from sentra_kms.config import read_settings
from sentra_kms.events import Event
from sentra_kms.hooktypes import Host
from sentra_kms.material import KeyMaterial
from sentra_kms.reference import Reference
from sentra_kms.secrets.fetch import fetch_value

ENVIRONMENT = "kit"


class ManualClock:
    """Seconds since the epoch, standing still until they are told to go on."""

    def __init__(self, seconds: float) -> None:
        self.seconds: float = seconds

    def __call__(self) -> float:
        """Return the time."""
        return self.seconds

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.seconds += seconds


def other_name(name: str) -> str:
    """Return the name under which the same backend is bound a second time."""
    return f"kit-{name}"


def configuration(
    name: str, table: Mapping[str, object], **tables: Mapping[str, object]
) -> dict[str, object]:
    """Return a configuration of one environment whose backend `name` has the table `table`.

    `tables` are the environment's other tables; `backends` among them adds to this one.
    """
    backends = {**tables.pop("backends", {}), name: dict(table)}
    return {ENVIRONMENT: {"development": True, "backends": backends, **tables}}


class Bench:
    """One backend, bound, with the backends that its settings refer to.

    `binding` is what the core calls; `events` is what observers would see; `clock` is the one that
    the backend was given; `credentials` are those that it has asked for so far.
    """

    def __init__(self, name: str, table: Mapping[str, object]) -> None:
        self._name = name
        self._settings = read_settings(configuration(name, table), ENVIRONMENT)
        self._states: dict[str, dict[str, object]] = {}
        self.clock: ManualClock = ManualClock(time.time())
        self.events: list[Event] = []
        self.credentials: list[KeyMaterial] = []
        self._bindings: dict[str, Binding] = {}
        for each in self._settings.backends:
            self._bindings[each] = self._bind(each)
        self.binding: Binding = self._bindings[name]

    @property
    def operations(self) -> frozenset[str]:
        """What the backend's parts implement."""
        return self.binding.operations

    def again(self) -> Binding:
        """Bind the backend a second time over the same state, as a forked child does."""
        return self._bind(self._name)

    def delete_ring(self, tenant: str, expected: str) -> None:
        """Delete a tenant's ring through the binding."""
        self.binding.delete_ring(tenant, expected)

    def close(self) -> None:
        """Close every backend."""
        for binding in self._bindings.values():
            binding.close()

    def _bind(self, name: str) -> Binding:
        backend = self._settings.backends[name]
        host = Host(
            name=name,
            environment=self._settings.environment,
            development=self._settings.development,
            clock=self.clock,
            secret=self._secret,
            resolve=lambda path: os.path.abspath(os.path.join(self._settings.base, path)),
            state=self._states.setdefault(name, {}),
        )
        return Binding(
            backend.type,
            backend.settings,
            host,
            timeout=backend.timeout,
            emit=self.events.append,
        )

    def _secret(self, reference: Reference) -> KeyMaterial:
        found = fetch_value(self._bindings.__getitem__, reference)
        if found not in self.credentials:
            self.credentials.append(found)
        return found
