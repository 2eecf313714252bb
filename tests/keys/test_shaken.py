"""Threads on one process's cache and store, switched as often as the interpreter can.

Whoever begins a message after a rotation returned writes under its version, or a newer one; and
every message ever made opens, here and elsewhere, whatever was rotated, rewrapped, forgotten or
read anew meanwhile.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from sentra_kms.config import read_settings
from sentra_kms.errors import AlreadyExists, KeyNotFound
from sentra_kms.runtime import KMS
from tests.keys.conftest import (
    ManualClock,
    Site,
    Spy,
    in_threads,
    memory_config,
    version_in,
)
from tests.soak import scale, seed

AUTH = ("local:m1", "local:m2")
WORKERS = 8
THOUSAND = 1000


class Journal:
    """What was sealed for which tenant, and the newest version that a rotation here returned."""

    def __init__(self, clock: ManualClock | None = None) -> None:
        self.clock = clock
        self.sealed: list[tuple[str, bytes, bytes]] = []
        self.floors: dict[str, int] = {}

    def seal(self, kms: KMS, tenant: str, plain: bytes, *, many: bool) -> None:
        """Seal under a version that is not older than what was in force when this began."""
        floor = self.floors.get(tenant, 1)
        box = (
            kms.keys.encrypt_many(tenant, [plain], [plain])[0]
            if many
            else kms.keys.encrypt(tenant, plain, plain)
        )
        assert version_in(box) >= floor
        self.sealed.append((tenant, box, plain))

    def open_one(self, kms: KMS, chance: random.Random) -> None:
        """Open something that anybody sealed at any time."""
        if self.sealed:
            self._open(kms, *chance.choice(self.sealed))

    def open_all(self, kms: KMS) -> None:
        """Open everything."""
        for each in self.sealed:
            self._open(kms, *each)

    def _open(self, kms: KMS, tenant: str, box: bytes, plain: bytes) -> None:
        while True:
            try:
                found = kms.keys.decrypt(tenant, box, plain)
            except KeyNotFound as error:
                if self.clock is None or not error.retryable:
                    raise
                self.clock.advance(1)  # made elsewhere, and the ring was read a moment ago
            else:
                assert found == plain
                return


# --- one thousand -----------------------------------------------------------------------------


@pytest.mark.parametrize("use", ["encrypt", "decrypt", "both"])
@pytest.mark.parametrize("store", ["local", "memory"])
def test_1000_threads_on_a_cold_tenant_cost_one_load_and_one_unwrap(
    key_site: Site, memory_kms: KMS, busy_threads: None, store: str, use: str
) -> None:
    """However many ask at once, the store is asked once and the KEK is asked once."""
    writer = memory_kms if store == "memory" else key_site.open()
    writer.keys.create("acme", exist_ok=True)
    message = writer.keys.encrypt("acme", b"x")
    if store == "memory":
        memory_kms.keys._cache.clear()
    kms = memory_kms if store == "memory" else key_site.open()
    loads, unwraps = (Spy(kms, store, name) for name in ("load_ring", "unwrap_key"))
    acme = kms.keys.tenant("acme")

    def work(index: int) -> bytes:
        if use == "encrypt" or (use == "both" and index % 2):
            return acme.encrypt(b"x")
        return acme.decrypt(message)

    found: list[Any] = in_threads(work, THOUSAND)
    assert (loads.count, unwraps.count) == (1, 1)
    sealed = [each for each in found if each != b"x"]
    assert acme.decrypt_many(sealed) == [b"x"] * len(sealed)
    assert len({each[68:80] for each in sealed}) == len(sealed)


def test_1000_threads_on_many_cold_tenants_cost_one_of_each(
    memory_kms: KMS, busy_threads: None
) -> None:
    """Ten tenants, ten loads and ten unwraps."""
    names = [f"t{number}" for number in range(10)]
    messages = {}
    for name in names:
        memory_kms.keys.create(name)
        messages[name] = memory_kms.keys.encrypt(name, name.encode())
    memory_kms.keys._cache.clear()
    loads, unwraps = (Spy(memory_kms, "memory", name) for name in ("load_ring", "unwrap_key"))

    def work(index: int) -> None:
        name = names[index % 10]
        assert memory_kms.keys.decrypt(name, messages[name]) == name.encode()

    in_threads(work, THOUSAND)
    assert sorted(call[0] for call in loads.calls) == names
    assert unwraps.count == 10


def test_16_threads_creating_tenants_in_memory_make_one_ring_each(
    manual_clock: ManualClock, busy_threads: None
) -> None:
    """One is told that it made the ring, all use the same one, and all that they seal opens."""
    journal = Journal()
    with KMS(read_settings(memory_config(), "test"), now=manual_clock) as kms:
        made: list[tuple[str, str]] = []

        def work(index: int) -> None:
            for number in range(20):
                tenant = f"t{number}"
                with suppress(AlreadyExists):
                    made.append((tenant, kms.keys.create(tenant).ring_id))
                journal.seal(kms, tenant, b"%d" % index, many=False)

        in_threads(work, 16)
        assert sorted(tenant for tenant, _ in made) == sorted(f"t{number}" for number in range(20))
        for tenant, ring_id in made:
            info = kms.keys.describe(tenant)
            assert (info.ring_id, info.sequence) == (ring_id, 1)
        kms.keys._cache.clear()
        journal.open_all(kms)


# --- while others rotate and rewrap -----------------------------------------------------------


@pytest.mark.soak
@pytest.mark.parametrize("max_keys", [1, 3, 10_000])
def test_messages_go_on_while_another_thread_rotates_in_memory(
    manual_clock: ManualClock, busy_threads: None, max_keys: int
) -> None:
    """With TTLs that run out all the time, and room for all keys or for hardly any."""
    settings = memory_config(max_keys=max_keys, key_ttl="10s", ring_ttl="3s")
    journal, stop, chance = Journal(), list[bool](), seed()
    with KMS(read_settings(settings, "test"), now=manual_clock) as kms:
        for tenant in ("acme", "other"):
            kms.keys.create(tenant)

        def rotate() -> None:
            try:
                for number in range(scale(ci=40, soak=600)):
                    tenant = ("acme", "other")[number % 2]
                    journal.floors[tenant] = kms.keys.rotate(tenant).primary or 0
                    manual_clock.advance(0.4)
                    if number % 10 == 9:
                        kms.keys._cache.clear()
            finally:
                stop.append(True)

        def write_and_read(index: int) -> None:
            own = random.Random(chance + index)
            for step in range(10**6):
                tenant = own.choice(("acme", "other"))
                journal.seal(kms, tenant, b"%d %d" % (index, step), many=own.random() < 0.2)
                journal.open_one(kms, own)
                if stop:
                    return

        in_threads(lambda index: write_and_read(index) if index else rotate(), WORKERS + 1)
        journal.open_all(kms)
        kms.keys._cache.clear()
        journal.open_all(kms)
        for tenant in ("acme", "other"):
            info = kms.keys.describe(tenant)
            assert info.primary == len(info.versions) == journal.floors[tenant]


@pytest.mark.soak
@pytest.mark.parametrize("opened_times", [1, 4])
def test_threads_create_rotate_and_rewrap_the_same_tenants(
    key_site: Site, busy_threads: None, opened_times: int
) -> None:
    """Over files and two KEKs, in one KMS or several: nothing is lost, nothing made twice."""
    configs: list[dict[str, Any]] = [
        {"unwrap_with": ("local:m2",), "authenticate_with": AUTH},
        {"unwrap_with": ("local:m1",), "authenticate_with": AUTH[::-1]},
    ]
    opened = [
        key_site.open(f"local:m{number % 2 + 1}", **configs[number % 2])
        for number in range(opened_times)
    ]
    journals, chance = [Journal(key_site.clock) for _ in opened], seed()
    made: list[tuple[str, str]] = []
    rotated: list[str] = []
    requests: list[tuple[str, str]] = []
    tenants = [f"t{number}" for number in range(4)]

    def create(kms: KMS, tenant: str) -> None:
        with suppress(AlreadyExists):
            made.append((tenant, kms.keys.create(tenant).ring_id))

    def work(index: int) -> None:
        own = random.Random(chance + index)
        kms, journal = opened[index % opened_times], journals[index % opened_times]
        for tenant in own.sample(tenants, len(tenants)):
            create(kms, tenant)
        for step in range(scale(ci=10, soak=100)):
            tenant = own.choice(tenants)
            act = own.randrange(4)
            if act == 0:
                primary = kms.keys.rotate(tenant).primary or 0
                journal.floors[tenant] = max(primary, journal.floors.get(tenant, 0))
                rotated.append(tenant)
            elif act == 1:
                kms.keys.rewrap(tenant)
            elif act == 2:
                kms.keys.rotate(tenant, request_id=f"r{step}")
                requests.append((tenant, f"r{step}"))
            journal.seal(kms, tenant, b"%d %d" % (index, step), many=own.random() < 0.2)
            own.choice(journals).open_one(kms, own)

    in_threads(work, WORKERS)
    assert sorted(tenant for tenant, _ in made) == tenants
    last = key_site.open("local:m2", **configs[1])
    for tenant, ring_id in made:
        info = last.keys.rewrap(tenant)
        asked = {request for name, request in requests if name == tenant}
        assert info.ring_id == ring_id
        assert {version.request for version in info.versions} - {None} == asked
        assert len(info.versions) == 1 + rotated.count(tenant) + len(asked)
    (key_site.home / "m1.secret").unlink()
    alone = key_site.open("local:m2")
    for journal in journals:
        for kms in (*opened, alone):
            journal.open_all(kms)


def test_rewraps_elsewhere_cost_warm_threads_no_unwrap(key_site: Site, busy_threads: None) -> None:
    """A ring that changes under them, again and again, leaves them the key that they hold."""
    one = key_site.open("local:m1", unwrap_with=("local:m2",), authenticate_with=AUTH)
    two = key_site.open("local:m2", unwrap_with=("local:m1",), authenticate_with=AUTH)
    one.keys.create("acme")
    kms = key_site.open("local:m1", unwrap_with=("local:m2",), authenticate_with=AUTH)
    kms.keys.encrypt("acme", b"x")
    unwraps = Spy(kms, "local", "unwrap_key")
    sealed: list[bytes] = []
    stop: list[bool] = []

    def rewrap() -> None:
        try:
            for number in range(10):
                (two, one)[number % 2].keys.rewrap("acme")
                key_site.clock.advance(25)
        finally:
            stop.append(True)

    def write() -> None:
        acme = kms.keys.tenant("acme")
        while not stop:
            sealed.append(acme.encrypt(b"x"))
            assert acme.decrypt(sealed[-1]) == b"x"

    actions: list[Callable[[], None]] = [rewrap, *[write] * 4]
    in_threads(lambda index: actions[index](), 5)
    assert kms.keys.describe("acme").sequence == 11
    assert unwraps.count == 0
    assert two.keys.decrypt_many("acme", sealed) == [b"x"] * len(sealed)
