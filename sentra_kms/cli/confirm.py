"""Asking for a tenant's name before its keys come to an end."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

import click

from sentra_kms.cli.output import from_terminal
from sentra_kms.cli.session import Session

_Command = TypeVar("_Command", bound=Callable[..., object])
_MAX_LINE = 1024  # characters of what is typed


def confirm_option(command: _Command) -> _Command:
    """Add `--confirm`."""
    return click.option(
        "--confirm",
        metavar="NAME",
        help="The tenant's name again, for scripts: nobody is asked.",
    )(command)


def confirmed(session: Session, tenant: str, given: str | None, what: str) -> str:
    """Return the tenant's name as it was given again, or typed by the person who is asked.

    `what` says what comes to pass. Raises `UsageError` for another name, with nothing changed,
    and where there is nobody to ask.
    """
    name = given
    if name is None:
        if session.json or not from_terminal():
            raise click.UsageError(
                "Nobody can be asked here: add `--confirm NAME`, the tenant's name again, if this "
                "is meant."
            )
        click.echo(what, err=True)
        name = typed("Type the tenant's name to go on: ")
    if name != tenant:
        raise click.UsageError("That is not the tenant's name: nothing was changed.")
    return name


def typed(question: str) -> str:
    """Return what the person at the terminal types; nothing if that is no text."""
    click.echo(question, nl=False, err=True)
    with suppress(UnicodeDecodeError):  # as by a terminal of another encoding
        return sys.stdin.readline(_MAX_LINE).strip()
    return ""
