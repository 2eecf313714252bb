"""SQLAlchemy engines whose password may rotate under them.

Needs the extra `sqlalchemy`, and the driver that the URL names::

    engine = rotating_engine(kms, "DATABASE_URL", pool_size=10)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import unquote

try:
    from sqlalchemy import URL, create_engine, event, make_url
    from sqlalchemy.engine import Dialect, Engine
    from sqlalchemy.exc import ArgumentError, DisconnectionError
except ModuleNotFoundError as _error:
    if (_error.name or "").partition(".")[0] != "sqlalchemy":
        raise
    raise ModuleNotFoundError(
        'sentra_kms.contrib.sqlalchemy needs SQLAlchemy: pip install "sentra-kms[sqlalchemy]"',
        name="sqlalchemy",
    ) from None

from sentra_kms.contrib.refused import Asking, says_login
from sentra_kms.errors import ConfigurationError, MalformedInput
from sentra_kms.material import Secret
from sentra_kms.redaction import Masker

if TYPE_CHECKING:
    from sqlalchemy.pool import ConnectionPoolEntry

    from sentra_kms.runtime import KMS
    from sentra_kms.secrets.manager import SecretManager

_USED = "sentra_kms.secret"


def rotating_engine(kms: KMS, secret: str, **options: Any) -> Engine:  # noqa: ANN401
    """Return an engine whose connections are made with the URL that `secret` holds at the time.

    When a connection is refused, the secret's source is asked again, and if the value is another
    one the connection is made with it. However many are refused it is asked once in 5 s, or once in
    1 s if the driver says that it was the login. Connections in the pool that were made with an
    earlier value are replaced when they are next taken out. `options` are those of
    `sqlalchemy.create_engine`; `pool_pre_ping` is on unless they say otherwise, so that sessions
    which the server ended are replaced, too. The engine's own URL has neither user nor password,
    nor what stands after `?`, where some drivers take them.

    Fetches the secret once, to know the dialect. Raises as `SecretManager.get`, and
    `MalformedInput` if the value is no database URL.
    """
    logins = _Logins(kms.secrets, secret)
    bare = _without_login(logins.url(kms.secrets.get(secret)))
    options.setdefault("pool_pre_ping", True)
    engine = create_engine(bare, **options)
    logins.drivername = bare.drivername
    logins.defaults = engine.dialect.create_connect_args(bare)[1]
    event.listen(engine, "do_connect", logins.connect)
    event.listen(engine, "checkout", logins.check_out)
    return engine


class _Refused(NamedTuple):
    """Why there is no connection, and whether the driver says that it was the login."""

    error: Exception
    is_login: bool


class _Logins:
    """Makes an engine's connections, and knows with which value each was made."""

    def __init__(self, secrets: SecretManager, secret: str) -> None:
        self._secrets = secrets
        self._secret = secret
        self._asking = Asking(secrets, secret)
        self.drivername: str | None = None
        self.defaults: Mapping[str, Any] = {}

    def url(self, value: Secret) -> URL:
        """Parse the secret's value."""
        with suppress(ArgumentError, ValueError):  # which may quote it
            found = make_url(value.reveal())
            # A password with an '@' in it would end as a part of the host, which is shown; and
            # libpq reads nothing behind a NUL.
            if "@" in (found.host or "") or "\x00" in unquote(value.reveal()):
                raise ArgumentError
            if self.drivername in {None, found.drivername}:
                return found
            raise ConfigurationError(
                f"{self._secret} now names another database driver: make a new engine"
            )
        raise MalformedInput(
            f"{self._secret} holds no database URL: dialect://user:password@host/db, without NUL, "
            "and with '@' in a password written as %40"
        )

    def connect(
        self,
        dialect: Dialect,
        record: ConnectionPoolEntry,
        arguments: tuple[Any, ...],
        parameters: dict[str, Any],
    ) -> Any:  # noqa: ANN401
        """Connect with the value that is held, or else with the one that the source has now."""
        # What `connect_args` said goes before what the URL says.
        own = {k: v for k, v in parameters.items() if self.defaults.get(k, self) != v}
        used = self._secrets.get(self._secret)
        made = self._try(dialect, record, used, own)
        if isinstance(made, _Refused):
            new = self._asking.again(used, is_login=made.is_login)
            if new is not None:
                made = self._try(dialect, record, new, own)
        if isinstance(made, _Refused):
            raise made.error
        return made

    def check_out(self, connection: object, record: ConnectionPoolEntry, proxy: object) -> None:
        """Have a connection replaced that was made with an earlier value."""
        used: object = record.record_info.get(_USED) if record.record_info else None
        current = self._asking.current()
        # In an outage a connection that works is better than none.
        if current is not None and used is not current and used != current:
            raise DisconnectionError("the secret has changed since this connection was made")

    def _try(
        self, dialect: Dialect, record: ConnectionPoolEntry, value: Secret, own: dict[str, Any]
    ) -> Any:  # noqa: ANN401
        """Return a connection, or the driver's error made anew.

        Its own frames and attributes hold the password.
        """
        url = self.url(value)
        try:
            arguments, parameters = dialect.create_connect_args(url)
            made = dialect.connect(*arguments, **{**parameters, **own})
        except dialect.loaded_dbapi.Error as error:
            failure = _Refused(_afresh(error, dialect, url), says_login(error))
        except Exception as error:  # noqa: BLE001 - such as of encoding, which holds the password
            told = ConfigurationError(
                f"{self._secret}: the database's driver failed with {type(error).__name__}, whose "
                "text may hold a part of the URL and is not shown: check the URL's options and "
                "connect_args"
            )
            failure = _Refused(told, is_login=False)
        else:
            if record.record_info is not None:
                record.record_info[_USED] = value
            return made
        return failure


def _without_login(url: URL) -> URL:
    # What stays of the query decides how SQLAlchemy pools connections of SQLite.
    query = {name: value for name, value in url.query.items() if name in {"mode", "uri"}}
    return URL.create(
        url.drivername, host=url.host, port=url.port, database=url.database, query=query
    )


def _afresh(error: Exception, dialect: Dialect, url: URL) -> Exception:
    """Return an error of the same class that says the same, masked, and refers to nothing.

    psycopg's, for one, refers to the connection's parameters.
    """
    masker = Masker(_secret_parts(url))
    texts = [
        masker.text(each) if isinstance(each, str) else each
        for each in error.args
        if isinstance(each, (str, int))
    ]
    with suppress(Exception):  # whatever a driver's class asks of its arguments
        return type(error)(*texts)
    made: Exception = dialect.loaded_dbapi.OperationalError(*texts)
    return made


def _secret_parts(url: URL) -> Iterator[bytes]:
    """Yield what a driver's text may quote of a URL, other than where the database is."""
    if url.password is not None:
        yield str(url.password).encode("utf-8")
    for name, value in url.query.items():
        if name not in {"host", "port"}:
            for each in (value,) if isinstance(value, str) else value:
                yield each.encode("utf-8")
