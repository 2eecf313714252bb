"""Logins by a signed JWT: of a pod's service account, of a CI system, of an OIDC provider."""

from __future__ import annotations

from hvac.api.auth_methods import JWT, Kubernetes

from sentra_kms_vault.auth.answers import logging_in, token_of_login
from sentra_kms_vault.auth.credentials import credential, read_word, word_of
from sentra_kms_vault.auth.means import Maker, Means
from sentra_kms_vault.deadline import Deadline
from sentra_kms_vault.login import Token
from sentra_kms_vault.settings import JwtAuth, KubernetesAuth


class KubernetesMethod(Maker):
    """Reads the service account's token at each login, as the kubelet writes a new one hourly."""

    name = "kubernetes"

    def __init__(self, auth: KubernetesAuth, means: Means) -> None:
        self._auth = auth
        self._means = means
        self._path = means.host.resolve(auth.token_path)

    def log_in(self, deadline: Deadline) -> Token:
        """Return a new token."""
        jwt, _ = read_word(self._path, "the service account's token")
        return logging_in(
            self.name,
            self._means,
            (jwt,),
            lambda: token_of_login(
                Kubernetes(self._means.call(deadline)).login(
                    self._auth.role, jwt, use_token=False, mount_point=self._auth.mount
                )
            ),
        )


class JwtMethod(Maker):
    """Reads the JWT at each login; roles of the type `jwt`, on mounts of the type jwt or oidc."""

    name = "jwt"

    def __init__(self, auth: JwtAuth, means: Means) -> None:
        self._auth = auth
        self._means = means

    def log_in(self, deadline: Deadline) -> Token:
        """Return a new token."""
        jwt = word_of(credential(self._means.host, self._auth.jwt, "the JWT"), "the JWT")
        return logging_in(
            self.name,
            self._means,
            (jwt,),
            lambda: token_of_login(
                JWT(self._means.call(deadline)).jwt_login(
                    self._auth.role, jwt, use_token=False, path=self._auth.mount
                )
            ),
        )
