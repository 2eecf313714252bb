"""The parts: KEKs and key rings in the database."""

from __future__ import annotations

import os
import sqlite3
from contextlib import suppress

from cryptography.exceptions import InvalidTag

import sentra_kms as sk
from sentra_kms.context import WrapContext
from sentra_kms.hookspecs import KeyHooks, PartHooks, RingHooks, hookimpl
from sentra_kms.hooktypes import Finding, Host, KeyDescription, RingPage, StoredRing, WrappedKey

from .database import Database
from .register import SqliteSettings


def create(settings: SqliteSettings, host: Host) -> list[object]:
    """Make both parts; nothing is opened before the first operation."""
    database = Database(host.resolve(settings.database), lambda: host.secret(settings.master))
    return [Keys(database, host.name), Rings(database)]


class Keys(KeyHooks, PartHooks):
    """AES-256-GCM under a version of the KEK, which the wrap begins with."""

    def __init__(self, database: Database, name: str) -> None:
        self._database = database
        self._name = name

    @hookimpl
    def wrap_key(
        self, key: str, material: sk.KeyMaterial, context: WrapContext, timeout: float
    ) -> WrappedKey:
        """Encrypt under the newest version."""
        if len(material.reveal()) != 32:
            raise sk.MalformedInput("a tenant key has 32 bytes")
        version, cipher = self._database.kek(key, timeout)
        head, nonce = version.to_bytes(4), os.urandom(12)
        sealed = cipher.encrypt(nonce, material.reveal(), head + context.canonical)
        return WrappedKey(head + nonce + sealed, f"sqlite/{key}", str(version))

    @hookimpl
    def unwrap_key(
        self, key: str, wrapped: WrappedKey, context: WrapContext, timeout: float
    ) -> sk.KeyMaterial:
        """Decrypt under the version that the wrap begins with."""
        head, nonce, sealed = (wrapped.ciphertext[a:b] for a, b in ((0, 4), (4, 16), (16, None)))
        _, cipher = self._database.kek(key, timeout, int.from_bytes(head))
        with suppress(InvalidTag, ValueError):
            return sk.KeyMaterial(cipher.decrypt(nonce, sealed, head + context.canonical))
        raise sk.DecryptionFailed(f"'{self._name}:{key}' cannot unwrap the tenant key")

    @hookimpl
    def describe_key(self, key: str, timeout: float) -> KeyDescription:
        """Name the newest version."""
        return KeyDescription(f"sqlite/{key}", str(self._database.kek(key, timeout)[0]))

    @hookimpl
    def check(self, timeout: float) -> list[Finding]:
        """Open the database."""
        self._database.run(lambda db: db.execute("SELECT count(*) FROM keks").fetchone(), timeout)
        return [Finding("ok", self._name, "the database can be used")]


class Rings(RingHooks, PartHooks):
    """A row a ring; a revision is 16 random bytes, so that none ever comes again."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @hookimpl
    def load_ring(self, tenant: str, timeout: float) -> StoredRing:
        """Read the row."""
        return self._database.run(lambda db: _find(db, tenant), timeout)

    @hookimpl
    def save_ring(self, tenant: str, document: bytes, expected: str | None, timeout: float) -> str:
        """Compare and write in one transaction."""
        revision = os.urandom(16).hex()

        def work(db: sqlite3.Connection) -> None:
            _expect(db, tenant, expected)
            db.execute("REPLACE INTO rings VALUES (?, ?, ?)", (tenant, document, revision))

        self._database.run(work, timeout, "IMMEDIATE")
        return revision

    @hookimpl
    def delete_ring(self, tenant: str, expected: str, timeout: float) -> None:
        """Compare and delete in one transaction."""

        def work(db: sqlite3.Connection) -> None:
            _expect(db, tenant, expected)
            db.execute("DELETE FROM rings WHERE tenant = ?", (tenant,))

        self._database.run(work, timeout, "IMMEDIATE")

    @hookimpl
    def list_rings(self, cursor: str | None, limit: int, timeout: float) -> RingPage:
        """List in the order of ids."""
        find = "SELECT tenant FROM rings WHERE tenant > ? ORDER BY tenant LIMIT ?"
        arguments = (cursor or "", limit + 1)
        rows = self._database.run(lambda db: db.execute(find, arguments).fetchall(), timeout)
        page = tuple(name for (name,) in rows[:limit])
        return RingPage(page, page[-1] if len(rows) > limit else None)


def _find(db: sqlite3.Connection, tenant: str) -> StoredRing:
    row = db.execute("SELECT document, revision FROM rings WHERE tenant = ?", (tenant,)).fetchone()
    if row is None:
        raise sk.TenantNotFound(f"tenant '{tenant}' has no key ring: create it first")
    return StoredRing(*row)


def _expect(db: sqlite3.Connection, tenant: str, expected: str | None) -> None:
    there = db.execute("SELECT 1 FROM rings WHERE tenant = ?", (tenant,)).fetchone() is not None
    if (there or expected is not None) and _find(db, tenant).revision != expected:
        raise sk.Conflict(f"the ring of '{tenant}' was saved by somebody else: read it again")
