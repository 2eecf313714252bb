"""`rotating_engine` on a real PostgreSQL: passwords are revoked while queries run."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
from sqlalchemy import text
from sqlalchemy.exc import OperationalError, ProgrammingError

import sentra_kms
from sentra_kms.contrib.sqlalchemy import rotating_engine
from sentra_kms.errors import ConfigurationError, MalformedInput
from tests.ground.leaks import locals_inside, told_by
from tests.servers.postgres import Postgres

PATIENCE = 60.0
OLD, NEW = "planted-old-password", "planted-new-password"


class Vault:
    """A file that holds a database URL, and a KMS that reads it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._path.touch(0o600)
        tables = {"production": {"secrets": {"DATABASE_URL": f"file://{path}"}}}
        self.kms = sentra_kms.load(tables, "production")

    def put(self, url: str) -> None:
        """Replace the secret."""
        self._path.write_text(url, encoding="utf-8")


@pytest.fixture
def vault(tmp_path: Path) -> Iterator[Vault]:
    """Return a place for the URL."""
    vault = Vault(tmp_path / "url")
    yield vault
    vault.kms.close()


class Workers:
    """Threads that run queries until they are told to stop, and keep what went wrong."""

    def __init__(self, engine: sqlalchemy.Engine, count: int = 4) -> None:
        self._engine = engine
        self._stop = threading.Event()
        self.errors: list[Exception] = []
        self.users: list[str] = []
        self._threads = [threading.Thread(target=self._work, daemon=True) for _ in range(count)]
        for thread in self._threads:
            thread.start()

    def _work(self) -> None:
        while not self._stop.is_set():
            try:
                with self._engine.connect() as connection:
                    self.users.append(str(connection.scalar(text("select current_user"))))
            except Exception as error:  # noqa: BLE001 - judged by the test
                self.errors.append(error)

    def more(self, true: Callable[[list[str]], bool], count: int = 20) -> None:
        """Wait for so many more queries whose user is as wanted."""
        begin = len(self.users)
        for _ in range(int(PATIENCE * 100)):
            if sum(true([user]) for user in self.users[begin:]) >= count:
                return
            self._stop.wait(0.01)
        pytest.fail(f"no progress: {self.users[-5:]} {self.errors[-1:]}")

    def end(self) -> None:
        """Stop."""
        self._stop.set()
        for thread in self._threads:
            thread.join(PATIENCE)


@pytest.mark.server
@pytest.mark.parametrize("pooled", [True, False])
def test_old_password_is_revoked_while_queries_run(
    postgres: Postgres,
    vault: Vault,
    pooled: bool,  # noqa: FBT001
) -> None:
    """From one login to another and the first one's password taken away: no query fails."""
    for user, password in (("app_a", OLD), ("app_b", NEW)):
        postgres.run(f"drop role if exists {user}")
        postgres.run(f"create role {user} login password '{password}'")
    vault.put(postgres.url("app_a", OLD))
    options: dict[str, Any] = {"pool_size": 2} if pooled else {"poolclass": sqlalchemy.NullPool}
    engine = rotating_engine(vault.kms, "DATABASE_URL", **options)
    workers = Workers(engine)
    try:
        workers.more(lambda users: users == ["app_a"])
        vault.put(postgres.url("app_b", NEW))
        postgres.run("alter role app_a password null")
        # Nobody told the process; what is in the pool goes on, and a new connection is refused.
        workers.more(lambda users: users[0] in {"app_a", "app_b"})
        if pooled:
            vault.kms.secrets.refresh("DATABASE_URL")
        workers.more(lambda users: users == ["app_b"], 50)
    finally:
        workers.end()
        engine.dispose()
    assert workers.errors == []
    assert workers.users[-1] == "app_b"


@pytest.mark.server
def test_sessions_that_the_server_ends_are_replaced(postgres: Postgres, vault: Vault) -> None:
    """One role's password is changed and its sessions are ended: the pool recovers by itself."""
    postgres.run("drop role if exists app")
    postgres.run(f"create role app login password '{OLD}'")
    vault.put(postgres.url("app", OLD))
    engine = rotating_engine(vault.kms, "DATABASE_URL", pool_size=2)
    with engine.connect() as connection:
        assert connection.scalar(text("select 1")) == 1
    postgres.run(f"alter role app password '{NEW}'")
    vault.put(postgres.url("app", NEW))
    postgres.run("select pg_terminate_backend(pid) from pg_stat_activity where usename = 'app'")
    with engine.connect() as connection:
        assert connection.scalar(text("select current_user")) == "app"
    engine.dispose()


@pytest.mark.server
def test_wrong_password_shows_nothing(
    postgres: Postgres, vault: Vault, caplog: pytest.LogCaptureFixture
) -> None:
    """A login that stays wrong is the database's error; neither it nor its frames show it."""
    postgres.run("drop role if exists other")
    postgres.run("create role other login password 'something-else'")
    vault.put(postgres.url("other", OLD))
    engine = rotating_engine(vault.kms, "DATABASE_URL")
    with caplog.at_level(logging.DEBUG), pytest.raises(OperationalError) as caught:
        engine.connect()
    told = told_by(caught.value) + caplog.text + repr(engine) + repr(engine.url)
    told += locals_inside(caught.value, "sqlalchemy") + locals_inside(caught.value, "psycopg")
    assert "password authentication failed" in told
    assert OLD not in told, told[max(0, told.find(OLD) - 300) : told.find(OLD) + 50]
    assert engine.url.password is None
    assert engine.url.username is None


@pytest.mark.server
def test_connect_args_hold(postgres: Postgres, vault: Vault) -> None:
    """What the caller passes on to the driver goes before the URL."""
    postgres.run("drop role if exists named")
    postgres.run(f"create role named login password '{OLD}'")
    vault.put(postgres.url("named", OLD))
    engine = rotating_engine(
        vault.kms, "DATABASE_URL", connect_args={"application_name": "of the caller"}
    )
    with engine.connect() as connection:
        assert connection.scalar(text("show application_name")) == "of the caller"
    engine.dispose()


def test_value_that_is_no_url(vault: Vault) -> None:
    """What is no database URL is refused, and not shown."""
    vault.put("planted-not-a-url")
    with pytest.raises(MalformedInput, match="DATABASE_URL holds no database URL") as caught:
        rotating_engine(vault.kms, "DATABASE_URL")
    assert "planted" not in told_by(caught.value)


def test_other_driver_is_refused(vault: Vault) -> None:
    """A secret that turns into another database's is no rotation."""
    vault.put("sqlite:///:memory:")
    engine = rotating_engine(vault.kms, "DATABASE_URL")
    with engine.connect() as connection:
        assert connection.scalar(text("select 1")) == 1
    vault.put("postgresql+psycopg://u:p@127.0.0.1:1/x")
    vault.kms.secrets.refresh("DATABASE_URL")
    engine.dispose()
    with pytest.raises(ConfigurationError, match="another database driver"):
        engine.connect()


@pytest.mark.parametrize("password", ["planted@pass", "planted%00pass", "planted\x00pass"])
def test_password_that_is_not_quoted(vault: Vault, password: str) -> None:
    """An '@' would make a part of the password the host, a NUL would end all that follows."""
    vault.put(f"postgresql+psycopg://u:{password}@127.0.0.1:1/x")
    with pytest.raises(MalformedInput, match="%40") as caught:
        rotating_engine(vault.kms, "DATABASE_URL")
    assert "planted" not in told_by(caught.value)


@pytest.mark.parametrize(
    ("query", "error"),
    [
        ("user=u&password={}", OperationalError),
        ("user=u&sslmode={}", OperationalError),
        ("user=u&nosuch={}", ProgrammingError),
        ("host=a:{}&host=b:2", ConfigurationError),
    ],
)
def test_what_stands_in_the_query(vault: Vault, query: str, error: type[Exception]) -> None:
    """A password in the URL's query is in neither the engine, nor an error, nor its frames."""
    vault.put("postgresql+psycopg://127.0.0.1:1/x?" + query.format(OLD))
    engine = rotating_engine(vault.kms, "DATABASE_URL")
    with pytest.raises(error) as caught:
        engine.connect()
    told = told_by(caught.value) + repr(engine) + repr(engine.url.query)
    told += "".join(locals_inside(caught.value, name) for name in ("sqlalchemy", "sentra_kms"))
    assert OLD not in told


def test_failure_that_is_not_the_driver_s(vault: Vault, tmp_path: Path) -> None:
    """What else goes wrong in a driver may hold the parameters, and is told by its kind."""
    vault.put(f"sqlite:///{tmp_path}/x?timeout={OLD}")
    engine = rotating_engine(vault.kms, "DATABASE_URL")
    with pytest.raises(ConfigurationError, match="failed with ValueError") as caught:
        engine.connect()
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
    told = told_by(caught.value)
    told += "".join(locals_inside(caught.value, name) for name in ("sqlalchemy", "sentra_kms"))
    assert OLD not in told


@pytest.mark.filterwarnings("ignore:Selection of the SingletonThreadPool")
def test_database_in_memory_by_its_query(vault: Vault) -> None:
    """What decides over the pool is kept."""
    vault.put("sqlite:///file:planted?mode=memory&uri=true")
    engine = rotating_engine(vault.kms, "DATABASE_URL")
    assert isinstance(engine.pool, sqlalchemy.pool.SingletonThreadPool)
    with engine.connect() as connection:
        assert connection.scalar(text("select 1")) == 1
    engine.dispose()
