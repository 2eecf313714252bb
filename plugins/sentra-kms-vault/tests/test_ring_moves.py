"""Tenants move between files and Vault, and what was left behind never comes back."""

from __future__ import annotations

import base64
import uuid
from pathlib import Path

import pytest

import sentra_kms
from sentra_kms import RingRejected
from sentra_kms.runtime import KMS
from tests.servers.vault_server import Vault

pytestmark = pytest.mark.server


class Site:
    """Rings in files and in Vault, wrapped by a master key."""

    def __init__(self, vault: Vault, path: Path) -> None:
        self.vault = vault
        self.path = path
        self.prefix = f"moves-{uuid.uuid4()}"

    def load(self, store: str, previous: str | None = None) -> KMS:
        """Load with one store, and one that rings are still in."""
        keys: dict[str, object] = {"wrap_with": ["local:m1"], "store": store}
        if previous is not None:
            keys["previous_store"] = previous
        vault = {
            "type": "vault",
            "address": self.vault.address,
            "auth": {"method": "token", "token": "env://SITE_TOKEN"},
            "timeout": "60s",  # so that a busy machine is no fault
            "rings": {"mount": "secret", "prefix": self.prefix},
        }
        local = {
            "type": "local",
            "directory": str(self.path / "keys"),
            "master_keys": {"m1": "env://SITE_MASTER"},
        }
        backends = {"vault": vault, "local": local}
        return sentra_kms.load(
            {"site": {"development": True, "backends": backends, "keys": keys}}, "site"
        )

    def at(self, kind: str, tenant: str) -> str:
        """Return a path of Vault's API."""
        return f"secret/{kind}/{self.prefix}/{tenant}"


@pytest.fixture
def site(vault: Vault, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    """Return the stores, empty."""
    monkeypatch.setenv("SITE_TOKEN", vault.token)
    monkeypatch.setenv("SITE_MASTER", base64.b64encode(b"\x09" * 32).decode("ascii"))
    return Site(vault, tmp_path)


@pytest.mark.parametrize(("first", "second"), [("local", "vault"), ("vault", "local")])
def test_a_tenant_moves_and_is_shredded(site: Site, first: str, second: str) -> None:
    """Messages open before, during and after; shredded, no store holds a ring with a wrap."""
    with site.load(first) as kms:
        kms.keys.create("acme")
        kms.keys.create("globex")
        message = kms.keys.encrypt("acme", b"kept")
    with site.load(second, first) as kms:
        assert kms.keys.decrypt("acme", message) == b"kept"
        kms.keys.move("acme")
        assert kms.keys.decrypt("acme", message) == b"kept"
        assert sorted(kms.keys.tenants()) == ["acme", "globex"]
        kms.keys.rotate("acme")
        kms.keys.move("globex")
        kms.keys.shred("globex", confirm="globex")
    with site.load(second) as kms:
        assert kms.keys.decrypt("acme", message) == b"kept"
        assert kms.keys.describe("globex").primary is None
    known = site.vault.read(site.at("metadata", "globex"))["data"]
    alive = [number for number, fate in known["versions"].items() if not fate["destroyed"]]
    assert alive == [str(known["current_version"])]
    if first == "vault":  # what the move left there was deleted: a tombstone
        assert site.vault.read(site.at("data", "globex"))["data"]["data"]["deleted"] is True


def test_an_older_store_is_not_asked_for_what_was_deleted_in_vault(site: Site) -> None:
    """A ring that an operator deleted in the new store is not taken from where it was before."""
    with site.load("local") as kms:
        kms.keys.create("acme")
    files = site.path / "keys" / "acme.ring"
    before = files.read_bytes()
    with site.load("vault", "local") as kms:
        kms.keys.move("acme")
        kms.keys.rotate("acme")
    files.write_bytes(before)  # as a restored backup of the directory brings it back
    site.vault.delete(site.at("data", "acme"))
    with site.load("vault", "local") as kms:
        with pytest.raises(RingRejected):
            kms.keys.encrypt("acme", b"under an old key")
        with pytest.raises(RingRejected):
            kms.keys.create("acme")
