"""Secrets of KV pass the kit on a real server, with every ability that KV has."""

# ruff: noqa: D102 - what is overridden says it

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar

import pytest
from sentra_kms_vault.secrets import Secrets
from sentra_kms_vault.settings import VaultSettings
from sentra_kms_vault.vault import Vault as Shared

from sentra_kms.hooktypes import Host
from sentra_kms.reference import Reference
from sentra_kms.testing import BackendHarness, SecretConformance, SecretSample, WholeConformance
from sentra_kms.testing.faults import BlackHole, Garbage
from sentra_kms.testing.proxy import FaultProxy
from tests.servers.vault_server import Vault

pytestmark = pytest.mark.server

_NUMBERS = itertools.count()
_TOO_MANY = b'{"errors":["rate limit quota exceeded"]}'
_REFUSAL = (
    b"HTTP/1.1 429 Too Many Requests\r\nContent-Type: application/json\r\nRetry-After: 1\r\n"
    b"Content-Length: %d\r\n\r\n%s" % (len(_TOO_MANY), _TOO_MANY)
)
_FIELDS = {"value": "correct horse battery staple", "other": "a planted neighbour"}


class KvHarness(BackendHarness):
    """The secrets part alone, behind a proxy, with a token and a path of this check's own.

    KV holds JSON, so that it cannot hold what is no text: there is no `binary_secret`.
    """

    type = "vault"
    largest_secret = 256 * 1024
    server: ClassVar[Vault]
    engine = "kv-v2"
    mount = "secret"

    def open(self) -> None:
        self._place = f"kit/{next(_NUMBERS)}"
        self._policy = f"kit-{self.engine}-{next(_NUMBERS)}"
        self._proxy = FaultProxy("127.0.0.1", self.server.port)
        self._made: list[Shared] = []
        self._grant(f'path "{self.mount}/*" {{ capabilities = ["read"] }}')
        self.patch.setenv("KIT_TOKEN", self.server.new_token(self._policy))
        self.patch.setattr("sentra_kms_vault.backend.create", self._create)
        self._write(_FIELDS)

    def close(self) -> None:
        for shared in self._made:
            shared.close()
        self._proxy.close()

    def settings(self) -> Mapping[str, object]:
        return {
            "address": self._proxy.url,
            "auth": {"method": "token", "token": "env://KIT_TOKEN"},
            "timeout": "60s",  # so that a busy machine is no fault
            "mounts": {self.mount: self.engine},
        }

    def secret(self) -> SecretSample:
        return SecretSample(self._reference("value"), _FIELDS["value"].encode())

    def field_secret(self) -> SecretSample:
        return SecretSample(self._reference("other"), _FIELDS["other"].encode())

    def missing_secret(self) -> str:
        return f"vault://{self.mount}/{self._place}/nothing"

    def change_secret(self, reference: str, data: bytes) -> None:
        self._write({**_FIELDS, Reference(reference).field or "": data.decode("ascii")})

    def delete_secret(self, reference: str) -> None:
        self.server.delete(self._path())

    def deny(self) -> None:
        self._grant('path "sys/nothing" { capabilities = ["read"] }')

    def throttle(self) -> None:
        self._proxy.always(Garbage(_REFUSAL))

    def stall(self) -> None:
        self._proxy.always(BlackHole())

    def cut(self) -> None:
        self._proxy.cut()

    def requests(self) -> Sequence[object]:
        return self._proxy.requests()

    def _grant(self, text: str) -> None:
        self.server.policy(self._policy, text)

    def _create(self, settings: VaultSettings, host: Host) -> list[object]:
        """Make one part; the others have harnesses of their own."""
        shared = Shared(settings, host)
        self._made.append(shared)
        return [Secrets(shared, settings.mounts)]

    def _reference(self, field: str) -> str:
        return f"vault://{self.mount}/{self._place}#{field}"

    def _path(self) -> str:
        return f"{self.mount}/{self._place}"

    def _write(self, fields: Mapping[str, str]) -> None:
        self.server.write(self._path(), **fields)


class KvV2Harness(KvHarness):
    def secret_version(self, reference: str) -> str:
        version = self.server.read(self._path())["data"]["metadata"]["version"]
        return reference.replace("#", f"?version={version}#")

    def _path(self) -> str:
        return f"{self.mount}/data/{self._place}"

    def _write(self, fields: Mapping[str, str]) -> None:
        self.server.write(self._path(), data=dict(fields))


class KvV1Harness(KvHarness):
    engine = "kv-v1"
    mount = "kit-kv1"


class WholeHarness(KvV2Harness):
    """A document with all its fields, as the core asks for it."""

    def secret(self) -> SecretSample:
        document = json.dumps(_FIELDS, sort_keys=True, separators=(",", ":")).encode()
        return SecretSample(f"vault://{self.mount}/{self._place}", document)

    def change_secret(self, reference: str, data: bytes) -> None:
        raise NotImplementedError  # a document is not of any bytes


@pytest.fixture(scope="module", autouse=True)
def _server(vault: Vault) -> Iterator[None]:
    """Give the harnesses their server."""
    vault.write(f"sys/mounts/{KvV1Harness.mount}", type="kv", options={"version": "1"})
    KvHarness.server = vault
    yield
    vault.delete(f"sys/mounts/{KvV1Harness.mount}")


class TestKvV2(SecretConformance, WholeConformance):
    harness = KvV2Harness


class TestKvV1(SecretConformance, WholeConformance):
    harness = KvV1Harness


class TestWholeDocument(SecretConformance, WholeConformance):
    harness = WholeHarness
