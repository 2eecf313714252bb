"""`sentra-kms backends`: the backend types that are installed here."""

from __future__ import annotations

import os
from collections.abc import Mapping

import click
import msgspec

from sentra_kms.cli.failure import ErrorsFound
from sentra_kms.cli.output import count, hint, render, to_terminal, write_json, write_row
from sentra_kms.cli.session import Session, config_options
from sentra_kms.cli.show import table_of
from sentra_kms.config import read_environment
from sentra_kms.config_file import (
    ENVIRONMENT_VARIABLE,
    FILE_NAME,
    FILE_VARIABLE,
    ConfigFile,
)
from sentra_kms.discovery import (
    BACKEND_GROUP,
    BUILT_IN,
    CORE,
    distribution_of,
    find_type,
    installed_types,
    scan,
)
from sentra_kms.doctor import declared, why_unusable
from sentra_kms.errors import ConfigurationError, KMSError


class TypeRow(msgspec.Struct):
    """One backend type, and whether it can be used here."""

    type: str
    distribution: str
    version: str
    built_in: bool
    summary: str = ""
    development_only: bool = False
    usable: bool = False
    error: str | None = None
    install: str | None = None
    used_by: list[str] = []


@click.command()
@config_options
@click.pass_obj
def backends(session: Session) -> None:
    """List the backend types that are installed, and whether they can be used.

    If there is a configuration, also which backends of the environment are of each type.
    """
    environment, uses = _uses(session)
    rows = [_row(name) for name in installed_types()] + _claims()
    for row in rows:
        row.used_by = [name for name, kind in uses.items() if kind == row.type]
    _show(session, environment, rows)
    broken = [row for row in rows if not row.usable]
    if broken:
        raise ErrorsFound(f"{count(len(broken), 'backend type')} cannot be used")


def _row(name: str) -> TypeRow:
    distribution, version = _brought_by(name)
    row = TypeRow(name, distribution, version, built_in=name in BUILT_IN)
    try:
        found = find_type(name)
    except KMSError as error:
        row.error = error.message
        return row
    row.summary = found.kind.summary
    row.development_only = found.kind.development_only
    row.install = found.kind.install or None
    row.error = why_unusable(found)
    row.usable = row.error is None
    return row


def _claims() -> list[TypeRow]:
    """Return what claims the name of a built-in type, and stops every plugin from being used."""
    return [
        TypeRow(
            name,
            *distribution_of(entry),
            built_in=False,
            error="the name of a built-in backend type may not be claimed: uninstall it",
        )
        for name, entries in sorted(scan(BACKEND_GROUP).items())
        if name in BUILT_IN
        for entry in entries
    ]


def _brought_by(name: str) -> tuple[str, str]:
    if name in BUILT_IN:
        return CORE, find_type(name).version
    brought = [distribution_of(entry) for entry in scan(BACKEND_GROUP)[name]]
    return " and ".join(each for each, _ in brought), " and ".join(each for _, each in brought)


def _uses(session: Session) -> tuple[str | None, Mapping[str, str]]:
    """Return the environment and its backends' types, nothing if no configuration is there."""
    if not (session.config or os.environ.get(FILE_VARIABLE) or os.path.exists(FILE_NAME)):
        return None, {}
    document = ConfigFile.read(session.config)
    try:
        name = document.choose(session.environment)
    except ConfigurationError:
        if session.environment or os.environ.get(ENVIRONMENT_VARIABLE):
            raise
        return None, {}
    try:
        settings = read_environment(document, name)
    except KMSError:  # perhaps for the very type that is looked for
        return name, declared(document.tables.get("shared"), document.tables[name])
    return name, {each.name: each.type.name for each in settings.backends.values()}


def _show(session: Session, environment: str | None, rows: list[TypeRow]) -> None:
    if session.json:
        write_json({"environment": environment, "types": rows})
    elif not to_terminal():
        for row in rows:
            write_row(
                row.type,
                row.distribution,
                row.version,
                "usable" if row.usable else "unusable",
                "development" if row.development_only else "",
                ",".join(row.used_by),
                row.error or row.summary,
            )
    else:
        used = "Used" if environment is None else f"Used in {environment}"
        columns = [
            ("Type", [row.type for row in rows]),
            ("From", [f"{row.distribution} {row.version}" for row in rows]),
            ("Only in", ["development" if row.development_only else "" for row in rows]),
            (used, [", ".join(row.used_by) for row in rows]),
            ("What it is", [_description(row) for row in rows]),
        ]
        render(table_of(columns))
        if environment is None:
            hint("Name a configuration and an environment to see which are used.")


def _description(row: TypeRow) -> str:
    if row.error is not None:
        return f"cannot be used: {row.error}"
    return row.summary
