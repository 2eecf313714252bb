"""The application's database: notes of tenants, each one message of sentra_kms. It holds no key."""

from __future__ import annotations

import sqlite3
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

PREFIX = 20  # bytes of a message that name ring and key version
_TABLE = """
create table if not exists notes (
  tenant text not null, id text not null, message blob not null, primary key (tenant, id)
)
"""


class Notes:
    """Notes in a file of SQLite; safe to use from many threads and processes."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with self._open() as database:
            database.execute(_TABLE)

    def put(self, tenant: str, note: str, message: bytes) -> None:
        """Keep a note, in the place of an earlier one of this id."""
        with self._open() as database:
            database.execute(
                "insert or replace into notes values (?, ?, ?)", (tenant, note, message)
            )

    def get(self, tenant: str, note: str) -> bytes | None:
        """Return a note's message, `None` if there is no such note."""
        with self._open() as database:
            row = database.execute(
                "select message from notes where tenant = ? and id = ?", (tenant, note)
            ).fetchone()
        return None if row is None else bytes(row[0])

    def stale(self, tenant: str, current: bytes, after: str, limit: int) -> list[tuple[str, bytes]]:
        """Return notes under other key versions than the current, in the order of their ids.

        `current` is the beginning of a message under the current one, which a database can
        compare although it can read nothing.
        """
        with self._open() as database:
            return database.execute(
                "select id, message from notes where tenant = ? and id > ? "
                "and substr(message, 1, ?) <> ? order by id limit ?",
                (tenant, after, PREFIX, current[:PREFIX], limit),
            ).fetchall()

    def exchange(self, tenant: str, note: str, old: bytes, new: bytes) -> bool:
        """Replace a note's message unless somebody wrote the note meanwhile."""
        with self._open() as database:
            done = database.execute(
                "update notes set message = ? where tenant = ? and id = ? and message = ?",
                (new, tenant, note, old),
            )
            return done.rowcount == 1

    @contextmanager
    def _open(self) -> Generator[sqlite3.Connection]:
        database = sqlite3.connect(self._path, timeout=30)
        try:
            with database:
                yield database
        finally:
            database.close()


def place(tenant: str, note: str) -> dict[str, str]:
    """Return the context that binds a message to its row: moved to another, it does not open."""
    return {"table": "notes", "tenant": tenant, "id": note}
