"""A real disk that fills up, runs out of names, or turns read-only in the middle of the work."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from sentra_kms.errors import AccessDenied, KMSError, ServiceUnavailable, VendorError
from sentra_kms.runtime import KMS
from tests.crash.crashing import Ledger, Nursery, Step
from tests.crash.mounts import PAGE, Disk, small_disk
from tests.crash.strace import need_strace, traced
from tests.keys.conftest import Spy, until

STEPS = [Step("create", "new"), Step("rotate", "acme"), Step("rewrap", "acme", 1)]
VERSIONS = 60  # in acme's ring, so that it takes several pages


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    """A tmpfs of 64 pages and 64 names."""
    mounted = tmp_path / "disk"
    mounted.mkdir()
    with small_disk(mounted, f"size={64 * PAGE},nr_inodes=64,mode=700") as found:
        yield found


@pytest.fixture
def ledger(tmp_path: Path, disk: Disk) -> Ledger:
    """Rings on the disk, master keys beside it: `acme` with many versions, and `other`."""
    found = Ledger(tmp_path / "home", str(disk.path / "keys"))
    kms = found.open()
    found.write(kms, Step("create", "other"))
    found.write(kms, Step("create", "acme"))
    for _ in range(VERSIONS - 1):
        found.write(kms, Step("rotate", "acme"))
    return found


def failure_of(kms: KMS, step: Step) -> KMSError | None:
    """Do a step; return the error that it raises."""
    try:
        getattr(kms.keys, step.operation)(step.tenant)
    except KMSError as error:
        return error
    return None


def check_untouched(ledger: Ledger, before: bytes) -> None:
    """Assert that a failed step left nothing, and that all that was there can be used."""
    assert ledger.site.document("acme") == before
    assert ledger.left() == []
    ledger.check(ledger.open())


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.operation)
def test_disk_that_fills_up(ledger: Ledger, disk: Disk, step: Step) -> None:
    """Full at any page of the write: ServiceUnavailable, no litter, and on once there is room."""
    kms = ledger.open(step.which)
    before = ledger.site.document("acme")
    need = 1 if step.operation == "create" else -(-len(before) // PAGE)
    assert need > 3 or step.operation == "create"
    for room in range(need):
        disk.fill(but=room)
        error = failure_of(kms, step)
        assert type(error) is ServiceUnavailable, room
        assert error.retryable
        assert (error.backend, error.operation, error.subject) == (
            "local",
            "save_ring",
            step.tenant,
        )
        assert "No space left on device" in str(error)
        assert "Free some" in str(error)
        assert isinstance(error.__cause__, VendorError)
        assert error.__cause__.code == "ENOSPC"
        check_untouched(ledger, before)
    disk.fill(but=need + 1)
    ledger.write(kms, step)
    ledger.check(ledger.open())


@pytest.mark.parametrize("step", STEPS[1:], ids=lambda step: step.operation)
def test_killed_in_the_middle_of_the_write(
    nursery: Nursery, ledger: Ledger, disk: Disk, step: Step
) -> None:
    """Half a temporary file is no ring: the old one stays, and the next save passes it by."""
    need_strace()
    disk.fill(but=2)
    outcome = traced(nursery, ledger, [step], "-e", "inject=write:signal=KILL:when=2")
    assert (outcome.status, outcome.told) == (-signal.SIGKILL, [])
    (left,) = ledger.left()
    status = (ledger.site.directory / left).stat()
    assert (status.st_size, status.st_mode & 0o777) == (2 * PAGE, 0o600)
    ledger.check(ledger.open())
    disk.free()
    ledger.write(ledger.open(), step)
    ledger.check(ledger.open())
    assert ledger.left() == [left]


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.operation)
def test_disk_that_has_no_name_left(ledger: Ledger, disk: Disk, step: Step) -> None:
    """Neither a lock nor a temporary file can be made: as with a full disk."""
    kms = ledger.open(step.which)
    before = ledger.site.document("acme")
    names = 2 if step.operation == "create" else 1  # a new tenant needs a lock, too
    for room in range(names):
        disk.fill_names(but=room)
        error = failure_of(kms, step)
        assert type(error) is ServiceUnavailable, room
        assert "Free some" in str(error)
        check_untouched(ledger, before)
    disk.free()
    ledger.write(kms, step)
    ledger.check(ledger.open())


def test_disk_without_room_for_the_directory(tmp_path: Path, disk: Disk) -> None:
    """The very first ring on a full disk: told, and made as soon as there is room."""
    ledger = Ledger(tmp_path / "home", str(disk.path / "above" / "keys"))
    kms = ledger.open()
    for room in range(3):  # what an earlier try made of the path stays
        disk.fill_names(but=room)
        assert type(failure_of(kms, Step("create", "new"))) is ServiceUnavailable, room
    disk.free()
    ledger.write(kms, Step("create", "new"))
    ledger.check(ledger.open())
    assert ledger.site.directory.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.operation)
def test_disk_that_turns_read_only_between_read_and_save(
    ledger: Ledger, disk: Disk, step: Step
) -> None:
    """AccessDenied that says why; reading goes on, and writing does once it is mounted so again."""
    kms = ledger.open(step.which)
    before = ledger.site.document("acme")
    spy = Spy(kms, "local", "save_ring")
    spy.before = lambda: disk.remount("ro")
    error = failure_of(kms, step)
    assert spy.count == 1
    assert type(error) is AccessDenied
    assert not error.retryable
    assert "read-only" in str(error)
    assert isinstance(error.__cause__, VendorError)
    assert error.__cause__.code == "EROFS"
    check_untouched(ledger, before)
    spy.before = None
    assert disk.remount("rw")
    ledger.write(kms, step)
    ledger.check(ledger.open())


def test_disk_that_turns_read_only_while_a_process_works(nursery: Nursery, tmp_path: Path) -> None:
    """A process at work when it happens loses nothing, and is refused from then on."""
    mounted = tmp_path / "disk"
    mounted.mkdir()
    with small_disk(mounted, "size=16m,mode=700") as disk:
        ledger = Ledger(tmp_path / "home", str(disk.path / "keys"))
        ledger.write(ledger.open(), Step("create", "acme"))
        steps = [
            step
            for number in range(300)
            for step in (
                Step("create", f"t{number}"),
                Step("rotate", "acme", number % 2),
                Step("rewrap", "acme", (number + 1) % 2),
            )
        ]
        nursery.start(ledger.configs, steps)
        nursery.go()
        begun = nursery.next()
        # Refused while a file is open for writing, which is in the middle of a save.
        until(lambda: disk.remount("ro"))
        outcome = nursery.outcome(kill_after_error=True)
        outcome.told.insert(0, begun)
        first = next(place for place, told in enumerate(outcome.told) if "error" in told)
        for step, told in zip(steps[first:], outcome.told[first:], strict=False):
            if "error" not in told:
                assert step.operation == "rewrap"  # there was nothing to save
                continue
            assert (told["error"], told["code"]) == ("AccessDenied", "EROFS")
            assert "read-only" in told["text"]
        ledger.take(steps, outcome)
        ledger.check(ledger.open())
        assert ledger.left() == []
        assert disk.remount("rw")
        ledger.write(ledger.open(), steps[first])
        ledger.check(ledger.open())
