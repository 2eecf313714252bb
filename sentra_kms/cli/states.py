"""`sentra-kms tenant disable`, `enable`, `schedule-destroy` and `cancel-destroy`: one version."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import TypeVar

import click

from sentra_kms.cli.confirm import confirm_option, confirmed
from sentra_kms.cli.output import hint, printable, write_json, write_line
from sentra_kms.cli.session import Session, config_options
from sentra_kms.config import parse_duration
from sentra_kms.keys.info import RingInfo
from sentra_kms.tenant import check_tenant

_Command = TypeVar("_Command", bound=Callable[..., object])
_LONGEST = timedelta(days=3650)


def _grace(context: click.Context, option: click.Parameter, value: str) -> timedelta:
    """Read a duration as in the configuration."""
    try:
        seconds = float(parse_duration(value))
    except (ValueError, OverflowError) as error:
        failure = str(error)
    else:
        if seconds <= _LONGEST.total_seconds():
            return timedelta(seconds=seconds)
        failure = "ten years are the longest time of grace"
    raise click.BadParameter(failure)


def _of_a_version(command: _Command) -> _Command:
    for option in (
        config_options,
        click.argument("version", type=click.IntRange(min=1)),
        click.argument("name"),
    ):
        command = option(command)
    return command


@click.command()
@_of_a_version
@click.pass_obj
def disable(session: Session, *, name: str, version: int) -> None:
    """Let a key version neither encrypt nor decrypt until it is enabled again.

    The primary version cannot be disabled: rotate first.
    """
    with session.open() as kms:
        ring = kms.keys.disable(name, version)
    _say(session, ring, version)


@click.command()
@_of_a_version
@click.pass_obj
def enable(session: Session, *, name: str, version: int) -> None:
    """Let a disabled version decrypt again."""
    with session.open() as kms:
        ring = kms.keys.enable(name, version)
    _say(session, ring, version)


@click.command("schedule-destroy")
@_of_a_version
@click.option(
    "--after",
    callback=_grace,
    required=True,
    metavar="TIME",
    help="The time of grace, like 30d; 10 years at most.",
)
@confirm_option
@click.pass_obj
def schedule_destroy(
    session: Session, *, name: str, version: int, after: timedelta, confirm: str | None
) -> None:
    """Have a key version destroyed by the first destroy-due after a time of grace.

    From now on it opens nothing; until then cancel-destroy takes it back. One that is scheduled
    already keeps its time. Asks for the tenant's name.
    """
    check_tenant(name)
    with session.open() as kms:
        kms.keys.describe(name)  # that there is no such tenant is said before anybody is asked
        what = (
            f"Version {version} of {name} opens nothing from now on, and is destroyed for good "
            "when its time has passed."
        )
        confirmed(session, name, confirm, what)
        ring = kms.keys.schedule_destroy(name, version, after)
    _say(session, ring, version)


@click.command("cancel-destroy")
@_of_a_version
@click.pass_obj
def cancel_destroy(session: Session, *, name: str, version: int) -> None:
    """Take a scheduled version back; it is disabled then."""
    with session.open() as kms:
        ring = kms.keys.cancel_destroy(name, version)
    _say(session, ring, version)


def _say(session: Session, ring: RingInfo, number: int) -> None:
    if session.json:
        write_json(ring)
        return
    (version,) = (each for each in ring.versions if each.version == number)
    when = ""
    if version.destroy_after is not None:
        when = f", to be destroyed after {version.destroy_after:%Y-%m-%d %H:%M UTC}"
    write_line(f"{printable(ring.tenant)}: version {number} is {version.state}{when}")
    hint("Other processes obey within ring_ttl (60 s unless configured).")
