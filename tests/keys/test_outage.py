"""What serves when a service does not answer, how long, and who finds out that it is back."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest

from sentra_kms.config import read_settings
from sentra_kms.errors import (
    AccessDenied,
    KeyUnavailable,
    KMSError,
    RingRejected,
    ServiceUnavailable,
    TenantNotFound,
    Throttled,
    Timeout,
)
from sentra_kms.events import Actor, actor, current_actor
from sentra_kms.keys import states
from sentra_kms.keys.background import Background
from sentra_kms.keys.memory import MAX_RINGS
from sentra_kms.keys.outages import PROBE_INTERVAL, Outages
from sentra_kms.runtime import KMS
from tests.keys.conftest import (
    WAIT,
    Crew,
    Later,
    ManualClock,
    Spy,
    in_threads,
    memory_config,
    salt_of,
    until,
    version_in,
)
from tests.keys.test_cache import waiting_in_a_flight

TTL = 300.0  # key_ttl
RING_TTL = 60.0
MAX_STALE = 3600.0
DOWN = [ServiceUnavailable("down"), Throttled("slower", retry_after=1.0), Timeout("no answer")]
NO = [AccessDenied("not you"), KeyUnavailable("is disabled"), RingRejected("was edited")]


class Bench:
    """A KMS in memory with one tenant, its clock, its background, and spies on its services."""

    def __init__(self, clock: ManualClock, **cache: object) -> None:
        self.clock = clock
        self.later = Later()
        settings = read_settings(memory_config(**cache), "test")
        self.kms = KMS(settings, now=clock, background=self.later)
        self.kms.keys.create("acme")
        self.message = self.kms.keys.encrypt("acme", b"x")
        self.loads = Spy(self.kms, "memory", "load_ring")
        self.unwraps = Spy(self.kms, "memory", "unwrap_key")

    def use(self) -> None:
        """Seal and open a message."""
        assert self.kms.keys.decrypt("acme", self.message) == b"x"
        assert self.kms.keys.decrypt("acme", self.kms.keys.encrypt("acme", b"y")) == b"y"

    def pass_time(self, seconds: float, step: float = 1.0) -> None:
        """Let time pass while the tenant is in use and the background works."""
        for _ in range(int(seconds / step)):
            self.clock.advance(step)
            self.use()
            self.later.run()

    def fail(self, error: KMSError | None) -> None:
        """Let both services fail."""
        self.loads.failure = self.unwraps.failure = error


@pytest.fixture
def bench(manual_clock: ManualClock) -> Iterator[Bench]:
    """A bench with the times that are shipped."""
    found = Bench(manual_clock)
    with found.kms:
        yield found


# --- ahead of time ----------------------------------------------------------------------------


def test_ring_in_use_is_read_before_anybody_waits(bench: Bench) -> None:
    """From four fifths of its TTL on, in the background, once, while messages go on."""
    bench.clock.advance(0.7 * RING_TTL)
    bench.use()
    assert (bench.later.work, bench.loads.count) == ({}, 0)
    bench.clock.advance(0.15 * RING_TTL)
    for _ in range(100):
        bench.use()
    assert (len(bench.later.work), bench.loads.count) == (1, 0)
    bench.later.run()
    assert bench.loads.count == 1
    bench.clock.advance(0.5 * RING_TTL)
    bench.use()
    assert bench.loads.count == 1


def test_key_in_use_is_unwrapped_before_anybody_waits(manual_clock: ManualClock) -> None:
    """The same for keys; who opens and who seals goes on under the key that is at hand."""
    bench = Bench(manual_clock, ring_ttl="1d")
    bench.clock.advance(0.85 * TTL)
    for _ in range(100):
        bench.use()
    assert (len(bench.later.work), bench.unwraps.count) == (1, 0)
    bench.later.run()
    assert bench.unwraps.count == 1
    bench.clock.advance(0.5 * TTL)
    bench.use()
    assert bench.unwraps.count == 1


def test_tenant_that_nobody_uses_is_not_fetched(bench: Bench) -> None:
    """Time alone asks nobody."""
    for _ in range(100):
        bench.clock.advance(100)
        bench.later.run()
    assert (bench.loads.count, bench.unwraps.count) == (0, 0)


def test_day_in_use_costs_one_request_a_ttl(bench: Bench) -> None:
    """With jitter and the head start at most one in 0.7 TTLs, whatever the traffic."""
    bench.pass_time(3000)
    assert 3000 / RING_TTL <= bench.loads.count <= 3000 / (0.7 * RING_TTL) + 1
    assert 3000 / TTL - 1 <= bench.unwraps.count <= 3000 / (0.7 * TTL) + 1


def test_epoch_ends_with_the_ttl_though_its_key_was_fetched_ahead(
    manual_clock: ManualClock,
) -> None:
    """A writer's salt is no older than `key_ttl`."""
    bench = Bench(manual_clock, ring_ttl="1d")
    first = salt_of(bench.kms.keys.encrypt("acme", b"x"))
    bench.clock.advance(0.85 * TTL)
    bench.use()
    bench.later.run()
    assert salt_of(bench.kms.keys.encrypt("acme", b"x")) == first
    bench.clock.advance(0.16 * TTL)
    assert salt_of(bench.kms.keys.encrypt("acme", b"x")) != first


def test_real_background_fetches_and_ends(manual_clock: ManualClock) -> None:
    """With real threads: the ring is read by one of them, and closing ends them."""
    settings = read_settings(memory_config(), "test")
    kms = KMS(settings, now=manual_clock)
    kms.keys.create("acme")
    kms.keys.encrypt("acme", b"x")
    loads = Spy(kms, "memory", "load_ring")
    asking: list[threading.Thread] = []
    loads.before = lambda: asking.append(threading.current_thread())
    manual_clock.advance(0.9 * RING_TTL * 0.95)
    kms.keys.encrypt("acme", b"x")
    until(lambda: loads.count == 1)
    assert asking[0] is not threading.current_thread()
    assert asking[0].daemon
    kms.close()
    until(lambda: not asking[0].is_alive())


# --- an outage --------------------------------------------------------------------------------


@pytest.mark.parametrize("error", DOWN, ids=lambda error: type(error).__name__)
def test_outage_shorter_than_max_stale_is_not_noticed(bench: Bench, error: KMSError) -> None:
    """Messages go on for all of it, and new ones open when it is over."""
    bench.pass_time(30)
    bench.fail(error)
    bench.pass_time(MAX_STALE - 100)
    bench.fail(None)
    bench.pass_time(2 * PROBE_INTERVAL)
    entry = bench.kms.keys._cache.entries["acme"]
    assert not entry.is_coasting
    bench.pass_time(2 * TTL)


def test_outage_longer_than_max_stale_fails_and_recovers(bench: Bench) -> None:
    """No key serves that was unwrapped longer ago; once the service is back all goes on."""
    bench.fail(ServiceUnavailable("down"))
    bench.clock.advance(MAX_STALE - 1)
    bench.use()
    bench.clock.advance(1)
    for _ in range(2):
        with pytest.raises(ServiceUnavailable, match="down"):
            bench.kms.keys.encrypt("acme", b"x")
        with pytest.raises(ServiceUnavailable, match="down"):
            bench.kms.keys.decrypt("acme", bench.message)
        bench.clock.advance(100)
    bench.fail(None)
    bench.use()


def test_key_and_ring_coast_each_from_their_own_time(manual_clock: ManualClock) -> None:
    """A KEK that is out of reach for longer than `max_stale` stops the tenant, store or not."""
    bench = Bench(manual_clock, key_ttl="100s", max_stale="500s")
    bench.unwraps.failure = ServiceUnavailable("the KEK is gone")
    bench.pass_time(499)
    bench.clock.advance(1)
    with pytest.raises(ServiceUnavailable, match="the KEK is gone"):
        bench.use()


@pytest.mark.parametrize("operation", ["loads", "unwraps"])
@pytest.mark.parametrize("error", NO, ids=lambda error: type(error).__name__)
def test_no_is_obeyed_and_not_coasted_over(bench: Bench, operation: str, error: KMSError) -> None:
    """A service that answers with a refusal ends it when the time of what is held is over."""
    bench.use()
    getattr(bench, operation).failure = error
    bench.clock.advance(TTL)
    with pytest.raises(type(error)):
        bench.use()
    bench.fail(ServiceUnavailable("down"))
    if operation == "unwraps":
        # The key was given up: nothing is left to coast on.
        with pytest.raises(ServiceUnavailable):
            bench.use()


def test_no_ends_an_outage_that_is_coasted_over(bench: Bench) -> None:
    """The first answer after an outage holds, though `max_stale` is far."""
    bench.fail(ServiceUnavailable("down"))
    bench.pass_time(600)
    bench.fail(None)
    bench.loads.failure = TenantNotFound("it was deleted")
    bench.clock.advance(2 * PROBE_INTERVAL)
    bench.use()
    bench.later.run()
    with pytest.raises(TenantNotFound):
        bench.use()


def test_disable_elsewhere_is_in_force_once_the_store_is_back(bench: Bench) -> None:
    """What was changed during an outage is obeyed within two probes' time after it."""
    bench.kms.keys.rotate("acme")
    bench.fail(ServiceUnavailable("down"))
    bench.pass_time(600)
    bench.loads.failure = None
    ring = bench.kms.keys._rings.store.load("acme")
    bench.fail(ServiceUnavailable("down"))
    changed = states.disabled(ring.ring, 1)
    assert changed is not None
    bench.kms.keys._rings.store.save(changed, ring)
    bench.use()
    bench.fail(None)
    bench.clock.advance(2 * PROBE_INTERVAL)
    bench.kms.keys.decrypt("acme", bench.message)
    bench.later.run()
    with pytest.raises(KeyUnavailable):
        bench.kms.keys.decrypt("acme", bench.message)


def test_outage_costs_one_try_an_interval_not_one_a_tenant(manual_clock: ManualClock) -> None:
    """A hundred warm tenants in use ask a store that is down once every few seconds in all."""
    bench = Bench(manual_clock)
    names = [f"t{number}" for number in range(100)]
    for name in names:
        bench.kms.keys.create(name)
        bench.kms.keys.encrypt(name, b"x")
    bench.fail(ServiceUnavailable("down"))
    bench.loads.calls.clear()
    bench.clock.advance(0.9 * RING_TTL)
    for _ in range(120):
        bench.clock.advance(1)
        for name in names:
            bench.kms.keys.encrypt(name, b"x")
        bench.later.run()
    assert bench.loads.count <= 120 / PROBE_INTERVAL + 2


def test_idle_tenants_do_not_wait_for_a_store_that_is_known_down(manual_clock: ManualClock) -> None:
    """After the first failure the others go on from memory without asking first."""
    bench = Bench(manual_clock)
    for number in range(50):
        bench.kms.keys.create(f"t{number}")
    bench.loads.calls.clear()
    bench.fail(ServiceUnavailable("down"))
    bench.clock.advance(2 * RING_TTL)
    for number in range(50):
        bench.kms.keys.encrypt(f"t{number}", b"x")
    assert bench.loads.count == 1


def test_who_waits_for_a_store_that_fails_obeys_what_was_done_meanwhile(bench: Bench) -> None:
    """A version disabled here is not used by a thread that was waiting for the store."""
    bench.kms.keys.rotate("acme")
    bench.clock.advance(2 * RING_TTL)
    entered, go_on = threading.Event(), threading.Event()

    def fail(*_: object) -> object:
        entered.set()
        assert go_on.wait(WAIT)
        raise ServiceUnavailable("down", backend="memory")

    bench.loads.instead = fail
    crew = Crew(lambda _: bench.kms.keys.decrypt("acme", bench.message), 1)
    until(entered.is_set)
    bench.loads.instead = None
    bench.kms.keys.disable("acme", 1)
    go_on.set()
    (outcome,) = crew.join()
    assert isinstance(outcome, KeyUnavailable)


@pytest.mark.parametrize("fails", [True, False])
def test_who_waits_for_a_kek_obeys_what_was_done_meanwhile(
    bench: Bench,
    fails: bool,  # noqa: FBT001
) -> None:
    """Nor by one that was waiting for a KEK."""
    bench.kms.keys.rotate("acme")
    bench.use()
    bench.clock.advance(2 * TTL)
    entered, go_on = threading.Event(), threading.Event()

    def answer(*arguments: Any) -> object:
        entered.set()
        assert go_on.wait(WAIT)
        if fails:
            raise ServiceUnavailable("down", backend="memory")
        found: object = bench.unwraps._original(*arguments)
        return found

    bench.unwraps.instead = answer
    crew = Crew(lambda _: bench.kms.keys.decrypt("acme", bench.message), 1)
    until(entered.is_set)
    bench.kms.keys.disable("acme", 1)
    go_on.set()
    (outcome,) = crew.join()
    assert isinstance(outcome, KeyUnavailable)


def test_kek_that_is_known_down_is_not_asked_again_for_each_of_many_tenants(
    manual_clock: ManualClock,
) -> None:
    """Nor for those whose whole ring has left memory: they coast without waiting for it."""
    bench = Bench(manual_clock)
    names = [f"t{number}" for number in range(MAX_RINGS + 100)]
    for name in names:
        bench.kms.keys.create(name)
        bench.kms.keys.encrypt(name, b"x")
    bench.unwraps.failure = ServiceUnavailable("down")
    bench.unwraps.calls.clear()
    bench.clock.advance(2 * TTL)
    for name in names:
        bench.kms.keys.encrypt(name, b"x")
    assert bench.unwraps.count == 1
    bench.clock.advance(PROBE_INTERVAL - 1)
    bench.later.run()
    assert bench.unwraps.count == 1


@pytest.mark.parametrize("cold", [True, False])
def test_one_tenants_trouble_at_the_store_does_not_age_the_others(
    manual_clock: ManualClock,
    cold: bool,  # noqa: FBT001
) -> None:
    """While the store answers for the others, a change of theirs is in force within `ring_ttl`."""
    bench = Bench(manual_clock)
    names = [f"t{number}" for number in range(50)]
    for name in [*names, "bad"]:
        bench.kms.keys.create(name)
        bench.kms.keys.encrypt(name, b"x")
    bench.clock.advance(2 * PROBE_INTERVAL)
    if cold:
        bench.kms.keys._cache._memory._give_up(bench.kms.keys._cache.entries["bad"])
    original = bench.loads._original

    def load(tenant: str) -> object:
        if tenant == "bad":
            raise ServiceUnavailable("its part of the store is broken", backend="memory")
        return original(tenant)

    bench.loads.instead = load
    oldest = 0.0
    for _ in range(300):
        bench.clock.advance(1)
        for name in ["bad", *names, "bad"]:
            with suppress(ServiceUnavailable):
                bench.kms.keys.encrypt(name, b"x")
        bench.later.run()
        entries = bench.kms.keys._cache.entries
        oldest = max(oldest, *(bench.clock() - entries[name].read for name in names))
    assert oldest <= RING_TTL + 2 * PROBE_INTERVAL


def test_cold_tenant_fails_and_is_tried_again_each_time(bench: Bench) -> None:
    """There is nothing to coast on; the error is the service's, and the next call asks again."""
    bench.kms.keys._cache.clear()
    bench.fail(ServiceUnavailable("down"))
    for expected in (1, 2, 3):
        with pytest.raises(ServiceUnavailable, match="down"):
            bench.kms.keys.encrypt("acme", b"x")
        assert bench.loads.count == expected
    bench.fail(None)
    bench.use()


def test_thousand_threads_at_an_outages_end_cost_one_unwrap_a_tenant(
    manual_clock: ManualClock,
) -> None:
    """A herd over a hundred cold tenants makes a hundred requests to the KEK, no more."""
    bench = Bench(manual_clock)
    names = [f"t{number:02}" for number in range(100)]
    messages = {}
    for name in names:
        bench.kms.keys.create(name)
        messages[name] = bench.kms.keys.encrypt(name, name.encode())
    bench.kms.keys._cache.clear()
    bench.fail(ServiceUnavailable("down"))
    for name in names:
        with pytest.raises(ServiceUnavailable):
            bench.kms.keys.decrypt(name, messages[name])
    bench.loads.calls.clear()
    bench.unwraps.calls.clear()
    bench.fail(None)

    def work(index: int) -> None:
        name = names[index % 100]
        assert bench.kms.keys.decrypt(name, messages[name]) == name.encode()

    in_threads(work, 1000)
    assert (bench.loads.count, bench.unwraps.count) == (100, 100)


@pytest.mark.parametrize("pattern", [2, 3, 10])
def test_backend_that_fails_now_and_then_is_not_noticed(bench: Bench, pattern: int) -> None:
    """One call in so many fails, for an hour: no message does."""
    turns = {"load_ring": 0, "unwrap_key": 0}

    def flap(spy: Spy, name: str) -> Any:
        def call(*arguments: Any) -> Any:
            turns[name] += 1
            if turns[name] % pattern == 0:
                raise ServiceUnavailable("a hiccup")
            return spy._original(*arguments)

        return call

    bench.loads.instead = flap(bench.loads, "load_ring")
    bench.unwraps.instead = flap(bench.unwraps, "unwrap_key")
    bench.pass_time(MAX_STALE, step=5.0)


def test_max_stale_of_nothing_coasts_over_nothing(manual_clock: ManualClock) -> None:
    """With `max_stale = "0s"` an outage is told when the ring is due."""
    bench = Bench(manual_clock, max_stale="0s")
    bench.fail(ServiceUnavailable("down"))
    bench.clock.advance(RING_TTL)
    with pytest.raises(ServiceUnavailable):
        bench.use()


def test_slow_store_holds_up_only_who_has_nothing_to_go_on(bench: Bench) -> None:
    """While the background waits for the store, messages go on until the ring is due."""
    entered, release = threading.Event(), threading.Event()

    def wait() -> None:
        entered.set()
        assert release.wait(WAIT)

    bench.loads.before = wait
    bench.clock.advance(0.85 * RING_TTL)
    bench.use()
    crew = Crew(lambda _: bench.later.run(), 1)
    until(entered.is_set)
    for _ in range(100):
        bench.use()
    release.set()
    crew.join()
    assert bench.loads.count == 1


# --- keys that are never held -----------------------------------------------------------------


def test_key_ttl_of_nothing_asks_the_kek_each_time(manual_clock: ManualClock) -> None:
    """Nothing is held, nothing is shared, and an outage is told at once."""
    bench = Bench(manual_clock, key_ttl="0s")
    for expected in range(1, 6):
        bench.kms.keys.decrypt("acme", bench.message)
        assert bench.unwraps.count == expected
    bench.kms.keys.encrypt("acme", b"x")
    assert bench.unwraps.count == 6
    entry = bench.kms.keys._cache.entries["acme"]
    assert entry.all_held() == []
    assert not bench.kms.keys._cache.epochs
    assert not entry.openers
    bench.unwraps.failure = ServiceUnavailable("down")
    with pytest.raises(ServiceUnavailable):
        bench.kms.keys.decrypt("acme", bench.message)


def test_rotation_without_holding_keys(manual_clock: ManualClock) -> None:
    """What create and rotate make is not held either."""
    bench = Bench(manual_clock, key_ttl="0s")
    bench.kms.keys.rotate("acme")
    assert bench.kms.keys._cache.entries["acme"].all_held() == []
    assert version_in(bench.kms.keys.encrypt("acme", b"x")) == 2


# --- clocks -----------------------------------------------------------------------------------


@pytest.mark.parametrize("jump", [-10 * 365 * 86400.0, 10 * 365 * 86400.0])
def test_wall_clock_that_jumps_changes_nothing(manual_clock: ManualClock, jump: float) -> None:
    """What is held follows the monotonic clock."""
    wall = [1_800_000_000.0]
    settings = read_settings(memory_config(), "test")
    with KMS(settings, clock=lambda: wall[0], now=manual_clock, background=Later()) as kms:
        kms.keys.create("acme")
        message = kms.keys.encrypt("acme", b"x")
        loads, unwraps = (Spy(kms, "memory", name) for name in ("load_ring", "unwrap_key"))
        wall[0] += jump
        assert kms.keys.decrypt("acme", message) == b"x"
        assert (loads.count, unwraps.count) == (0, 0)
        kms.keys.rotate("acme")
        assert kms.keys.decrypt("acme", message) == b"x"


# --- what is remembered of a failure ----------------------------------------------------------


def test_one_caller_probes_and_the_others_wait(manual_clock: ManualClock) -> None:
    """When the memory of a failure ends, one is let through, until that has worked."""
    outages = Outages(manual_clock)
    assert not outages.should_wait("kek")
    outages.failed("kek")
    assert outages.is_known("kek")
    assert outages.should_wait("kek")
    manual_clock.advance(PROBE_INTERVAL)
    assert not outages.is_known("kek")
    assert [outages.should_wait("kek") for _ in range(3)] == [False, True, True]
    outages.worked("kek")
    assert not outages.should_wait("kek")


def test_background_does_work_of_one_name_once_at_a_time() -> None:
    """A second submission while the first waits or runs is dropped; after it, it is not."""
    background = Background(threads=1)
    entered, release = threading.Event(), threading.Event()
    done: list[str] = []

    def first() -> None:
        entered.set()
        assert release.wait(WAIT)
        done.append("first")

    background.submit("a", first)
    until(entered.is_set)
    background.submit("a", lambda: done.append("dropped"))
    background.submit("b", lambda: done.append("second"))
    release.set()
    until(lambda: done == ["first", "second"])
    until(lambda: not background._names)
    background.submit("a", lambda: done.append("third"))
    until(lambda: done[-1] == "third")
    background.close()
    background.submit("a", lambda: done.append("never"))
    assert done == ["first", "second", "third"]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_background_outlives_work_that_raises_what_is_not_ours() -> None:
    """A fault in one piece of work stops no other, neither one that waits nor one that comes."""
    background = Background(threads=1)
    entered, release, done = threading.Event(), threading.Event(), threading.Event()

    def faulty() -> None:
        entered.set()
        assert release.wait(WAIT)
        raise MemoryError

    background.submit("faulty", faulty)
    until(entered.is_set)
    background.submit("waiting", done.set)
    release.set()
    assert done.wait(WAIT)
    background.submit("faulty", lambda: 1 / 0)
    again = threading.Event()
    background.submit("next", again.set)
    assert again.wait(WAIT)
    background.close()


# --- health and warming -------------------------------------------------------------------------


def test_health_is_asked_for_once_by_all_who_wait(bench: Bench) -> None:
    """Probes that pile up while a backend hangs cost it one question."""
    release = threading.Event()
    bench.loads.calls.clear()
    bench.loads.before = lambda: release.wait(WAIT)
    crew = Crew(lambda _: bench.kms.health(), 5)
    until(lambda: waiting_in_a_flight(crew.threads) == 4 or bench.loads.count > 1)
    release.set()
    assert all(answer == bench.kms.health() for answer in crew.join())
    assert bench.loads.count == 1


def test_health_that_was_asked_before_a_reload_is_not_kept_after_it(bench: Bench) -> None:
    """It is of other backends."""
    config = memory_config()
    entered, release = threading.Event(), threading.Event()

    def hold() -> None:
        entered.set()
        assert release.wait(WAIT)

    bench.loads.before = hold
    crew = Crew(lambda _: bench.kms.health(), 1)
    until(entered.is_set)
    config["test"]["backends"]["other"] = {"type": "memory"}
    config["test"]["keys"]["unwrap_with"] = ["other:k"]
    bench.kms.reload(config)
    release.set()
    crew.join()
    assert [each.name for each in bench.kms.health().backends] == ["memory", "other"]


def test_who_warms_is_who_the_events_name(bench: Bench) -> None:
    """Though several threads do it."""
    names = [f"t{number}" for number in range(5)]
    for name in names:
        bench.kms.keys.create(name)
    bench.kms.keys._cache.clear()
    who: list[object] = []
    bench.loads.before = lambda: who.append(current_actor())
    with actor("user:42", request_id="r-1"):
        assert bench.kms.warm(names) == {}
    assert who == [Actor("user:42", "r-1")] * 5
