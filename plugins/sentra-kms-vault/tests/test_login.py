"""The token in use: got once, renewed, replaced, given up."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from uuid import uuid4

import pytest
from vault_user import MakeUser, User, until

from sentra_kms import (
    AccessDenied,
    AuthenticationFailed,
    KeyMaterial,
    ServiceUnavailable,
    UnsupportedOperation,
)
from sentra_kms.context import WrapContext
from sentra_kms.testing import Bench
from sentra_kms.testing.faults import BlackHole
from sentra_kms.testing.forked import run_forked
from sentra_kms.testing.leaks import all_logs, everything, shows
from sentra_kms.testing.proxy import FaultProxy
from tests.servers.vault_server import Vault, VaultError

pytestmark = pytest.mark.server

PATIENCE = 60.0  # seconds until something that has to happen is given up


class AppRole:
    """A role of a test's own, which may read one secret, and the requests about it."""

    def __init__(self, vault: Vault, name: str, **options: object) -> None:
        self.name = name
        self._vault = vault
        self.path = f"secret/data/{name}"
        vault.write(f"sys/auth/{name}", type="approle")
        vault.write(self.path, data={"a": "b"})
        self.allow()
        vault.write(f"auth/{name}/role/app", token_policies=[name], **options)
        self.given: dict[str, str | bytes] = {
            "ROLE": vault.read(f"auth/{name}/role/app/role-id")["data"]["role_id"],
            "SECRET": vault.write(f"auth/{name}/role/app/secret-id")["data"]["secret_id"],
        }

    def allow(self) -> None:
        """Let the role read its secret."""
        self._vault.policy(
            self.name,
            f'path "{self.path}" {{ capabilities = ["read"] }}\n'
            f'path "transit/*" {{ capabilities = ["read", "update"] }}',
        )

    def table(self, address: str | None = None) -> dict[str, object]:
        """Return a backend's table."""
        auth = {
            "method": "approle", "role_id": "env://ROLE", "secret_id": "env://SECRET",
            "mount": self.name,
        }  # fmt: skip
        return {"address": address or self._vault.address, "auth": auth}

    def logins(self) -> int:
        """Return how often Vault was asked to log in."""
        return len(self._vault.requests(f"auth/{self.name}/login"))

    def reads(self) -> int:
        """Return how often the secret was asked for."""
        return len(self._vault.requests(self.path))


MakeRole = Callable[..., AppRole]


@pytest.fixture
def make_role(vault: Vault) -> Iterator[MakeRole]:
    """Return what makes roles of the test's own."""
    made: list[AppRole] = []

    def make(**options: object) -> AppRole:
        made.append(AppRole(vault, f"login-{uuid4().hex[:12]}", **options))
        return made[-1]

    yield make
    for role in made:
        vault.delete(f"sys/auth/{role.name}")


def held(user: User) -> str:
    """Return the token that is held."""
    found = user.vault.login.held
    assert found is not None
    return found.value


def test_threads_log_in_once(vault: Vault, make_role: MakeRole, make_user: MakeUser) -> None:
    """64 threads at a dead token make one login; as many at none did, too."""
    role = make_role()
    user = make_user(role.table(), role.given)
    ready = threading.Barrier(64)

    def read() -> object:
        ready.wait(PATIENCE)
        return user.read(role.path)["data"]

    for logins in (1, 2):
        with ThreadPoolExecutor(64) as pool:
            found = [future.result(PATIENCE) for future in [pool.submit(read) for _ in range(64)]]
        assert all(found)
        assert role.logins() == logins
        vault.write("auth/token/revoke", token=held(user))


def test_reads_ask_for_nothing_else(vault: Vault, make_role: MakeRole, make_user: MakeUser) -> None:
    """A read is one request: no look whether the token is good goes before it."""
    role = make_role()
    user = make_user(role.table(), role.given)
    lookups = len(vault.requests("auth/token/lookup"))
    for _ in range(50):
        user.read(role.path)
    assert (role.reads(), role.logins()) == (51, 1)  # one of them the test's own write
    assert len(vault.requests("auth/token/lookup")) == lookups


def test_token_revoked(vault: Vault, make_user: MakeUser) -> None:
    """A given token that is revoked is told of; another at the same place is picked up."""
    given: dict[str, str | bytes] = {"T": vault.new_token("default")}
    user = make_user(
        {"address": vault.address, "auth": {"method": "token", "token": "env://T"}}, given
    )
    user.who()
    vault.write("auth/token/revoke", token=given["T"])
    with pytest.raises(AuthenticationFailed, match="login by 'token' with status 403"):
        user.who()
    given["T"] = vault.new_token("default")
    assert user.who()["id"] == given["T"]


def test_token_expired(vault: Vault, make_user: MakeUser) -> None:
    """A given token that has come to its end is told of, before anything is sent with it."""
    token = vault.new_token("default", ttl="1h")
    table = {"address": vault.address, "auth": {"method": "token", "token": "env://T"}}
    user = make_user(table, {"T": token})
    assert user.who()["id"] == token
    life = vault.write("auth/token/renew", token=token, increment="1s")["auth"]["lease_duration"]
    assert life == 1
    login = user.vault.login
    assert login._held is not None
    login._held = login._held._replace(ends=time.monotonic())  # as it would have been told

    def dead() -> bool:
        try:
            vault.ask("GET", "auth/token/lookup-self", token=token)
        except VaultError:
            return True
        return False

    until(dead)
    before = len(vault.requests("sys/mounts"))
    with pytest.raises(AuthenticationFailed, match="login by 'token' with status 403"):
        user.read("sys/mounts")
    assert len(vault.requests("sys/mounts")) == before


def test_policy_removed(vault: Vault, make_role: MakeRole, make_user: MakeUser) -> None:
    """A denial is an `AccessDenied` after one login more, and after none at the next ones."""
    role = make_role()
    user = make_user(role.table(), role.given)
    user.read(role.path)
    vault.delete(f"sys/policies/acl/{role.name}")
    for _ in range(5):
        with pytest.raises(AccessDenied, match="look at the policies of the token"):
            user.read(role.path)
    assert (role.logins(), role.reads()) == (2, 1 + 1 + 6)
    role.allow()
    assert user.read(role.path)["data"]


def test_denied_while_no_login_is_to_be_had(
    vault: Vault, make_role: MakeRole, make_user: MakeUser
) -> None:
    """A denial stays one where a login could not have helped."""
    role = make_role(secret_id_num_uses=1)
    user = make_user(role.table(), role.given)
    user.read(role.path)
    vault.delete(f"sys/policies/acl/{role.name}")
    with pytest.raises(AccessDenied):
        user.read(role.path)
    role.allow()
    assert user.read(role.path)["data"]


def test_policy_added(vault: Vault, make_role: MakeRole, make_user: MakeUser) -> None:
    """A role that was given another policy meanwhile: the login after the denial has it."""
    role = make_role()
    vault.write(f"auth/{role.name}/role/app", token_policies=["default"])
    user = make_user(role.table(), role.given)
    user.who()
    vault.write(f"auth/{role.name}/role/app", token_policies=[role.name])
    assert user.read(role.path)["data"]
    assert role.logins() == 2


@pytest.fixture
def early(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a token renewed after a fifth of its life, so that much is left of it then."""
    monkeypatch.setattr("sentra_kms_vault.login.RENEW_AT", 0.2)


@pytest.mark.usefixtures("early")
def test_renewed_before_its_end(vault: Vault, make_role: MakeRole, make_user: MakeUser) -> None:
    """A token is renewed in the background, and outlives the life that it was given."""
    role = make_role(token_ttl="8s", token_max_ttl="1h")
    user = make_user(role.table(), role.given)
    accessor = user.who()["accessor"]
    before = len(vault.requests("auth/token/renew-self"))
    until(lambda: len(vault.requests("auth/token/renew-self")) >= before + 2)
    found = user.who()
    assert found["accessor"] == accessor
    made, ends = (str(found[each]) for each in ("issue_time", "expire_time"))
    lasts = datetime.fromisoformat(ends) - datetime.fromisoformat(made)
    assert lasts > timedelta(seconds=8.5)
    assert role.logins() == 1


@pytest.mark.slow
@pytest.mark.usefixtures("early")
@pytest.mark.parametrize(
    "options",
    [
        {"token_ttl": "12s", "token_max_ttl": "12s"},
        {"token_ttl": "12s", "token_type": "batch"},
    ],
    ids=["longest life", "cannot be renewed"],
)
def test_replaced_before_its_end(
    vault: Vault, make_role: MakeRole, make_user: MakeUser, options: dict[str, object]
) -> None:
    """A token that cannot be renewed any further is followed by another, before it ends."""
    role = make_role(**options)
    user = make_user(role.table(), role.given)
    user.read(role.path)
    first = held(user)
    until(lambda: role.logins() == 2)
    assert vault.ask("GET", "auth/token/lookup-self", token=first)["data"]["ttl"] >= 0
    until(lambda: held(user) != first)
    assert user.read(role.path)["data"]


@pytest.mark.usefixtures("early")
def test_end_of_a_given_token_is_told(
    vault: Vault, make_user: MakeUser, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A given token near its longest life is warned of, as only its owner can give another."""
    monkeypatch.setattr("sentra_kms_vault.login._CAPPED", 0.9)
    token = vault.new_token("default", ttl="10s", explicit_max_ttl="10s")
    table = {"address": vault.address, "auth": {"method": "token", "token": "env://T"}}
    with all_logs() as logs:
        make_user(table, {"T": token}).who()
        until(lambda: "cannot be renewed any further: give another" in logs.getvalue())
    assert token not in logs.getvalue()


def test_closed_token_is_revoked_and_none_is_got_after(
    vault: Vault, make_role: MakeRole, make_user: MakeUser
) -> None:
    """A closed backend ends its token, and logs in no more, whatever is still under way."""
    role = make_role()
    user = make_user(role.table(), role.given)
    user.read(role.path)
    token = held(user)
    user.close()
    with pytest.raises(VaultError, match="invalid token"):
        vault.ask("GET", "auth/token/lookup-self", token=token)
    with pytest.raises(UnsupportedOperation, match="closed"):
        user.read(role.path)
    assert role.logins() == 1


def test_close_revokes_tokens_that_a_denial_replaced(
    vault: Vault, make_role: MakeRole, make_user: MakeUser
) -> None:
    """A login because of a denial leaves a token behind that is good: it ends with the close."""
    role = make_role()
    user = make_user(role.table(), role.given)
    user.read(role.path)
    first = held(user)
    vault.delete(f"sys/policies/acl/{role.name}")
    with pytest.raises(AccessDenied):
        user.read(role.path)
    second = held(user)
    assert second != first
    for each in (first, second):
        assert vault.ask("GET", "auth/token/lookup-self", token=each)["data"]
    user.close()
    for each in (first, second):
        with pytest.raises(VaultError, match="invalid token"):
            vault.ask("GET", "auth/token/lookup-self", token=each)


def test_close_does_not_wait_for_a_vault_that_is_away(
    vault: Vault, make_role: MakeRole, make_user: MakeUser
) -> None:
    """Closing ends in its own time where Vault does not answer."""
    role = make_role()
    with FaultProxy("127.0.0.1", vault.port) as proxy:
        user = make_user(role.table(proxy.url), role.given)
        user.read(role.path)
        proxy.always(BlackHole())
        closing = threading.Thread(target=user.close, daemon=True)
        closing.start()
        closing.join(PATIENCE)
        assert not closing.is_alive()


def test_process_ends_with_a_token_to_be_renewed(vault: Vault, make_role: MakeRole) -> None:
    """What waits in the background to renew a token keeps no process from ending."""
    role = make_role(token_ttl="1h")
    code = (
        "from vault_user import User\n"
        f"user = User({role.table()!r}, {role.given!r})\n"
        f"user.read({role.path!r})\n"
        "assert user.vault.keeper._thread.is_alive()\n"
        "print('done')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE, check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )  # fmt: skip
    assert (done.stdout, done.returncode) == ("done\n", 0), done.stderr


def bench_table(role: AppRole, monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """Return a table for a bench, with credentials in the environment."""
    names = {name: f"KIT_{role.name}_{name}".replace("-", "_") for name in role.given}
    for name, variable in names.items():
        monkeypatch.setenv(variable, str(role.given[name]))
    table = role.table()
    table["auth"] = {
        "method": "approle", "mount": role.name, "role_id": f"env://{names['ROLE']}",
        "secret_id": f"env://{names['SECRET']}",
    }  # fmt: skip
    return {"type": "vault", **table}


def test_fork(vault: Vault, make_role: MakeRole, monkeypatch: pytest.MonkeyPatch) -> None:
    """Children of a process with a live connection log in by themselves, and disturb nobody."""
    role = make_role()
    vault.write(f"transit/keys/{role.name}", type="aes256-gcm96")
    table = bench_table(role, monkeypatch)
    assert run_forked("vault", table, role.name, None, 3) == "ok"
    assert role.logins() == 1 + 3


@pytest.mark.parametrize("fault", [None, "credentials", "policy", "away"])
def test_silent(
    vault: Vault, make_role: MakeRole, monkeypatch: pytest.MonkeyPatch, fault: str | None
) -> None:
    """Neither logs at DEBUG nor errors, with all that they refer to, show a credential."""
    role = make_role()
    vault.write(f"transit/keys/{role.name}", type="aes256-gcm96")
    secret_id = str(role.given["SECRET"])
    if fault == "credentials":
        vault.write(f"auth/{role.name}/role/app/secret-id/destroy", secret_id=secret_id)
    if fault == "policy":
        vault.delete(f"sys/policies/acl/{role.name}")
    table = bench_table(role, monkeypatch)
    if fault == "away":
        table["address"] = "http://127.0.0.1:9"
    with all_logs() as logs:
        told = told_of_a_wrap(table, role.name, fails=fault is not None)
    for each in (secret_id, str(role.given["ROLE"])):
        assert not shows(logs.getvalue(), each.encode()), "a log shows it"
        assert not shows(told, each.encode()), "an error shows it"
    assert "hvs." not in logs.getvalue() + told, "a token is shown"


def told_of_a_wrap(table: dict[str, object], key: str, *, fails: bool) -> str:
    """Return what errors and events tell of one, in a frame that knows no credential."""
    bench = Bench("vault", table)
    told = ""
    try:
        bench.binding.wrap_key(key, KeyMaterial(bytes(32)), WrapContext("acme", bytes(12), 1))
        assert not fails
    except (AuthenticationFailed, AccessDenied, ServiceUnavailable) as error:
        told = everything(error)
    assert bool(told) == fails
    told += repr(bench.events) + repr(vars(bench.binding))
    bench.close()
    return told
