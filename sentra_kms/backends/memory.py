"""KEKs and rings in memory, for development and tests: gone with the process."""

from __future__ import annotations

import os
import threading

from sentra_kms.backends.master_key import MasterKey
from sentra_kms.backends.revision import expect_revision, revision_of
from sentra_kms.context import WrapContext
from sentra_kms.errors import KeyNotFound, TenantNotFound
from sentra_kms.hookspecs import (
    API_VERSION,
    KeyHooks,
    PartHooks,
    RingAuthHooks,
    RingHistoryHooks,
    RingHooks,
    hookimpl,
)
from sentra_kms.hooktypes import (
    BackendSettings,
    BackendType,
    Host,
    KeyDescription,
    Remainder,
    RingPage,
    StoredRing,
    WrappedKey,
)
from sentra_kms.material import KeyMaterial


class MemorySettings(BackendSettings, frozen=True):
    """Nothing to set."""


@hookimpl
def backend_type() -> BackendType:
    """Register the type `memory`."""
    return BackendType(
        api=API_VERSION,
        settings=MemorySettings,
        create="sentra_kms.backends.memory:create",
        summary="KEKs and key rings in memory, for development and tests",
        development_only=True,
    )


class _State:
    """What survives the parts: it belongs to the host, and a forked child starts from a copy."""

    def __init__(self) -> None:
        self.keys: dict[str, MasterKey] = {}
        self.rings: dict[str, bytes] = {}


def create(settings: MemorySettings, host: Host) -> list[object]:
    """Make both parts over the host's state."""
    state = host.state.setdefault("memory", _State())
    if not isinstance(state, _State):
        raise TypeError("the host's state belongs to somebody else")
    return [MemoryKeys(state, host.name), MemoryRings(state)]


class MemoryKeys(KeyHooks, RingAuthHooks, PartHooks):
    """Any KEK is made at its first wrap."""

    def __init__(self, state: _State, name: str) -> None:
        self._keys = state.keys
        self._name = name
        self._lock = threading.Lock()

    @hookimpl
    def wrap_key(
        self, key: str, material: KeyMaterial, context: WrapContext, timeout: float
    ) -> WrappedKey:
        """Wrap under the KEK, made now if it is new."""
        return self._made(key).wrap(material, context)

    @hookimpl
    def unwrap_key(
        self, key: str, wrapped: WrappedKey, context: WrapContext, timeout: float
    ) -> KeyMaterial:
        """Unwrap under a KEK that has wrapped before."""
        found = self._keys.get(key)
        if found is None:
            raise KeyNotFound(f"memory backend '{self._name}' has made no KEK '{key}'")
        return found.unwrap(f"{self._name}:{key}", wrapped, context)

    @hookimpl
    def describe_key(self, key: str, timeout: float) -> KeyDescription:
        """Return the KEK's id; makes it if it is new, as a wrap would."""
        return self._made(key).describe()

    @hookimpl
    def ring_auth_key(self, key: str) -> KeyMaterial:
        """Return the ring authentication key of the KEK."""
        return self._made(key).ring_auth_key()

    def _made(self, key: str) -> MasterKey:
        with self._lock:
            if key not in self._keys:
                self._keys[key] = MasterKey(KeyMaterial(os.urandom(32)))
            return self._keys[key]


class MemoryRings(RingHooks, RingHistoryHooks, PartHooks):
    """Rings in a dict, changed under a lock."""

    def __init__(self, state: _State) -> None:
        self._rings = state.rings
        self._lock = threading.Lock()

    @hookimpl
    def load_ring(self, tenant: str, timeout: float) -> StoredRing:
        """Return the ring as it was saved."""
        document = self._rings.get(tenant)
        if document is None:
            raise TenantNotFound(f"tenant '{tenant}' has no key ring: create it first")
        return StoredRing(document, revision_of(document))

    @hookimpl
    def save_ring(self, tenant: str, document: bytes, expected: str | None, timeout: float) -> str:
        """Replace the ring if it is still the expected one."""
        with self._lock:
            self._expect(tenant, expected)
            self._rings[tenant] = document
        return revision_of(document)

    @hookimpl
    def delete_ring(self, tenant: str, expected: str, timeout: float) -> None:
        """Delete the ring if it is still the expected one."""
        with self._lock:
            self._expect(tenant, expected)
            del self._rings[tenant]

    @hookimpl
    def list_rings(self, cursor: str | None, limit: int, timeout: float) -> RingPage:
        """List tenants in the order of their ids."""
        with self._lock:
            found = sorted(name for name in self._rings if cursor is None or name > cursor)
        page = tuple(found[:limit])
        return RingPage(page, page[-1] if len(found) > limit else None)

    @hookimpl
    def purge_ring_history(self, tenant: str, timeout: float) -> list[Remainder]:
        """Do nothing: what was replaced is gone."""
        return []

    def _expect(self, tenant: str, expected: str | None) -> None:
        document = self._rings.get(tenant)
        found = None if document is None else revision_of(document)
        expect_revision(tenant, found, expected)
