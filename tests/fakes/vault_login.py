"""A way to log in that the Vault of the tests is built without, in front of that Vault.

It stands at `auth/MOUNT/login`; every other request goes through to the server. Who is let in gets
a token that the server made, with the policies of his role.

Taken from published references:
- The answer's form, `{"auth": {client_token, accessor, policies, lease_duration, renewable, …}}`:
  it is the server's own to `auth/token/create-orphan`, and that of every login
  (https://developer.hashicorp.com/vault/api-docs/auth/approle#sample-response-2).
- A refusal, `{"errors": [TEXT]}`: https://developer.hashicorp.com/vault/api-docs#error-response.
  What a method refuses by `logical.ErrorResponse` has status 400, by `logical.ErrPermissionDenied`
  403 and the text "permission denied": `RespondErrorCommon` in
  https://github.com/hashicorp/vault/blob/v1.19.0/sdk/logical/response_util.go.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import urllib3

from tests.fakes.httpd import Answered, Asked, answering
from tests.servers.vault_server import Vault


class LoginRefusedError(Exception):
    """What Vault answers instead of a token."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.text = text


Check = Callable[[Mapping[str, Any]], list[str]]
"""Looks at a login's parameters and returns the policies; raises `LoginRefusedError`."""


@contextmanager
def in_front_of(vault: Vault, mount: str, check: Check) -> Iterator[str]:
    """Let `check` say who may log in at a mount, as long as the block lasts; give the address."""
    pool = urllib3.PoolManager(retries=False, timeout=60.0)

    def answer(asked: Asked) -> Answered:
        if asked.method in {"POST", "PUT"} and asked.path == f"/v1/auth/{mount}/login":
            return _log_in(vault, check, asked)
        passed = {
            name: value
            for name, value in asked.headers.items()
            if name.startswith("x-vault-") or name == "content-type"
        }
        found = pool.request(
            asked.method, vault.address + asked.path, body=asked.body or None, headers=passed,
            redirect=False,
        )  # fmt: skip
        return Answered(found.status, found.data)

    with answering(answer) as address:
        yield address
    pool.clear()


def _log_in(vault: Vault, check: Check, asked: Asked) -> Answered:
    if "x-vault-token" in asked.headers:
        return _refusal(400, "a login is sent without a token")  # stricter than Vault is
    try:
        policies = check(json.loads(asked.body))
    except LoginRefusedError as refusal:
        return _refusal(refusal.status, refusal.text)
    made = vault.write("auth/token/create-orphan", policies=policies, ttl="1h")
    return Answered(200, json.dumps(made).encode())


def _refusal(status: int, text: str) -> Answered:
    return Answered(status, json.dumps({"errors": [text]}).encode())
