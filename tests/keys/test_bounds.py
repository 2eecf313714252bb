"""What memory holds when there is more than it may: who stays, how much, and who is asked."""

from __future__ import annotations

import gc
import random
import threading
import tracemalloc

import pytest

from sentra_kms.config import read_settings
from sentra_kms.context import WrapContext
from sentra_kms.errors import KeyNotFound, KMSError, ServiceUnavailable
from sentra_kms.keys.cache import RELOAD_INTERVAL, KeyCache
from sentra_kms.keys.ring import Ring, Version, check_value, first_ring, new_version
from sentra_kms.keys.source import Bounds
from sentra_kms.keys.tenant_keys import WarmKeys
from sentra_kms.material import KeyMaterial
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
    until,
    with_version,
)
from tests.soak import scale, seed

MIB = 1024 * 1024


class Fleet:
    """Rings and keys made up on the spot, for more tenants than one would wrap keys of."""

    def __init__(self) -> None:
        self.loads = 0
        self.unwraps = 0
        self.asked: list[str] = []

    def load(self, tenant: str) -> tuple[Ring, str]:
        """Return a ring of one version."""
        self.loads += 1
        ring_id = f"{hash(tenant) & 0xFFFFFFFFFFFF:012x}".encode()
        where = WrapContext(tenant, ring_id, 1)
        version = new_version(1, 0.0, check_value(self._key(), where), (), None)
        return first_ring(tenant, ring_id, "default", version), ""

    def failed_at(self, error: KMSError) -> str:
        """The only store."""
        return ""

    def unwrap(self, ring: Ring, version: Version) -> KeyMaterial:
        """Return a key."""
        self.unwraps += 1
        self.asked.append(ring.tenant)
        return self._key()

    def seen(self, tenant: str) -> int:
        """No ring of it."""
        return 0

    def key_ttl(self, policy: str) -> float:
        """Long."""
        return 3600.0

    def is_out_of_reach(self, ring: Ring, version: Version) -> bool:
        """Never."""
        return False

    def _key(self) -> KeyMaterial:
        return KeyMaterial(bytes(32))


def open_memory(clock: ManualClock, **cache: object) -> KMS:
    """Open a KMS in memory."""
    return KMS(read_settings(memory_config(**cache), "test"), now=clock, background=Later())


# --- who stays ----------------------------------------------------------------------------------


@pytest.mark.no_cover
@pytest.mark.parametrize("use", ["encrypt", "decrypt", "both", "aio"])
@pytest.mark.parametrize("scan", ["encrypt", "decrypt"])
def test_hot_set_survives_a_scan(manual_clock: ManualClock, use: str, scan: str) -> None:
    """A job over ten times as many as there is room for drives out nobody who is in daily use."""
    bound, hot_count = 100, 40
    with open_memory(manual_clock, max_keys=bound) as kms:
        hot = [f"hot{number}" for number in range(hot_count)]
        cold = [f"cold{number}" for number in range(10 * bound)]
        messages = {}
        for name in hot + cold:
            kms.keys.create(name)
            messages[name] = kms.keys.encrypt(name, b"x")

        def visit(name: str, how: str) -> None:
            if how in {"encrypt", "both"}:
                kms.keys.encrypt(name, b"y")
            if how == "aio":
                assert WarmKeys(kms.keys._cache, name).try_decrypt(messages[name]) or (
                    kms.keys.decrypt(name, messages[name])
                )
            if how in {"decrypt", "both"}:
                assert kms.keys.decrypt(name, messages[name]) == b"x"

        for _ in range(5):
            for name in hot:
                visit(name, use)
        unwraps = Spy(kms, "memory", "unwrap_key")
        chance = random.Random(seed())
        for name in cold:
            visit(name, scan)
            for each in chance.sample(hot, 4):
                visit(each, use)
        asked = unwraps.count - len(cold)
        assert len(kms.keys._cache.entries) <= bound
        # Nineteen of twenty uses of the hot set ask nobody. (Who is read only is found out by
        # waiting for him to come by, which in so small a memory some do not do in time.)
        assert asked <= 4 * len(cold) // 20


def test_tenant_that_is_used_no_more_gives_way(manual_clock: ManualClock) -> None:
    """Yesterday's hot set does not fill memory for ever."""
    with open_memory(manual_clock, max_keys=20) as kms:
        old, new = ([f"{age}{number}" for number in range(15)] for age in ("old", "new"))
        for names in (old, new):
            for name in names:
                kms.keys.create(name)
            for _ in range(10):
                for name in names:
                    kms.keys.decrypt(name, kms.keys.encrypt(name, b"x"))
        assert set(new) <= set(kms.keys._cache.entries)


def test_what_was_driven_out_comes_back_as_it_was(manual_clock: ManualClock) -> None:
    """Every message of every tenant opens, whoever is in memory."""
    with open_memory(manual_clock, max_keys=3) as kms:
        names = [f"t{number}" for number in range(12)]
        messages = {}
        for name in names:
            kms.keys.create(name)
            messages[name] = kms.keys.encrypt(name, name.encode())
        chance = random.Random(seed())
        for _ in range(500):
            name = chance.choice(names)
            assert kms.keys.decrypt(name, messages[name]) == name.encode()
            assert len(kms.keys._cache.entries) <= 3


def test_ring_of_an_entry_is_at_hand_as_soon_as_the_entry_is(
    memory_kms: KMS, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else who finds the entry in that moment reads the ring once more."""
    memory_kms.keys.tenant("acme").encrypt(b"x")
    memory = memory_kms.keys._cache._memory
    memory_kms.keys._cache.clear()
    keep, release = memory._keep_ring, threading.Event()

    def keep_late(ring: Ring) -> None:
        assert release.wait(WAIT)
        keep(ring)

    monkeypatch.setattr(memory, "_keep_ring", keep_late)
    loading = Crew(lambda _: memory_kms.keys._cache.entry("acme"), 1)
    until(lambda: "acme" in memory.entries)
    asking = Crew(lambda _: memory.ring(memory.entries["acme"]), 1)
    asking.threads[0].join(0.1)  # as long as it may take to find nothing
    release.set()
    assert isinstance(asking.join()[0], Ring)
    loading.join()


# --- how much -------------------------------------------------------------------------------------


def test_bound_holds_under_threads_that_read_write_rotate_and_leave(
    manual_clock: ManualClock, busy_threads: None
) -> None:
    """Whatever sixteen threads do, entries, keys and queues agree afterwards."""
    bound = 20
    with open_memory(manual_clock, max_keys=bound) as kms:
        names = [f"t{number}" for number in range(60)]
        messages = {}
        for name in names:
            kms.keys.create(name)
            messages[name] = kms.keys.encrypt(name, b"x")
        base = seed()

        def work(index: int) -> None:
            chance = random.Random(base + index)
            for _ in range(100):
                name = chance.choice(names)
                turn = chance.random()
                if turn < 0.05:
                    kms.keys.rotate(name)
                elif turn < 0.5:
                    assert kms.keys.decrypt(name, messages[name]) == b"x"
                else:
                    kms.keys.decrypt(name, kms.keys.encrypt(name, b"y"))

        in_threads(work, 16)
        memory = kms.keys._cache._memory
        held = sum(len(entry.all_held()) for entry in memory.entries.values())
        assert held == memory._held <= bound
        assert len(memory.entries) <= bound
        queued = [*memory._eviction._small, *memory._eviction._main]
        assert set(memory.entries) <= set(queued)
        assert len(queued) <= 2 * bound
        openers = {(t, prefix) for t, e in memory.entries.items() for prefix in e.openers}
        assert openers == set(memory._openers)
        assert set(memory.epochs) <= set(memory.entries)


@pytest.mark.slow
@pytest.mark.soak
def test_hundred_thousand_tenants_fit_into_64_mib(manual_clock: ManualClock) -> None:
    """Each with its ring's state and its primary key, and what they share."""
    count = scale(ci=20_000, soak=100_000)
    names = [f"tenant-{number:06}" for number in range(count)]
    fleet = Fleet()
    cache = KeyCache(fleet, Bounds(60.0, 3600.0, count), now=manual_clock, background=Later())
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for name in names:
            cache.key(cache.entry(name), 1)
        gc.collect()
        used = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    print(f"{used / count:.0f} bytes a tenant, {used / MIB:.1f} MiB in all")  # noqa: T201
    assert (len(cache.entries), fleet.loads, fleet.unwraps) == (count, count, count)
    assert used <= 64 * MIB * count // 100_000
    fleet.asked.clear()
    for name in names:
        cache.key(cache.entry(name), 1)
    assert fleet.asked == []


# --- who is asked ---------------------------------------------------------------------------------


def forged(kms: KMS, tenant: str = "acme") -> bytes:
    """Return a message of the tenant's ring that names a version which there never was."""
    return with_version(kms.keys.encrypt(tenant, b"x"), 4_000_000_000)


def test_ten_thousand_forged_versions_a_second_cost_one_read(key_site: Site) -> None:
    """For each tenant, in threads and out; what is genuine goes on."""
    kms = key_site.open()
    for name in ("acme", "other"):
        kms.keys.create(name)
    bad = {name: forged(kms, name) for name in ("acme", "other")}
    good = kms.keys.encrypt("acme", b"x")
    loads = Spy(kms, "local", "load_ring")
    seconds = 5

    def work(index: int) -> None:
        for _ in range(250):
            for name, message in bad.items():
                with pytest.raises(KeyNotFound):
                    kms.keys.decrypt(name, message)
            assert kms.keys.decrypt("acme", good) == b"x"

    for _ in range(seconds):
        in_threads(work, 4)
        key_site.clock.advance(RELOAD_INTERVAL)
    counts = [sum(call == (name,) for call in loads.calls) for name in bad]
    assert counts == [seconds, seconds]


def test_every_other_forged_version_counts_as_well(key_site: Site) -> None:
    """It is the tenant's reads that are bounded, not those for one number."""
    kms = key_site.open()
    kms.keys.create("acme")
    message = kms.keys.encrypt("acme", b"x")
    loads = Spy(kms, "local", "load_ring")
    for number in range(2, 1000):
        with pytest.raises(KeyNotFound):
            kms.keys.decrypt("acme", with_version(message, number))
    assert loads.count == 1


def test_forced_reads_during_an_outage_are_bounded_too(key_site: Site) -> None:
    """One try a second; the others are told that the version may yet come."""
    kms = key_site.open()
    kms.keys.create("acme")
    message, good = forged(kms), kms.keys.encrypt("acme", b"x")
    loads = Spy(kms, "local", "load_ring")
    loads.failure = ServiceUnavailable("down for maintenance")
    for second in range(1, 4):
        with pytest.raises(ServiceUnavailable):
            kms.keys.decrypt("acme", message)
        for _ in range(100):
            with pytest.raises(KeyNotFound) as caught:
                kms.keys.decrypt("acme", message)
            assert caught.value.retryable
            assert kms.keys.decrypt("acme", good) == b"x"
        assert loads.count == second
        key_site.clock.advance(RELOAD_INTERVAL)
    entry = kms.keys._cache.entries["acme"]
    assert not entry.is_coasting


def test_forged_versions_do_not_hold_up_what_is_genuine(key_site: Site) -> None:
    """While the read that they forced hangs, warm messages go on."""
    kms = key_site.open()
    kms.keys.create("acme")
    message, good = forged(kms), kms.keys.encrypt("acme", b"x")
    kms.keys.decrypt("acme", good)
    entered, release = threading.Event(), threading.Event()

    def hang() -> None:
        entered.set()
        assert release.wait(WAIT)

    Spy(kms, "local", "load_ring").before = hang
    crew = Crew(lambda _: kms.keys.decrypt("acme", message), 8)
    until(entered.is_set)
    for _ in range(100):
        assert kms.keys.decrypt("acme", good) == b"x"
        kms.keys.encrypt("acme", b"y")
    release.set()
    assert {type(outcome) for outcome in crew.join()} == {KeyNotFound}


def test_times_of_forced_reads_do_not_pile_up(manual_clock: ManualClock) -> None:
    """Those of the last second are remembered, whatever tenants there are."""
    with open_memory(manual_clock) as kms:
        for number in range(50):
            kms.keys.create(f"t{number}")
            with pytest.raises(KeyNotFound):
                kms.keys.decrypt(f"t{number}", forged(kms, f"t{number}"))
            manual_clock.advance(RELOAD_INTERVAL)
        assert len(kms.keys._cache._forced_at) == 1
