"""`sentra-kms tenant rewrap`: one tenant or all, and what wraps what afterwards."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable

import click
import msgspec

from sentra_kms.cli.each import Outcome, for_each
from sentra_kms.cli.output import count, render, to_terminal, write_json, write_line, write_row
from sentra_kms.cli.session import Session, config_options
from sentra_kms.cli.show import table_of
from sentra_kms.keys.info import RingInfo, WrapInfo
from sentra_kms.keys.manager import KeyManager


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

    These are the KEKs in wrap_with of the tenant's policy, in their current versions, and no
    others; what was missing is wrapped, too. The keys stay the same, so that no data is encrypted
    again. Ends with the KEKs that wrap something: after --all without a failure, one that is not
    listed wraps nothing in this store any more.
    """
    for_each(session, name, every=every, work=KeyManager.rewrap, say=_say, conclude=_conclude)


def _say(ring: RingInfo) -> None:
    if to_terminal():
        write_line(f"{ring.tenant}: {count(len(ring.versions), 'version')} up to date")
    else:
        write_row("tenant", ring.tenant, len(ring.versions))


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
