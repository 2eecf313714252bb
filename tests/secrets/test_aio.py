"""`kms.secrets.aio`: the loop never waits; cancelling one leaves the others alone."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable

import pytest

from sentra_kms.errors import (
    KMSError,
    MalformedInput,
    SecretNotFound,
    ServiceUnavailable,
    UnsupportedOperation,
)
from sentra_kms.events import actor as acting
from sentra_kms.events import current_actor
from sentra_kms.material import Secret
from sentra_kms.secrets import aio
from sentra_kms.secrets.manager import SecretManager
from tests.conftest import ManualClock
from tests.secrets.sources import PATIENCE, Source, make_manager


class Slow:
    """A source's answer that waits until it is let go."""

    def __init__(self, value: bytes = b"value") -> None:
        self.value = value
        self.asked = threading.Event()
        self.go = threading.Event()

    def __call__(self) -> bytes:
        """Wait, and answer."""
        self.asked.set()
        assert self.go.wait(PATIENCE)
        return self.value


async def reach(true: Callable[[], object]) -> None:
    """Let the loop run until something is true."""
    async with asyncio.timeout(PATIENCE):
        while not true():  # noqa: ASYNC110 - other threads bring it about
            await asyncio.sleep(0)


def test_face(clock: ManualClock) -> None:
    """It does what the manager does, and a held value needs no thread."""
    source = Source(a=b"one", b=b"two")
    made = make_manager(source, clock, A="fake://a", B="fake://b")

    async def main() -> None:
        assert (await made.aio.get("A")).reveal() == "one"
        assert {k: s.reveal() for k, s in (await made.aio.get_many(["A", "B"])).items()} == {
            "A": "one",
            "B": "two",
        }
        source.answers["a"] = b"three"
        assert (await made.aio.get("A")).reveal() == "one"
        assert (await made.aio.refresh("A")).reveal() == "three"
        with pytest.raises(SecretNotFound):
            await made.aio.get("C")

    asyncio.run(main())
    asyncio.run(main_again(made))
    made.close()


async def main_again(made: SecretManager) -> None:
    """A second loop in the same process works as the first."""
    assert (await made.aio.refresh("B")).reveal() == "two"


def test_loop_does_not_wait(clock: ManualClock) -> None:
    """While a source takes its time the loop runs, and so does what asks for other secrets."""
    slow = Slow()
    made = make_manager(Source(a=slow, b=b"quick"), clock, A="fake://a", B="fake://b")

    async def main() -> None:
        task = asyncio.create_task(made.aio.get("A"))
        await reach(slow.asked.is_set)
        assert (await made.aio.get("B")).reveal() == "quick"
        assert not task.done()
        slow.go.set()
        assert (await task).reveal() == "value"

    asyncio.run(main())
    made.close()


def test_tasks_share_a_look(clock: ManualClock) -> None:
    """1,000 tasks that ask for one cold secret make one fetch, in one thread."""
    slow = Slow()
    source = Source(a=slow)
    made = make_manager(source, clock, A="fake://a")

    async def main() -> None:
        tasks = [asyncio.create_task(made.aio.get("A")) for _ in range(1000)]
        await reach(slow.asked.is_set)
        assert made.aio._pools
        assert len(made.aio._pools[None]._threads) == 1
        slow.go.set()
        assert {secret.reveal() for secret in await asyncio.gather(*tasks)} == {"value"}

    asyncio.run(main())
    assert source.asked == ["fake://a"]
    made.close()


def test_cancelling_one_leaves_the_others(clock: ManualClock) -> None:
    """A task that is cancelled stops waiting at once; who waits with it still gets the value."""
    slow = Slow()
    source = Source(a=slow)
    made = make_manager(source, clock, A="fake://a")

    async def main() -> None:
        first = asyncio.create_task(made.aio.get("A"))
        second = asyncio.create_task(made.aio.get("A"))
        await reach(slow.asked.is_set)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await made.aio.get("A")
        slow.go.set()
        assert (await second).reveal() == "value"

    asyncio.run(main())
    assert source.asked == ["fake://a"]
    made.close()


def test_cancelling_all_loses_nothing(clock: ManualClock) -> None:
    """A look that nobody waits for any more ends by itself, without a complaint, and is used."""
    slow = Slow()
    failure = Slow()

    def fail() -> bytes:
        failure()
        raise ServiceUnavailable("down")

    source = Source(a=slow, b=fail)
    made = make_manager(source, clock, A="fake://a", B="fake://b")

    async def main() -> None:
        complaints: list[object] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, told: complaints.append(told))
        task = asyncio.create_task(made.aio.get("A"))
        await reach(slow.asked.is_set)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        slow.go.set()
        await reach(lambda: made.held("A") is not None)
        failing = asyncio.create_task(made.aio.get("B"))
        await reach(failure.asked.is_set)
        failing.cancel()
        await asyncio.gather(failing, return_exceptions=True)
        failure.go.set()
        (flights,) = made.aio._flights.values()
        await reach(lambda: not flights)
        del failing
        gc.collect()
        await asyncio.sleep(0)
        assert complaints == []

    asyncio.run(main())
    assert source.asked == ["fake://a", "fake://b"]
    made.close()


def test_errors_are_each_task_s_own(clock: ManualClock) -> None:
    """Tasks that share a failed look get equal errors, not one object."""
    slow = Slow()

    def fail() -> bytes:
        slow()
        raise ServiceUnavailable("down")

    made = make_manager(Source(a=fail), clock, A="fake://a")

    async def main() -> list[BaseException | object]:
        tasks = [asyncio.create_task(made.aio.get("A")) for _ in range(3)]
        await reach(slow.asked.is_set)
        slow.go.set()
        return list(await asyncio.gather(*tasks, return_exceptions=True))

    errors = asyncio.run(main())
    assert [type(error) for error in errors] == [ServiceUnavailable] * 3
    assert len(set(map(id, errors))) == 3
    made.close()


def test_actor_goes_along(clock: ManualClock) -> None:
    """A look is made on behalf of who asked."""
    seen: list[object] = []

    def answer() -> bytes:
        seen.append(current_actor())
        return b"x"

    made = make_manager(Source(a=answer), clock, A="fake://a")

    async def main() -> None:
        with acting("user:42"):
            await made.aio.get("A")

    asyncio.run(main())
    assert "user:42" in str(seen)
    made.close()


def test_after_close(clock: ManualClock) -> None:
    """A closed one refuses."""
    made = make_manager(Source(a=b"x"), clock, A="fake://a")
    face = made.aio
    made.close()

    async def main(work: Awaitable[object]) -> None:
        await work

    with pytest.raises(UnsupportedOperation):
        asyncio.run(main(face.get("A")))
    assert issubclass(UnsupportedOperation, KMSError)


def test_close_ends_who_waits_for_a_thread(clock: ManualClock) -> None:
    """A look that had no thread yet is refused at `close`; its task is not taken for cancelled."""
    slow = Slow()
    names = [f"fake://a{number}" for number in range(aio.MAX_THREADS + 1)]
    source = Source(**{name.removeprefix("fake://"): slow for name in names})
    made = make_manager(source, clock)

    async def main() -> list[BaseException | Secret]:
        tasks = [asyncio.create_task(made.aio.get(name)) for name in names]
        await reach(lambda: len(source.asked) == aio.MAX_THREADS)
        made.aio.close()
        await reach(tasks[-1].done)
        slow.go.set()
        return list(await asyncio.gather(*tasks, return_exceptions=True))

    *found, last = asyncio.run(main())
    assert [each.reveal() for each in found if isinstance(each, Secret)] == ["value"] * len(found)
    assert isinstance(last, UnsupportedOperation)
    made.close()


def test_one_name_is_no_list_of_names(clock: ManualClock) -> None:
    """Text would be taken for its letters."""
    made = make_manager(Source(a=b"x"), clock, A="fake://a")
    with pytest.raises(MalformedInput, match="of one name use get"):
        asyncio.run(made.aio.get_many("A"))  # type: ignore[func-returns-value, unused-ignore]
    made.close()


def test_held_values_need_no_thread(clock: ManualClock) -> None:
    """Neither one that is held nor several start a thread."""
    made = make_manager(Source(a=b"x", b=b"y"), clock, A="fake://a", B="fake://b")
    made.get_many(["A", "B"])

    async def main() -> None:
        assert (await made.aio.get("A")).reveal() == "x"
        found = await made.aio.get_many(["B", "A"])
        assert {name: each.reveal() for name, each in found.items()} == {"B": "y", "A": "x"}

    asyncio.run(main())
    assert made.aio._pools == {}
    made.close()


def test_asyncio_is_imported_only_when_it_is_used() -> None:
    """A program without asyncio does not pay for it."""
    program = (
        "import sys, sentra_kms\n"
        "kms = sentra_kms.load({'t': {'development': True, 'secrets': {'A': 'env://PATH'}}}, 't')\n"
        "kms.secrets.get('A')\n"
        "assert 'asyncio' not in sys.modules\n"
        "kms.secrets.aio\n"
        "assert 'asyncio' in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")
