"""Secrets made on demand: a real Vault makes logins in a real PostgreSQL, and takes them back."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sentra_kms_vault import secrets as secrets_module
from sentra_kms_vault.deadline import Deadline
from sentra_kms_vault.lease import Issued, Lease
from sentra_kms_vault.leases import Leases
from sentra_kms_vault.login import Token
from sqlalchemy import text

import sentra_kms
from sentra_kms import (
    AccessDenied,
    ConfigurationError,
    KMSError,
    MalformedInput,
    SecretNotFound,
    ServiceUnavailable,
)
from sentra_kms.contrib.sqlalchemy import rotating_engine
from sentra_kms.hooktypes import Finding, SecretRequest, SecretValue
from sentra_kms.reference import Reference
from sentra_kms.runtime import KMS
from sentra_kms.testing import Bench
from sentra_kms.testing.base import together
from sentra_kms.testing.faults import CutAfterRequest, Garbage, Reset
from sentra_kms.testing.proxy import FaultProxy
from tests.servers import vault_database
from tests.servers.vault_database import Database

pytestmark = pytest.mark.server

PATIENCE = 60.0
_NUMBERS = itertools.count()
_POLICY = """
path "database/creds/*" { capabilities = ["read"] }
path "sys/leases/lookup" { capabilities = ["update"] }
path "sys/leases/renew" { capabilities = ["update"] }
path "sys/leases/revoke" { capabilities = ["update"] }
path "sys/capabilities-self" { capabilities = ["update"] }
path "auth/token/lookup-self" { capabilities = ["read"] }
"""


@pytest.fixture(scope="module")
def database() -> Iterator[Database]:
    """Return both servers."""
    with vault_database.running() as database:
        yield database


@pytest.fixture
def proxy(database: Database) -> Iterator[FaultProxy]:
    """Return what stands between the backend and Vault."""
    with FaultProxy("127.0.0.1", database.vault.port) as proxy:
        yield proxy


@pytest.fixture
def bench(
    database: Database, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Bench]:
    """Return the backend, with the rights that leases need, behind the proxy."""
    bench = _bench(database, proxy, monkeypatch)
    yield bench
    bench.close()


@pytest.fixture
def role(database: Database) -> str:
    """Return the name of a role of this test's own; its leases live long."""
    return _role(database, "1h", "24h")


@pytest.fixture
def early(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a lease due after 0.1 to 0.25 of its life, so that much is left when it is renewed."""
    monkeypatch.setattr("sentra_kms_vault.lease.RENEW_AT", 0.25)


def _role(database: Database, default_ttl: str, max_ttl: str) -> str:
    name = f"own-{next(_NUMBERS)}"
    database.role(name, default_ttl, max_ttl)
    return name


def _bench(
    database: Database,
    proxy: FaultProxy,
    monkeypatch: pytest.MonkeyPatch,
    policy: str = _POLICY,
    **options: object,
) -> Bench:
    name = f"own-{next(_NUMBERS)}"
    database.vault.policy(name, policy)
    token = database.vault.new_token(name, no_default_policy=True, **options)
    monkeypatch.setenv("OWN_TOKEN", token)
    return Bench("vault", _table(proxy))


def _table(proxy: FaultProxy) -> dict[str, Any]:
    return {
        "type": "vault",
        "address": proxy.url,
        "auth": {"method": "token", "token": "env://OWN_TOKEN"},
        "mounts": {"database": "dynamic"},
        "timeout": "60s",  # so that a busy machine is no fault
    }


def _fetch(bench: Bench, role: str) -> SecretValue:
    reference = Reference(f"vault://database/creds/{role}")
    return bench.binding.fetch_secret(SecretRequest(reference))


def _login(found: SecretValue) -> tuple[str, str]:
    fields: Mapping[str, str] = json.loads(found.data.reveal())
    return fields["username"], fields["password"]


def _left(bench: Bench, found: SecretValue) -> float:
    """Return the seconds until a value expires; the bench's clock stands."""
    assert found.expires is not None
    return found.expires.timestamp() - bench.clock()


def _wait(true: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.05)


def _refused(kind: type[KMSError], call: Callable[[], object]) -> str:
    with pytest.raises(kind) as caught:
        call()
    assert type(caught.value) is kind
    return caught.value.message


def test_login_works_and_is_taken_back(
    database: Database, bench: Bench, proxy: FaultProxy, role: str
) -> None:
    """What is made on demand lets in, says when it ends, and is gone after the close."""
    found = _fetch(bench, role)
    user, password = _login(found)
    assert database.lets_in(user, password)
    assert 3590 < _left(bench, found) <= 3600
    assert found.created is not None
    assert found.created.timestamp() == pytest.approx(bench.clock(), abs=0.001)
    before = len(proxy.requests())
    bench.close()
    assert len(proxy.requests()) == before + 1  # before the connections went, and with one token
    _wait(lambda: not database.lets_in(user, password))
    assert database.leases(role) == []


def test_one_lease_is_used_again(
    database: Database, bench: Bench, proxy: FaultProxy, role: str
) -> None:
    """Fetches share a lease that is good; each is one request."""
    first = _fetch(bench, role)
    for _ in range(5):
        before = len(proxy.requests())
        assert _login(_fetch(bench, role)) == _login(first)
        assert len(proxy.requests()) == before + 1
    assert len(database.leases(role)) == 1


def test_each_path_has_its_own(database: Database, bench: Bench, role: str) -> None:
    """Another role's login is another."""
    other = _role(database, "1h", "24h")
    assert _login(_fetch(bench, role)) != _login(_fetch(bench, other))
    assert (len(database.leases(role)), len(database.leases(other))) == (1, 1)


def test_many_threads_have_one_made(database: Database, bench: Bench, role: str) -> None:
    """32 threads that ask at once get one login."""
    ends = together(32, lambda _: _login(_fetch(bench, role)), PATIENCE)
    assert len(set(map(str, ends))) == 1, ends
    assert isinstance(ends[0], tuple)
    assert len(database.leases(role)) == 1


def test_failure_is_shared_by_who_waited(
    bench: Bench, proxy: FaultProxy, role: str, database: Database
) -> None:
    """Threads that waited for a request that failed take its error, and do not all try."""
    _fetch(bench, _role(database, "1h", "24h"))  # so that the login is no part of it
    before = len(proxy.requests())
    proxy.always(CutAfterRequest())
    ends = together(16, lambda _: _fetch(bench, role), PATIENCE)
    assert {type(end) for end in ends} == {ServiceUnavailable}
    assert len(proxy.requests()) - before < 16


def test_lost_answer_is_not_asked_for_again(
    database: Database, bench: Bench, proxy: FaultProxy, role: str
) -> None:
    """A request that makes a login is sent once, though its answer was lost; the next makes one."""
    _fetch(bench, _role(database, "1h", "24h"))
    proxy.script(CutAfterRequest())
    before = len(proxy.requests())
    told = _refused(ServiceUnavailable, lambda: _fetch(bench, role))
    assert "the connection broke" in told
    assert len(proxy.requests()) == before + 1
    _wait(lambda: len(database.leases(role)) == 1)  # which ends by itself
    assert database.lets_in(*_login(_fetch(bench, role)))
    assert len(database.leases(role)) == 2


def test_answer_of_somebody_on_the_way_is_an_outage(
    database: Database, bench: Bench, proxy: FaultProxy, role: str
) -> None:
    """What is no answer of Vault's to a request for a login says nothing of the configuration."""
    _fetch(bench, _role(database, "1h", "24h"))
    # It says that it closes: a request for a login that finds it closed is not sent once more.
    head = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\n"
    proxy.script(Garbage(head + b"{}"))
    _refused(ServiceUnavailable, lambda: _fetch(bench, role))
    assert database.lets_in(*_login(_fetch(bench, role)))


_PAGE = b"HTTP/1.1 %d No\r\nConnection: close\r\nContent-Length: 4\r\n\r\n<p/>"


@pytest.mark.parametrize("status", [400, 403, 500])
@pytest.mark.parametrize("asked", ["to look up", "to renew"])
def test_lease_is_not_given_up_for_a_page_of_a_proxy(
    database: Database, bench: Bench, proxy: FaultProxy, role: str, status: int, asked: str
) -> None:
    """That a lease is gone, or not renewed, is believed of Vault alone: else none is replaced."""
    login = _login(_fetch(bench, role))
    lease = _part(bench)._leases._held()[f"database/creds/{role}"].lease
    if asked == "to renew":
        lease.spare = 3601.0  # it is due
    proxy.always(Garbage(_PAGE % status))
    assert asked in _refused(_ON_THE_WAY[status], lambda: _fetch(bench, role))
    proxy.always(None)
    lease.spare = 1200.0
    assert _login(_fetch(bench, role)) == login
    assert len(database.leases(role)) == 1


_ON_THE_WAY = {400: MalformedInput, 403: AccessDenied, 500: ServiceUnavailable}


def test_close_does_not_take_a_page_of_a_proxy_for_a_revocation(
    bench: Bench, proxy: FaultProxy, role: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A lease that nobody took back is told of."""
    _fetch(bench, role)
    proxy.always(Garbage(_PAGE % 400))
    bench.close()
    assert "leases that were not revoked" in caplog.text


def test_revoked_lease_is_replaced(database: Database, bench: Bench, role: str) -> None:
    """What an operator revoked is not given out again: the next fetch has another made."""
    revoked = _login(_fetch(bench, role))
    database.revoke(role)
    new = _login(_fetch(bench, role))
    assert new != revoked
    assert database.lets_in(*new)
    assert not database.lets_in(*revoked)


def test_lease_that_comes_to_be_due_while_it_is_looked_up_is_renewed(
    database: Database, bench: Bench, role: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not replaced, as long as Vault lets it live on."""
    login = _login(_fetch(bench, role))
    look_up = Leases._look_up
    renewals = len(database.vault.requests("sys/leases/renew"))

    def long(self: Leases, lease: Lease, subject: str, deadline: Deadline) -> None:
        look_up(self, lease, subject, deadline)
        lease.ends = time.monotonic() + lease.spare - 1

    monkeypatch.setattr(Leases, "_look_up", long)
    assert _login(_fetch(bench, role)) == login
    assert len(database.vault.requests("sys/leases/renew")) == renewals + 1


def test_lease_goes_with_its_token(
    database: Database, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch, role: str
) -> None:
    """A login ends with the token that it was made under, and says so."""
    bench = _bench(database, proxy, monkeypatch, ttl="5m", explicit_max_ttl="5m")
    first = _fetch(bench, role)
    assert _left(bench, first) <= 300
    bench.close()


def test_lease_of_a_token_that_was_replaced(
    database: Database, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch, role: str
) -> None:
    """Before the earlier token ends, and its login with it, another is made under the newer one."""
    bench = _bench(database, proxy, monkeypatch, ttl="30s", explicit_max_ttl="30s")
    first = _fetch(bench, role)
    assert _left(bench, first) <= 30
    assert _login(_fetch(bench, role)) == _login(first)  # another would end with it, too
    _token(monkeypatch, database)
    _part(bench)._vault.login._held = None  # as when the token's source has another
    second = _fetch(bench, role)
    assert _login(second) != _login(first)
    assert _left(bench, second) > 30
    assert database.lets_in(*_login(first))
    bench.close()


def test_token_revoked_with_its_leases(
    database: Database, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch, role: str
) -> None:
    """After the token was revoked and another is there, another login is made under it."""
    bench = _bench(database, proxy, monkeypatch)
    first = _login(_fetch(bench, role))
    database.vault.write("auth/token/revoke", token=os.environ["OWN_TOKEN"])
    _token(monkeypatch, database)
    _wait(lambda: not database.lets_in(*first))
    second = _login(_fetch(bench, role))
    assert second != first
    assert database.lets_in(*second)
    bench.close()


def _token(monkeypatch: pytest.MonkeyPatch, database: Database) -> str:
    """Put another token in the place of the one that is there."""
    name = f"own-{next(_NUMBERS)}"
    database.vault.policy(name, _POLICY)
    token = database.vault.new_token(name)
    monkeypatch.setenv("OWN_TOKEN", token)
    return token


@pytest.mark.usefixtures("early")
def test_renewed_past_its_first_time(database: Database, bench: Bench) -> None:
    """In the background a lease is renewed, so that the login outlives its default time."""
    role = _role(database, "10s", "1h")
    login = _login(_fetch(bench, role))
    (lease,) = database.leases(role)
    _wait(lambda: database.lasts(lease) > timedelta(seconds=10.5))  # and nobody asks meanwhile
    assert database.lets_in(*login)
    assert _login(_fetch(bench, role)) == login
    assert database.leases(role) == [lease]


def _overlap(database: Database, bench: Bench, role: str, old: tuple[str, str]) -> int:
    """Fetch until there is another login; return the whole seconds that the old one still has."""
    (lease,) = database.leases(role)
    left: list[int] = []

    def replaced() -> bool:
        new = _login(_fetch(bench, role))
        if new != old:
            left.append(database.seconds_left(lease))
            assert database.lets_in(*new)
            assert database.lets_in(*old)
        return new != old

    _wait(replaced)
    return left[0]


@pytest.mark.usefixtures("early")
def test_renewed_by_a_fetch(database: Database, bench: Bench, proxy: FaultProxy) -> None:
    """Where the background could not renew a lease that is due, the next fetch does."""
    role = _role(database, "16s", "1h")
    login = _login(_fetch(bench, role))
    before = len(proxy.requests())
    proxy.always(Reset())
    _wait(lambda: len(proxy.requests()) > before)
    _wait(lambda: any("could not be renewed" in each.message for each in _held(bench)))
    proxy.always(None)
    assert _login(_fetch(bench, role)) == login
    assert _left(bench, _fetch(bench, role)) > 8
    _wait(lambda: not _held(bench))
    assert _login(_fetch(bench, role)) == login


def _held(bench: Bench) -> list[Finding]:
    """Return what is found of leases that are held, without a request."""
    found: list[Finding] = _part(bench)._leases.failing()
    return found


def _part(bench: Bench) -> Any:
    return bench.binding._hooks.fetch_secret.get_hookimpls()[0].plugin


@pytest.mark.slow
@pytest.mark.usefixtures("early")
def test_replaced_near_its_longest_time(database: Database, bench: Bench) -> None:
    """Near its longest time another login is made while the old one still works."""
    role = _role(database, "8s", "12s")
    renewals = len(database.vault.requests("sys/leases/renew"))
    old = _login(_fetch(bench, role))
    assert _overlap(database, bench, role, old) >= 1
    assert len(database.vault.requests("sys/leases/renew")) > renewals
    _wait(lambda: not database.lets_in(*old))  # it ran out by itself


@pytest.mark.usefixtures("early")
@pytest.mark.parametrize("lacking", ["renew", "nothing but a longer time"])
def test_replaced_when_it_cannot_be_renewed(
    database: Database, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch, lacking: str
) -> None:
    """A lease that may not be renewed, or not any longer, is replaced before it ends."""
    policy = _POLICY
    if lacking == "renew":
        policy = policy.replace("sys/leases/renew", "sys/leases/nothing")
    bench = _bench(database, proxy, monkeypatch, policy)
    role = _role(database, "10s", "1h" if lacking == "renew" else "10s")
    old = _login(_fetch(bench, role))
    assert _overlap(database, bench, role, old) >= 1
    if lacking == "renew":
        findings = bench.binding.check()
        assert any("sys/leases/renew" in each.subject for each in findings)
    bench.close()


@pytest.mark.slow
def test_used_to_its_end_while_vault_is_away(
    database: Database, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While Vault cannot renew, the login is used until it ends; then a new one is made."""
    role = _role(database, "8s", "1h")
    with _kms(
        database, proxy, monkeypatch, {"USER": f"vault://database/creds/{role}#username"}
    ) as kms:
        secret = kms.secrets.get("USER")
        assert secret.expires is not None
        proxy.cut()
        seen: list[float] = []

        def fails() -> bool:
            asked = time.time()
            try:
                assert kms.secrets.get("USER").reveal() == secret.reveal()
            except ServiceUnavailable:
                return True
            seen.append(asked)
            return False

        _wait(fails)
        assert seen
        assert seen[-1] <= secret.expires.timestamp() <= time.time()
        _wait(lambda: database.leases(role) == [])  # Vault began to count a moment later
        proxy.restore()
        _wait(lambda: kms.secrets.refresh("USER").reveal() != secret.reveal())


def test_refresh_gets_a_new_login_after_a_revocation(
    database: Database, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch, role: str
) -> None:
    """Through `kms.secrets`: two fields are one login; `refresh` after a failure gets another."""
    where = f"postgresql+psycopg://{{user}}:{{password}}@127.0.0.1:{database.server.port}/postgres"
    entries = {
        "DATABASE_URL": {
            "template": where,
            "user": f"vault://database/creds/{role}#username",
            "password": f"vault://database/creds/{role}#password",
        }
    }
    with _kms(database, proxy, monkeypatch, entries) as kms:
        first = kms.secrets.get("DATABASE_URL")
        assert len(database.leases(role)) == 1
        assert first.expires is not None
        engine = rotating_engine(kms, "DATABASE_URL", pool_size=2)
        with engine.connect() as connection:
            user = connection.scalar(text("select current_user"))
        assert str(user) in first.reveal()
        database.revoke(role)
        database.server.run(  # sessions of the user that is gone
            "select pg_terminate_backend(pid) from pg_stat_activity "
            "where usename is null and backend_type = 'client backend'"
        )
        with engine.connect() as connection:
            assert connection.scalar(text("select current_user")) != user
        assert kms.secrets.get("DATABASE_URL") != first
        assert len(database.leases(role)) == 1
        engine.dispose()
    _wait(lambda: database.leases(role) == [])


@pytest.mark.slow
@pytest.mark.usefixtures("early")
def test_rotation_is_seen_while_queries_run(
    database: Database, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Logins that live for some seconds follow one another, and no query fails."""
    role = _role(database, "16s", "24s")
    where = f"postgresql+psycopg://{{user}}:{{password}}@127.0.0.1:{database.server.port}/postgres"
    entries = {
        "DATABASE_URL": {
            "template": where,
            "user": f"vault://database/creds/{role}#username",
            "password": f"vault://database/creds/{role}#password",
        }
    }
    users: set[str] = set()
    with _kms(database, proxy, monkeypatch, entries) as kms:
        engine = rotating_engine(kms, "DATABASE_URL", pool_size=1)

        def query() -> bool:
            with engine.connect() as connection:
                users.add(str(connection.scalar(text("select current_user"))))
            return len(users) >= 2

        _wait(query)
        engine.dispose()


def test_as_many_as_are_held(
    database: Database, bench: Bench, role: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Logins that were replaced or are too many, and still work, are taken back in the end, too."""
    monkeypatch.setattr("sentra_kms_vault.leases.MAX_LEASES", 2)
    roles = [role, *(_role(database, "1h", "24h") for _ in range(3))]
    logins = [_login(_fetch(bench, each)) for each in roles]
    assert all(database.lets_in(*login) for login in logins)
    assert _login(_fetch(bench, roles[-1])) == logins[-1]
    assert _login(_fetch(bench, roles[0])) != logins[0]  # it was not held any more
    bench.close()
    _wait(lambda: not any(database.leases(each) for each in roles[1:]))


def test_close_while_vault_is_away(
    database: Database, bench: Bench, proxy: FaultProxy, role: str, caplog: pytest.LogCaptureFixture
) -> None:
    """What cannot be given back is told of once, and ends by itself."""
    _fetch(bench, role)
    proxy.cut()
    bench.close()
    assert "not revoked, and end by themselves: 1 (" in caplog.text


_FORKING = """
import json, os, sys
from sentra_kms.hooktypes import Finding, SecretRequest
from sentra_kms.reference import Reference
from sentra_kms.runtime import KMS
from sentra_kms.testing import Bench
from sentra_kms.testing.base import together
table, role, uses = json.load(sys.stdin)
bench = Bench("vault", table)
def user():
    found = bench.binding.fetch_secret(SecretRequest(Reference(f"vault://database/creds/{role}")))
    return json.loads(found.data.reveal())["username"]
ours = user()
reading, writing = os.pipe()
child = os.fork()
if child == 0:
    os.write(writing, user().encode() if uses else b"none")
    bench.close()
    os._exit(0)
os.close(writing)
told = os.read(reading, 1000).decode()
os.waitpid(child, 0)
print(json.dumps([ours, told, user()]), flush=True)
os._exit(0)
"""
"""A process that has a login made, and forks; its child closes, and it does not."""


@pytest.mark.parametrize("uses", [True, False])
def test_forked_child_takes_back_its_own_alone(
    database: Database,
    proxy: FaultProxy,
    monkeypatch: pytest.MonkeyPatch,
    role: str,
    uses: bool,  # noqa: FBT001
) -> None:
    """A child has a login of its own made and takes that back; its parent's goes on."""
    _bench(database, proxy, monkeypatch).close()
    done = subprocess.run(
        [sys.executable, "-c", _FORKING],
        input=json.dumps([_table(proxy), role, uses]),
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=True,
    )
    ours, childs, later = json.loads(done.stdout)
    assert ours == later
    assert childs == "none" or childs != ours
    _wait(lambda: len(database.leases(role)) == 1)  # the parent left without a close
    assert database.has_user(ours)
    assert not database.has_user(childs)


_HOLDING = """
import json, signal, sys
from sentra_kms.hooktypes import SecretRequest
from sentra_kms.reference import Reference
from sentra_kms.testing import Bench
table, role = json.loads(sys.stdin.readline())
bench = Bench("vault", table)
found = bench.binding.fetch_secret(SecretRequest(Reference(f"vault://database/creds/{role}")))
print(found.data.reveal().decode(), flush=True)
signal.pause()
"""
"""A process that has a login made, and holds its lease until it is killed."""


@pytest.mark.slow
def test_killed_while_it_holds_a_lease(
    database: Database, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a process leaves that was killed ends with its lease; the next one has its own."""
    _bench(database, proxy, monkeypatch).close()
    role = _role(database, "8s", "1h")
    with subprocess.Popen(
        [sys.executable, "-c", _HOLDING],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        print(json.dumps([_table(proxy), role]), file=process.stdin, flush=True)
        fields = json.loads(process.stdout.readline())
        process.kill()
    left = fields["username"], fields["password"]
    (lease,) = database.leases(role)
    assert database.lets_in(*left)  # nobody could give it back
    assert database.seconds_left(lease) <= 8  # and nobody prolongs it
    bench = Bench("vault", _table(proxy))
    own = _login(_fetch(bench, role))
    assert own != left
    _wait(lambda: not database.has_user(left[0]))
    assert lease not in database.leases(role)
    assert not database.lets_in(*left)
    assert database.lets_in(*_login(_fetch(bench, role)))
    bench.close()
    _wait(lambda: database.leases(role) == [])


@pytest.mark.parametrize(
    ("reference", "kind", "told"),
    [
        ("database/creds/no-such-role", SecretNotFound, "no such role"),
        ("database/nothing/x", MalformedInput, "no such path"),
        ("database/config/server", ConfigurationError, "has no lease"),
        ("plain/x", ConfigurationError, "has no lease"),
        ("database/creds/x?version=1", MalformedInput, "no options"),
        ("nowhere/creds/x", ConfigurationError, "no engine is mounted"),
    ],
)
def test_what_is_not_made_on_demand(
    database: Database, monkeypatch: pytest.MonkeyPatch, reference: str, kind: Any, told: str
) -> None:
    """Only a role that is not there is not found."""
    if "plain/" not in database.vault.read("sys/mounts")["data"]:
        database.vault.write("sys/mounts/plain", type="kv", options={"version": "1"})
    database.vault.write("plain/x", a="1")
    monkeypatch.setenv("OWN_TOKEN", database.vault.token)
    table = {
        "type": "vault",
        "address": database.vault.address,
        "auth": {"method": "token", "token": "env://OWN_TOKEN"},
        "mounts": {"database": "dynamic", "nowhere": "dynamic", "plain": "dynamic"},
    }
    bench = Bench("vault", table)
    request = SecretRequest(Reference(f"vault://{reference}"))
    assert told in _refused(kind, lambda: bench.binding.fetch_secret(request))
    bench.close()


def test_role_that_may_not_be_used(
    database: Database, bench: Bench, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch, role: str
) -> None:
    """Without a right to have it made, or to look at what is held, it is denied: never missing."""
    denied = _bench(database, proxy, monkeypatch, 'path "sys/x" { capabilities = ["read"] }')
    _refused(AccessDenied, lambda: _fetch(denied, role))
    denied.close()
    blind = _bench(
        database, proxy, monkeypatch, 'path "database/creds/*" { capabilities = ["read"] }'
    )
    _fetch(blind, role)
    told = _refused(AccessDenied, lambda: _fetch(blind, role))
    assert "update on sys/leases/lookup" in told
    blind.close()


def test_check_tells_of_rights_that_lack(
    database: Database, bench: Bench, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`check` names each right that leases need and the token has not, and what that means."""
    assert [each.level for each in _part(bench).check(PATIENCE)] == ["ok"]
    policy = """
path "database/creds/*" { capabilities = ["read"] }
path "sys/capabilities-self" { capabilities = ["update"] }
"""
    lacking = _bench(database, proxy, monkeypatch, policy)
    subjects = [each.subject for each in _part(lacking).check(PATIENCE) if each.level == "warning"]
    assert subjects == [f"vault: sys/leases/{each}" for each in ("lookup", "renew", "revoke")]
    lacking.close()


def test_leases_show_nothing(bench: Bench, role: str, caplog: pytest.LogCaptureFixture) -> None:
    """Neither a login nor the id of its lease stands in logs, events, findings or reprs."""
    with caplog.at_level("DEBUG"):
        found = _fetch(bench, role)
        findings = bench.binding.check()
        bench.close()
    user, password = _login(found)
    told = f"{caplog.text} {bench.events!r} {findings!r} {found!r}"
    assert password not in told
    assert user not in told
    assert f"creds/{role}/" not in told


def test_answers_print_no_secret() -> None:
    """What Vault answers is not printed, nor what was made of it."""
    data: dict[str, object] = {"password": "planted"}
    issued = Issued("database/creds/app/x", 60, True, data)  # noqa: FBT003
    lease = Lease(issued, time.monotonic(), datetime.now(UTC), Token("planted"))
    version = secrets_module._Version(data, secrets_module._Metadata(1, datetime.now(UTC)))
    answers = (secrets_module._KvV2Answer(version), secrets_module._KvV1Answer(data))
    assert "planted" not in f"{issued!r} {lease!r} {version!r} {answers!r}"


def test_leases_are_not_renewed_all_at_once(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes that started together renew, or replace, theirs one after the other."""
    waits: list[float] = []
    part = _part(bench)
    monkeypatch.setattr(part._vault.keeper, "at", lambda wait, _: waits.append(wait))
    issued = Issued("database/creds/app/x", 3600, True, {})  # noqa: FBT003
    for _ in range(20):
        lease = Lease(issued, time.monotonic(), datetime.now(UTC), None)
        part._leases._keep_alive(None, lease)
    assert len({round(wait) for wait in waits}) > 5
    assert max(waits) - min(waits) > 40
    assert all(3600 * 0.57 < wait < 3600 * 0.67 for wait in waits)


def test_signal_handler_while_leases_are_looked_through(bench: Bench, role: str) -> None:
    """A signal handler that asks for a lease waits for no lock that its own thread holds."""
    leases = _part(bench)._leases
    found: list[tuple[str, str]] = []

    def interrupted() -> None:
        with leases._lock:
            found.append(_login(_fetch(bench, role)))
        slot = leases._held()[f"database/creds/{role}"]
        with slot.lock:
            slot.lease = None  # as while another is made
            found.append(_login(_fetch(bench, role)))

    thread = threading.Thread(target=interrupted, daemon=True)
    thread.start()
    thread.join(PATIENCE)
    assert len(found) == 2, "it waits for itself"
    leases._closed = True  # so that a close that hangs is no second failure


def _kms(
    database: Database,
    proxy: FaultProxy,
    monkeypatch: pytest.MonkeyPatch,
    secrets: Mapping[str, object],
) -> KMS:
    _bench(database, proxy, monkeypatch).close()
    environment = {
        "development": True,
        "backends": {"vault": _table(proxy)},
        "secrets": dict(secrets),
    }
    return sentra_kms.load({"own": environment}, "own")
