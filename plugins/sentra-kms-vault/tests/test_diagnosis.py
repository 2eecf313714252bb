"""What the doctor is told, by a real server."""

from __future__ import annotations

from pathlib import Path

import pytest
from sentra_kms_vault.diagnosis import Diagnosis
from vault_user import TIMEOUT, User

from sentra_kms.doctor import diagnose
from sentra_kms.hooktypes import Finding
from tests.servers.lifeline import free_port
from tests.servers.vault_server import KeptVault, Vault
from tests.test_cli_support import run

pytestmark = pytest.mark.server

LOOK_UP = 'path "auth/token/lookup-self" { capabilities = ["read"] }'


def check(address: str, token: str, **settings: object) -> list[Finding]:
    """Return what is found by a backend that logs in with a token."""
    auth = {"method": "token", "token": "env://KIT_TOKEN"}
    user = User({"address": address, "auth": auth, **settings}, {"KIT_TOKEN": token})
    try:
        return Diagnosis(user.vault).check(TIMEOUT)
    finally:
        user.vault.close()


def test_server_and_token_are_told(vault: Vault) -> None:
    """Address, version, method, life and policies are told, and no word of the token itself."""
    vault.policy("diagnosis", LOOK_UP)
    token = vault.new_token("diagnosis", no_default_policy=True, ttl="1h")
    (found,) = check(vault.address, token)
    assert found.level == "ok"
    for told in (vault.address, "version 1.", "active", "'token'", "good for 3", "renewed before"):
        assert told in found.message
    assert "policies diagnosis" in found.message
    assert token not in repr(found)


def test_root_token_is_warned_of(vault: Vault) -> None:
    """A root token may do everything, which no runtime needs."""
    ok, warning = check(vault.address, vault.token)
    assert (ok.level, warning.level) == ("ok", "warning")
    assert "root token" in warning.message


def test_short_token_is_warned_of(vault: Vault) -> None:
    """A token that ends soon and cannot be renewed is told before it has ended."""
    vault.policy("diagnosis", LOOK_UP)
    token = vault.new_token(
        "diagnosis", no_default_policy=True, ttl="40s", explicit_max_ttl="40s", renewable=False
    )
    _, warning = check(vault.address, token)
    assert "cannot be renewed" in warning.message


def test_token_that_may_not_look_itself_up(vault: Vault) -> None:
    """Such a token is no error: what it may do is what matters."""
    vault.policy("diagnosis-none", 'path "secret/data/none" { capabilities = ["read"] }')
    (found,) = check(vault.address, vault.new_token("diagnosis-none", no_default_policy=True))
    assert found.level == "ok"
    assert "may not look itself up" in found.message


def test_token_that_is_none(vault: Vault) -> None:
    """A token that Vault does not know is an error that says what to look at."""
    (found,) = check(vault.address, "hvs.planted-token-of-nobody")
    assert found.level == "error"
    assert "credentials" in found.message
    assert "planted-token-of-nobody" not in repr(found)


def test_server_that_is_away() -> None:
    """A server that cannot be reached is an error with what to look at."""
    (found,) = check(f"http://127.0.0.1:{free_port()}", "any")
    assert found.level == "error"
    assert "address" in found.message


def test_sealed_server(kept_vault: KeptVault) -> None:
    """A sealed server is told as that."""
    kept_vault.seal()
    (found,) = check(kept_vault.address, kept_vault.token)
    assert found.level == "error"
    assert "unseal" in found.message


def test_plain_http_is_warned_of() -> None:
    """Requests that leave the machine without TLS are warned of before anything else."""
    warning, error = check("http://192.0.2.1:8200", "any", proxy=f"http://127.0.0.1:{free_port()}")
    assert (warning.level, error.level) == ("warning", "error")
    assert "not encrypted" in warning.message


def test_plain_http_that_was_let_be_is_warned_of(tmp_path: Path) -> None:
    """The setting that lets it be does not silence the doctor."""
    (tmp_path / "token").write_text("any")
    table = {
        "type": "vault",
        "address": "http://192.0.2.1:8200",
        "proxy": f"http://127.0.0.1:{free_port()}",
        "auth": {"method": "token_file", "path": str(tmp_path / "token")},
        "tls": {"allow_plain_http": True},
    }
    found = diagnose({"production": {"backends": {"vault": table}}}, "production").findings
    (warning,) = [each for each in found if "not encrypted" in each.message]
    assert (warning.level, warning.subject) == ("warning", "vault")


def test_doctor_shows_it(vault: Vault, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An operator reads it from `sentra-kms doctor`."""
    vault.policy("diagnosis", LOOK_UP)
    monkeypatch.setenv("KIT_TOKEN", vault.new_token("diagnosis", no_default_policy=True, ttl="1h"))
    (tmp_path / "sentra-kms.toml").write_text(
        "[try]\ndevelopment = true\n[try.backends.vault]\ntype = 'vault'\n"
        f"address = '{vault.address}'\nauth = {{ method = 'token', token = 'env://KIT_TOKEN' }}\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SENTRA_KMS_ENV", "try")
    (told,) = [line for line in run("doctor").stdout.splitlines() if "version 1." in line]
    assert vault.address in told
    assert "policies diagnosis" in told
