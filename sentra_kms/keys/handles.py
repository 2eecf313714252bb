"""The handles that were asked for, kept for whoever asks for them again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

MAX_HANDLES = 4096  # they are cheap to make, and keep no key that the memory does not

_T = TypeVar("_T")


class Handles(Generic[_T]):
    """One handle a tenant; `make` refuses an id that is none."""

    __slots__ = ("_kept", "_make")

    def __init__(self, make: Callable[[str], _T]) -> None:
        self._make = make
        self._kept: dict[str, _T] = {}

    def of(self, tenant: str) -> _T:
        """Return a tenant's handle."""
        # A subclass of str may be equal to any other.
        found = self._kept.get(tenant) if type(tenant) is str else None
        if found is None:
            found = self._make(tenant)
            if len(self._kept) >= MAX_HANDLES:
                self._kept.clear()
            self._kept[tenant] = found
        return found
