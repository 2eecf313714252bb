"""What a backend's author tells the suite: how to make the backend, and what is in its service."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import msgspec
import pytest


class SecretSample(msgspec.Struct, frozen=True):
    """A secret that the service holds: its reference and its bytes, at least 16 of them."""

    reference: str
    data: bytes


class BackendHarness:
    """Base of a backend's harness. Each check makes one of its own, so that none sees another's.

    Give `type`, and override what applies. A method that is not overridden is an ability that the
    harness lacks: the checks that need it are skipped, and the reason names it. `kek` is no mere
    ability when the backend wraps keys, nor `secret` when it fetches secrets: without it the
    checks fail.
    """

    type: ClassVar[str]
    """The backend type, as in the configuration."""

    makes_keys: ClassVar[bool] = False
    """Whether the backend makes a KEK that it does not know at its first wrap."""

    def __init__(self, path: Path, patch: pytest.MonkeyPatch) -> None:
        """Keep an empty directory and a monkeypatch, both this check's own."""
        self.path = path
        self.patch = patch

    @property
    def name(self) -> str:
        """The backend's name in the configuration: what references and KEK names begin with."""
        return self.type

    def open(self) -> None:
        """Make ready what `settings` speaks of; called before anything else."""

    def close(self) -> None:
        """Take away what `open` made; called last, whatever happened."""

    def settings(self) -> Mapping[str, object]:
        """Return the backend's table of the configuration, without its `type`."""
        return {}

    def kek(self) -> str:
        """Return the name of a KEK that can be used."""
        raise NotImplementedError

    def second_kek(self) -> str:
        """Return the name of another KEK that can be used."""
        raise NotImplementedError

    def unknown_kek(self) -> str:
        """Return a well-formed name that no KEK has."""
        return "no-such-kek"

    def disable_key(self, key: str) -> None:
        """Disable the KEK `key` in its service."""
        raise NotImplementedError

    def secret(self) -> SecretSample:
        """Return a secret that the service holds."""
        raise NotImplementedError

    def missing_secret(self) -> str:
        """Return a well-formed reference to nothing."""
        return f"{self.name}://no-such-secret"

    def change_secret(self, reference: str, data: bytes) -> None:
        """Give the secret another value in its service."""
        raise NotImplementedError

    def ring_history(self, tenant: str) -> set[bytes]:
        """Return every document of the tenant that is still in the store: live, old or deleted."""
        raise NotImplementedError

    def cut(self) -> None:
        """Make the service unreachable."""
        raise NotImplementedError
