"""A value that is held under a name or reference."""

from __future__ import annotations

from datetime import datetime

from sentra_kms.material import Secret
from sentra_kms.secrets.compose import Composed


class View:
    """A composed value and how long it may be used without a look, in monotonic seconds."""

    __slots__ = ("created", "fresh_until", "generation", "hard_until", "parts", "secret")

    def __init__(self, made: Composed, generation: int, fresh: float, hard: float) -> None:
        self.secret: Secret = made.secret
        self.created: datetime | None = made.created
        self.parts: tuple[Secret, ...] = made.parts
        self.generation: int = generation
        self.fresh_until: float = fresh
        self.hard_until: float = hard
