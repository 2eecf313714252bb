"""How often a secret's source is asked while connections are refused: requests are counted."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, OperationalError

from sentra_kms.config import read_settings
from sentra_kms.contrib import refused
from sentra_kms.contrib.sqlalchemy import rotating_engine
from sentra_kms.errors import AccessDenied
from sentra_kms.events import Event
from sentra_kms.runtime import KMS
from sentra_kms.testing.fake import Fake
from tests.conftest import ManualClock
from tests.servers.lifeline import free_port
from tests.servers.postgres import Postgres

OLD, NEW = "planted-old-password", "planted-new-password"
PATIENCE = 60.0


class Vault:
    """A file that holds a database URL, a KMS that reads it, and how often it was asked."""

    def __init__(self, path: Path, clock: ManualClock) -> None:
        self._path = path
        self._path.touch(0o600)
        self._events: list[Event] = []
        tables = {"production": {"secrets": {"DATABASE_URL": f"file://{path}"}}}
        settings = read_settings(tables, "production")
        self.kms = KMS(settings, clock=clock, now=clock, emit=self._events.append)

    def put(self, url: str) -> None:
        """Replace the secret."""
        self._path.write_text(url, encoding="utf-8")

    @property
    def asked(self) -> int:
        """How many times the source was asked."""
        return sum(event.operation == "fetch_secret" for event in self._events)


@pytest.fixture
def vault(tmp_path: Path, clock: ManualClock) -> Iterator[Vault]:
    """Return a place for the URL."""
    vault = Vault(tmp_path / "url", clock)
    yield vault
    vault.kms.close()


@pytest.fixture(autouse=True)
def _clock(clock: ManualClock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refused, "_now", clock)


def engine_of(vault: Vault) -> sqlalchemy.Engine:
    """Return an engine that makes a connection each time."""
    return rotating_engine(vault.kms, "DATABASE_URL", poolclass=sqlalchemy.NullPool)


def connect_often(engine: sqlalchemy.Engine, *, threads: int, times: int) -> list[DBAPIError]:
    """Connect from several threads at once; return what was refused."""
    errors: list[DBAPIError] = []
    ready = threading.Barrier(threads)

    def work() -> None:
        ready.wait(PATIENCE)
        for _ in range(times):
            try:
                with engine.connect() as connection:
                    connection.scalar(text("select 1"))
            except DBAPIError as error:
                errors.append(error)

    workers = [threading.Thread(target=work) for _ in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(PATIENCE)
    return errors


def test_database_that_is_down(vault: Vault, clock: ManualClock) -> None:
    """However many connections it refuses, the source is asked once in five seconds."""
    vault.put(f"postgresql+psycopg://u:{OLD}@127.0.0.1:{free_port()}/x")
    engine = engine_of(vault)
    assert vault.asked == 1
    assert len(connect_often(engine, threads=8, times=25)) == 200
    assert vault.asked == 2
    clock.advance(refused.PERIOD - 0.1)
    assert len(connect_often(engine, threads=2, times=5)) == 10
    assert vault.asked == 2
    clock.advance(0.2)
    assert len(connect_often(engine, threads=8, times=5)) == 40
    assert vault.asked == 3


def test_source_that_is_down_too() -> None:
    """Failed looks count as well, and it is the database's error that is told."""
    fake = Fake()
    fake.secrets["DATABASE_URL"] = f"postgresql+psycopg://u:{OLD}@127.0.0.1:{free_port()}/x"
    engine = rotating_engine(fake.kms, "DATABASE_URL", poolclass=sqlalchemy.NullPool)
    fake.events.clear()
    with fake.outage("memory"):
        errors = connect_often(engine, threads=4, times=5)
    assert {type(error) for error in errors} == {OperationalError}
    assert len(errors) == 20
    assert [event.outcome for event in fake.events] == ["ServiceUnavailable"]
    fake.close()


def test_pool_whose_source_denies(vault: Vault, tmp_path: Path, clock: ManualClock) -> None:
    """Connections that work go on being taken out, and the source is not asked for each."""
    vault.put(f"sqlite:///{tmp_path}/x")
    engine = rotating_engine(vault.kms, "DATABASE_URL", pool_size=2)
    assert connect_often(engine, threads=1, times=1) == []
    vault._path.unlink()
    vault._path.mkdir()
    with pytest.raises(AccessDenied):
        vault.kms.secrets.refresh("DATABASE_URL")
    before = vault.asked
    for period in range(1, 4):
        clock.advance(refused.PERIOD + 0.1)
        assert connect_often(engine, threads=1, times=50) == []
        assert vault.asked == before + period
    engine.dispose()


@pytest.mark.server
def test_password_that_stays_wrong(postgres: Postgres, vault: Vault, clock: ManualClock) -> None:
    """The database says that it is the login: the source is asked sooner, and not each time."""
    postgres.run("drop role if exists wrong")
    postgres.run("create role wrong login password 'something-else'")
    vault.put(postgres.url("wrong", OLD))
    engine = engine_of(vault)
    assert len(connect_often(engine, threads=4, times=5)) == 20
    assert vault.asked == 2
    clock.advance(refused.LOGIN_PERIOD + 0.1)
    vault.put(postgres.url("wrong", "something-else"))
    assert connect_often(engine, threads=4, times=5) == []
    assert vault.asked == 3


@pytest.mark.server
def test_login_refused_just_after_an_outage(postgres: Postgres, vault: Vault) -> None:
    """What was asked because nobody answered does not count against a password that is revoked."""
    for user, password in (("early", OLD), ("late", NEW)):
        postgres.run(f"drop role if exists {user}")
        postgres.run(f"create role {user} login password '{password}'")
    down = Postgres(free_port())
    vault.put(down.url("early", OLD))
    engine = engine_of(vault)
    assert len(connect_often(engine, threads=1, times=3)) == 3
    vault.put(postgres.url("early", OLD))
    vault.kms.secrets.refresh("DATABASE_URL")
    assert connect_often(engine, threads=1, times=1) == []
    vault.put(postgres.url("late", NEW))
    postgres.run("alter role early password null")
    assert connect_often(engine, threads=4, times=3) == []


@pytest.mark.server
def test_refused_at_once_share_a_request(postgres: Postgres, vault: Vault) -> None:
    """Threads whose password was revoked all go on with the new one, for which one has asked."""
    for user, password in (("shared_a", OLD), ("shared_b", NEW)):
        postgres.run(f"drop role if exists {user}")
        postgres.run(f"create role {user} login password '{password}'")
    vault.put(postgres.url("shared_a", OLD))
    engine = engine_of(vault)
    vault.put(postgres.url("shared_b", NEW))
    postgres.run("alter role shared_a password null")
    assert connect_often(engine, threads=16, times=2) == []
    assert vault.asked == 2


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_fork_while_another_thread_asks(vault: Vault) -> None:
    """A child does not wait for a lock of a thread that it does not have."""
    vault.put("sqlite://")
    asking = refused.Asking(vault.kms.secrets, "DATABASE_URL")
    value = vault.kms.secrets.get("DATABASE_URL")
    held, go = threading.Event(), threading.Event()

    def hold() -> None:
        with asking._lock:
            held.set()
            go.wait(PATIENCE)

    thread = threading.Thread(target=hold)
    thread.start()
    assert held.wait(PATIENCE)
    child = os.fork()
    if child == 0:
        code = 1
        signal.alarm(int(PATIENCE))
        try:
            asking.again(value, is_login=False)
            code = 0
        finally:
            os._exit(code)
    go.set()
    thread.join(PATIENCE)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


class _OfOracle:
    code = 1017
    full_code = "ORA-01017"


class _Finished:
    used_password = True


class _PsycopgError(Exception):
    sqlstate = None
    pgconn = _Finished()


class _NotAskedError(Exception):
    sqlstate = None
    pgconn = type("Finished", (), {"used_password": False})()


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (_PsycopgError("connection failed"), True),
        (_NotAskedError("connection failed"), False),
        (Exception({"S": "FATAL", "C": "28000"}), True),  # pg8000
        (Exception({"S": "FATAL", "C": "3D000"}), False),
        (Exception(1045, "Access denied"), True),  # PyMySQL, mysqlclient
        (Exception(2003, "Can't connect"), False),
        (Exception("28000", "[28000] Login failed"), True),  # pyodbc
        (Exception("08001", "[08001] timeout"), False),
        (Exception(_OfOracle()), True),
        (Exception("28 is no code"), False),
        (Exception(), False),
    ],
)
def test_what_drivers_say(error: Exception, said: bool) -> None:  # noqa: FBT001
    """Drivers tell of a refused login each in its way; those that do not are not guessed at."""
    assert refused.says_login(error) is said
