"""What happened, as frozen records without secret bytes; and on whose behalf."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar

import msgspec


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """One operation on a KEK, a ring or a secret, after it ended.

    `time` is seconds since the epoch (UTC) at which it began, `latency` its seconds. `subject` is
    a tenant, a KEK or a reference, never a value. `outcome` is `"ok"` or the name of the error.
    `version` is what the backend calls the version of the KEK, secret or ring that it answered
    with, `None` if it named none.
    `late` says that the answer came after the operation's timeout and was used all the same.

    >>> Event(time=0.0, operation="wrap_key", backend="local", subject="2026-11").outcome
    'ok'
    """

    time: float
    operation: str
    backend: str
    subject: str
    outcome: str = "ok"
    latency: float = 0.0
    version: str | None = None
    actor: str | None = None
    request_id: str | None = None
    late: bool = False


class Actor(msgspec.Struct, frozen=True):
    """Who asked, and for which request."""

    name: str
    request_id: str | None = None


_actor: ContextVar[Actor | None] = ContextVar("sentra_kms_actor", default=None)


@contextmanager
def actor(name: str, *, request_id: str | None = None) -> Generator[None]:
    """Attribute every operation inside the block to `name`, also over `await`.

    >>> with actor("user:42", request_id="r-1"):
    ...     current_actor()
    Actor(name='user:42', request_id='r-1')
    """
    token = _actor.set(Actor(name, request_id))
    try:
        yield
    finally:
        _actor.reset(token)


def current_actor() -> Actor | None:
    """Return who is acting here, or `None`."""
    return _actor.get()
