"""What is held in memory: one load and one unwrap however many ask, for how long, how much."""

from __future__ import annotations

import faulthandler
import gc
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest

from sentra_kms.config import read_settings
from sentra_kms.errors import KeyNotFound, KeyUnavailable, KMSError, ServiceUnavailable
from sentra_kms.keys import memory
from sentra_kms.keys.flight import SingleFlight
from sentra_kms.keys.memory import Memory
from sentra_kms.keys.message import Opener
from sentra_kms.runtime import KMS
from tests.keys.conftest import (
    WAIT,
    Crew,
    Later,
    ManualClock,
    Site,
    Spy,
    in_threads,
    memory_config,
    salt_of,
    until,
    version_in,
)


def open_memory(clock: ManualClock, **settings: object) -> KMS:
    """Return a KMS in memory whose cache has these settings."""
    settings.setdefault("max_stale", "0s")
    return KMS(read_settings(memory_config(**settings), "test"), now=clock, background=Later())


def waiting_in_a_flight(threads: list[threading.Thread]) -> int:
    """Return how many of the threads wait for a flight that another one leads."""
    frames = sys._current_frames()
    waiting = 0
    for thread in threads:
        frame = frames.get(thread.ident or 0)
        inside = []
        while frame is not None:
            inside.append(frame.f_code.co_name)
            frame = frame.f_back
        waiting += "wait" in inside and "do" in inside and "_lead" not in inside
    return waiting


# --- single flight ----------------------------------------------------------------------------


@pytest.mark.parametrize("use", ["encrypt", "decrypt", "both"])
def test_fifty_threads_on_a_cold_tenant_cost_one_load_and_one_unwrap(
    memory_kms: KMS, busy_threads: None, use: str
) -> None:
    """However many ask at once, the store and the KEK are asked once."""
    acme = memory_kms.keys.tenant("acme")
    message = acme.encrypt(b"x")
    loads, unwraps = (Spy(memory_kms, "memory", name) for name in ("load_ring", "unwrap_key"))
    for round_number in range(1, 6):
        memory_kms.keys._cache.clear()

        def work(index: int) -> bytes:
            if use == "encrypt" or (use == "both" and index % 2):
                return acme.encrypt(b"x")
            return acme.decrypt(message)

        in_threads(work, 50)
        assert (loads.count, unwraps.count) == (round_number, round_number)


@pytest.mark.parametrize("operation", ["load_ring", "unwrap_key"])
def test_those_who_come_while_one_is_at_it_wait_and_share(memory_kms: KMS, operation: str) -> None:
    """Nine threads that come while the tenth loads, or unwraps, ask nobody themselves."""
    memory_kms.keys._cache.clear()
    release = threading.Event()
    spy = Spy(memory_kms, "memory", operation)
    spy.before = lambda: release.wait(WAIT)
    acme = memory_kms.keys.tenant("acme")
    crew = Crew(lambda _: acme.decrypt(acme.encrypt(b"x")), 10)
    until(lambda: waiting_in_a_flight(crew.threads) == 9)
    release.set()
    assert crew.join() == [b"x"] * 10
    assert spy.count == 1


@pytest.mark.parametrize("operation", ["load_ring", "unwrap_key"])
def test_an_error_is_shared_and_not_kept(memory_kms: KMS, operation: str) -> None:
    """An outage costs one attempt for all who wait; the next call tries again."""
    memory_kms.keys._cache.clear()
    release = threading.Event()
    spy = Spy(memory_kms, "memory", operation)
    spy.before = lambda: release.wait(WAIT)
    spy.failure = ServiceUnavailable("out of order", backend="memory")
    crew = Crew(lambda _: memory_kms.keys.encrypt("acme", b"x"), 10)
    until(lambda: waiting_in_a_flight(crew.threads) == 9)
    release.set()
    outcomes = crew.join()
    assert {type(outcome) for outcome in outcomes} == {ServiceUnavailable}
    assert {str(outcome) for outcome in outcomes} == {"out of order"}
    assert len({id(outcome) for outcome in outcomes}) == 10
    assert spy.count == 1
    spy.failure = None
    assert memory_kms.keys.encrypt("acme", b"x")
    assert spy.count == 2


@pytest.mark.parametrize("operation", ["load_ring", "unwrap_key"])
def test_who_was_held_up_between_looking_and_asking_asks_nobody(
    memory_kms: KMS, monkeypatch: pytest.MonkeyPatch, operation: str
) -> None:
    """A thread that found nothing, and goes on only after another fetched it, uses that."""
    acme = memory_kms.keys.tenant("acme")
    acme.encrypt(b"x")
    memory_kms.keys._cache.clear()
    spy = Spy(memory_kms, "memory", operation)
    # Which of its flights holds the late thread up: the ring's is its first, the key's its second.
    held_at = {"load_ring": 1, "unwrap_key": 2}[operation]
    late_arrived, go_on = threading.Event(), threading.Event()
    flights: list[object] = []
    real = SingleFlight.do

    def do(self: SingleFlight[Any], key: object, fetch: Callable[[], Any]) -> Any:
        if threading.current_thread() is late:
            flights.append(key)
            if len(flights) == held_at:
                late_arrived.set()
                assert go_on.wait(WAIT)
        return real(self, key, fetch)

    monkeypatch.setattr(SingleFlight, "do", do)
    outcome: list[bytes] = []
    late = threading.Thread(target=lambda: outcome.append(acme.encrypt(b"x")), daemon=True)
    late.start()
    until(late_arrived.is_set)
    acme.encrypt(b"x")
    assert spy.count == 1
    go_on.set()
    late.join(WAIT)
    assert acme.decrypt(outcome[0]) == b"x"
    assert spy.count == 1


def test_key_that_is_unwrapped_while_the_ring_is_read_again_is_kept(
    memory_kms: KMS, manual_clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever of the two ends first, one unwrap serves all until its TTL is over."""
    acme = memory_kms.keys.tenant("acme")
    message = acme.encrypt(b"x")
    memory_kms.keys._cache.clear()
    memory_kms.keys._cache.entry("acme")
    unwraps = Spy(memory_kms, "memory", "unwrap_key")
    real, reading, unwrapped = Memory.put, threading.Event(), threading.Event()

    def put(self: Memory, *arguments: Any) -> Any:
        reading.set()
        assert unwrapped.wait(WAIT)
        return real(self, *arguments)

    monkeypatch.setattr(Memory, "put", put)
    # One thread unwraps under the ring that is held; another, for whom it is due, reads it again.
    entry = memory_kms.keys._cache.entries["acme"]
    manual_clock.advance(60)
    reader = Crew(lambda _: memory_kms.keys._cache.entry("acme"), 1)
    until(reading.is_set)
    memory_kms.keys._cache.key(entry, 1)
    unwrapped.set()
    assert not isinstance(reader.join()[0], BaseException)
    assert acme.decrypt(message) == b"x"
    assert acme.decrypt(acme.encrypt(b"y")) == b"y"
    assert unwraps.count == 1


def test_tenants_do_not_wait_for_each_other(memory_kms: KMS) -> None:
    """While one tenant's ring is loading, another's messages go on."""
    memory_kms.keys._cache.clear()
    entered, release = threading.Event(), threading.Event()
    loads = Spy(memory_kms, "memory", "load_ring")

    def hold_acme() -> None:
        if loads.calls[-1][0] == "acme":
            entered.set()
            release.wait(WAIT)

    loads.before = hold_acme
    crew = Crew(lambda _: memory_kms.keys.encrypt("acme", b"x"), 1)
    until(entered.is_set)
    assert memory_kms.keys.encrypt("other", b"x")
    release.set()
    assert isinstance(crew.join()[0], bytes)


def test_flight_whose_leader_is_interrupted_is_flown_by_another() -> None:
    """A leader that is interrupted leaves no outcome, and nobody hangs or fails for it."""
    flight: SingleFlight[str] = SingleFlight()
    entered, release = threading.Event(), threading.Event()

    def interrupted() -> str:
        entered.set()
        release.wait(WAIT)
        raise KeyboardInterrupt

    leader = Crew(lambda _: flight.do("key", interrupted), 1)
    until(entered.is_set)
    others = Crew(lambda index: flight.do("key", lambda: f"by {index}"), 3)
    until(lambda: waiting_in_a_flight(others.threads) == 3)
    release.set()
    assert isinstance(leader.join()[0], KeyboardInterrupt)
    assert all(str(outcome).startswith("by ") for outcome in others.join())


# --- for how long -----------------------------------------------------------------------------


def test_signal_handler_does_not_wait_for_its_own_thread() -> None:
    """A handler that asks for what its own thread is fetching fetches it itself; others wait."""
    flight: SingleFlight[str] = SingleFlight()
    handled: list[str] = []
    others: list[Crew] = []

    def handle(*_: object) -> None:
        others.append(Crew(lambda _: flight.do("key", lambda: "by another"), 1))
        until(lambda: waiting_in_a_flight(others[0].threads) == 1)
        handled.append(flight.do("key", lambda: "by the handler"))

    def fetch() -> str:
        signal.raise_signal(signal.SIGUSR1)
        return "by the thread"

    before = signal.signal(signal.SIGUSR1, handle)
    faulthandler.dump_traceback_later(WAIT, exit=True)
    try:
        assert flight.do("key", fetch) == "by the thread"
    finally:
        faulthandler.cancel_dump_traceback_later()
        signal.signal(signal.SIGUSR1, before)
    assert handled == ["by the handler"]
    assert others[0].join() == ["by the thread"]


def test_key_is_unwrapped_anew_when_its_ttl_is_over(manual_clock: ManualClock) -> None:
    """Jitter takes off a tenth at most, and nothing is added to the TTL."""
    with open_memory(manual_clock, key_ttl="100s", ring_ttl="1d") as kms:
        kms.keys.create("acme")
        kms.keys._cache.clear()
        unwraps = Spy(kms, "memory", "unwrap_key")
        message = kms.keys.encrypt("acme", b"x")
        for expected in (1, 2, 3):
            manual_clock.advance(89)
            kms.keys.decrypt("acme", message)
            kms.keys.encrypt("acme", b"x")
            assert unwraps.count == expected
            manual_clock.advance(11)
            kms.keys.decrypt("acme", message)
            assert unwraps.count == expected + 1


def test_a_key_made_here_expires_too(manual_clock: ManualClock) -> None:
    """What create and rotate leave in the cache is kept no longer than what was unwrapped."""
    with open_memory(manual_clock, key_ttl="100s", ring_ttl="1d") as kms:
        kms.keys.create("acme")
        unwraps = Spy(kms, "memory", "unwrap_key")
        first = kms.keys.encrypt("acme", b"x")
        manual_clock.advance(100)
        second = kms.keys.encrypt("acme", b"x")
        assert unwraps.count == 1
        assert salt_of(first) != salt_of(second)
        kms.keys.rotate("acme")
        kms.keys.encrypt("acme", b"x")
        assert unwraps.count == 1
        manual_clock.advance(100)
        kms.keys.encrypt("acme", b"x")
        assert unwraps.count == 2


def test_ring_is_read_anew_when_its_ttl_is_over(manual_clock: ManualClock) -> None:
    """The store is asked once a TTL, whatever is done meanwhile, and the key is kept over it."""
    with open_memory(manual_clock, key_ttl="1d", ring_ttl="10s") as kms:
        kms.keys.create("acme")
        loads, unwraps = (Spy(kms, "memory", name) for name in ("load_ring", "unwrap_key"))
        message = kms.keys.encrypt("acme", b"x")
        for expected in range(5):
            assert loads.count == expected
            manual_clock.advance(8.9)
            kms.keys.encrypt("acme", b"x")
            kms.keys.decrypt("acme", message)
            assert loads.count == expected
            manual_clock.advance(1.1)
            kms.keys.decrypt("acme", message)
            kms.keys.encrypt("acme", b"x")
        assert unwraps.count == 0


def test_expiries_of_many_tenants_are_spread(manual_clock: ManualClock) -> None:
    """Jitter: tenants that were loaded at one instant do not all expire at one instant."""
    with open_memory(manual_clock, key_ttl="1000s", ring_ttl="1000s") as kms:
        names = [f"t{number}" for number in range(40)]
        for name in names:
            kms.keys.create(name)
        loads = Spy(kms, "memory", "load_ring")
        manual_clock.advance(950)
        for name in names:
            kms.keys.encrypt(name, b"x")
        assert 0 < loads.count < 40


def test_rotation_elsewhere_is_in_force_within_the_rings_ttl(key_site: Site) -> None:
    """Until then the old version encrypts, after it the new one."""
    here, elsewhere = key_site.open(), key_site.open()
    here.keys.create("acme")
    assert version_in(here.keys.encrypt("acme", b"x")) == 1
    elsewhere.keys.rotate("acme")
    assert version_in(here.keys.encrypt("acme", b"x")) == 1
    key_site.clock.advance(60)
    assert version_in(here.keys.encrypt("acme", b"x")) == 2


def test_rotation_elsewhere_is_in_force_for_batches_as_soon(key_site: Site) -> None:
    """A batch after the TTL is sealed under the new version, from its first message on."""
    here, elsewhere = key_site.open(), key_site.open()
    here.keys.create("acme")
    sizes = [1, 2**14, 2**14 + 1, 2**16]
    plains = [bytes(size) for size in sizes] * 2
    assert {version_in(box) for box in here.keys.encrypt_many("acme", plains)} == {1}
    elsewhere.keys.rotate("acme")
    assert {version_in(box) for box in here.keys.encrypt_many("acme", plains)} == {1}
    key_site.clock.advance(60)
    assert {version_in(box) for box in here.keys.encrypt_many("acme", plains)} == {2}


def test_warm_reader_opens_a_newer_version_at_once(key_site: Site) -> None:
    """A message of a version that the held ring lacks forces a look, long before the TTL."""
    here, elsewhere = key_site.open(), key_site.open()
    here.keys.create("acme")
    here.keys.encrypt("acme", b"x")
    loads = Spy(here, "local", "load_ring")
    elsewhere.keys.rotate("acme")
    message = elsewhere.keys.encrypt("acme", b"new")
    assert here.keys.decrypt("acme", message) == b"new"
    assert here.keys.decrypt("acme", message) == b"new"
    assert loads.count == 1
    assert version_in(here.keys.encrypt("acme", b"x")) == 2


def test_forced_looks_are_one_a_second(key_site: Site) -> None:
    """A second rotation within the second is seen after it; the error says that a retry may do."""
    here, elsewhere = key_site.open(), key_site.open()
    here.keys.create("acme")
    here.keys.encrypt("acme", b"x")
    elsewhere.keys.rotate("acme")
    second = elsewhere.keys.encrypt("acme", b"2")
    elsewhere.keys.rotate("acme")
    assert here.keys.decrypt("acme", second) == b"2"
    elsewhere.keys.rotate("acme")
    fourth = elsewhere.keys.encrypt("acme", b"4")
    with pytest.raises(KeyNotFound) as caught:
        here.keys.decrypt("acme", fourth)
    assert caught.value.retryable
    key_site.clock.advance(1)
    assert here.keys.decrypt("acme", fourth) == b"4"


def test_failed_look_does_not_forget_what_is_held(key_site: Site) -> None:
    """When a forced look fails its error is told, and known versions go on."""
    here, elsewhere = key_site.open(), key_site.open()
    here.keys.create("acme")
    old = here.keys.encrypt("acme", b"old")
    elsewhere.keys.rotate("acme")
    new = elsewhere.keys.encrypt("acme", b"new")
    loads = Spy(here, "local", "load_ring")
    loads.failure = ServiceUnavailable("the disk is gone")
    with pytest.raises(ServiceUnavailable):
        here.keys.decrypt("acme", new)
    assert here.keys.decrypt("acme", old) == b"old"
    loads.failure = None
    key_site.clock.advance(1)
    assert here.keys.decrypt("acme", new) == b"new"


def test_own_rotation_is_in_force_at_once_for_every_handle(memory_kms: KMS) -> None:
    """Handles share what is held: none goes on with the old version."""
    handles = [memory_kms.keys.tenant("acme") for _ in range(3)]
    for handle in handles:
        assert version_in(handle.encrypt(b"x")) == 1
    memory_kms.keys.rotate("acme")
    assert {version_in(handle.encrypt(b"x")) for handle in handles} == {2}


def test_slow_load_does_not_put_an_older_ring_over_a_newer(memory_kms: KMS) -> None:
    """A ring that was read before a rotation and arrives after it changes nothing."""
    memory_kms.keys._cache.clear()
    loads = Spy(memory_kms, "memory", "load_ring")
    read, go_on = loads.hold_answers()
    crew = Crew(lambda _: memory_kms.keys.encrypt("acme", b"x"), 1)
    until(read.is_set)
    loads.instead = None
    memory_kms.keys.rotate("acme")
    go_on.set()
    assert isinstance(crew.join()[0], bytes)
    assert version_in(memory_kms.keys.encrypt("acme", b"x")) == 2


def test_slow_load_does_not_bring_back_an_older_ring_than_was_dropped(
    manual_clock: ManualClock,
) -> None:
    """Nor if the newer one has left memory: who rotated here never writes under the old again."""
    with open_memory(manual_clock, max_keys=1) as kms:
        for name in ("other", "acme"):
            kms.keys.create(name)
        kms.keys.encrypt("other", b"x")
        loads = Spy(kms, "memory", "load_ring")
        read, go_on = loads.hold_answers()
        crew = Crew(lambda _: kms.keys.encrypt("acme", b"x"), 1)
        until(read.is_set)
        loads.instead = None
        kms.keys.rotate("acme")
        kms.keys.encrypt("other", b"x")  # takes acme's place
        go_on.set()
        (late,) = crew.join()
        assert isinstance(late, bytes)
        assert version_in(late) == 2
        assert version_in(kms.keys.encrypt("acme", b"x")) == 2


def test_newer_ring_that_was_seen_meanwhile_is_read_and_not_waited_for(
    key_site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who loads a ring while another thread sees a newer one reads again, once."""
    here, elsewhere = key_site.open(), key_site.open()
    here.keys.create("acme")
    here.keys._cache.clear()
    flights: list[object] = []
    real = SingleFlight.do

    def do(self: SingleFlight[Any], key: object, fetch: Callable[[], Any]) -> Any:
        answer = real(self, key, fetch)
        if key == "acme":
            flights.append(key)
            assert len(flights) <= 3, "the same ring is taken over and over"
            if len(flights) == 1:
                elsewhere.keys.rotate("acme")
                here.keys.describe("acme")
        return answer

    monkeypatch.setattr(SingleFlight, "do", do)
    assert version_in(here.keys.encrypt("acme", b"x")) == 2


def test_failing_store_is_told_once_the_ring_is_due(manual_clock: ManualClock) -> None:
    """Without `max_stale` held keys are used until the ring must be read again, and no longer."""
    kms = open_memory(manual_clock)
    kms.keys.create("acme")
    acme = kms.keys.tenant("acme")
    message = acme.encrypt(b"x")
    loads = Spy(kms, "memory", "load_ring")
    loads.failure = ServiceUnavailable("down")
    manual_clock.advance(50)
    assert acme.decrypt(message) == b"x"
    manual_clock.advance(10)
    uses: list[Callable[[], object]] = [lambda: acme.encrypt(b"x"), lambda: acme.decrypt(message)]
    for use in uses:
        with pytest.raises(ServiceUnavailable, match="down"):
            use()
    loads.failure = None
    assert acme.decrypt(message) == b"x"


@pytest.mark.parametrize("operation", ["load_ring", "unwrap_key"])
def test_closing_while_a_key_is_fetched_raises_nothing_foreign(
    memory_kms: KMS, operation: str
) -> None:
    """Who is inside when the keys are forgotten gets a message or one of our errors."""
    memory_kms.keys._cache.clear()
    spy = Spy(memory_kms, "memory", operation)
    spy.before = memory_kms.keys.close
    acme = memory_kms.keys.tenant("acme")
    try:
        message = acme.encrypt(b"x")
    except KMSError:
        return
    spy.before = None
    assert acme.decrypt(message) == b"x"


# --- how much ---------------------------------------------------------------------------------


def held_keys(kms: KMS) -> int:
    """Return how many tenant keys are in memory."""
    return sum(len(entry.all_held()) for entry in kms.keys._cache.entries.values())


def test_tenant_keys_in_memory_are_bounded(manual_clock: ManualClock) -> None:
    """The tenants that were read longest ago are dropped, and unwrapped anew when asked for."""
    with open_memory(manual_clock, max_keys=3) as kms:
        names = [f"t{number}" for number in range(10)]
        messages = {}
        for name in names:
            kms.keys.create(name)
            messages[name] = kms.keys.encrypt(name, name.encode())
            assert held_keys(kms) <= 3
        unwraps = Spy(kms, "memory", "unwrap_key")
        assert kms.keys.decrypt("t9", messages["t9"]) == b"t9"
        assert unwraps.count == 0
        assert kms.keys.decrypt("t0", messages["t0"]) == b"t0"
        assert unwraps.count == 1
        for name in names * 3:
            assert kms.keys.decrypt(name, messages[name]) == name.encode()
            assert held_keys(kms) <= 3


def test_one_tenants_versions_count_each(manual_clock: ManualClock) -> None:
    """A tenant with many versions in use does not take the bound away from the others."""
    with open_memory(manual_clock, max_keys=4) as kms:
        kms.keys.create("acme")
        messages = [kms.keys.encrypt("acme", b"1")]
        for number in range(2, 9):
            kms.keys.rotate("acme")
            messages.append(kms.keys.encrypt("acme", str(number).encode()))
        kms.keys._cache.clear()
        for _ in range(2):
            for number, message in enumerate(messages, 1):
                assert kms.keys.decrypt("acme", message) == str(number).encode()
                assert held_keys(kms) <= 4


def test_bound_holds_when_the_oldest_tenant_grows(manual_clock: ManualClock) -> None:
    """Keys added to the tenant that was read first make room among the others."""
    with open_memory(manual_clock, max_keys=4) as kms:
        kms.keys.create("first")
        messages = [kms.keys.encrypt("first", b"1")]
        for _ in range(2):
            kms.keys.rotate("first")
            messages.append(kms.keys.encrypt("first", b"1"))
        kms.keys.create("second")
        kms.keys.create("third")
        kms.keys._cache.clear()
        for name in ("first", "second", "third"):
            kms.keys.encrypt(name, b"x")
        for message in messages:
            kms.keys.decrypt("first", message)
            assert held_keys(kms) <= 4
        assert version_in(kms.keys.encrypt("first", b"x")) == 3


def test_bound_holds_under_threads(manual_clock: ManualClock, busy_threads: None) -> None:
    """Many threads on many tenants keep it too, and every message opens."""
    with open_memory(manual_clock, max_keys=5) as kms:
        names = [f"t{number}" for number in range(20)]
        messages = {}
        for name in names:
            kms.keys.create(name)
            messages[name] = kms.keys.encrypt(name, name.encode())

        def work(index: int) -> None:
            for step in range(100):
                name = names[(index * 7 + step * 3) % 20]
                assert kms.keys.decrypt(name, messages[name]) == name.encode()
                if step % 10 == 0:
                    kms.keys.rotate(name)

        in_threads(work, 6)
        assert held_keys(kms) <= 5


def test_subkeys_in_memory_are_bounded(
    manual_clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Readers keep a bounded number of subkeys over all tenants, however many salts they meet."""
    monkeypatch.setattr(memory, "MAX_OPENERS", 8)
    with open_memory(manual_clock) as kms:
        kms.keys.create("acme")
        kms.keys.create("other")
        messages = []
        for number in range(40):
            kms.keys._cache.clear()  # a new salt for each
            messages.append(kms.keys.encrypt(("acme", "other")[number % 2], str(number).encode()))
        for _ in range(2):
            for number, message in enumerate(messages):
                name = ("acme", "other")[number % 2]
                assert kms.keys.decrypt(name, message) == str(number).encode()
                entries = kms.keys._cache.entries.values()
                assert sum(len(entry.openers) for entry in entries) <= 8


def live_openers(kms: KMS) -> int:
    """Return how many subkeys of readers are alive, reachable from the cache or not."""
    gc.collect()
    return sum(type(found) is Opener for found in gc.get_objects())


def test_subkeys_do_not_pile_up_over_the_days(
    manual_clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that opens the same few rows for days holds no more than at the start."""
    monkeypatch.setattr(memory, "MAX_OPENERS", 8)
    with open_memory(manual_clock, key_ttl="50s", ring_ttl="10s") as kms:
        before = live_openers(kms)
        kms.keys.create("acme")
        messages = []
        for _ in range(4):
            kms.keys._cache.clear()
            messages.append(kms.keys.encrypt("acme", b"x"))
        for _ in range(300):
            manual_clock.advance(4)
            for message in messages:
                assert kms.keys.decrypt("acme", message) == b"x"
        assert live_openers(kms) - before <= 8
        assert len(kms.keys._cache._memory._openers) <= 8


def test_expired_subkeys_leave_memory(manual_clock: ManualClock) -> None:
    """After their time readers' subkeys go with the next look at the ring, used again or not."""
    with open_memory(manual_clock, key_ttl="50s", ring_ttl="10s") as kms:
        before = live_openers(kms)
        kms.keys.create("acme")
        message = kms.keys.encrypt("acme", b"x")
        kms.keys.decrypt("acme", message)
        manual_clock.advance(10)
        kms.keys.decrypt("acme", message)
        assert live_openers(kms) == before + 1  # its time is not over yet
        manual_clock.advance(50)
        kms.keys.encrypt("acme", b"x")
        assert live_openers(kms) == before
        assert kms.keys._cache._memory._openers == {}


def test_dropped_tenants_leave_nothing_in_the_index(manual_clock: ManualClock) -> None:
    """What is kept of readers' subkeys goes with the tenant, and with one of its keys."""
    with open_memory(manual_clock, max_keys=1) as kms:
        for tenant in ("acme", "other"):
            kms.keys.create(tenant)
            kms.keys.decrypt(tenant, kms.keys.encrypt(tenant, b"x"))
        assert {tenant for tenant, _ in kms.keys._cache._memory._openers} == {"other"}
        message = kms.keys.encrypt("other", b"x")
        kms.keys.rotate("other")
        kms.keys.decrypt("other", kms.keys.encrypt("other", b"x"))
        assert [prefix[16:20] for _, prefix in kms.keys._cache._memory._openers] == [
            b"\x00\x00\x00\x02"
        ]
        assert kms.keys.decrypt("other", message) == b"x"


def test_tenants_that_do_not_exist_are_not_held(memory_kms: KMS) -> None:
    """Asking for made-up tenants leaves nothing in memory."""
    before = len(memory_kms.keys._cache.entries)
    for number in range(50):
        with pytest.raises(KMSError):
            memory_kms.keys.encrypt(f"nobody-{number}", b"x")
    assert len(memory_kms.keys._cache.entries) == before


def test_disabled_versions_key_leaves_memory(key_site: Site) -> None:
    """Once the ring is read anew, neither key nor subkey of a disabled version is held."""
    kms = key_site.open(cache={"key_ttl": "1d"})
    before = live_openers(kms)
    kms.keys.create("acme")
    old = kms.keys.encrypt("acme", b"x")
    kms.keys.rotate("acme")
    kms.keys.decrypt("acme", old)
    assert live_openers(kms) == before + 1
    key_site.set_state(1, "disabled")
    key_site.clock.advance(60)
    with pytest.raises(KeyUnavailable):
        kms.keys.decrypt("acme", old)
    entry = kms.keys._cache.entries["acme"]
    assert entry.key(1) is None
    assert all(opener.version != 1 for opener in entry.openers.values())
    assert live_openers(kms) == before
