"""`sentra-kms tenant rewrap`: one tenant or all, and what wraps what afterwards."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable

import click
import msgspec

from sentra_kms.cli.failure import ErrorInfo, SomeFailed, error_info
from sentra_kms.cli.output import printable, render, to_terminal, write_json, write_line, write_row
from sentra_kms.cli.session import Session, config_options
from sentra_kms.cli.show import table_of
from sentra_kms.errors import KMSError
from sentra_kms.keys.info import RingInfo, WrapInfo
from sentra_kms.keys.manager import KeyManager


class Outcome(msgspec.Struct, omit_defaults=True):
    """One tenant's end: its ring as it is now, and the error if there was one."""

    tenant: str
    ring: RingInfo | None = None
    error: ErrorInfo | None = None


class KekUse(msgspec.Struct):
    """How much one key of a KEK wraps."""

    kek: str
    key_id: str
    key_version: str | None
    tenants: int
    versions: int


@click.command()
@click.argument("name", required=False)
@click.option("--all", "every", is_flag=True, help="Every tenant; goes on after a failure.")
@config_options
@click.pass_obj
def rewrap(session: Session, *, name: str | None, every: bool) -> None:
    """Wrap key versions under the KEKs of today.

    These are the KEKs of wrap_with in their current versions, and no others. The keys stay the
    same, so that no data is encrypted again. Ends with the KEKs that wrap something: after --all
    without a failure, one that is not listed wraps nothing in this store any more.
    """
    if (name is not None) == every:
        raise click.UsageError("Name one tenant, or say --all.")
    outcomes: list[Outcome] = []
    with session.open() as kms:
        names = kms.keys.tenants() if name is None else [name]
        try:
            for tenant in names:
                outcomes.append(_rewrap(kms.keys, tenant, alone=not every))
                if not session.json:
                    _say(outcomes[-1])
        finally:
            # Also when the store stops answering half way: what was done is told.
            if outcomes:
                _conclude(session, outcomes)
    if every and not outcomes:
        _conclude(session, outcomes)
    failed = sum(outcome.error is not None for outcome in outcomes)
    if failed:
        raise SomeFailed(f"{failed} of {len(outcomes)} tenants failed: run it again")


def _rewrap(keys: KeyManager, tenant: str, *, alone: bool) -> Outcome:
    try:
        return Outcome(tenant, keys.rewrap(tenant))
    except KMSError as error:
        if alone:
            raise
        failure = error_info(error)
    try:
        ring = keys.describe(tenant)  # what it still depends on
    except KMSError:
        ring = None
    return Outcome(tenant, ring, failure)


def _say(outcome: Outcome) -> None:
    if outcome.error is not None:
        click.echo(
            f"{printable(outcome.tenant)}: {outcome.error.type}: "
            f"{printable(outcome.error.message)}",
            err=True,
        )
    elif outcome.ring is not None:
        count = len(outcome.ring.versions)
        if to_terminal():
            write_line(f"{outcome.tenant}: {count} version{'' if count == 1 else 's'} up to date")
        else:
            write_row("tenant", outcome.tenant, count)


def _conclude(session: Session, outcomes: list[Outcome]) -> None:
    uses = kek_uses(outcome.ring for outcome in outcomes if outcome.ring is not None)
    if session.json:
        write_json({"tenants": outcomes, "keks": uses})
    elif not to_terminal():
        for use in uses:
            write_row("kek", use.kek, use.key_id, use.key_version or "", use.tenants, use.versions)
    elif uses:
        _show_uses(uses)
    else:
        write_line("There are no tenants.")


def _show_uses(uses: list[KekUse]) -> None:
    columns = [
        ("KEK", [use.kek for use in uses]),
        ("Key id", [use.key_id for use in uses]),
        ("Key version", [use.key_version or "" for use in uses]),
        ("Tenants", [str(use.tenants) for use in uses]),
        ("Versions wrapped", [str(use.versions) for use in uses]),
    ]
    render(table_of(columns))


def kek_uses(rings: Iterable[RingInfo]) -> list[KekUse]:
    """Count what each key of each KEK wraps, in the order of their names."""
    versions: Counter[WrapInfo] = Counter()
    tenants: defaultdict[WrapInfo, set[str]] = defaultdict(set)
    for ring in rings:
        for version in ring.versions:
            for wrap in version.wraps:
                versions[wrap] += 1
                tenants[wrap].add(ring.tenant)
    return [
        KekUse(wrap.kek, wrap.key_id, wrap.key_version, len(tenants[wrap]), versions[wrap])
        for wrap in sorted(
            versions, key=lambda wrap: (wrap.kek, wrap.key_id, wrap.key_version or "")
        )
    ]
