"""Restoring key rings: forward without a word, back only by force and with all that it loses."""

from __future__ import annotations

import base64
import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sentra_kms.errors import (
    AccessDenied,
    Conflict,
    DecryptionFailed,
    KeyNotFound,
    MalformedInput,
    RingRejected,
    ServiceUnavailable,
    TenantNotFound,
    UnsupportedOperation,
)
from sentra_kms.keys.restore_report import Losses, Restored, RestoreReport, StateBack
from sentra_kms.runtime import KMS
from tests.keys.conftest import Children, Site, Spy, in_threads


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the backup is."""
    return tmp_path / "rings.backup"


@pytest.fixture
def kms(key_site: Site) -> KMS:
    """A KMS over real files with the tenants acme and globex, of one version each."""
    kms = key_site.open()
    kms.keys.create("acme")
    kms.keys.create("globex")
    return kms


def only(report: RestoreReport, tenant: str = "acme") -> Restored:
    """The part of a report that is about one tenant."""
    (found,) = (each for each in report.tenants if each.tenant == tenant)
    return found


def done(outcome: Restored) -> tuple[str, int | None, int, int | None]:
    """What was done, and the sequences before, in the backup, and after."""
    return outcome.action, outcome.stored, outcome.backed_up, outcome.saved


# --- without force ----------------------------------------------------------------------------


def test_what_is_gone_is_created(key_site: Site, kms: KMS, path: Path) -> None:
    """A ring that was deleted is there again byte for byte, and opens its messages."""
    message = kms.keys.encrypt("acme", b"kept")
    kms.keys.rotate("acme")
    before = key_site.document()
    kms.keys.backup(path)
    key_site.path("acme").unlink()
    for opened in (key_site.open(), kms):
        outcome = only(opened.keys.restore(path))
        assert done(outcome) in {("create", None, 2, 2), ("unchanged", 2, 2, None)}
        assert outcome.losses == Losses()
        assert key_site.document() == before
        assert opened.keys.decrypt("acme", message) == b"kept"


def test_a_whole_store_is_restored(key_site: Site, kms: KMS, path: Path) -> None:
    """Into a directory that is not there, as after the loss of the disk."""
    documents = {tenant: key_site.document(tenant) for tenant in ("acme", "globex")}
    kms.keys.backup(path)
    for tenant in documents:
        key_site.path(tenant).unlink()
    for left in key_site.directory.iterdir():
        left.unlink()
    key_site.directory.rmdir()
    report = key_site.open().keys.restore(path)
    assert [each.action for each in report.tenants] == ["create", "create"]
    assert not report.failed
    assert not report.dry_run
    assert {tenant: key_site.document(tenant) for tenant in documents} == documents


def test_what_is_the_same_is_left(key_site: Site, kms: KMS, path: Path) -> None:
    """Nothing is written, however often."""
    kms.keys.backup(path)
    saves = Spy(kms, "local", "save_ring")
    for force in (False, True):
        report = kms.keys.restore(path, force=force)
        assert [done(each) for each in report.tenants] == [("unchanged", 1, 1, None)] * 2
        assert not report.failed
    assert saves.count == 0


def test_an_earlier_state_goes_forward(key_site: Site, kms: KMS, path: Path) -> None:
    """A store that was put back by hand gets what was made since, byte for byte."""
    early = key_site.document()
    kms.keys.rotate("acme")
    kms.keys.rotate("acme")
    message = kms.keys.encrypt("acme", b"under version 3")
    late = key_site.document()
    kms.keys.backup(path)
    key_site.put(early)
    other = key_site.open()
    assert done(only(other.keys.restore(path))) == ("forward", 1, 3, 3)
    assert key_site.document() == late
    # The process that has seen what was restored goes on, too.
    assert kms.keys.describe("acme").sequence == 3
    assert [opened.keys.decrypt("acme", message) for opened in (other, kms)] == [
        b"under version 3"
    ] * 2


def test_a_newer_ring_is_left_as_it_is(key_site: Site, kms: KMS, path: Path) -> None:
    """An error that does not pass by itself says what a restore would lose."""
    kms.keys.backup(path)
    kms.keys.rotate("acme")
    kms.keys.rotate("acme")
    before = key_site.document()
    report = kms.keys.restore(path)
    outcome = only(report)
    assert done(outcome) == ("refuse", 3, 1, None)
    assert outcome.losses == Losses(versions=(2, 3))
    assert report.failed == (outcome,)
    assert isinstance(outcome.error, Conflict)
    assert not outcome.error.retryable
    assert outcome.error.subject == "acme"
    assert "sequence 3, the backup's has 1" in outcome.error.message
    assert "loses key versions 2, 3" in outcome.error.message
    assert key_site.document() == before


def test_states_and_keks_that_would_come_back_are_told(key_site: Site, path: Path) -> None:
    """Versions disabled, scheduled or destroyed since, and KEKs that wrap nothing any more."""
    kms = key_site.open("local:m1")
    kms.keys.create("acme")
    for _ in range(3):
        kms.keys.rotate("acme")
    kms.keys.backup(path)
    both = key_site.open("local:m2", unwrap_with=("local:m1",))
    both.keys.rewrap("acme")
    for number, state in ((1, "disabled"), (2, "scheduled"), (3, "destroyed")):
        fields = key_site.payload()
        version = fields["versions"][number - 1]
        version["state"] = state
        version["destroy_after"] = "2099-01-01T00:00:00Z" if state == "scheduled" else None
        if state == "destroyed":
            version["wraps"] = []
        key_site.forge(fields, master="m2")
    outcome = only(both.keys.restore(path))
    assert outcome.action == "refuse"
    assert outcome.losses == Losses(
        states=(
            StateBack(1, "disabled", "enabled"),
            StateBack(2, "scheduled", "enabled"),
            StateBack(3, "destroyed", "enabled"),
        ),
        keks=("local:m1",),
    )
    assert outcome.error is not None
    for told in (
        "makes version 1 enabled again, which is disabled now",
        "makes version 3 enabled again, which is destroyed now",
        "lets local:m1 unwrap it again",
    ):
        assert told in outcome.error.message
    forced = only(both.keys.restore(path, force=True))
    assert (forced.action, forced.losses, forced.error) == ("force", outcome.losses, None)
    assert {v.state for v in both.keys.describe("acme").versions} == {"enabled"}


CHANGES: dict[str, Callable[[Site], object]] = {
    "disabled": lambda site: site.set_state(1, "disabled"),
    "rewrapped": lambda site: site.open("local:m2", unwrap_with=("local:m1",)).keys.rewrap("acme"),
    "another of its sequence": lambda site: site.forge(
        site.payload() | {"extensions": {"x-note": 1}}, up=0
    ),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_ring_that_lost_no_version_is_newer_too(
    key_site: Site, path: Path, change: Callable[[Site], object]
) -> None:
    """Not only versions make a ring newer: whatever was changed since is not undone."""
    kms = key_site.open("local:m1", unwrap_with=("local:m2",))
    kms.keys.create("acme")
    kms.keys.rotate("acme")
    kms.keys.backup(path)
    change(key_site)
    before = key_site.document()
    outcome = only(key_site.open("local:m1", unwrap_with=("local:m2",)).keys.restore(path))
    assert outcome.action == "refuse"
    assert outcome.losses.versions == ()
    assert key_site.document() == before


def test_a_tenant_made_anew_is_left(key_site: Site, kms: KMS, path: Path) -> None:
    """Another ring id is another ring, whatever its sequence: all its versions would be lost."""
    kms.keys.rotate("acme")
    kms.keys.backup(path)
    key_site.path("acme").unlink()
    other = key_site.open()
    made = other.keys.create("acme")
    outcome = only(other.keys.restore(path))
    assert done(outcome) == ("refuse", 1, 2, None)
    assert outcome.losses == Losses(versions=(1,))
    assert outcome.error is not None
    assert "another one, made anew" in outcome.error.message
    assert other.keys.describe("acme") == made


def test_a_fork_of_the_history_is_left(key_site: Site, kms: KMS, path: Path) -> None:
    """A lower sequence alone is not older: a version of its own under the same number is kept."""
    early = key_site.document()
    for _ in range(3):
        kms.keys.rotate("acme")
    kms.keys.backup(path)
    key_site.put(early)
    other = key_site.open()
    other.keys.rotate("acme")
    message = other.keys.encrypt("acme", b"under another version 2")
    outcome = only(other.keys.restore(path))
    assert done(outcome) == ("refuse", 2, 4, None)
    assert outcome.losses.versions == (2,)
    assert outcome.error is not None
    assert "no earlier state" in outcome.error.message
    assert other.keys.decrypt("acme", message) == b"under another version 2"


def test_a_version_is_not_destroyed_by_going_forward(key_site: Site, kms: KMS, path: Path) -> None:
    """What the store still has and the backup has destroyed is lost by force only."""
    kms.keys.rotate("acme")
    early = key_site.document()
    key_site.set_state(1, "destroyed")
    other = key_site.open()
    other.keys.backup(path, ["acme"])
    key_site.put(early)
    outcome = only(key_site.open().keys.restore(path))
    assert done(outcome) == ("refuse", 2, 3, None)
    assert outcome.losses.versions == (1,)


def test_what_was_only_disabled_goes_forward(key_site: Site, kms: KMS, path: Path) -> None:
    """A state that a later save may lawfully have is no loss."""
    kms.keys.rotate("acme")
    key_site.set_state(1, "disabled")
    early = key_site.document()
    key_site.set_state(1, "enabled")
    key_site.open().keys.backup(path, ["acme"])
    key_site.put(early)
    assert done(only(key_site.open().keys.restore(path))) == ("forward", 3, 4, 4)


def test_what_is_refused_does_not_stop_the_others(key_site: Site, kms: KMS, path: Path) -> None:
    """Each tenant has its own outcome."""
    kms.keys.backup(path)
    kms.keys.rotate("acme")
    key_site.path("globex").unlink()
    report = kms.keys.restore(path)
    assert [(each.tenant, each.action) for each in report.tenants] == [
        ("acme", "refuse"),
        ("globex", "create"),
    ]
    assert [each.tenant for each in report.failed] == ["acme"]


# --- by force ---------------------------------------------------------------------------------


def test_force_goes_above_the_store(key_site: Site, kms: KMS, path: Path) -> None:
    """The backup's ring is saved above the store's, so that running processes take it."""
    old = kms.keys.encrypt("acme", b"old")
    kms.keys.backup(path)
    running = key_site.open()
    kms.keys.rotate("acme")
    kms.keys.rotate("acme")
    new = kms.keys.encrypt("acme", b"new")
    running.keys.decrypt("acme", new)
    outcome = only(kms.keys.restore(path, force=True))
    assert done(outcome) == ("force", 3, 1, 4)
    assert outcome.losses == Losses(versions=(2, 3))
    info = kms.keys.describe("acme")
    assert (info.sequence, info.primary, len(info.versions)) == (4, 1, 1)
    with pytest.raises(KeyNotFound):  # at once, where it was restored
        kms.keys.decrypt("acme", new)
    key_site.clock.advance(60)
    for opened in (kms, running, key_site.open()):
        assert opened.keys.decrypt("acme", old) == b"old"
        with pytest.raises(KeyNotFound):
            opened.keys.decrypt("acme", new)


def test_force_goes_above_a_backup_of_higher_sequence(key_site: Site, kms: KMS, path: Path) -> None:
    """Of both sequences the higher counts."""
    kms.keys.rotate("acme")
    kms.keys.rotate("acme")
    kms.keys.backup(path)
    key_site.path("acme").unlink()
    other = key_site.open()
    other.keys.create("acme")
    assert done(only(other.keys.restore(path, force=True))) == ("force", 1, 3, 4)
    assert other.keys.describe("acme").ring_id == only(other.keys.restore(path)).ring_id


def test_a_number_that_was_lost_is_another_key(kms: KMS, path: Path) -> None:
    """The next version after a forced restore has a lost one's number, and opens nothing of it."""
    kms.keys.backup(path)
    kms.keys.rotate("acme")
    lost = kms.keys.encrypt("acme", b"under the lost version 2")
    kms.keys.restore(path, force=True)
    assert kms.keys.rotate("acme").primary == 2
    with pytest.raises(DecryptionFailed):
        kms.keys.decrypt("acme", lost)
    assert kms.keys.decrypt("acme", kms.keys.encrypt("acme", b"x")) == b"x"


@pytest.mark.parametrize("damage", [lambda document: document[:-1], lambda _: b"", bytes.upper])
def test_a_ring_that_cannot_be_read_gives_way_to_force(
    key_site: Site, kms: KMS, path: Path, damage: Callable[[bytes], bytes]
) -> None:
    """What it had is not known, which is told; without force it is left."""
    message = kms.keys.encrypt("acme", b"kept")
    kms.keys.backup(path)
    key_site.put(damage(key_site.document()))
    broken = key_site.document()
    outcome = only(kms.keys.restore(path))
    assert done(outcome) == ("refuse", None, 1, None)
    assert outcome.losses == Losses(unknown=True)
    assert outcome.error is not None
    assert "was refused" in outcome.error.message
    assert key_site.document() == broken
    assert done(only(kms.keys.restore(path, force=True))) == ("force", None, 1, 2)
    assert key_site.open().keys.decrypt("acme", message) == b"kept"
    assert kms.keys.decrypt("acme", message) == b"kept"


def test_force_again_changes_nothing(key_site: Site, kms: KMS, path: Path) -> None:
    """A forced restore that was cut short may be run again."""
    kms.keys.backup(path)
    kms.keys.rotate("acme")
    kms.keys.restore(path, force=True)
    before = key_site.document()
    assert only(kms.keys.restore(path, force=True)).action == "unchanged"
    assert key_site.document() == before


# --- plans ------------------------------------------------------------------------------------


@pytest.mark.parametrize("force", [False, True])
def test_a_dry_run_changes_nothing(key_site: Site, kms: KMS, path: Path, force: bool) -> None:  # noqa: FBT001
    """It says of each tenant what would be done, as the restore then does it."""
    kms.keys.backup(path)
    kms.keys.rotate("acme")
    key_site.path("globex").unlink()
    saves = Spy(kms, "local", "save_ring")
    plan = kms.keys.restore(path, force=force, dry_run=True)
    assert plan.dry_run
    assert saves.count == 0
    assert not key_site.path("globex").exists()
    assert kms.keys.describe("acme").sequence == 2
    report = kms.keys.restore(path, force=force)
    assert [done(each) for each in report.tenants] == [done(each) for each in plan.tenants]


def test_who_is_asked_may_stop_it(key_site: Site, kms: KMS, path: Path) -> None:
    """`confirm` gets the plan, and when it raises nothing was changed."""

    class StopError(Exception):
        pass

    plans: list[RestoreReport] = []

    def stop(plan: RestoreReport) -> None:
        plans.append(plan)
        raise StopError

    kms.keys.backup(path)
    kms.keys.rotate("acme")
    key_site.path("globex").unlink()
    with pytest.raises(StopError):
        kms.keys.restore(path, force=True, confirm=stop)
    assert [each.action for each in plans[0].tenants] == ["force", "create"]
    assert kms.keys.describe("acme").sequence == 2
    assert not key_site.path("globex").exists()


def test_what_changes_after_the_plan_is_not_lost(key_site: Site, kms: KMS, path: Path) -> None:
    """A version that is made while somebody is asked was not told: the restore conflicts."""
    other = key_site.open()
    kms.keys.backup(path)
    kms.keys.rotate("acme")
    report = kms.keys.restore(path, force=True, confirm=lambda _: other.keys.rotate("acme"))
    outcome = only(report)
    assert (outcome.action, type(outcome.error)) == ("fail", Conflict)
    assert outcome.saved is None
    assert outcome.error is not None
    assert outcome.error.retryable
    assert other.keys.describe("acme").primary == 3


def test_a_ring_that_goes_on_after_the_plan_is_left(key_site: Site, kms: KMS, path: Path) -> None:
    """A ring that was older when the plan was made, and is rotated by now, is not gone over."""
    early = key_site.document()
    kms.keys.rotate("acme")
    kms.keys.backup(path)
    key_site.put(early)
    other, restoring = key_site.open(), key_site.open()
    report = restoring.keys.restore(path, confirm=lambda _: other.keys.rotate("acme"))
    assert (only(report).action, type(only(report).error)) == ("fail", Conflict)
    assert key_site.open().keys.describe("acme") == other.keys.describe("acme")


def test_a_ring_mended_after_the_plan_is_not_lost(key_site: Site, kms: KMS, path: Path) -> None:
    """One that could not be read when the plan was made, and is sound by now, is left."""
    kms.keys.rotate("acme")
    sound = key_site.document()
    key_site.put(b"damaged")
    other = key_site.open("local:m1")
    key_site.put(sound)
    other.keys.backup(path)
    key_site.put(b"damaged")
    kms = key_site.open()
    report = kms.keys.restore(path, force=True, confirm=lambda _: key_site.put(sound))
    assert (only(report).action, type(only(report).error)) == ("fail", Conflict)
    assert key_site.document() == sound


def test_a_file_that_changes_after_the_plan_is_noticed(
    key_site: Site, kms: KMS, path: Path
) -> None:
    """Another backup written over the one that was verified is not what was planned."""
    kms.keys.backup(path)
    kms.keys.rotate("acme")
    second = path.with_suffix(".2")
    kms.keys.backup(second)
    for tenant in ("acme", "globex"):
        key_site.path(tenant).unlink()
    fresh = key_site.open()
    report = fresh.keys.restore(path, confirm=lambda _: path.write_bytes(second.read_bytes()))
    assert isinstance(only(report).error, RingRejected)
    assert only(report, "globex").action == "create"
    assert not key_site.path("acme").exists()


@pytest.mark.parametrize("how", ["fewer", "cut"])
def test_a_record_that_goes_after_the_plan_is_told(
    key_site: Site, kms: KMS, path: Path, how: str
) -> None:
    """What the file has no more is reported as failed, and what was restored before as it is."""
    kms.keys.backup(path)
    whole = path.read_bytes()
    fewer = path.with_suffix(".2")
    kms.keys.backup(fewer, tenants=["acme"])
    for tenant in ("acme", "globex"):
        key_site.path(tenant).unlink()
    after = {"fewer": fewer.read_bytes(), "cut": whole[:-1]}[how]
    report = key_site.open().keys.restore(path, confirm=lambda _: path.write_bytes(after))
    assert {each.tenant for each in report.tenants} == {"acme", "globex"}
    lost = only(report, "globex")
    assert (lost.action, lost.saved) == ("fail", None)
    assert isinstance(lost.error, RingRejected if how == "fewer" else MalformedInput)
    assert not key_site.path("globex").exists()
    assert key_site.path("acme").exists() == (only(report).action == "create")


# --- which file, which tenants ----------------------------------------------------------------


def test_only_who_is_named_is_restored(key_site: Site, kms: KMS, path: Path) -> None:
    """Others in the file stay as they are."""
    kms.keys.backup(path)
    for tenant in ("acme", "globex"):
        key_site.path(tenant).unlink()
    report = kms.keys.restore(path, tenants=["globex"])
    assert [each.tenant for each in report.tenants] == ["globex"]
    assert not key_site.path("acme").exists()
    with pytest.raises(TenantNotFound, match="no key ring of nobody"):
        kms.keys.restore(path, tenants=["acme", "nobody"])
    assert not key_site.path("acme").exists()
    with pytest.raises(MalformedInput, match="tenant id"):
        kms.keys.restore(path, tenants=["../acme"])


@pytest.mark.parametrize("offset", [0, 3, 60, -33, -1])
def test_nothing_is_written_of_a_file_that_is_broken(
    key_site: Site, kms: KMS, path: Path, offset: int
) -> None:
    """A fault in the last record, also of a tenant that is not asked for, stops the first."""
    kms.keys.backup(path)
    for tenant in ("acme", "globex"):
        key_site.path(tenant).unlink()
    data = bytearray(path.read_bytes())
    second = data.index(b"SKB", 10)
    data[offset + (second if offset >= 0 else len(data))] ^= 1
    path.write_bytes(bytes(data))
    for force in (False, True):
        with pytest.raises((MalformedInput, RingRejected)):
            kms.keys.restore(path, force=force, tenants=["acme"])
    assert not list(key_site.directory.glob("*.ring"))


def test_a_backup_of_another_master_key_is_refused(key_site: Site, kms: KMS, path: Path) -> None:
    """The error names both keys; nothing is written."""
    kms.keys.backup(path)
    other = key_site.open("local:m2")
    with pytest.raises(RingRejected, match="another master key") as caught:
        other.keys.restore(path)
    assert key_site.auth_key("m1").auth_id in caught.value.message
    assert key_site.auth_key("m2").auth_id in caught.value.message


def test_after_a_change_of_master_keys_both_serve(key_site: Site, kms: KMS, path: Path) -> None:
    """A backup from before is restored while the old key still verifies."""
    message = kms.keys.encrypt("acme", b"kept")
    kms.keys.backup(path)
    key_site.path("acme").unlink()
    both = key_site.open("local:m2", unwrap_with=("local:m1",))
    assert only(both.keys.restore(path)).action == "create"
    assert both.keys.decrypt("acme", message) == b"kept"


def test_what_is_no_file_is_malformed(kms: KMS, path: Path, tmp_path: Path) -> None:
    """Nothing there, a directory, a FIFO that nobody writes, an empty file, a ring."""
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "empty").touch()
    with pytest.raises(MalformedInput, match="not a regular file"):
        kms.keys.restore(tmp_path / "fifo")
    for target in (
        path,
        tmp_path,
        tmp_path / "fifo",
        tmp_path / "empty",
        tmp_path / "keys/acme.ring",
    ):
        with pytest.raises(MalformedInput):
            kms.keys.restore(target)


def test_what_may_not_be_read_is_access_denied(
    kms: KMS, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The operating system's refusal is ours, and names the file."""
    kms.keys.backup(path)

    def deny(name: str, *_: object) -> int:
        raise PermissionError(errno.EACCES, "as the system says", name)

    monkeypatch.setattr(os, "open", deny)
    with pytest.raises(AccessDenied, match=r"rings\.backup") as caught:
        kms.keys.restore(path)
    assert "EACCES" in str(caught.value.__cause__)


def test_a_store_that_is_down_is_told(key_site: Site, kms: KMS, path: Path) -> None:
    """What cannot be read or saved now fails for that tenant, retryable."""
    kms.keys.backup(path)
    key_site.path("globex").unlink()
    loads = Spy(kms, "local", "load_ring")
    loads.failure = ServiceUnavailable("down")
    report = kms.keys.restore(path, force=True)
    assert [each.action for each in report.tenants] == ["fail", "fail"]
    loads.failure = None
    saves = Spy(kms, "local", "save_ring")
    saves.failure = ServiceUnavailable("full")
    outcome = only(kms.keys.restore(path), "globex")
    assert (outcome.action, outcome.saved) == ("fail", None)
    assert outcome.error is not None
    assert outcome.error.retryable
    saves.failure = None
    assert only(kms.keys.restore(path), "globex").action == "create"


def test_a_ring_that_moved_is_restored_where_it_is(key_site: Site, kms: KMS, path: Path) -> None:
    """The mark of a move is not overwritten, by force neither."""
    kms.keys.backup(path)
    key_site.forge({**key_site.payload(), "moved_to": "vault"})
    before = key_site.document()
    outcome = only(kms.keys.restore(path, force=True))
    assert isinstance(outcome.error, UnsupportedOperation)
    assert key_site.document() == before


def test_another_ring_id_is_another_ring(key_site: Site, kms: KMS, path: Path) -> None:
    """Whatever its check values say, messages name the ring that they belong to."""
    kms.keys.backup(path)
    ring_id = base64.b64encode(bytes(12)).decode()
    key_site.forge(key_site.payload() | {"ring_id": ring_id})
    assert only(key_site.open().keys.restore(path)).losses == Losses(versions=(1,))


def test_another_of_the_same_sequence_needs_force(key_site: Site, kms: KMS, path: Path) -> None:
    """Gone from the store, and not the one of that sequence that this process has seen."""
    kms.keys.backup(path)
    key_site.forge(key_site.payload() | {"extensions": {"x-note": 1}}, up=0)
    other = key_site.open()
    assert other.keys.describe("acme").sequence == 1
    key_site.path("acme").unlink()
    assert only(other.keys.restore(path)).action == "refuse"
    assert not key_site.path("acme").exists()
    assert done(only(other.keys.restore(path, force=True))) == ("force", None, 1, 2)


def test_restores_at_once_end_as_one(key_site: Site, kms: KMS, path: Path) -> None:
    """Several processes' worth restore one file: the ring is whole, and what failed says retry."""
    kms.keys.backup(path)
    document = key_site.document()
    key_site.path("acme").unlink()
    opened = [key_site.open() for _ in range(6)]
    reports: list[Any] = in_threads(lambda index: opened[index].keys.restore(path), 6)
    assert key_site.document() == document
    outcomes = [only(report) for report in reports]
    assert "create" in {outcome.action for outcome in outcomes}
    for outcome in outcomes:
        assert outcome.error is None or outcome.error.retryable


# --- with another process running -------------------------------------------------------------

_RUNNING = """
import json, sys
from sentra_kms import load
from sentra_kms.errors import KMSError
config, message = json.loads(sys.argv[1]), bytes.fromhex(json.loads(sys.argv[2]))
with load(config, "test") as kms:
    seen = kms.keys.describe("acme").sequence
    kms.keys.decrypt("acme", message)
    for line in iter(sys.stdin.readline, ""):
        try:
            answer = kms.keys.describe("acme").sequence
        except KMSError as error:
            answer = type(error).__name__
        print(json.dumps(answer), flush=True)
"""


class Running:
    """Another process that has seen the ring, and looks at it when it is asked."""

    def __init__(self, site: Site, message: bytes) -> None:
        script = _RUNNING.replace("    for line", '    print("ready", flush=True)\n    for line', 1)
        self._children = Children(script, site.config(), message.hex(), size=1)
        self._process = self._children.processes[0]
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n", self._process.stderr

    def look(self) -> object:
        """What the ring is for it now: its sequence, or the name of the error."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("look\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def close(self) -> None:
        """End it."""
        _, errors = self._process.communicate(timeout=60)
        assert (self._process.returncode, errors) == (0, "")


def test_a_running_process_refuses_an_old_backup_put_in_place(
    key_site: Site, kms: KMS, path: Path
) -> None:
    """It has seen more; it goes on after a restore above that, or after its restart.

    The store is rolled back under it, as by copying old files and deleting newer ones; then a
    restore without force by a process that has seen nothing is lawful, and is refused by the
    running one all the same.
    """
    message = kms.keys.encrypt("acme", b"kept")
    kms.keys.backup(path)
    kms.keys.rotate("acme")
    newest = key_site.document()
    running = Running(key_site, message)
    assert running.look() == 2
    key_site.path("acme").unlink()
    assert only(key_site.open().keys.restore(path)).action == "create"
    assert running.look() == "RingRejected"
    assert running.look() == "RingRejected"
    restarted = Running(key_site, message)
    assert restarted.look() == 1
    # Where the store is not rolled back, force goes above it.
    key_site.put(newest)
    assert running.look() == 2
    assert done(only(key_site.open().keys.restore(path, force=True))) == ("force", 2, 1, 3)
    assert [running.look(), restarted.look()] == [3, 3]
    running.close()
    restarted.close()


def test_a_process_keeps_to_what_it_has_seen_itself(key_site: Site, kms: KMS, path: Path) -> None:
    """A restore in a running process follows its own memory: gone or rolled back needs force."""
    message = kms.keys.encrypt("acme", b"kept")
    kms.keys.backup(path)
    early = key_site.document()
    kms.keys.rotate("acme")
    kms.keys.rotate("acme")
    key_site.path("acme").unlink()
    outcome = only(kms.keys.restore(path))
    assert done(outcome) == ("refuse", None, 1, None)
    assert outcome.losses == Losses(unknown=True)
    assert outcome.error is not None
    assert "has seen it with sequence 3" in outcome.error.message
    assert not key_site.path("acme").exists()
    key_site.put(early)
    key_site.path("acme").chmod(0o600)
    rolled_back = only(kms.keys.restore(path))
    assert rolled_back.action == "refuse"
    assert rolled_back.error is not None
    assert "rolled back" in rolled_back.error.message
    assert done(only(kms.keys.restore(path, force=True))) == ("force", None, 1, 4)
    for opened in (kms, key_site.open()):
        assert opened.keys.describe("acme").sequence == 4
        assert opened.keys.decrypt("acme", message) == b"kept"
