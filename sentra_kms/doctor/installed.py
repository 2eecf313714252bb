"""Whether what a configuration names is installed and can be bound here."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from sentra_kms.config_file import ConfigFile, is_table
from sentra_kms.discovery import FoundType, find_create, find_type, installed_types
from sentra_kms.errors import KMSError
from sentra_kms.hooktypes import Finding
from sentra_kms.runtime import KMS
from sentra_kms.settings import AuditSettings, Settings


def why_unusable(found: FoundType) -> str | None:
    """Say why a backend type cannot be used here, with what to install; `None` if it can."""
    try:
        find_create(found)
    except KMSError as error:
        return error.message
    return None


def declared(*tables: object) -> dict[str, str]:
    """Return the types of the backends that these tables declare, whether they are valid or not."""
    found: dict[str, str] = {}
    for table in tables:
        backends = table.get("backends") if is_table(table) else None
        for name, backend in backends.items() if is_table(backends) else ():
            if is_table(backend) and isinstance(kind := backend.get("type"), str):
                found[name] = kind
    return found


def not_installed(document: ConfigFile, name: str, failure: str) -> bool:
    """Whether an environment was refused because a type that it names is not installed."""
    named = set(declared(document.tables.get("shared"), document.tables[name]).values())
    for kind in named.difference(installed_types()):
        try:
            find_type(kind)
        except KMSError as error:
            if error.message in failure:
                return True
    return False


def bound(settings: Settings, *, chosen: bool) -> Iterator[Finding]:
    """Bind an environment as `load` does, which opens no connection and fetches nothing.

    Without its observers: making them may open what they write to.
    """
    unusable = list(_unusable(settings, chosen=chosen))
    if unusable:
        yield from unusable
        return
    try:
        KMS(msgspec.structs.replace(settings, audit=AuditSettings())).close()
    except KMSError as error:
        yield Finding(
            "error",
            settings.environment,
            error.message.removeprefix(f"{settings.source}: "),
            f"mend [{settings.environment}]; load() refuses it",
        )


def _unusable(settings: Settings, *, chosen: bool) -> Iterator[Finding]:
    for name, backend in settings.backends.items():
        failure = why_unusable(backend.type)
        if failure is None:
            continue
        subject = f"backends.{name}" if chosen else f"{settings.environment}.backends.{name}"
        if chosen:
            yield Finding("error", subject, failure, "`sentra-kms backends` shows all types")
        else:
            yield Finding(
                "warning", subject, f"is not checked: {failure}", "run the doctor where it is used"
            )
