"""`sentra-kms tenant list`: every tenant, or every name."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime

import click
import msgspec

from sentra_kms.cli.each import complain
from sentra_kms.cli.failure import ErrorInfo, SomeFailed, error_info
from sentra_kms.cli.output import (
    count,
    hint,
    render,
    to_terminal,
    write_json,
    write_line,
    write_row,
)
from sentra_kms.cli.session import Session, config_options
from sentra_kms.cli.show import moment, table_of, written
from sentra_kms.errors import KMSError
from sentra_kms.keys.info import RingInfo
from sentra_kms.keys.manager import KeyManager


class TenantRow(msgspec.Struct, omit_defaults=True):
    """One tenant, or why its ring cannot be read."""

    tenant: str
    policy: str | None = None
    primary: int | None = None
    versions: int | None = None
    rotation_due: datetime | None = None
    is_overdue: bool | None = None
    missing: tuple[str, ...] = ()
    error: ErrorInfo | None = None


@click.command("list")
@click.option("--names", "names_only", is_flag=True, help="Names alone: no key ring is read.")
@config_options
@click.pass_obj
def list_tenants(session: Session, *, names_only: bool) -> None:
    """List all tenants: policy, primary version, and when its rotation is due.

    Reads every key ring, one after the other; --names reads none. A ring that cannot be read is
    told, and ends with code 17.
    """
    with session.open() as kms:
        names = kms.keys.tenants()
        if names_only:
            _show_names(session, names, kms.environment)
            return
        failed = _show_rows(session, _rows(kms.keys, names), kms.environment)
    if failed:
        raise SomeFailed(f"{count(failed, 'key ring')} could not be read")


def _show_names(session: Session, names: Iterable[str], environment: str) -> None:
    if session.json:
        write_json({"tenants": list(names)})
    elif to_terminal():
        _table([("Tenant", list(names))], environment)
    else:
        for name in names:
            write_line(name)


def _show_rows(session: Session, rows: Iterator[TenantRow], environment: str) -> int:
    """Show the rows; return how many are of rings that could not be read."""
    failed = 0
    kept: list[TenantRow] = []
    for row in rows:
        failed += row.error is not None
        if row.error is not None and not session.json:
            complain(row.tenant, row.error)
        if session.json or to_terminal():
            kept.append(row)
        elif row.error is None:  # at once, however many there are
            write_row(
                row.tenant,
                row.policy,
                row.primary or "",
                row.versions,
                written(row.rotation_due),
                "overdue" if row.is_overdue else "",
                ",".join(row.missing),
            )
    if session.json:
        write_json({"tenants": kept})
    elif to_terminal():
        columns = [
            ("Tenant", [row.tenant for row in kept]),
            ("Policy", ["cannot be read" if row.error else row.policy or "" for row in kept]),
            ("Primary", ["" if row.error else str(row.primary or "none") for row in kept]),
            ("Versions", [str(row.versions or "") for row in kept]),
            ("Rotation due", [_due(row) for row in kept]),
            ("Not wrapped by", ["\n".join(row.missing) for row in kept]),
        ]
        _table(columns, environment)
    return failed


def _table(columns: list[tuple[str, list[str]]], environment: str) -> None:
    tenants = len(columns[0][1])
    if not tenants:
        hint(f"No tenants in {environment} yet. Make one: sentra-kms tenant create NAME")
        return
    render(table_of(columns), f"{count(tenants, 'tenant')} in {environment}")


def _rows(keys: KeyManager, names: Iterable[str]) -> Iterator[TenantRow]:
    for name in names:
        try:
            yield _row(keys.describe(name))
        except KMSError as error:
            yield TenantRow(name, error=error_info(error))


def _row(ring: RingInfo) -> TenantRow:
    missing = dict.fromkeys(kek for version in ring.versions for kek in version.missing)
    return TenantRow(
        tenant=ring.tenant,
        policy=ring.policy,
        primary=ring.primary,
        versions=len(ring.versions),
        rotation_due=ring.rotation_due,
        is_overdue=ring.is_overdue,
        missing=tuple(missing),
    )


def _due(row: TenantRow) -> str:
    return (
        f"overdue since {moment(row.rotation_due)}" if row.is_overdue else moment(row.rotation_due)
    )
