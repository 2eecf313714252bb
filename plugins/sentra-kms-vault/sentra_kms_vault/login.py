"""The token that requests are sent with: got once for all threads, renewed, and got again.

A request is never preceded by a look whether the token is good. One that Vault does not accept any
more is found by the refusal, and then one thread logs in while the others wait for it.

A token that is replaced is not revoked before the close: Vault would end every lease that was got
with it.
"""

from __future__ import annotations

import itertools
import random
import threading
import time
from collections.abc import Callable
from typing import NamedTuple, NoReturn, Protocol

import msgspec

from sentra_kms import KMSError, Timeout, UnsupportedOperation, errors
from sentra_kms_vault.deadline import Deadline
from sentra_kms_vault.failures import Refused
from sentra_kms_vault.keeper import Keeper

RENEW_AT = 2 / 3
"""Of a token's life, after which it is renewed at the latest: as Vault's own agent does."""
_UNEVEN = 0.1  # of the time until then, taken off at random: many processes start at once
_SOONEST = 1.0  # seconds, before which nothing is tried again in the background
_CAPPED = 1 / 2  # of the life first granted: less than that from a renewal, and the end is near
_DENIED_AGAIN = 60.0  # seconds between logins because of a bare "permission denied", doubled each
_DENIED_LONGEST = 600.0  # time up to this
_REPLACED = 16  # tokens that were replaced while they were good, of which a close knows


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

    def __reduce__(self) -> NoReturn:
        raise TypeError("tokens of Vault are not pickled")


class Method(Protocol):
    """One way to log in; see `auth`."""

    name: str

    def log_in(self, deadline: Deadline) -> Token:
        """Return a new token, or the one that is there now; raise an error of sentra_kms."""
        ...

    def changed(self) -> bool:
        """Whether what the token came from is another now, so that it is to be got again."""
        ...

    def makes_tokens(self) -> bool:
        """Whether each login makes a token for this process alone, which is revoked on close."""
        ...


Renew = Callable[[str, Deadline], Token]
"""Renews a token; raises what its request does."""


class _Held(NamedTuple):
    """A token, when it ends on the monotonic clock, and the longest life that it was granted."""

    token: Token
    ends: float
    granted: float
    turn: int


class Login:
    """Keeps the token of one backend. Safe from many threads, and from a signal handler.

    `warn` is told, without any value, of a token that is about to end and cannot be replaced.
    """

    def __init__(
        self, method: Method, renew: Renew, keeper: Keeper, warn: Callable[[str], None]
    ) -> None:
        self._method = method
        self._renew = renew
        self._keeper = keeper
        self._warn = warn
        self._lock = threading.RLock()
        self._turns = itertools.count()
        self._held: _Held | None = None
        self._replaced: list[_Held] = []
        self._attempts = 0
        self._failure: KMSError | None = None
        self._denied_again = float("-inf")  # until then a bare denial is taken as one
        self._denied_wait = _DENIED_AGAIN
        self._closed = False
        self._given_up = False

    @property
    def method(self) -> str:
        """The name of the way to log in."""
        return self._method.name

    @property
    def held(self) -> Token | None:
        """The token that is held now."""
        held = self._held
        return None if held is None else held.token

    @property
    def ends(self) -> float:
        """When that token ends unless it is renewed, in monotonic seconds."""
        held = self._held
        return float("inf") if held is None else held.ends

    def token(self, deadline: Deadline) -> str:
        """Return the token, logging in if there is none or it has come to its end."""
        held = self._held
        if held is not None and time.monotonic() < held.ends and not self._method.changed():
            return held.token.value
        return self._log_in(held, deadline).value

    def renew_after(self, token: str | None, refusal: Refused, deadline: Deadline) -> bool:
        """Get another token after a refusal that may be the token's fault; say if there is one."""
        if refusal.status != 403:
            return False
        held = self._held
        if held is None or held.token.value != token:
            return True  # another thread has logged in meanwhile
        if refusal.says("invalid token", "bad token", "token expired"):
            return self._log_in(held, deadline).value != token
        # A denial may look the same as a dead token, and a login may give other policies: try, but
        # not at every one.
        now = time.monotonic()
        if now < self._denied_again:
            return False
        self._denied_again = now + self._denied_wait
        self._denied_wait = min(self._denied_wait * 2, _DENIED_LONGEST)
        try:
            return self._log_in(held, deadline).value != token
        except KMSError:
            return False  # the denial says more than that nothing better could be had

    def forget(self, patience: float) -> list[Token]:
        """Give up the token, for good; return what is to be revoked, the newest first.

        Waits so many seconds for a login that is under way.
        """
        self._closed = True
        locked = self._lock.acquire(timeout=patience)
        self._given_up = True
        held, self._held = self._held, None
        if locked:
            self._lock.release()
        if not self._method.makes_tokens():
            return []
        given_up = [*self._replaced, held] if held is not None else self._replaced
        now = time.monotonic()
        return [each.token for each in reversed(given_up) if now < each.ends]

    def _log_in(self, stale: _Held | None, deadline: Deadline) -> Token:
        """Log in, once for all threads that found the same token stale."""
        attempts = self._attempts
        if not self._lock.acquire(timeout=deadline.left()):
            raise Timeout("another thread's login to Vault did not end in time")
        try:
            held = self._held
            if held is not None and held is not stale:
                return held.token
            if self._attempts != attempts and self._failure is not None:
                raise errors.afresh(self._failure)  # of a login that ended while we waited
            return self._log_in_alone(deadline)
        finally:
            self._lock.release()

    def _log_in_alone(self, deadline: Deadline) -> Token:
        self._failure = None
        self._refuse_if_closed()
        begun = time.monotonic()
        try:
            token = self._method.log_in(deadline)
        except KMSError as error:
            if not isinstance(error, Timeout):  # that was our time, and others may have more
                self._failure = errors.afresh(error)
            raise
        finally:
            self._attempts += 1
        before, held = self._held, self._hold(token, begun)
        if before is not None and self._method.makes_tokens():  # it may be dead, and may be not
            alive = [each for each in self._replaced if begun < each.ends]
            self._replaced = [*alive[1 - _REPLACED :], before]
        if self._given_up:  # who closes did not wait for this
            self._held = None
        self._refuse_if_closed()  # else he takes what is held, to revoke it
        self._tend_later(held)
        return token

    def _refuse_if_closed(self) -> None:
        if self._closed:
            raise UnsupportedOperation("this backend is closed: load() again")

    def _hold(self, token: Token, begun: float, granted: float = 0.0) -> _Held:
        """Hold a token whose life began at `begun` at the latest."""
        life = float("inf") if token.life is None else token.life
        held = _Held(token, begun + life, max(granted, life), next(self._turns))
        self._held = held
        return held

    def _tend_later(self, held: _Held) -> None:
        wait = (held.ends - time.monotonic()) * RENEW_AT
        wait *= random.uniform(1 - _UNEVEN, 1)  # noqa: S311 - no secret
        if wait < float("inf") and (held.token.renewable or self._method.makes_tokens()):
            # By number: what waits there for weeks must not keep a token that was replaced.
            turn = held.turn
            self._keeper.at(wait, lambda: self._tend(turn))

    def _tend(self, turn: int) -> None:
        """See to it in the background that there is a token after the held one.

        Where that fails, requests go on with it until it ends, and the next logs in or tells why
        it cannot.
        """
        held = self._held
        if held is None or held.turn != turn:
            return
        deadline = Deadline(self._keeper.patience)
        try:
            if held.token.renewable:
                held = self._prolong(held, deadline)
                if held.ends - time.monotonic() > held.granted * _CAPPED:
                    self._tend_later(held)
                    return
            if self._method.makes_tokens():
                self._log_in(held, deadline)
                return
            reason = "it cannot be renewed any further: give another"
        except KMSError as error:
            reason = error.message
        except Exception as error:  # noqa: BLE001 - no answer, and the token is as good as before
            reason = f"it could not be renewed ({type(error).__name__})"
        if self._closed:
            return
        left = max(0.0, held.ends - time.monotonic())
        self._warn(f"the token from Vault by '{self.method}' ends in {left:.0f} s: {reason}")
        if left * RENEW_AT > _SOONEST:
            self._tend_later(held)

    def _prolong(self, held: _Held, deadline: Deadline) -> _Held:
        """Renew a token; return what is held then, which may end as soon as before."""
        begun = time.monotonic()
        try:
            renewed = self._renew(held.token.value, deadline)
        except Refused:
            return held  # it is dead, or has come to its longest life
        with self._lock:
            if self._held is not held or renewed.life is None:
                return held
            kept = msgspec.structs.replace(renewed, value=held.token.value)
            return self._hold(kept, begun, held.granted)
