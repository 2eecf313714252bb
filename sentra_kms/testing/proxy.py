"""A TCP proxy that injects faults between a backend and its service, on this machine only.

A test points its backend at the proxy and says what happens to the next *exchange*: what a client
sends, and what the service answers to it, until the client sends again. On a kept connection each
request is an exchange of its own. (Through TLS so is each flight of the handshake: there `always`
is easier to foresee than `script`.)
"""

from __future__ import annotations

import ipaddress
import selectors
import socket
import struct
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Self, cast

from sentra_kms.testing.faults import (
    BlackHole,
    CutAfterRequest,
    Fault,
    Garbage,
    Latency,
    Reset,
    SlowDrip,
)

_PIECE = 65536  # bytes read at once
_PATIENCE = 10.0  # seconds until a connection to the service, or the end of a thread, is given up
_LINGER = struct.pack("ii", 1, 0)  # a close sends RST


class FaultProxy:
    """Forwards connections to `host:port`, and does to each exchange what was scripted.

    Listens on 127.0.0.1, at `port`, from its making until `close`; both ends have to be on this
    machine. A context manager. Faults are in `sentra_kms.testing.faults`.

    >>> with FaultProxy("127.0.0.1", 9) as proxy:
    ...     proxy.host, proxy.port > 0, proxy.requests()
    ('127.0.0.1', True, ())
    """

    def __init__(self, host: str, port: int) -> None:
        if not ipaddress.ip_address(host).is_loopback:
            raise ValueError(f"{host} is not on this machine: the proxy is for tests on loopback")
        self._target = (host, port)
        self._scripted: deque[Fault | None] = deque()
        self._always: Fault | None = None
        self._requests: list[bytes] = []
        self._changed = threading.Condition()
        self._servers: set[threading.Thread] = set()
        self._open: set[_Connection] = set()
        self._listener: socket.socket | None = None
        self.host: str = "127.0.0.1"
        self.port: int = 0
        self.restore()

    @property
    def url(self) -> str:
        """The proxy's address for a client that speaks HTTP."""
        return f"http://{self.host}:{self.port}"

    def script(self, *faults: Fault | None) -> None:
        """Do this to the next exchanges, one fault for each, after those scripted already.

        `None` lets one exchange pass unhurt, as do all when the script is over.
        """
        with self._changed:
            self._scripted.extend(faults)

    def always(self, fault: Fault | None) -> None:
        """Do this to each exchange that no script is for, until something else is said."""
        with self._changed:
            self._always = fault

    def cut(self) -> None:
        """Be unreachable: end every connection, and refuse new ones."""
        with self._changed:
            listener, self._listener = self._listener, None
            connections = list(self._open)
        for connection in connections:
            connection.stop()
        if listener is not None:
            # Wakes the thread that accepts, which closes the socket when it sees that it is over.
            with suppress(OSError), socket.create_connection((self.host, self.port), _PATIENCE):
                self._acceptor.join(_PATIENCE)

    def restore(self) -> None:
        """Be reachable, at the same port as ever."""
        with self._changed:
            if self._listener is not None:
                return
            self._listener = listener = socket.create_server((self.host, self.port), backlog=128)
            self.port = listener.getsockname()[1]
        self._acceptor = self._thread(self._accept, listener)
        self._acceptor.start()

    def requests(self) -> tuple[bytes, ...]:
        """Return what clients sent, an exchange each, in order. May hold secrets: do not print."""
        with self._changed:
            return tuple(self._requests)

    def wait_for(self, exchanges: int, timeout: float = _PATIENCE) -> None:
        """Wait until so many exchanges have begun; raises `TimeoutError` after `timeout` s."""
        with self._changed:
            if not self._changed.wait_for(lambda: len(self._requests) >= exchanges, timeout):
                raise TimeoutError(f"{len(self._requests)} of {exchanges} exchanges in {timeout} s")

    def close(self) -> None:
        """Cut, and wait until every thread has ended."""
        self.cut()
        with self._changed:
            servers = list(self._servers)
        for thread in servers:
            thread.join(_PATIENCE)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def begin(self) -> tuple[int, Fault | None]:
        """Number a new exchange, and say what is to happen to it; for connections."""
        with self._changed:
            self._requests.append(b"")
            self._changed.notify_all()
            fault = self._scripted.popleft() if self._scripted else self._always
            return len(self._requests) - 1, fault

    def saw(self, exchange: int, data: bytes) -> None:
        """Keep a piece of an exchange's request; for connections."""
        with self._changed:
            self._requests[exchange] += data

    def _thread(self, work: Callable[[socket.socket], None], of: socket.socket) -> threading.Thread:
        return threading.Thread(target=work, args=(of,), name=f"FaultProxy-{id(self)}", daemon=True)

    def _accept(self, listener: socket.socket) -> None:
        with listener:
            while True:
                client, _ = listener.accept()
                server = self._thread(self._serve, client)
                with self._changed:
                    if self._listener is not listener:
                        client.close()
                        return
                    self._servers.add(server)
                server.start()

    def _serve(self, client: socket.socket) -> None:
        try:
            service = socket.create_connection(self._target, _PATIENCE)
        except OSError:
            _reset(client)
        else:
            service.settimeout(None)
            connection = _Connection(self, client, service)
            with self._changed:
                self._open.add(connection)
                if self._listener is None:
                    connection.stop()
            connection.run()
            with self._changed:
                self._open.discard(connection)
        with self._changed:
            self._servers.discard(threading.current_thread())


class _Connection:
    """One client and its connection to the service, served by one thread."""

    def __init__(self, proxy: FaultProxy, client: socket.socket, service: socket.socket) -> None:
        self._proxy = proxy
        self._client = client
        self._service = service
        self._over = threading.Event()
        self._exchange = -1
        self._fault: Fault | None = None
        self._answered = True  # so that the client's first bytes begin an exchange

    def stop(self) -> None:
        """End it from another thread."""
        self._over.set()
        for each in (self._client, self._service):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def run(self) -> None:
        """Forward until an end hangs up, or a fault ends the connection: then with a reset."""
        with suppress(OSError), selectors.DefaultSelector() as ready:
            ready.register(self._client, selectors.EVENT_READ, self._take_request)
            ready.register(self._service, selectors.EVENT_READ, self._answer)
            goes_on = True
            while goes_on and not self._over.is_set():
                for key, _ in ready.select():
                    source = cast("socket.socket", key.fileobj)
                    data = source.recv(_PIECE)
                    if data:
                        goes_on = goes_on and key.data(data)
                    elif source is self._client:
                        # It may only have ended its sending: the answer is still to come.
                        ready.unregister(source)
                        self._service.shutdown(socket.SHUT_WR)
                    else:
                        goes_on = self._hang_up()
        _reset(self._client)
        _reset(self._service)

    def _take_request(self, data: bytes) -> bool:
        if self._answered:
            self._answered = False
            self._exchange, self._fault = self._proxy.begin()
            if isinstance(self._fault, Latency):
                self._over.wait(self._fault.seconds)
        self._proxy.saw(self._exchange, data)
        match self._fault:
            case Reset():
                return False
            case BlackHole():
                return True
            case _:
                self._service.sendall(data)
                return True

    def _answer(self, data: bytes) -> bool:
        self._answered = True
        match self._fault:
            case CutAfterRequest():
                return False
            case Garbage(data=garbage):
                self._client.sendall(garbage)
                return self._hang_up()
            case SlowDrip(seconds=seconds):
                return all(self._drip(byte, seconds) for byte in data)
            case _:
                self._client.sendall(data)
                return True

    def _drip(self, byte: int, seconds: float) -> bool:
        stopped = self._over.wait(seconds)
        if not stopped:
            self._client.sendall(bytes([byte]))
        return not stopped

    def _hang_up(self) -> bool:
        """End in good order, and not with a reset: what was sent has to arrive first."""
        self._client.shutdown(socket.SHUT_WR)
        self._client.settimeout(_PATIENCE)
        while self._client.recv(_PIECE):
            pass
        return False


def _reset(end: socket.socket) -> None:
    with suppress(OSError):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER)
    end.close()
