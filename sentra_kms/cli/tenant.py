"""`sentra-kms tenant`: tenants' key rings."""

from __future__ import annotations

import click

from sentra_kms.cli.backup import backup, receipt, restore
from sentra_kms.cli.output import hint, printable, to_terminal, write_json, write_line
from sentra_kms.cli.rewrap import rewrap
from sentra_kms.cli.session import Session, config_options
from sentra_kms.cli.show import show_ring, show_tenants
from sentra_kms.keys.info import RingInfo


@click.group()
@config_options
def tenant() -> None:
    """Make, list, show, rotate, rewrap, back up and restore tenants' key rings."""


@tenant.command()
@click.argument("name")
@click.option("--exist-ok", is_flag=True, help="A tenant that is there already is no error.")
@config_options
@click.pass_obj
def create(session: Session, *, name: str, exist_ok: bool) -> None:
    """Make a tenant's key ring with its first key version.

    Nothing else ever makes a tenant.
    """
    with session.open() as kms:
        ring = kms.keys.create(name, exist_ok=exist_ok)
    _say_primary(session, ring)


@tenant.command("list")
@config_options
@click.pass_obj
def list_tenants(session: Session) -> None:
    """List the names of all tenants."""
    with session.open() as kms:
        names = kms.keys.tenants()
        if session.json:
            write_json({"tenants": list(names)})
        elif to_terminal():
            show_tenants(list(names), kms.environment)
        else:
            for name in names:
                write_line(name)


@tenant.command()
@click.argument("name")
@config_options
@click.pass_obj
def show(session: Session, *, name: str) -> None:
    """Show a tenant's key ring: its versions, and which KEKs wrap them."""
    with session.open() as kms:
        ring = kms.keys.describe(name)
    if session.json:
        write_json(ring)
    else:
        show_ring(ring)


@tenant.command()
@click.argument("name")
@click.option(
    "--request-id", metavar="ID", help="A retry with the same id makes no second key version."
)
@config_options
@click.pass_obj
def rotate(session: Session, *, name: str, request_id: str | None) -> None:
    """Make a new key version, which encrypts from now on.

    Earlier versions go on decrypting what they encrypted.
    """
    with session.open() as kms:
        ring = kms.keys.rotate(name, request_id=request_id)
    _say_primary(session, ring)
    hint("Other processes take it up within ring_ttl (60 s unless configured).")


for _command in (rewrap, backup, restore, receipt):
    tenant.add_command(_command)


def _say_primary(session: Session, ring: RingInfo) -> None:
    if session.json:
        write_json(ring)
        return
    which = "no version" if ring.primary is None else f"version {ring.primary}"
    write_line(f"{printable(ring.tenant)}: {which} is primary")
