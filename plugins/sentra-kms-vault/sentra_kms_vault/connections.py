"""The pool of connections to a server: verified, and bound by the time of each request.

urllib3 gives each read of a socket the whole timeout anew, and each address of a name. Here all of
a request, to its last byte, has one. Only resolving a name takes the time that the system gives it.
"""

from __future__ import annotations

import io
import socket
import time
from email.errors import MultipartInvariantViolationDefect, StartBoundaryNotFoundDefect
from functools import partial
from http.client import HTTPException, HTTPResponse
from typing import TYPE_CHECKING

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import ConnectTimeoutError, NewConnectionError
from urllib3.util.connection import create_connection

from sentra_kms_vault.environment import Connection
from sentra_kms_vault.tls import tls_context

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

    _Base = HTTPConnection
else:
    _Base = object

_ONLY_MULTIPART = (StartBoundaryNotFoundDefect, MultipartInvariantViolationDefect)


def make_pool(connection: Connection, name: str) -> urllib3.PoolManager:
    """Return the pool of the backend `name`.

    It keeps `max_connections` open. Raises `ConfigurationError` if a file of `tls` cannot be used.
    """
    context = tls_context(connection, name) if connection.address.startswith("https") else None
    numbers = {"num_pools": 4, "maxsize": connection.max_connections, "block": False}
    given: dict[str, object] = {}
    if context is not None:
        given["ssl_context"] = context
        if connection.server_name is not None:
            given |= {
                "server_hostname": connection.server_name,
                "assert_hostname": connection.server_name if connection.verify else False,
            }
    pool: urllib3.PoolManager
    if connection.proxy is not None:
        pool = urllib3.ProxyManager(connection.proxy, **numbers, **given)  # type: ignore[arg-type]
    else:
        pool = urllib3.PoolManager(**numbers, **given)  # type: ignore[arg-type]
    pool.pool_classes_by_scheme = {"http": _PlainPool, "https": _TlsPool}
    return pool


class _Bounded(io.RawIOBase):
    """What comes from a socket until a time, on the monotonic clock; then `TimeoutError`."""

    def __init__(self, sock: socket.socket, end: float) -> None:
        self._sock = sock
        self._end = end
        self._raw = sock.makefile("rb", buffering=0)

    def readable(self) -> bool:
        """Return `True`."""
        return True

    def readinto(self, buffer: WriteableBuffer) -> int | None:
        """Read what there is."""
        left = self._end - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._sock.settimeout(left)
        return self._raw.readinto(buffer)

    def close(self) -> None:
        """Let go of the socket."""
        self._raw.close()
        super().close()


class _Response(HTTPResponse):
    """An answer that has come to its end, or else is given up, at a time."""

    def __init__(
        self,
        sock: socket.socket,
        debuglevel: int = 0,
        method: str | None = None,
        url: str | None = None,
        *,
        end: float,
    ) -> None:
        super().__init__(sock, debuglevel, method, url)
        unbound = self.fp
        self.fp = io.BufferedReader(_Bounded(sock, end))
        unbound.close()

    def begin(self) -> None:
        """Read the head; one that is not well formed is none, and urllib3 would log it."""
        super().begin()
        defects = [each for each in self.msg.defects if not isinstance(each, _ONLY_MULTIPART)]
        if defects or self.msg.get_payload():
            raise HTTPException("headers that are none")


class _Timely(_Base):
    """A connection whose `timeout`, which urllib3 sets before each step, is all of that step's."""

    def connect(self) -> None:
        """Connect; what a proxy answers to CONNECT is bounded, too."""
        end = self._bound()
        super().connect()
        self.timeout = _left(end)  # for sending

    def getresponse(self) -> urllib3.HTTPResponse:  # type: ignore[override]
        """Return the answer, whose body is bounded by what is left of the time now."""
        self._bound()
        return super().getresponse()

    def _bound(self) -> float:
        end = time.monotonic() + (self.timeout or 0.0)
        self.response_class = partial(_Response, end=end)  # type: ignore[assignment]
        return end

    def _new_conn(self) -> socket.socket:
        """Connect to one of the addresses of the name, which have their share of the time each."""
        end = time.monotonic() + (self.timeout or 0.0)
        made = self._connected(end)
        made.settimeout(_left(end))  # for TLS, and for what a proxy is told
        return made

    def _connected(self, end: float) -> socket.socket:
        addresses = self._addresses()
        if len(addresses) < 2:
            return super()._new_conn()
        late = False
        for number, address in enumerate(addresses):
            left = (end - time.monotonic()) / (len(addresses) - number)
            if left <= 0:
                late = True
                break
            try:
                return create_connection(
                    address,
                    left,
                    source_address=self.source_address,
                    socket_options=self.socket_options,
                )
            except TimeoutError:
                late = True
            except OSError:
                continue
        if late:
            raise ConnectTimeoutError(self, "no address of the name answers")
        raise NewConnectionError(self, "no address of the name can be reached")

    def _addresses(self) -> list[tuple[str, int]]:
        try:
            found = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError):
            return []  # urllib3 tells what is wrong with the name
        return list(dict.fromkeys((str(each[4][0]), self.port) for each in found))


def _left(end: float) -> float:
    return max(end - time.monotonic(), 0.001)  # 0 would be no timeout, but not to wait at all


class _Plain(_Timely, HTTPConnection):
    pass


class _Tls(_Timely, HTTPSConnection):
    pass


class _PlainPool(urllib3.HTTPConnectionPool):
    ConnectionCls = _Plain


class _TlsPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _Tls
