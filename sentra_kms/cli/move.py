"""`sentra-kms tenant move`: key rings from `previous_store` to `store`."""

from __future__ import annotations

import click

from sentra_kms.cli.each import Outcome, for_each
from sentra_kms.cli.output import count, to_terminal, write_json, write_line, write_row
from sentra_kms.cli.session import Session, config_options
from sentra_kms.keys.info import RingInfo
from sentra_kms.keys.manager import KeyManager


@click.command()
@click.argument("name", required=False)
@click.option("--all", "every", is_flag=True, help="Every tenant; goes on after a failure.")
@config_options
@click.pass_obj
def move(session: Session, *, name: str | None, every: bool) -> None:
    """Move key rings from previous_store to store.

    A ring that is in store already stays. May be stopped at any point and run again; whoever reads
    a ring that was being moved finishes that. After --all without a failure previous_store holds
    nothing that is needed.
    """
    for_each(session, name, every=every, work=KeyManager.move, say=_say, conclude=_conclude)


def _say(ring: RingInfo) -> None:
    if to_terminal():
        write_line(f"{ring.tenant}: in store")
    else:
        write_row(ring.tenant, ring.sequence)


def _conclude(session: Session, outcomes: list[Outcome]) -> None:
    if session.json:
        write_json({"tenants": outcomes})
    elif to_terminal():
        there = sum(outcome.error is None for outcome in outcomes)
        write_line(f"{count(there, 'key ring')} in store." if outcomes else "There are no tenants.")
