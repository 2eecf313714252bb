"""The token that requests are sent with: got once for all threads, renewed, and got again.

A request is never preceded by a look whether the token is good. One that Vault does not accept any
more is found by the refusal, and then one thread logs in while the others wait for it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Protocol

import msgspec

from sentra_kms import KMSError, Timeout, errors
from sentra_kms_vault.deadline import Deadline
from sentra_kms_vault.failures import Refused
from sentra_kms_vault.keeper import Keeper

RENEW_AT = 2 / 3
"""Of a token's life, after which it is renewed: as Vault's own agent does."""
_DENIED_AGAIN = 60.0  # seconds between logins because of a bare "permission denied"


class Token(msgspec.Struct, frozen=True):
    """What a login gave. `life` is in seconds, `None` if it does not end; never shown."""

    value: str
    life: float | None = None
    renewable: bool = False
    accessor: str | None = None
    policies: tuple[str, ...] = ()
    may_look_up: bool = True

    def __repr__(self) -> str:
        return "Token(redacted)"


class Method(Protocol):
    """One way to log in; see `auth`."""

    name: str

    def log_in(self, deadline: Deadline) -> Token:
        """Return a new token, or the one that is there now; raise an error of sentra_kms."""
        ...

    def changed(self) -> bool:
        """Whether what the token came from is another now, so that it is to be got again."""
        ...

    def revoke_on_close(self) -> bool:
        """Whether tokens are made for this process alone."""
        ...


Renew = Callable[[str, Deadline], Token]
"""Renews a token; raises what its request does."""


class Login:
    """Keeps the token of one backend. Safe from many threads, and from a signal handler."""

    def __init__(self, method: Method, renew: Renew, keeper: Keeper) -> None:
        self._method = method
        self._renew = renew
        self._keeper = keeper
        self._lock = threading.RLock()
        self._token: Token | None = None
        self._ends = float("inf")
        self._attempts = 0
        self._failure: KMSError | None = None
        self._denied_at = float("-inf")

    @property
    def method(self) -> str:
        """The name of the way to log in."""
        return self._method.name

    @property
    def held(self) -> Token | None:
        """The token that is held now."""
        return self._token

    @property
    def ends(self) -> float:
        """When that token ends unless it is renewed, in monotonic seconds."""
        return self._ends

    def token(self, deadline: Deadline) -> str:
        """Return the token, logging in if there is none or it has come to its end."""
        token = self._token
        if token is not None and time.monotonic() < self._ends and not self._method.changed():
            return token.value
        return self._log_in(token, deadline).value

    def renew_after(self, token: str | None, refusal: Refused, deadline: Deadline) -> bool:
        """Get another token after a refusal that may be the token's fault; say if there is one."""
        if refusal.status != 403:
            return False
        held = self._token
        if held is None or held.value != token:
            return True  # another thread has logged in meanwhile
        if not refusal.says("invalid token", "bad token", "token expired"):
            # A denial looks the same as a dead token to some servers: try, but not at every one.
            now = time.monotonic()
            if now - self._denied_at < _DENIED_AGAIN:
                return False
            self._denied_at = now
        return self._log_in(held, deadline).value != token

    def forget(self) -> Token | None:
        """Give up the token; return it if it is to be revoked."""
        token, self._token = self._token, None
        return token if self._method.revoke_on_close() else None

    def _log_in(self, stale: Token | None, deadline: Deadline) -> Token:
        """Log in, once for all threads that found the same token stale."""
        attempts = self._attempts
        if not self._lock.acquire(timeout=deadline.left()):
            raise Timeout("another thread's login to Vault did not end in time")
        try:
            if self._token is not None and self._token is not stale:
                return self._token
            if self._attempts != attempts and self._failure is not None:
                raise errors.afresh(self._failure)  # of a login that began while we waited
            return self._log_in_alone(deadline)
        finally:
            self._lock.release()

    def _log_in_alone(self, deadline: Deadline) -> Token:
        try:
            token = self._method.log_in(deadline)
        except KMSError as error:
            self._failure = errors.afresh(error)
            raise
        finally:
            self._attempts += 1
        self._failure = None
        self._keep(token)
        return token

    def _keep(self, token: Token) -> None:
        self._token = token
        self._ends = float("inf") if token.life is None else time.monotonic() + token.life
        if token.renewable and token.life is not None:
            self._keeper.at(token.life * RENEW_AT, lambda: self._renew_held(token))

    def _renew_held(self, token: Token) -> None:
        """Renew in the background; where that fails, the next request logs in or tells why not."""
        if self._token is not token:
            return
        try:
            renewed = self._renew(token.value, Deadline(self._keeper.patience))
        except Exception:  # noqa: BLE001 - the token is as good as before, and is renewed again
            again = (self._ends - time.monotonic()) * RENEW_AT
            if again > 1.0:
                self._keeper.at(again, lambda: self._renew_held(token))
            return
        with self._lock:
            if self._token is token:
                self._keep(renewed)
