"""A value that is held under a name or reference."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime

from sentra_kms.material import Secret
from sentra_kms.reference import Reference
from sentra_kms.secrets.compose import Composed
from sentra_kms.secrets.documents import Held


class View:
    """A composed value, what it is made of, and how long it may be used without a look.

    Times are in monotonic seconds.
    """

    __slots__ = (
        "created", "fresh_until", "generation", "hard_until", "made_of", "parts", "secret",
    )  # fmt: skip

    def __init__(
        self,
        made: Composed,
        made_of: Mapping[Reference, Held],
        generation: int,
        fresh: float,
        hard: float,
    ) -> None:
        self.secret: Secret = made.secret
        self.created: datetime | None = made.created
        self.parts: tuple[Secret, ...] = made.parts
        self.made_of: Mapping[Reference, Held] = made_of
        self.generation: int = generation
        self.fresh_until: float = fresh
        self.hard_until: float = hard


def are_of_one_state(views: Iterable[View]) -> bool:
    """Whether what values have in common of what they are made of is the same in all of them."""
    known: dict[Reference, Held] = {}
    for view in views:
        for document, held in view.made_of.items():
            other = known.setdefault(document, held)
            if other is not held and _state(other) != _state(held):
                return False
    return True


def _state(held: Held) -> object:
    value = held.value
    return None if value is None else (value.data, value.version)  # a lease may end later now
