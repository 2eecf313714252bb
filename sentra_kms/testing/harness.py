"""What a backend's author tells the suite: how to make the backend, and what is in its service."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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

    tenants: ClassVar[int] = 101
    """Rings of the longest list: one more than a page of services that page by 100. A backend that
    asks nothing over a network should say 1,000."""

    largest_secret: ClassVar[int] = 1024
    """Bytes of the largest secret that `change_secret` may be given."""

    patience: ClassVar[float] = 60.0
    """Seconds after which a call that does not come back fails its check."""

    live: ClassVar[bool] = False
    """Whether each call is paid for: the checks then repeat less and keep within `call_budget`."""

    call_budget: ClassVar[int] = 1000
    """Calls of this backend's hooks that one run of a live harness may make, over all checks."""

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

    def schedule_key(self, key: str) -> None:
        """Schedule the KEK `key` for destruction in its service."""
        raise NotImplementedError

    def delete_key(self, key: str) -> None:
        """Destroy the KEK `key` in its service."""
        raise NotImplementedError

    def rotate_key(self, key: str) -> None:
        """Give the KEK `key` a new version in its service, the earlier ones kept."""
        raise NotImplementedError

    def answer_unwrap(self, data: bytes) -> None:
        """Make the service answer every unwrap with these bytes."""
        raise NotImplementedError

    def secret(self) -> SecretSample:
        """Return a secret that the service holds."""
        raise NotImplementedError

    def binary_secret(self) -> SecretSample:
        """Return a secret that is no text: with NUL, a newline at its end, and not UTF-8."""
        raise NotImplementedError

    def field_secret(self) -> SecretSample:
        """Return one field of a secret that has several: its reference ends in `#FIELD`."""
        raise NotImplementedError

    def missing_secret(self) -> str:
        """Return a well-formed reference to nothing."""
        return f"{self.name}://no-such-secret"

    def secret_version(self, reference: str) -> str:
        """Return a reference to the version which the secret has now, whatever it is given."""
        raise NotImplementedError

    def change_secret(self, reference: str, data: bytes) -> None:
        """Give the secret another value in its service."""
        raise NotImplementedError

    def delete_secret(self, reference: str) -> None:
        """Delete the secret in its service."""
        raise NotImplementedError

    def ring_history(self, tenant: str) -> set[bytes]:
        """Return every document of the tenant that is still in the store: live, old or deleted."""
        raise NotImplementedError

    def lose_answer(self) -> None:
        """Make the service do the next write, and lose its answer."""
        raise NotImplementedError

    def deny(self) -> None:
        """Take from the backend's credentials every right in the service."""
        raise NotImplementedError

    def throttle(self) -> None:
        """Make the service refuse every request as one too many."""
        raise NotImplementedError

    def stall(self) -> None:
        """Make the service take every request and answer none."""
        raise NotImplementedError

    def cut(self) -> None:
        """Make the service unreachable."""
        raise NotImplementedError

    def requests(self) -> Sequence[object]:
        """Return the requests that reached the service since `open`; only their number is read."""
        raise NotImplementedError
