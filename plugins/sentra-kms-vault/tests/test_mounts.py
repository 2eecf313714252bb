"""What is mounted where: asked again in time, so that another engine in the same place is seen."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sentra_kms_vault.mounts import Mounts
from vault_user import MakeUser

from sentra_kms import (
    ConfigurationError,
    DecryptionFailed,
    KeyMaterial,
    KeyNotFound,
    KMSError,
    SecretNotFound,
    ServiceUnavailable,
    TenantNotFound,
)
from sentra_kms.context import WrapContext
from sentra_kms.hooktypes import SecretRequest
from sentra_kms.reference import Reference
from sentra_kms.testing import Bench
from tests.servers.scripted import Scripted, http
from tests.servers.vault_server import Vault

pytestmark = pytest.mark.server

_PLACE = WrapContext("acme", bytes(range(12)), 1)
_KEY = KeyMaterial(bytes(range(32)))
_OPTIONS = {"version": "2"}


class Site:
    """A backend all of whose engines are at one mount, where a test puts one after the other.

    The life of what is known of a mount ends when the test says so, and not before.
    """

    def __init__(self, vault: Vault) -> None:
        self.vault = vault
        self.mount = f"mounts-{uuid.uuid4().hex[:12]}"
        self.bench = Bench(
            "vault",
            {
                "type": "vault",
                "address": vault.address,
                "auth": {"method": "token", "token": "env://MOUNTS_TOKEN"},
                "transit": self.mount,
                "rings": {"mount": self.mount, "prefix": "rings"},
            },
        )
        self.binding = self.bench.binding
        part: Any = self.binding._hooks.wrap_key.get_hookimpls()[0].plugin
        self._mounts: Mounts = part._vault.mounts
        self.now = 0.0
        self._mounts._clock = lambda: self.now

    def put(self, kind: str, **given: object) -> None:
        """Mount an engine in the place of the one that is there."""
        self.vault.delete(f"sys/mounts/{self.mount}")
        self.vault.write(f"sys/mounts/{self.mount}", type=kind, **given)
        if given.get("options") == _OPTIONS:
            # The engine makes itself versioned first.
            config = f"{self.mount}/config"
            self.vault.wait_until(lambda: self.vault.write(config, max_versions=0))

    def later(self) -> None:
        """Let as much time go by as an answer is believed for."""
        self.now += 10.0

    def looks(self) -> int:
        """Return how often it was asked what is mounted."""
        return len(self.vault.requests("sys/internal/ui/mounts", self.mount))

    def secret(self) -> object:
        """Read one that is not there."""
        return self.binding.fetch_secret(SecretRequest(Reference(f"vault://{self.mount}/no/such")))

    def rings(self) -> list[Callable[[], object]]:
        """Return a call of each operation on rings that are not there."""
        return [
            lambda: self.binding.load_ring("acme"),
            lambda: self.binding.save_ring("acme", b"one", None),
            lambda: self.binding.save_ring("acme", b"one", "1"),
            lambda: self.binding.delete_ring("acme", "1"),
            lambda: self.binding.list_rings(None, 10),
            lambda: self.binding.purge_ring_history("acme"),
        ]


@pytest.fixture
def site(vault: Vault, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """Return a site without an engine."""
    monkeypatch.setenv("MOUNTS_TOKEN", vault.token)
    site = Site(vault)
    yield site
    site.bench.close()
    vault.delete(f"sys/mounts/{site.mount}")


def told(kind: type[KMSError], call: Callable[[], object]) -> str:
    """Return the message of an error that is of exactly that kind."""
    with pytest.raises(kind) as caught:
        call()
    assert type(caught.value) is kind
    return caught.value.message


def test_parts_share_what_is_known_for_a_while(site: Site) -> None:
    """Of one mount it is asked once, whoever wants to know, and again when that was a while ago."""
    site.put("kv", options=_OPTIONS)
    for looks in (1, 2):
        for _ in range(3):
            told(SecretNotFound, site.secret)
            told(TenantNotFound, lambda: site.binding.load_ring("acme"))
        assert site.looks() == looks
        site.later()


def test_version_1_in_the_place_of_2_keeps_no_ring(site: Site) -> None:
    """A save that it took is known by its answer, at once; later none is sent, and none missing."""
    site.put("kv", options=_OPTIONS)
    assert site.binding.save_ring("acme", b"one", None) == "1"
    site.put("kv")
    assert "KV version 1" in told(
        ConfigurationError, lambda: site.binding.save_ring("globex", b"one", None)
    )
    for call in site.rings():
        assert "KV version 1" in told(ConfigurationError, call)
    assert site.vault.list(f"{site.mount}/data/rings") == ["globex"]


def test_version_1_in_the_place_of_2_has_no_missing_rings(site: Site) -> None:
    """That it has no such ring is not believed for longer than it is not asked what is there."""
    site.put("kv", options=_OPTIONS)
    assert site.binding.save_ring("acme", b"one", None) == "1"
    site.put("kv")
    site.later()
    for call in site.rings():
        assert "KV version 1" in told(ConfigurationError, call)
    assert site.vault.list(f"{site.mount}/") == []


def test_another_version_2_has_no_missing_rings(site: Site) -> None:
    """An engine of the same kind that is new has none of the rings: none is made in their place."""
    site.put("kv", options=_OPTIONS)
    assert site.binding.save_ring("acme", b"one", None) == "1"
    site.put("kv", options=_OPTIONS)
    site.later()
    for call in site.rings():
        assert "was mounted anew since this process began" in told(ConfigurationError, call)
    assert site.vault.list(f"{site.mount}/metadata/") == []


def test_mount_that_is_put_right_is_used(site: Site) -> None:
    """An engine that is fit is used in the place of one that was refused, without a restart."""
    site.put("kv")
    assert "KV version 1" in told(ConfigurationError, lambda: site.binding.load_ring("acme"))
    site.put("kv", options=_OPTIONS)
    site.later()
    assert site.binding.save_ring("acme", b"one", None) == "1"


def test_version_1_in_the_place_of_2_has_no_missing_secrets(site: Site) -> None:
    """That a secret is not there lets a chain go on: only from the engine that is meant."""
    site.put("kv", options=_OPTIONS)
    told(SecretNotFound, site.secret)
    site.put("kv")
    site.later()
    assert "`mounts`" in told(ConfigurationError, site.secret)


def test_another_engine_in_the_place_of_transit(site: Site) -> None:
    """No key is said to be missing, and no tenant key goes there: not even at once."""
    site.put("transit")
    site.vault.write(f"{site.mount}/keys/kek", type="aes256-gcm96")
    wrapped = site.binding.wrap_key("kek", _KEY, _PLACE)
    site.put("kv")
    assert "no transit engine" in told(
        ConfigurationError, lambda: site.binding.unwrap_key("kek", wrapped, _PLACE)
    )
    with pytest.raises((KeyNotFound, ConfigurationError)):
        site.binding.wrap_key("kek", _KEY, _PLACE)
    site.later()
    for call in (
        lambda: site.binding.wrap_key("kek", _KEY, _PLACE),
        lambda: site.binding.unwrap_key("kek", wrapped, _PLACE),
        lambda: site.binding.describe_key("kek"),
    ):
        assert "no transit engine" in told(ConfigurationError, call)
    assert site.vault.list(f"{site.mount}/encrypt") == []


@pytest.mark.parametrize("same_name", [False, True])
def test_another_transit_in_the_place_of_one(site: Site, same_name: bool) -> None:  # noqa: FBT001
    """Its KEKs are others, whatever their names: none is used, and none is said to be missing."""
    site.put("transit")
    site.vault.write(f"{site.mount}/keys/kek", type="aes256-gcm96")
    wrapped = site.binding.wrap_key("kek", _KEY, _PLACE)
    site.put("transit")
    if same_name:
        site.vault.write(f"{site.mount}/keys/kek", type="aes256-gcm96")
    site.later()
    anew = "was mounted anew since this process began"
    assert anew in told(ConfigurationError, lambda: site.binding.wrap_key("kek", _KEY, _PLACE))
    assert anew in told(ConfigurationError, lambda: site.binding.describe_key("kek"))
    kind = DecryptionFailed if same_name else ConfigurationError
    assert (anew in told(kind, lambda: site.binding.unwrap_key("kek", wrapped, _PLACE))) != (
        same_name
    )
    assert site.vault.list(f"{site.mount}/keys") == (["kek"] if same_name else [])


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (http(404, {"errors": []}), ConfigurationError),
        (http(404, {"errors": ["no handler for route"]}), ConfigurationError),
        (http(400, {"errors": []}), ConfigurationError),
        (http(404, b"<html>"), ServiceUnavailable),
        (http(204), ServiceUnavailable),
        (http(200, {"data": {"type": "kv"}}), ServiceUnavailable),
        (http(200, {"data": {"type": "kv", "path": 7}}), ServiceUnavailable),
        (http(200, {"data": None}), ServiceUnavailable),
        (http(200, {"data": {"type": "kv", "path": "x/", "options": [1]}}), ServiceUnavailable),
    ],
)
def test_answer_that_tells_of_no_mount(
    make_user: MakeUser, answer: bytes, kind: type[KMSError]
) -> None:
    """What is not understood is never that something is not there, and is not kept."""
    good = http(200, {"data": {"type": "kv", "path": "x/", "options": {"version": "2"}}})
    with Scripted(lambda _: good) as server:
        server.answers = [http(200, {"data": {"ttl": 0}}), answer]
        table = {"address": server.url, "auth": {"method": "token", "token": "env://T"}}
        user = make_user(table, {"T": "planted"})
        call = user.vault.call(20.0)
        mounts = Mounts()
        assert "'x'" in told(kind, lambda: mounts.at("x", call)) or kind is ServiceUnavailable
        found = mounts.at("x", call)
        assert found is not None
        assert (found.place, found.kv_version) == ("x", 2)


def test_mount_that_is_not_shown_is_asked_for_again(vault: Vault, make_user: MakeUser) -> None:
    """A right that is granted is seen at the next look, and not when some time has gone by."""
    name = f"mounts-{uuid.uuid4().hex[:12]}"
    vault.policy(name, 'path "sys/nothing" { capabilities = ["read"] }')
    table = {"address": vault.address, "auth": {"method": "token", "token": "env://T"}}
    user = make_user(table, {"T": vault.new_token(name)})
    mounts = Mounts()
    assert mounts.at("secret", user.vault.call(20.0)) is None
    vault.policy(name, f'path "secret/data/{name}" {{ capabilities = ["read"] }}')
    found = mounts.at("secret", user.vault.call(20.0))
    assert found is not None
    assert found.type == "kv"
