"""A token that somebody made for us: at a reference, in a variable, or in an agent's file."""

from __future__ import annotations

import os

import msgspec
from hvac.api.auth_methods import Token as TokenApi

from sentra_kms import AuthenticationFailed, KeyMaterial
from sentra_kms_vault.auth.answers import logging_in, token_of_lookup
from sentra_kms_vault.auth.credentials import Seen, credential, look_at, read_word, word_of
from sentra_kms_vault.auth.means import Means
from sentra_kms_vault.deadline import Deadline
from sentra_kms_vault.failures import Refused
from sentra_kms_vault.login import Token
from sentra_kms_vault.settings import TokenAuth, TokenFileAuth

VARIABLES = ("VAULT_TOKEN", "BAO_TOKEN")
_HOME_FILE = "~/.vault-token"


class TokenMethod:
    """Reads the token through its reference at each login, so that a new one is picked up."""

    name = "token"

    def __init__(self, auth: TokenAuth, means: Means) -> None:
        self._reference = auth.token
        self._means = means

    def log_in(self, deadline: Deadline) -> Token:
        """Return the token, and what Vault knows of it: how long it lives."""
        return _look_up(self.name, self._read(), self._means, deadline)

    def changed(self) -> bool:
        """Return `False`: it is read again when it is not accepted."""
        return False

    def makes_tokens(self) -> bool:
        """Return `False`: it is not ours."""
        return False

    def _read(self) -> str:
        if self._reference is not None:
            found = credential(self._means.host, self._reference, "the token")
            return word_of(found, "the token")
        for variable in VARIABLES:
            value = os.environ.get(variable)
            if value:
                return word_of(KeyMaterial(os.fsencode(value)), variable)
        raise AuthenticationFailed(
            f"backend '{self._means.host.name}' has no token: give auth.token a reference, set "
            "VAULT_TOKEN, or use another method"
        )


class TokenFileMethod:
    """Reads the token that an agent keeps in a file, again as soon as that is another file.

    The agent renews it and ends it.
    """

    name = "token_file"

    def __init__(self, auth: TokenFileAuth, means: Means) -> None:
        host = means.host
        self._path = (
            os.path.expanduser(_HOME_FILE) if auth.path is None else host.resolve(auth.path)
        )
        self._means = means
        self._seen: Seen | None = None

    def log_in(self, deadline: Deadline) -> Token:
        """Return the token that the file holds, and what Vault knows of it."""
        value, seen = read_word(self._path, "the token's file")
        found = _look_up(self.name, value, self._means, deadline)
        self._seen = seen
        # Its end is of no interest: before that the agent writes another, or has renewed it.
        return msgspec.structs.replace(found, life=None, renewable=False)

    def changed(self) -> bool:
        """Whether the file is another than the one that was read; not while it is away or empty."""
        now = look_at(self._path)
        return now is not None and now != self._seen

    def makes_tokens(self) -> bool:
        """Return `False`: it is the agent's."""
        return False


def _look_up(method: str, value: str, means: Means, deadline: Deadline) -> Token:
    def look_up() -> Token:
        try:
            answer = TokenApi(means.call_with(value, deadline)).lookup_self()
        except Refused as refusal:
            if refusal.status != 403 or refusal.says("invalid token", "bad token"):
                raise
            return Token(
                value, may_look_up=False
            )  # one that may not look at itself, and lives as it lives
        return token_of_lookup(value, answer)

    return logging_in(method, means, (value,), look_up)
