"""One Vault as the parts use it: who logs in, over which connections."""

from __future__ import annotations

import os
from contextlib import suppress

from hvac.api.auth_methods import Token as TokenApi

from sentra_kms.hooktypes import Host
from sentra_kms_vault.auth import make_method
from sentra_kms_vault.auth.answers import token_of_login
from sentra_kms_vault.auth.means import Means
from sentra_kms_vault.call import Call, FixedToken, NoToken
from sentra_kms_vault.deadline import Deadline
from sentra_kms_vault.environment import connection
from sentra_kms_vault.keeper import Keeper
from sentra_kms_vault.login import Login, Token
from sentra_kms_vault.mounts import Mounts
from sentra_kms_vault.pace import pace_of
from sentra_kms_vault.settings import VaultSettings
from sentra_kms_vault.transport import ANSWER_LIMIT, Transport

_BACKGROUND_TIMEOUT = 5.0  # seconds, for what no caller waits for


class Vault:
    """Opens no connection and reads no credential before the first call."""

    def __init__(self, settings: VaultSettings, host: Host) -> None:
        self.name = host.name
        self.host = host
        self.connection = connection(
            settings,
            os.environ,
            name=host.name,
            development=host.development,
            resolve=host.resolve,
        )
        self.mounts = Mounts()
        self._transport = Transport(self.connection, host.name)
        self.keeper = Keeper(host.name, _BACKGROUND_TIMEOUT)
        where = self.connection
        means = Means(
            host,
            where,
            (where.address, where.namespace or "", repr(settings.auth)),
            pace_of(host.state),
            self._call_without_token,
            self._call_with,
        )
        method = make_method(settings.auth, means)
        self.login = Login(method, self._renew, self.keeper, self._warn)

    def call(self, timeout: float, *, repeatable: bool = True, limit: int = ANSWER_LIMIT) -> Call:
        """Return the way of one operation, for hvac's classes.

        `timeout` is in seconds from now. `repeatable=False` is for what must not be done twice.
        """
        return Call(
            self._transport,
            self.login,
            self.connection.namespace,
            Deadline(timeout),
            repeatable=repeatable,
            limit=limit,
        )

    def call_anonymous(self, timeout: float) -> Call:
        """Return a call without token and namespace, for what everybody may ask of the server."""
        deadline = Deadline(timeout)
        return Call(self._transport, NoToken(), None, deadline, repeatable=True)

    def close(self) -> None:
        """Revoke the tokens that were made for us, and close every connection.

        Takes no longer than `_BACKGROUND_TIMEOUT`, also where Vault does not answer.
        """
        deadline = Deadline(_BACKGROUND_TIMEOUT)
        tokens = self.login.forget(deadline.rest() / 2)
        self.keeper.close(deadline.rest() / 2)
        for token in tokens:
            with suppress(Exception):  # it ends by itself, and we are leaving
                TokenApi(self._call_with(token.value, deadline)).revoke_self()
        self._transport.close()

    def _call_without_token(self, deadline: Deadline) -> Call:
        return self._call_as(NoToken(), deadline)

    def _call_with(self, token: str, deadline: Deadline) -> Call:
        return self._call_as(FixedToken(token), deadline)

    def _call_as(self, tokens: NoToken | FixedToken, deadline: Deadline) -> Call:
        return Call(self._transport, tokens, self.connection.namespace, deadline, repeatable=False)

    def _renew(self, token: str, deadline: Deadline) -> Token:
        return token_of_login(TokenApi(self._call_with(token, deadline)).renew_self())

    def _warn(self, text: str) -> None:
        self.host.logger.warning("backend '%s': %s", self.name, text)
