"""A backend that only wraps and unwraps: as little as there can be. Run by `test_joining`."""

# ruff: noqa: D102, D103 - what is implemented says it

from __future__ import annotations

import os

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from sentra_kms import DecryptionFailed, KeyMaterial, KeyNotFound, MalformedInput
from sentra_kms.context import WrapContext
from sentra_kms.hookspecs import KeyHooks, hookimpl
from sentra_kms.hooktypes import BackendSettings, BackendType, Host, KeyDescription, WrappedKey
from sentra_kms.testing import (
    BackendHarness,
    EndToEndConformance,
    KeyConformance,
    WholeConformance,
)

KEKS = {"one": AESGCM(b"\x01" * 32), "two": AESGCM(b"\x02" * 32)}


@hookimpl
def backend_type() -> BackendType:
    return BackendType(
        api=(1, 0), settings=BackendSettings, create=f"{__name__}:create", summary="two KEKs"
    )


def create(settings: BackendSettings, host: Host) -> object:
    return Keys()


class Keys(KeyHooks):
    @hookimpl
    def wrap_key(
        self, key: str, material: KeyMaterial, context: WrapContext, timeout: float
    ) -> WrappedKey:
        if len(material.reveal()) != 32:
            raise MalformedInput("a tenant key has 32 bytes")
        nonce = os.urandom(12)
        sealed = _kek(key).encrypt(nonce, material.reveal(), context.canonical)
        return WrappedKey(nonce + sealed, key, None)

    @hookimpl
    def unwrap_key(
        self, key: str, wrapped: WrappedKey, context: WrapContext, timeout: float
    ) -> KeyMaterial:
        nonce, sealed = wrapped.ciphertext[:12], wrapped.ciphertext[12:]
        try:
            return KeyMaterial(_kek(key).decrypt(nonce, sealed, context.canonical))
        except (InvalidTag, ValueError):
            raise DecryptionFailed(f"'{key}' cannot unwrap the tenant key") from None

    @hookimpl
    def describe_key(self, key: str, timeout: float) -> KeyDescription:
        _kek(key)
        return KeyDescription(key, None)


def _kek(key: str) -> AESGCM:
    if key not in KEKS:
        raise KeyNotFound(f"there is no KEK '{key}'")
    return KEKS[key]


class Harness(BackendHarness):
    type = "small"

    def kek(self) -> str:
        return "one"


class TestSmall(KeyConformance, WholeConformance, EndToEndConformance):
    harness = Harness
