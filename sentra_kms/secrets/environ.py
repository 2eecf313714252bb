"""Secrets as a mapping of text, where settings modules expect `os.environ`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sentra_kms.secrets.manager import SecretManager


class SecretEnviron(Mapping[str, str]):
    """The declared secrets; each is fetched when it is read, and none is shown by `repr`.

    An undeclared name is `KeyError`, as in any mapping, so that `.get(name, default)` works; a
    declared one that cannot be had is the error that `SecretManager.get` raises, never a default.
    """

    def __init__(self, manager: SecretManager) -> None:
        self._manager = manager

    def __getitem__(self, name: str) -> str:
        if name not in self._manager.names():
            raise KeyError(name)
        return self._manager.get(name).reveal()

    def __contains__(self, name: object) -> bool:
        return name in self._manager.names()

    def __iter__(self) -> Iterator[str]:
        return iter(self._manager.names())

    def __len__(self) -> int:
        return len(self._manager.names())

    def __repr__(self) -> str:
        return f"SecretEnviron({', '.join(self)})"
