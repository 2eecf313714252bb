"""One operation on one tenant or on all of them, which goes on after a failure."""

from __future__ import annotations

from collections.abc import Callable

import click
import msgspec

from sentra_kms.cli.failure import ErrorInfo, SomeFailed, error_info
from sentra_kms.cli.output import printable
from sentra_kms.cli.session import Session
from sentra_kms.errors import KMSError
from sentra_kms.keys.info import RingInfo
from sentra_kms.keys.manager import KeyManager


class Outcome(msgspec.Struct, omit_defaults=True):
    """One tenant's end: its ring as it is now, and the error if there was one."""

    tenant: str
    ring: RingInfo | None = None
    error: ErrorInfo | None = None


def for_each(
    session: Session,
    name: str | None,
    *,
    every: bool,
    work: Callable[[KeyManager, str], RingInfo],
    say: Callable[[RingInfo], None],
    conclude: Callable[[Session, list[Outcome]], None],
) -> None:
    """Do `work` for one tenant, or for all; `say` each success, `conclude` at the end.

    The failure of one tenant alone is raised; of all of them those that failed are told and
    `SomeFailed` is raised.
    """
    if (name is not None) == every:
        raise click.UsageError("Name one tenant, or say --all.")
    outcomes: list[Outcome] = []
    with session.open() as kms:
        names = kms.keys.tenants() if name is None else [name]
        try:
            for tenant in names:
                outcomes.append(_one(kms.keys, tenant, work, alone=not every))
                if not session.json:
                    _say(outcomes[-1], say)
        finally:
            # Also when the store stops answering half way: what was done is told.
            if outcomes:
                conclude(session, outcomes)
    if every and not outcomes:
        conclude(session, outcomes)
    failed = sum(outcome.error is not None for outcome in outcomes)
    if failed:
        raise SomeFailed(f"{failed} of {len(outcomes)} tenants failed: run it again")


def complain(tenant: str, error: ErrorInfo) -> None:
    """Tell standard error why a tenant failed."""
    click.echo(f"{printable(tenant)}: {error.type}: {printable(error.message)}", err=True)


def _one(
    keys: KeyManager, tenant: str, work: Callable[[KeyManager, str], RingInfo], *, alone: bool
) -> Outcome:
    try:
        return Outcome(tenant, work(keys, tenant))
    except KMSError as error:
        if alone:
            raise
        failure = error_info(error)
    try:
        ring = keys.describe(tenant)  # as it still is
    except KMSError:
        ring = None
    return Outcome(tenant, ring, failure)


def _say(outcome: Outcome, say: Callable[[RingInfo], None]) -> None:
    if outcome.error is not None:
        complain(outcome.tenant, outcome.error)
    elif outcome.ring is not None:
        say(outcome.ring)
