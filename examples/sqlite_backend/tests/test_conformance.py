"""What proves the backend right, where it is installed: `pytest`."""

# ruff: noqa: D101, D102 - what is overridden says it

from __future__ import annotations

import base64
import sqlite3
import subprocess
import sys
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import ClassVar

import pytest
from sentra_kms_sqlite.database import ERRORS, Database

from sentra_kms import ConfigurationError, KeyMaterial, ServiceUnavailable
from sentra_kms.testing import BackendConformance, BackendHarness
from sentra_kms.testing.errors import check_map

_CODES = (
    "ERROR INTERNAL PERM ABORT BUSY LOCKED NOMEM READONLY INTERRUPT IOERR CORRUPT NOTFOUND FULL"
)
_CODES += (
    " CANTOPEN PROTOCOL EMPTY SCHEMA TOOBIG CONSTRAINT MISMATCH MISUSE NOLFS AUTH FORMAT RANGE"
)
_CODES += " NOTADB"
_MASTER = base64.b64encode(bytes(range(32)))


class Harness(BackendHarness):
    type = "sqlite"
    absent: ClassVar[Mapping[str, str]] = {
        "answer_unknown": "each of SQLite's codes is mapped, and Python names no other",
        "lose_answer": "a transaction is done or not when its call returns",
        "requests": "nothing is sent: the database is a file",
        "throttle": "SQLite takes every request",
    }
    tenants = 1000

    def open(self) -> None:
        self.patch.setenv("SQLITE_MASTER", _MASTER.decode("ascii"))
        (self.path / "data").mkdir()
        self.database = Database(str(self.path / "data" / "keys.db"), lambda: KeyMaterial(_MASTER))
        for name in ("tenants", "others"):
            self.database.add_version(name)
        self._lock = sqlite3.connect(self.path / "data" / "keys.db", isolation_level=None)

    def close(self) -> None:
        self._lock.close()

    def settings(self) -> dict[str, object]:
        return {
            "database": str(self.path / "data" / "keys.db"),
            "master": "env://SQLITE_MASTER",
            "timeout": "30s",  # SQLite's waiting writers are not served in turn
        }

    def kek(self) -> str:
        return "tenants"

    def second_kek(self) -> str:
        return "others"

    def rotate_key(self, key: str) -> None:
        self.database.add_version(key)

    def disable_key(self, key: str) -> None:
        self._execute("UPDATE keks SET state = 'disabled' WHERE name = ?", key)

    def schedule_key(self, key: str) -> None:
        self._execute("UPDATE keks SET state = 'scheduled' WHERE name = ?", key)

    def delete_key(self, key: str) -> None:
        self._execute("DELETE FROM keks WHERE name = ?", key)

    def stall(self) -> None:
        self._lock.execute("BEGIN EXCLUSIVE")

    def cut(self) -> None:
        (self.path / "data").rename(self.path / "elsewhere")

    def _execute(self, statement: str, key: str) -> None:
        with closing(sqlite3.connect(self.path / "data" / "keys.db")) as connection, connection:
            connection.execute(statement, (key,))


class TestSqlite(BackendConformance):
    harness = Harness


def test_every_error_is_mapped() -> None:
    """Each primary error code that Python's sqlite3 knows has an error."""
    codes = [f"SQLITE_{name}" for name in _CODES.split()]
    assert all(hasattr(sqlite3, code) for code in codes)
    check_map(ERRORS, codes)


def _database(path: Path) -> Database:
    return Database(str(path), lambda: KeyMaterial(_MASTER))


def test_mistyped_path_is_refused(tmp_path: Path) -> None:
    """Where no database is, none is made by using it: an empty one would be a store without rings.

    It may also be on a file system that is not mounted yet, so that the refusal may pass.
    """
    for path in (tmp_path / "kyes.db", tmp_path / "elsewhere" / "keys.db"):
        with pytest.raises(ServiceUnavailable, match="look at the setting `database`"):
            _database(path).kek("tenants", 1.0)
    assert list(tmp_path.iterdir()) == []


def test_database_of_another_is_refused(tmp_path: Path) -> None:
    """A file of another application's is left as it is, also by the command that makes KEKs."""
    path = tmp_path / "theirs.db"
    with closing(sqlite3.connect(path)) as theirs, theirs:
        theirs.execute("CREATE TABLE notes (text TEXT)")
    before = path.read_bytes()
    for use in (
        lambda: _database(path).kek("tenants", 1.0),
        lambda: _database(path).add_version("tenants"),
    ):
        with pytest.raises(ConfigurationError, match="is no database of ours"):
            use()
    assert path.read_bytes() == before


_WRITER = """
import sqlite3, sys
db = sqlite3.connect(sys.argv[1], timeout=0, isolation_level=None)
try:
    db.execute("BEGIN IMMEDIATE")
except sqlite3.OperationalError as error:
    sys.exit(error.sqlite_errorname)
sys.exit("let in")
"""


def test_writer_keeps_its_lock_beside_others_of_its_process(tmp_path: Path) -> None:
    """Another process waits for a transaction, whatever other threads of this one do meanwhile.

    Whoever closes a descriptor of the file drops all the locks that its process has on it.
    """
    path = tmp_path / "keys.db"
    database = _database(path)
    database.add_version("tenants")

    def work(_: sqlite3.Connection) -> str:
        database.kek("tenants", 1.0)
        command = [sys.executable, "-c", _WRITER, str(path)]
        return subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False).stderr

    assert database.run(work, 1.0, "IMMEDIATE").strip() == "SQLITE_BUSY"
