"""KEKs, rings and secrets in memory, for development and tests: gone with the process."""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from datetime import UTC, datetime

from sentra_kms.backends.master_key import MasterKey
from sentra_kms.backends.revision import expect_revision, revision_of
from sentra_kms.context import WrapContext
from sentra_kms.errors import (
    KeyNotFound,
    MalformedInput,
    SecretNotFound,
    ServiceUnavailable,
    TenantNotFound,
)
from sentra_kms.hookspecs import (
    API_VERSION,
    KeyHooks,
    PartHooks,
    RingAuthHooks,
    RingHistoryHooks,
    RingHooks,
    SecretHooks,
    hookimpl,
)
from sentra_kms.hooktypes import (
    BackendSettings,
    BackendType,
    Host,
    KeyDescription,
    Remainder,
    RingPage,
    SecretRequest,
    SecretValue,
    StoredRing,
    WrappedKey,
)
from sentra_kms.material import KeyMaterial
from sentra_kms.reference import Reference


class MemorySettings(BackendSettings, frozen=True):
    """With a table `secrets` it holds secrets: the reference that fills each path."""

    secrets: dict[str, Reference] | None = None


@hookimpl
def backend_type() -> BackendType:
    """Register the type `memory`."""
    return BackendType(
        api=API_VERSION,
        settings=MemorySettings,
        create="sentra_kms.backends.memory:create",
        summary="KEKs, key rings and secrets in memory, for development and tests",
        development_only=True,
    )


STATE = "memory"
"""Where its state is in the host's."""


class MemoryState:
    """What survives the parts: it belongs to the host, and a forked child starts from a copy.

    While `outage` is true every operation is `ServiceUnavailable`.
    """

    def __init__(self) -> None:
        self.keys: dict[str, MasterKey] = {}
        self.rings: dict[str, bytes] = {}
        self.secrets: dict[str, list[SecretValue]] = {}
        self.outage: bool = False

    def check(self, name: str) -> None:
        """Raise if this is an outage."""
        if self.outage:
            raise ServiceUnavailable(f"memory backend '{name}' plays an outage")

    def put(self, path: str, data: KeyMaterial, created: datetime) -> None:
        """Make a new version of a secret, unless it is what the latest one holds."""
        versions = self.secrets.setdefault(path, [])
        if not versions or versions[-1].data != data:
            versions.append(SecretValue(data, version=str(len(versions) + 1), created=created))


def create(settings: MemorySettings, host: Host) -> list[object]:
    """Make the parts over the host's state; that of secrets only with a table for them."""
    state = host.state.setdefault(STATE, MemoryState())
    if not isinstance(state, MemoryState):
        raise TypeError("the host's state belongs to somebody else")
    parts: list[object] = [MemoryKeys(state, host.name), MemoryRings(state, host.name)]
    if settings.secrets is not None:
        parts.append(MemorySecrets(settings.secrets, state, host))
    return parts


class MemoryKeys(KeyHooks, RingAuthHooks, PartHooks):
    """Any KEK is made at its first wrap."""

    def __init__(self, state: MemoryState, name: str) -> None:
        self._state = state
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
        self._state.check(self._name)
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
        self._state.check(self._name)
        with self._lock:
            if key not in self._keys:
                self._keys[key] = MasterKey(KeyMaterial(os.urandom(32)))
            return self._keys[key]


class MemoryRings(RingHooks, RingHistoryHooks, PartHooks):
    """Rings in a dict, changed under a lock."""

    def __init__(self, state: MemoryState, name: str) -> None:
        self._state = state
        self._rings = state.rings
        self._name = name
        self._lock = threading.Lock()

    @hookimpl
    def load_ring(self, tenant: str, timeout: float) -> StoredRing:
        """Return the ring as it was saved."""
        self._state.check(self._name)
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
        self._state.check(self._name)
        with self._lock:
            found = sorted(name for name in self._rings if cursor is None or name > cursor)
        page = tuple(found[:limit])
        return RingPage(page, page[-1] if len(found) > limit else None)

    @hookimpl
    def purge_ring_history(self, tenant: str, timeout: float) -> list[Remainder]:
        """Do nothing: what was replaced is gone."""
        return []

    def _expect(self, tenant: str, expected: str | None) -> None:
        self._state.check(self._name)
        document = self._rings.get(tenant)
        found = None if document is None else revision_of(document)
        expect_revision(tenant, found, expected)


class MemorySecrets(SecretHooks, PartHooks):
    """Secrets by path, each filled through a reference; a changed one is a new version."""

    def __init__(self, sources: dict[str, Reference], state: MemoryState, host: Host) -> None:
        self._sources = sources
        self._state = state
        self._host = host
        self._lock = threading.Lock()

    @hookimpl
    def fetch_secret(self, request: SecretRequest, timeout: float) -> SecretValue:
        """Return the latest version, or that of `?version=N`."""
        reference = request.reference
        options = dict(reference.options)
        wanted = options.pop("version", None)
        if options or reference.field is not None:
            raise MalformedInput(
                f"{reference}: a memory backend knows the option version and no other, and no field"
            )
        self._state.check(self._host.name)
        source = self._sources.get(reference.path)
        filled = None if source is None else self._filled(reference, source)
        with self._lock:
            if filled is not None:
                created = datetime.fromtimestamp(self._host.clock(), UTC)
                self._state.put(reference.path, filled, created)
            versions = self._state.secrets.get(reference.path, [])
            for found in versions if wanted is not None else versions[-1:]:
                if wanted in {None, found.version}:
                    return found
        what = "secret" if wanted is None else f"version {wanted} of the secret"
        raise SecretNotFound(f"memory backend '{self._host.name}' has no such {what}: {reference}")

    def _filled(self, reference: Reference, source: Reference) -> KeyMaterial:
        with suppress(SecretNotFound):
            return self._host.secret(source)
        # Its own answer: that of the other backend would be taken for one about a credential.
        raise SecretNotFound(f"nothing is at {source}, which fills {reference}")
