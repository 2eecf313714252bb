"""`sentra-kms tenant backup`, `restore` and `receipt`: rings in files, and proofs of their end."""

from __future__ import annotations

from collections.abc import Callable

import click

from sentra_kms.cli.confirm import typed
from sentra_kms.cli.failure import SomeFailed, error_info
from sentra_kms.cli.files import read_input
from sentra_kms.cli.output import (
    count,
    from_terminal,
    hint,
    printable,
    to_terminal,
    write_json,
    write_line,
    write_row,
)
from sentra_kms.cli.session import Session, config_options
from sentra_kms.cli.signals import put_off
from sentra_kms.keys.backup import BackupReport
from sentra_kms.keys.receipt import MAX_RECEIPT, Receipt
from sentra_kms.keys.restore_report import Restored, RestoreReport, told

_DONE = {
    "create": "created",
    "forward": "brought forward",
    "unchanged": "as in the backup",
    "force": "replaced",
}
_PLANNED = _DONE | {
    "create": "would be created",
    "forward": "would be brought forward",
    "force": "would be replaced",
}


@click.command()
@click.argument("path", metavar="FILE")
@click.argument("names", metavar="[TENANT]...", nargs=-1)
@config_options
@click.pass_obj
def backup(session: Session, *, path: str, names: tuple[str, ...]) -> None:
    """Write key rings into a new file of mode 600.

    Those of all tenants, or of the ones that are named. Rings stay wrapped: without the KEKs the
    file opens nothing. A ring that cannot be read is left out, told, and ends with code 17.
    """
    with session.open() as kms, put_off(0):  # by a signal it ends at once, and takes its file away
        report = kms.keys.backup(path, names or None)
    for each in report.failed:
        if each.error is not None and not session.json:
            _complain(each.tenant, error_info(each.error).type, each.error.message)
    if session.json:
        write_json(_backup_json(report))
    elif to_terminal():
        held = len(report.tenants) - len(report.failed)
        write_line(f"Wrote {count(held, 'key ring')} into {printable(path)}.")
        hint("Keep it apart from the KEKs' secrets: together they open everything.")
    else:
        for each in report.tenants:
            if each.error is None:
                write_row(each.tenant, each.ring_id, each.sequence, each.versions)
    _conclude(len(report.failed), len(report.tenants))


@click.command()
@click.argument("path", metavar="FILE")
@click.argument("names", metavar="[TENANT]...", nargs=-1)
@click.option("--force", is_flag=True, help="Let newer and other rings give way, too.")
@click.option("--dry-run", is_flag=True, help="Verify the file and tell the plan; change nothing.")
@click.option("--yes", is_flag=True, help="With --force: do not ask.")
@config_options
@click.pass_obj
def restore(
    session: Session, *, path: str, names: tuple[str, ...], force: bool, dry_run: bool, yes: bool
) -> None:
    """Restore key rings from a backup.

    Those of all tenants in it, or of the ones that are named. The whole file is verified first. A
    ring that is newer than the backup's, another, or not readable is left as it is and ends with
    code 17; --force replaces it, after telling what that loses.
    """
    with session.open() as kms:
        report = kms.keys.restore(
            path,
            force=force,
            dry_run=dry_run,
            tenants=names or None,
            confirm=None if yes or dry_run else _ask(json=session.json),
        )
    if session.json:
        write_json(_restore_json(report))
    else:
        hint(f"A backup of {report.time:%Y-%m-%d %H:%M} UTC, id {report.backup_id}.")
        for each in report.tenants:
            _say(each, dry_run=dry_run)
    _conclude(len(report.failed), len(report.tenants))


@click.command()
@click.argument("path", metavar="FILE|-")
@config_options
@click.pass_obj
def receipt(session: Session, *, path: str) -> None:
    """Verify the receipt of a tenant that was shredded or revoked, and show it."""
    with session.open() as kms:
        found = kms.keys.verify_receipt(read_input(path, MAX_RECEIPT))
    if session.json:
        write_json(found)
        return
    for name, value in _facts(found):
        write_row(name, value)
    for version in found.versions:
        keks = ",".join(f"{wrap.kek} ({wrap.key_id})" for wrap in version.wraps)
        write_row("version", version.version, keks)
    for each in found.remains:
        write_row("remains", each.where, each.until or "until it is erased")


def _facts(found: Receipt) -> list[tuple[str, str]]:
    return [
        ("authentic", found.auth_id),
        ("operation", found.operation),
        ("tenant", found.tenant),
        ("ring", found.ring_id),
        ("sequence", str(found.sequence)),
        ("policy", found.policy),
        ("time", found.time),
        ("actor", found.actor or ""),
        ("request", found.request or ""),
    ]


def _ask(*, json: bool) -> Callable[[RestoreReport], None]:
    def ask(plan: RestoreReport) -> None:
        losing = [each for each in plan.tenants if each.action == "force"]
        if not losing:
            return
        click.echo(f"The backup is of {plan.time:%Y-%m-%d %H:%M} UTC.", err=True)
        for each in losing:
            what = f"{each.tenant}: the restore {told(each.losses)}"
            click.echo(printable(what), err=True)
        if json or not from_terminal():
            raise click.UsageError("Nobody can be asked here: say --yes if this is meant.")
        if typed("Type `restore` to go on: ") != "restore":
            raise click.Abort

    return ask


def _say(each: Restored, *, dry_run: bool) -> None:
    if each.error is not None:
        _complain(each.tenant, type(each.error).__name__, each.error.message)
        return
    done = (_PLANNED if dry_run else _DONE)[each.action]
    if not to_terminal():
        lost = told(each.losses) if each.action == "force" else ""
        write_row(each.tenant, each.action, each.stored or "", each.saved or "", lost)
    elif each.action == "force":
        write_line(f"{each.tenant}: {done}, which {printable(told(each.losses))}")
    else:
        write_line(f"{each.tenant}: {done}")


def _complain(tenant: str, kind: str, message: str) -> None:
    click.echo(f"{printable(tenant)}: {kind}: {printable(message)}", err=True)


def _conclude(failed: int, all_tenants: int) -> None:
    if failed:
        raise SomeFailed(f"{failed} of {all_tenants} tenants failed")


def _backup_json(report: BackupReport) -> dict[str, object]:
    return {
        "path": report.path,
        "backup_id": report.backup_id,
        "time": report.time,
        "tenants": [
            {
                "tenant": each.tenant,
                "ring_id": each.ring_id,
                "sequence": each.sequence,
                "versions": each.versions,
                "error": each.error and error_info(each.error),
            }
            for each in report.tenants
        ],
    }


def _restore_json(report: RestoreReport) -> dict[str, object]:
    return {
        "path": report.path,
        "backup_id": report.backup_id,
        "time": report.time,
        "dry_run": report.dry_run,
        "tenants": [
            {
                "tenant": each.tenant,
                "action": each.action,
                "ring_id": each.ring_id,
                "stored": each.stored,
                "backed_up": each.backed_up,
                "saved": each.saved,
                "losses": each.losses,
                "error": each.error and error_info(each.error),
            }
            for each in report.tenants
        ],
    }
