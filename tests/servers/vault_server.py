"""A real Vault (or OpenBao) of this test run's own, on loopback.

`running()` is one in development mode, in memory: for most tests. `KeptVault` is one on disk that
is initialised, unsealed, sealed, stopped, killed and started again.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Self

import urllib3

from tests.needs import need
from tests.servers.lifeline import free_port, serving, wait_until
from tests.servers.vault_binary import provide_vault

ROOT_TOKEN = "planted-root-token"


class VaultError(Exception):
    """What the server answered a request of a test's own."""

    def __init__(self, status: int, body: str) -> None:
        super().__init__(f"{status}: {body}")
        self.status = status


class AuditLog:
    """The requests in a server's audit log, of which each look reads only what is new.

    The log of a long run is tens of megabytes, and tests look every few milliseconds.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._read = 0  # bytes
        self._requests: list[dict[str, Any]] = []

    def requests(self) -> Sequence[dict[str, Any]]:
        """Return all requests so far, the oldest first."""
        with self.path.open("rb") as file:
            file.seek(self._read)
            whole, newline, _ = file.read().rpartition(b"\n")  # the last line may be under way
        self._read += len(whole) + len(newline)
        entries: list[dict[str, Any]] = [json.loads(line) for line in whole.splitlines() if line]
        self._requests += [entry["request"] for entry in entries if entry["type"] == "request"]
        return self._requests


class Vault:
    """A server that runs, and a test's own way to it, beside the plugin's."""

    def __init__(self, address: str, token: str, audit_log: Path | None = None) -> None:
        self.address = address
        self.token = token
        self.audit_log = None if audit_log is None else AuditLog(audit_log)
        self._pool = urllib3.PoolManager(retries=False, timeout=60.0)
        self.process: subprocess.Popen[bytes] | None = None  # none of one at VAULT_ADDR

    @property
    def port(self) -> int:
        """The port on loopback."""
        return int(self.address.rpartition(":")[2])

    def ask(
        self,
        method: str,
        path: str,
        body: Mapping[str, object] | None = None,
        *,
        token: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        """Send a request to `/v1/PATH` as root, or with another token; raise `VaultError`."""
        answer = self._pool.request(
            method,
            f"{self.address}/v1/{path}",
            body=None if body is None else json.dumps(body),
            headers={"X-Vault-Token": self.token if token is None else token, **(headers or {})},
        )
        if answer.status >= 400:
            raise VaultError(answer.status, answer.data.decode())
        return json.loads(answer.data) if answer.data else {}

    def read(self, path: str) -> dict[str, Any]:
        """Return what is there."""
        return self.ask("GET", path)

    def write(self, path: str, **body: object) -> dict[str, Any]:
        """Write, and return the answer."""
        return self.ask("POST", path, body)

    def delete(self, path: str) -> None:
        """Delete what is there."""
        self.ask("DELETE", path)

    def policy(self, name: str, text: str) -> None:
        """Write a policy of HCL."""
        self.ask("PUT", f"sys/policies/acl/{name}", {"policy": text})

    def new_token(self, *policies: str, **options: object) -> str:
        """Return a new orphan token with these policies."""
        made = self.write("auth/token/create-orphan", policies=list(policies), **options)
        token: str = made["auth"]["client_token"]
        return token

    def requests(self, *parts: str) -> Sequence[dict[str, Any]]:
        """Return the requests in the server's own audit log whose path has each of these parts.

        A server that was given by VAULT_ADDR has none that could be read: the test is left out.
        """
        need(self.audit_log, "a Vault of the tests' own to count requests in (VAULT_ADDR is set)")
        assert self.audit_log is not None
        return [
            request
            for request in self.audit_log.requests()
            if all(part in request.get("path", "") for part in parts)
        ]

    def wait_until(self, ready: Callable[[], object]) -> None:
        """Call `ready` until it raises nothing, as long as the server runs."""
        wait_until(ready, self.process)

    def list(self, path: str) -> list[str]:
        """Return the keys under a path."""
        try:
            found: list[str] = self.ask("LIST", path)["data"]["keys"]
        except VaultError as error:
            if error.status != 404:
                raise
            return []
        return found


@contextmanager
def running(plugins: Path | None = None) -> Iterator[Vault]:
    """Run a server in development mode for as long as the block lasts, with an audit log.

    It has what development mode has: KV version 2 at `secret`; and transit at `transit`. `plugins`
    is the directory of programs that may be registered. With `VAULT_ADDR` set, that server is
    used, with `VAULT_TOKEN`, and no audit log.
    """
    address = os.environ.get("VAULT_ADDR")
    if address:
        vault = Vault(address, os.environ.get("VAULT_TOKEN", ROOT_TOKEN))
        _mount_transit(vault)
        yield vault
        return
    program = provide_vault()
    need(program, "HashiCorp Vault or OpenBao, or Go to build it")
    port = free_port()
    words = [
        str(program), "server", "-dev", f"-dev-root-token-id={ROOT_TOKEN}",
        f"-dev-listen-address=127.0.0.1:{port}", "-dev-no-store-token",
        *([] if plugins is None else [f"-dev-plugin-dir={plugins}"]),
    ]  # fmt: skip
    with (
        tempfile.TemporaryDirectory(prefix="sentra-kms-vault-") as home,
        serving(words, env=_environment(home)) as process,
    ):
        vault = Vault(f"http://127.0.0.1:{port}", ROOT_TOKEN, Path(home) / "audit.log")
        vault.process = process
        vault.wait_until(lambda: vault.read("sys/health"))
        _mount_transit(vault)
        _audit(vault)
        yield vault


class KeptVault(Vault):
    """A server on disk. Made by `kept`; it starts sealed or not, as it was left."""

    def __init__(self, program: Path, home: Path, *, tls: Mapping[str, str] | None = None) -> None:
        port = free_port()
        scheme = "https" if tls else "http"
        super().__init__(f"{scheme}://127.0.0.1:{port}", "", home / "audit.log")
        self._program = program
        self._home = home
        self._key = ""
        self._running: ExitStack | None = None
        self._pid_file = home / "pid"
        cluster = f"127.0.0.1:{free_port()}"
        listener: dict[str, object] = {
            "address": f"127.0.0.1:{port}",
            "cluster_address": cluster,  # else the port after the other, which may be taken
        }
        if tls:
            listener |= tls
            self._pool = urllib3.PoolManager(
                retries=False, timeout=60.0, ca_certs=tls["tls_client_ca_file"],
                cert_file=tls["tls_cert_file"], key_file=tls["tls_key_file"],
            )  # fmt: skip
        else:
            listener["tls_disable"] = True
        (home / "data").mkdir()
        (home / "config.json").write_text(
            json.dumps(
                {
                    "storage": {
                        "raft": {
                            "path": str(home / "data"),
                            "node_id": "one",
                            "performance_multiplier": 1,  # it elects itself, and soon
                        }
                    },
                    "cluster_addr": f"http://{cluster}",
                    "listener": {"tcp": listener},
                    "api_addr": self.address,
                    "disable_mlock": True,
                    "pid_file": str(self._pid_file),
                }
            )
        )

    def __enter__(self) -> Self:
        self.start()
        made = self.ask("PUT", "sys/init", {"secret_shares": 1, "secret_threshold": 1})
        self._key, self.token = made["keys_base64"][0], made["root_token"]
        self.unseal()
        self.write("sys/mounts/secret", type="kv", options={"version": "2"})
        self.wait_until(lambda: self.write("secret/config", max_versions=0))
        _mount_transit(self)
        _audit(self)
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start it; it is sealed then."""
        self._running = ExitStack()
        words = [str(self._program), "server", f"-config={self._home / 'config.json'}"]
        run = serving(words, env=_environment(str(self._home)))
        self.process = self._running.enter_context(run)
        self.wait_until(lambda: self.read("sys/seal-status"))

    def stop(self) -> None:
        """Stop it as an operator does."""
        if self._running is not None:
            self._running.close()
            self._running = None

    def kill(self) -> None:
        """End it with SIGKILL."""
        with suppress(ProcessLookupError):
            os.kill(int(self._pid_file.read_text()), signal.SIGKILL)
        self.stop()

    def seal(self) -> None:
        """Seal it: it forgets its keys."""
        self.ask("PUT", "sys/seal")

    def unseal(self) -> None:
        """Unseal it, and wait until it serves."""
        self.ask("PUT", "sys/unseal", {"key": self._key})
        self.wait_until(lambda: self.read("sys/health"))


@contextmanager
def kept(tls: Mapping[str, str] | None = None) -> Iterator[KeptVault]:
    """Run a server on disk, unsealed, for as long as the block lasts.

    `tls` names PEM files, as the server's listener does: `tls_cert_file`, `tls_key_file` and
    `tls_client_ca_file`; the test's own requests use the same certificate.
    """
    program = provide_vault()
    need(program, "HashiCorp Vault or OpenBao, or Go to build it")
    assert program is not None
    with (
        tempfile.TemporaryDirectory(prefix="sentra-kms-vault-") as home,
        KeptVault(program, Path(home), tls=tls) as vault,
    ):
        yield vault


def _environment(home: str) -> dict[str, str]:
    """Keep a server away from the caller's own Vault."""
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("VAULT_", "BAO_"))
    }
    return {**kept, "HOME": home}


def _mount_transit(vault: Vault) -> None:
    if "transit/" not in vault.read("sys/mounts")["data"]:
        vault.write("sys/mounts/transit", type="transit")


def _audit(vault: Vault) -> None:
    assert vault.audit_log is not None
    options = {"file_path": str(vault.audit_log.path)}
    vault.ask("PUT", "sys/audit/file", {"type": "file", "options": options})
