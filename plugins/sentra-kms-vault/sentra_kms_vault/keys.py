"""KEKs of a transit engine."""

from __future__ import annotations

import base64

from hvac.api.secrets_engines import Transit

from sentra_kms import KeyMaterial, KeyNotFound
from sentra_kms.context import WrapContext
from sentra_kms.hookspecs import KeyHooks, PartHooks, hookimpl
from sentra_kms.hooktypes import KeyDescription, WrappedKey
from sentra_kms_vault.failures import ask
from sentra_kms_vault.vault import Vault


class Keys(KeyHooks, PartHooks):
    """AEAD keys of transit, the wrap context as associated data."""

    def __init__(self, vault: Vault, mount: str) -> None:
        self._vault = vault
        self._mount = mount

    @hookimpl
    def wrap_key(
        self, key: str, material: KeyMaterial, context: WrapContext, timeout: float
    ) -> WrappedKey:
        """Encrypt under the newest version."""
        answer = ask(
            f"to wrap under '{self._vault.name}:{key}'",
            lambda: Transit(self._vault.call(timeout)).encrypt_data(
                key,
                plaintext=base64.b64encode(material.reveal()).decode("ascii"),
                associated_data=base64.b64encode(context.canonical).decode("ascii"),
                mount_point=self._mount,
            ),
            missing=KeyNotFound,
        )
        return WrappedKey(answer["data"]["ciphertext"].encode("ascii"), key, "1")

    @hookimpl
    def unwrap_key(
        self, key: str, wrapped: WrappedKey, context: WrapContext, timeout: float
    ) -> KeyMaterial:
        """Decrypt."""
        answer = ask(
            f"to unwrap under '{self._vault.name}:{key}'",
            lambda: Transit(self._vault.call(timeout)).decrypt_data(
                key,
                ciphertext=wrapped.ciphertext.decode("ascii"),
                associated_data=base64.b64encode(context.canonical).decode("ascii"),
                mount_point=self._mount,
            ),
            missing=KeyNotFound,
        )
        return KeyMaterial(base64.b64decode(answer["data"]["plaintext"]))

    @hookimpl
    def describe_key(self, key: str, timeout: float) -> KeyDescription:
        """Read the key."""
        raise KeyNotFound(key)
