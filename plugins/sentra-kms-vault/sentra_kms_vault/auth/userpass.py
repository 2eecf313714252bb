"""A user and a password."""

from __future__ import annotations

from urllib.parse import quote

from hvac.api.auth_methods import Userpass

from sentra_kms_vault.auth.answers import logging_in, token_of_login
from sentra_kms_vault.auth.credentials import credential, line_of
from sentra_kms_vault.auth.means import Maker, Means
from sentra_kms_vault.deadline import Deadline
from sentra_kms_vault.login import Token
from sentra_kms_vault.settings import UserpassAuth


class UserpassMethod(Maker):
    """Reads the password at each login."""

    name = "userpass"

    def __init__(self, auth: UserpassAuth, means: Means) -> None:
        self._auth = auth
        self._means = means

    def log_in(self, deadline: Deadline) -> Token:
        """Return a new token."""
        found = credential(self._means.host, self._auth.password, "the password")
        password = line_of(found, "the password")
        return logging_in(
            self.name,
            self._means,
            (password,),
            lambda: token_of_login(
                Userpass(self._means.call(deadline)).login(
                    quote(self._auth.username, safe=""),  # hvac puts it into the path as it is
                    password,
                    use_token=False,
                    mount_point=self._auth.mount,
                )
            ),
        )
