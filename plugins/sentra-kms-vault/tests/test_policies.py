"""Each policy that the plugin comes with suffices for its role, and for no more."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

import sentra_kms
from sentra_kms import AccessDenied, TenantNotFound
from sentra_kms.doctor import diagnose
from sentra_kms.runtime import KMS
from sentra_kms.testing import Bench
from tests.servers.vault_server import Vault, VaultError

pytestmark = pytest.mark.server

PLUGIN = Path(__file__).parent.parent
ROLES = ("runtime", "rotator", "auditor")
RINGS = "secret/{}/sentra/rings/"


class Site:
    """A server with engines as the policies name them, at paths of this test's own."""

    def __init__(self, vault: Vault, patch: pytest.MonkeyPatch) -> None:
        self.vault = vault
        self._patch = patch
        self.tokens: dict[str, str] = {"root": vault.token}

    def at(self, path: str) -> str:
        """Return a path of the policies where it is here."""
        return re.sub(r"\b(secret|transit)/", r"policies-\1/", path)

    def make(self) -> None:
        """Mount, and give each role a token with its policy and no other."""
        mounted = self.vault.read("sys/mounts")["data"]
        if "policies-secret/" not in mounted:
            self.vault.write("sys/mounts/policies-secret", type="kv", options={"version": "2"})
            self.vault.write("sys/mounts/policies-transit", type="transit")
            self.vault.wait_until(
                lambda: self.vault.write("policies-secret/config", cas_required=True)
            )
        for key in ("tenants", "other"):
            self.vault.write(f"policies-transit/keys/{key}", type="aes256-gcm96")
        for path in ("platform", "other"):
            self.put(f"secret/data/{path}", {"url": "postgresql://planted"})
        for role in ROLES:
            self.vault.policy(f"policies-{role}", self.at(text_of(role)))
            self.tokens[role] = self.vault.new_token(f"policies-{role}", no_default_policy=True)

    def put(self, path: str, fields: Mapping[str, object]) -> None:
        """Make a path of KV, unless it is there."""
        try:
            self.vault.write(self.at(path), options={"cas": 0}, data=dict(fields))
        except VaultError as error:
            if error.status != 400:
                raise

    def configuration(self, role: str) -> dict[str, object]:
        """Return a configuration of the role's process."""
        self._patch.setenv("ROLE_TOKEN", self.tokens[role])
        self._patch.setenv("RING_KEY", base64.b64encode(b"\x07" * 32).decode("ascii"))
        return {
            "site": {
                "development": True,
                "backends": {"vault": self.table()},
                "keys": {
                    "wrap_with": ["vault:tenants"],
                    "authenticate_with": ["env://RING_KEY"],
                    "store": "vault",
                },
            }
        }

    def table(self) -> dict[str, object]:
        """Return the backend's table."""
        return {
            "type": "vault",
            "address": self.vault.address,
            "auth": {"method": "token", "token": "env://ROLE_TOKEN"},
            "timeout": "60s",  # so that a busy machine is no fault
            "transit": "policies-transit",
            "rings": {"mount": "policies-secret", "prefix": "sentra/rings"},
        }

    def load(self, role: str) -> KMS:
        """Load as a process of that role."""
        configuration = self.configuration(role)
        return sentra_kms.load(configuration, "site")

    def status(self, role: str, method: str, path: str, body: Mapping[str, object] | None) -> int:
        """Return the status of a request with the role's token."""
        try:
            self.vault.ask(method, self.at(path), body, token=self.tokens[role])
        except VaultError as error:
            return error.status
        return 200


def text_of(role: str) -> str:
    """Return a policy as it is shipped."""
    return (PLUGIN / "policies" / f"{role}.hcl").read_text(encoding="utf-8")


@pytest.fixture
def site(vault: Vault, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """Return the server, with no ring."""
    site = Site(vault, monkeypatch)
    site.make()
    yield site
    for folder in ("sentra/rings/.deleted/", "sentra/rings/"):
        for name in vault.list(f"policies-secret/metadata/{folder}"):
            if not name.endswith("/"):
                vault.delete(f"policies-secret/metadata/{folder}{name}")


def test_each_role_does_its_job(site: Site) -> None:
    """From a tenant's creation to its end, each role by the rights of its policy alone.

    What is another role's is denied, as what it is: never as if nothing were there.
    """
    with site.load("rotator") as kms:
        kms.keys.create("acme")
        kms.keys.create("globex")
        kms.keys.create("initech")
        assert kms.keys.rotate("acme").primary == 2
        kms.keys.disable("acme", 1)
        kms.keys.enable("acme", 1)
        message = kms.keys.encrypt("acme", b"kept")
        shredded = kms.keys.shred("initech", confirm="initech")
        assert shredded.receipt
        assert sorted(kms.keys.tenants()) == ["acme", "globex", "initech"]
    metadata = site.vault.read("policies-secret/metadata/sentra/rings/initech")["data"]
    versions = metadata["versions"]
    assert [versions[each]["destroyed"] for each in sorted(versions, key=int)] == [True, False]

    with site.load("runtime") as kms:
        assert kms.keys.decrypt("acme", message) == b"kept"
        assert kms.keys.decrypt("acme", kms.keys.encrypt("acme", b"more")) == b"more"
        assert sorted(kms.keys.tenants()) == ["acme", "globex", "initech"]
        assert kms.keys.describe("acme").primary == 2
        changes: list[Callable[[], object]] = [
            lambda: kms.keys.rotate("acme"),
            lambda: kms.keys.create("umbrella"),
            lambda: kms.keys.disable("acme", 1),
        ]
        for change in changes:
            with pytest.raises(AccessDenied):
                change()

    with site.load("auditor") as kms:
        assert sorted(kms.keys.tenants()) == ["acme", "globex", "initech"]
        assert kms.keys.describe("acme").primary == 2
        with pytest.raises(TenantNotFound):
            kms.keys.describe("umbrella")
        uses: list[Callable[[], object]] = [
            lambda: kms.keys.decrypt("acme", message),
            lambda: kms.keys.encrypt("acme", b"more"),
            lambda: kms.keys.disable("acme", 1),
        ]
        for use in uses:
            with pytest.raises(AccessDenied):
                use()


def test_rotator_rewraps(site: Site) -> None:
    """After the KEK got a new version in Vault, every key version is brought under it."""
    with site.load("rotator") as kms:
        kms.keys.create("acme")
        message = kms.keys.encrypt("acme", b"kept")
        site.vault.write("policies-transit/keys/tenants/rotate")
        kms.keys.rewrap("acme")
    with site.load("runtime") as kms:
        assert kms.keys.decrypt("acme", message) == b"kept"


def test_rotator_deletes_a_ring(site: Site) -> None:
    """As a move does with what it leaves; the other roles may not, and see that it is gone."""
    for role in ROLES:
        site.configuration(role)
        bench = Bench("vault", site.table())
        if role == "rotator":
            revision = bench.binding.save_ring("acme", b"one", None)
            bench.binding.delete_ring("acme", revision)
            bench.binding.purge_ring_history("acme")
            bench.binding.save_ring("globex", b"one", None)
        else:
            with pytest.raises(AccessDenied):
                bench.binding.save_ring("globex", b"two", "1")
        bench.close()
    for role in ROLES:
        site.configuration(role)
        bench = Bench("vault", site.table())
        assert bench.binding.list_rings(None, 10).tenants == ("globex",)
        if role != "rotator":
            with pytest.raises(AccessDenied):
                bench.binding.delete_ring("globex", "1")
        bench.close()


@pytest.mark.parametrize("role", ROLES)
def test_doctor_has_the_rights_that_it_needs(site: Site, role: str) -> None:
    """It finds nothing denied, but a KEK's description to the runtime, which has no use for it."""
    with site.load("rotator") as kms:
        kms.keys.create("acme")
    configuration = site.configuration(role)
    found = diagnose(configuration, "site").findings
    denied = [each for each in found if "status 403" in each.message + each.advice]
    assert [each for each in denied if each.subject != "vault:tenants"] == []
    assert role == "runtime" or not denied


ALLOWED: dict[str, list[tuple[str, str, Mapping[str, object] | None]]] = {
    "runtime": [
        ("GET", RINGS.format("data") + "acme", None),
        ("LIST", RINGS.format("metadata"), None),
        ("LIST", RINGS.format("metadata") + ".deleted/", None),
        ("GET", "secret/data/platform", None),
    ],
    "rotator": [
        ("GET", "transit/keys/tenants", None),
        ("POST", "transit/encrypt/tenants", {"plaintext": "eA=="}),
        ("POST", RINGS.format("destroy") + "acme", {"versions": [99]}),
    ],
    "auditor": [
        ("GET", "transit/keys/tenants", None),
        ("GET", RINGS.format("metadata") + "acme", None),
    ],
}
_SELF: list[tuple[str, str, Mapping[str, object] | None]] = [
    ("GET", "auth/token/lookup-self", None),
    ("POST", "auth/token/renew-self", {}),
]
FORBIDDEN: list[tuple[str, str, Mapping[str, object] | None, tuple[str, ...]]] = [
    # Who is denied what; the last column are those who may.
    ("POST", "transit/encrypt/tenants", {"plaintext": "eA=="}, ("rotator",)),
    ("POST", "transit/encrypt/mistyped", {"plaintext": "eA=="}, ()),
    ("POST", "transit/encrypt/other", {"plaintext": "eA=="}, ()),
    ("POST", "transit/decrypt/tenants", {"ciphertext": "CIPHERTEXT"}, ("runtime", "rotator")),
    ("POST", "transit/decrypt/other", {"ciphertext": "CIPHERTEXT"}, ()),
    ("POST", "transit/rewrap/tenants", {"ciphertext": "CIPHERTEXT"}, ()),
    ("POST", "transit/datakey/plaintext/tenants", {}, ()),
    ("POST", "transit/keys/tenants/rotate", {}, ()),
    ("POST", "transit/keys/tenants/config", {"min_decryption_version": 1}, ()),
    ("POST", "transit/keys/new", {}, ()),
    ("GET", "transit/keys/tenants", None, ("rotator", "auditor")),
    ("GET", "transit/export/encryption-key/tenants", None, ()),
    ("GET", "transit/backup/tenants", None, ()),
    ("LIST", "transit/keys", None, ()),
    ("POST", RINGS.format("data") + "acme", {"data": {}, "options": {"cas": 1}}, ("rotator",)),
    ("POST", RINGS.format("data") + "new", {"data": {}, "options": {"cas": 0}}, ("rotator",)),
    ("DELETE", RINGS.format("data") + "acme", None, ()),
    ("POST", RINGS.format("delete") + "acme", {"versions": [1]}, ()),
    ("POST", RINGS.format("undelete") + "acme", {"versions": [1]}, ()),
    ("POST", RINGS.format("destroy") + "acme", {"versions": [99]}, ("rotator",)),
    ("POST", RINGS.format("metadata") + "acme", {"max_versions": 1}, ()),
    ("DELETE", RINGS.format("metadata") + "acme", None, ()),
    ("GET", "secret/data/platform", None, ("runtime",)),
    ("GET", "secret/data/other", None, ()),
    ("POST", "secret/data/platform", {"data": {}, "options": {"cas": 1}}, ()),
    ("GET", "secret/metadata/platform", None, ()),
    ("LIST", "secret/metadata/", None, ()),
    ("LIST", "secret/metadata/sentra/", None, ()),
    ("POST", "secret/config", {"cas_required": False}, ()),
    ("GET", "sys/mounts", None, ()),
    ("GET", "sys/policies/acl/policies-runtime", None, ()),
    ("POST", "sys/policies/acl/policies-runtime", {"policy": 'path "a" {}'}, ()),
    ("POST", "auth/token/create", {}, ()),
    ("GET", "sys/audit", None, ()),
    ("GET", "sys/raw/core", None, ()),
    ("POST", "sys/seal", {}, ()),
]


@pytest.mark.parametrize("role", ROLES)
def test_policy_is_no_wider_than_its_role(site: Site, role: str) -> None:
    """What is another's, or nobody's, is refused with status 403; what is its own is not."""
    sealed = site.vault.write(site.at("transit/encrypt/tenants"), plaintext="eA==")
    site.put("secret/data/sentra/rings/acme", {"document": "eA=="})
    for method, path, body, roles in FORBIDDEN:
        given = body
        if body is not None and "ciphertext" in body:
            given = {"ciphertext": sealed["data"]["ciphertext"]}
        if role in roles:
            assert site.status(role, method, path, given) != 403, (method, path)
        else:
            assert site.status(role, method, path, given) == 403, (method, path)
    for method, path, body in [*ALLOWED[role], *_SELF]:
        assert site.status(role, method, path, body) in {200, 404}, (method, path)
    assert "mistyped" not in site.vault.list("policies-transit/keys")
    assert site.status(role, "POST", "auth/token/revoke-self", {}) == 200


def test_policies_are_printed_as_they_are_shipped() -> None:
    """The page shows the very text that is tested here."""
    page = (PLUGIN / "README.md").read_text(encoding="utf-8")
    section = page.partition("\n## Policies\n")[2].partition("\n## ")[0]
    assert re.findall(r"```hcl\n(.*?)```", section, re.DOTALL) == [text_of(role) for role in ROLES]


def test_nobody_may_make_a_key_by_encrypting() -> None:
    """`create` on transit/encrypt is in no policy."""
    for role in ROLES:
        for line in text_of(role).splitlines():
            assert "transit/encrypt" not in line or "create" not in line or line.startswith("#")
