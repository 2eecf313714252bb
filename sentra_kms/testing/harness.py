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
    harness lacks: the checks that need it are skipped, and the reason names it. What the service
    itself has no such thing as stands in `absent`. `kek` is no mere ability when the backend wraps
    keys, nor `secret` when it fetches secrets: without it the checks fail.
    """

    type: ClassVar[str]
    """The backend type, as in the configuration."""

    absent: ClassVar[Mapping[str, str]] = {}
    """Abilities that the service has no such thing as, or that no test can bring about, each with
    the reason: `{"throttle": "SQLite takes every request"}`. Their checks are skipped, and the
    summary gives the reason. What is declared absent must not be overridden.
    """

    makes_keys: ClassVar[bool] = False
    """Whether the backend makes a KEK that it does not know at its first wrap."""

    folds_key_names: ClassVar[bool] = False
    """Whether two names of a KEK that differ only in case are one KEK to the service."""

    tenants: ClassVar[int] = 101
    """Rings of the longest list: one more than a page of services that page by 100. A backend that
    asks nothing over a network should say 1,000."""

    largest_secret: ClassVar[int] = 1024
    """Bytes of the largest secret that `change_secret` may be given."""

    patience: ClassVar[float] = 60.0
    """Seconds after which a call that does not come back fails its check."""

    lateness: ClassVar[float] = 2.5
    """Seconds after its timeout by which a call to a silent service has come back. More than a
    machine that is busy needs, and less than a client that waits as long as it likes.
    """

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
        """Return every document of the tenant that is still in the store: live, old or deleted.

        As `save_ring` was given them, and read past the backend: what the backend no longer shows
        is what is looked for. Called before and after a purge; empty where nothing is left.
        """
        raise NotImplementedError

    def lose_answer(self) -> None:
        """Make the service do the next write, and lose its answer."""
        raise NotImplementedError

    def deny(self) -> None:
        """Take from the backend's credentials every right in the service.

        The credentials stay good: what was asked is refused, and not who asks. In force when this
        returns, also for connections and logins that the backend has already. Called once in a
        check, after the backend was used; nothing is given back.
        """
        raise NotImplementedError

    def throttle(self) -> None:
        """Make the service refuse every request as one too many."""
        raise NotImplementedError

    def stall(self) -> None:
        """Make the service take every request and answer none.

        Connections open, and stay open: who is refused knows at once, and proves nothing here.
        Called once in a check, after the backend was used. `close` has to end it, so that calls
        which still wait come back.
        """
        raise NotImplementedError

    def answer_unknown(self) -> None:
        """Make the service refuse every request with a code that the backend cannot know.

        One that says neither that it passes, as an HTTP status of 500 and more does, nor what is
        wrong.
        """
        raise NotImplementedError

    def cut(self) -> None:
        """Make the service unreachable."""
        raise NotImplementedError

    def share(self) -> None:
        """Let other processes reach what `settings` speaks of; most services need nothing done.

        One that lives in the memory of the tests' own process declares it `absent`.
        """

    def requests(self) -> Sequence[object]:
        """Return the requests that reached the service since `open`; only their number is read."""
        raise NotImplementedError
