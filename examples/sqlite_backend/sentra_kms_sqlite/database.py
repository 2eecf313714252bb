"""The database: each operation is one transaction, on a connection of its own."""

from __future__ import annotations

import base64
import os
import sqlite3
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import TypeVar

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

import sentra_kms as sk

_T = TypeVar("_T")
Work = Callable[[sqlite3.Connection], _T]
_OURS = 0x53454B53  # SQLite's application id of a database that this backend made
_SCHEMA = (
    "CREATE TABLE keks (name TEXT, version INTEGER, state TEXT, sealed BLOB)",
    "CREATE TABLE rings (tenant TEXT PRIMARY KEY, document BLOB, revision TEXT)",
    f"PRAGMA application_id = {_OURS}",
)
_ADVICE = "look at the setting `database`; python -m sentra_kms_sqlite makes one"
_AWAY = "ERROR INTERNAL ABORT NOMEM IOERR CORRUPT NOTFOUND FULL CANTOPEN PROTOCOL EMPTY SCHEMA"
_KINDS: dict[type[sk.KMSError], str] = {
    sk.AccessDenied: "PERM READONLY AUTH",
    sk.MalformedInput: "TOOBIG MISMATCH RANGE CONSTRAINT",
    sk.Timeout: "BUSY LOCKED INTERRUPT",
    sk.ServiceUnavailable: f"{_AWAY} MISUSE NOLFS FORMAT NOTADB",
}
ERRORS = {f"SQLITE_{name}": kind for kind, names in _KINDS.items() for name in names.split()}
"""What each of SQLite's primary error codes is to callers."""


class Database:
    """The file, and the master key that seals the KEKs in it."""

    def __init__(self, path: str, master: Callable[[], sk.KeyMaterial]) -> None:
        self._path, self._master = path, master

    def run(self, work: Work[_T], timeout: float, begin: str = "", *, make: bool = False) -> _T:
        """Do `work` in one transaction; `begin` is IMMEDIATE for one that writes.

        Only with `make` is a database made where there is none: a mistyped path must not look like
        a store that has lost every ring. One that is there is opened by SQLite alone: whoever else
        closes it drops every lock that this process has on it.
        """
        try:
            if make:
                Path(self._path).touch(0o600)
            uri = f"{Path(self._path).absolute().as_uri()}?mode=rw"
            db = sqlite3.connect(uri, timeout=timeout, isolation_level=None, uri=True)
            with closing(db), db:
                db.execute("PRAGMA secure_delete = ON")
                db.execute(f"BEGIN {begin}")
                new = make and db.execute("SELECT 1 FROM sqlite_master").fetchone() is None
                for statement in _SCHEMA if new else ():
                    db.execute(statement)
                if db.execute("PRAGMA application_id").fetchone() != (_OURS,):
                    raise sk.ConfigurationError(f"{self._path} is no database of ours: {_ADVICE}")
                return work(db)
        except (sqlite3.Error, OSError) as error:
            name: str = getattr(error, "sqlite_errorname", type(error).__name__)
        # Here, where the library's exception is no longer at hand.
        kind = ERRORS.get("_".join(name.split("_")[:2]), sk.ServiceUnavailable)
        raise kind(f"{self._path} cannot be used now: {name}: {_ADVICE}") from sk.VendorError(name)

    def add_version(self, name: str) -> int:
        """Make the KEK `name`, or its next version; return the version."""

        def work(db: sqlite3.Connection) -> int:
            row = db.execute("SELECT max(version) FROM keks WHERE name = ?", (name,)).fetchone()
            version, nonce = (row[0] or 0) + 1, os.urandom(12)
            sealed = self._cipher().encrypt(nonce, os.urandom(32), f"{name}\n{version}".encode())
            row = (name, version, nonce + sealed)
            db.execute("INSERT INTO keks VALUES (?, ?, 'enabled', ?)", row)
            return int(version)

        return self.run(work, 5.0, "IMMEDIATE", make=True)

    def kek(self, name: str, timeout: float, version: int | None = None) -> tuple[int, AESGCM]:
        """Return a version of a KEK, the newest if none is named."""
        find = "SELECT version, state, sealed FROM keks WHERE name = ? ORDER BY version DESC"
        rows = self.run(lambda db: db.execute(find, (name,)).fetchall(), timeout)
        if not rows:
            raise sk.KeyNotFound(f"there is no KEK '{name}': python -m sentra_kms_sqlite makes it")
        for number, state, sealed in rows:
            if version in {None, number}:
                if state != "enabled":
                    raise sk.KeyUnavailable(f"the KEK '{name}' is {state}: enable it")
                return number, AESGCM(self._open(sealed, f"{name}\n{number}".encode()))
        raise sk.DecryptionFailed(f"'{name}' cannot unwrap the tenant key")

    def _open(self, sealed: bytes, bound: bytes) -> bytes:
        with suppress(InvalidTag):
            return self._cipher().decrypt(sealed[:12], sealed[12:], bound)
        raise sk.ConfigurationError(f"the setting `master` is not what sealed {self._path}")

    def _cipher(self) -> AESGCM:
        with suppress(ValueError):
            return AESGCM(base64.b64decode(self._master().reveal().strip(), validate=True))
        raise sk.ConfigurationError("the setting `master` names no base64 of 32 bytes")
