"""Tokens that somebody made for us: given, in variables, in an agent's file."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from sentra_kms_vault.auth.means import Means
from sentra_kms_vault.pace import Pace
from vault_user import MakeUser

from sentra_kms import AuthenticationFailed, ConfigurationError, SecretNotFound
from tests.servers.vault_server import Vault

pytestmark = pytest.mark.server


def test_token(vault: Vault, make_user: MakeUser) -> None:
    """A token at a reference is used; it may end in the newline of a file."""
    token = vault.new_token("default")
    auth = {"method": "token", "token": "env://T"}
    user = make_user({"address": vault.address, "auth": auth}, {"T": f"{token}\n"})
    assert user.who()["id"] == token


def test_tokens_of_the_environment(
    vault: Vault, make_user: MakeUser, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A token at a reference comes before VAULT_TOKEN, and that before BAO_TOKEN; empty is none."""
    tokens = [vault.new_token("default") for _ in range(3)]
    monkeypatch.setenv("BAO_TOKEN", tokens[2])
    monkeypatch.setenv("VAULT_TOKEN", "")
    assert make_user({"address": vault.address}).who()["id"] == tokens[2]
    monkeypatch.setenv("VAULT_TOKEN", tokens[1])
    assert make_user({"address": vault.address}).who()["id"] == tokens[1]
    auth = {"method": "token", "token": "env://T"}
    user = make_user({"address": vault.address, "auth": auth}, {"T": tokens[0]})
    assert user.who()["id"] == tokens[0]


def test_no_token(vault: Vault, make_user: MakeUser) -> None:
    """Without any, it is said what to give."""
    with pytest.raises(AuthenticationFailed, match="VAULT_TOKEN, or use another method"):
        make_user({"address": vault.address}).who()


@pytest.mark.parametrize(
    "planted", ["planted token-with-a-space", "planted\ntoken", "plänted-token"]
)
def test_token_that_fits_no_header(
    vault: Vault, make_user: MakeUser, monkeypatch: pytest.MonkeyPatch, planted: str
) -> None:
    """A token that an HTTP client would refuse, and show, is refused before."""
    monkeypatch.setenv("VAULT_TOKEN", planted)
    with pytest.raises(ConfigurationError) as caught:
        make_user({"address": vault.address}).who()
    assert str(caught.value) == "VAULT_TOKEN is no line of printable ASCII without spaces"


def test_credential_that_is_nowhere(vault: Vault, make_user: MakeUser) -> None:
    """A missing credential is no missing secret: a chain of references must not go on."""
    auth = {"method": "token", "token": "env://T"}
    with pytest.raises(AuthenticationFailed, match="is not at env://T: put it there") as caught:
        make_user({"address": vault.address, "auth": auth}).who()
    assert not isinstance(caught.value, SecretNotFound)


def test_token_that_may_not_look_at_itself(vault: Vault, make_user: MakeUser) -> None:
    """A token without any policy is used all the same."""
    vault.policy("read-only-one", 'path "secret/data/methods-one" { capabilities = ["read"] }')
    vault.write("secret/data/methods-one", data={"a": "b"})
    token = vault.new_token("read-only-one", no_default_policy=True)
    auth = {"method": "token", "token": "env://T"}
    user = make_user({"address": vault.address, "auth": auth}, {"T": token})
    assert user.read("secret/data/methods-one")["data"]


def test_token_file(vault: Vault, make_user: MakeUser, tmp_path: Path) -> None:
    """The file is read again when it is another: replaced as agents do it, or written over."""
    file = tmp_path / "token"
    tokens = [vault.new_token("default") for _ in range(3)]
    file.write_text(tokens[0])
    auth = {"method": "token_file", "path": str(file)}
    user = make_user({"address": vault.address, "auth": auth})
    assert user.who()["id"] == tokens[0]
    (tmp_path / "new").write_text(f"{tokens[1]}\n")
    os.replace(tmp_path / "new", file)
    assert user.who()["id"] == tokens[1]
    file.write_text(tokens[2])
    os.utime(file, ns=(1, 1))
    assert user.who()["id"] == tokens[2]


def test_token_file_while_it_is_written(vault: Vault, make_user: MakeUser, tmp_path: Path) -> None:
    """While the file is away or empty, the token that was read is used on."""
    file = tmp_path / "token"
    token = vault.new_token("default")
    file.write_text(token)
    auth = {"method": "token_file", "path": str(file)}
    user = make_user({"address": vault.address, "auth": auth})
    user.who()
    file.write_text("")
    assert user.who()["id"] == token
    file.unlink()
    assert user.who()["id"] == token


def test_token_file_with_a_dead_token(vault: Vault, make_user: MakeUser, tmp_path: Path) -> None:
    """A file whose new token is refused is told of at each request, until it is another."""
    file = tmp_path / "token"
    token = vault.new_token("default")
    file.write_text(token)
    auth = {"method": "token_file", "path": str(file)}
    user = make_user({"address": vault.address, "auth": auth})
    user.who()
    file.write_text("planted-dead-token")
    for _ in range(2):
        with pytest.raises(AuthenticationFailed, match="login by 'token_file' with status 403"):
            user.who()
    file.write_text(token)
    assert user.who()["id"] == token


def test_token_file_that_does_not_change_is_read_once(
    vault: Vault, make_user: MakeUser, tmp_path: Path
) -> None:
    """Reads are not preceded by look-ups of the token."""
    file = tmp_path / "token"
    file.write_text(vault.new_token("default"))
    before = len(vault.requests("auth/token/lookup-self"))
    auth = {"method": "token_file", "path": str(file)}
    user = make_user({"address": vault.address, "auth": auth})
    for _ in range(20):
        user.read("sys/health")
    assert len(vault.requests("auth/token/lookup-self")) == before + 1


def test_token_file_of_home(
    vault: Vault, make_user: MakeUser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a path it is the file that `vault login` writes."""
    monkeypatch.setenv("HOME", str(tmp_path))
    token = vault.new_token("default")
    (tmp_path / ".vault-token").write_text(token)
    user = make_user({"address": vault.address, "auth": {"method": "token_file"}})
    assert user.who()["id"] == token


@pytest.mark.parametrize("kind", ["missing", "directory", "fifo", "large"])
def test_token_file_that_is_none(
    vault: Vault, make_user: MakeUser, tmp_path: Path, kind: str
) -> None:
    """What cannot be read as a token is named, and nothing waits for it."""
    file = tmp_path / "token"
    match kind:
        case "directory":
            file.mkdir()
        case "fifo":
            os.mkfifo(file)
        case "large":
            file.write_text("x" * 70_000)
        case _:
            pass
    auth = {"method": "token_file", "path": str(file)}
    with pytest.raises((AuthenticationFailed, ConfigurationError), match=str(file)):
        make_user({"address": vault.address, "auth": auth}).who()


def test_token_of_others_is_not_revoked(vault: Vault, make_user: MakeUser, tmp_path: Path) -> None:
    """On close a token that was given to us lives on."""
    token = vault.new_token("default")
    (tmp_path / "token").write_text(token)
    by_reference = {"method": "token", "token": "env://T"}
    by_file = {"method": "token_file", "path": str(tmp_path / "token")}
    for auth in (by_reference, by_file):
        user = make_user({"address": vault.address, "auth": auth}, {"T": token})
        user.who()
        user.close()
        assert vault.ask("GET", "auth/token/lookup-self", token=token)


def test_nothing_is_read_before_the_first_call() -> None:
    """Importing the package with the plugin installed but not configured loads no client."""
    code = (
        "import sys, sentra_kms;"
        "kms = sentra_kms.load({'x': {'development': True, 'backends': "
        "{'m': {'type': 'memory'}}, 'keys': {'wrap_with': ['m:k'], 'store': 'm'}}}, 'x');"
        "loaded = {'hvac', 'requests', 'urllib3', 'sentra_kms_vault'} & set(sys.modules);"
        "print(loaded); sys.exit(bool(loaded))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_means_show_nothing(vault: Vault, make_user: MakeUser) -> None:
    """What a way to log in is given, and a call with its token, print no secret."""
    auth = {"method": "token", "token": "env://T"}
    user = make_user({"address": vault.address, "auth": auth}, {"T": vault.token})
    user.who()
    call = user.vault.call(5.0)
    shown = f"{call!r} {vars(call)!r} {user.vault.login!r} {vars(user.vault.login)!r}"
    made = Pace(), lambda _: call, lambda _, __: call
    shown += repr(Means(user.host, user.vault.connection, ("somewhere",), *made))
    assert vault.token not in shown
