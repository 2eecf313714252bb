"""What a way to log in is given."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from sentra_kms.hooktypes import Host
from sentra_kms_vault.call import Call
from sentra_kms_vault.deadline import Deadline


class Means(NamedTuple):
    """`call` makes a call without a token, `call_with` one with that token; both for one login."""

    host: Host
    call: Callable[[Deadline], Call]
    call_with: Callable[[str, Deadline], Call]
