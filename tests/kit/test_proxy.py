"""The proxy does to an exchange what was scripted, and nothing else: before a real HTTP server."""

from __future__ import annotations

import http.client
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Protocol

import pytest

from sentra_kms.testing.faults import (
    BlackHole,
    CutAfterRequest,
    Fault,
    Garbage,
    Latency,
    Reset,
    SlowDrip,
)
from sentra_kms.testing.proxy import FaultProxy

_PATIENCE = 60.0
_SHORT = 0.2  # seconds that a client waits for what never comes


class _Store(ThreadingHTTPServer):
    """Keeps what is put, and says it."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.values: list[bytes] = []
        self.written = threading.Condition()

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing of clients that were cut off."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Store

    def do_PUT(self) -> None:
        """Keep the body; answer with how many there are."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        with self.server.written:
            self.server.values.append(body)
            self.server.written.notify_all()
            count = len(self.server.values)
        self._say(b"kept %d" % count)

    def do_GET(self) -> None:
        """Answer with the last value."""
        self._say(self.server.values[-1])

    def _say(self, data: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Say nothing."""


@pytest.fixture
def store() -> Iterator[_Store]:
    """Return a server that is running."""
    server = _Store()
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join(_PATIENCE)


@pytest.fixture
def proxy(store: _Store) -> Iterator[FaultProxy]:
    """Return a proxy before the server; afterwards no thread of it is left."""
    with FaultProxy("127.0.0.1", store.server_port) as proxy:
        yield proxy
    assert [each for each in threading.enumerate() if each.name == f"FaultProxy-{id(proxy)}"] == []


class Connect(Protocol):
    """Makes a client of the proxy, closed after the test."""

    def __call__(self, proxy: FaultProxy, timeout: float = ...) -> http.client.HTTPConnection:
        """Return a client that waits `timeout` seconds for each read."""


@pytest.fixture
def connect() -> Iterator[Connect]:
    """Return a factory of clients."""
    made: list[http.client.HTTPConnection] = []

    def connect(proxy: FaultProxy, timeout: float = _PATIENCE) -> http.client.HTTPConnection:
        made.append(http.client.HTTPConnection(proxy.host, proxy.port, timeout=timeout))
        return made[-1]

    yield connect
    for each in made:
        each.close()


def _put(connection: http.client.HTTPConnection, data: bytes) -> bytes:
    connection.request("PUT", "/x", body=data)
    return connection.getresponse().read()


def test_passes_what_is_not_scripted(connect: Connect, proxy: FaultProxy) -> None:
    """Without a script all goes its way, on a kept connection, and each request is seen."""
    connection = connect(proxy)
    assert [_put(connection, b"one"), _put(connection, b"two")] == [b"kept 1", b"kept 2"]
    first, second = proxy.requests()
    assert first.endswith(b"one")
    assert second.endswith(b"two")


def test_large_bodies_pass(connect: Connect, proxy: FaultProxy, store: _Store) -> None:
    """A megabyte goes through whole, both ways, as one exchange."""
    data = bytes(range(256)) * 4096
    connection = connect(proxy)
    _put(connection, data)
    connection.request("GET", "/x")
    assert connection.getresponse().read() == data == store.values[0]
    assert len(proxy.requests()) == 2


def test_script_is_one_fault_an_exchange(connect: Connect, proxy: FaultProxy) -> None:
    """Scripted faults come in order, one for each exchange, also on one kept connection."""
    proxy.script(None, Latency(0.01), Reset())
    connection = connect(proxy)
    assert _put(connection, b"one") == b"kept 1"
    assert _put(connection, b"two") == b"kept 2"
    with pytest.raises(ConnectionError):
        _put(connection, b"three")
    assert _put(connect(proxy), b"four") == b"kept 3"


def test_always_until_told_otherwise(connect: Connect, proxy: FaultProxy) -> None:
    """A fault may be for every exchange that no script is for."""
    proxy.always(Reset())
    proxy.script(None)
    connection = connect(proxy)
    assert _put(connection, b"one") == b"kept 1"
    for _ in range(2):
        with pytest.raises(ConnectionError):
            _put(connect(proxy), b"no")
    proxy.always(None)
    assert _put(connect(proxy), b"two") == b"kept 2"


def test_latency_holds_the_request_back(connect: Connect, proxy: FaultProxy, store: _Store) -> None:
    """The service sees a delayed request late: a client that waits less gives up before it."""
    proxy.script(Latency(3600.0))
    with pytest.raises(TimeoutError):
        _put(connect(proxy, _SHORT), b"late")
    assert (len(proxy.requests()), store.values) == (1, [])


def test_latency_passes(connect: Connect, proxy: FaultProxy) -> None:
    """And then it goes its way."""
    proxy.script(Latency(0.05))
    assert _put(connect(proxy), b"late") == b"kept 1"


def test_reset_keeps_the_request_from_the_service(
    connect: Connect, proxy: FaultProxy, store: _Store
) -> None:
    """The client's connection is reset, and the service has seen nothing."""
    proxy.script(Reset())
    with pytest.raises(ConnectionResetError):
        _put(connect(proxy), b"lost")
    assert store.values == []


def test_black_hole_answers_nothing(connect: Connect, proxy: FaultProxy, store: _Store) -> None:
    """The client waits as long as it likes; the service has seen nothing."""
    proxy.script(BlackHole())
    with pytest.raises(TimeoutError):
        _put(connect(proxy, _SHORT), b"lost")
    assert store.values == []
    proxy.wait_for(1)
    assert proxy.requests()[0].endswith(b"lost")


def test_cut_after_the_request_is_a_write_without_an_answer(
    connect: Connect, proxy: FaultProxy, store: _Store
) -> None:
    """When the client is told nothing more, the write is done: no wait is needed to see it."""
    proxy.script(CutAfterRequest())
    with pytest.raises(ConnectionResetError):
        _put(connect(proxy), b"done")
    assert store.values == [b"done"]


def test_garbage_instead_of_the_answer(connect: Connect, proxy: FaultProxy, store: _Store) -> None:
    """The service did its work; what comes back is no answer of its protocol."""
    proxy.script(Garbage(), Garbage(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort"))
    with pytest.raises(http.client.BadStatusLine):
        _put(connect(proxy), b"done")
    with pytest.raises(http.client.IncompleteRead):
        _put(connect(proxy), b"done, too")
    assert store.values == [b"done", b"done, too"]


def test_slow_drip_arrives_byte_by_byte(proxy: FaultProxy) -> None:
    """The answer comes whole, in pieces of one byte, which no read that waits for more holds up."""
    proxy.script(SlowDrip(0.005))
    with socket.create_connection((proxy.host, proxy.port), _PATIENCE) as client:
        client.sendall(b"PUT /x HTTP/1.1\r\nContent-Length: 1\r\nConnection: close\r\n\r\nx")
        pieces: list[bytes] = []
        while piece := client.recv(65536):
            pieces.append(piece)
    assert b"".join(pieces).endswith(b"kept 1")
    assert len(pieces) > 1


def test_slow_drip_outlasts_a_timeout_of_each_read(connect: Connect, proxy: FaultProxy) -> None:
    """A client that only bounds each read waits on; whoever means the whole answer has to count."""
    proxy.script(SlowDrip(3600.0))
    with pytest.raises(TimeoutError):
        _put(connect(proxy, _SHORT), b"slow")


def test_cut_and_restore(connect: Connect, proxy: FaultProxy, store: _Store) -> None:
    """Cut, it ends what is open and refuses what is new; restored, it is at the same port."""
    kept = connect(proxy)
    assert _put(kept, b"one") == b"kept 1"
    proxy.cut()
    proxy.cut()
    with pytest.raises((ConnectionError, http.client.RemoteDisconnected)):
        _put(kept, b"no")
    with pytest.raises(ConnectionRefusedError):
        connect(proxy).connect()
    proxy.restore()
    proxy.restore()
    assert _put(connect(proxy), b"two") == b"kept 2"


def test_service_that_is_not_there(connect: Connect) -> None:
    """Where nothing listens, the client's connection is reset."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with FaultProxy("127.0.0.1", port) as proxy, pytest.raises(ConnectionError):
        _put(connect(proxy), b"no")


def test_service_that_hangs_up(proxy: FaultProxy) -> None:
    """What the service sent before it hung up arrives, and then the end."""
    with socket.create_connection((proxy.host, proxy.port), _PATIENCE) as client:
        client.sendall(b"NONSENSE\r\n\r\n")
        answer = b""
        while piece := client.recv(65536):
            answer += piece
    assert answer


@pytest.mark.parametrize(
    "fault",
    [Latency(3600.0), BlackHole(), SlowDrip(3600.0)],
    ids=lambda fault: type(fault).__name__,
)
def test_close_waits_for_no_fault(connect: Connect, store: _Store, fault: Fault) -> None:
    """A proxy ends at once, whatever it was told to wait for."""
    proxy = FaultProxy("127.0.0.1", store.server_port)
    proxy.always(fault)
    connection = connect(proxy)
    connection.request("PUT", "/x", body=b"x")
    proxy.wait_for(1)
    if isinstance(fault, SlowDrip):
        with store.written:
            assert store.written.wait_for(lambda: bool(store.values), _PATIENCE)
    proxy.close()
    assert proxy.requests()
    with pytest.raises((ConnectionError, http.client.HTTPException)):
        connection.getresponse()


def test_waiting_is_bounded(proxy: FaultProxy) -> None:
    """To wait for an exchange that does not come ends with an error."""
    with pytest.raises(TimeoutError, match="0 of 1 exchanges"):
        proxy.wait_for(1, timeout=0.01)


@pytest.mark.parametrize("host", ["192.0.2.1", "0.0.0.0", "8.8.8.8"])  # noqa: S104 - refused
def test_only_this_machine(host: str) -> None:
    """The proxy connects to nothing elsewhere."""
    with pytest.raises(ValueError, match="not on this machine"):
        FaultProxy(host, 80)
