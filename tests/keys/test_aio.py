"""`kms.keys.aio`: the same face, a loop that is never held up, tasks that may be cancelled."""

from __future__ import annotations

import asyncio
import inspect
import logging
import os
import signal
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from datetime import timedelta
from types import FrameType
from typing import Any, TypeVar

import pytest

import sentra_kms
from sentra_kms.config import read_settings
from sentra_kms.errors import (
    AlreadyExists,
    DecryptionFailed,
    KeyNotFound,
    KeyUnavailable,
    KMSError,
    MalformedInput,
    ServiceUnavailable,
    TenantNotFound,
    UnsupportedOperation,
)
from sentra_kms.events import Event, actor
from sentra_kms.keys import aio as aio_module
from sentra_kms.keys.aio import SMALL, THREADS, AsyncKeyManager, AsyncTenantKeys
from sentra_kms.keys.info import RingInfo
from sentra_kms.keys.manager import KeyManager
from sentra_kms.keys.tenant_keys import TenantKeys, WarmKeys
from sentra_kms.runtime import KMS
from tests.keys.conftest import (
    WAIT,
    Later,
    ManualClock,
    Spy,
    in_fork,
    in_threads,
    memory_config,
    until,
    with_version,
)

T = TypeVar("T")
DOWN = ServiceUnavailable("down for maintenance")
INTERNAL = {"adopt", "aio", "can_coast", "close"}
LONGEST = WAIT / 2  # seconds: what holds a loop up here does so until it is given up


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run in a loop, bounded."""

    async def bounded() -> T:
        return await asyncio.wait_for(work, WAIT)

    return asyncio.run(bounded())


@pytest.fixture
def kms(manual_clock: ManualClock) -> Iterator[KMS]:
    """A KMS in memory with one tenant."""
    with KMS(read_settings(memory_config(), "test"), now=manual_clock, background=Later()) as found:
        found.keys.create("acme")
        yield found


async def turns_until(condition: Callable[[], bool]) -> None:
    """Wait in a loop for what a thread or another task does."""
    while not condition():  # noqa: ASYNC110 - threads set no event of a loop
        await asyncio.sleep(0)


class Held:
    """Holds the threads that come until the test lets them go."""

    def __init__(self) -> None:
        self.entered = threading.Semaphore(0)
        self.release = threading.Event()
        self.count = 0

    def __call__(self) -> None:
        """Wait."""
        self.count += 1
        self.entered.release()
        assert self.release.wait(WAIT)

    async def come(self) -> None:
        """Wait in a loop until one is here."""
        await turns_until(lambda: self.entered.acquire(blocking=False))


@asynccontextmanager
async def beating() -> AsyncIterator[Callable[[], int]]:
    """Count the turns of the loop in the background; what is given returns how many."""
    beats = 0
    longest = 0.0

    async def beat() -> None:
        nonlocal beats, longest
        last = time.monotonic()
        while True:
            await asyncio.sleep(0)
            now = time.monotonic()
            beats, longest, last = beats + 1, max(longest, now - last), now

    task = asyncio.create_task(beat())
    await asyncio.sleep(0)
    try:
        yield lambda: beats
    finally:
        task.cancel()
    assert longest < LONGEST, "the loop was held up"


def no_thread(aio: AsyncKeyManager) -> bool:
    """Whether no thread was ever needed."""
    return aio._threads is None


# --- the same face ------------------------------------------------------------------------------


def public(kind: type) -> dict[str, inspect.Signature]:
    """Return the public methods of a class and what they take."""
    return {
        name: inspect.signature(member)
        for name, member in inspect.getmembers(kind)
        if not name.startswith("_") and inspect.isfunction(member)
    }


@pytest.mark.parametrize(
    ("sync", "of_aio"),
    [(KeyManager, AsyncKeyManager), (TenantKeys, AsyncTenantKeys)],
)
def test_face_is_the_same(sync: type, of_aio: type) -> None:
    """Every method, argument, default and answer of the one is in the other, and no more."""
    here, there = public(sync), public(of_aio)
    assert here.keys() - INTERNAL == there.keys() - INTERNAL - {"after_fork"}
    for name, signature in here.items():
        if name in INTERNAL:
            continue
        assert list(signature.parameters.values()) == list(there[name].parameters.values()), name
        if name == "tenants":
            assert there[name].return_annotation == "AsyncIterator[str]"
        elif name != "tenant":
            assert signature.return_annotation == there[name].return_annotation, name
            assert inspect.iscoroutinefunction(getattr(of_aio, name)), name


def test_every_operation_does_what_its_namesake_does(kms: KMS) -> None:
    """One life of a tenant, awaited."""

    async def work() -> None:
        keys = kms.keys.aio
        assert (await keys.create("beta")).primary == 1
        assert (await keys.create("beta", exist_ok=True)).primary == 1
        with pytest.raises(AlreadyExists):
            await keys.create("beta")
        beta = keys.tenant("beta")
        assert (beta.tenant, repr(beta)) == ("beta", "AsyncTenantKeys('beta')")
        await beta.warm()
        box = await beta.encrypt(b"x", context={"a": "b"})
        assert await keys.decrypt("beta", box, context={"a": "b"}) == b"x"
        boxes = await keys.encrypt_many("beta", [b"1", b"2"], contexts=[b"a", None])
        assert await beta.decrypt_many(boxes, contexts=[b"a", None]) == [b"1", b"2"]
        assert await beta.decrypt(await keys.encrypt("beta", b"y")) == b"y"
        assert await keys.decrypt_many("beta", await beta.encrypt_many([b"z"])) == [b"z"]
        assert (await keys.rotate("beta", request_id="r")).primary == 2
        assert (await keys.rotate("beta", request_id="r")).primary == 2
        assert (await keys.disable("beta", 1)).versions[0].state == "disabled"
        assert (await keys.enable("beta", 1)).versions[0].state == "enabled"
        await keys.schedule_destroy("beta", 1, after=timedelta(days=1))
        assert (await keys.cancel_destroy("beta", 1)).versions[0].state == "disabled"
        assert (await keys.destroy_due()).destroyed == ()
        assert (await keys.rewrap("beta")).primary == 2
        assert (await keys.set_policy("beta", "default")).policy == "default"
        assert (await keys.release("beta")).policy == "default"
        assert (await keys.move("beta")).primary == 2
        failed = await keys.warm(["acme", "nobody"])
        assert {name: type(error) for name, error in failed.items()} == {"nobody": TenantNotFound}
        assert [name async for name in keys.tenants()] == ["acme", "beta"]
        assert (await keys.shred("beta", confirm="beta")).destroyed.versions == (1, 2)
        assert (await keys.describe("beta")).primary is None
        with pytest.raises(UnsupportedOperation):
            await keys.revoke("beta", confirm="beta")

    run(work())


@pytest.mark.parametrize(
    ("use", "error"),
    [
        (lambda keys: keys.encrypt("acme", 5), MalformedInput),
        (lambda keys: keys.encrypt("acme", "text"), MalformedInput),
        (lambda keys: keys.encrypt("acme", None), MalformedInput),
        (lambda keys: keys.decrypt("acme", 5), MalformedInput),
        (lambda keys: keys.decrypt("acme", b"short"), MalformedInput),
        (lambda keys: keys.encrypt("acme", b"x", context=5), MalformedInput),
        (lambda keys: keys.encrypt("no/id", b"x"), MalformedInput),
        (lambda keys: keys.encrypt(None, b"x"), MalformedInput),
        (lambda keys: keys.encrypt("nobody", b"x"), TenantNotFound),
        (lambda keys: keys.encrypt_many("acme", [b"x"], contexts=[]), MalformedInput),
        (lambda keys: keys.tenant("acme").encrypt(5), MalformedInput),
    ],
)
@pytest.mark.parametrize("warm", [False, True])
def test_bad_input_is_told_as_by_its_namesake(
    kms: KMS, use: Any, error: type[KMSError], *, warm: bool
) -> None:
    """Warm or cold."""

    async def work() -> None:
        if warm:
            await kms.keys.aio.encrypt("acme", b"x")
        else:
            kms.keys._cache.clear()
        with pytest.raises(error):
            await use(kms.keys.aio)

    run(work())


def test_id_that_is_none_has_no_handle(kms: KMS) -> None:
    """As with the synchronous one, before anything is awaited."""
    with pytest.raises(MalformedInput):
        kms.keys.aio.tenant("no/id")


# --- what needs no thread -----------------------------------------------------------------------


@pytest.mark.parametrize("buffer", [bytes, bytearray, memoryview])
def test_warm_small_messages_need_no_thread(kms: KMS, buffer: Any) -> None:
    """Ten thousand of them, and not one is started; the first that is larger needs one."""
    kms.keys.decrypt("acme", kms.keys.encrypt("acme", b"x"))
    aio = kms.keys.aio
    loads, unwraps = Spy(kms, "memory", "load_ring"), Spy(kms, "memory", "unwrap_key")

    async def work() -> None:
        acme = aio.tenant("acme")
        for _ in range(1000):
            box = await acme.encrypt(buffer(b"x" * SMALL), context=b"c")
            assert await aio.decrypt("acme", box, context=b"c") if len(box) <= SMALL else True
            assert await aio.decrypt("acme", await aio.encrypt("acme", buffer(b"y"))) == b"y"
        assert no_thread(aio)
        await acme.encrypt(buffer(b"x" * (SMALL + 1)))
        assert not no_thread(aio)

    run(work())
    assert (loads.count, unwraps.count) == (0, 0)


def test_what_is_wrong_with_a_warm_message_needs_no_thread_either(kms: KMS) -> None:
    """Tampered, of another tenant, of a disabled version: told at once."""
    kms.keys.create("other")
    old = kms.keys.encrypt("acme", b"x")
    kms.keys.rotate("acme")
    new, foreign = kms.keys.encrypt("acme", b"x"), kms.keys.encrypt("other", b"x")
    kms.keys.decrypt("acme", new)
    kms.keys.disable("acme", 1)
    aio = kms.keys.aio

    async def work() -> None:
        for message, error in (
            (new[:-1] + bytes([new[-1] ^ 1]), DecryptionFailed),
            (foreign, DecryptionFailed),
            (old, KeyUnavailable),
            (b"SK\x01\x01", MalformedInput),
        ):
            with pytest.raises(error):
                await aio.decrypt("acme", message)

    run(work())
    assert no_thread(aio)


# --- a loop that is not held up -----------------------------------------------------------------


@pytest.mark.parametrize("operation", ["load_ring", "unwrap_key"])
def test_loop_turns_while_a_backend_hangs(kms: KMS, operation: str) -> None:
    """Cold messages wait; other tasks, and warm messages of another tenant, do not."""
    kms.keys.create("other")
    kms.keys.decrypt("other", kms.keys.encrypt("other", b"x"))
    message = kms.keys.encrypt("acme", b"x")
    held = Held()
    kms.keys._cache._memory._give_up(kms.keys._cache.entries["acme"])

    async def work() -> None:
        aio = kms.keys.aio
        Spy(kms, "memory", operation).before = held
        async with beating() as beats:
            cold = [asyncio.create_task(aio.decrypt("acme", message)) for _ in range(10)]
            await held.come()
            for _ in range(100):
                assert await aio.decrypt("other", await aio.encrypt("other", b"y")) == b"y"
            before = beats()
            await turns_until(lambda: beats() >= before + 100)
            assert not any(task.done() for task in cold)
            held.release.set()
            assert await asyncio.gather(*cold) == [b"x"] * 10

    run(work())
    assert held.count == 1


@pytest.mark.parametrize(
    "use",
    [
        lambda keys: keys.create("beta"),
        lambda keys: keys.rotate("acme"),
        lambda keys: keys.rewrap("acme"),
        lambda keys: keys.disable("acme", 1),
        lambda keys: keys.describe("acme"),
        lambda keys: keys.shred("acme", confirm="acme"),
        lambda keys: keys.decrypt("acme", UNKNOWN),
        lambda keys: keys.warm(["acme"]),
        lambda keys: keys.tenant("acme").encrypt_many([b"x"]),
    ],
)
def test_no_operation_holds_the_loop_up(kms: KMS, use: Any) -> None:
    """Whatever it is that waits for the store, also a look for an unknown version."""
    global UNKNOWN  # noqa: PLW0603 - a message of this ring
    UNKNOWN = with_version(kms.keys.encrypt("acme", b"x"), 99)
    kms.keys.rotate("acme")
    held = Held()
    Spy(kms, "memory", "load_ring").before = held

    async def work() -> None:
        async with beating() as beats:
            task = asyncio.create_task(use(kms.keys.aio))
            before = beats()
            await turns_until(lambda: beats() >= before + 50)
            held.release.set()
            try:
                await task
            except KMSError as error:
                assert isinstance(error, KeyNotFound)

    run(work())


UNKNOWN = b""


def test_tenant_that_is_forgotten_in_the_midst_of_a_call_does_not_hold_the_loop_up(
    kms: KMS,
) -> None:
    """Another thread's scan may drive out what was warm when the call began."""
    message = kms.keys.encrypt("acme", b"x")
    kms.keys.decrypt("acme", message)
    where: list[threading.Thread] = []
    for operation in ("load_ring", "unwrap_key"):
        Spy(kms, "memory", operation).before = lambda: where.append(threading.current_thread())
    cache = kms.keys._cache
    real = cache.now
    evict = 0

    def now() -> float:
        nonlocal evict
        evict -= 1
        if evict == 0:
            cache.clear()
        return real()

    uses: list[Callable[[], Coroutine[Any, Any, bytes]]] = [
        lambda: kms.keys.aio.encrypt("acme", b"y"),
        lambda: kms.keys.aio.decrypt("acme", message),
    ]

    async def work() -> None:
        nonlocal evict
        for moment in range(1, 8):
            for use in uses:
                await use()
                for epoch in cache.epochs.values():
                    epoch.end()
                for entry in cache.entries.values():
                    for prefix in list(entry.openers):
                        entry.forget_opener(prefix)
                evict = moment
                await use()

    cache.now = now
    assert WarmKeys(cache, "acme")._now is now
    kms.keys._handles._kept.clear()
    run(work())
    assert where
    assert threading.main_thread() not in where


@pytest.mark.parametrize("use", ["encrypt", "decrypt"])
def test_key_of_a_ring_that_is_at_hand_is_not_unwrapped_in_the_loop(kms: KMS, use: str) -> None:
    """A KEK that refused a moment ago, say, or a tenant with more keys than there is room for."""
    message = kms.keys.encrypt("acme", b"x")
    where: list[threading.Thread] = []
    spy = Spy(kms, "memory", "unwrap_key")
    spy.before = lambda: where.append(threading.current_thread())

    async def work() -> None:
        aio = kms.keys.aio
        await aio.encrypt("acme", b"warm")
        kms.keys._cache._memory.forget("acme", 1)
        await (aio.encrypt("acme", b"x") if use == "encrypt" else aio.decrypt("acme", message))

    run(work())
    assert len(where) == 1
    assert where[0] is not threading.main_thread()


def test_large_messages_are_not_made_in_the_loop(kms: KMS) -> None:
    """16 MiB, eight at once, while the loop goes on turning."""
    plain = os.urandom(16 * 1024 * 1024)

    async def work() -> None:
        aio = kms.keys.aio
        await aio.encrypt("acme", b"x")
        async with beating() as beats:
            boxes = await asyncio.gather(*(aio.encrypt("acme", plain) for _ in range(4)))
            opened = await asyncio.gather(*(aio.decrypt("acme", box) for box in boxes))
            assert beats() > 20
        assert opened == [plain] * 4

    run(work())


def test_two_hundred_cold_tenants_do_not_hold_the_loop_up(kms: KMS) -> None:
    """Each is unwrapped once, however many ask; at most so many at a time."""
    names = [f"t{number}" for number in range(200)]
    messages = {}
    for name in names:
        kms.keys.create(name)
        messages[name] = kms.keys.encrypt(name, name.encode())
    kms.keys._cache.clear()
    unwraps = Spy(kms, "memory", "unwrap_key")
    busy, most = 0, 0
    lock = threading.Lock()

    def slow(*arguments: Any) -> Any:
        nonlocal busy, most
        with lock:
            busy += 1
            most = max(most, busy)
        time.sleep(0.002)
        with lock:
            busy -= 1
        return unwraps._original(*arguments)

    unwraps.instead = slow

    async def work() -> None:
        async with beating():
            opened = await asyncio.gather(
                *(kms.keys.aio.decrypt(name, messages[name]) for name in names for _ in range(3))
            )
        assert opened == [name.encode() for name in names for _ in range(3)]

    run(work())
    assert unwraps.count == 200
    assert 1 < most <= THREADS


# --- cancelled ----------------------------------------------------------------------------------


def test_cancelled_task_leaves_its_thread_to_finish(
    kms: KMS, caplog: pytest.LogCaptureFixture
) -> None:
    """The waiting ends at once, the key is in memory afterwards, and nothing is logged."""
    message = kms.keys.encrypt("acme", b"x")
    kms.keys._cache.clear()
    held = Held()
    unwraps = Spy(kms, "memory", "unwrap_key")
    unwraps.before = held

    async def work() -> None:
        task = asyncio.create_task(kms.keys.aio.decrypt("acme", message))
        await held.come()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not held.release.is_set()
        held.release.set()
        entries = kms.keys._cache.entries
        await turns_until(lambda: "acme" in entries and entries["acme"].key(1) is not None)
        assert await kms.keys.aio.decrypt("acme", message) == b"x"

    with caplog.at_level(logging.DEBUG):
        run(work())
    assert unwraps.count == 1
    assert [record for record in caplog.records if record.name == "asyncio"][1:] == []


def test_error_after_a_cancellation_is_neither_raised_nor_logged(
    kms: KMS, caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody waits for it any more."""
    kms.keys._cache.clear()
    held = Held()
    loads = Spy(kms, "memory", "load_ring")
    loads.before, loads.failure = held, DOWN

    async def work() -> None:
        task = asyncio.create_task(kms.keys.aio.encrypt("acme", b"x"))
        await held.come()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        held.release.set()
        loads.before = None
        with pytest.raises(ServiceUnavailable):
            await kms.keys.aio.encrypt("acme", b"x")

    with caplog.at_level(logging.WARNING):
        run(work())
    assert caplog.records == []


def test_one_that_is_cancelled_does_not_take_the_others_along(kms: KMS) -> None:
    """Ten wait for one unwrap; the one whose thread makes it gives up."""
    message = kms.keys.encrypt("acme", b"x")
    kms.keys._cache.clear()
    held = Held()
    Spy(kms, "memory", "unwrap_key").before = held

    async def work() -> list[object]:
        tasks = [asyncio.create_task(kms.keys.aio.decrypt("acme", message)) for _ in range(10)]
        await held.come()
        tasks[0].cancel()
        held.release.set()
        return await asyncio.gather(*tasks, return_exceptions=True)

    first, *others = run(work())
    assert isinstance(first, asyncio.CancelledError)
    assert others == [b"x"] * 9
    assert held.count == 1


def test_timeout_of_a_caller_is_a_timeout(kms: KMS) -> None:
    """`asyncio.timeout` works while a backend hangs."""
    kms.keys._cache.clear()
    held = Held()
    Spy(kms, "memory", "load_ring").before = held

    async def work() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await kms.keys.aio.encrypt("acme", b"x")
        held.release.set()

    run(work())


def test_rotation_that_was_cancelled_is_retried_under_its_request(kms: KMS) -> None:
    """However it ended, one version."""
    held = Held()
    saves = Spy(kms, "memory", "save_ring")
    saves.before = held

    async def work() -> None:
        task = asyncio.create_task(kms.keys.aio.rotate("acme", request_id="r-1"))
        await held.come()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        held.release.set()
        assert (await kms.keys.aio.rotate("acme", request_id="r-1")).primary == 2

    run(work())
    assert len(kms.keys.describe("acme").versions) == 2


def test_loop_that_ends_while_a_thread_works_hears_nothing(
    kms: KMS, caplog: pytest.LogCaptureFixture
) -> None:
    """The task is cancelled with the loop; the thread's answer has nowhere to go, silently."""
    kms.keys._cache.clear()
    held = Held()
    loads = Spy(kms, "memory", "load_ring")
    loads.before = held

    async def work() -> None:
        task = asyncio.create_task(kms.keys.aio.encrypt("acme", b"x"))
        await held.come()
        del task

    with caplog.at_level(logging.WARNING):
        asyncio.run(work())
        held.release.set()
        until(lambda: "acme" in kms.keys._cache.entries)
        kms.keys.aio._threads.shutdown(wait=True)  # type: ignore[union-attr]
    assert caplog.records == []


# --- on whose behalf ----------------------------------------------------------------------------


def test_actor_is_carried_into_the_threads(kms: KMS) -> None:
    """Each task's own, though they share the threads."""
    seen: list[Event] = []
    kms._wiring.bindings["memory"]._emit = seen.append

    async def one(number: int) -> None:
        with actor(f"user:{number}", request_id=f"r-{number}"):
            await asyncio.sleep(0)
            await kms.keys.aio.create(f"t{number}")

    async def work() -> None:
        await asyncio.gather(*(one(number) for number in range(20)))

    run(work())
    saves = [event for event in seen if event.operation == "save_ring"]
    assert len(saves) == 20
    for event in saves:
        number = event.subject.removeprefix("t")
        assert (event.actor, event.request_id) == (f"user:{number}", f"r-{number}")


# --- ends, loops, forks -------------------------------------------------------------------------


def test_use_after_close_is_told_in_our_words(kms: KMS) -> None:
    """And begins no thread."""
    message = kms.keys.encrypt("acme", b"x")
    aio = kms.keys.aio
    kms.close()

    async def work() -> None:
        uses: list[Callable[[], Coroutine[Any, Any, Any]]] = [
            lambda: aio.encrypt("acme", b"x"),
            lambda: aio.decrypt("acme", message),
            lambda: aio.rotate("acme"),
            lambda: aio.tenant("acme").encrypt_many([b"x"]),
            lambda: kms.keys.aio.describe("acme"),
        ]
        for use in uses:
            with pytest.raises(UnsupportedOperation, match="closed"):
                await use()
        with pytest.raises(UnsupportedOperation, match="closed"):
            _ = [name async for name in aio.tenants()]

    run(work())
    assert no_thread(aio)


def test_aio_that_is_first_used_after_close(kms: KMS) -> None:
    """Is closed as well."""
    kms.close()
    with pytest.raises(UnsupportedOperation, match="closed"):
        run(kms.keys.aio.describe("acme"))
    assert no_thread(kms.keys.aio)


def test_close_with_work_under_way_ends_every_task(kms: KMS) -> None:
    """Those in a thread and those that wait for one: an answer or our error, never a hang."""
    kms.keys._cache.clear()
    names = [f"t{number}" for number in range(THREADS * 3)]
    for name in names:
        kms.keys.create(name)
    kms.keys._cache.clear()
    held = Held()
    Spy(kms, "memory", "load_ring").before = held

    async def work() -> list[object]:
        tasks = [asyncio.create_task(kms.keys.aio.encrypt(name, b"x")) for name in names]
        await turns_until(lambda: held.count == THREADS)
        closing = asyncio.create_task(asyncio.to_thread(kms.close))
        await closing
        held.release.set()
        return await asyncio.gather(*tasks, return_exceptions=True)

    outcomes = run(work())
    kinds = {type(outcome) for outcome in outcomes}
    assert kinds <= {bytes, UnsupportedOperation}
    assert UnsupportedOperation in kinds
    until(lambda: not any(t.name.startswith("sentra-kms-aio") for t in threading.enumerate()))
    assert kms.keys._cache.entries == {}


def test_signal_handler_that_closes_while_work_is_given_to_a_thread_does_not_hang(
    kms: KMS, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The handler interrupts the loop's own thread, which holds what hands out the work."""

    class Interrupted(ThreadPoolExecutor):
        def _adjust_thread_count(self) -> None:
            signal.raise_signal(signal.SIGUSR1)
            super()._adjust_thread_count()

    def handler(_: int, frame: FrameType | None) -> None:
        kms.close()

    async def work() -> object:
        (outcome,) = await asyncio.gather(kms.keys.aio.rotate("acme"), return_exceptions=True)
        with pytest.raises(UnsupportedOperation, match="closed"):
            await kms.keys.aio.encrypt("acme", b"x")
        return outcome

    def child() -> bytes:  # where it may hang
        signal.signal(signal.SIGUSR1, handler)
        outcome = run(work())
        assert isinstance(outcome, (RingInfo, UnsupportedOperation))
        until(lambda: not any(t.name.startswith("sentra-kms-aio") for t in threading.enumerate()))
        return b"closed"

    monkeypatch.setattr(aio_module, "ThreadPoolExecutor", Interrupted)
    assert in_fork(child) == b"closed"


def test_several_loops_share_one_manager(kms: KMS) -> None:
    """In threads of their own, and one after the other."""
    message = kms.keys.encrypt("acme", b"x")
    for _ in range(3):
        kms.keys._cache.clear()
        assert run(kms.keys.aio.decrypt("acme", message)) == b"x"
    kms.keys._cache.clear()
    unwraps = Spy(kms, "memory", "unwrap_key")

    def loop(_: int) -> list[bytes]:
        async def work() -> list[bytes]:
            return await asyncio.gather(*(kms.keys.aio.decrypt("acme", message) for _ in range(9)))

        return run(work())

    assert in_threads(loop, 6) == [[b"x"] * 9] * 6
    assert unwraps.count == 1


def test_many_threads_that_ask_for_aio_get_one(kms: KMS) -> None:
    """Or a pool of threads would be left that nobody closes."""
    for _ in range(50):
        kms.keys._asynchronous.clear()
        found = in_threads(lambda _: kms.keys.aio, 8)
        assert len(set(map(id, found))) == 1


def test_child_of_a_fork_has_threads_of_its_own(kms: KMS) -> None:
    """Also when the parent's were at work."""
    message = kms.keys.encrypt("acme", b"x")
    run(kms.keys.aio.describe("acme"))
    assert not no_thread(kms.keys.aio)

    def child() -> bytes:
        kms.keys._cache.clear()
        return run(kms.keys.aio.decrypt("acme", message))

    assert in_fork(child) == b"x"
    kms.keys._cache.clear()
    assert run(kms.keys.aio.decrypt("acme", message)) == b"x"


def test_kms_is_an_asynchronous_context_manager() -> None:
    """Closed at its end, also after an error and after a cancellation."""

    async def work() -> None:
        async with sentra_kms.load(memory_config(), environment="test") as kms:
            await kms.keys.aio.create("acme")
            assert await kms.keys.aio.decrypt("acme", await kms.keys.aio.encrypt("acme", b"x"))
        with pytest.raises(UnsupportedOperation):
            await kms.keys.aio.describe("acme")
        with pytest.raises(LookupError):
            async with sentra_kms.load(memory_config(), environment="test") as kms:
                raise LookupError
        with pytest.raises(UnsupportedOperation):
            kms.keys.describe("acme")

    run(work())


def test_tenants_are_listed_in_pages(kms: KMS, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of them, in the order of the store, and a listing may be left early."""
    from sentra_kms.keys import aio

    monkeypatch.setattr(aio, "_PAGE", 7)
    names = ["acme", *(f"t{number:02}" for number in range(30))]
    for name in names[1:]:
        kms.keys.create(name)

    async def work() -> None:
        assert [name async for name in kms.keys.aio.tenants()] == names
        async for name in kms.keys.aio.tenants():
            assert name == "acme"
            break

    run(work())
