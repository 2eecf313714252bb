"""One operation's way to Vault: hvac's adapter, with a deadline, retries and a token of ours."""

from __future__ import annotations

import random
import time
from collections.abc import Mapping
from typing import Protocol

from hvac.adapters import Adapter

from sentra_kms_vault.deadline import Deadline
from sentra_kms_vault.failures import Refused, Unanswered
from sentra_kms_vault.transport import ANSWER_LIMIT, Transport

_AGAIN = frozenset({412, 429, 472, 473, 500, 502, 503, 504})
"""Statuses after which the same request may succeed soon, at this node or at another."""
_AGAIN_UNDONE = frozenset({412, 429, 472, 473, 503})
"""Of these, the ones that say that nothing was done."""
_ATTEMPTS = 4  # within half a second, unless Vault names a longer wait
_FIRST_WAIT = 0.05  # seconds, doubled each time


class Tokens(Protocol):
    """Who knows the token: `login.Login`, or `NoToken` for the requests that log in."""

    def token(self, deadline: Deadline) -> str | None:
        """Return the token to send, logging in if there is none that is good."""
        ...

    def renew_after(self, token: str | None, refusal: Refused, deadline: Deadline) -> bool:
        """Whether a refused request should be sent again, with a token got meanwhile."""
        ...


class NoToken:
    """For requests without a token."""

    def token(self, deadline: Deadline) -> None:
        """Return none."""

    def renew_after(self, token: str | None, refusal: Refused, deadline: Deadline) -> bool:
        """Return `False`."""
        return False


class FixedToken:
    """For requests with one token, which nobody replaces."""

    def __init__(self, token: str) -> None:
        self._token = token

    def token(self, deadline: Deadline) -> str:
        """Return it."""
        return self._token

    def renew_after(self, token: str | None, refusal: Refused, deadline: Deadline) -> bool:
        """Return `False`."""
        return False


class Call(Adapter):  # type: ignore[misc]  # hvac has no types
    """What hvac's classes send their requests through, made for one operation.

    `repeatable` says that a request which may have been carried out can be sent once more: of
    reads, and of what has no effect beyond its answer. Others are sent again only when it is
    certain that nothing was done.
    """

    def __init__(
        self,
        transport: Transport,
        tokens: Tokens,
        namespace: str | None,
        deadline: Deadline,
        *,
        repeatable: bool,
        limit: int = ANSWER_LIMIT,
    ) -> None:
        super().__init__(base_uri=transport.address, session=_NoSession(), namespace=namespace)
        self._transport = transport
        self._tokens = tokens
        self._namespace = namespace
        self._repeatable = repeatable
        self._limit = limit
        self.deadline = deadline
        self.repeated = False
        """Whether a request was sent again after an attempt that may have been carried out."""

    def get_login_token(self, response: dict[str, dict[str, str]]) -> str:
        """Return the token of a login's answer."""
        return response["auth"]["client_token"]

    def request(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str] | None = None,
        raise_exception: bool = True,  # noqa: FBT001, FBT002 - hvac's
        **given: object,
    ) -> dict[str, object]:
        """Send a request of hvac's; return its answer's body, empty if it had none."""
        for attempt in range(1, _ATTEMPTS):
            try:
                return self._send_with_token(method, url, headers, given)
            except (Refused, Unanswered) as problem:
                pause = self._pause(problem, _FIRST_WAIT * 2 ** (attempt - 1))
                if pause is None:
                    raise
            self.repeated = True
            time.sleep(pause)
        return self._send_with_token(method, url, headers, given)

    def _send_with_token(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str] | None,
        given: Mapping[str, object],
    ) -> dict[str, object]:
        """Send; and once more if the token was not accepted and another could be had."""
        token = self._tokens.token(self.deadline)
        try:
            return self._send(method, url, headers, token, given)
        except Refused as refusal:
            if not self._tokens.renew_after(token, refusal, self.deadline):
                raise
        return self._send(method, url, headers, self._tokens.token(self.deadline), given)

    def _send(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str] | None,
        token: str | None,
        given: Mapping[str, object],
    ) -> dict[str, object]:
        sent = {"X-Vault-Request": "true", **(headers or {})}
        if token is not None:
            sent["X-Vault-Token"] = token
        if self._namespace is not None:
            sent["X-Vault-Namespace"] = self._namespace
        if given.get("wrap_ttl") is not None:
            sent["X-Vault-Wrap-TTL"] = str(given["wrap_ttl"])
        query = given.get("params")
        query = dict(query) if isinstance(query, Mapping) else {}
        if method.lower() == "list":  # as Vault takes it too, and every proxy lets it through
            method, query = "GET", {**query, "list": "true"}
        if given.get("json") is not None:
            sent["Content-Type"] = "application/json"
        return self._transport.send(
            method.upper(),
            url,
            headers=sent,
            body=given.get("json"),
            query=query or None,
            deadline=self.deadline,
            limit=self._limit,
        ).body

    def _pause(self, problem: Refused | Unanswered, wait: float) -> float | None:
        """Return after how many seconds to send again, `None` if that is of no use or too late."""
        if isinstance(problem, Unanswered):
            again = problem.passing and (self._repeatable or not problem.sent)
        else:
            again = problem.status in (_AGAIN if self._repeatable else _AGAIN_UNDONE)
            if problem.retry_after is not None:
                wait = max(wait, problem.retry_after)
        pause = wait * random.uniform(1.0, 1.5)  # noqa: S311 - so that many do not come at once
        return pause if again and self.deadline.allows(pause) else None


class _NoSession:
    """In the place of the session that hvac's adapter would make; nothing asks it for anything."""

    verify = True
    cert = None
    proxies = None

    def close(self) -> None:
        """Do nothing: the transport has the connections."""
