"""Secrets that end with the command that fetched them."""

from __future__ import annotations

from collections.abc import Mapping

from sentra_kms.errors import UnsupportedOperation
from sentra_kms.material import Secret


def refuse_leased(secrets: Mapping[str, Secret]) -> None:
    """Refuse to give out values that are given back at the command's own end.

    >>> refuse_leased({"TOKEN": Secret(b"hunter2")})
    >>> refuse_leased({"LOGIN": Secret(b"hunter2", leased=True)})
    Traceback (most recent call last):
    sentra_kms.errors.UnsupportedOperation: LOGIN is leased, ...
    """
    for name, secret in secrets.items():
        if secret.leased:
            raise UnsupportedOperation(
                f"{name} is leased, and ends when this command does: run what needs it by "
                "`sentra-kms exec -- COMMAND`, which keeps it alive and gives it back at the end",
                subject=name,
            )
