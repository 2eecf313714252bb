"""AWS IAM: a request to STS that we sign and Vault sends, so that AWS tells it who we are."""

from __future__ import annotations

import base64
import json

from sentra_kms_vault.auth.answers import logging_in, token_of_login
from sentra_kms_vault.auth.means import Maker, Means
from sentra_kms_vault.auth.sts import SignedRequest, sign
from sentra_kms_vault.deadline import Deadline
from sentra_kms_vault.login import Token
from sentra_kms_vault.settings import AwsAuth


class AwsMethod(Maker):
    """Asks botocore's default chain for credentials at each login; none of them leaves us."""

    name = "aws"

    def __init__(self, auth: AwsAuth, means: Means) -> None:
        self._auth = auth
        self._means = means

    def log_in(self, deadline: Deadline) -> Token:
        """Return a new token."""
        auth = self._auth
        name = self._means.host.name
        request = sign(auth.region, auth.server_id, name, deadline.left())
        body = _body(request, auth.role)
        # Not by hvac's class for it, which signs by itself and wants the bare credentials.
        path = f"/v1/auth/{auth.mount}/login"
        return logging_in(
            self.name,
            self._means,
            request.credentials,
            lambda: token_of_login(
                self._means.call(deadline).login(path, use_token=False, json=body)
            ),
        )


def _body(request: SignedRequest, role: str | None) -> dict[str, str]:
    """Return a login's parameters.

    https://developer.hashicorp.com/vault/api-docs/auth/aws#login
    """
    headers = json.dumps({name: [value] for name, value in request.headers.items()})
    body = {
        "iam_http_request_method": "POST",
        "iam_request_url": _encoded(request.url),
        "iam_request_body": _encoded(request.body),
        "iam_request_headers": _encoded(headers),
    }
    return body if role is None else {**body, "role": role}


def _encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode("ascii")
