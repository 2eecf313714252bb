"""The command line with secrets under leases, which must not end before what they are for."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.servers import vault_database
from tests.servers.lifeline import wait_until
from tests.servers.vault_database import Database

pytestmark = pytest.mark.server

_POLICY = """
path "database/creds/*" { capabilities = ["read"] }
path "sys/leases/revoke" { capabilities = ["update"] }
path "auth/token/lookup-self" { capabilities = ["read"] }
"""
_CONFIG = """
[own]
development = true
[own.backends.vault]
type = "vault"
address = "{address}"
auth = {{ method = "token", token = "env://OWN_TOKEN" }}
mounts = {{ database = "dynamic" }}
timeout = "60s"
[own.secrets.LOGIN]
template = "host=127.0.0.1 port={port} dbname=postgres user={{user}} password={{password}}"
user = "vault://database/creds/command#username"
password = "vault://database/creds/command#password"
[own.secrets.USER]
from = "vault://database/creds/command#username"
"""
_USE = """
import os, psycopg
where = os.environ.get("LOGIN") or open(os.environ["LOGIN_FILE"]).read()
print(psycopg.connect(where).execute("select 'let in'").fetchone()[0], flush=True)
"""


@pytest.fixture(scope="module")
def database() -> Iterator[Database]:
    """Return both servers, and the role that the configuration names."""
    with vault_database.running() as database:
        database.role("command", "1h", "24h")
        database.vault.policy("own-command", _POLICY)
        yield database


@pytest.fixture(autouse=True)
def _home(database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = _CONFIG.format(address=database.vault.address, port=database.server.port)
    Path("sentra-kms.toml").write_text(text, encoding="utf-8")
    monkeypatch.setenv("OWN_TOKEN", database.vault.new_token("own-command"))
    monkeypatch.setenv("SENTRA_KMS_ENV", "own")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, sys.path)))


def _command(*words: str) -> list[str]:
    return [sys.executable, "-m", "sentra_kms.cli", *words]


def _run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(_command(*words), capture_output=True, text=True, check=False)


def _none_left(database: Database) -> None:
    def check() -> None:
        assert database.leases("command") == []

    wait_until(check)


@pytest.mark.parametrize("mode", [[], ["--mask"], ["--files"]], ids=str)
def test_login_lasts_as_long_as_the_command(database: Database, mode: list[str]) -> None:
    """A command is let in by what was made for it, and that is taken back when it has ended."""
    done = _run("exec", *mode, "--", sys.executable, "-c", f"{_USE}\nraise SystemExit(7)")
    assert (done.returncode, done.stdout, done.stderr) == (7, "let in\n", "")
    _none_left(database)


@pytest.mark.parametrize("name", ["SIGTERM", "SIGKILL"])
def test_login_is_taken_back_after_a_signal(database: Database, name: str) -> None:
    """So it is when a signal ended the command, and this process ends by the same."""
    number = getattr(signal, name)
    use = f"{_USE}\nimport signal\nos.kill(os.getpid(), {int(number)})\nsignal.pause()"
    done = _run("exec", "--", sys.executable, "-c", use)
    assert (done.returncode, done.stdout) == (-number, "let in\n")
    _none_left(database)


def test_signal_to_exec_ends_the_command_and_its_login(database: Database) -> None:
    """What is sent to this process reaches the command, and then the login is taken back."""
    use = f"{_USE}\nimport signal\nsignal.pause()"
    with subprocess.Popen(
        _command("exec", "--", sys.executable, "-c", use), stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "let in\n"
        assert len(database.leases("command")) == 1
        child.terminate()
    assert child.returncode == -signal.SIGTERM
    _none_left(database)


def test_command_that_cannot_be_run(database: Database) -> None:
    """What was made for nothing is taken back, too."""
    assert _run("exec", "--", "./no-such-program").returncode == 127
    _none_left(database)


def test_how_the_command_ended_counts(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """A login that cannot be taken back is told, and the exit code is the command's."""
    database.vault.policy("own-keeping", _POLICY.replace("sys/leases/revoke", "sys/x"))
    monkeypatch.setenv("OWN_TOKEN", database.vault.new_token("own-keeping", no_default_policy=True))
    done = _run("exec", "--", sys.executable, "-c", f"{_USE}\nraise SystemExit(3)")
    assert (done.returncode, done.stdout) == (3, "let in\n")
    assert "leases that were not revoked" in done.stderr
    database.revoke("command")


@pytest.mark.parametrize("name", ["LOGIN", "USER"])
def test_values_that_would_be_dead_are_not_given_out(database: Database, name: str) -> None:
    """Neither in a file nor on standard output: they would end before anybody could use them."""
    Path("app.tmpl").write_text(f"login = {{{{ {name} }}}}\n", encoding="utf-8")
    for words in (
        ("render", "app.tmpl", "--out", "app.ini"),
        ("render", "app.tmpl"),
        ("secret", "get", "--reveal", name),
    ):
        done = _run(*words, "--json" if "--out" in words else "--env=own")
        assert done.returncode != 0, words
        assert done.stdout == ""
        assert f"{name} is leased" in done.stderr
        assert "sentra-kms exec" in done.stderr
    assert not Path("app.ini").exists()
    _none_left(database)


def test_looks_at_a_login_are_no_use_of_it(database: Database) -> None:
    """`secret check`, and `get` without --reveal, tell that it can be had and leave none."""
    done = _run("secret", "check", "--json")
    assert done.returncode == 0
    assert [each["usable"] for each in json.loads(done.stdout)["secrets"]] == [True, True]
    assert _run("secret", "get", "LOGIN").returncode == 0
    _none_left(database)
