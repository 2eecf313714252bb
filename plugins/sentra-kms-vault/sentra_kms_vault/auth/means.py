"""What a way to log in is given."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from sentra_kms.hooktypes import Host
from sentra_kms_vault.call import Call
from sentra_kms_vault.deadline import Deadline
from sentra_kms_vault.environment import Connection
from sentra_kms_vault.pace import Pace


class Means(NamedTuple):
    """`call` makes a call without a token, `call_with` one with that token; both for one login.

    `place` is where and as what to log in; `pace` lets no login be tried too often.
    """

    host: Host
    connection: Connection
    place: tuple[str, ...]
    pace: Pace
    call: Callable[[Deadline], Call]
    call_with: Callable[[str, Deadline], Call]


class Maker:
    """Base of the ways whose every login makes a token of this process's own."""

    def changed(self) -> bool:
        """Return `False`: a credential that is another now does not end the token."""
        return False

    def makes_tokens(self) -> bool:
        """Return `True`."""
        return True
