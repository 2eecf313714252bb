"""The parts, over a service that `host.state` holds: it is all there is, so it outlives them."""

from __future__ import annotations

import os
import threading
from itertools import count

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from sentra_kms import (
    AuthenticationFailed,
    Conflict,
    DecryptionFailed,
    KeyMaterial,
    KeyNotFound,
    KMSError,
    MalformedInput,
    TenantNotFound,
)
from sentra_kms.context import WrapContext
from sentra_kms.hookspecs import (
    BatchKeyHooks,
    KeyHooks,
    PartHooks,
    RingHistoryHooks,
    RingHooks,
    hookimpl,
)
from sentra_kms.hooktypes import (
    Finding,
    Host,
    KeyDescription,
    Remainder,
    RingPage,
    StoredRing,
    UnwrapRequest,
    WrappedKey,
    WrapRequest,
)

from .register import ToySettings

TOKEN = b"open-sesame-and-stay-open"


class Service:
    """KEKs and rings."""

    def __init__(self, keys: tuple[str, ...]) -> None:
        self.keks = {name: AESGCM(os.urandom(32)) for name in keys}
        self.rings: dict[str, StoredRing] = {}
        self.revisions = count(1)


class Login:
    """What every part does first."""

    def __init__(self, settings: ToySettings, host: Host) -> None:
        self._settings = settings
        self._host = host
        service = host.state.setdefault("service", Service(settings.keys))
        assert isinstance(service, Service)
        self._service = service

    def service(self) -> Service:
        """Return the service, once the token was accepted."""
        if self._host.secret(self._settings.token).reveal().rstrip(b"\n") != TOKEN:
            raise AuthenticationFailed(f"the token in {self._settings.token} is not accepted")
        return self._service


def create(settings: ToySettings, host: Host) -> list[object]:
    """Make the parts that the settings enable."""
    login = Login(settings, host)
    parts: list[object] = []
    if settings.keys:
        parts.append(Keys(login, host.name))
    if settings.rings:
        parts.append(Rings(login))
    return parts


class Keys(KeyHooks, BatchKeyHooks, PartHooks):
    """AES-256-GCM under the KEK, the wrap context as associated data."""

    def __init__(self, login: Login, name: str) -> None:
        self._login = login
        self._name = name

    @hookimpl
    def wrap_key(
        self, key: str, material: KeyMaterial, context: WrapContext, timeout: float
    ) -> WrappedKey:
        """Encrypt."""
        return _seal(self._kek(key), key, material, context)

    @hookimpl
    def unwrap_key(
        self, key: str, wrapped: WrappedKey, context: WrapContext, timeout: float
    ) -> KeyMaterial:
        """Decrypt."""
        material = _open(self._kek(key), wrapped, context)
        if material is None:
            raise self._no(key)
        return material

    @hookimpl
    def wrap_keys(
        self, key: str, requests: tuple[WrapRequest, ...], timeout: float
    ) -> list[WrappedKey | KMSError]:
        """Encrypt each, after one login."""
        kek = self._kek(key)
        return [
            _seal(kek, key, each.material, each.context)
            if len(each.material.reveal()) == 32
            else MalformedInput("a tenant key has 32 bytes")
            for each in requests
        ]

    @hookimpl
    def unwrap_keys(
        self, key: str, requests: tuple[UnwrapRequest, ...], timeout: float
    ) -> list[KeyMaterial | KMSError]:
        """Decrypt each, after one login."""
        kek = self._kek(key)
        opened = [_open(kek, each.wrapped, each.context) for each in requests]
        return [self._no(key) if material is None else material for material in opened]

    @hookimpl
    def describe_key(self, key: str, timeout: float) -> KeyDescription:
        """Name the KEK."""
        self._kek(key)
        return KeyDescription(key_id=f"toy/{key}", key_version="1")

    @hookimpl
    def check(self, timeout: float) -> list[Finding]:
        """Name the KEKs."""
        return [
            Finding("ok", f"{self._name}:{name}", "is there") for name in self._login.service().keks
        ]

    def _no(self, key: str) -> DecryptionFailed:
        return DecryptionFailed(f"'{self._name}:{key}' cannot unwrap the tenant key")

    def _kek(self, key: str) -> AESGCM:
        found = self._login.service().keks.get(key)
        if found is None:
            raise KeyNotFound(f"backend '{self._name}' has no KEK '{key}': add it to `keys`")
        return found


def _seal(kek: AESGCM, name: str, material: KeyMaterial, context: WrapContext) -> WrappedKey:
    if len(material.reveal()) != 32:
        raise MalformedInput("a tenant key has 32 bytes")
    nonce = os.urandom(12)
    sealed = kek.encrypt(nonce, material.reveal(), context.canonical)
    return WrappedKey(nonce + sealed, key_id=f"toy/{name}", key_version="1")


def _open(kek: AESGCM, wrapped: WrappedKey, context: WrapContext) -> KeyMaterial | None:
    blob = wrapped.ciphertext
    try:
        return KeyMaterial(kek.decrypt(blob[:12], blob[12:], context.canonical))
    except (InvalidTag, ValueError):
        return None


class Rings(RingHooks, RingHistoryHooks, PartHooks):
    """A dict, changed under a lock; a revision is the number of the save."""

    def __init__(self, login: Login) -> None:
        self._login = login
        self._lock = threading.Lock()

    @hookimpl
    def load_ring(self, tenant: str, timeout: float) -> StoredRing:
        """Look it up."""
        found = self._login.service().rings.get(tenant)
        if found is None:
            raise TenantNotFound(f"tenant '{tenant}' has no key ring: create it first")
        return found

    @hookimpl
    def save_ring(self, tenant: str, document: bytes, expected: str | None, timeout: float) -> str:
        """Compare and set."""
        service = self._login.service()
        with self._lock:
            _compare(service, tenant, expected)
            revision = str(next(service.revisions))
            service.rings[tenant] = StoredRing(document, revision)
        return revision

    @hookimpl
    def delete_ring(self, tenant: str, expected: str, timeout: float) -> None:
        """Compare and delete."""
        service = self._login.service()
        with self._lock:
            _compare(service, tenant, expected)
            del service.rings[tenant]

    @hookimpl
    def purge_ring_history(self, tenant: str, timeout: float) -> list[Remainder]:
        """Say that nothing remains: a save leaves nothing of what it replaced."""
        self._login.service()
        return []

    @hookimpl
    def list_rings(self, cursor: str | None, limit: int, timeout: float) -> RingPage:
        """List in the order of ids."""
        service = self._login.service()
        with self._lock:
            names = sorted(name for name in service.rings if cursor is None or name > cursor)
        page = tuple(names[:limit])
        return RingPage(page, page[-1] if len(names) > limit else None)


def _compare(service: Service, tenant: str, expected: str | None) -> None:
    found = service.rings.get(tenant)
    if (None if found is None else found.revision) == expected:
        return
    if found is None:
        raise TenantNotFound(f"tenant '{tenant}' has no key ring any more")
    raise Conflict(f"the ring of '{tenant}' was saved by somebody else: read it again")
