"""A Vault in trouble while its KEKs are in use, and how often it is asked at all."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

import sentra_kms
from sentra_kms import (
    KeyMaterial,
    KeyUnavailable,
    KMSError,
    ServiceUnavailable,
    Throttled,
    Timeout,
)
from sentra_kms.context import WrapContext
from sentra_kms.hooktypes import WrappedKey
from sentra_kms.testing import Bench
from sentra_kms.testing.faults import CutAfterRequest, Fault, Garbage, Latency, Reset, SlowDrip
from sentra_kms.testing.proxy import FaultProxy
from tests.servers.vault_server import KeptVault, Vault

pytestmark = pytest.mark.server

_PLACE = WrapContext("acme", bytes(range(12)), 1)
_KEY = KeyMaterial(bytes(range(32)))
_PATIENCE = 60.0


def _table(address: str, mount: str = "transit", **settings: object) -> dict[str, object]:
    return {
        "type": "vault",
        "address": address,
        "auth": {"method": "token", "token": "env://FAULTS_TOKEN"},
        "timeout": "60s",  # so that a busy machine is no fault
        "transit": mount,
        **settings,
    }


@pytest.fixture
def mount(vault: Vault, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Return the mount of a transit engine of this test's own, with the key `kek`."""
    mount = f"faults-{uuid.uuid4().hex[:12]}"
    vault.write(f"sys/mounts/{mount}", type="transit")
    vault.write(f"{mount}/keys/kek", type="aes256-gcm96")
    monkeypatch.setenv("FAULTS_TOKEN", vault.token)
    yield mount
    vault.delete(f"sys/quotas/rate-limit/{mount}")
    vault.delete(f"sys/mounts/{mount}")


@pytest.fixture
def proxy(vault: Vault) -> Iterator[FaultProxy]:
    """Return a proxy before the server."""
    with FaultProxy("127.0.0.1", vault.port) as proxy:
        yield proxy


@pytest.fixture
def bench(proxy: FaultProxy, mount: str) -> Iterator[Bench]:
    """Return a backend behind the proxy, with patience for a slow machine."""
    bench = Bench("vault", _table(proxy.url, mount))
    yield bench
    bench.close()


@pytest.fixture
def hasty(proxy: FaultProxy, mount: str) -> Iterator[Bench]:
    """Return a backend like it, with little patience."""
    hasty = Bench("vault", _table(proxy.url, mount, timeout="1s"))
    yield hasty
    hasty.close()


@pytest.fixture
def wrapped(bench: Bench) -> WrappedKey:
    """Return a key that was wrapped while all was well."""
    return bench.binding.wrap_key("kek", _KEY, _PLACE)


@pytest.mark.parametrize(
    "fault", [Reset(), CutAfterRequest(), Garbage(b""), Garbage(b"HTTP/1.1 200 OK\r\nContent-Le")]
)
def test_passing_fault_is_not_seen(
    bench: Bench, proxy: FaultProxy, wrapped: WrappedKey, fault: Fault
) -> None:
    """A connection that breaks once, before or after the request, is not seen by callers."""
    proxy.script(fault)
    assert bench.binding.unwrap_key("kek", wrapped, _PLACE) == _KEY
    proxy.script(fault)
    assert bench.binding.wrap_key("kek", _KEY, _PLACE).key_version == "1"


_EMPTY = b'HTTP/1.1 200 OK\r\nContent-Length: 33\r\n\r\n{"data": {"batch_results": [{}]}}'


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (Reset(), ServiceUnavailable),
        (CutAfterRequest(), ServiceUnavailable),
        (Garbage(), ServiceUnavailable),
        (Garbage(b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{"), ServiceUnavailable),
        (Garbage(_EMPTY), ServiceUnavailable),
        (Latency(3.0), Timeout),
        (SlowDrip(0.05), Timeout),
    ],
)
def test_fault_that_stays(
    bench: Bench,
    hasty: Bench,
    proxy: FaultProxy,
    wrapped: WrappedKey,
    fault: Fault,
    kind: type[KMSError],
) -> None:
    """A fault that stays has its error after few requests; when it is over all goes on."""
    used = hasty if kind is Timeout else bench
    before = len(proxy.requests())
    proxy.always(fault)
    with pytest.raises(kind) as caught:
        used.binding.unwrap_key("kek", wrapped, _PLACE)
    assert caught.value.retryable
    assert len(proxy.requests()) - before <= 4
    proxy.always(None)
    assert bench.binding.unwrap_key("kek", wrapped, _PLACE) == _KEY


def test_quota(vault: Vault, bench: Bench, mount: str, wrapped: WrappedKey) -> None:
    """A rate limit of Vault's is `Throttled`, and no more when it is lifted."""
    quota = {"path": f"{mount}/", "rate": 1, "interval": "1h"}
    vault.ask("POST", f"sys/quotas/rate-limit/{mount}", quota)
    vault.read(f"{mount}/keys/kek")
    with pytest.raises(Throttled):
        bench.binding.unwrap_key("kek", wrapped, _PLACE)
    vault.delete(f"sys/quotas/rate-limit/{mount}")
    assert bench.binding.unwrap_key("kek", wrapped, _PLACE) == _KEY


def test_policy_taken_away_in_use(
    vault: Vault, mount: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A right that was taken away is missing at once; given again it is there at once."""
    rules = "".join(
        f'path "{mount}/{what}/kek" {{ capabilities = ["{right}"] }}\n'
        for what, right in (("keys", "read"), ("encrypt", "update"), ("decrypt", "update"))
    )
    vault.policy(mount, rules)
    monkeypatch.setenv("FAULTS_TOKEN", vault.new_token(mount))
    bench = Bench("vault", _table(vault.address, mount))
    wrapped = bench.binding.wrap_key("kek", _KEY, _PLACE)
    vault.policy(mount, f'path "{mount}/keys/kek" {{ capabilities = ["read"] }}')
    with pytest.raises(sentra_kms.AccessDenied, match="policies"):
        bench.binding.unwrap_key("kek", wrapped, _PLACE)
    vault.policy(mount, rules)
    assert bench.binding.unwrap_key("kek", wrapped, _PLACE) == _KEY
    bench.close()


def _configuration(
    address: str, directory: Path, mount: str = "transit"
) -> dict[str, dict[str, object]]:
    """Return a configuration with the KEK of Vault, and rings in files."""
    return {
        "test": {
            "development": True,
            "backends": {
                "vault": _table(address, mount),
                "local": {
                    "type": "local",
                    "directory": str(directory / "rings"),
                    "master_keys": {"auth": f"file://{directory / 'master'}"},
                },
            },
            "keys": {
                "wrap_with": ["vault:kek"],
                "authenticate_with": ["local:auth"],
                "store": "local",
            },
        }
    }


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Return a directory for rings, with the key that authenticates them."""
    master = tmp_path / "master"
    master.touch(0o600)
    master.write_bytes(bytes(range(32)))
    return tmp_path


def test_sealed_in_use(
    kept_vault: KeptVault, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sealed mid-use what is cached goes on, what is not says so; unsealed, all works again."""
    monkeypatch.setenv("FAULTS_TOKEN", kept_vault.token)
    kept_vault.write("transit/keys/kek", type="aes256-gcm96")
    config = _configuration(kept_vault.address, directory)
    with sentra_kms.load(config, "test") as warm, sentra_kms.load(config, "test") as cold:
        warm.keys.create("acme")
        message = warm.keys.encrypt("acme", b"before")
        kept_vault.seal()
        assert warm.keys.decrypt("acme", message) == b"before"
        during = warm.keys.encrypt("acme", b"during")
        for call in (
            lambda: cold.keys.decrypt("acme", message),
            lambda: warm.keys.rotate("acme"),
        ):
            with pytest.raises(ServiceUnavailable, match="unseal it") as caught:
                call()
            assert caught.value.retryable
        kept_vault.unseal()
        assert cold.keys.decrypt("acme", during) == b"during"
        assert warm.keys.rotate("acme").primary == 2


def test_min_decryption_version_raised_past_a_ring(
    vault: Vault, mount: str, directory: Path
) -> None:
    """A ring of before cannot be opened until that is lowered; rewrapped, it opens again after."""
    config = _configuration(vault.address, directory, mount)
    key = f"{mount}/keys/kek"
    with sentra_kms.load(config, "test") as kms:
        kms.keys.create("acme")
        message = kms.keys.encrypt("acme", b"kept")
    vault.write(f"{key}/rotate")
    vault.write(f"{key}/config", min_decryption_version=2)
    with sentra_kms.load(config, "test") as kms:
        for call in (
            lambda: kms.keys.decrypt("acme", message),
            lambda: kms.keys.rewrap("acme"),
        ):
            with pytest.raises(KeyUnavailable, match="lower it, rewrap, and raise it again"):
                call()
        vault.write(f"{key}/config", min_decryption_version=1)
        kms.keys.rewrap("acme")
        vault.write(f"{key}/config", min_decryption_version=2)
    with sentra_kms.load(config, "test") as kms:
        assert kms.keys.decrypt("acme", message) == b"kept"


def test_killed_and_started_again(kept_vault: KeptVault, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed, Vault is unavailable; started and unsealed, the same backend goes on with it."""
    monkeypatch.setenv("FAULTS_TOKEN", kept_vault.token)
    kept_vault.write("transit/keys/kek", type="aes256-gcm96")
    bench = Bench("vault", _table(kept_vault.address))
    wrapped = bench.binding.wrap_key("kek", _KEY, _PLACE)
    kept_vault.kill()
    with pytest.raises(ServiceUnavailable, match="cannot be reached"):
        bench.binding.unwrap_key("kek", wrapped, _PLACE)
    kept_vault.start()
    with pytest.raises(ServiceUnavailable, match="unseal it"):
        bench.binding.unwrap_key("kek", wrapped, _PLACE)
    kept_vault.unseal()
    assert bench.binding.unwrap_key("kek", wrapped, _PLACE) == _KEY
    bench.close()


@pytest.mark.slow
def test_warm_messages_never_touch_vault(vault: Vault, mount: str, directory: Path) -> None:
    """10,000 messages under cached keys are not one line in Vault's own audit log."""
    with sentra_kms.load(_configuration(vault.address, directory, mount), "test") as kms:
        for tenant in ("acme", "globex"):
            kms.keys.create(tenant)
        handles = [kms.keys.tenant(tenant) for tenant in ("acme", "globex")]
        messages = [handle.encrypt(b"first") for handle in handles]
        assert vault.requests(f"{mount}/encrypt")
        before = len(vault.requests())
        for _ in range(2500):
            for handle, message in zip(handles, messages, strict=True):
                handle.encrypt(b"more")
                assert handle.decrypt(message) == b"first"
        assert len(vault.requests()) == before


@pytest.mark.slow
def test_cold_herd(vault: Vault, mount: str, directory: Path) -> None:
    """500 threads that come to 50 cold tenants at once make 50 requests to decrypt, or fewer."""
    config = _configuration(vault.address, directory, mount)
    tenants = [f"tenant-{number}" for number in range(50)]
    with sentra_kms.load(config, "test") as kms:
        for tenant in tenants:
            kms.keys.create(tenant)
        messages = {tenant: kms.keys.encrypt(tenant, tenant.encode()) for tenant in tenants}
    before = len(vault.requests(f"{mount}/decrypt"))
    ends: list[bytes | Exception] = []
    with sentra_kms.load(config, "test") as kms:
        start = threading.Barrier(500)

        def come(tenant: str) -> None:
            start.wait(_PATIENCE)
            try:
                ends.append(kms.keys.decrypt(tenant, messages[tenant]))
            except Exception as error:  # noqa: BLE001 - judged below
                ends.append(error)

        threads = [threading.Thread(target=come, args=(tenant,)) for tenant in tenants * 10]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(_PATIENCE)
    assert sorted(map(repr, ends)) == sorted(repr(tenant.encode()) for tenant in tenants * 10)
    assert 0 < len(vault.requests(f"{mount}/decrypt")) - before <= 50
