"""The rings part passes the suite on a real server, with KEKs in memory."""

# ruff: noqa: D102 - what is overridden says it

from __future__ import annotations

import base64
import uuid
from collections.abc import Mapping, Sequence
from typing import ClassVar

import pytest

from sentra_kms.testing import (
    BackendHarness,
    EndToEndConformance,
    RingConformance,
    RingHistoryConformance,
    RingRaceConformance,
    WholeConformance,
)
from sentra_kms.testing.faults import BlackHole, CutAfterRequest
from sentra_kms.testing.proxy import FaultProxy
from tests.plugin.distributions import install
from tests.servers.vault_server import Vault, VaultError

pytestmark = pytest.mark.server

MOUNT = "kit-rings"
_ALONE = """
    from sentra_kms.hookspecs import hookimpl
    from sentra_kms.hooktypes import BackendType
    from sentra_kms_vault.diagnosis import Diagnosis
    from sentra_kms_vault.rings import Rings
    from sentra_kms_vault.settings import VaultSettings
    from sentra_kms_vault.vault import Vault

    @hookimpl
    def backend_type():
        return BackendType(
            api=(1, 0),
            settings=VaultSettings,
            create="vault_rings_alone:create",
            summary="the rings of the type vault, without its keys",
        )

    def create(settings, host):
        vault = Vault(settings, host)
        return [Diagnosis(vault), Rings(vault, settings.rings)]
"""


@pytest.fixture(scope="module", autouse=True)
def _server(vault: Vault) -> None:
    RingsHarness.server = vault
    if f"{MOUNT}/" not in vault.read("sys/mounts")["data"]:
        vault.write(f"sys/mounts/{MOUNT}", type="kv", options={"version": "2"})
        vault.wait_until(lambda: vault.write(f"{MOUNT}/config", cas_required=True))


class RingsHarness(BackendHarness):
    """A prefix, a policy and a token for each check, and a proxy before the server."""

    type = "vault-rings-alone"
    server: ClassVar[Vault]

    def open(self) -> None:
        install(
            self.path / "site",
            "vault-rings-alone",
            backends={self.type: "vault_rings_alone"},
            modules={"vault_rings_alone": _ALONE},
        )
        self.patch.syspath_prepend(str(self.path / "site"))
        self._own = f"kit-{uuid.uuid4()}"
        self.server.policy(
            self._own,
            f"""
            path "{MOUNT}/data/{self._own}/*" {{ capabilities = ["create", "update", "read"] }}
            path "{MOUNT}/metadata/{self._own}/*" {{ capabilities = ["read", "list"] }}
            path "{MOUNT}/destroy/{self._own}/*" {{ capabilities = ["update"] }}
            path "{MOUNT}/config" {{ capabilities = ["read"] }}
            """,
        )
        self.patch.setenv("KIT_TOKEN", self.server.new_token(self._own))
        self.proxy = FaultProxy("127.0.0.1", self.server.port)

    def close(self) -> None:
        self.proxy.close()
        self.server.delete("sys/quotas/rate-limit/kit-rings")

    def settings(self) -> Mapping[str, object]:
        return {
            "address": self.proxy.url,
            "auth": {"method": "token", "token": "env://KIT_TOKEN"},
            "timeout": "60s",  # so that a busy machine is no fault
            "rings": {"mount": MOUNT, "prefix": self._own},
        }

    def ring_history(self, tenant: str) -> set[bytes]:
        path = f"{self._own}/{tenant}"
        known = self.server.read(f"{MOUNT}/metadata/{path}")["data"]["versions"]
        found: set[bytes] = set()
        for number, fate in known.items():
            if not fate["destroyed"]:
                fields = self.server.read(f"{MOUNT}/data/{path}?version={number}")["data"]["data"]
                found |= {base64.b64decode(each) for each in [fields.get("document")] if each}
        return found

    def lose_answer(self) -> None:
        # The first write comes after a look at the mount; a tombstone after a read (cut here, too,
        # and sent again) and the marker. Every step of each write: test_ring_faults.py.
        cut = CutAfterRequest()
        self.proxy.script(*([cut, None, None, cut] if self.proxy.requests() else [None, cut]))

    def deny(self) -> None:
        self.server.delete(f"sys/policies/acl/{self._own}")

    def throttle(self) -> None:
        self.server.ask(
            "POST",
            "sys/quotas/rate-limit/kit-rings",
            {"path": f"{MOUNT}/", "rate": 0.01, "interval": "60s"},
        )
        self.server.wait_until(self._refused)  # after what it lets through

    def _refused(self) -> bool:
        try:
            self.server.read(f"{MOUNT}/config")
        except VaultError as error:
            return error.status == 429
        return False

    def stall(self) -> None:
        self.proxy.always(BlackHole())

    def cut(self) -> None:
        self.proxy.cut()

    def requests(self) -> Sequence[object]:
        return self.proxy.requests()


class TestVaultRings(
    RingConformance,
    RingRaceConformance,
    RingHistoryConformance,
    WholeConformance,
    EndToEndConformance,
):
    harness = RingsHarness
