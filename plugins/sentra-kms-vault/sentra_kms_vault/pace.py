"""How soon a login that Vault refused is tried again with the same credentials.

Every request of every thread would try, and Vault counts what it refuses: it locks a user out, and
then refuses the right password, too. So a refusal is remembered, and told again to whoever comes
during a pause that doubles each time. Other credentials are tried at once.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, MutableMapping, Sequence
from typing import NamedTuple, TypeVar

from cryptography.hazmat.primitives import hashes, hmac

from sentra_kms import AuthenticationFailed, ConfigurationError, KMSError, VendorError
from sentra_kms.encoding import lp
from sentra_kms.errors import afresh

_T = TypeVar("_T")
_COUNTED = frozenset({"approle", "userpass"})
"""Methods whose refusals Vault counts. The fifth locks a user out, unless 15 minutes are between.

https://developer.hashicorp.com/vault/docs/concepts/user-lockout
"""
_FIRST, _LONGEST = 1.0, 64.0  # seconds of a pause
_FIRST_COUNTED, _LONGEST_COUNTED = 120.0, 960.0  # so that before the fifth try more than 15 min go
_UNEVEN = 1.25  # times a pause at most: many processes start at once
_REMEMBERED = 8  # credentials, so that those which come in turns are not tried each time
ELSEWHERE = "proxy"
"""The type of a `VendorError` of a refusal that is not Vault's, and that Vault did not count."""
_STATE = "refused logins"  # where the host's state, which outlives a fork, has them


class _Refusal(NamedTuple):
    """Credentials that were refused, when they may be tried again, and the pause before that."""

    error: KMSError
    until: float
    pause: float


class Pace:
    """Remembers what Vault refused of one backend; credentials are kept as keyed hashes.

    Has no lock, which a fork could leave locked, and needs none. `clock` returns monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._key = os.urandom(32)
        self._refused: dict[bytes, _Refusal] = {}

    def log_in(self, method: str, credentials: Sequence[str], send: Callable[[], _T]) -> _T:
        """Return what a login answers, or raise what it did when it was refused not long ago.

        `credentials` is all that its outcome depends on. Only `AuthenticationFailed` and
        `ConfigurationError` are refusals: after all else it may be tried again at once.
        """
        mark = self._mark(credentials)
        before = self._refused.get(mark)
        if before is not None and self._clock() < before.until:
            raise self._told(before)
        try:
            answer = send()
        except (AuthenticationFailed, ConfigurationError) as error:
            refusal = self._remember(mark, method, before, afresh(error))
        else:
            self._refused.clear()
            return answer
        raise self._told(refusal)

    def _remember(
        self, mark: bytes, method: str, before: _Refusal | None, error: KMSError
    ) -> _Refusal:
        cause = error.__cause__
        elsewhere = isinstance(cause, VendorError) and cause.type == ELSEWHERE
        counted = method in _COUNTED and not elsewhere
        first, longest = (_FIRST_COUNTED, _LONGEST_COUNTED) if counted else (_FIRST, _LONGEST)
        # Never a shorter one than before: a proxy's refusals may come between those that count.
        last = 0.0 if before is None else before.pause
        pause = min(max(first, last * 2), max(longest, last))
        until = self._clock() + pause * random.uniform(1, _UNEVEN)  # noqa: S311 - no secret
        self._refused.pop(mark, None)
        for old in list(self._refused)[: 1 - _REMEMBERED]:
            self._refused.pop(old, None)
        self._refused[mark] = refusal = _Refusal(error, until, pause)
        return refusal

    def _told(self, refusal: _Refusal) -> KMSError:
        left = max(1.0, refusal.until - self._clock())
        error = afresh(refusal.error)
        when = f"in {left:.0f} s or after a restart, and others at once"
        error.args = (f"{error.message}. The same credentials are tried again {when}",)
        return error

    def _mark(self, credentials: Sequence[str]) -> bytes:
        """Return what tells credentials from others, and nothing else of them."""
        digest = hmac.HMAC(self._key, hashes.SHA256())
        for each in credentials:
            digest.update(lp(each))
        return digest.finalize()


def pace_of(state: MutableMapping[str, object]) -> Pace:
    """Return the one of a host's state: forked children know what was refused before the fork."""
    found = state.get(_STATE)
    if not isinstance(found, Pace):
        state[_STATE] = found = Pace()
    return found
