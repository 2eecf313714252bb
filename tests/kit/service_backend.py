"""A backend over a service in this process, right in every check, and wrong on request.

The service can do what real ones do: disable a key, change a secret, be away. With the setting
`fault` the backend makes one mistake.
"""

# ruff: noqa: D102 - what is overridden says it

from __future__ import annotations

import base64
import os
import threading
from collections.abc import Callable
from typing import TypeVar

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from sentra_kms.context import WrapContext
from sentra_kms.errors import (
    Conflict,
    DecryptionFailed,
    KeyNotFound,
    KeyUnavailable,
    KMSError,
    MalformedInput,
    SecretNotFound,
    ServiceUnavailable,
    TenantNotFound,
)
from sentra_kms.hookspecs import (
    BatchKeyHooks,
    BatchSecretHooks,
    KeyHooks,
    PartHooks,
    RingHistoryHooks,
    RingHooks,
    SecretHooks,
    hookimpl,
)
from sentra_kms.hooktypes import (
    BackendSettings,
    BackendType,
    Finding,
    Host,
    KeyDescription,
    Remainder,
    RingPage,
    SecretRequest,
    SecretValue,
    StoredRing,
    UnwrapRequest,
    WrappedKey,
    WrapRequest,
)
from sentra_kms.material import KeyMaterial

_R = TypeVar("_R")
_T = TypeVar("_T")


class ServiceSettings(BackendSettings, frozen=True):
    """`address` tells one service from another."""

    address: str
    fault: str = ""


@hookimpl
def backend_type() -> BackendType:
    """Register the type `service`."""
    return BackendType(
        api=(1, 0),
        settings=ServiceSettings,
        create=f"{__name__}:create",
        summary="everything in this process",
    )


class Service:
    """What would stand elsewhere."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.keys = {name: os.urandom(32) for name in ("one", "two")}
        self.disabled: set[str] = set()
        self.secrets = {"platform": b"correct horse battery staple"}
        self.rings: dict[str, StoredRing] = {}
        self.replaced: dict[str, list[bytes]] = {}
        self.saves = 0
        self.away = False

    def reach(self) -> None:
        """Raise `ServiceUnavailable` while the service is away."""
        if self.away:
            raise ServiceUnavailable("the service does not answer")


SERVICES: dict[str, Service] = {}
"""By address."""


def create(settings: ServiceSettings, host: Host) -> list[object]:
    """Make all parts."""
    service = SERVICES.setdefault(settings.address, Service())
    if settings.fault == "connects at once":
        service.reach()
    return [
        Keys(service, settings.fault, host),
        Secrets(service, settings.fault),
        Rings(service, settings.fault),
    ]


def _each(fault: str, requests: tuple[_R, ...], single: Callable[[_R], _T]) -> list[_T | KMSError]:
    """Do for each request what the single hook does, or make the mistake."""
    ends: list[_T | KMSError] = []
    for request in requests:
        try:
            ends.append(single(request))
        except (DecryptionFailed, MalformedInput, SecretNotFound) as error:
            if fault == "batch fails for one":
                raise
            if fault != "batch drops a failed one":
                ends.append(error)
    if fault == "batch out of order":
        ends.reverse()
    if fault == "first of a batch":
        ends = ends[:1] * len(ends)
    return ends


class Keys(KeyHooks, BatchKeyHooks, PartHooks):
    def __init__(self, service: Service, fault: str, host: Host) -> None:
        self._service = service
        self._fault = fault
        self._logger = host.logger
        self._pid = host.state.setdefault("pid", os.getpid())

    @hookimpl
    def wrap_key(
        self, key: str, material: KeyMaterial, context: WrapContext, timeout: float
    ) -> WrappedKey:
        raw = material.reveal()
        if self._fault == "key in a log":
            self._logger.debug("wrapping %s", base64.b64encode(raw).decode("ascii"))
        if self._fault == "key printed":
            print(raw.hex())  # noqa: T201
        if self._fault == "key in an error" and key not in self._service.keys:
            raise KeyNotFound(f"no KEK '{key}' for {raw.hex()}")
        cipher = self._cipher(key)
        if self._fault == "pads":
            raw = raw.ljust(32, b"\x00")
        elif len(raw) != 32:
            raise MalformedInput("a tenant key has 32 bytes")
        nonce = bytes(12) if self._fault == "one nonce" else os.urandom(12)
        sealed = cipher.encrypt(nonce, raw, self._bound(context))
        return WrappedKey(nonce + sealed, f"service/{key}", "1")

    @hookimpl
    def unwrap_key(
        self, key: str, wrapped: WrappedKey, context: WrapContext, timeout: float
    ) -> KeyMaterial:
        if self._fault == "trusts the record":
            key = wrapped.key_id.removeprefix("service/")
        cipher = self._cipher(key)
        blob = wrapped.ciphertext
        if self._fault == "passes over the end":
            blob = blob[:60]
        try:
            return KeyMaterial(cipher.decrypt(blob[:12], blob[12:], self._bound(context)))
        except (InvalidTag, ValueError):
            if self._fault == "tampering is a foreign error":
                raise
            raise DecryptionFailed("the service did not unwrap it") from None

    @hookimpl
    def wrap_keys(
        self, key: str, requests: tuple[WrapRequest, ...], timeout: float
    ) -> list[WrappedKey | KMSError]:
        self._cipher(key)
        if self._fault == "key of a batch in a log":
            self._logger.debug("wrapping %s", [each.material.reveal() for each in requests])
        first = requests[0].context
        return _each(
            self._fault,
            requests,
            lambda each: self.wrap_key(
                key,
                each.material,
                first if self._fault == "batch binds one context" else each.context,
                timeout,
            ),
        )

    @hookimpl
    def unwrap_keys(
        self, key: str, requests: tuple[UnwrapRequest, ...], timeout: float
    ) -> list[KeyMaterial | KMSError]:
        self._cipher(key)
        first = requests[0].context
        return _each(
            self._fault,
            requests,
            lambda each: self.unwrap_key(
                key,
                each.wrapped,
                first if self._fault == "batch binds one context" else each.context,
                timeout,
            ),
        )

    @hookimpl
    def describe_key(self, key: str, timeout: float) -> KeyDescription:
        self._cipher(key)
        version = "2" if self._fault == "describes another version" else "1"
        return KeyDescription(f"service/{key}", version)

    @hookimpl
    def check(self, timeout: float) -> list[Finding]:
        self._service.reach()
        return [Finding("ok", name, "is there") for name in self._service.keys]

    def _bound(self, context: WrapContext) -> bytes:
        if self._fault == "drops the context":
            return b""
        return context.canonical

    def _cipher(self, key: str) -> AESGCM:
        self._service.reach()
        if self._fault == "keeps its connection" and os.getpid() != self._pid:
            raise ServiceUnavailable("the connection was lost")
        if key not in self._service.keys:
            if self._fault == "wrong error for an unknown key":
                raise ServiceUnavailable("the service answered 404")
            if self._fault == "foreign error for an unknown key":
                return AESGCM(self._service.keys[key])
            raise KeyNotFound(f"the service has no KEK '{key}'")
        if key in self._service.disabled and self._fault != "uses a disabled key":
            raise KeyUnavailable(f"the KEK '{key}' is disabled")
        return AESGCM(self._service.keys[key])


class Secrets(SecretHooks, BatchSecretHooks, PartHooks):
    def __init__(self, service: Service, fault: str) -> None:
        self._service = service
        self._fault = fault
        self._kept: dict[str, bytes] = {}

    @hookimpl
    def fetch_secret(self, request: SecretRequest, timeout: float) -> SecretValue:
        reference = request.reference
        self._service.reach()
        if self._fault != "passes over options" and (reference.options or reference.field):
            raise MalformedInput(f"{reference}: no options and no field here")
        found = self._service.secrets.get(reference.path)
        if found is None:
            if self._fault == "empty for a missing secret":
                return SecretValue(KeyMaterial(b""))
            raise SecretNotFound(f"there is no secret {reference.path}")
        if self._fault == "keeps secrets":
            found = self._kept.setdefault(reference.path, found)
        return SecretValue(KeyMaterial(found))

    @hookimpl
    def fetch_secrets(
        self, requests: tuple[SecretRequest, ...], timeout: float
    ) -> list[SecretValue | KMSError]:
        ends = _each(self._fault, requests, lambda each: self.fetch_secret(each, timeout))
        if self._fault == "keeps secrets of a batch":
            for request, end in zip(requests, ends, strict=True):
                if isinstance(end, SecretValue):
                    self._kept.setdefault(request.reference.path, end.data.reveal())
            kept = [self._kept.get(each.reference.path) for each in requests]
            return [
                end if data is None else SecretValue(KeyMaterial(data))
                for data, end in zip(kept, ends, strict=True)
            ]
        return ends

    @hookimpl
    def close(self) -> None:
        if self._fault == "closes for all":
            self._service.secrets.clear()


class Rings(RingHooks, RingHistoryHooks, PartHooks):
    def __init__(self, service: Service, fault: str) -> None:
        self._service = service
        self._fault = fault
        self._kept: dict[str, StoredRing] = {}

    @hookimpl
    def load_ring(self, tenant: str, timeout: float) -> StoredRing:
        found = self._find(tenant)
        if found is None:
            raise TenantNotFound(f"tenant '{tenant}' has no ring")
        if self._fault == "stale ring":
            return self._kept.setdefault(tenant, found)
        return found

    @hookimpl
    def save_ring(self, tenant: str, document: bytes, expected: str | None, timeout: float) -> str:
        with self._service.lock:
            if self._fault != "ignores the revision":
                self._expect(tenant, expected)
            self._service.saves += 1
            revision = str(self._service.saves)
            self._replace(tenant)
            if self._fault == "text documents":
                document = document.decode("utf-8", "replace").encode()
            self._service.rings[self._name(tenant)] = StoredRing(document, revision)
        return revision

    @hookimpl
    def delete_ring(self, tenant: str, expected: str, timeout: float) -> None:
        with self._service.lock:
            if self._fault != "deletes whatever is there":
                self._expect(tenant, expected)
            self._replace(tenant)
            self._service.rings.pop(self._name(tenant), None)

    @hookimpl
    def purge_ring_history(self, tenant: str, timeout: float) -> list[Remainder]:
        self._service.reach()
        with self._service.lock:
            if self._fault == "purges nothing":
                return []
            if self._fault == "purges what is live":
                self._service.rings.pop(tenant, None)
            if self._fault == "purges everybody":
                self._service.replaced.clear()
            self._service.replaced.pop(tenant, None)
        return []

    @hookimpl
    def list_rings(self, cursor: str | None, limit: int, timeout: float) -> RingPage:
        self._service.reach()
        found = sorted(name for name in self._service.rings if cursor is None or name > cursor)
        if self._fault == "first page only":
            return RingPage(tuple(found[: min(limit, 100)]), None)
        page = tuple(found[:limit])
        return RingPage(page, page[-1] if len(found) > limit else None)

    def _replace(self, tenant: str) -> None:
        found = self._service.rings.get(self._name(tenant))
        if found is not None:
            self._service.replaced.setdefault(tenant, []).append(found.document)

    def _name(self, tenant: str) -> str:
        return tenant.lower() if self._fault == "folds case" else tenant

    def _find(self, tenant: str) -> StoredRing | None:
        self._service.reach()
        return self._service.rings.get(self._name(tenant))

    def _expect(self, tenant: str, expected: str | None) -> None:
        found = self._find(tenant)
        if (found.revision if found else None) != expected:
            if found is None:
                raise TenantNotFound(f"tenant '{tenant}' has no ring any more")
            raise Conflict(f"the ring of '{tenant}' was saved by somebody else")
