"""Vault's login by AWS IAM: checks the signed request and sends it to an STS, which says who it is.

Taken from published references:
- The parameters, and their base64: https://developer.hashicorp.com/vault/api-docs/auth/aws#login
- What is checked, in which order, with status 400 for each refusal: method, URL (no query), body
  (`Action=GetCallerIdentity` and a `Version`, nothing else), the header
  `X-Vault-AWS-IAM-Server-ID` and that it was signed, and no `X-Amz-` header but those allowed; then
  that the request goes to the *configured* STS, whatever host it names, with the `Host` that was
  signed; that the answer is `text/xml`, and the ARN of it one of the role's:
  `pathLoginIamGetRoleNameCallerIdAndEntity`, `validateLoginIamRequestUrl`,
  `validateLoginIamRequestBody`, `validateVaultHeaderValue`, `buildHttpRequest`,
  `submitCallerIdentityRequest` and `parseIamArn` in
  https://github.com/hashicorp/vault/blob/v1.19.0/builtin/credential/aws/path_login.go, and
  `validateAllowedSTSHeaderValues` in path_config_client.go beside it.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlsplit
from xml.etree import ElementTree as ET

import urllib3

from tests.fakes.vault_login import LoginRefusedError

SERVER_ID = "X-Vault-AWS-IAM-Server-ID"
_ALLOWED = {
    "x-amz-algorithm", "x-amz-content-sha256", "x-amz-credential", "x-amz-date",
    "x-amz-security-token", "x-amz-signature", "x-amz-signedheaders", "x-amz-user-agent",
}  # fmt: skip
_XML = {"sts": "https://sts.amazonaws.com/doc/2011-06-15/"}


class AwsRole(NamedTuple):
    """A role of the auth method: whose it is, and what it gives."""

    arns: tuple[str, ...]
    policies: tuple[str, ...]


class AwsLogin:
    """What Vault does with a login. `sts` is the endpoint that it is configured with."""

    def __init__(
        self, sts: str, roles: Mapping[str, AwsRole], *, server_id: str | None = None
    ) -> None:
        self._sts = sts
        self._roles = roles
        self._server_id = server_id
        self.hosts: list[str] = []

    def __call__(self, given: Mapping[str, Any]) -> list[str]:
        """Return the role's policies; raise `LoginRefusedError`."""
        if given.get("iam_http_request_method") != "POST":
            raise LoginRefusedError(400, "invalid iam_http_request_method")
        url = urlsplit(_decoded(given, "iam_request_url"))
        if url.query or not url.hostname:
            raise LoginRefusedError(400, "invalid request")
        body = _decoded(given, "iam_request_body")
        asked = parse_qs(body, keep_blank_values=True)
        if asked.get("Action") != ["GetCallerIdentity"] or set(asked) - {"Action", "Version"}:
            raise LoginRefusedError(400, "iam_request_body is not valid")
        headers = _headers(given)
        self._check_server_id(headers)
        if any(
            each.startswith("x-amz-") and each not in _ALLOWED for each in map(str.lower, headers)
        ):
            raise LoginRefusedError(400, "invalid request header")
        arn = self._who(url.netloc, url.path or "/", headers, body)
        role_name = given.get("role") or _friendly_name(arn)
        role = self._roles.get(role_name)
        if role is None:
            raise LoginRefusedError(400, f"entry for role {role_name} not found")
        if _canonical(arn) not in role.arns:
            raise LoginRefusedError(400, f'IAM Principal "{arn}" does not belong to the role')
        return list(role.policies)

    def _check_server_id(self, headers: Mapping[str, str]) -> None:
        if self._server_id is None:
            return
        found = next((headers[each] for each in headers if each.lower() == SERVER_ID.lower()), None)
        if found != self._server_id:
            raise LoginRefusedError(400, f"error validating {SERVER_ID} header")
        signed = re.search(r"SignedHeaders=([^,]+)", headers.get("Authorization", ""))
        if signed is None or SERVER_ID.lower() not in signed[1].split(";"):
            raise LoginRefusedError(400, "vault header wasn't signed")

    def _who(self, host: str, path: str, headers: Mapping[str, str], body: str) -> str:
        """Send the request to the STS; return the ARN that it answers."""
        self.hosts.append(host)
        answer = urllib3.request(
            "POST", self._sts + path, body=body, headers={**headers, "Host": host}, retries=False
        )
        if not answer.headers.get("Content-Type", "").startswith("text/xml"):
            raise LoginRefusedError(400, "error making upstream request: invalid response")
        if answer.status != 200:
            raise LoginRefusedError(
                400, f"error making upstream request: received error code {answer.status} from STS"
            )
        found = ET.fromstring(answer.data).find("sts:GetCallerIdentityResult/sts:Arn", _XML)  # noqa: S314
        assert found is not None
        assert found.text
        return found.text


def _decoded(given: Mapping[str, Any], name: str) -> str:
    try:
        return base64.b64decode(given.get(name) or "-", validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        raise LoginRefusedError(400, f"failed to base64 decode {name}") from None


def _headers(given: Mapping[str, Any]) -> dict[str, str]:
    """Return the headers: an object of text, or of lists of it."""
    found: dict[str, Any] = json.loads(_decoded(given, "iam_request_headers"))
    return {
        name: ",".join(value) if isinstance(value, list) else value for name, value in found.items()
    }


def _canonical(arn: str) -> str:
    """Return the ARN of the role that a session is of; a user's as it is."""
    session = re.fullmatch(r"arn:(aws[a-z-]*):sts::(\d+):assumed-role/([^/]+)/.+", arn)
    return f"arn:{session[1]}:iam::{session[2]}:role/{session[3]}" if session else arn


def _friendly_name(arn: str) -> str:
    return _canonical(arn).rpartition("/")[2]
