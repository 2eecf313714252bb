"""Policies in use: whose KEKs wrap and unwrap, for how long, and how one gives way to another."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

import sentra_kms
from sentra_kms import wiring
from sentra_kms.config import read_settings
from sentra_kms.errors import (
    ConfigurationError,
    KeyNotFound,
    KeyUnavailable,
    KMSError,
    ServiceUnavailable,
    TenantNotFound,
    UnsupportedOperation,
)
from sentra_kms.keys.info import RingInfo
from sentra_kms.runtime import KMS
from tests.keys.conftest import (
    ROOT,
    WAIT,
    Later,
    ManualClock,
    Site,
    Spy,
    in_fork,
    until,
    version_in,
)

DOWN = ServiceUnavailable("down for maintenance")


class Shop:
    """A configuration that the test edits, and a KMS over it: KEKs of ours and of a customer."""

    def __init__(self, clock: ManualClock) -> None:
        self.clock = clock
        self.wall = datetime(2026, 11, 26, 12, 0, 0, tzinfo=UTC)
        self.table: dict[str, Any] = {
            "development": True,
            "backends": {name: {"type": "memory"} for name in ("ours", "cust", "rings")},
            "keys": {
                "wrap_with": ["ours:k"],
                "authenticate_with": ["rings:auth"],
                "store": "rings",
            },
            "policies": {
                "gold": {"wrap_with": ["cust:gold"], "key_ttl": "30s"},
                "own": {"wrap_with": ["cust:t-{tenant}"]},
                "both": {"wrap_with": ["cust:k", "ours:k"], "min_wraps": 1},
            },
        }
        self.later = Later()
        self.source = {"test": self.table}
        self.kms = KMS(
            read_settings(self.source, "test"),
            clock=self.seconds,
            now=clock,
            source=self.source,
            background=self.later,
        )
        self.keys = self.kms.keys

    def seconds(self) -> float:
        """Return the time of the wall clock, as it is when this is called."""
        return self.wall.timestamp()

    def spy(self, backend: str, operation: str) -> Spy:
        """Stand before an operation."""
        return Spy(self.kms, backend, operation)

    def elsewhere(self) -> KMS:
        """Return another KMS over the same backends, as in another process."""
        other = KMS(
            read_settings(self.source, "test"),
            now=self.clock,
            source=self.source,
            background=Later(),
        )
        for name, binding in self.kms._wiring.bindings.items():
            other._wiring.bindings[name]._hooks = binding._hooks
        return other


@pytest.fixture
def shop(manual_clock: ManualClock) -> Iterator[Shop]:
    """A shop of our own and a customer's KEKs."""
    found = Shop(manual_clock)
    yield found
    found.kms.close()


def keks(ring: RingInfo) -> list[list[str]]:
    """Return the KEKs that wrap each version."""
    return [[wrap.kek for wrap in version.wraps] for version in ring.versions]


# --- whose KEKs ---------------------------------------------------------------------------------


def test_ring_is_wrapped_under_its_policys_keks(shop: Shop) -> None:
    """At creation and at each rotation; the ring remembers its policy."""
    shop.keys.create("plain")
    ring = shop.keys.create("acme", policy="gold")
    assert (ring.policy, keks(ring)) == ("gold", [["cust:gold"]])
    assert keks(shop.keys.rotate("acme")) == [["cust:gold"]] * 2
    assert keks(shop.keys.describe("plain")) == [["ours:k"]]


def test_unknown_policy_makes_nothing(shop: Shop) -> None:
    """The error names the policies that there are."""
    shop.keys.create("acme")
    with pytest.raises(ConfigurationError, match=r"no policy 'silver'.*both, default, gold, own"):
        shop.keys.create("b", policy="silver")
    with pytest.raises(ConfigurationError, match="no policy 'silver'"):
        shop.keys.set_policy("acme", "silver")
    assert list(shop.keys.tenants()) == ["acme"]
    assert shop.keys.describe("acme").policy == "default"


def test_existing_ring_keeps_its_policy(shop: Shop) -> None:
    """`exist_ok` describes what is there, and changes nothing."""
    made = shop.keys.create("acme", policy="gold")
    assert shop.keys.create("acme", exist_ok=True) == made


def test_ring_is_unwrapped_under_its_own_policys_keks_only(shop: Shop) -> None:
    """Another policy's KEK, or that of [keys], is not asked, though a wrap of it were there."""
    shop.keys.create("acme", policy="both")
    message = shop.keys.encrypt("acme", b"x")
    shop.table["policies"]["both"] = {"wrap_with": ["cust:other"]}
    shop.kms.reload()
    shop.keys._cache.clear()
    asked = [shop.spy(name, "unwrap_key") for name in ("ours", "cust")]
    with pytest.raises(KeyNotFound, match="policy 'both' allows cust:other"):
        shop.keys.decrypt("acme", message)
    assert [spy.count for spy in asked] == [0, 0]


def test_unwrap_with_of_keys_and_policy_both_open(shop: Shop) -> None:
    """A KEK that has gone from `wrap_with` opens as long as either table names it."""
    shop.keys.create("acme", policy="gold")
    message = shop.keys.encrypt("acme", b"x")
    for where in ("policies", "keys"):
        shop.table["policies"]["gold"] = {"wrap_with": ["ours:new"]}
        shop.table["keys"].pop("unwrap_with", None)
        table = shop.table["keys"] if where == "keys" else shop.table["policies"]["gold"]
        table["unwrap_with"] = ["cust:gold"]
        shop.kms.reload()
        shop.keys._cache.clear()
        assert shop.keys.decrypt("acme", message) == b"x"
    assert keks(shop.keys.rewrap("acme")) == [["ours:new"]]


def test_each_tenant_has_a_kek_of_its_own(shop: Shop) -> None:
    """`{tenant}` is the tenant's id; a wrap of one tenant's KEK opens no other ring."""
    for name in ("acme", "Acme", "a.b-c_d"):
        shop.keys.create(name, policy="own")
        assert keks(shop.keys.describe(name)) == [[f"cust:t-{name}"]]
        shop.keys._cache.clear()
        assert shop.keys.decrypt(name, shop.keys.encrypt(name, b"x")) == b"x"
    asked = shop.spy("cust", "unwrap_key")
    shop.keys._cache.clear()
    shop.keys.encrypt("Acme", b"x")
    assert [call[0] for call in asked.calls] == ["t-Acme"]
    assert shop.keys.rewrap("acme").sequence == 1


def test_tenant_whose_own_kek_would_be_everybodys_is_refused(shop: Shop) -> None:
    """An id that makes the pattern name a KEK of the default policy: shredding would not be its."""
    shop.table["keys"]["wrap_with"] = ["cust:t-shared"]
    shop.kms.reload()
    with pytest.raises(ConfigurationError, match="cust:t-shared"):
        shop.keys.create("shared", policy="own")
    before = shop.keys.create("shared")
    with pytest.raises(ConfigurationError, match="cust:t-shared"):
        shop.keys.set_policy("shared", "own")
    assert shop.keys.describe("shared") == before
    assert keks(shop.keys.create("acme", policy="own")) == [["cust:t-acme"]]


def test_tenant_for_whom_two_keks_of_a_policy_are_one_is_refused(shop: Shop) -> None:
    """And told so, and not that a stored ring is not valid."""
    shop.table["policies"]["own"]["wrap_with"] = ["cust:t-acme", "cust:t-{tenant}"]
    shop.kms.reload()
    with pytest.raises(ConfigurationError, match="cust:t-acme"):
        shop.keys.create("acme", policy="own")
    assert keks(shop.keys.create("b", policy="own")) == [["cust:t-acme", "cust:t-b"]]


# --- some KEKs down -------------------------------------------------------------------------------


def test_kek_that_is_down_is_recorded_and_mended_by_rewrap(shop: Shop) -> None:
    """With `min_wraps` fewer KEKs than all will do, at creation and rotation."""
    wraps = shop.spy("cust", "wrap_key")
    wraps.failure = DOWN
    made = shop.keys.create("acme", policy="both")
    assert [v.missing for v in made.versions] == [("cust:k",)]
    rotated = shop.keys.rotate("acme")
    assert [v.missing for v in rotated.versions] == [("cust:k",)] * 2
    assert keks(rotated) == [["ours:k"]] * 2
    message = shop.keys.encrypt("acme", b"x")
    shop.keys._cache.clear()
    assert shop.keys.decrypt("acme", message) == b"x"
    again = shop.keys.rewrap("acme")  # it is still down
    assert [v.missing for v in again.versions] == [("cust:k",)] * 2
    wraps.failure = None
    mended = shop.keys.rewrap("acme")
    assert [v.missing for v in mended.versions] == [()] * 2
    assert keks(mended) == [["cust:k", "ours:k"]] * 2
    shop.spy("ours", "unwrap_key").failure = DOWN
    shop.keys._cache.clear()
    assert shop.keys.decrypt("acme", message) == b"x"


def test_rewrap_with_a_kek_down_saves_nothing_new(shop: Shop) -> None:
    """What is missing stays missing: a rewrap that mends nothing is no new sequence."""
    shop.spy("cust", "wrap_key").failure = DOWN
    made = shop.keys.create("acme", policy="both")
    assert shop.keys.rewrap("acme").sequence == made.sequence


def test_fewer_keks_than_min_wraps_save_nothing(shop: Shop) -> None:
    """Neither a ring nor a version; the message tells of every KEK that failed."""
    shop.table["policies"]["three"] = {
        "wrap_with": ["ours:k", "cust:a", "rings:b"],
        "min_wraps": 2,
    }
    shop.kms.reload()
    shop.keys.create("acme", policy="three")
    before = shop.keys.describe("acme")
    for name in ("ours", "rings"):
        shop.spy(name, "wrap_key").failure = ServiceUnavailable(f"{name} is down", backend=name)
    with pytest.raises(ServiceUnavailable, match=r"ours is down.*rings is down"):
        shop.keys.create("b", policy="three")
    with pytest.raises(ServiceUnavailable, match=r"ours is down.*rings is down"):
        shop.keys.rotate("acme")
    with pytest.raises(TenantNotFound):
        shop.keys.describe("b")
    assert shop.keys.describe("acme") == before


# --- from one policy to another -------------------------------------------------------------------


def test_set_policy_moves_every_wrap(shop: Shop) -> None:
    """The old KEKs unwrap, the new ones wrap, policy and wraps are saved at once."""
    shop.keys.create("acme")
    messages = [shop.keys.encrypt("acme", b"1")]
    shop.keys.rotate("acme")
    messages.append(shop.keys.encrypt("acme", b"2"))
    shop.keys.disable("acme", 1)
    saves = shop.spy("rings", "save_ring")
    ring = shop.keys.set_policy("acme", "gold")
    assert saves.count == 1
    assert (ring.policy, keks(ring)) == ("gold", [["cust:gold"]] * 2)
    assert [version.state for version in ring.versions] == ["disabled", "enabled"]
    shop.keys.enable("acme", 1)
    shop.keys._cache.clear()
    asked = shop.spy("ours", "unwrap_key")
    assert [shop.keys.decrypt("acme", each) for each in messages] == [b"1", b"2"]
    assert asked.count == 0


def test_set_policy_again_saves_nothing(shop: Shop) -> None:
    """It may be retried."""
    shop.keys.create("acme")
    once = shop.keys.set_policy("acme", "gold")
    assert shop.keys.set_policy("acme", "gold") == once


@pytest.mark.parametrize("operation", ["unwrap_key", "wrap_key"])
def test_set_policy_that_fails_half_way_saves_nothing(shop: Shop, operation: str) -> None:
    """The second of three versions cannot be opened, or wrapped: policy and wraps stay."""
    shop.keys.create("acme")
    shop.keys.rotate("acme")
    shop.keys.rotate("acme")
    before = shop.keys.describe("acme")
    spy = shop.spy("ours" if operation == "unwrap_key" else "cust", operation)

    def fail_second() -> None:
        spy.failure = DOWN if spy.count == 2 else None

    spy.before = fail_second
    with pytest.raises(ServiceUnavailable):
        shop.keys.set_policy("acme", "gold")
    assert shop.keys.describe("acme") == before


def test_key_is_held_as_the_new_policy_says(shop: Shop) -> None:
    """What was held under the old policy is not: with `key_ttl` 0 the KMS is asked each time."""
    shop.table["policies"]["each"] = {"wrap_with": ["cust:each"], "key_ttl": "0s"}
    shop.kms.reload()
    shop.keys.create("acme")
    message = shop.keys.encrypt("acme", b"x")
    assert shop.keys.decrypt("acme", message) == b"x"
    shop.keys.set_policy("acme", "each")
    asked = shop.spy("cust", "unwrap_key")
    for expected in (1, 2, 3):
        assert shop.keys.decrypt("acme", message) == b"x"
        assert asked.count == expected
    shop.keys.encrypt("acme", b"x")
    assert asked.count == 4
    asked.failure = DOWN
    with pytest.raises(ServiceUnavailable):
        shop.keys.decrypt("acme", message)
    with pytest.raises(ServiceUnavailable):
        shop.keys.encrypt("acme", b"x")


def test_key_that_is_fetched_while_its_policy_changes_is_not_held(shop: Shop) -> None:
    """It was unwrapped under the old policy, for the old time."""
    shop.table["policies"]["each"] = {"wrap_with": ["cust:each"], "key_ttl": "0s"}
    shop.kms.reload()
    shop.keys.create("acme")
    message = shop.keys.encrypt("acme", b"x")
    shop.keys._cache.clear()
    fetches = shop.spy("ours", "unwrap_key")

    def change() -> None:
        fetches.before = None
        shop.keys.set_policy("acme", "each")

    fetches.before = change
    assert shop.keys.decrypt("acme", message) == b"x"
    asked = shop.spy("cust", "unwrap_key")
    for expected in (1, 2):
        assert shop.keys.decrypt("acme", message) == b"x"
        assert asked.count == expected


def test_policy_set_elsewhere_is_obeyed_within_the_rings_ttl(shop: Shop) -> None:
    """Keys that were held under the policy before are asked for anew."""
    shop.keys.create("acme")
    message = shop.keys.encrypt("acme", b"x")
    elsewhere = shop.elsewhere()
    elsewhere.keys.set_policy("acme", "gold")
    asked = shop.spy("cust", "unwrap_key")
    shop.clock.advance(60)
    assert shop.keys.decrypt("acme", message) == b"x"
    assert asked.count == 1
    shop.clock.advance(29)
    shop.keys.decrypt("acme", message)
    shop.clock.advance(1)
    shop.keys.decrypt("acme", message)
    assert asked.count == 2


def test_each_policy_has_its_own_key_ttl(shop: Shop) -> None:
    """Ten times shorter for gold than for the default."""
    for name, policy in (("a", None), ("g", "gold")):
        shop.keys.create(name, policy=policy)
        shop.keys.encrypt(name, b"x")
    ours, theirs = shop.spy("ours", "unwrap_key"), shop.spy("cust", "unwrap_key")
    for _ in range(5):
        shop.clock.advance(30)
        for name in ("a", "g"):
            shop.keys.encrypt(name, b"x")
    assert (ours.count, theirs.count) == (0, 5)


# --- release and revoke ---------------------------------------------------------------------------


def test_released_tenant_keeps_its_data_without_its_kek(shop: Shop) -> None:
    """Their KEK wraps nothing any more, and may be destroyed; all messages still open."""
    shop.keys.create("acme", policy="gold")
    message = shop.keys.encrypt("acme", b"x")
    ring = shop.keys.release("acme")
    assert (ring.policy, keks(ring)) == ("default", [["ours:k"]])
    shop.spy("cust", "unwrap_key").failure = KeyUnavailable("destroyed")
    shop.keys._cache.clear()
    assert shop.keys.decrypt("acme", message) == b"x"
    assert shop.keys.release("acme") == ring


def test_release_from_a_policy_that_our_kek_backs_too(shop: Shop) -> None:
    """A KEK of the default policy is ours and may stay; theirs goes."""
    shop.keys.create("acme", policy="both")
    assert keks(shop.keys.release("acme")) == [["ours:k"]]


def test_release_that_would_leave_their_kek_is_refused(shop: Shop) -> None:
    """To a policy under which the same KEK wraps: nothing changes."""
    shop.table["policies"]["again"] = {"wrap_with": ["ours:k", "cust:gold"]}
    shop.kms.reload()
    before = shop.keys.create("acme", policy="gold")
    with pytest.raises(KeyUnavailable, match="cust:gold would go on wrapping"):
        shop.keys.release("acme", "again")
    assert shop.keys.describe("acme") == before


def test_release_needs_their_kek_and_changes_nothing_without_it(shop: Shop) -> None:
    """Once it is gone there is nothing to release, only to revoke."""
    before = shop.keys.create("acme", policy="gold")
    shop.spy("cust", "unwrap_key").failure = KeyUnavailable("their KEK is disabled")
    with pytest.raises(KeyUnavailable, match="their KEK is disabled"):
        shop.keys.release("acme")
    assert shop.keys.describe("acme") == before


def test_revoked_tenants_data_is_gone_and_no_kek_was_asked(shop: Shop) -> None:
    """Their KEK need not answer, nor need its policy be known any more."""
    shop.keys.create("acme", policy="gold")
    message = shop.keys.encrypt("acme", b"x")
    del shop.table["policies"]["gold"]
    shop.kms.reload()
    asked = [shop.spy(name, "unwrap_key") for name in ("ours", "cust")]
    done = shop.keys.revoke("acme", confirm="acme")
    assert done.destroyed.versions == (1,)
    assert [spy.count for spy in asked] == [0, 0]
    with pytest.raises(KeyUnavailable):
        shop.keys.decrypt("acme", message)


def test_tenant_without_a_kek_of_its_own_is_not_revoked(shop: Shop) -> None:
    """It is shredded, if that is meant."""
    before = shop.keys.create("acme")
    with pytest.raises(UnsupportedOperation, match="shred it"):
        shop.keys.revoke("acme", confirm="acme")
    assert shop.keys.describe("acme") == before


# --- when rotation is due -------------------------------------------------------------------------


def test_overdue_rotation_is_told(shop: Shop) -> None:
    """By the policy of the ring, from the second on at which it is due; rotating ends it."""
    shop.table["keys"]["rotate_after"] = "30d"
    shop.table["policies"]["gold"]["rotate_after"] = "1d"
    shop.kms.reload()
    born = shop.wall
    made = shop.keys.create("g", policy="gold")
    assert (made.rotation_due, made.is_overdue) == (born + timedelta(days=1), False)
    assert shop.keys.create("a").rotation_due == born + timedelta(days=30)
    shop.wall = born + timedelta(days=1, seconds=-1)
    assert not shop.keys.describe("g").is_overdue
    shop.wall = born + timedelta(days=1)
    assert shop.keys.describe("g").is_overdue
    assert not shop.keys.describe("a").is_overdue
    rotated = shop.keys.rotate("g")
    assert (rotated.rotation_due, rotated.is_overdue) == (born + timedelta(days=2), False)


def test_nothing_is_due_without_a_time(shop: Shop) -> None:
    """Without `rotate_after`, for a shredded tenant, and for a policy that is gone."""
    assert shop.keys.create("acme").rotation_due is None
    shop.table["policies"]["gold"]["rotate_after"] = "1d"
    shop.kms.reload()
    shop.keys.create("g", policy="gold")
    shop.keys.shred("g", confirm="g")
    assert shop.keys.describe("g").rotation_due is None
    shop.keys.create("h", policy="gold")
    del shop.table["policies"]["gold"]
    shop.kms.reload()
    assert shop.keys.describe("h").rotation_due is None


def test_rotation_that_is_never_due_is_no_error(shop: Shop) -> None:
    """A time beyond the calendar is none."""
    shop.table["keys"]["rotate_after"] = "99999999d"
    shop.kms.reload()
    ring = shop.keys.create("acme")
    assert (ring.rotation_due, ring.is_overdue) == (None, False)


def test_key_held_for_ever_by_others_is_reported_without_a_time(shop: Shop) -> None:
    """`max_stale` beyond the calendar: the destruction is done and its report says so."""
    shop.table["cache"] = {"max_stale": "99999999d"}
    shop.kms.reload()
    shop.keys.create("acme")
    done = shop.keys.shred("acme", confirm="acme")
    assert done.destroyed.remains[0].until is None


# --- reload ---------------------------------------------------------------------------------------


def test_reload_adds_a_backend_and_a_policy_while_messages_flow(shop: Shop) -> None:
    """No message fails, bindings that did not change are the same objects, handles go on."""
    shop.keys.create("acme")
    acme = shop.keys.tenant("acme")
    before = dict(shop.kms._wiring.bindings)
    stop, failures, done = threading.Event(), [], [0] * 4

    def use(index: int) -> None:
        while not stop.is_set():
            try:
                assert acme.decrypt(acme.encrypt(b"x")) == b"x"
                if done[index] % 10 == 0:
                    shop.keys.describe("acme")
            except BaseException as error:  # noqa: BLE001 - the test looks at it
                failures.append(error)
                return
            done[index] += 1

    threads = [threading.Thread(target=use, args=(index,), daemon=True) for index in range(4)]
    for thread in threads:
        thread.start()
    for number in range(20):
        shop.table["backends"][f"new{number}"] = {"type": "memory"}
        shop.table["policies"][f"p{number}"] = {"wrap_with": [f"new{number}:k"]}
        shop.kms.reload()
        shop.keys.create(f"t{number}", policy=f"p{number}")
    mark = list(done)
    until(lambda: bool(failures) or all(now > then for now, then in zip(done, mark, strict=True)))
    stop.set()
    for thread in threads:
        thread.join(WAIT)
    assert failures == []
    after = shop.kms._wiring.bindings
    assert all(after[name] is binding for name, binding in before.items())
    assert acme.decrypt(acme.encrypt(b"y")) == b"y"
    assert keks(shop.keys.describe("t7")) == [["new7:k"]]


def test_reload_closes_what_is_gone_after_its_time(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not before what may be under way has had twice its timeout; what stays is not closed."""
    shop.table["backends"]["gone"] = {"type": "memory", "timeout": "7s"}
    shop.kms.reload()
    gone, ours = (shop.kms._wiring.bindings[name] for name in ("gone", "ours"))
    timers: list[Any] = []

    class Timer:
        daemon = False

        def __init__(self, interval: float, work: Any, args: Any = (), kwargs: Any = None) -> None:
            self.interval, self.work, self.args = interval, work, args
            timers.append(self)

        def start(self) -> None:
            assert self.daemon

        def cancel(self) -> None:
            timers.remove(self)

    monkeypatch.setattr(threading, "Timer", Timer)
    del shop.table["backends"]["gone"]
    shop.kms.reload()
    assert "gone" not in shop.kms._wiring.bindings
    assert [gone._closed, ours._closed] == [False, False]
    (timer,) = timers
    assert timer.interval == 14.0
    timer.work(*timer.args)
    assert [gone._closed, ours._closed] == [True, False]
    shop.keys.create("acme")


def test_close_closes_what_reloads_have_retired(shop: Shop) -> None:
    """Their time of grace ends with the KMS."""
    shop.table["backends"]["gone"] = {"type": "memory"}
    shop.kms.reload()
    gone = shop.kms._wiring.bindings["gone"]
    del shop.table["backends"]["gone"]
    shop.kms.reload()
    shop.kms.close()
    assert gone._closed
    with pytest.raises(UnsupportedOperation, match="closed"):
        shop.kms.reload()


def test_reload_that_a_close_overtakes_opens_nothing(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A KMS that is closed stays closed, and so does what the reload had begun to bind."""
    real = wiring.Wiring
    made: list[Any] = []

    def slow(*arguments: Any) -> Any:
        wiring = real(*arguments)
        made.append(wiring)
        closer = threading.Thread(target=shop.kms.close)
        closer.start()
        closer.join(0.5)  # it may have to wait for the reload to end
        closers.append(closer)
        return wiring

    closers: list[threading.Thread] = []
    monkeypatch.setattr("sentra_kms.runtime.Wiring", slow)
    shop.table["backends"]["new"] = {"type": "memory"}
    with contextlib.suppress(UnsupportedOperation):
        shop.kms.reload()
    closers[0].join(WAIT)
    assert all(binding._closed for binding in made[0].bindings.values())
    with pytest.raises(UnsupportedOperation, match="closed"):
        shop.keys.describe("acme")


@pytest.mark.parametrize(
    "edit",
    [
        {"backends": {}},
        {"policies": {"gold": {"wrap_with": ["nowhere:k"]}}},
        {"policies": {"gold": {"wrap_wiht": ["ours:k"]}}},
        {"keys": {"wrap_with": ["ours:k"], "store": "files", "authenticate_with": ["ours:a"]}},
        {"cache": {"key_ttl": 5}},
        {"backends": "none"},
    ],
    ids=lambda edit: str(edit)[:30],
)
def test_bad_configuration_leaves_all_as_it_was(shop: Shop, edit: dict[str, Any]) -> None:
    """Unknown backends, misspelt keys, a store that keeps no rings: everything goes on."""
    shop.keys.create("acme", policy="gold")
    message = shop.keys.encrypt("acme", b"x")
    in_use = shop.kms._wiring
    broken = {**shop.table, **edit}
    broken["backends"] = (
        {**shop.table["backends"], "files": {"type": "file"}}
        if ("backends" not in edit)
        else edit["backends"]
    )
    with pytest.raises(KMSError):
        shop.kms.reload({"test": broken})
    assert shop.kms._wiring is in_use
    shop.keys._cache.clear()
    assert shop.keys.decrypt("acme", message) == b"x"
    shop.keys.rotate("acme")
    shop.kms.reload()  # the source that `load` was given is still the one
    assert shop.keys.decrypt("acme", message) == b"x"


def test_keys_table_cannot_come_or_go(shop: Shop) -> None:
    """That takes a restart, and says so."""
    with pytest.raises(ConfigurationError, match="without a restart"):
        shop.kms.reload({"test": {"development": True, "backends": {}}})
    with sentra_kms.load({"test": {"development": True}}, environment="test") as none:
        with pytest.raises(ConfigurationError, match="without a restart"):
            none.reload(shop.source)
        none.reload({"test": {"development": True, "backends": {"m": {"type": "memory"}}}})


def test_policy_that_goes_while_its_keys_are_warm_is_missed_at_once(shop: Shop) -> None:
    """Its rings are no longer used; put back, they are, and other tenants never notice."""
    shop.keys.create("acme", policy="gold")
    shop.keys.create("other")
    message = shop.keys.encrypt("acme", b"x")
    assert shop.keys.decrypt("acme", message) == b"x"
    gold = shop.table["policies"].pop("gold")
    shop.kms.reload()
    for use in (
        lambda: shop.keys.decrypt("acme", message),
        lambda: shop.keys.encrypt("acme", b"y"),
        lambda: shop.keys.rotate("acme"),
        lambda: shop.keys.rewrap("acme"),
    ):
        with pytest.raises(ConfigurationError, match="no policy 'gold', which 'acme' follows"):
            use()
    assert shop.keys.describe("acme").policy == "gold"
    shop.keys.encrypt("other", b"z")
    shop.table["policies"]["gold"] = gold
    shop.kms.reload()
    assert shop.keys.decrypt("acme", message) == b"x"


def test_policy_that_goes_during_an_outage_is_not_coasted_over(shop: Shop) -> None:
    """The configuration's no is a no."""
    shop.keys.create("acme", policy="gold")
    message = shop.keys.encrypt("acme", b"x")
    shop.spy("cust", "unwrap_key").failure = DOWN
    shop.clock.advance(31)
    assert shop.keys.decrypt("acme", message) == b"x"  # coasting
    del shop.table["policies"]["gold"]
    shop.kms.reload()
    with pytest.raises(ConfigurationError):
        shop.keys.decrypt("acme", message)


@pytest.mark.parametrize("key_ttl", ["10s", "0s"])
def test_shorter_key_ttl_holds_for_what_is_held(shop: Shop, key_ttl: str) -> None:
    """Also for writers' salts and readers' subkeys; what is in force is what is configured."""
    shop.keys.create("acme")
    message = shop.keys.encrypt("acme", b"x")
    assert shop.keys.decrypt("acme", message) == b"x"
    shop.table["cache"] = {"key_ttl": key_ttl, "max_stale": "0s"}
    shop.kms.reload()
    asked = shop.spy("ours", "unwrap_key")
    shop.clock.advance(10)
    shop.keys.encrypt("acme", b"x")
    assert asked.count == 1
    shop.keys.decrypt("acme", message)
    assert asked.count == (2 if key_ttl == "0s" else 1)


def test_shorter_ring_ttl_holds_for_what_is_held(shop: Shop) -> None:
    """A change made elsewhere is in force within the new time, not the old."""
    shop.table["cache"] = {"ring_ttl": "1d"}
    shop.kms.reload()
    shop.keys.create("acme")
    shop.keys.rotate("acme")
    shop.keys.encrypt("acme", b"x")
    shop.table["cache"] = {"ring_ttl": "10s"}
    shop.kms.reload()
    shop.elsewhere().keys.rotate("acme")
    shop.clock.advance(10)
    assert version_in(shop.keys.encrypt("acme", b"x")) == 3


def test_longer_ttls_disturb_nobody(shop: Shop) -> None:
    """Nothing is asked anew because of a reload that does not shorten anything."""
    shop.keys.create("acme")
    message = shop.keys.encrypt("acme", b"x")
    shop.keys.decrypt("acme", message)
    shop.table["cache"] = {"key_ttl": "1h", "ring_ttl": "10m", "max_keys": 5}
    spies = [shop.spy("ours", "unwrap_key"), shop.spy("rings", "load_ring")]
    shop.kms.reload()
    shop.keys.decrypt("acme", message)
    shop.keys.encrypt("acme", b"x")
    assert [spy.count for spy in spies] == [0, 0]
    assert shop.later.work == {}


def test_smaller_bound_holds_from_the_next_key_on(shop: Shop) -> None:
    """`max_keys` of the new configuration."""
    for number in range(20):
        shop.keys.create(f"t{number}")
    shop.table["cache"] = {"max_keys": 5}
    shop.kms.reload()
    shop.keys.create("one-more")
    assert len(shop.keys._cache.entries) == 5


def test_mapping_that_load_was_given_is_read_as_it_is_now(tmp_path: Any) -> None:
    """And a file likewise, from where it was found."""
    table: dict[str, Any] = {
        "development": True,
        "backends": {"m": {"type": "memory"}},
        "keys": {"wrap_with": ["m:k"], "store": "m"},
    }
    with sentra_kms.load({"test": table}, environment="test") as kms:
        table["policies"] = {"gold": {"wrap_with": ["m:gold"]}}
        with pytest.raises(ConfigurationError):
            kms.keys.create("acme", policy="gold")
        kms.reload()
        assert kms.keys.create("acme", policy="gold").policy == "gold"
    path = tmp_path / "sentra-kms.toml"
    text = (
        '[test]\ndevelopment = true\n[test.backends.m]\ntype = "memory"\n'
        '[test.keys]\nwrap_with = ["m:k"]\nstore = "m"\n'
    )
    path.write_text(text)
    with sentra_kms.load(path, environment="test") as kms:
        path.write_text(text + '[test.policies.gold]\nwrap_with = ["m:gold"]\n')
        kms.reload()
        assert kms.keys.create("acme", policy="gold").policy == "gold"
        path.write_text(text + "[test.polices]\n")
        with pytest.raises(ConfigurationError, match="did you mean 'policies'"):
            kms.reload()
        path.unlink()
        with pytest.raises(ConfigurationError):
            kms.reload()
        assert kms.keys.describe("acme").policy == "gold"


def test_backends_whose_credentials_changed_place_are_bound_anew(key_site: Site) -> None:
    """A backend is as it was only if all that its references lead to is."""
    config = key_site.config("local:m1")
    table = config["test"]
    key_site.secret("m1")
    table["backends"]["keys-dir"] = {"type": "file"}
    table["backends"]["local"]["master_keys"]["m1"] = f"keys-dir://{key_site.home}/m1.secret"
    kms = KMS(read_settings(config, "test"), now=key_site.clock, source=config, background=Later())
    kms.keys.create("acme")
    before = dict(kms._wiring.bindings)
    kms.reload()
    assert all(kms._wiring.bindings[name] is binding for name, binding in before.items())
    table["backends"]["keys-dir"]["timeout"] = "9s"
    kms.reload()
    assert kms._wiring.bindings["local"] is not before["local"]
    assert kms._wiring.bindings["keys-dir"] is not before["keys-dir"]
    assert kms.keys.decrypt("acme", kms.keys.encrypt("acme", b"x")) == b"x"
    kms.close()


def test_reload_that_fails_closes_what_it_had_bound(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing that a refused configuration made is left open."""
    real = wiring.Wiring._bind
    left: list[Any] = []

    def bind(self: wiring.Wiring, backend: Any) -> Any:
        left.append(real(self, backend))
        return left[-1]

    monkeypatch.setattr(wiring.Wiring, "_bind", bind)
    broken = {
        **shop.table,
        "backends": {**shop.table["backends"], "new": {"type": "memory"}, "f": {"type": "file"}},
        "keys": {**shop.table["keys"], "store": "f"},
    }
    with pytest.raises(UnsupportedOperation):
        shop.kms.reload({"test": broken})
    assert {"new", "f"} <= {binding.name for binding in left}
    assert all(binding._closed for binding in left)
    assert not any(binding._closed for binding in shop.kms._wiring.bindings.values())


def test_fork_during_a_reload_does_not_stop_the_childs(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread that held the lock stayed in the parent."""
    real = wiring.Wiring
    entered, release = threading.Event(), threading.Event()

    def slow(*arguments: Any) -> Any:
        entered.set()
        release.wait(WAIT)
        return real(*arguments)

    monkeypatch.setattr("sentra_kms.runtime.Wiring", slow)
    thread = threading.Thread(target=shop.kms.reload, daemon=True)
    thread.start()
    assert entered.wait(WAIT)

    def child() -> bytes:
        release.set()
        shop.kms.reload()
        shop.kms.close()
        return b"done"

    assert in_fork(child) == b"done"
    release.set()
    thread.join(WAIT)


RELOAD_FOR_EVER = """
import json, os, sys
import sentra_kms
config = json.loads(sys.argv[1])
kms = sentra_kms.load(config, environment="test")
kms.keys.encrypt("acme", b"x")
table = config["test"]
number = 0
while True:
    number += 1
    table["policies"] = {f"p{number}": {"wrap_with": ["local:m1"]}}
    kms.reload()
    os.write(1, b".")
"""


def test_killed_during_a_reload_leaves_everything_as_it_was(key_site: Site) -> None:
    """A reload writes nothing, to rings or beside them."""
    kms = key_site.open()
    kms.keys.create("acme")
    message = kms.keys.encrypt("acme", b"x")
    before = {path.name: path.read_bytes() for path in key_site.directory.iterdir()}
    for _ in range(3):
        child = subprocess.Popen(
            [sys.executable, "-c", RELOAD_FOR_EVER, json.dumps(key_site.config())],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": ROOT},
        )
        assert child.stdout is not None
        assert child.stdout.read(3) == b"..."
        child.send_signal(signal.SIGKILL)
        child.communicate(timeout=WAIT)
    assert {path.name: path.read_bytes() for path in key_site.directory.iterdir()} == before
    assert key_site.open().keys.decrypt("acme", message) == b"x"
