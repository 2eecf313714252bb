"""Requests to one server over a pool of connections: verified, bounded in time and in size.

Nothing of the environment is read here: no proxies, no `.netrc`, no certificate bundles.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from contextlib import suppress
from decimal import Decimal
from urllib.parse import urlencode, urlsplit

import msgspec
import urllib3
from urllib3.exceptions import (
    ConnectTimeoutError,
    HTTPError,
    NameResolutionError,
    NewConnectionError,
    ProxyError,
    ReadTimeoutError,
    SSLError,
)

from sentra_kms import ConfigurationError, MalformedInput, ServiceUnavailable, Timeout
from sentra_kms_vault.deadline import Deadline
from sentra_kms_vault.environment import Connection
from sentra_kms_vault.failures import Refused, Unanswered

_decode = msgspec.json.Decoder(dict[str, object], float_hook=Decimal).decode  # as it was written
_CHUNK = 64 * 1024
ANSWER_LIMIT = 4 * 1024 * 1024
"""Bytes of the longest answer: some ten times what a key ring of 256 KiB takes."""
_REDIRECTS = 1  # a standby names the active node; more than that is no cluster


class Answer(msgspec.Struct, frozen=True):
    """An answer of a status below 400: its body, empty if there was none."""

    status: int
    body: dict[str, object]


class Transport:
    """Connections to the server. Made anew after a fork, with the parts."""

    def __init__(self, connection: Connection, name: str) -> None:
        self._address = connection.address
        self._name = name
        self._pool = _pool(connection, name)

    @property
    def address(self) -> str:
        """`https://HOST:PORT`, as it is asked."""
        return self._address

    def send(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str],
        body: object,
        query: Mapping[str, str] | None,
        deadline: Deadline,
        limit: int = ANSWER_LIMIT,
    ) -> Answer:
        """Send a request to a path that begins with `/v1/`, and return its answer.

        Raises `Refused` for a status of 400 or more, and `Unanswered` for everything else.
        """
        check_path(path)
        encoded = None if body is None else msgspec.json.encode(body)
        url = self._address + path + (f"?{urlencode(query)}" if query else "")
        for _ in range(_REDIRECTS + 1):
            status, told, data = self._exchange(method, url, headers, encoded, deadline, limit)
            if status not in {301, 302, 307, 308}:
                return _understand(status, told, data)
            url = self._follow(told.get("location"))
        raise Unanswered(
            ServiceUnavailable, "it names another node, and that one another again", "redirects",
            sent=False,
        )  # fmt: skip

    def close(self) -> None:
        """Close every connection."""
        self._pool.clear()

    def _exchange(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: bytes | None,
        deadline: Deadline,
        limit: int,
    ) -> tuple[int, Mapping[str, str], bytes]:
        problem: Unanswered
        try:
            answer = self._pool.urlopen(
                method,
                url,
                body=body,
                headers={**headers, "Accept-Encoding": "identity"},
                timeout=urllib3.Timeout(total=deadline.left()),
                retries=False,
                redirect=False,
                preload_content=False,
            )
            try:
                data = _read(answer, deadline, limit)
            except BaseException:
                answer.close()
                raise
            answer.release_conn()
        except (HTTPError, OSError) as error:
            problem = _problem(error, self._name)
        else:
            return answer.status, answer.headers, data
        raise problem

    def _follow(self, location: str | None) -> str:
        """Return where a standby sends us, unless that is no place for a token."""
        target = urlsplit(location or "")
        ours = urlsplit(self._address)
        if target.scheme == ours.scheme and target.hostname and target.username is None:
            check_path(target.path)
            return target.geturl()
        raise Unanswered(
            ServiceUnavailable,
            "it names another node by an address that is not as safe as its own: look at its "
            "api_addr",
            "redirect",
            sent=False,
        )


def check_path(path: str) -> None:
    """Refuse a path that names another one than it seems to.

    Raises `MalformedInput`. Segments that are empty, `.` or `..` would be resolved on the way.
    """
    segments = path.removeprefix("/").split("/")
    if segments[0] != "v1" or any(
        each in {"", ".", ".."} or "%2f" in each.lower() or "%2e" in each.lower()
        for each in segments
    ):
        raise MalformedInput("a path in Vault has no segment that is empty, '.' or '..'")


def _pool(connection: Connection, name: str) -> urllib3.PoolManager:
    context = _context(connection, name) if connection.address.startswith("https") else None
    numbers = {"num_pools": 4, "maxsize": connection.max_connections, "block": False}
    given: dict[str, object] = {}
    if context is not None:
        given["ssl_context"] = context
        if connection.server_name is not None:
            given |= {
                "server_hostname": connection.server_name,
                "assert_hostname": connection.server_name if connection.verify else False,
            }
    if connection.proxy is not None:
        return urllib3.ProxyManager(connection.proxy, **numbers, **given)  # type: ignore[arg-type]
    return urllib3.PoolManager(**numbers, **given)  # type: ignore[arg-type]


def _context(connection: Connection, name: str) -> ssl.SSLContext:
    failure: str
    try:
        context = ssl.create_default_context(
            cafile=connection.ca_file, capath=connection.ca_directory
        )
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if connection.client_certificate is not None:
            context.load_cert_chain(
                connection.client_certificate,
                connection.client_key,
                password=lambda: "",  # an encrypted key is refused, and nobody is asked
            )
    except (OSError, ValueError) as error:
        failure = type(error).__name__
    else:
        if not connection.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context
    raise ConfigurationError(
        f"backend '{name}': a CA, certificate or key of `tls` cannot be read as PEM ({failure})",
        backend=name,
    )


def _read(answer: urllib3.BaseHTTPResponse, deadline: Deadline, limit: int) -> bytes:
    """Read a body, no more of it and no longer than is allowed."""
    pieces: list[bytes] = []
    size = 0
    while piece := answer.read1(_CHUNK):
        size += len(piece)
        if size > limit:
            raise Unanswered(
                ServiceUnavailable, f"its answer has more than {limit} bytes", "size", sent=True
            )
        pieces.append(piece)
        if not deadline.allows(0):
            raise Unanswered(Timeout, "its answer came too slowly", "ReadTimeoutError", sent=True)
    return b"".join(pieces)


def _understand(status: int, headers: Mapping[str, str], data: bytes) -> Answer:
    """Return what an answer says, if it is Vault's."""
    body: dict[str, object] | None = None
    with suppress(msgspec.MsgspecError):  # a page of some proxy, or an answer that was cut
        body = _decode(data) if data else {}
    if status >= 400:
        raise Refused(
            status,
            _texts(body),
            body or {},
            retry_after=_seconds(headers.get("retry-after")),
            request_id=_request_id(body),
        )
    if body is None:
        raise Unanswered(
            ServiceUnavailable,
            "what answered is not Vault, or its answer was cut: look at the address and at proxies",
            "no JSON",
            sent=True,
        )
    return Answer(status, body)


def _texts(body: dict[str, object] | None) -> tuple[str, ...]:
    errors = (body or {}).get("errors")
    return tuple(each for each in errors if isinstance(each, str)) if type(errors) is list else ()


def _request_id(body: dict[str, object] | None) -> str | None:
    found = (body or {}).get("request_id")
    return found if isinstance(found, str) and len(found) <= 64 and found.isascii() else None


def _seconds(text: str | None) -> float | None:
    return float(text) if text is not None and text.isascii() and text.isdecimal() else None


def _problem(error: HTTPError | OSError, name: str) -> Unanswered:
    """Return what became of a request, without the client's exception."""
    cause = type(error).__name__
    if isinstance(error, SSLError):
        return Unanswered(
            ServiceUnavailable,
            "its certificate is not trusted, or TLS could not be agreed on: name its CA with "
            "tls.ca_file",
            cause,
            sent=False,
        )
    if isinstance(error, ReadTimeoutError):
        return Unanswered(Timeout, "no answer came in time", cause, sent=True)
    # Before the time-out, which the first of these is a kind of.
    if isinstance(error, (NewConnectionError, NameResolutionError, ProxyError)):
        what = "it cannot be reached: look at its address"
        return Unanswered(ServiceUnavailable, what, cause, sent=False, passing=True)
    if isinstance(error, ConnectTimeoutError):
        return Unanswered(Timeout, "no connection came about in time", cause, sent=False)
    return Unanswered(ServiceUnavailable, "the connection broke", cause, sent=True, passing=True)
