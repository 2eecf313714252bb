"""What `FaultProxy` can do to an exchange: a request, and the service's answer to it."""

from __future__ import annotations

import msgspec


class Fault(msgspec.Struct, frozen=True):
    """Base of all faults."""


class Latency(Fault, frozen=True):
    """The request is held back for `seconds`, and then all goes its way."""

    seconds: float


class Reset(Fault, frozen=True):
    """The connection is reset when the request comes: the service never sees it."""


class BlackHole(Fault, frozen=True):
    """The request is swallowed, and nothing comes back; the connection stays open."""


class CutAfterRequest(Fault, frozen=True):
    """The service gets the request and does it; when it answers, the connection is reset.

    So a write is done, and its answer lost.
    """


class Garbage(Fault, frozen=True):
    """The service gets the request; instead of its answer `data` comes, and then the end."""

    data: bytes = b"\x00\xff\x16garbage\r\n\r\n\xf5"


class SlowDrip(Fault, frozen=True):
    """The answer comes one byte at a time, each after `seconds`."""

    seconds: float
