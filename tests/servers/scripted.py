"""A server on loopback that answers as a test says, down to the byte."""

from __future__ import annotations

import json
import socket
import ssl
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Self

Answer = bytes | Callable[[socket.socket], None]
"""Bytes to send, or what does something to the connection; then, if it was bytes, the next one."""


class Scripted:
    """Takes connections at 127.0.0.1, or another address of loopback, until it is closed.

    Each request is answered by `answer(head)`, the request's first line and headers, or by the
    next of `answers` if there is one. What came is in `requests`, without bodies.
    """

    def __init__(
        self,
        answer: Callable[[str], Answer],
        host: str = "127.0.0.1",
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.answers: list[Answer] = []
        self.requests: list[str] = []
        self._answer = answer
        self._lock = threading.Lock()
        self._open: list[socket.socket] = []
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._listener = socket.create_server((host, 0), family=family)
        self.port: int = self._listener.getsockname()[1]
        self._tls = tls
        self.url = f"http{'s' if tls else ''}://{f'[{host}]' if ':' in host else host}:{self.port}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """End every connection, and take no more."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            for each in self._open:
                with suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                with self._lock:
                    self._open.append(client)
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with suppress(OSError), connection, self._secured(connection) as client:
            while (head := self._request(client)) is not None:
                with self._lock:
                    self.requests.append(head)
                    answer = self.answers.pop(0) if self.answers else self._answer(head)
                if not isinstance(answer, bytes):
                    answer(client)
                    return
                client.sendall(answer)

    def _secured(self, connection: socket.socket) -> socket.socket:
        return self._tls.wrap_socket(connection, server_side=True) if self._tls else connection

    def _request(self, client: socket.socket) -> str | None:
        data = b""
        while b"\r\n\r\n" not in data:
            piece = client.recv(65536)
            if not piece:
                return None
            data += piece
        head, _, body = data.partition(b"\r\n\r\n")
        size = next(
            (
                int(line.partition(b":")[2])
                for line in head.lower().split(b"\r\n")
                if line.startswith(b"content-length:")
            ),
            0,
        )
        while len(body) < size:
            piece = client.recv(65536)
            if not piece:
                return None
            body += piece
        return head.decode("latin-1")


def http(status: int, body: object = b"", **headers: str) -> bytes:
    """Return an answer; what is no bytes becomes JSON, and `_` in a header's name becomes `-`."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [f"HTTP/1.1 {status} Made Up", f"Content-Length: {len(data)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + data
