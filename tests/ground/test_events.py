"""Events are frozen records; an actor is known for as long as its block, and only there."""

from __future__ import annotations

import asyncio
import threading
from contextvars import copy_context

import msgspec
import pytest

from sentra_kms.events import Actor, Event, actor, current_actor


def test_nobody_acts_by_default() -> None:
    """Without a block there is no actor."""
    assert current_actor() is None


def test_actor_in_the_block_and_not_after() -> None:
    """Who acts is known inside the block, with the request if one is named."""
    with actor("user:42", request_id="r-1"):
        assert current_actor() == Actor("user:42", "r-1")
    assert current_actor() is None
    with actor("user:43"):
        assert current_actor() == Actor("user:43", None)


def test_inner_block_hides_the_outer_one() -> None:
    """Blocks nest; the outer actor is back afterwards, without mixing requests."""
    with actor("outer", request_id="r-1"):
        with actor("inner"):
            assert current_actor() == Actor("inner", None)
        assert current_actor() == Actor("outer", "r-1")


def test_actor_ends_with_an_error() -> None:
    """An error that leaves the block ends it too, and passes through."""
    with pytest.raises(RuntimeError, match="inside"), actor("user:42"):
        raise RuntimeError("inside")
    assert current_actor() is None


def test_another_thread_has_no_actor() -> None:
    """A thread does not inherit whoever acts where it was started."""
    seen: list[Actor | None] = []
    with actor("user:42"):
        thread = threading.Thread(target=lambda: seen.append(current_actor()))
        thread.start()
        thread.join()
    assert seen == [None]


def test_copied_context_keeps_the_actor() -> None:
    """What runs in a copy of the context acts for the same one."""
    with actor("user:42"):
        context = copy_context()
    assert context.run(current_actor) == Actor("user:42")


def test_actor_over_await() -> None:
    """Each task keeps its own actor over an await, though they take turns."""

    async def act(name: str, mine: asyncio.Event, other: asyncio.Event) -> list[Actor | None]:
        with actor(name):
            before = current_actor()
            mine.set()
            await other.wait()
            return [before, current_actor()]

    async def both() -> tuple[list[Actor | None], list[Actor | None]]:
        one, two = asyncio.Event(), asyncio.Event()
        a, b = await asyncio.gather(act("a", one, two), act("b", two, one))
        return a, b

    assert asyncio.run(both()) == ([Actor("a")] * 2, [Actor("b")] * 2)


def test_event_defaults() -> None:
    """An event of a plain success says no more than it must."""
    event = Event(time=1.0, operation="wrap_key", backend="local", subject="local:k")
    assert (event.outcome, event.latency, event.late) == ("ok", 0.0, False)
    assert (event.version, event.actor, event.request_id) == (None, None, None)


@pytest.mark.parametrize("name", [*Event.__struct_fields__, "new"])
def test_event_is_frozen(name: str) -> None:
    """Whoever is shown an event cannot change it for the next."""
    event = Event(time=1.0, operation="wrap_key", backend="local", subject="local:k")
    with pytest.raises(AttributeError):
        setattr(event, name, "other")


def test_event_is_written_as_json() -> None:
    """An event holds only what JSON can say."""
    event = Event(time=1.0, operation="o", backend="b", subject="s", actor="a", late=True)
    assert msgspec.convert(msgspec.to_builtins(event), Event) == event
