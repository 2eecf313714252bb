"""What is registered; imports neither SQLite nor a cipher."""

from __future__ import annotations

from sentra_kms import Reference
from sentra_kms.hookspecs import hookimpl
from sentra_kms.hooktypes import BackendSettings, BackendType


class SqliteSettings(BackendSettings, frozen=True):
    """`database` is a file's path; `master`, base64 of 32 bytes, seals the KEKs in it."""

    database: str
    master: Reference


@hookimpl
def backend_type() -> BackendType:
    """Register the type `sqlite`."""
    return BackendType(
        api=(1, 0),
        settings=SqliteSettings,
        create="sentra_kms_sqlite.backend:create",
        install="pip install sentra-kms-sqlite",
        summary="KEKs and key rings in a SQLite database",
    )
