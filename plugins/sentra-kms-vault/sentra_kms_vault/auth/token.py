"""A token that somebody made for us."""

from __future__ import annotations

import os

from hvac.api.auth_methods import Token as TokenApi

from sentra_kms import AuthenticationFailed
from sentra_kms_vault.auth.answers import logging_in, text_of, token_of_lookup
from sentra_kms_vault.auth.means import Means
from sentra_kms_vault.deadline import Deadline
from sentra_kms_vault.failures import Refused
from sentra_kms_vault.login import Token
from sentra_kms_vault.settings import TokenAuth

VARIABLES = ("VAULT_TOKEN", "BAO_TOKEN")


class TokenMethod:
    """Reads the token through its reference at each login, so that a new one is picked up."""

    name = "token"

    def __init__(self, auth: TokenAuth, means: Means) -> None:
        self._reference = auth.token
        self._means = means

    def log_in(self, deadline: Deadline) -> Token:
        """Return the token, and what Vault knows of it: how long it lives."""
        value = self._read()

        def look_up() -> Token:
            try:
                answer = TokenApi(self._means.call_with(value, deadline)).lookup_self()
            except Refused as refusal:
                if refusal.status != 403 or refusal.says("invalid token", "bad token"):
                    raise
                return Token(
                    value, may_look_up=False
                )  # one that may not look at itself, and lives as it lives
            return token_of_lookup(value, answer)

        return logging_in(self.name, look_up)

    def changed(self) -> bool:
        """Return `False`: it is read again when it is not accepted."""
        return False

    def revoke_on_close(self) -> bool:
        """Return `False`: it is not ours."""
        return False

    def _read(self) -> str:
        if self._reference is not None:
            return text_of(self._means.host.secret(self._reference), "the token")
        for variable in VARIABLES:
            if os.environ.get(variable):
                return os.environ[variable].strip()
        raise AuthenticationFailed(
            f"backend '{self._means.host.name}' has no token: give auth.token a reference, set "
            "VAULT_TOKEN, or use another method"
        )
