"""Key rings on standard output: tables for a person, rows with tabs for programs."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from sentra_kms.cli.output import printable, render, to_terminal, write_row
from sentra_kms.keys.info import RingInfo, VersionInfo, WrapInfo

if TYPE_CHECKING:
    from rich.table import Table


def show_ring(ring: RingInfo) -> None:
    """Show one ring."""
    if to_terminal():
        _ring_for_person(ring)
        return
    for name, value in _facts(ring):
        write_row(name, value)
    for version in ring.versions:
        write_row(
            "version",
            version.version,
            version.state,
            written(version.created),
            version.origin,
            ",".join(_wrap(wrap) for wrap in version.wraps),
            ",".join(version.missing),
            written(version.destroy_after),
        )


def _ring_for_person(ring: RingInfo) -> None:
    from rich.table import Table

    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="bold")
    facts.add_column(overflow="fold")
    for name, value in _facts(ring):
        facts.add_row(name.capitalize(), printable(value))
    columns: list[tuple[str, list[str]]] = [
        ("Version", [_number(ring, version) for version in ring.versions]),
        ("State", [version.state for version in ring.versions]),
        ("Created", [moment(version.created) for version in ring.versions]),
        ("Wrapped by", ["\n".join(map(_wrap, version.wraps)) for version in ring.versions]),
        ("Not wrapped by", ["\n".join(version.missing) for version in ring.versions]),
        ("Destroyed after", [moment(version.destroy_after) for version in ring.versions]),
        ("Request", [printable(version.request or "") for version in ring.versions]),
    ]
    render(facts, table_of(columns))


def table_of(columns: list[tuple[str, list[str]]]) -> Table:
    """Make a table of the columns that hold anything; cells are folded, never cut."""
    from rich import box
    from rich.table import Table

    used = [(title, cells) for title, cells in columns if any(cells)]
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for title, _ in used:
        table.add_column(title, overflow="fold")
    for row in zip(*(cells for _, cells in used), strict=True):
        table.add_row(*("\n".join(map(printable, cell.split("\n"))) for cell in row))
    return table


def _facts(ring: RingInfo) -> list[tuple[str, str]]:
    return [
        ("tenant", ring.tenant),
        ("ring", ring.ring_id),
        ("policy", ring.policy),
        ("sequence", str(ring.sequence)),
        ("primary", "none" if ring.primary is None else str(ring.primary)),
        *_rotation(ring),
    ]


def _rotation(ring: RingInfo) -> list[tuple[str, str]]:
    if ring.rotation_due is None:
        return []
    due = moment(ring.rotation_due) if to_terminal() else written(ring.rotation_due)
    return [("rotation due", f"{due}, overdue" if ring.is_overdue else due)]


def _number(ring: RingInfo, version: VersionInfo) -> str:
    return f"{version.version} primary" if version.version == ring.primary else f"{version.version}"


def _wrap(wrap: WrapInfo) -> str:
    version = "" if wrap.key_version is None else f" version {wrap.key_version}"
    return f"{wrap.kek} ({wrap.key_id}{version})"


def moment(time: datetime | None) -> str:
    """Write a time for a person, nothing for none."""
    return "" if time is None else time.astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")


def written(time: datetime | None) -> str:
    """Write a time for programs, nothing for none."""
    return "" if time is None else time.isoformat().replace("+00:00", "Z")
