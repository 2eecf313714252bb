"""The peers: each as an object that seals and opens for one key, called alike.

Peers that are not installed, or fail to start, are told by name and reason and not left out in
silence. None is typed, and none is needed by anything but this.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from cryptography.fernet import Fernet
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

Pair = tuple[Callable[[bytes, bytes], object], Callable[[Any, bytes], object]]
"""Seal (plaintext, associated data) and open (what seal gave, associated data)."""

DISTRIBUTIONS = ("tink", "aws-encryption-sdk", "ironcore-alloy")


class Limit:
    """One prebuilt `AESGCM` with a random nonce: what any of these must at least do."""

    def __init__(self) -> None:
        self._cipher = AESGCM(os.urandom(32))

    def seal(self, plaintext: bytes, associated: bytes) -> bytes:
        """Nonce and ciphertext."""
        nonce = os.urandom(12)
        return nonce + self._cipher.encrypt(nonce, plaintext, associated)

    def open(self, message: bytes, associated: bytes) -> bytes:
        """Undo it."""
        return self._cipher.decrypt(message[:12], message[12:], associated)


class ByTenant:
    """A primitive of each tenant, found in a dict: the least that serves many tenants."""

    def __init__(self, primitive: object) -> None:
        self._primitives: dict[str, Any] = {"acme": primitive}

    def seal(self, plaintext: bytes, associated: bytes) -> object:
        """Look the tenant up, and encrypt."""
        return self._primitives["acme"].encrypt(plaintext, associated)

    def open(self, message: bytes, associated: bytes) -> object:
        """Look the tenant up, and decrypt."""
        return self._primitives["acme"].decrypt(message, associated)


def versions() -> dict[str, str]:
    """Return the installed version of each peer's distribution, or that it is missing."""
    found = {}
    for name in DISTRIBUTIONS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "missing"
    return found


def peers() -> tuple[dict[str, Pair], dict[str, str]]:
    """Return the peers that run here by name, and why the others do not."""
    makers: Mapping[str, Callable[[], Pair]] = {
        "tink AES256-GCM": _tink,
        "tink, tenant dict": _tink_by_tenant,
        "tink KmsEnvelopeAead": _tink_envelope,
        "Fernet": _fernet,
        "aws-encryption-sdk, raw": _aws,
        "aws-encryption-sdk, cache": _aws_caching,
        "ironcore-alloy": _alloy,
    }
    found: dict[str, Pair] = {}
    missing: dict[str, str] = {}
    for name, make in makers.items():
        try:
            seal, open_ = make()
            if bytes(open_(seal(b"probe", b"associated"), b"associated")) != b"probe":  # type: ignore[call-overload]
                missing[name] = "does not give back what it was given"
                continue
        except Exception as error:  # noqa: BLE001 - whatever is wrong with a peer is told
            missing[name] = f"{type(error).__name__}: {error}".splitlines()[0][:90]
        else:
            found[name] = (seal, open_)
    return found, missing


def _tink_primitive() -> Any:  # noqa: ANN401 - untyped peers
    tink, aead = import_module("tink"), import_module("tink.aead")
    aead.register()
    handle = tink.new_keyset_handle(aead.aead_key_templates.AES256_GCM)
    return handle.primitive(aead.Aead)


def _tink() -> Pair:
    primitive = _tink_primitive()
    return primitive.encrypt, primitive.decrypt


def _tink_by_tenant() -> Pair:
    held = ByTenant(_tink_primitive())
    return held.seal, held.open


def _tink_envelope() -> Pair:
    aead = import_module("tink.aead")
    envelope = aead.KmsEnvelopeAead(aead.aead_key_templates.AES256_GCM, _tink_primitive())
    return envelope.encrypt, envelope.decrypt


def _fernet() -> Pair:
    fernet = Fernet(Fernet.generate_key())  # it has no associated data
    return (lambda plaintext, _: fernet.encrypt(plaintext)), (
        lambda token, _: fernet.decrypt(token)
    )


def _aws_parts() -> tuple[Any, Any]:
    sdk = import_module("aws_encryption_sdk")
    identifiers = import_module("aws_encryption_sdk.identifiers")
    raw = import_module("aws_encryption_sdk.key_providers.raw")
    wrapping = import_module("aws_encryption_sdk.internal.crypto.wrapping_keys").WrappingKey(
        wrapping_algorithm=identifiers.WrappingAlgorithm.AES_256_GCM_IV12_TAG16_NO_PADDING,
        wrapping_key=os.urandom(32),
        wrapping_key_type=identifiers.EncryptionKeyType.SYMMETRIC,
    )

    def raw_key(self: object, key_id: object) -> object:
        return wrapping

    kind = type(
        "Local",
        (raw.RawMasterKeyProvider,),
        {"provider_id": "bench", "_get_raw_key": raw_key},
    )
    provider = kind()
    provider.add_master_key("local")
    return sdk, provider


def _aws_pair(sdk: Any, **source: object) -> Pair:  # noqa: ANN401
    client = sdk.EncryptionSDKClient()
    # Committing, as ours is, and without a signature, which none of the others makes.
    suite = import_module("aws_encryption_sdk.identifiers").Algorithm
    algorithm = suite.AES_256_GCM_HKDF_SHA512_COMMIT_KEY

    def seal(plaintext: bytes, associated: bytes) -> bytes:
        context = {"context": associated.hex()}
        sealed, _ = client.encrypt(
            source=plaintext, encryption_context=context, algorithm=algorithm, **source
        )
        return bytes(sealed)

    def open_(message: bytes, associated: bytes) -> bytes:
        return bytes(client.decrypt(source=message, **source)[0])

    return seal, open_


def _aws() -> Pair:
    sdk, provider = _aws_parts()
    return _aws_pair(sdk, key_provider=provider)


def _aws_caching() -> Pair:
    sdk, provider = _aws_parts()
    manager = sdk.CachingCryptoMaterialsManager(
        cache=sdk.LocalCryptoMaterialsCache(100),
        master_key_provider=provider,
        max_age=600.0,
        max_messages_encrypted=2**16,
    )
    return _aws_pair(sdk, materials_manager=manager)


def _alloy() -> Pair:
    alloy = import_module("ironcore_alloy")
    secret = alloy.StandaloneSecret(1, alloy.Secret(os.urandom(32)))
    standard = alloy.StandardSecrets(1, [secret])
    rotatable = alloy.RotatableSecret(secret, None)
    deterministic = {"": rotatable}
    vectors = {"": alloy.VectorSecret(1.0, rotatable)}
    client = alloy.Standalone(alloy.StandaloneConfiguration(standard, deterministic, vectors))
    metadata = alloy.AlloyMetadata.new_simple("acme")
    loop = asyncio.new_event_loop()

    def seal(plaintext: bytes, associated: bytes) -> object:
        return loop.run_until_complete(client.standard().encrypt({"field": plaintext}, metadata))

    def open_(message: object, associated: bytes) -> bytes:
        opened = loop.run_until_complete(client.standard().decrypt(message, metadata))
        return bytes(opened["field"])

    return seal, open_
