"""What a hostile or broken server, proxy or network does to a request."""

from __future__ import annotations

import gzip
import ipaddress
import json
import socket
import ssl
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import pytest
import urllib3
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from sentra_kms_vault import connections
from sentra_kms_vault.deadline import Deadline
from sentra_kms_vault.environment import Connection
from sentra_kms_vault.failures import Refused, Unanswered
from sentra_kms_vault.transport import ANSWER_LIMIT, Answer, Transport

from sentra_kms import ConfigurationError, MalformedInput, ServiceUnavailable, Timeout
from tests.needs import need
from tests.servers.scripted import Answer as Scene
from tests.servers.scripted import Scripted, http

_PATIENCE = 60.0
_FINE = {"data": {"value": "fine"}}


class _Client:
    """A transport, and one request through it."""

    def __init__(
        self,
        address: str,
        *,
        max_connections: int = 4,
        ca_file: str | None = None,
        proxy: str | None = None,
        may_be_plain: bool = False,
    ) -> None:
        found = Connection(
            address=address,
            namespace=None,
            ca_file=ca_file,
            ca_directory=None,
            client_certificate=None,
            client_key=None,
            server_name=None,
            verify=True,
            may_be_plain=may_be_plain,
            proxy=proxy,
            max_connections=max_connections,
        )
        self.transport = Transport(found, "vault")

    def ask(
        self,
        timeout: float = _PATIENCE,
        path: str = "/v1/some/path",
        limit: int = ANSWER_LIMIT,
        token: str = "planted",  # noqa: S107 - made up
    ) -> Answer:
        return self.transport.send(
            "GET",
            path,
            headers={"X-Vault-Token": token},
            body=None,
            query=None,
            deadline=Deadline(timeout),
            limit=limit,
        )


@pytest.fixture
def server() -> Iterator[Scripted]:
    """Return a server that answers well unless it is told otherwise."""
    with Scripted(lambda _: http(200, _FINE)) as scripted:
        yield scripted


@pytest.fixture
def client(server: Scripted) -> Iterator[_Client]:
    """Return a client of it."""
    client = _Client(server.url)
    yield client
    client.transport.close()


def _ends_in_time(call: Callable[[], object]) -> Exception:
    """Return what a call raised; fail if it does not come back."""
    ends: list[Exception] = []

    def run() -> None:
        try:
            call()
        except Exception as error:  # noqa: BLE001 - judged by the test
            ends.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(_PATIENCE)
    assert not thread.is_alive(), "it does not come back"
    return ends[0]


def _unanswered(
    server: Scripted, client: _Client, scene: Scene, timeout: float = 0.5
) -> Unanswered:
    """Return how a request ends that was sent and got no answer, or none in time.

    A machine that stalls may not send one in half a second: then again, with more.
    """
    server.answers[:] = [scene]
    error = _ends_in_time(lambda: client.ask(timeout=timeout))
    assert isinstance(error, Unanswered)
    if not error.sent and timeout < 20:
        return _unanswered(server, client, scene, timeout * 6)
    return error


def _drip(head: bytes, piece: bytes) -> Callable[[socket.socket], None]:
    """Send `piece` every 50 ms for as long as somebody listens."""

    def drip(client: socket.socket) -> None:
        client.sendall(head)
        while True:
            client.sendall(piece)
            time.sleep(0.05)

    return drip


def _wait(client: socket.socket) -> None:
    client.recv(1)


_HEAD = b"HTTP/1.1 200 OK\r\n"
_ENDLESS: dict[str, Scene] = {
    "a status line": _drip(b"", b"H"),
    "header lines": _drip(_HEAD, b"X: y\r\n"[:1]),
    "a body": _drip(_HEAD + b"Content-Length: 100000\r\n\r\n", b" "),
    "a body until the end": _drip(_HEAD + b"\r\n", b" "),
    "chunks": _drip(_HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n"),
    "a chunk's size": _drip(_HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"0"),
    "trailers": _drip(_HEAD + b"Transfer-Encoding: chunked\r\n\r\n0\r\n", b"X: y\r\n"),
    "continues": _drip(b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "nothing": _wait,
}


@pytest.mark.parametrize("what", _ENDLESS)
def test_drip_ends_with_the_timeout(server: Scripted, client: _Client, what: str) -> None:
    """A server that sends a little for ever, anywhere in an answer, does not hold its caller."""
    error = _unanswered(server, client, _ENDLESS[what])
    assert error.kind is Timeout
    assert error.sent


def test_each_read_has_what_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """A read may wait for as long as is left then, and not for all of the timeout again."""
    near, far = socket.socketpair()
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    with near, far, connections._Bounded(near, end=105.0) as bounded:
        far.sendall(b"abc")
        assert bounded.read(1) == b"a"
        assert near.gettimeout() == 5.0
        now = 104.0
        assert bounded.read(1) == b"b"
        assert near.gettimeout() == 1.0
        now = 105.0
        with pytest.raises(TimeoutError):
            bounded.read(1)


@pytest.mark.parametrize("form", ["length", "chunks", "end"])
def test_huge_answer_is_not_read(server: Scripted, client: _Client, form: str) -> None:
    """Of an answer of 200 MB no more is read than the limit, nor is more memory used."""
    sent = 0

    def flood(connection: socket.socket) -> None:
        nonlocal sent
        piece = b"x" * 65536
        head = {
            "length": b"Content-Length: 209715200\r\n\r\n",
            "chunks": b"Transfer-Encoding: chunked\r\n\r\n",
            "end": b"\r\n",
        }[form]
        connection.sendall(_HEAD + head)
        for _ in range(200 * 16):
            connection.sendall(b"10000\r\n" + piece + b"\r\n" if form == "chunks" else piece)
            sent += len(piece)

    server.answers.append(flood)
    tracemalloc.start()
    try:
        with pytest.raises(Unanswered, match="more than 1048576 bytes") as caught:
            client.ask(limit=1024 * 1024)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert caught.value.kind is ServiceUnavailable
    assert peak < 8 * 1024 * 1024
    assert sent < 100 * 1024 * 1024
    assert client.ask().body == _FINE  # over another connection


def test_tiny_chunks_take_no_more_memory(server: Scripted, client: _Client) -> None:
    """An answer in chunks of two bytes takes no more memory than one in a piece."""
    text = json.dumps({"data": "x" * 300_000}).encode()
    chunks = b"".join(b"2\r\n%b\r\n" % text[at : at + 2] for at in range(0, len(text) // 2 * 2, 2))
    rest = text[len(text) // 2 * 2 :]
    chunks += (b"1\r\n%b\r\n" % rest if rest else b"") + b"0\r\n\r\n"
    server.answers.append(_HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunks)
    tracemalloc.start()
    try:
        assert client.ask(timeout=_PATIENCE).body == {"data": "x" * 300_000}
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 4 * 1024 * 1024


def test_compressed_answer_is_not_unpacked(server: Scripted, client: _Client) -> None:
    """An answer is never unpacked: one of some kilobytes could fill the memory."""
    bomb = gzip.compress(b'{"data": "' + b"x" * 50_000_000 + b'"}', 9)
    server.answers.append(http(200, bomb, Content_Encoding="gzip"))
    tracemalloc.start()
    try:
        with pytest.raises(Unanswered, match="is not Vault"):
            client.ask()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 4 * 1024 * 1024


_NOT_VAULT = {
    "HTML": http(200, b"<html>Welcome to the captive portal</html>"),
    "HTML, not found": http(404, b"<html>not found</html>"),
    "not found without a word": http(404),
    "JSON, not found": http(404, {"message": "no Route matched with those values"}),
    "a list": http(200, b"[1]"),
    "no UTF-8": http(200, b'{"data": "\xff\xfe"}'),
    "half a surrogate": http(200, b'{"data": "\\ud800"}'),
    "deep": http(200, b'{"a":' * 100_000),
    "cut in an object": http(200, b'{"data": {"val'),
    "partial": http(206, _FINE),
    "not modified": http(304),
    "switching": b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
    "moved": http(301, Location="https://127.0.0.1/v1/some/path"),
    "to a login page": http(302, Location="https://login.example/?next=/v1/some/path"),
}


@pytest.mark.parametrize("what", _NOT_VAULT)
def test_what_is_not_vault(server: Scripted, client: _Client, what: str) -> None:
    """An answer that is not Vault's is no success, nor is it that something is not there."""
    server.answers.append(_NOT_VAULT[what])
    with pytest.raises(Unanswered, match="is not Vault") as caught:
        client.ask()
    assert caught.value.kind is ServiceUnavailable
    assert not caught.value.passing


@pytest.mark.parametrize("status", [400, 403, 429, 500, 502, 503])
def test_page_of_a_proxy_keeps_its_status(server: Scripted, client: _Client, status: int) -> None:
    """A page with a status is a refusal of that status, and its text goes no further."""
    server.answers.append(http(status, b"<html>Bad Gateway</html>"))
    with pytest.raises(Refused) as caught:
        client.ask()
    assert (caught.value.status, caught.value.texts) == (status, ())


_BROKEN: dict[str, Scene] = {
    "truncated": _HEAD + b"Content-Length: 100\r\n\r\n{",
    "truncated chunk": _HEAD + b"Transfer-Encoding: chunked\r\n\r\n20\r\n{",
    "chunk of no size": _HEAD + b"Transfer-Encoding: chunked\r\n\r\nxyz\r\n",
    "chunk of less than nothing": _HEAD + b"Transfer-Encoding: chunked\r\n\r\n-5\r\n{}",
    "two lengths": _HEAD + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
    "a huge header": _HEAD + b"X: " + b"y" * 100_000 + b"\r\n\r\n",
    "very many headers": _HEAD
    + b"".join(b"X%d: y\r\n" % number for number in range(1000))
    + b"\r\n",
    "no HTTP": b"SSH-2.0-OpenSSH_9.2\r\n",
    "binary": bytes(range(256)) * 4,
}


@pytest.mark.parametrize("what", _BROKEN)
def test_broken_answer(server: Scripted, client: _Client, what: str) -> None:
    """An answer that breaks off, or is no HTTP, is unanswered; the next request goes well."""
    scene = _BROKEN[what]
    assert isinstance(scene, bytes)

    def send_and_end(connection: socket.socket) -> None:
        connection.sendall(scene)

    server.answers.append(send_and_end)
    with pytest.raises(Unanswered) as caught:
        client.ask()
    assert caught.value.kind is ServiceUnavailable
    assert caught.value.sent
    assert client.ask().body == _FINE


def test_bytes_after_an_answer_are_not_the_next_one(server: Scripted, client: _Client) -> None:
    """What follows an answer on its connection is never taken for the answer to the next."""
    server.answers.append(http(200, _FINE) + http(200, {"data": {"value": "planted"}}))
    assert client.ask().body == _FINE
    assert client.ask().body == _FINE


def test_every_connection_comes_back_to_the_pool(server: Scripted) -> None:
    """However requests end, none keeps a connection: the pool of one serves the next."""
    client = _Client(server.url, max_connections=1)
    for scene in (
        *(_NOT_VAULT[what] for what in ("HTML", "not modified", "switching")),
        *_BROKEN.values(),
        _drip(_HEAD + b"Content-Length: 100000\r\n\r\n", b" " * 70_000),
    ):
        server.answers.append(scene)
        with pytest.raises(Unanswered):
            client.ask(timeout=0.3, limit=65536)
        assert client.ask().body == _FINE
    client.transport.close()


@pytest.mark.parametrize("answer", [http(200, _FINE), http(204), http(400, {"errors": []})])
def test_connection_is_kept(server: Scripted, client: _Client, answer: bytes) -> None:
    """Requests one after the other use one connection, whatever their answers."""
    server.answers += [answer] * 3
    for _ in range(3):
        with suppress(Refused):
            client.ask()
    assert len(server.requests) == 3
    assert len(server._open) == 1


def test_no_more_connections_than_allowed(server: Scripted) -> None:
    """Threads wait for one of `max_connections`, and are told if none came in time."""
    client = _Client(server.url, max_connections=2)
    held = threading.Event()
    reached = threading.Semaphore(0)

    def hold(connection: socket.socket) -> None:
        reached.release()
        held.wait(_PATIENCE)
        # The server closes it then: told of that, the client does not try to use it again.
        connection.sendall(http(200, _FINE, Connection="close"))

    server.answers += [hold, hold]
    ends: list[Answer] = []
    threads = [
        threading.Thread(target=lambda: ends.append(client.ask(timeout=_PATIENCE)))
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for _ in threads:
        assert reached.acquire(timeout=_PATIENCE)
    with pytest.raises(Unanswered, match="max_connections") as caught:
        client.ask(timeout=0.2)
    assert (caught.value.kind, caught.value.sent) == (Timeout, False)
    assert len(server.requests) == 2
    held.set()
    for thread in threads:
        thread.join(_PATIENCE)
    assert [each.body for each in ends] == [_FINE, _FINE]
    assert client.ask().body == _FINE
    client.transport.close()


def test_waiting_for_a_connection_counts(client: _Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """The time that a request waited for a connection is taken off its timeout."""
    now = 100.0
    given: list[float | None] = []

    def wait(timeout: float) -> bool:
        nonlocal now
        now += 3.0
        return timeout == 5.0

    def send(*_: object, timeout: urllib3.Timeout, **__: object) -> None:
        given.append(timeout.total)  # type: ignore[arg-type]
        raise urllib3.exceptions.HTTPError

    monkeypatch.setattr(time, "monotonic", lambda: now)
    monkeypatch.setattr(client.transport._slots, "acquire", wait)
    monkeypatch.setattr(client.transport._pool, "urlopen", send)
    with pytest.raises(Unanswered, match="broke"):
        client.ask(timeout=5.0)
    assert given == [2.0]


@pytest.mark.parametrize("status", [307, 308])
def test_redirect_of_a_standby_is_followed(server: Scripted, client: _Client, status: int) -> None:
    """A standby's redirect is followed once, with the token: to the same path of another node."""
    with Scripted(lambda _: http(200, {"data": "active"})) as active:
        server.answers.append(http(status, Location=f"{active.url}/v1/some/path"))
        assert client.ask().body == {"data": "active"}
        assert "X-Vault-Token: planted" in active.requests[0]


def test_redirect_is_followed_only_once(server: Scripted, client: _Client) -> None:
    """A node that sends on to one that sends on is no cluster."""
    there = http(307, Location=f"{server.url}/v1/some/path")
    server.answers += [there, there, there]
    with pytest.raises(Unanswered, match="another again") as caught:
        client.ask()
    assert not caught.value.sent
    assert len(server.requests) == 2


_REDIRECTS = {
    "other scheme": "https://{host}/v1/some/path",
    "user": "http://user@{host}/v1/some/path",
    "password": "http://:secret@{host}/v1/some/path",
    "other path": "http://{host}/v1/other/path",
    "dots": "http://{host}/v1/../some/path",
    "a query": "http://{host}/v1/some/path?list=true",
    "no host": "http:///v1/some/path",
    "relative": "/v1/some/path",
    "no address": "http://[::1/v1/some/path",
    "no port": "http://127.0.0.1:999999/v1/some/path",
    "a space": "http://{host} .example/v1/some/path",
    "nothing": "",
    "file": "file:///v1/some/path",
}


@pytest.mark.parametrize("where", _REDIRECTS)
def test_redirect_elsewhere_is_refused(server: Scripted, client: _Client, where: str) -> None:
    """A token goes nowhere that is not as safe, or that is another path: it is not followed."""
    target = _REDIRECTS[where].format(host=f"127.0.0.1:{server.port}")
    server.answers.append(http(307, Location=target))
    with pytest.raises(Unanswered, match="api_addr") as caught:
        client.ask()
    assert caught.value.kind is ServiceUnavailable
    assert len(server.requests) == 1


def test_redirect_to_another_machine_without_tls(server: Scripted) -> None:
    """From plain http:// on this machine a token goes to no other, unless that may be."""
    elsewhere = f"http://elsewhere.invalid:{server.port}/v1/some/path"
    told = {False: "api_addr", True: "cannot be reached"}
    for may_be_plain in (False, True):
        client = _Client(server.url, may_be_plain=may_be_plain)
        server.answers.append(http(307, Location=elsewhere))
        with pytest.raises(Unanswered, match=told[may_be_plain]):
            client.ask()
        client.transport.close()


@pytest.mark.parametrize(
    "path",
    [
        "/v1/a/../b", "/v1/a/./b", "/v1/a//b", "/v1/a/", "/v1/..", "/v2/a", "/v1/%2e%2e/a",
        "/v1/%2E./a", "/v1/a%2fb", "/v1/a?list=true", "/v1/a#b", "/v1/a b", "/v1/a\\..\\b",
        "/v1/a\nb", "/v1/a\r\nX-Vault-Token: b", "/v1/ä", "/v1/a\x00b", "v1", "http://other/v1/a",
    ],
)  # fmt: skip
def test_path_that_is_another_is_refused(server: Scripted, client: _Client, path: str) -> None:
    """A path that names another one than it seems to is refused before anything is sent."""
    with pytest.raises(MalformedInput):
        client.ask(path=path)
    assert not server.requests


@pytest.mark.parametrize("token", ["a\nX-Evil: b", "a\r", "\x00", "ä"], ids=ascii)
def test_token_that_is_no_line(server: Scripted, client: _Client, token: str) -> None:
    """What would end a header is refused before anything is sent, and is not shown."""
    with pytest.raises(ConfigurationError, match="X-Vault-Token") as caught:
        client.ask(token=token)
    assert token not in caught.value.message
    assert not server.requests


@pytest.mark.parametrize(
    ("told", "kept"),
    [
        ("b2bb0f63-5b0a-4c1c-9e8d-3b8a7f0f7b11", True),
        ("00" * 32, False),
        ("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=", False),
        (7, False),
    ],
)
def test_id_of_a_request(
    server: Scripted,
    client: _Client,
    told: object,
    kept: bool,  # noqa: FBT001
) -> None:
    """A request's id is shown to operators if it is one, and not what only says that it is."""
    server.answers.append(http(400, {"errors": [], "request_id": told}))
    with pytest.raises(Refused) as caught:
        client.ask()
    assert caught.value.request_id == (told if kept else None)


def test_last_of_two_equal_keys_counts(server: Scripted, client: _Client) -> None:
    """Of two equal keys of an answer the last counts, everywhere: no part sees another than one."""
    server.answers.append(http(200, b'{"data": 1, "data": 2}'))
    assert client.ask().body == {"data": 2}


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("7", 7.0), ("0", 0.0), ("9" * 400, 86400.0), ("-1", None), ("1.5", None), ("soon", None),
        ("Wed, 21 Oct 2026 07:28:00 GMT", None), ("٣", None), ("", None),
    ],
    ids=ascii,
)  # fmt: skip
def test_retry_after(server: Scripted, client: _Client, header: str, seconds: float | None) -> None:
    """Retry-After is whole seconds, and a day at most; anything else is as if it were not there."""
    body = http(429, {"errors": []}).replace(
        b"\r\n\r\n", b"\r\nRetry-After: " + header.encode() + b"\r\n\r\n", 1
    )
    server.answers.append(body)
    with pytest.raises(Refused) as caught:
        client.ask()
    assert caught.value.retry_after == seconds


def test_address_of_ip_version_6() -> None:
    """An address of IP version 6 is one."""
    need(_has_ipv6(), "IP version 6 on loopback")
    with Scripted(lambda _: http(200, _FINE), host="::1") as server:
        client = _Client(server.url)
        assert client.ask().body == _FINE
        assert f"Host: [::1]:{server.port}" in server.requests[0]
        client.transport.close()


def test_all_addresses_of_a_name_share_the_timeout(
    server: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name with several addresses, none of which answers, takes no longer than one."""
    given: list[float] = []
    resolve = socket.getaddrinfo

    def several(host: str, *rest: object, **more: object) -> list[object]:
        if host != "many.test":
            return list(resolve(host, *rest, **more))  # type: ignore[arg-type]
        return [
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", (f"127.0.0.{number}", server.port))
            for number in (1, 2, 3, 4)
        ]

    class Deaf(socket.socket):
        def connect(self, address: object) -> None:
            given.append(self.gettimeout() or float("inf"))
            raise TimeoutError

    client = _Client(f"http://many.test:{server.port}")
    with monkeypatch.context() as patch:
        patch.setattr(socket, "getaddrinfo", several)
        patch.setattr(socket, "socket", Deaf)
        with pytest.raises(Unanswered) as caught:
            client.ask(timeout=4.0)
    assert (caught.value.kind, caught.value.sent) == (Timeout, False)
    assert given
    assert max(given) <= 4.0
    assert sum(given[:1]) <= 1.1, "the first is not given all of the time"
    client.transport.close()


@pytest.mark.parametrize("addresses", [1, 2])
def test_handshake_has_what_connecting_left(
    server: Scripted, monkeypatch: pytest.MonkeyPatch, addresses: int
) -> None:
    """What connecting took is taken off the time of what follows on the connection, as TLS."""
    now = 100.0
    connect = socket.socket.connect

    class Slow(socket.socket):
        def connect(self, address: object) -> None:
            nonlocal now
            now += 1.0
            connect(self, address)  # type: ignore[arg-type]

    given = [
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", server.port)),
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.2", server.port)),
    ][:addresses]
    monkeypatch.setattr(time, "monotonic", lambda: now)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: given)
    monkeypatch.setattr(socket, "socket", Slow)
    made = connections._Plain("many.test", server.port, timeout=4.0)
    made.connect()
    assert isinstance(made.sock, socket.socket)
    assert (made.sock.gettimeout(), made.timeout) == (3.0, 3.0)
    made.close()


def test_second_address_of_a_name_is_tried(
    server: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the first address of a name refuses, the next one is asked."""
    resolve = socket.getaddrinfo

    def several(host: str, *rest: object, **more: object) -> list[object]:
        if host != "many.test":
            return list(resolve(host, *rest, **more))  # type: ignore[arg-type]
        return [
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, server.port))
            for address in ("127.0.0.2", "127.0.0.1")
        ]

    monkeypatch.setattr(socket, "getaddrinfo", several)
    client = _Client(f"http://many.test:{server.port}")
    assert client.ask().body == _FINE
    client.transport.close()


def test_name_that_is_none() -> None:
    """A name that cannot be resolved was not asked, and may be there soon."""
    client = _Client("http://no-such-host.invalid:8200")
    with pytest.raises(Unanswered, match="cannot be reached") as caught:
        client.ask()
    assert (caught.value.sent, caught.value.passing) == (False, True)


def test_nothing_of_a_token_is_logged(
    server: Scripted, client: _Client, caplog: pytest.LogCaptureFixture
) -> None:
    """The HTTP client logs neither headers nor bodies, also of answers that it cannot parse."""
    caplog.set_level("DEBUG")
    server.answers.append(_HEAD + b"planted-header\r\nContent-Length: 2\r\n\r\n{}")
    with pytest.raises(Unanswered, match="broke"):
        client.ask()
    client.ask()
    assert "planted" not in caplog.text


def test_proxy_is_asked() -> None:
    """With a proxy it is the proxy that resolves the name and asks."""
    with Scripted(lambda _: http(200, _FINE)) as proxy:
        client = _Client("http://vault.invalid:8200", proxy=proxy.url)
        assert client.ask().body == _FINE
        assert proxy.requests[0].startswith("GET http://vault.invalid:8200/v1/some/path ")
        client.transport.close()


def _tunnel_to(port: int) -> Callable[[socket.socket], None]:
    """Return what a proxy does at CONNECT."""

    def pump(source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while piece := source.recv(65536):
                target.sendall(piece)
            target.shutdown(socket.SHUT_WR)

    def tunnel(client: socket.socket) -> None:
        with socket.create_connection(("127.0.0.1", port)) as service:
            client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            back = threading.Thread(target=pump, args=(service, client), daemon=True)
            back.start()
            pump(client, service)
            back.join(_PATIENCE)

    return tunnel


class _Certificate(NamedTuple):
    file: str
    context: ssl.SSLContext


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> _Certificate:
    """Return a certificate for 127.0.0.1 that signs itself, and a server's context with it."""
    home = tmp_path_factory.mktemp("tls")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]),
            critical=False,
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    form = serialization.PrivateFormat.PKCS8
    (home / "server.pem").write_bytes(
        made.public_bytes(pem) + key.private_bytes(pem, form, serialization.NoEncryption())
    )
    (home / "ca.pem").write_bytes(made.public_bytes(pem))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(home / "server.pem")
    return _Certificate(str(home / "ca.pem"), context)


@pytest.fixture
def tls_server(certificate: _Certificate) -> Iterator[Scripted]:
    """Return a server that speaks TLS."""
    with Scripted(lambda _: http(200, _FINE), tls=certificate.context) as server:
        yield server


def test_tls(tls_server: Scripted, certificate: _Certificate) -> None:
    """A server whose CA is named is asked, over one connection."""
    client = _Client(tls_server.url, ca_file=certificate.file)
    assert [client.ask().body for _ in range(2)] == [_FINE, _FINE]
    client.transport.close()


def test_tunnel_through_a_proxy(tls_server: Scripted, certificate: _Certificate) -> None:
    """A proxy tunnels TLS, and sees nothing of the token; one that drips does not hold us."""
    with Scripted(lambda _: _tunnel_to(tls_server.port)) as proxy:
        client = _Client(tls_server.url, ca_file=certificate.file, proxy=proxy.url)
        assert [client.ask().body for _ in range(2)] == [_FINE, _FINE]
        (seen,) = proxy.requests
        assert seen.startswith(f"CONNECT 127.0.0.1:{tls_server.port} ")
        assert "planted" not in seen
        client.transport.close()
    with Scripted(lambda _: _drip(_HEAD, b"X")) as proxy:
        client = _Client(tls_server.url, ca_file=certificate.file, proxy=proxy.url)
        error = _ends_in_time(lambda: client.ask(timeout=0.5))
        assert isinstance(error, Unanswered)
        client.transport.close()


def test_no_secret_of_tls_is_written_down(
    tls_server: Scripted,
    certificate: _Certificate,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """SSLKEYLOGFILE would let whoever reads that file and the network read every key and token."""
    log = tmp_path / "keys.log"
    monkeypatch.setenv("SSLKEYLOGFILE", str(log))
    client = _Client(tls_server.url, ca_file=certificate.file)
    assert client.ask().body == _FINE
    client.transport.close()
    assert not log.exists() or "SECRET" not in log.read_text()


def test_untrusted_certificate(tls_server: Scripted) -> None:
    """A server whose CA is not named is asked nothing, and it is said what to do."""
    client = _Client(tls_server.url)
    with pytest.raises(Unanswered, match=r"tls\.ca_file") as caught:
        client.ask()
    assert (caught.value.sent, caught.value.passing) == (False, False)
    assert not tls_server.requests


def test_no_tls_where_it_should_be() -> None:
    """A server that does not speak TLS is told as that."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(http(400, b"Client sent an HTTP request"))

        thread = threading.Thread(target=answer)
        thread.start()
        client = _Client(f"https://127.0.0.1:{listener.getsockname()[1]}")
        with pytest.raises(Unanswered, match="TLS could not be agreed on"):
            client.ask()
        thread.join(_PATIENCE)


def test_hang_up_before_tls() -> None:
    """A server that hangs up at once, as one that starts, is no fault of its certificate."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def hang_up() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)

        thread = threading.Thread(target=hang_up)
        thread.start()
        client = _Client(f"https://127.0.0.1:{listener.getsockname()[1]}")
        with pytest.raises(Unanswered, match="broke") as caught:
            client.ask()
        thread.join(_PATIENCE)
    assert caught.value.passing


def test_hang_up_within_tls(tls_server: Scripted, certificate: _Certificate) -> None:
    """A server that hangs up after the request may have done it: no fault of its certificate."""

    def hang_up(connection: socket.socket) -> None:
        connection.shutdown(socket.SHUT_RDWR)

    client = _Client(tls_server.url, ca_file=certificate.file)
    for scene in (hang_up, _HEAD + b"Content-Length: 100\r\n\r\n{"):
        error = _unanswered(tls_server, client, scene)
        assert error.sent
        assert "certificate" not in error.what
    client.transport.close()


def test_drip_within_tls(tls_server: Scripted, certificate: _Certificate) -> None:
    """What drips through TLS ends with the timeout, too."""
    client = _Client(tls_server.url, ca_file=certificate.file)
    assert _unanswered(tls_server, client, _drip(_HEAD, b"X")).kind is Timeout
    client.transport.close()


def _has_ipv6() -> bool:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False
