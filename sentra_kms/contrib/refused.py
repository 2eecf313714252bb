"""Asking a secret's source again when a connection was refused, but not each time.

A database that is down refuses every connection of every process; who asked for the secret at each
of them would take the source down, too.
"""

from __future__ import annotations

from contextlib import suppress
from time import monotonic as _now
from typing import cast

from sentra_kms.errors import KMSError
from sentra_kms.forks import RLock, tell_after_fork
from sentra_kms.material import Secret
from sentra_kms.secrets.manager import SecretManager

PERIOD = 5.0  # seconds between requests while connections are refused for any reason
LOGIN_PERIOD = 1.0  # seconds between requests for logins that are refused

_LOGIN_CLASS = "28"  # of SQLSTATE, invalid authorization specification
_LOGIN_NUMBERS = frozenset({
    # MySQL's error reference: access denied, without a password too, expired, locked.
    1044, 1045, 1698, 1820, 1862, 3118,
    # Oracle's, ORA-01017 and so on: wrong, locked, expired.
    1017, 28000, 28001,
})  # fmt: skip


class Asking:
    """Asks for the value of one secret after refusals. Safe to use from many threads."""

    def __init__(self, secrets: SecretManager, secret: str) -> None:
        self._secrets = secrets
        self._secret = secret
        self._asked = self._asked_for_login = self._quiet_until = float("-inf")
        self.after_fork()
        tell_after_fork(self)

    def after_fork(self) -> None:
        """Replace a lock that another thread may have held."""
        self._lock = RLock()

    def again(self, used: Secret, *, is_login: bool) -> Secret | None:
        """Return a value to try after `used` was refused, `None` if there is none.

        Of threads that are refused at once one asks, and the others wait for its answer.
        """
        with suppress(KMSError), self._lock:  # what the database said is what matters then
            found = self._secrets.get(self._secret)
            if found == used and self._may_ask(is_login=is_login):
                try:
                    found = self._secrets.refresh(self._secret)
                finally:
                    # By the end, since a source that is away takes its time to say so.
                    self._asked = _now()
                    if is_login:
                        self._asked_for_login = self._asked
            return None if found == used else found
        return None

    def current(self) -> Secret | None:
        """Return the value of now; `None` while it cannot be had, which is looked at seldom."""
        if _now() < self._quiet_until:
            return None
        try:
            return self._secrets.get(self._secret)
        except KMSError:
            self._quiet_until = _now() + PERIOD
        return None

    def _may_ask(self, *, is_login: bool) -> bool:
        if is_login and _now() >= self._asked_for_login + LOGIN_PERIOD:
            return True
        return _now() >= self._asked + PERIOD


def says_login(error: Exception) -> bool:
    """Whether a driver says that it was the login which was refused, as far as it tells.

    By SQLSTATE (pg8000, pyodbc), the server's error number (PyMySQL, mysqlclient, oracledb), or
    that the server asked for the password and then closed (psycopg). psycopg2 does not tell.
    """
    first: object = error.args[0] if error.args else None
    if isinstance(first, dict):
        first = cast("dict[object, object]", first).get("C")
    number: object = getattr(first, "code", first)
    if type(number) is int:
        return number in _LOGIN_NUMBERS
    for state in (getattr(error, "sqlstate", None), first):
        if isinstance(state, str) and len(state) == len("28000") and state.isalnum():
            return state.startswith(_LOGIN_CLASS)
    return getattr(getattr(error, "pgconn", None), "used_password", None) is True
