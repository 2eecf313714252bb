"""`sentra-kms tenant set-policy` and `release`: which KEKs wrap a tenant's keys."""

from __future__ import annotations

from contextlib import suppress

import click

from sentra_kms.cli.output import printable, write_json, write_line
from sentra_kms.cli.session import Session, config_options
from sentra_kms.config import read_settings
from sentra_kms.errors import KMSError
from sentra_kms.keys.info import RingInfo
from sentra_kms.settings import DEFAULT_POLICY


def complete_policy(_: click.Context, __: click.Parameter, typed: str) -> list[str]:
    """Offer the policies of the configuration that the variables name; nothing is fetched."""
    with suppress(KMSError, OSError):
        return [name for name in read_settings(None, None).policies if name.startswith(typed)]
    return []


@click.command("set-policy")
@click.argument("name")
@click.argument("policy", shell_complete=complete_policy)
@config_options
@click.pass_obj
def set_policy(session: Session, *, name: str, policy: str) -> None:
    """Put a tenant under another policy: its KEKs wrap every version, and no others do.

    The KEKs of the policy before must still unwrap, and one of the new ones what it wraps; if one
    cannot, nothing changes.
    """
    with session.open() as kms:
        ring = kms.keys.set_policy(name, policy)
    _say(session, ring)


@click.command()
@click.argument("name")
@click.option(
    "--policy",
    default=DEFAULT_POLICY,
    show_default=True,
    metavar="POLICY",
    shell_complete=complete_policy,
    help="Whose KEKs wrap the keys from now on.",
)
@config_options
@click.pass_obj
def release(session: Session, *, name: str, policy: str) -> None:
    """Let go of a tenant's own KEK and keep the data.

    The KEKs of the policy wrap the keys instead. Theirs must still unwrap; afterwards it wraps
    nothing of the ring any more, so that they may destroy it. (`tenant revoke` is the other end:
    the data goes with the KEK.)
    """
    with session.open() as kms:
        ring = kms.keys.release(name, policy)
    _say(session, ring)


def _say(session: Session, ring: RingInfo) -> None:
    if session.json:
        write_json(ring)
        return
    keks = dict.fromkeys(wrap.kek for version in ring.versions for wrap in version.wraps)
    wrapped = f", wrapped by {', '.join(keks)}" if keks else ""
    write_line(printable(f"{ring.tenant}: policy {ring.policy}{wrapped}"))
