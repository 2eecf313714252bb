"""The kit over a real server, all of it in one class: KEKs, secrets and rings of one backend."""

# ruff: noqa: D102 - what is overridden says it

from __future__ import annotations

import base64
import json
import uuid
from collections.abc import Mapping, Sequence
from typing import ClassVar

import pytest

from sentra_kms.reference import Reference
from sentra_kms.testing import BackendConformance, BackendHarness, SecretSample
from sentra_kms.testing.faults import BlackHole, CutAfterRequest, Garbage
from sentra_kms.testing.proxy import FaultProxy
from tests.servers.vault_server import Vault

pytestmark = pytest.mark.server

_FIELDS = {"value": "correct horse battery staple", "other": "a planted neighbour"}


def _answer(status: str, body: object) -> Garbage:
    data = json.dumps(body).encode()
    return Garbage(f"HTTP/1.1 {status}\r\nContent-Length: {len(data)}\r\n\r\n".encode() + data)


class VaultHarness(BackendHarness):
    """An engine of each kind, a policy and a token of each check's own, behind a proxy."""

    type = "vault"
    absent: ClassVar[Mapping[str, str]] = {
        "binary_secret": "KV holds JSON, and so no bytes",
        "disable_key": "a key of Transit has no such state",
        "schedule_key": "a key of Transit has no such state",
    }
    largest_secret = 256 * 1024
    server: ClassVar[Vault]

    def open(self) -> None:
        own = f"joint-{uuid.uuid4().hex[:12]}"
        self._transit, self._kv = f"{own}-transit", f"{own}-kv"
        self._policy = own
        self.server.write(f"sys/mounts/{self._transit}", type="transit")
        self.server.write(f"sys/mounts/{self._kv}", type="kv", options={"version": "2"})
        self.server.wait_until(lambda: self.server.write(f"{self._kv}/config", cas_required=False))
        for key in ("tenants", "others"):
            self.server.write(f"{self._transit}/keys/{key}", type="aes256-gcm96")
        self._write(_FIELDS)
        self.server.policy(
            own,
            f"""
            path "{self._transit}/keys/+" {{ capabilities = ["read"] }}
            path "{self._transit}/encrypt/+" {{ capabilities = ["update"] }}
            path "{self._transit}/decrypt/+" {{ capabilities = ["update"] }}
            path "{self._kv}/data/rings/*" {{ capabilities = ["create", "update", "read"] }}
            path "{self._kv}/metadata/rings/*" {{ capabilities = ["read", "list"] }}
            path "{self._kv}/destroy/rings/*" {{ capabilities = ["update"] }}
            path "{self._kv}/config" {{ capabilities = ["read"] }}
            path "{self._kv}/data/app/*" {{ capabilities = ["read"] }}
            """,
        )
        self.patch.setenv("KIT_TOKEN", self.server.new_token(own))
        self.proxy = FaultProxy("127.0.0.1", self.server.port)

    def close(self) -> None:
        self.proxy.close()
        for mount in (self._transit, self._kv):
            self.server.delete(f"sys/mounts/{mount}")

    def settings(self) -> Mapping[str, object]:
        return {
            "address": self.proxy.url,
            "auth": {"method": "token", "token": "env://KIT_TOKEN"},
            "timeout": "60s",  # so that a busy machine is no fault
            "transit": self._transit,
            "mounts": {self._kv: "kv-v2"},
            "rings": {"mount": self._kv, "prefix": "rings"},
        }

    def kek(self) -> str:
        return "tenants"

    def second_kek(self) -> str:
        return "others"

    def delete_key(self, key: str) -> None:
        self.server.write(f"{self._transit}/keys/{key}/config", deletion_allowed=True)
        self.server.delete(f"{self._transit}/keys/{key}")

    def rotate_key(self, key: str) -> None:
        self.server.write(f"{self._transit}/keys/{key}/rotate")

    def answer_unwrap(self, data: bytes) -> None:
        item = {"plaintext": base64.b64encode(data).decode(), "reference": ""}
        self.proxy.always(_answer("200 OK", {"data": {"batch_results": [item]}}))

    def secret(self) -> SecretSample:
        return SecretSample(self._reference("value"), _FIELDS["value"].encode())

    def field_secret(self) -> SecretSample:
        return SecretSample(self._reference("other"), _FIELDS["other"].encode())

    def missing_secret(self) -> str:
        return f"vault://{self._kv}/app/nothing"

    def secret_version(self, reference: str) -> str:
        version = self.server.read(f"{self._kv}/data/app/own")["data"]["metadata"]["version"]
        return reference.replace("#", f"?version={version}#")

    def change_secret(self, reference: str, data: bytes) -> None:
        self._write({**_FIELDS, Reference(reference).field or "": data.decode("ascii")})

    def delete_secret(self, reference: str) -> None:
        self.server.delete(f"{self._kv}/data/app/own")

    def ring_history(self, tenant: str) -> set[bytes]:
        known = self.server.read(f"{self._kv}/metadata/rings/{tenant}")["data"]["versions"]
        found: set[bytes] = set()
        for number, fate in known.items():
            if not fate["destroyed"]:
                path = f"{self._kv}/data/rings/{tenant}?version={number}"
                document = self.server.read(path)["data"]["data"].get("document")
                found |= {base64.b64decode(each) for each in [document] if each}
        return found

    def lose_answer(self) -> None:
        # What comes before the write depends on what was asked before: here as in test_rings.py.
        cut = CutAfterRequest()
        self.proxy.script(*([cut, None, None, cut] if self.proxy.requests() else [None, cut]))

    def deny(self) -> None:
        self.server.policy(self._policy, 'path "nothing/at-all" { capabilities = ["read"] }')

    def throttle(self) -> None:
        self.proxy.always(
            _answer("429 Too Many Requests", {"errors": ["request path: rate limit quota"]})
        )

    def answer_unknown(self) -> None:
        self.proxy.always(_answer("418 I'm a teapot", {"errors": ["something new"]}))

    def stall(self) -> None:
        self.proxy.always(BlackHole())

    def cut(self) -> None:
        self.proxy.cut()

    def requests(self) -> Sequence[object]:
        return self.proxy.requests()

    def _reference(self, field: str) -> str:
        return f"vault://{self._kv}/app/own#{field}"

    def _write(self, fields: Mapping[str, str]) -> None:
        self.server.write(f"{self._kv}/data/app/own", data=dict(fields))


class TestVault(BackendConformance):
    harness = VaultHarness

    @pytest.fixture(autouse=True)
    def _server(self, vault: Vault) -> None:
        VaultHarness.server = vault
