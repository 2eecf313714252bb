"""Locks, and what else a forked child must forget: another thread may have held one at the fork.

And what may not go to another process any other way. `Lock`, `RLock` and `get_ident` are those of
`threading`, from where it has them: a process that starts no thread need not import it, which takes
1 ms.
"""

from __future__ import annotations

import os
from _thread import RLock, get_ident
from _thread import allocate_lock as Lock  # noqa: N812 - its name in threading
from typing import TYPE_CHECKING, NoReturn, Protocol

try:
    from _weakrefset import WeakSet  # where `weakref` has it from, which takes another 0.5 ms
except ImportError:
    from weakref import WeakSet

__all__ = ["Lock", "ProcessBound", "RLock", "get_ident", "tell_after_fork"]

if TYPE_CHECKING:

    class Forked(Protocol):
        """Anything that has to be told in the child."""

        def after_fork(self) -> None:
            """Run in the child, while it has one thread."""


class ProcessBound:
    """What holds keys, connections and locks, and is neither pickled nor copied."""

    __slots__ = ()

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError(
            f"{type(self).__name__} is never pickled: call sentra_kms.load() in the other process"
        )


_watched: WeakSet[Forked] = WeakSet()


def tell_after_fork(watched: Forked) -> None:
    """Call `watched.after_fork()` in every child forked from now on, while `watched` lives."""
    _watched.add(watched)


def _tell() -> None:
    for watched in list(_watched):
        watched.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_tell)
