"""The Vault plugin's connection and login by itself, with credentials that a test changes."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, MutableMapping
from functools import partial
from typing import cast

from sentra_kms_vault.failures import ask
from sentra_kms_vault.settings import VaultSettings
from sentra_kms_vault.vault import Vault

from sentra_kms import KeyMaterial, Reference, SecretNotFound
from sentra_kms.config import read_settings
from sentra_kms.hooktypes import Host
from tests.servers.lifeline import wait_until

TIMEOUT = 60.0  # seconds, so that a busy machine is no fault


class User:
    """One process's use of a Vault.

    `table` is the backend's; its references `env://NAME` get what `given[NAME]` is at that time.
    """

    def __init__(
        self,
        table: Mapping[str, object],
        given: MutableMapping[str, str | bytes] | None = None,
        *,
        state: MutableMapping[str, object] | None = None,
    ) -> None:
        self.given: MutableMapping[str, str | bytes] = {} if given is None else given
        settings = read_settings(
            {"kit": {"development": True, "backends": {"vault": {"type": "vault", **table}}}}, "kit"
        )
        self.host = Host(
            name="vault",
            environment="kit",
            development=True,
            clock=time.time,
            secret=self._secret,
            resolve=os.path.abspath,
            state={} if state is None else state,
        )
        self.vault = Vault(cast("VaultSettings", settings.backends["vault"].settings), self.host)

    def read(self, path: str, timeout: float = TIMEOUT) -> dict[str, object]:
        """Return what is at a path of Vault's, as a part would get it."""
        return ask(
            f"'{path}'",
            partial(self.vault.call(timeout).get, f"/v1/{path}"),
            missing=SecretNotFound,
        )

    def who(self) -> dict[str, object]:
        """Return what Vault knows of the token."""
        return cast("dict[str, object]", self.read("auth/token/lookup-self")["data"])

    def policies(self) -> set[str]:
        """Return the policies of the token."""
        return set(cast("list[str]", self.who()["policies"]))

    def close(self) -> None:
        """Close it."""
        self.vault.close()

    def _secret(self, reference: Reference) -> KeyMaterial:
        found = self.given.get(reference.path)
        if found is None:
            raise SecretNotFound(f"{reference} is not there")
        return KeyMaterial(found.encode() if isinstance(found, str) else found)


def until(true: Callable[[], bool]) -> None:
    """Wait until something is true."""

    def check() -> None:
        assert true()

    wait_until(check)


MakeUser = Callable[..., User]
