"""What a forked child must forget, such as locks that another thread held at the fork."""

from __future__ import annotations

import os
from typing import Protocol
from weakref import WeakSet


class Forked(Protocol):
    """Anything that has to be told in the child."""

    def after_fork(self) -> None:
        """Run in the child, while it has one thread."""


_watched: WeakSet[Forked] = WeakSet()


def tell_after_fork(watched: Forked) -> None:
    """Call `watched.after_fork()` in every child forked from now on, while `watched` lives."""
    _watched.add(watched)


def _tell() -> None:
    for watched in list(_watched):
        watched.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_tell)
