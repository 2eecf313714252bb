"""Key versions disabled, enabled, scheduled, taken back and destroyed; tenants shredded."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from sentra_kms.config import read_settings
from sentra_kms.errors import (
    AlreadyExists,
    KeyNotFound,
    KeyUnavailable,
    KMSError,
    MalformedInput,
    ServiceUnavailable,
    TenantNotFound,
    UnsupportedOperation,
)
from sentra_kms.events import actor
from sentra_kms.keys.info import RingInfo
from sentra_kms.keys.receipt import verify_receipt
from sentra_kms.runtime import KMS
from tests.keys.conftest import Later, ManualClock, Site, Spy, memory_config, version_in

DAY = timedelta(days=1)
GRACE = timedelta(days=30)


class Calendar:
    """Seconds since 1970 that pass when the test says so."""

    def __init__(self) -> None:
        self.now = datetime(2026, 11, 26, 12, 0, 0, tzinfo=UTC)

    def __call__(self) -> float:
        """Return the time."""
        return self.now.timestamp()


@pytest.fixture
def calendar() -> Calendar:
    """The wall clock of the tests."""
    return Calendar()


@pytest.fixture
def kms(manual_clock: ManualClock, calendar: Calendar) -> Any:
    """A KMS in memory whose tenant `acme` has three versions."""
    settings = read_settings(memory_config(), "test")
    with KMS(settings, clock=calendar, now=manual_clock, background=Later()) as found:
        found.keys.create("acme")
        found.keys.rotate("acme")
        found.keys.rotate("acme")
        yield found


def state(ring: RingInfo, number: int) -> str:
    """Return a version's state."""
    (found,) = (version for version in ring.versions if version.version == number)
    return found.state


@pytest.fixture
def messages(manual_clock: ManualClock, calendar: Calendar) -> Any:
    """A KMS and a message under each of three versions."""
    settings = read_settings(memory_config(), "test")
    with KMS(settings, clock=calendar, now=manual_clock, background=Later()) as found:
        found.keys.create("acme")
        made = [found.keys.encrypt("acme", b"1")]
        for number in (2, 3):
            found.keys.rotate("acme")
            made.append(found.keys.encrypt("acme", str(number).encode()))
        yield found, made


def test_disabled_version_opens_nothing_until_it_is_enabled(messages: Any) -> None:
    """At once here, also where key and subkey were warm; the others go on."""
    kms, (one, two, three) = messages
    assert kms.keys.decrypt("acme", one) == b"1"
    ring = kms.keys.disable("acme", 1)
    assert [version.state for version in ring.versions] == ["disabled", "enabled", "enabled"]
    with pytest.raises(KeyUnavailable, match="version 1 of tenant 'acme' is disabled"):
        kms.keys.decrypt("acme", one)
    assert kms.keys.decrypt("acme", two) == b"2"
    assert kms.keys.decrypt("acme", three) == b"3"
    entry = kms.keys._cache.entries["acme"]
    assert entry.key(1) is None
    assert all(opener.version != 1 for opener in entry.openers.values())
    assert state(kms.keys.enable("acme", 1), 1) == "enabled"
    assert kms.keys.decrypt("acme", one) == b"1"


def test_state_it_has_is_no_error_and_saves_nothing(kms: KMS) -> None:
    """Each change may be asked for again; a time of destruction that was set stays."""
    once = kms.keys.disable("acme", 1)
    assert kms.keys.disable("acme", 1) == once
    assert kms.keys.enable("acme", 2).sequence == once.sequence
    first = kms.keys.schedule_destroy("acme", 1, after=GRACE)
    assert kms.keys.schedule_destroy("acme", 1, after=DAY) == first
    back = kms.keys.cancel_destroy("acme", 1)
    assert kms.keys.cancel_destroy("acme", 1) == back
    assert state(back, 1) == "disabled"


def test_primary_is_neither_disabled_nor_destroyed(kms: KMS) -> None:
    """While nothing else encrypts it may not go; after a rotation it may."""
    before = kms.keys.describe("acme")
    uses: list[Callable[[], object]] = [
        lambda: kms.keys.disable("acme", 3),
        lambda: kms.keys.schedule_destroy("acme", 3, after=GRACE),
    ]
    for use in uses:
        with pytest.raises(UnsupportedOperation, match="rotate first"):
            use()
    assert kms.keys.describe("acme") == before
    kms.keys.rotate("acme")
    assert state(kms.keys.disable("acme", 3), 3) == "disabled"


@pytest.mark.parametrize("begin", ["enabled", "disabled"])
def test_scheduled_version_comes_back_disabled(
    messages: Any, calendar: Calendar, begin: str
) -> None:
    """From either state; meanwhile it opens nothing."""
    kms, (one, _, _) = messages
    if begin == "disabled":
        kms.keys.disable("acme", 1)
    ring = kms.keys.schedule_destroy("acme", 1, after=GRACE)
    assert state(ring, 1) == "scheduled"
    assert ring.versions[0].destroy_after == calendar.now + GRACE
    with pytest.raises(KeyUnavailable, match="is scheduled"):
        kms.keys.decrypt("acme", one)
    ring = kms.keys.cancel_destroy("acme", 1)
    assert (state(ring, 1), ring.versions[0].destroy_after) == ("disabled", None)
    kms.keys.enable("acme", 1)
    assert kms.keys.decrypt("acme", one) == b"1"


def test_time_of_destruction_is_never_early(kms: KMS, calendar: Calendar) -> None:
    """A part of a second is rounded up, not down."""
    calendar.now += timedelta(milliseconds=300)
    ring = kms.keys.schedule_destroy("acme", 1, after=DAY)
    when = ring.versions[0].destroy_after
    assert when is not None
    assert calendar.now + DAY <= when < calendar.now + DAY + timedelta(seconds=1)


def test_clock_that_is_behind_takes_nothing_off_the_time_of_grace(
    kms: KMS, calendar: Calendar
) -> None:
    """As of a machine that came up in 1970: no version was made after now."""
    right = calendar.now
    calendar.now = datetime(1970, 1, 1, tzinfo=UTC)
    ring = kms.keys.schedule_destroy("acme", 1, after=GRACE)
    assert ring.versions[0].destroy_after == right + GRACE
    calendar.now = right + GRACE - timedelta(seconds=1)
    assert kms.keys.destroy_due().destroyed == ()


def test_time_of_grace_ends_with_the_calendar(kms: KMS, calendar: Calendar) -> None:
    """However far ahead a clock is: the year 10000 is in no ring."""
    calendar.now = datetime(9999, 6, 1, tzinfo=UTC)
    ring = kms.keys.schedule_destroy("acme", 1, after=365 * DAY)
    assert ring.versions[0].destroy_after == datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)


def test_what_is_due_is_destroyed_and_nothing_else(messages: Any, calendar: Calendar) -> None:
    """Its wraps are gone from the ring, its check value stays, and no way leads back."""
    kms, (one, two, three) = messages
    check = kms.keys._rings.store.load("acme").ring.versions[0].check
    kms.keys.schedule_destroy("acme", 1, after=GRACE)
    kms.keys.schedule_destroy("acme", 2, after=2 * GRACE)
    assert kms.keys.destroy_due().destroyed == ()
    calendar.now += GRACE
    report = kms.keys.destroy_due()
    assert [(each.tenant, each.versions) for each in report.destroyed] == [("acme", (1,))]
    assert report.failed == {}
    stored = kms.keys._rings.store.load("acme").ring
    assert [version.state for version in stored.versions] == ["destroyed", "scheduled", "enabled"]
    assert stored.versions[0].wraps == ()
    assert stored.versions[0].check == check
    with pytest.raises(KeyUnavailable, match="is destroyed"):
        kms.keys.decrypt("acme", one)
    with pytest.raises(KeyUnavailable, match="is scheduled"):
        kms.keys.decrypt("acme", two)
    assert kms.keys.decrypt("acme", three) == b"3"
    for use in (kms.keys.enable, kms.keys.disable, kms.keys.cancel_destroy):
        with pytest.raises(KeyUnavailable, match="is destroyed"):
            use("acme", 1)
    with pytest.raises(KeyUnavailable, match="is destroyed"):
        kms.keys.schedule_destroy("acme", 1, after=GRACE)
    assert kms.keys.destroy_due().destroyed == ()
    assert kms.keys.rewrap("acme").versions[0].state == "destroyed"


def test_report_says_what_may_remain(kms: KMS, calendar: Calendar) -> None:
    """Memory of other processes with its end, and the KEKs of backups."""
    kms.keys.schedule_destroy("acme", 1, after=timedelta(0))
    (done,) = kms.keys.destroy_due().destroyed
    memory, backups = done.remains
    assert memory.where.startswith("memory of processes that hold the keys")
    assert memory.until == (calendar.now + timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    assert "memory:k (key id " in backups.where


def test_report_promises_of_an_idle_process_only_what_it_does(
    key_site: Site, manual_clock: ManualClock
) -> None:
    """Nothing wakes it up: it uses the keys no more, and lets go of them when it is asked next."""
    here, idle = key_site.open(), key_site.open()
    here.keys.create("acme")
    message = idle.keys.encrypt("acme", b"x")
    memory = here.keys.shred("acme", confirm="acme").destroyed.remains[0]
    manual_clock.advance(2 * 3600)
    assert idle.keys._cache.entries["acme"].all_held()
    assert "until then at the latest, and hold them until" in memory.where
    with pytest.raises(KeyUnavailable):
        idle.keys.decrypt("acme", message)
    assert not idle.keys._cache.entries["acme"].all_held()


def test_one_tenant_that_fails_does_not_stop_the_others(kms: KMS) -> None:
    """It is reported with its error, and may be tried again."""
    for name in ("b", "c"):
        kms.keys.create(name)
        kms.keys.rotate(name)
    for name in ("acme", "b", "c"):
        kms.keys.schedule_destroy(name, 1, after=timedelta(0))
    saves = Spy(kms, "memory", "save_ring")
    real = saves._original

    def fail_b(tenant: str, document: bytes, expected: str | None) -> str:
        if tenant == "b":
            raise ServiceUnavailable("the disk is full")
        found: str = real(tenant, document, expected)
        return found

    saves.instead = fail_b
    report = kms.keys.destroy_due()
    assert [each.tenant for each in report.destroyed] == ["acme", "c"]
    assert {name: type(error) for name, error in report.failed.items()} == {"b": ServiceUnavailable}
    saves.instead = None
    assert [each.tenant for each in kms.keys.destroy_due().destroyed] == ["b"]


def test_shredded_tenant_opens_nothing_and_is_never_made_again(messages: Any) -> None:
    """Its ring stays without keys, in every process; to shred it again is no error."""
    kms, made = messages
    shredded = kms.keys.shred("acme", confirm="acme")
    assert shredded.destroyed.versions == (1, 2, 3)
    ring = kms.keys.describe("acme")
    assert ring.primary is None
    assert {version.state for version in ring.versions} == {"destroyed"}
    for message in made:
        with pytest.raises(KeyUnavailable):
            kms.keys.decrypt("acme", message)
    with pytest.raises(KeyUnavailable):
        kms.keys.encrypt("acme", b"x")
    with pytest.raises(KeyUnavailable, match="was shredded"):
        kms.keys.rotate("acme")
    with pytest.raises(AlreadyExists):
        kms.keys.create("acme")
    again = kms.keys.shred("acme", confirm="acme")
    assert kms.keys.describe("acme") == ring
    assert again.destroyed.versions == (1, 2, 3)


@pytest.mark.parametrize("confirm", ["", "Acme", "other", None, b"acme"])
def test_shred_wants_the_name_twice(messages: Any, confirm: Any) -> None:
    """Anything else changes nothing."""
    kms, made = messages
    for use in (kms.keys.shred, kms.keys.revoke):
        with pytest.raises(MalformedInput, match="confirm='acme'"):
            use("acme", confirm=confirm)
    assert kms.keys.decrypt("acme", made[0]) == b"1"


def test_receipt_of_a_shredding_can_be_verified(kms: KMS, calendar: Calendar) -> None:
    """It says who, when and what, under which KEKs, and what remains; one edit is refused."""
    before = kms.keys._rings.store.load("acme").ring
    with actor("user:42", request_id="r-7"):
        shredded = kms.keys.shred("acme", confirm="acme")
    authenticator = kms.keys._rings.store.authenticator
    receipt = verify_receipt(authenticator, shredded.receipt)
    assert (receipt.operation, receipt.tenant, receipt.policy) == ("shred", "acme", "default")
    assert (receipt.actor, receipt.request) == ("user:42", "r-7")
    assert receipt.time == calendar.now.strftime("%Y-%m-%dT%H:%M:%SZ")
    assert receipt.sequence == before.sequence + 1
    assert [version.check for version in receipt.versions] == [v.check for v in before.versions]
    assert all(wrap.kek == "memory:k" for v in receipt.versions for wrap in v.wraps)
    assert receipt.remains == shredded.destroyed.remains
    assert json.loads(shredded.receipt.partition(b"\n")[0])["tenant"] == "acme"
    edited = shredded.receipt.replace(b'"user:42"', b'"user:43"')
    with pytest.raises(KMSError):
        verify_receipt(authenticator, edited)


@pytest.mark.parametrize("after", [timedelta(seconds=-1), timedelta(days=3651), 30, "30d", None])
def test_grace_is_a_timedelta_within_bounds(kms: KMS, after: Any) -> None:
    """Another type, a time that is past or one beyond ten years is refused."""
    before = kms.keys.describe("acme")
    with pytest.raises(MalformedInput, match="timedelta from 0 to 3650 days"):
        kms.keys.schedule_destroy("acme", 1, after=after)
    assert kms.keys.describe("acme") == before


def test_version_or_tenant_that_is_not_there(kms: KMS) -> None:
    """Is said as such, with the versions that there are."""
    uses: list[Callable[[str, int], object]] = [
        kms.keys.disable,
        kms.keys.enable,
        kms.keys.cancel_destroy,
        lambda tenant, number: kms.keys.schedule_destroy(tenant, number, after=GRACE),
    ]
    for use in uses:
        with pytest.raises(KeyNotFound, match="has no version 9: it has 1, 2, 3"):
            use("acme", 9)
        with pytest.raises(TenantNotFound):
            use("nobody", 1)
    with pytest.raises(TenantNotFound):
        kms.keys.shred("nobody", confirm="nobody")


def test_change_from_a_state_that_does_not_lead_there(kms: KMS) -> None:
    """The error says which step comes first."""
    kms.keys.schedule_destroy("acme", 1, after=GRACE)
    for use in (kms.keys.enable, kms.keys.disable):
        with pytest.raises(KeyUnavailable, match="cancel its destruction first"):
            use("acme", 1)
    with pytest.raises(KeyUnavailable, match="nothing to cancel"):
        kms.keys.cancel_destroy("acme", 2)


def test_change_elsewhere_is_in_force_within_the_rings_ttl(key_site: Site) -> None:
    """No message opens under a version that was disabled a `ring_ttl` ago, and no KEK is asked."""
    here, elsewhere = key_site.open(), key_site.open()
    here.keys.create("acme")
    old = here.keys.encrypt("acme", b"x")
    here.keys.rotate("acme")
    assert here.keys.decrypt("acme", old) == b"x"
    elsewhere.keys.disable("acme", 1)
    assert here.keys.decrypt("acme", old) == b"x"
    key_site.clock.advance(60)
    unwraps = Spy(here, "local", "unwrap_key")
    with pytest.raises(KeyUnavailable):
        here.keys.decrypt("acme", old)
    assert unwraps.count == 0
    assert version_in(here.keys.encrypt("acme", b"y")) == 2


def test_every_state_survives_the_store(key_site: Site, calendar: Calendar) -> None:
    """What one process saved, another reads: all four states in one ring."""
    kms = KMS(read_settings(key_site.config(), "test"), clock=calendar, now=key_site.clock)
    kms.keys.create("acme")
    for _ in range(3):
        kms.keys.rotate("acme")
    kms.keys.disable("acme", 1)
    kms.keys.schedule_destroy("acme", 2, after=timedelta(0))
    kms.keys.destroy_due()
    kms.keys.schedule_destroy("acme", 3, after=GRACE)
    kms.close()
    fresh = key_site.open().keys.describe("acme")
    assert [version.state for version in fresh.versions] == [
        "disabled",
        "destroyed",
        "scheduled",
        "enabled",
    ]


def test_report_tells_of_copies_that_a_file_system_may_have(
    key_site: Site, calendar: Calendar
) -> None:
    """What a killed writer left in the key directory is removed; snapshots can only be told of."""
    settings = read_settings(key_site.config(), "test")
    with KMS(settings, clock=calendar, now=key_site.clock, background=Later()) as kms:
        kms.keys.create("acme")
        left = key_site.directory / ".acme.0a1b2c3d.tmp"
        left.touch(0o600)
        remains = kms.keys.shred("acme", confirm="acme").destroyed.remains
    assert not left.exists()
    places = [each.where for each in remains]
    assert any(f"snapshots and backups of {key_site.directory}" in place for place in places)
