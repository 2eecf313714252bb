"""Keys are destroyed once, and what was destroyed is told whatever happens on the way."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone

import pytest

from sentra_kms.config import read_settings
from sentra_kms.errors import Conflict, ServiceUnavailable
from sentra_kms.events import actor
from sentra_kms.hooktypes import Remainder
from sentra_kms.keys.receipt import Receipt, Remains, verify_receipt
from sentra_kms.keys.store import RingStore
from sentra_kms.runtime import KMS
from tests.keys.conftest import Later, ManualClock, Spy, memory_config

NOW = timedelta(0)


@pytest.fixture
def kms(manual_clock: ManualClock) -> Iterator[KMS]:
    """A KMS in memory whose tenants `acme` and `other` have two versions each."""
    settings = read_settings(memory_config(), "test")
    with KMS(
        settings, clock=lambda: 1_800_000_000.0, now=manual_clock, background=Later()
    ) as found:
        for tenant in ("acme", "other"):
            found.keys.create(tenant)
            found.keys.rotate(tenant)
        yield found


def said(kms: KMS, receipt: bytes) -> Receipt:
    """Return what a receipt says."""
    return verify_receipt(kms.keys._rings.store.authenticator, receipt)


@pytest.mark.parametrize(
    ("name", "request_id", "told"),
    [
        ("", "", (None, None)),
        ("user:\udcff", "\ud800", (r"user:\udcff", r"\ud800")),
        ("x" * 2_000_000, "y" * 2_000_000, ("x" * 1024, "y" * 1024)),
    ],
    ids=["empty", "no Unicode", "long"],
)
def test_receipt_is_handed_out_whatever_the_actor_is_called(
    kms: KMS, name: str, request_id: str, told: tuple[str | None, str | None]
) -> None:
    """The keys are gone by then: text that no receipt can hold may not cost it."""
    with actor(name, request_id=request_id):
        receipt = said(kms, kms.keys.shred("acme", confirm="acme").receipt)
    assert (receipt.actor, receipt.request) == told


@pytest.mark.parametrize("again", [False, True])
def test_backups_are_told_with_every_kek_that_may_open_them(kms: KMS, *, again: bool) -> None:
    """The last KEKs are named, and that older backups may be under others; also the second time."""
    shredded = kms.keys.shred("acme", confirm="acme")
    if again:
        shredded = kms.keys.shred("acme", confirm="acme")
    *_, backups = shredded.destroyed.remains
    assert backups.where.startswith(
        "backups of the ring made before, as long as a KEK that wrapped"
    )
    assert ("memory:k (key id " in backups.where) is not again
    assert backups.until is None
    assert said(kms, shredded.receipt).remains == shredded.destroyed.remains


def lose_one_answer(kms: KMS) -> Spy:
    """Save the next ring, and answer as if somebody else had been faster."""
    saves = Spy(kms, "memory", "save_ring")
    real: Callable[..., str] = saves._original

    def save(tenant: str, document: bytes, expected: str | None) -> str:
        saves.instead = None
        real(tenant, document, expected)
        raise Conflict("somebody else saved first")

    saves.instead = save
    return saves


def test_what_was_due_is_reported_though_the_answer_was_lost(kms: KMS) -> None:
    """A client below that asks again gets a conflict with its own save."""
    kms.keys.schedule_destroy("acme", 1, after=NOW)
    saves = lose_one_answer(kms)
    (done,) = kms.keys.destroy_due().destroyed
    assert (done.tenant, done.versions) == ("acme", (1,))
    assert any("memory:k (key id " in each.where for each in done.remains)
    assert saves.count == 1


def test_receipt_has_the_wraps_though_the_answer_was_lost(kms: KMS) -> None:
    """They are those of the ring as it was before."""
    lose_one_answer(kms)
    shredded = kms.keys.shred("acme", confirm="acme")
    receipt = said(kms, shredded.receipt)
    assert [len(version.wraps) for version in receipt.versions] == [1, 1]
    assert receipt.sequence == kms.keys.describe("acme").sequence
    assert any("memory:k (key id " in each.where for each in shredded.destroyed.remains)


def test_nothing_is_destroyed_unreported_when_the_list_breaks_off(
    kms: KMS, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store that stops listing half way stops it before the first key is destroyed."""
    for tenant in ("acme", "other"):
        kms.keys.schedule_destroy(tenant, 1, after=NOW)

    def break_off(_: RingStore) -> Iterator[str]:
        yield "acme"
        raise ServiceUnavailable("the store went away")

    with monkeypatch.context() as patch:
        patch.setattr(RingStore, "tenants", break_off)
        with pytest.raises(ServiceUnavailable):
            kms.keys.destroy_due()
    assert kms.keys.describe("acme").versions[0].state == "scheduled"
    assert [each.tenant for each in kms.keys.destroy_due().destroyed] == ["acme", "other"]


def test_receipt_is_handed_out_whatever_a_store_says_of_what_remains(
    kms: KMS, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a backend calls a place, or why it failed, may not cost the receipt either."""
    places = ["", "disk \udcff", "x" * 2_000_000]
    monkeypatch.setattr(RingStore, "purge", lambda *_: [Remains(each, None) for each in places])
    shredded = kms.keys.shred("acme", confirm="acme")
    receipt = said(kms, shredded.receipt)
    assert receipt.remains == shredded.destroyed.remains
    assert [each.where for each in receipt.remains[1:4]] == [
        "a place without a name",
        r"disk \udcff",
        "x" * 1024,
    ]


def test_what_was_destroyed_before_an_interrupt_is_logged(
    kms: KMS, caplog: pytest.LogCaptureFixture
) -> None:
    """Who interrupts it gets no report; what was not come to is as it was."""
    for tenant in ("acme", "other"):
        kms.keys.schedule_destroy(tenant, 1, after=NOW)
    saves = Spy(kms, "memory", "save_ring")

    def interrupt() -> None:
        if saves.count == 2:
            raise KeyboardInterrupt

    saves.before = interrupt
    with caplog.at_level("WARNING", "sentra_kms"), pytest.raises(KeyboardInterrupt):
        kms.keys.destroy_due()
    (record,) = caplog.records
    told = "destroy_due was interrupted after it had destroyed of 'acme': version 1"
    assert record.getMessage() == told
    assert kms.keys.describe("other").versions[0].state == "scheduled"


WEST = timezone(timedelta(hours=14))


@pytest.mark.parametrize(
    ("until", "told"),
    [
        (datetime(2030, 1, 1, 14, tzinfo=WEST), "2030-01-01T00:00:00Z"),
        (datetime.min.replace(tzinfo=WEST), None),
        (datetime.max.replace(tzinfo=timezone(-timedelta(hours=14))), None),
        (datetime(999, 1, 1, tzinfo=WEST), None),
    ],
)
def test_receipt_is_handed_out_whatever_time_a_store_tells(
    kms: KMS, until: datetime, told: str | None
) -> None:
    """A time that the calendar of receipts does not have is told as none."""
    left = Remainder("revisions", until)
    Spy(kms, "memory", "purge_ring_history").instead = lambda *_: (left,)
    shredded = kms.keys.shred("acme", confirm="acme")
    assert said(kms, shredded.receipt).remains[1].until == told


def test_receipt_is_handed_out_however_much_remains(kms: KMS) -> None:
    """A store that names each of its revisions in words of any length."""
    left = [Remainder("\x01" * 2000, None)] * 10_000
    Spy(kms, "memory", "purge_ring_history").instead = lambda *_: left
    remains = said(kms, kms.keys.shred("acme", confirm="acme").receipt).remains
    assert remains[65].where == "9936 places more of the stores"
