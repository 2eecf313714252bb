from __future__ import annotations

import pytest

from sentra_kms import KeyMaterial
from sentra_kms.context import WrapContext
from sentra_kms.testing import Bench
from tests.servers.vault_server import Vault

pytestmark = pytest.mark.server


def test_wrap_and_unwrap(vault: Vault, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrapped key comes back."""
    vault.write("transit/keys/skeleton", type="aes256-gcm96")
    monkeypatch.setenv("KIT_TOKEN", vault.token)
    table = {
        "type": "vault",
        "address": vault.address,
        "auth": {"method": "token", "token": "env://KIT_TOKEN"},
    }
    bench = Bench("vault", table)
    place = WrapContext("acme", bytes(12), 1)
    wrapped = bench.binding.wrap_key("skeleton", KeyMaterial(bytes(32)), place)
    assert bench.binding.unwrap_key("skeleton", wrapped, place) == KeyMaterial(bytes(32))
    bench.close()
