"""One lease: what was made on demand, and how long it lives."""

from __future__ import annotations

import random
import time
from datetime import datetime

import msgspec

from sentra_kms import KeyMaterial
from sentra_kms_vault.documents import document_of
from sentra_kms_vault.login import RENEW_AT, Token

_UNEVEN = 1.2  # times the spare time of a lease at most: many processes start at once


class Issued(msgspec.Struct, frozen=True):
    """What Vault answers when it made something on demand; `lease_duration` is in seconds."""

    lease_id: str
    lease_duration: int
    renewable: bool
    data: dict[str, object]

    def __repr__(self) -> str:
        return "Issued(redacted)"


class Renewed(msgspec.Struct, frozen=True):
    """What it answers to a renewal."""

    lease_duration: int
    renewable: bool


class Remaining(msgspec.Struct, frozen=True):
    """What it knows of a lease; `ttl` is in whole seconds."""

    ttl: int
    renewable: bool


class LookedUp(msgspec.Struct, frozen=True):
    """What it answers to a look-up."""

    data: Remaining


class Lease:
    """What was made, and for how long; times are monotonic seconds. Never shown."""

    def __init__(
        self, issued: Issued, asked: float, created: datetime, token: Token | None
    ) -> None:
        self.id = issued.lease_id
        self.document: KeyMaterial = document_of(issued.data)
        self.created = created
        self.token = token
        self.token_ends = float("inf")
        self.renewable = issued.renewable
        self.failing = False
        self.tended = False
        self.ends = asked + issued.lease_duration
        spare = issued.lease_duration * (1 - RENEW_AT)
        self.spare = spare * random.uniform(1, _UNEVEN)  # noqa: S311 - no secret

    def __repr__(self) -> str:
        return "Lease(redacted)"

    @property
    def left(self) -> float:
        """Seconds until it ends."""
        return self.ends - time.monotonic()

    @property
    def rest(self) -> float:
        """Seconds until it is due; where it is due already, until another attempt to renew it."""
        return self.left * RENEW_AT if self.is_due else self.left - self.spare

    @property
    def is_due(self) -> bool:
        """Whether it is so near its end that it has to be renewed or replaced."""
        return self.left < self.spare

    def renewed(self, ends: float, *, renewable: bool) -> None:
        """Take over what Vault says of it now."""
        self.ends = ends
        # Near its longest time a renewal gives less and less, and then nothing.
        self.renewable = renewable and not self.is_due
        self.failing = False
