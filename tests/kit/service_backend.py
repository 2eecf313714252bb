"""A backend over a service in this process, right in every check, and wrong on request.

With the setting `fault` the backend makes one mistake.
"""

# ruff: noqa: D102 - what is overridden says it

from __future__ import annotations

import base64
import itertools
import os
import threading
import time
import warnings
from collections.abc import Sequence

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from sentra_kms.context import WrapContext
from sentra_kms.errors import (
    AccessDenied,
    DecryptionFailed,
    KeyNotFound,
    KeyUnavailable,
    KMSError,
    MalformedInput,
    PluginError,
    ServiceUnavailable,
)
from sentra_kms.hookspecs import (
    BatchKeyHooks,
    KeyHooks,
    PartHooks,
    hookimpl,
)
from sentra_kms.hooktypes import (
    BackendSettings,
    BackendType,
    Finding,
    Host,
    KeyDescription,
    UnwrapRequest,
    WrappedKey,
    WrapRequest,
)
from sentra_kms.material import KeyMaterial
from sentra_kms.reference import Reference
from tests.kit.service import SERVICES, Kek, Service
from tests.kit.service_stores import Rings, Secrets, each_end


class ServiceSettings(BackendSettings, frozen=True):
    """`address` tells one service from another."""

    address: str
    token: Reference
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


def create(settings: ServiceSettings, host: Host) -> list[object]:
    """Make all parts."""
    service = SERVICES.setdefault(settings.address, Service())
    if settings.fault in {"connects at once", "logs in at once"}:
        service.ask("log in", 1.0)
    return [
        Keys(service, settings, host),
        Secrets(service, settings.fault),
        Rings(service, settings.fault),
    ]


class Keys(KeyHooks, BatchKeyHooks, PartHooks):
    def __init__(self, service: Service, settings: ServiceSettings, host: Host) -> None:
        self._service = service
        self._fault = settings.fault
        self._host = host
        self._token = settings.token
        self._logger = host.logger
        self._pid = host.state.setdefault("pid", os.getpid())
        self._inside = threading.Lock()
        self._nonces = itertools.count()
        self._kept: dict[tuple[str, bytes], KeyMaterial] = {}
        self._described: dict[str, KeyDescription] = {}
        self._missing: KeyNotFound | None = None

    @hookimpl
    def wrap_key(
        self, key: str, material: KeyMaterial, context: WrapContext, timeout: float
    ) -> WrappedKey:
        raw = material.reveal()
        if self._fault == "key in a log":
            self._logger.debug("wrapping %s", base64.b64encode(raw).decode("ascii"))
        if self._fault == "half a key in a log":
            self._logger.debug("wrapping %s…", raw[:16].hex())
        if self._fault == "key in a warning":
            warnings.warn(f"wrapping {raw.hex(':')}", stacklevel=2)
        if self._fault == "key printed":
            print(raw.hex())  # noqa: T201
        if self._fault == "key in an error" and key not in self._service.keys:
            raise KeyNotFound(f"no KEK '{key}' for {raw.hex()}")
        version = len(self._kek(key, timeout).versions)
        if self._fault == "pads":
            raw = raw.ljust(32, b"\x00")
        elif len(raw) != 32:
            raise MalformedInput("a tenant key has 32 bytes")
        nonce = bytes(12) if self._fault == "one nonce" else os.urandom(12)
        if self._fault == "counts its nonces":
            nonce = next(self._nonces).to_bytes(12)
        cipher = AESGCM(self._kek(key, timeout).versions[-1])
        sealed = cipher.encrypt(nonce, raw, self._bound(context, version))
        told = 1 if self._fault == "keeps the version" else version
        return WrappedKey(version.to_bytes(1) + nonce + sealed, f"service/{key}", str(told))

    @hookimpl
    def unwrap_key(
        self, key: str, wrapped: WrappedKey, context: WrapContext, timeout: float
    ) -> KeyMaterial:
        if self._fault in {"keeps what it unwrapped", "keeps a place's key"}:
            return self._unwrap_once(key, wrapped, context, timeout)
        return self._unwrap(key, wrapped, context, timeout)

    def _unwrap_once(
        self, key: str, wrapped: WrappedKey, context: WrapContext, timeout: float
    ) -> KeyMaterial:
        known = b"" if self._fault == "keeps a place's key" else wrapped.ciphertext
        place = (key, known + context.canonical)
        if place not in self._kept:
            self._kept[place] = self._unwrap(key, wrapped, context, timeout)
        return self._kept[place]

    def _unwrap(
        self, key: str, wrapped: WrappedKey, context: WrapContext, timeout: float
    ) -> KeyMaterial:
        if self._fault == "trusts the record":
            key = wrapped.key_id.removeprefix("service/")
        versions = self._kek(key, timeout).versions
        if self._fault == "answers None":
            return None  # type: ignore[return-value]
        if self._service.answers is not None:
            answer = self._service.answers
            return KeyMaterial(answer.ljust(32)[:32] if self._fault == "cuts to fit" else answer)
        version, blob = wrapped.ciphertext[:1], wrapped.ciphertext[1:]
        if self._fault == "passes over the end":
            blob = blob[:60]
        if self._fault == "forgets versions":
            version = len(versions).to_bytes(1)
        number = int.from_bytes(version)
        if not 1 <= number <= len(versions):
            raise DecryptionFailed("the service has no such version")
        try:
            bound = self._bound(context, number)
            return KeyMaterial(AESGCM(versions[number - 1]).decrypt(blob[:12], blob[12:], bound))
        except (InvalidTag, ValueError):
            if self._fault == "tampering is a foreign error":
                raise
            raise DecryptionFailed("the service did not unwrap it") from None

    @hookimpl
    def wrap_keys(
        self, key: str, requests: tuple[WrapRequest, ...], timeout: float
    ) -> list[WrappedKey | KMSError]:
        self._kek_of_batch(key, timeout)
        if self._fault == "key of a batch in a log":
            self._logger.debug("wrapping %s", [each.material.reveal() for each in requests])
        return each_end(
            self._fault,
            requests,
            lambda each: self.wrap_key(
                key, each.material, self._of_batch(requests, each.context), timeout
            ),
        )

    @hookimpl
    def unwrap_keys(
        self, key: str, requests: tuple[UnwrapRequest, ...], timeout: float
    ) -> list[KeyMaterial | KMSError]:
        kek = self._kek_of_batch(key, timeout)
        if self._fault == "batch forgets versions":
            newest = len(kek.versions).to_bytes(1)
            requests = tuple(
                UnwrapRequest(
                    msgspec.structs.replace(
                        each.wrapped, ciphertext=newest + each.wrapped.ciphertext[1:]
                    ),
                    each.context,
                )
                for each in requests
            )
        state = kek.state
        if self._fault == "batch uses a disabled key":
            kek.state = "enabled"
        try:
            return each_end(
                self._fault,
                requests,
                lambda each: self.unwrap_key(
                    key, each.wrapped, self._of_batch(requests, each.context), timeout
                ),
            )
        finally:
            if self._fault == "batch uses a disabled key":
                kek.state = state

    def _kek_of_batch(self, key: str, timeout: float) -> Kek:
        if self._fault == "batch uses a disabled key":
            self._service.ask("use a KEK", timeout)
            return self._service.keys.get(key) or self._kek(key, timeout)
        try:
            return self._kek(key, timeout)
        except PluginError:
            if self._fault != "an unknown code of a batch is an outage":
                raise
            raise ServiceUnavailable("the service answered Teapot") from None

    def _of_batch(
        self, requests: Sequence[WrapRequest | UnwrapRequest], context: WrapContext
    ) -> WrapContext:
        if self._fault == "batch binds one context":
            return requests[0].context
        if self._fault == "batch binds one context a tenant":
            return next(each.context for each in requests if each.context.tenant == context.tenant)
        return context

    @hookimpl
    def describe_key(self, key: str, timeout: float) -> KeyDescription:
        if self._fault == "keeps descriptions" and key in self._described:
            return self._described[key]
        if self._fault == "describes what is disabled" and key in self._service.keys:
            self._service.ask("describe a KEK", timeout)
            return KeyDescription(f"service/{key}", str(len(self._service.keys[key].versions)))
        version = len(self._kek(key, timeout).versions)
        if self._fault == "describes another version":
            version += 1
        if self._fault == "keeps descriptions":
            self._described[key] = KeyDescription(f"service/{key}", str(version))
        return KeyDescription(f"service/{key}", str(version))

    @hookimpl
    def check(self, timeout: float) -> list[Finding]:
        if self._fault == "check blocks for ever" and self._service.trouble == "stalls":
            self._service.mended.wait()
        if self._fault != "check asks nobody":
            self._service.ask("check", timeout, self._fault)
        return [Finding("ok", name, "is there") for name in self._service.keys]

    def _named(self, key: str) -> str:
        if self._fault == "folds the case of keys":
            return key.lower()
        if self._fault == "takes a key by its first letters":
            return next((name for name in self._service.keys if key.startswith(name)), key)
        return key

    def _bound(self, context: WrapContext, version: int) -> bytes:
        if self._fault == "drops the context":
            return b""
        if self._fault == "drops the context after a rotation" and version > 1:
            return b""
        return context.canonical

    def _kek(self, key: str, timeout: float) -> Kek:
        if self._fault == "not for threads" and not self._inside.acquire(blocking=False):
            raise RuntimeError("used by two threads at once")
        token = self._host.secret(self._token).reveal().decode("ascii")
        if self._fault == "token in a log":
            self._logger.debug("logging in: Bearer %s", token)
        try:
            self._service.ask("use a KEK", timeout, self._fault)
            time.sleep(0)  # let another thread in
        except AccessDenied:
            if self._fault == "token in an error":
                raise AccessDenied(f"the service does not accept {token}") from None
            raise
        finally:
            if self._fault == "not for threads":
                self._inside.release()
        if self._fault == "keeps its connection" and os.getpid() != self._pid:
            raise ServiceUnavailable("the connection was lost")
        found = self._service.keys.get(self._named(key))
        if found is None and self._fault == "keeps an error":
            self._missing = self._missing or KeyNotFound(f"the service has no KEK '{key}'")
            raise KeyNotFound(self._missing.message)
        if found is None:
            if self._fault == "wrong error for an unknown key":
                raise ServiceUnavailable("the service answered 404")
            if self._fault == "foreign error for an unknown key":
                return self._service.keys[key]
            raise KeyNotFound(f"the service has no KEK '{key}'")
        if found.state != "enabled" and self._fault != f"uses a {found.state} key":
            raise KeyUnavailable(
                f"the KEK '{key}' is {found.state}",
                retryable=True if self._fault == "retries what is disabled" else None,
            )
        return found
