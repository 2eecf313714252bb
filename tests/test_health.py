"""Whether a process can serve: what `health` asks, and what it makes of the answers."""

from __future__ import annotations

from typing import Any

import pytest

from sentra_kms.config import read_settings
from sentra_kms.errors import AccessDenied, ServiceUnavailable
from sentra_kms.runtime import KMS
from tests.keys.conftest import Later, ManualClock, Spy

DOWN = ServiceUnavailable("no route to host")


@pytest.fixture
def config() -> dict[str, Any]:
    """Two KEKs of ours, rings in a store, and a customer with a KEK of their own."""
    backends = {name: {"type": "memory"} for name in ("rings", "one", "two", "bank")}
    return {
        "test": {
            "development": True,
            "backends": backends,
            "keys": {"wrap_with": ["one:k", "two:k"], "min_wraps": 1, "store": "rings"},
            "policies": {"bank": {"wrap_with": ["bank:k"]}},
        }
    }


@pytest.fixture
def kms(config: dict[str, Any], manual_clock: ManualClock) -> Any:
    """A KMS that has read and unwrapped nothing yet, whose KEKs are there."""
    settings = read_settings(config, "test")
    with KMS(settings, now=manual_clock, background=Later()) as found:
        for name in ("one", "two", "bank"):
            found._wiring.bindings[name].describe_key("k")
        yield found


@pytest.fixture
def manual_clock() -> ManualClock:
    """A monotonic clock that stands still until the test moves it."""
    return ManualClock()


def test_all_answer(kms: KMS) -> None:
    """Live, ready, and every backend of keys and rings is named; nothing is decrypted."""
    unwraps = Spy(kms, "one", "unwrap_key")
    found = kms.health()
    assert (found.live, found.ready, unwraps.count) == (True, True, 0)
    assert [(each.name, each.ok, each.problems) for each in found.backends] == [
        (name, True, ()) for name in ("bank", "one", "rings", "two")
    ]


def test_answer_holds_for_five_seconds(kms: KMS, manual_clock: ManualClock) -> None:
    """Probes may come as often as they like."""
    loads = Spy(kms, "rings", "load_ring")
    for _ in range(10):
        kms.health()
        manual_clock.advance(0.49)
    assert loads.count == 1
    manual_clock.advance(0.2)
    kms.health()
    assert loads.count == 2


def test_customers_kek_that_is_gone_makes_no_process_unready(kms: KMS) -> None:
    """It is told; but who takes theirs back may not take everybody's service along."""
    Spy(kms, "bank", "describe_key").failure = AccessDenied("the key is disabled")
    found = kms.health()
    assert found.ready
    (bad,) = [each for each in found.backends if not each.ok]
    assert (bad.name, bad.problems) == ("bank", ("bank:k: the key is disabled",))


def test_one_of_several_keks_is_enough(kms: KMS, manual_clock: ManualClock) -> None:
    """Any one unwraps; without the last of them a process that holds nothing is not ready."""
    Spy(kms, "one", "describe_key").failure = DOWN
    assert kms.health().ready
    Spy(kms, "two", "describe_key").failure = DOWN
    manual_clock.advance(6)
    found = kms.health()
    assert (found.live, found.ready) == (True, False)
    assert [each.name for each in found.backends if not each.ok] == ["one", "two"]


def test_without_the_store_only_who_can_coast_is_ready(kms: KMS, manual_clock: ManualClock) -> None:
    """A process that has just started cannot read a ring; one that holds keys goes on."""
    loads = Spy(kms, "rings", "load_ring")
    loads.failure = DOWN
    assert not kms.health().ready
    loads.failure = None
    kms.keys.create("acme")
    kms.keys.encrypt("acme", b"x")
    loads.failure = DOWN
    manual_clock.advance(6)
    assert kms.health().ready
    manual_clock.advance(3600)
    assert not kms.health().ready


def test_closed(kms: KMS) -> None:
    """It is neither live nor ready, and asks nobody."""
    loads = Spy(kms, "rings", "load_ring")
    kms.close()
    found = kms.health()
    assert (found.live, found.ready, found.backends, loads.count) == (False, False, (), 0)


def test_kek_for_each_tenant_is_not_asked(config: dict[str, Any]) -> None:
    """There is no telling whose to ask; its backend counts as answering."""
    config["test"]["policies"]["bank"]["wrap_with"] = ["bank:t-{tenant}"]
    with KMS(read_settings(config, "test")) as kms:
        asked = Spy(kms, "bank", "describe_key")
        found = kms.health()
    assert asked.count == 0
    assert [each.name for each in found.backends if each.ok] == ["bank", "one", "rings", "two"]
