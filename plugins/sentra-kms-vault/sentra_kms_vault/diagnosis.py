"""What `sentra-kms doctor` is told of the server and of our token."""

from __future__ import annotations

import msgspec
from hvac.api.auth_methods import Token as TokenApi
from hvac.api.system_backend import Health

from sentra_kms import KMSError, NotFound
from sentra_kms.hookspecs import PartHooks, hookimpl
from sentra_kms.hooktypes import Finding
from sentra_kms_vault.auth.answers import token_of_lookup
from sentra_kms_vault.call import Call
from sentra_kms_vault.deadline import Deadline
from sentra_kms_vault.documents import understood
from sentra_kms_vault.environment import goes_in_plain
from sentra_kms_vault.failures import ask
from sentra_kms_vault.login import Token
from sentra_kms_vault.vault import Vault

_SHORT_LIFE = 60.0
"""Seconds: a token that lives no longer is mostly one that nobody can renew."""


class _HealthAnswer(msgspec.Struct, frozen=True):
    version: str = "unknown"
    standby: bool = False


class Diagnosis(PartHooks):
    """A part without operations; it comes first, so that it is closed last, with what all share."""

    def __init__(self, vault: Vault) -> None:
        self._vault = vault

    @hookimpl
    def check(self, timeout: float) -> list[Finding]:
        """Ask for the server's health and for what it knows of our token."""
        vault = self._vault
        deadline = Deadline(timeout)
        found = self._connection()
        try:
            health = ask(
                "to tell its health", lambda: _health(vault.call_anonymous(timeout)),
                missing=NotFound,
            )  # fmt: skip
        except KMSError as error:
            return [*found, Finding("error", vault.name, error.message)]
        role = "standby" if health.standby else "active"
        server = f"{vault.connection.address}, version {health.version}, {role}"
        try:
            token = ask(
                "to tell of our token",
                lambda: self._token(vault.call(deadline.left())),
                missing=NotFound,
            )
        except KMSError as error:
            return [*found, Finding("error", vault.name, f"{server}: {error.message}")]
        found.append(Finding("ok", vault.name, f"{server}; {self._told(token)}"))
        return [*found, *self._of(token)]

    @hookimpl
    def close(self) -> None:
        """Close what all parts share."""
        self._vault.close()

    def _connection(self) -> list[Finding]:
        connection = self._vault.connection
        if goes_in_plain(connection):
            return [
                Finding(
                    "warning",
                    self._vault.name,
                    f"{connection.address} is not encrypted: tokens, keys and secrets can be read "
                    "on the way",
                    "use https://, or an agent on this machine",
                )
            ]
        if connection.address.startswith("https:") and not connection.verify:
            return [
                Finding(
                    "warning",
                    self._vault.name,
                    "any certificate is accepted: whoever answers gets the token",
                    "name the server's CA with tls.ca_file",
                )
            ]
        return []

    def _token(self, call: Call) -> Token | None:
        """Return what Vault knows of the token, `None` if the token may not ask."""
        value = self._vault.login.token(call.deadline)
        held = self._vault.login.held
        if held is not None and not held.may_look_up:
            return None
        return token_of_lookup(value, TokenApi(call).lookup_self())

    def _told(self, token: Token | None) -> str:
        by = f"logged in by '{self._vault.login.method}'"
        if token is None:
            return f"{by}, by a token that may not look itself up"
        life = "without an end" if token.life is None else f"good for {token.life:.0f} s"
        renewed = ", renewed before" if token.renewable and token.life is not None else ""
        policies = ", ".join(sorted(token.policies)) or "none"
        return f"{by}, the token {life}{renewed}, its policies {policies}"

    def _of(self, token: Token | None) -> list[Finding]:
        if token is None:
            return []
        if "root" in token.policies:
            return [
                Finding(
                    "warning",
                    self._vault.name,
                    "the token is a root token, which may do everything",
                    "log in by a role with the policy 'runtime' or 'rotator' of sentra-kms-vault",
                )
            ]
        if token.life is not None and token.life <= _SHORT_LIFE and not token.renewable:
            return [
                Finding(
                    "warning",
                    self._vault.name,
                    f"the token ends in {token.life:.0f} s and cannot be renewed",
                    "log in by a method that can log in again, or make a periodic token",
                )
            ]
        return []


def _health(call: Call) -> _HealthAnswer:
    answer = Health(call).read_health_status(standby_ok=True, method="GET")
    return understood(answer, _HealthAnswer) or _HealthAnswer()
