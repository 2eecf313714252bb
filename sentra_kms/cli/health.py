"""`sentra-kms health`: whether what keys need answers."""

from __future__ import annotations

import click

from sentra_kms.cli.failure import NotReady
from sentra_kms.cli.output import render, to_terminal, write_json, write_row
from sentra_kms.cli.session import Session, config_options
from sentra_kms.cli.show import table_of
from sentra_kms.health import Health


@click.command()
@config_options
@click.pass_obj
def health(session: Session) -> None:
    """Ask the backends of keys and key rings whether they answer; decrypts nothing.

    Ends with code 0 if a process could start and serve, with 19 if not. A KEK of a policy other
    than [keys] is told and ends with 0: it concerns its tenants alone.
    """
    with session.open() as kms:
        found = kms.health()
    if session.json:
        write_json(found)
    else:
        _show(found)
    if not found.ready:
        names = ", ".join(each.name for each in found.backends if not each.ok)
        raise NotReady(f"not ready to serve: see {names}")


def _show(found: Health) -> None:
    if not to_terminal():
        write_row("ready" if found.ready else "not ready")
        for each in found.backends:
            write_row("backend", each.name, "ok" if each.ok else "failed", "; ".join(each.problems))
        return
    columns = [
        ("Backend", [each.name for each in found.backends]),
        ("Answers", ["yes" if each.ok else "no" for each in found.backends]),
        ("What is wrong", ["\n".join(each.problems) for each in found.backends]),
    ]
    head = "Ready to serve." if found.ready else "Not ready to serve."
    render(head, table_of(columns))
