"""`sentra-kms tenant destroy-due`, `shred` and `revoke`: keys destroyed, and what remains."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeVar

import click
import msgspec

from sentra_kms.cli.confirm import confirm_option, confirmed
from sentra_kms.cli.each import complain
from sentra_kms.cli.failure import ErrorInfo, SomeFailed, error_info
from sentra_kms.cli.output import (
    count,
    printable,
    render,
    to_terminal,
    write_json,
    write_line,
    write_row,
)
from sentra_kms.cli.receipt_file import document, receipt_kept
from sentra_kms.cli.session import Session, config_options
from sentra_kms.cli.show import table_of
from sentra_kms.cli.signals import put_off
from sentra_kms.keys.destruction import Destroyed
from sentra_kms.keys.receipt import Remains

_Command = TypeVar("_Command", bound=Callable[..., object])
_WARNINGS = {
    "shred": "This destroys all {count} of {name}, for good. No data of {name} opens any more.",
    "revoke": "This ends {name}, whose own KEK is withdrawn, and destroys all {count} of it, for "
    "good. No data of {name} opens any more. (To keep the data: sentra-kms tenant release)",
}


class Ended(msgspec.Struct, omit_defaults=True):
    """What became of one tenant's versions that were due."""

    tenant: str
    versions: tuple[int, ...] = ()
    remains: tuple[Remains, ...] = ()
    error: ErrorInfo | None = None


@click.command("destroy-due")
@config_options
@click.pass_obj
def destroy_due(session: Session) -> None:
    """Destroy every scheduled version whose time has come, of all tenants.

    Nobody is asked: who scheduled it was. For a timer, once a day. Tells what was destroyed, and
    what may still hold it, where, and until when. Goes on after a failure.
    """
    with session.open() as kms, put_off(0):  # by a signal it ends at once, and tells what is gone
        report = kms.keys.destroy_due()
    ended = [Ended(each.tenant, each.versions, each.remains) for each in report.destroyed]
    ended += [Ended(name, error=error_info(error)) for name, error in report.failed.items()]
    if session.json:
        write_json({"tenants": ended})
    else:
        for done in report.destroyed:
            _show(done)
        for each in ended:
            if each.error is not None:
                complain(each.tenant, each.error)
        if not ended and to_terminal():
            write_line("Nothing is due.")
    if report.failed:
        raise SomeFailed(f"{count(len(report.failed), 'tenant')} failed: run it again")


def _ending(command: _Command) -> _Command:
    for option in (
        config_options,
        click.option(
            "--receipt",
            metavar="FILE",
            help="Where the receipt goes: a new file, mode 600.  [default: standard output, if that"
            " is no terminal]",
        ),
        confirm_option,
        click.argument("name"),
    ):
        command = option(command)
    return command


@click.command()
@_ending
@click.pass_obj
def shred(session: Session, *, name: str, confirm: str | None, receipt: str | None) -> None:
    """Destroy every key of a tenant now, for good.

    All of its data is gone with them. The ring stays, without keys, so that the name never gets
    new ones. The receipt says what was destroyed, and is for the evidence file.
    """
    _end(session, "shred", name, confirm, receipt)


@click.command()
@_ending
@click.pass_obj
def revoke(session: Session, *, name: str, confirm: str | None, receipt: str | None) -> None:
    """End a tenant whose own KEK is withdrawn: its data goes with it.

    Asks no KEK, so that it works when theirs is gone already. As `shred`, for a tenant of a policy
    with KEKs of its own. To give the KEK back and keep the data: `tenant release`.
    """
    _end(session, "revoke", name, confirm, receipt)


def _end(
    session: Session,
    operation: Literal["shred", "revoke"],
    name: str,
    confirm: str | None,
    receipt: str | None,
) -> None:
    with session.open() as kms, receipt_kept(session, receipt) as keep:
        versions = count(len(kms.keys.describe(name).versions), "key version")
        what = _WARNINGS[operation].format(name=name, count=versions)
        typed = confirmed(session, name, confirm, what)
        end = kms.keys.shred if operation == "shred" else kms.keys.revoke
        ended = keep(lambda: end(name, typed))
    if receipt is not None:
        if session.json:
            write_json(document(ended, receipt))
        else:
            _show(ended.destroyed)
    elif not session.json:  # standard output has the receipt
        for line in _told(ended.destroyed):
            click.echo(line, err=True)


def _show(destroyed: Destroyed) -> None:
    if not to_terminal():
        numbers = ",".join(map(str, destroyed.versions))
        write_row("destroyed", destroyed.tenant, numbers)
        for each in destroyed.remains:
            write_row("remains", destroyed.tenant, each.where, each.until or "")
        return
    head, *_ = _told(destroyed)
    columns = [
        ("What may remain", [each.where for each in destroyed.remains]),
        ("Until", [_until(each) for each in destroyed.remains]),
    ]
    render(head, table_of(columns))


def _told(destroyed: Destroyed) -> list[str]:
    numbers = ", ".join(map(str, destroyed.versions))
    what = "key version" if len(destroyed.versions) == 1 else "key versions"
    return [
        f"{destroyed.tenant}: {what} {numbers} destroyed",
        *(printable(f"May remain {_until(each)}: {each.where}") for each in destroyed.remains),
    ]


def _until(remains: Remains) -> str:
    return "until it is erased" if remains.until is None else f"until {remains.until}"
