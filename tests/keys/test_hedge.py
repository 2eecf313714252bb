"""KEKs in trouble: slow, down, wrong, one after the other and all at once."""

from __future__ import annotations

import base64
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from sentra_kms.backends.master_key import MasterKey
from sentra_kms.config import read_settings
from sentra_kms.context import WrapContext
from sentra_kms.errors import (
    AccessDenied,
    KMSError,
    RingRejected,
    ServiceUnavailable,
    Throttled,
    Timeout,
    UnsupportedOperation,
)
from sentra_kms.events import Event, actor, current_actor
from sentra_kms.keys.background import Background
from sentra_kms.keys.hedge import first_answer
from sentra_kms.keys.outages import PROBE_INTERVAL
from sentra_kms.material import KeyMaterial
from sentra_kms.runtime import KMS
from tests.keys.conftest import (
    WAIT,
    Crew,
    Later,
    ManualClock,
    Site,
    Spy,
    in_fork,
    in_threads,
    until,
)

SOON = 0.01  # seconds of hedge, where the test wants it to come
NEVER = 3600.0
DOWN = ServiceUnavailable("down for maintenance")


class Slow:
    """Holds whoever comes until the test lets them go."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.release = threading.Event()
        self.left = threading.Event()

    def __call__(self) -> None:
        """Wait."""
        self.entered.set()
        assert self.release.wait(WAIT)
        self.left.set()


class Keks:
    """A KMS in memory with three KEKs, cold, whose ring each can open."""

    def __init__(self, clock: ManualClock) -> None:
        self.clock = clock
        names = ("a", "b", "c")
        self.table: dict[str, Any] = {
            "development": True,
            "backends": {name: {"type": "memory"} for name in (*names, "rings")},
            "keys": {
                "wrap_with": [f"{name}:k" for name in names],
                "authenticate_with": ["rings:auth"],
                "store": "rings",
            },
        }
        self.kms = KMS(read_settings({"test": self.table}, "test"), now=clock, background=Later())
        self.hedge(NEVER)
        self.kms.keys.create("acme")
        self.message = self.kms.keys.encrypt("acme", b"x")
        self.spies = {name: Spy(self.kms, name, "unwrap_key") for name in names}

    def hedge(self, seconds: float) -> None:
        """Ask the next after so long."""
        self.kms.keys._rings.plan.policies["default"]._hedge_after = seconds

    def open(self) -> bytes:
        """Open the message with nothing in memory."""
        self.kms.keys._cache.clear()
        return self.kms.keys.decrypt("acme", self.message)

    def asked(self) -> list[int]:
        """Return how often each KEK was asked since this was called the last time."""
        counts = [spy.count for spy in self.spies.values()]
        for spy in self.spies.values():
            spy.calls.clear()
        return counts


@pytest.fixture
def keks(manual_clock: ManualClock) -> Iterator[Keks]:
    """Three KEKs."""
    found = Keks(manual_clock)
    yield found
    found.kms.close()


def threads_of_hedges() -> list[threading.Thread]:
    """Return the threads that ask KEKs."""
    return [thread for thread in threading.enumerate() if thread.name == "sentra-kms-unwrap"]


# --- order --------------------------------------------------------------------------------------


def test_first_that_answers_is_enough(keks: Keks) -> None:
    """In the configuration's order; nobody else is asked."""
    assert keks.open() == b"x"
    assert keks.asked() == [1, 0, 0]


def test_next_is_asked_at_once_when_one_fails(keks: Keks) -> None:
    """Not only after the hedge, which here never comes."""
    keks.spies["a"].failure = AccessDenied("not you")
    keks.spies["b"].failure = DOWN
    assert keks.open() == b"x"
    assert keks.asked() == [1, 1, 1]


def test_slow_one_that_answers_before_the_hedge_is_not_hedged(keks: Keks) -> None:
    """The second is not asked while the first has time."""
    slow = keks.spies["a"].before = Slow()
    crew = Crew(lambda _: keks.open(), 1)
    assert slow.entered.wait(WAIT)
    slow.release.set()
    assert crew.join() == [b"x"]
    assert keks.asked() == [1, 0, 0]


def test_slow_one_is_overtaken_and_its_late_answer_is_dropped(keks: Keks) -> None:
    """The second's answer is there while the first hangs; nothing of the late one is held."""
    keks.hedge(SOON)
    slow = keks.spies["a"].before = Slow()
    assert keks.open() == b"x"
    assert slow.entered.is_set()
    assert not slow.left.is_set()
    held = keks.kms.keys._cache.entries["acme"].key(1)
    slow.release.set()
    until(lambda: not threads_of_hedges())
    assert slow.left.is_set()
    assert keks.kms.keys._cache.entries["acme"].key(1) is held
    assert keks.kms.keys.decrypt("acme", keks.message) == b"x"
    assert keks.asked() == [1, 1, 0]


@pytest.mark.parametrize("failure", [DOWN, AccessDenied("no"), RuntimeError("a fault")])
def test_late_failure_is_dropped_too(keks: Keks, failure: Exception) -> None:
    """Also one that is not ours: nobody hears of it, and no thread dies with a traceback."""
    keks.hedge(SOON)
    slow = Slow()

    def fail(*arguments: Any) -> Any:
        slow()
        raise failure

    keks.spies["a"].instead = fail
    assert keks.open() == b"x"
    slow.release.set()
    until(lambda: not threads_of_hedges())


def test_two_slow_ones_are_overtaken_by_the_third(keks: Keks) -> None:
    """Each hedge asks one more."""
    keks.hedge(SOON)
    first = keks.spies["a"].before = Slow()
    second = keks.spies["b"].before = Slow()
    assert keks.open() == b"x"
    assert keks.asked() == [1, 1, 1]
    first.release.set()
    second.release.set()
    until(lambda: not threads_of_hedges())


def test_slow_one_is_waited_for_when_all_others_fail(keks: Keks) -> None:
    """Late is better than never."""
    keks.hedge(SOON)
    slow = keks.spies["a"].before = Slow()
    for name in ("b", "c"):
        keks.spies[name].failure = DOWN
    crew = Crew(lambda _: keks.open(), 1)
    until(lambda: keks.spies["c"].count == 1)
    slow.release.set()
    assert crew.join() == [b"x"]


# --- memory of failures -------------------------------------------------------------------------


@pytest.mark.parametrize("failure", [DOWN, Throttled("slower", retry_after=1.0), Timeout("no")])
def test_kek_that_is_down_is_asked_last_for_a_while(keks: Keks, failure: KMSError) -> None:
    """Then once more, to see; and again first once it works."""
    keks.spies["a"].failure = failure
    keks.open()
    assert keks.asked() == [1, 1, 0]
    for _ in range(5):
        keks.open()
    assert keks.asked() == [0, 5, 0]
    keks.clock.advance(PROBE_INTERVAL)
    for _ in range(5):
        keks.open()
    assert keks.asked() == [1, 5, 0]
    keks.spies["a"].failure = None
    keks.clock.advance(PROBE_INTERVAL)
    for _ in range(5):
        keks.open()
    assert keks.asked() == [5, 0, 0]


def test_kek_that_says_no_is_not_remembered(keks: Keks) -> None:
    """A refusal is of this wrap, and says nothing of the next."""
    keks.spies["a"].failure = AccessDenied("not you")
    for _ in range(3):
        keks.open()
    assert keks.asked() == [3, 3, 0]


def test_slow_kek_is_remembered_as_well(keks: Keks) -> None:
    """Not every tenant waits for the hedge: the next ask who answered, until it is tried again."""
    keks.hedge(SOON)
    slow = keks.spies["a"].before = Slow()
    keks.open()
    for _ in range(5):
        keks.open()
    assert keks.asked() == [1, 6, 0]
    slow.release.set()
    until(lambda: not threads_of_hedges())
    keks.spies["a"].before = None
    keks.open()  # its answer came too late to be a sign that it is well
    assert keks.asked() == [0, 1, 0]
    keks.clock.advance(PROBE_INTERVAL)
    keks.hedge(NEVER)
    keks.open()
    keks.open()
    assert keks.asked() == [2, 0, 0]


def test_one_probes_for_all(keks: Keks) -> None:
    """Of twenty threads over cold tenants one asks the KEK that was down."""
    names = [f"t{number}" for number in range(20)]
    messages = {}
    for name in names:
        keks.kms.keys.create(name)
        messages[name] = keks.kms.keys.encrypt(name, b"x")
    slow = Slow()

    def fail(*arguments: Any) -> Any:
        slow()
        raise DOWN

    keks.spies["a"].failure = DOWN
    keks.open()
    keks.spies["a"].failure = None
    keks.spies["a"].instead = fail
    keks.kms.keys._cache.clear()
    keks.asked()
    keks.clock.advance(PROBE_INTERVAL)
    crew = Crew(lambda index: keks.kms.keys.decrypt(names[index], messages[names[index]]), 20)
    until(lambda: keks.spies["b"].count == 19)
    assert slow.entered.wait(WAIT)
    slow.release.set()
    assert crew.join() == [b"x"] * 20
    assert keks.asked() == [1, 20, 0]


def test_probe_that_is_not_made_is_not_used_up(keks: Keks) -> None:
    """A later KEK that was down is forgiven when its time is over, though nobody asked it."""
    outages = keks.kms._ground.outages
    outages.failed("b:k")
    keks.clock.advance(PROBE_INTERVAL)
    keks.open()
    assert not outages.is_known("b:k")
    assert not outages.should_wait("b:k")


def test_all_of_them_down_are_all_asked(keks: Keks) -> None:
    """What is remembered orders them and spares none: the last resort is tried each time."""
    for spy in keks.spies.values():
        spy.failure = DOWN
    for _ in range(2):
        with pytest.raises(ServiceUnavailable):
            keks.open()
        assert keks.asked() == [1, 1, 1]
    keks.spies["c"].failure = None
    assert keks.open() == b"x"


# --- what is told -------------------------------------------------------------------------------


def test_all_failures_are_in_one_message(keks: Keks) -> None:
    """Each with its KEK; the error is of the kind that is worth a retry if one is."""
    keks.spies["a"].failure = AccessDenied("not you", subject="a:k")
    keks.spies["b"].failure = Throttled("slower", retry_after=1.5, subject="b:k")
    keks.spies["c"].failure = RingRejected("another key", subject="c:k")
    with pytest.raises(Throttled) as caught:
        keks.open()
    told = str(caught.value)
    assert told == "no KEK could unwrap: [a:k] not you; [b:k] slower; [c:k] another key"
    assert caught.value.retryable
    assert caught.value.retry_after == 1.5
    assert caught.value.__context__ is None


def test_no_one_worth_a_retry(keks: Keks) -> None:
    """Then the first one's kind."""
    for name, spy in keks.spies.items():
        spy.failure = AccessDenied(f"{name} says no")
    with pytest.raises(AccessDenied, match=r"a says no.*b says no.*c says no") as caught:
        keks.open()
    assert not caught.value.retryable


def test_events_name_the_actor(keks: Keks) -> None:
    """Also those of the threads that ask, and of the one that is late."""
    seen: list[Event] = []
    for name in keks.spies:
        keks.kms._wiring.bindings[name]._emit = seen.append
    keks.hedge(SOON)
    slow = Slow()
    original = keks.spies["a"]._original

    def late(*arguments: Any) -> Any:
        slow()
        assert current_actor() is not None
        return original(*arguments)

    keks.spies["a"].instead = late
    with actor("user:42", request_id="r-7"):
        keks.open()
    slow.release.set()
    until(lambda: len(seen) == 2)
    assert {(event.actor, event.request_id) for event in seen} == {("user:42", "r-7")}
    assert [event.backend for event in seen] == ["b", "a"]


# --- wrong answers ------------------------------------------------------------------------------


@pytest.mark.parametrize("hedged", [False, True])
def test_key_that_fails_its_check_value_is_passed_over(key_site: Site, *, hedged: bool) -> None:
    """In a thread as well as in the caller's: the second KEK's key is taken."""
    site = key_site
    names = ("local:m1", "spare:m2")
    site.open(*names).keys.create("acme")
    message = site.open(*names).keys.encrypt("acme", b"x")
    fields = site.payload()
    where = WrapContext("acme", base64.b64decode(fields["ring_id"]), 1)
    wrong = MasterKey(KeyMaterial(site.secret("m1"))).wrap(KeyMaterial(b"w" * 32), where)
    fields["versions"][0]["wraps"][0]["ciphertext"] = base64.b64encode(wrong.ciphertext).decode()
    site.forge(fields)
    kms = site.open(*names)
    kms.keys._rings.plan.policies["default"]._hedge_after = SOON if hedged else NEVER
    assert kms.keys.decrypt("acme", message) == b"x"
    Spy(kms, "spare", "unwrap_key").failure = DOWN
    kms.keys._cache.clear()
    with pytest.raises(ServiceUnavailable, match=r"check value differs.*down for maintenance"):
        kms.keys.decrypt("acme", message)


# --- what is no error of ours ---------------------------------------------------------------------


class Stop(BaseException):
    """As KeyboardInterrupt, which pytest would take for its own."""


@pytest.mark.parametrize("kind", [Stop, SystemExit, RuntimeError, MemoryError])
def test_what_is_not_ours_is_raised_by_who_waits(kind: type[BaseException]) -> None:
    """It is not taken for an answer, nor for a failure after which the next is asked."""
    asked: list[int] = []

    def broken() -> int:
        raise kind("stop")

    def second() -> int:
        asked.append(2)
        return 2

    with pytest.raises(kind, match="stop"):
        first_answer([broken, second], hedge_after=NEVER)
    assert asked == []


def test_single_one_is_asked_in_the_callers_thread() -> None:
    """One KEK costs no thread."""
    where: list[threading.Thread] = []

    def ask() -> int:
        where.append(threading.current_thread())
        return 1

    assert first_answer([ask], hedge_after=NEVER) == (1, [])
    assert where == [threading.current_thread()]


@pytest.mark.parametrize("count", [1, 2, 3])
def test_process_that_can_start_no_thread_asks_in_its_own(
    monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    """At its end, or at its bound of threads: without hedge, in order, and not with an error."""

    def start(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    asked: list[int] = []

    def ask(number: int) -> Callable[[], int]:
        def do() -> int:
            asked.append(number)
            if number < count:
                raise DOWN
            return number

        return do

    monkeypatch.setattr(threading.Thread, "start", start)
    answer, failures = first_answer([ask(1), ask(2), ask(3)], hedge_after=NEVER)
    assert (answer, len(failures), asked) == (count, count - 1, list(range(1, count + 1)))


# --- forks and ends -------------------------------------------------------------------------------


def test_fork_while_hedging_does_not_stop_the_child(keks: Keks) -> None:
    """A child forked while a thread waits for a KEK opens messages as ever, and so the parent."""
    slow = keks.spies["a"].before = Slow()
    crew = Crew(lambda _: keks.open(), 1)
    assert slow.entered.wait(WAIT)

    def child() -> bytes:
        keks.spies["a"].before = None
        return keks.open()

    assert in_fork(child) == b"x"
    slow.release.set()
    assert crew.join() == [b"x"]


def test_close_while_hedging_leaves_nothing(keks: Keks) -> None:
    """The answer that comes afterwards is given to who waits for it, and held nowhere."""
    slow = keks.spies["a"].before = Slow()
    keks.kms.keys._cache.clear()
    crew = Crew(lambda _: keks.kms.keys.decrypt("acme", keks.message), 1)
    assert slow.entered.wait(WAIT)
    keks.kms.close()
    slow.release.set()
    (outcome,) = crew.join()
    assert outcome == b"x" or isinstance(outcome, UnsupportedOperation)
    cache = keks.kms.keys._cache
    assert (cache.entries, cache.epochs) == ({}, {})
    until(lambda: not threads_of_hedges())
    with pytest.raises(UnsupportedOperation):
        keks.open()


def test_background_without_threads_is_no_error(
    keks: Keks, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A warm message succeeds though nothing can be fetched ahead, and later it is."""
    background = Background()
    keks.kms.keys._cache._background = background
    real = threading.Thread.start

    def start(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    keks.clock.advance(50)
    loads = Spy(keks.kms, "rings", "load_ring")
    for _ in range(3):
        assert keks.kms.keys.decrypt("acme", keks.message) == b"x"
        keks.kms.keys.encrypt("acme", b"y")
    assert loads.count == 0
    monkeypatch.setattr(threading.Thread, "start", real)
    background.submit("more", lambda: None)
    done = threading.Event()
    background.submit("acme", done.set)
    assert done.wait(WAIT)
    background.close()


def test_many_at_once(keks: Keks) -> None:
    """Fifty tenants cold, a slow first KEK: all open, and no thread is left when it answers."""
    keks.hedge(SOON)
    names = [f"t{number}" for number in range(50)]
    messages = {}
    for name in names:
        keks.kms.keys.create(name)
        messages[name] = keks.kms.keys.encrypt(name, name.encode())
    slow = keks.spies["a"].before = Slow()
    keks.kms.keys._cache.clear()
    opened = in_threads(lambda n: keks.kms.keys.decrypt(names[n], messages[names[n]]), 50)
    assert opened == [name.encode() for name in names]
    slow.release.set()
    until(lambda: not threads_of_hedges())
