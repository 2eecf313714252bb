"""The kit over a real server: KEKs of other types than the usual one.

Keys of AES-256 are held to all of it, with secrets and rings beside them, elsewhere.
"""

from __future__ import annotations

import base64
import json
import uuid
from collections.abc import Mapping, Sequence
from typing import ClassVar

import pytest

from sentra_kms.testing import (
    BackendHarness,
    BatchKeyConformance,
    EndToEndConformance,
    KeyConformance,
)
from sentra_kms.testing.faults import Garbage
from sentra_kms.testing.proxy import FaultProxy
from tests.servers.vault_server import Vault

pytestmark = pytest.mark.server


class TransitHarness(BackendHarness):
    """A transit engine of each check's own, behind a proxy, used with a token of a narrow policy.

    Transit neither disables a key nor schedules its destruction.
    """

    type = "vault"
    server: ClassVar[Vault]
    key_type: ClassVar[str] = "aes256-gcm96"
    derived: ClassVar[bool] = False

    def open(self) -> None:
        """Mount an engine, and make two keys and a token that may use all of them."""
        self.mount = f"transit-{uuid.uuid4().hex[:12]}"
        self.server.write(f"sys/mounts/{self.mount}", type="transit")
        for key in ("tenants", "others"):
            self.server.write(f"{self.mount}/keys/{key}", type=self.key_type, derived=self.derived)
        self.server.policy(
            self.mount,
            f'path "{self.mount}/keys/+" {{ capabilities = ["read"] }}\n'
            f'path "{self.mount}/encrypt/+" {{ capabilities = ["update"] }}\n'
            f'path "{self.mount}/decrypt/+" {{ capabilities = ["update"] }}\n',
        )
        self.patch.setenv("KIT_VAULT_TOKEN", self.server.new_token(self.mount))
        self.proxy = FaultProxy("127.0.0.1", self.server.port)

    def close(self) -> None:
        """Take all of it away."""
        self.proxy.close()
        self.server.delete(f"sys/mounts/{self.mount}")

    def settings(self) -> Mapping[str, object]:
        """Use the engine through the proxy."""
        return {
            "address": self.proxy.url,
            "auth": {"method": "token", "token": "env://KIT_VAULT_TOKEN"},
            "timeout": "60s",  # so that a busy machine is no fault
            "transit": self.mount,
        }

    def kek(self) -> str:
        """Return one of the keys."""
        return "tenants"

    def second_kek(self) -> str:
        """Return the other one."""
        return "others"

    def delete_key(self, key: str) -> None:
        """Delete it for good."""
        self.server.write(f"{self.mount}/keys/{key}/config", deletion_allowed=True)
        self.server.delete(f"{self.mount}/keys/{key}")

    def rotate_key(self, key: str) -> None:
        """Rotate it."""
        self.server.write(f"{self.mount}/keys/{key}/rotate")

    def answer_unwrap(self, data: bytes) -> None:
        """Answer as Vault does, with these bytes."""
        item = {"plaintext": base64.b64encode(data).decode(), "reference": ""}
        body = json.dumps({"data": {"batch_results": [item]}}).encode()
        head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        self.proxy.always(Garbage(head + body))

    def deny(self) -> None:
        """Leave the policy with nothing in it."""
        self.server.policy(self.mount, 'path "nothing/at-all" { capabilities = ["read"] }')

    def cut(self) -> None:
        """Be unreachable."""
        self.proxy.cut()

    def requests(self) -> Sequence[object]:
        """Return what reached the proxy."""
        return self.proxy.requests()


class DerivedHarness(TransitHarness):
    """Keys that are derived anew for each context."""

    derived = True


class ChaChaHarness(TransitHarness):
    """Keys of the other cipher."""

    key_type = "chacha20-poly1305"


class _OnVault(KeyConformance, BatchKeyConformance, EndToEndConformance):
    @pytest.fixture(autouse=True)
    def _server(self, vault: Vault) -> None:
        TransitHarness.server = vault


class TestDerived(_OnVault):
    harness = DerivedHarness


class TestChaCha(_OnVault):
    harness = ChaChaHarness
