"""`sentra-kms secret`: the declared secrets, looked at."""

from __future__ import annotations

import base64
from functools import partial

import click
import msgspec

from sentra_kms.cli.failure import ErrorsFound
from sentra_kms.cli.lease import refuse_leased
from sentra_kms.cli.output import (
    count,
    render,
    to_terminal,
    write,
    write_json,
    write_line,
    write_row,
)
from sentra_kms.cli.session import Session, config_options
from sentra_kms.cli.show import table_of
from sentra_kms.config import read_settings
from sentra_kms.errors import KMSError
from sentra_kms.material import Secret
from sentra_kms.secret_settings import SecretEntry
from sentra_kms.secrets.manager import SecretManager
from sentra_kms.together import together

MASKED = "********"


class SecretRow(msgspec.Struct):
    """One declared secret: where it is, and how long it is used and may be kept."""

    name: str
    sources: list[str]
    transforms: list[str] = []
    template: bool = False
    ttl: float | None = None
    max_age: float | None = None


class CheckRow(msgspec.Struct):
    """What fetching one secret came to."""

    name: str
    usable: bool
    version: str | None = None
    expires: str | None = None
    error: str | None = None
    message: str | None = None


@click.group()
@config_options
def secret() -> None:
    """List, check and show the secrets that the configuration declares."""


@secret.command()
@click.argument("name")
@click.option("--reveal", is_flag=True, help="Show the value.")
@config_options
@click.pass_obj
def get(session: Session, *, name: str, reveal: bool) -> None:
    """Fetch a secret, by its name or by a reference; its value is masked unless --reveal.

    With --reveal its bytes go to standard output as they are, and to a terminal with a newline
    after them.

    \b
    sentra-kms secret get DATABASE_URL
    sentra-kms secret get --reveal 'docker://database_url'
    """  # noqa: D301
    with session.open() as kms:
        found = kms.secrets.get(name)
    if reveal:
        refuse_leased({name: found})
    if session.json:
        write_json(_told(name, found, reveal=reveal))
    elif not reveal:
        write_row(name, MASKED, found.version or "", _expiry(found) or "")
    elif not to_terminal():
        write(found.reveal_bytes())
    elif _is_plain(found):
        write_line(found.reveal())
    else:
        raise click.UsageError(
            "The value is no plain text, which could steer the terminal: redirect the output."
        )


@secret.command("list")
@config_options
@click.pass_obj
def list_secrets(session: Session) -> None:
    """List the declared secrets and where they are; fetches nothing."""
    settings = read_settings(session.config, session.environment)
    rows = [_row(name, entry) for name, entry in sorted(settings.secrets.items())]
    if session.json:
        write_json({"environment": settings.environment, "secrets": rows})
    elif to_terminal():
        columns = [
            ("Secret", [row.name for row in rows]),
            ("From", ["\n".join(row.sources) for row in rows]),
            ("Transform", [", ".join(row.transforms) for row in rows]),
            ("Used for", [_seconds(row.ttl) for row in rows]),
            ("Rotate after", [_seconds(row.max_age) for row in rows]),
        ]
        render(table_of(columns), f"{count(len(rows), 'secret')} in {settings.environment}")
    else:
        for row in rows:
            write_row(
                row.name,
                ",".join(row.sources),
                ",".join(row.transforms),
                _seconds(row.ttl),
                _seconds(row.max_age),
            )


@secret.command()
@click.argument("names", nargs=-1)
@config_options
@click.pass_obj
def check(session: Session, *, names: tuple[str, ...]) -> None:
    """Fetch secrets (default: all that are declared) and say which can be had; shows no value.

    Ends with code 18 if one cannot.
    """
    with session.open() as kms:
        # Side by side: of a source that is away each waits for its whole time.
        rows = together(partial(_checked, kms.secrets), names or kms.secrets.names())
    if session.json:
        write_json({"secrets": rows})
    else:
        for row in rows:
            write_row(
                row.name,
                "ok" if row.usable else row.error,
                row.version or "",
                row.expires or "",
                row.message or "",
            )
    broken = [row for row in rows if not row.usable]
    if broken:
        raise ErrorsFound(f"{count(len(broken), 'secret')} cannot be had")


def _row(name: str, entry: SecretEntry) -> SecretRow:
    parts = entry.parts.items()
    return SecretRow(
        name,
        [
            f"{part}: {reference}" if part else str(reference)
            for part, source in parts
            for reference in source.references
        ],
        list(dict.fromkeys(each for _, source in parts for each in source.transforms)),
        bool(entry.template),
        None if entry.ttl is None else float(entry.ttl),
        None if entry.max_age is None else float(entry.max_age),
    )


def _checked(secrets: SecretManager, name: str) -> CheckRow:
    try:
        found = secrets.get(name)
    except KMSError as error:
        return CheckRow(name, usable=False, error=type(error).__name__, message=error.message)
    return CheckRow(name, usable=True, version=found.version, expires=_expiry(found))


def _told(name: str, found: Secret, *, reveal: bool) -> dict[str, object]:
    told: dict[str, object] = {"name": name, "version": found.version, "expires": _expiry(found)}
    if not reveal:
        return {**told, "value": MASKED}
    try:
        return {**told, "value": found.reveal()}
    except KMSError:
        return {**told, "base64": base64.b64encode(found.reveal_bytes()).decode("ascii")}


def _expiry(found: Secret) -> str | None:
    return None if found.expires is None else found.expires.isoformat()


def _seconds(seconds: float | None) -> str:
    return "" if seconds is None else f"{seconds:.0f} s"


def _is_plain(found: Secret) -> bool:
    try:
        return all(c.isprintable() or c in "\n\t" for c in found.reveal())
    except KMSError:
        return False
