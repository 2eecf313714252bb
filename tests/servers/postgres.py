"""A PostgreSQL server of this test run's own, run by an unprivileged user on loopback."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.servers.lifeline import PATIENCE, free_port, serving, wait_until

ADMIN = "admin"
ADMIN_PASSWORD = "planted-admin-password"


class Postgres:
    """A running server; `admin` is its superuser."""

    def __init__(self, port: int) -> None:
        self.port = port

    def url(self, user: str, password: str) -> str:
        """Return a URL of SQLAlchemy's; the password is one that needs no quoting."""
        return f"postgresql+psycopg://{user}:{password}@127.0.0.1:{self.port}/postgres"

    @property
    def as_admin(self) -> str:
        """How the superuser connects, but for the password."""
        return f"host=127.0.0.1 port={self.port} user={ADMIN} dbname=postgres"

    def run(self, statement: str) -> None:
        """Run a statement as the superuser."""
        import psycopg

        with psycopg.connect(self.as_admin, password=ADMIN_PASSWORD, autocommit=True) as connection:
            connection.execute(statement.encode())


def find_programs() -> Path | None:
    """Return the directory of the newest server that is installed, `None` if there is none."""
    debian = sorted(
        Path("/usr/lib/postgresql").glob("*/bin/pg_ctl"), key=lambda path: float(path.parts[4])
    )
    if debian:
        return debian[-1].parent
    found = shutil.which("pg_ctl")
    return None if found is None else Path(found).resolve().parent


@contextmanager
def running() -> Iterator[Postgres]:
    """Run a server for as long as the block lasts."""
    programs = find_programs()
    if programs is None:
        missing = "PostgreSQL is not installed: apt-get install postgresql"
        if os.environ.get("CI") == "true":
            pytest.fail(missing)
        pytest.skip(missing)
    directory = Path(tempfile.mkdtemp(prefix="sentra-kms-postgres-"))
    try:
        user = _unprivileged(directory)
        data = str(directory / "data")
        password = directory / "password"
        password.write_text(ADMIN_PASSWORD)
        if user is not None:
            os.chown(password, user, user)
        port = free_port()
        _run(
            user, str(programs / "initdb"), "-D", data, "-U", ADMIN,
            "--auth=scram-sha-256", f"--pwfile={password}", "--no-sync",
        )  # fmt: skip
        with _serving(user, programs, data, port):
            yield Postgres(port)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@contextmanager
def _serving(user: int | None, programs: Path, data: str, port: int) -> Iterator[None]:
    settings = [
        "listen_addresses=127.0.0.1", f"port={port}", "unix_socket_directories=", "fsync=off",
    ]  # fmt: skip
    words = [str(programs / "postgres"), "-D", data]
    words += [word for setting in settings for word in ("-c", setting)]
    with serving(words, user=_as(user)) as server:
        wait_until(lambda: Postgres(port).run("select 1"), server)
        yield


def _as(user: int | None) -> dict[str, Any]:
    return {} if user is None else {"user": user, "group": user, "extra_groups": []}


def _unprivileged(directory: Path) -> int | None:
    """Give a directory to a user without privileges if this one has them."""
    if os.geteuid() != 0:
        return None
    user = pwd.getpwnam("nobody").pw_uid
    os.chown(directory, user, user)
    return user


def _run(user: int | None, *words: str) -> None:
    done = subprocess.run(
        words, check=False, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT, cwd="/",
        timeout=2 * PATIENCE, stdin=subprocess.DEVNULL, **_as(user),
    )  # fmt: skip
    assert done.returncode == 0, words
