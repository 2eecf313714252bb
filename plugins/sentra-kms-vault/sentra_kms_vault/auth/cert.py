"""The client certificate that TLS shows."""

from __future__ import annotations

from sentra_kms import ConfigurationError
from sentra_kms_vault.auth.answers import logging_in, token_of_login
from sentra_kms_vault.auth.credentials import look_at
from sentra_kms_vault.auth.means import Maker, Means
from sentra_kms_vault.deadline import Deadline
from sentra_kms_vault.login import Token
from sentra_kms_vault.settings import CertAuth


class CertMethod(Maker):
    """Logs in over a connection with a client certificate.

    Raises `ConfigurationError` where there is none to show.
    """

    name = "cert"

    def __init__(self, auth: CertAuth, means: Means) -> None:
        given = means.connection
        if given.client_certificate is None or not given.address.startswith("https:"):
            raise ConfigurationError(
                f"backend '{means.host.name}' logs in by 'cert', which needs an address that "
                "begins with https:// and a tls.client_certificate",
                backend=means.host.name,
            )
        self._auth = auth
        self._means = means
        self._certificate = (repr(look_at(given.client_certificate)),)  # as it was read, in PEM

    def log_in(self, deadline: Deadline) -> Token:
        """Return a new token."""
        # Not by hvac's class for it, which wants to load certificate and key by itself.
        path = f"/v1/auth/{self._auth.mount}/login"
        body = {} if self._auth.role is None else {"name": self._auth.role}
        return logging_in(
            self.name,
            self._means,
            self._certificate,
            lambda: token_of_login(
                self._means.call(deadline).login(path, use_token=False, json=body)
            ),
        )
