"""Requests to one server over a pool of connections: verified, bounded in time and in size.

Nothing of the environment is read here: no proxies, no `.netrc`, no certificate bundles.
"""

from __future__ import annotations

import re
import ssl
import threading
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
from sentra_kms_vault.connections import make_pool
from sentra_kms_vault.deadline import Deadline
from sentra_kms_vault.environment import Connection, is_here
from sentra_kms_vault.failures import Refused, Unanswered

_decode = msgspec.json.Decoder(dict[str, object], float_hook=Decimal).decode  # as it was written
_CHUNK = 64 * 1024
ANSWER_LIMIT = 4 * 1024 * 1024
"""Bytes of the longest answer: some ten times what a key ring of 256 KiB takes."""
_REDIRECTS = 1  # a standby names the active node; more than that is no cluster
_PATH = re.compile(r"/[A-Za-z0-9._~!$&'()*+,;=:@%/-]+")
_DONE = frozenset({200, 202, 204})
"""What Vault answers when all went well."""
_VAULTS = frozenset({"errors", "request_id"})
"""One of these is in every answer of Vault's with a status of 404."""
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
"""The form of a request's id: what has another may be something that was sent."""
_LONGEST_WAIT = 86400.0
"""Seconds that a server may ask us to wait: what is more is a fault."""


class Answer(msgspec.Struct, frozen=True):
    """An answer of a status below 400: its body, empty if there was none."""

    status: int
    body: dict[str, object]


class Transport:
    """Connections to the server. Made anew after a fork, with the parts."""

    def __init__(self, connection: Connection, name: str) -> None:
        self._address = connection.address
        self._name = name
        self._may_be_plain = connection.may_be_plain
        self._pool = make_pool(connection, name)
        self._slots = threading.Semaphore(connection.max_connections)

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

        Raises `Refused` for a status of 400 or more, and `Unanswered` for everything else that
        comes instead of an answer. What cannot be sent is `MalformedInput` or, in a header, which
        comes from the configuration, `ConfigurationError`.
        """
        check_path(path)
        _check_headers(headers)
        encoded = None if body is None else msgspec.json.encode(body)
        url = self._address + path + (f"?{urlencode(query)}" if query else "")
        for _ in range(_REDIRECTS + 1):
            status, told, data = self._exchange(method, url, headers, encoded, deadline, limit)
            if status not in {307, 308}:
                return _understand(status, told, data)
            url = self._follow(told.get("location"), url)
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
        # Here and not in the pool, whose waiting would not count towards the timeout.
        if not self._slots.acquire(timeout=deadline.left()):
            raise Unanswered(
                Timeout,
                "every connection was in use for all of its time: raise max_connections",
                "connections",
                sent=False,
            )
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
                decode_content=False,  # it would be unpacked to any size
            )
            try:
                data = _read(answer, limit)
            except BaseException:
                answer.close()
                raise
            finally:
                answer.release_conn()
        except (HTTPError, OSError) as error:
            problem = _problem(error)
        else:
            return answer.status, answer.headers, data
        finally:
            self._slots.release()
        raise problem

    def _follow(self, location: str | None, url: str) -> str:
        """Return where a standby sends us, unless that is no place for a token."""
        asked = urlsplit(url)
        with suppress(ValueError):  # an address or a port that is none
            target = urlsplit(location or "")
            if (
                target.scheme == asked.scheme
                and (target.scheme == "https" or self._may_be_plain or is_here(target.geturl()))
                and target.hostname
                and target.username is None
                and target.port != 0
                and (target.path, target.query) == (asked.path, asked.query)
            ):
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

    Raises `MalformedInput`. Segments that are empty, `.` or `..` would be resolved on the way, a
    query or a control character would change what is asked.
    """
    segments = path.removeprefix("/").split("/")
    if (
        _PATH.fullmatch(path) is None
        or segments[:1] != ["v1"]
        or any(
            each in {"", ".", ".."} or "%2f" in each.lower() or "%2e" in each.lower()
            for each in segments
        )
    ):
        raise MalformedInput(
            "a path in Vault is of quoted segments, none of them empty, '.' or '..'"
        )


def _check_headers(headers: Mapping[str, str]) -> None:
    """Refuse what would end a header; the HTTP client's own error shows it."""
    for name, value in headers.items():
        if not (value.isascii() and value.isprintable()):
            raise ConfigurationError(f"what goes to Vault as {name} is no line of printable ASCII")


def _read(answer: urllib3.BaseHTTPResponse, limit: int) -> bytes:
    """Read a body, no more of it than is allowed."""
    data = bytearray()
    while piece := answer.read1(_CHUNK):
        data += piece
        if len(data) > limit:
            raise Unanswered(
                ServiceUnavailable, f"its answer has more than {limit} bytes", "size", sent=True
            )
    return bytes(data)


def _understand(status: int, headers: Mapping[str, str], data: bytes) -> Answer:
    """Return what an answer says, if it is Vault's."""
    body = _parsed(data)
    # Whatever answers for a wrong address may say that something is not there; Vault says more.
    strange = body is None if status != 404 else not (body and _VAULTS & body.keys())
    if status >= 400 and not (status == 404 and strange):
        raise Refused(
            status,
            _texts(body),
            body or {},
            retry_after=_seconds(headers.get("retry-after")),
            request_id=_request_id(body),
        )
    if body is None or status not in _DONE:
        raise Unanswered(
            ServiceUnavailable,
            "what answered is not Vault, or its answer was cut: look at the address and at proxies",
            f"status {status}",
            sent=True,
        )
    return Answer(status, body)


def _parsed(data: bytes) -> dict[str, object] | None:
    """Return a body, `None` if it is none: a page of some proxy, or one that was cut."""
    try:
        return _decode(data) if data else {}
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


def _texts(body: dict[str, object] | None) -> tuple[str, ...]:
    errors = (body or {}).get("errors")
    return tuple(each for each in errors if isinstance(each, str)) if type(errors) is list else ()


def _request_id(body: dict[str, object] | None) -> str | None:
    found = (body or {}).get("request_id")
    return found if isinstance(found, str) and _UUID.fullmatch(found) else None


def _seconds(text: str | None) -> float | None:
    if text is None or not (text.isascii() and text.isdecimal()):
        return None
    return min(float(text), _LONGEST_WAIT)


def _problem(error: HTTPError | OSError) -> Unanswered:
    """Return what became of a request, without the client's exception."""
    cause = type(error).__name__
    if isinstance(error, SSLError) and not _ended(error):
        return Unanswered(
            ServiceUnavailable,
            "its certificate is not trusted, or TLS could not be agreed on: name its CA with "
            "tls.ca_file",
            cause,
            sent=not _distrusted(error),
        )
    if isinstance(error, ReadTimeoutError):
        return Unanswered(Timeout, "no answer came in time", cause, sent=True)
    if isinstance(error, ConnectTimeoutError) and not isinstance(error, NewConnectionError):
        return Unanswered(Timeout, "no connection came about in time", cause, sent=False)
    if isinstance(error, (NewConnectionError, NameResolutionError, ProxyError)):
        what = "it cannot be reached: look at its address"
        return Unanswered(ServiceUnavailable, what, cause, sent=False, passing=True)
    return Unanswered(ServiceUnavailable, "the connection broke", cause, sent=True, passing=True)


def _ended(error: SSLError) -> bool:
    """Whether the other end hung up, which it may do after it has done what it was asked."""
    ends = (ssl.SSLEOFError, ssl.SSLZeroReturnError, ssl.SSLSyscallError)
    return any(isinstance(each, ends) for each in error.args)


def _distrusted(error: SSLError) -> bool:
    """Whether nothing was sent, since its certificate was not to be trusted."""
    return any(isinstance(each, ssl.SSLCertVerificationError) for each in error.args)
