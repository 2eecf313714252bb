"""A service in this process that can do what real ones do, on request.

It disables, rotates and destroys KEKs, keeps versions of secrets, denies, throttles, stalls, is
away, and loses the answer of a write that it did.
"""

from __future__ import annotations

import os
import threading

from sentra_kms.errors import (
    AccessDenied,
    PluginError,
    SecretNotFound,
    ServiceUnavailable,
    Throttled,
    Timeout,
)
from sentra_kms.hooktypes import StoredRing

PLATFORM = b"correct horse battery staple"
BINARY = b"\x00\xff\xfe binary \n"
FIELDS = {"user": b"sentra", "password": b"battery staple horse"}


class Kek:
    """A KEK: its versions' bytes, the newest last, and its state."""

    def __init__(self) -> None:
        self.versions = [os.urandom(32)]
        self.state = "enabled"


class Service:
    """What would stand elsewhere. Each request passes `ask` first, and each write `answer` last."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.keys = {name: Kek() for name in ("one", "two")}
        self.answers: bytes | None = None
        self.secrets: dict[str, list[bytes]] = {"platform": [PLATFORM], "binary": [BINARY]}
        self.rings: dict[str, StoredRing] = {}
        self.replaced: dict[str, list[bytes]] = {}
        self.saves = 0
        self.requests: list[str] = []
        self.trouble = ""
        self.loses = False
        self.mended = threading.Event()

    def ask(self, request: str, timeout: float, fault: str = "") -> None:
        """Take a request, or be in trouble; with `fault` the client mistakes what it is told."""
        if self.trouble == "away":
            if fault == "away is a foreign error":
                raise ConnectionRefusedError(111, "Connection refused")
            raise ServiceUnavailable("the service does not answer")
        self.requests.append(request)
        if self.trouble == "denies":
            if fault == "denial is an outage":
                raise ServiceUnavailable("the service answered 403")
            raise AccessDenied(f"the service does not let us {request}")
        if self.trouble == "throttles":
            if fault == "throttling is an outage":
                raise ServiceUnavailable("the service answered 429")
            if fault == "retries without end":
                self.requests.extend([request] * 50)
            for_good = False if fault == "throttled for good" else None
            raise Throttled("too many requests", retry_after=1.0, retryable=for_good)
        if self.trouble == "answers what is not known":
            if fault == "an unknown code is an outage":
                raise ServiceUnavailable("the service answered Teapot")
            if fault == "an unknown code is a lack":
                raise SecretNotFound("the service answered Teapot")
            raise PluginError("the service answered Teapot, which this backend does not know")
        if self.trouble == "stalls":
            if fault == "blocks for ever":
                self.mended.wait()
            if fault == "waits its own time":
                timeout = 4.0
            for _ in range(8 if fault == "a timeout for each try" else 1):
                self.mended.wait(timeout)
            if fault == "silence is an outage":
                raise ServiceUnavailable("the service did not answer")
            raise Timeout("the service did not answer in time")

    def answer(self) -> None:
        """Answer a write that is done, or lose the answer."""
        loses, self.loses = self.loses, False
        if loses:
            raise ServiceUnavailable("the connection was cut: look whether it was done")


SERVICES: dict[str, Service] = {}
"""By address."""
