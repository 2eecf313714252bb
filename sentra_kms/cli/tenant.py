"""`sentra-kms tenant`: tenants' key rings."""

from __future__ import annotations

import click

from sentra_kms.cli.backup import backup, receipt, restore
from sentra_kms.cli.destroy import destroy_due, revoke, shred
from sentra_kms.cli.listing import list_tenants
from sentra_kms.cli.move import move
from sentra_kms.cli.output import hint, printable, write_json, write_line
from sentra_kms.cli.policy import complete_policy, release, set_policy
from sentra_kms.cli.rewrap import rewrap
from sentra_kms.cli.session import Session, config_options
from sentra_kms.cli.show import show_ring
from sentra_kms.cli.states import cancel_destroy, disable, enable, schedule_destroy
from sentra_kms.keys.info import RingInfo


@click.group()
@config_options
def tenant() -> None:
    """Make, list and show tenants' key rings, change them, back them up, and end them."""


@tenant.command()
@click.argument("name")
@click.option(
    "--policy",
    metavar="POLICY",
    shell_complete=complete_policy,
    help="One of [ENV.policies], whose KEKs wrap its keys.  [default: what [ENV.keys] says]",
)
@click.option("--exist-ok", is_flag=True, help="A tenant that is there already is no error.")
@config_options
@click.pass_obj
def create(session: Session, *, name: str, policy: str | None, exist_ok: bool) -> None:
    """Make a tenant's key ring with its first key version.

    Nothing else ever makes a tenant.
    """
    with session.open() as kms:
        ring = kms.keys.create(name, policy, exist_ok=exist_ok)
    _say_primary(session, ring)


@tenant.command()
@click.argument("name")
@config_options
@click.pass_obj
def show(session: Session, *, name: str) -> None:
    """Show a tenant's key ring: its versions, which KEKs wrap them, and when rotation is due."""
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


for _command in (
    list_tenants,
    rewrap,
    set_policy,
    move,
    disable,
    enable,
    schedule_destroy,
    cancel_destroy,
    destroy_due,
    release,
    revoke,
    shred,
    backup,
    restore,
    receipt,
):
    tenant.add_command(_command)


def _say_primary(session: Session, ring: RingInfo) -> None:
    if session.json:
        write_json(ring)
        return
    which = "no version" if ring.primary is None else f"version {ring.primary}"
    write_line(f"{printable(ring.tenant)}: {which} is primary")
