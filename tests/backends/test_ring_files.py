"""Ring files: names, compare-and-set, whole replacement, locks, failures of the disk, listing."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sentra_kms.backends import file_system, ring_files
from sentra_kms.backends.ring_files import RingFiles, file_name, tenant_of
from sentra_kms.errors import (
    AccessDenied,
    ConfigurationError,
    Conflict,
    KMSError,
    RingRejected,
    ServiceUnavailable,
    TenantNotFound,
    Timeout,
    VendorError,
)
from tests.keys.conftest import ManualClock, Site, in_threads

BOUND = 256 * 1024
SOON = 60.0  # seconds that no lock is held for


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Where the rings will be; not made yet."""
    return tmp_path / "keys"


@pytest.fixture
def rings(directory: Path) -> RingFiles:
    """The rings part over the directory."""
    return RingFiles(str(directory), network_allowed=True)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """A directory for rings and master keys, with a KMS over it."""
    found = Site(tmp_path, ManualClock())
    yield found
    found.close()


def names_in(directory: Path) -> list[str]:
    """Return the names of all files, hidden ones too."""
    return sorted(os.listdir(directory))


# --- names ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tenant", "name"),
    [
        ("acme", "acme"),
        ("Acme", "=acme"),
        ("ACME", "=a=c=m=e"),
        ("aCmE", "a=cm=e"),
        ("0.x_Y-z", "0.x_=y-z"),
        ("A" * 120, "=a" * 120),
    ],
)
def test_upper_case_is_marked_in_file_names(tenant: str, name: str) -> None:
    """The name on disk is lower-case, and the tenant follows from it."""
    assert file_name(tenant) == name
    assert tenant_of(f"{name}.ring") == tenant


def test_longest_names_fit_a_file_system() -> None:
    """120 upper-case letters leave the temporary name at 254 bytes, under the usual 255."""
    longest = file_name("A" * 120)
    assert len(f".{longest}.{'x' * 8}.tmp") == 254


@pytest.mark.parametrize(
    "name",
    [
        "acme",
        "acme.txt",
        ".acme.lock",
        ".acme.0a1b2c3d.tmp",
        "Acme.ring",
        "=ACME.ring",
        "==acme.ring",
        "acme=.ring",
        "=1.ring",
        "=é.ring",
        ".ring",
        "=.ring",
        ".acme.ring",
        "-acme.ring",
        "ac me.ring",
        "acme.ring.bak",
        "acme.RING",
        "é.ring",
        "a" * 121 + ".ring",
        "acme\n.ring",
        "\udcff.ring",
    ],
)
def test_foreign_names_are_no_tenants(name: str) -> None:
    """Only a name that we would give ourselves is a ring."""
    assert tenant_of(name) is None


# --- what a store does ------------------------------------------------------------------------


def test_ring_comes_back_as_it_was_saved(rings: RingFiles) -> None:
    """Any bytes, with the revision that the save returned."""
    for document in (b"", b"x", bytes(range(256)) * 100, bytes(BOUND)):
        tenant = f"t{len(document)}"
        revision = rings.save_ring(tenant, document, None, SOON)
        stored = rings.load_ring(tenant, SOON)
        assert (stored.document, stored.revision) == (document, revision)


def test_save_compares_before_it_sets(rings: RingFiles) -> None:
    """A save over anything but the expected revision is refused and changes nothing."""
    first = rings.save_ring("acme", b"1", None, SOON)
    with pytest.raises(Conflict):
        rings.save_ring("acme", b"x", None, SOON)
    second = rings.save_ring("acme", b"2", first, SOON)
    assert second != first
    for stale in (first, None, "0" * 64, ""):
        with pytest.raises(Conflict):
            rings.save_ring("acme", b"x", stale, SOON)
        with pytest.raises(Conflict):
            rings.delete_ring("acme", stale or "", SOON)
    assert rings.load_ring("acme", SOON).document == b"2"
    with pytest.raises(TenantNotFound):
        rings.save_ring("other", b"x", second, SOON)
    assert names_in(Path(rings._directory)) == [".acme.lock", ".other.lock", "acme.ring"]


def test_deleted_ring_is_gone(rings: RingFiles) -> None:
    """Deleting compares, too; afterwards there is nothing to load, save over or delete."""
    revision = rings.save_ring("acme", b"1", None, SOON)
    rings.delete_ring("acme", revision, SOON)
    with pytest.raises(TenantNotFound):
        rings.load_ring("acme", SOON)
    with pytest.raises(TenantNotFound):
        rings.save_ring("acme", b"2", revision, SOON)
    with pytest.raises(TenantNotFound):
        rings.delete_ring("acme", revision, SOON)
    assert rings.list_rings(None, 10, SOON).tenants == ()
    rings.save_ring("acme", b"3", None, SOON)


def test_reading_makes_no_directory(rings: RingFiles, directory: Path) -> None:
    """Loading, deleting and listing in a directory that is not there leave it so."""
    with pytest.raises(TenantNotFound, match="does not exist yet"):
        rings.load_ring("acme", SOON)
    with pytest.raises(TenantNotFound):
        rings.delete_ring("acme", "x", SOON)
    page = rings.list_rings(None, 10, SOON)
    assert (page.tenants, page.cursor) == ((), None)
    assert not directory.exists()


def test_missing_parents_are_made(tmp_path: Path) -> None:
    """The first save makes the whole path; only the last directory holds rings and is closed."""
    deep = tmp_path / "a" / "b" / "keys"
    RingFiles(str(deep), network_allowed=True).save_ring("acme", b"1", None, SOON)
    assert names_in(deep) == [".acme.lock", "acme.ring"]


@pytest.mark.parametrize("ending", ["/", "//", "/.", "/./"])
def test_directory_written_with_a_slash_is_the_same(site: Site, ending: str) -> None:
    """A trailing slash or dot in the configuration changes nothing: mode 700, and one store."""
    kms = site.open(directory=f"{site.directory}{ending}")
    kms.keys.create("acme")
    assert site.directory.stat().st_mode & 0o777 == 0o700
    assert site.open().keys.describe("acme").primary == 1


@pytest.mark.parametrize("ending", ["", "/", "/."])
def test_symlinked_directory_is_refused_however_it_is_written(site: Site, ending: str) -> None:
    """A trailing slash would make the system follow the link: it is refused all the same."""
    site.open().keys.create("acme")
    real = site.home / "elsewhere"
    site.directory.rename(real)
    site.directory.symlink_to(real)
    kms = site.open(directory=f"{site.directory}{ending}")
    with pytest.raises(AccessDenied, match="symlink"):
        kms.keys.describe("acme")


def test_relative_directory_starts_at_the_configurations_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mapping's relative paths start at the working directory of the load, and stay there."""
    monkeypatch.chdir(tmp_path)
    site = Site(tmp_path, ManualClock())
    kms = site.open(directory="sub/keys")
    (tmp_path / "later").mkdir()
    monkeypatch.chdir(tmp_path / "later")
    kms.keys.create("acme")
    assert names_in(tmp_path / "sub" / "keys") == [".acme.lock", "acme.ring"]
    site.close()


@pytest.mark.parametrize("how", ["variable", "default"])
def test_directory_of_the_environment_variable(
    site: Site, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """Without `directory` it is ENCRYPTION_KEYS_DIR, and without that /app/keys."""
    from sentra_kms.backends import local

    elsewhere = site.home / "elsewhere"
    if how == "variable":
        monkeypatch.setenv("ENCRYPTION_KEYS_DIR", str(elsewhere))
    else:
        monkeypatch.delenv("ENCRYPTION_KEYS_DIR", raising=False)
        assert local.DEFAULT_DIRECTORY == "/app/keys"
        monkeypatch.setattr(local, "DEFAULT_DIRECTORY", str(elsewhere))
    config = site.config()
    del config["test"]["backends"]["local"]["directory"]
    import sentra_kms

    with sentra_kms.load(config, environment="test") as kms:
        kms.keys.create("acme")
    assert (elsewhere / "acme.ring").exists()


def test_document_over_the_bound_is_not_written(rings: RingFiles, directory: Path) -> None:
    """256 KiB is the bound of a file; one byte more is refused before the disk is touched."""
    with pytest.raises(RingRejected, match="full"):
        rings.save_ring("acme", bytes(BOUND + 1), None, SOON)
    assert not directory.exists()


def test_file_over_the_bound_is_not_read_whole(rings: RingFiles, directory: Path) -> None:
    """A file that somebody let grow is refused, however large."""
    rings.save_ring("acme", b"1", None, SOON)
    with (directory / "acme.ring").open("r+b") as file:
        file.truncate(1 << 40)
    with pytest.raises(RingRejected, match="larger than any ring"):
        rings.load_ring("acme", SOON)


# --- foreign files ----------------------------------------------------------------------------

FOREIGN = ["notes.txt", "acme", "README.ring.txt", ".hidden", "Other.ring", "=X.ring", "a b.ring"]


def test_foreign_files_are_passed_over_and_left_alone(site: Site) -> None:
    """Files that are no rings are not listed, not read and not overwritten."""
    kms = site.open()
    kms.keys.create("acme")
    for name in FOREIGN:
        (site.directory / name).write_text(f"this is {name}")
    (site.directory / "folder").mkdir()
    kms.keys.create("other")
    kms.keys.rotate("acme")
    assert list(kms.keys.tenants()) == ["acme", "other"]
    for name in FOREIGN:
        assert (site.directory / name).read_text() == f"this is {name}"


def test_file_under_a_rings_name_is_never_overwritten(site: Site) -> None:
    """A foreign file where a new tenant's ring would be is refused, not replaced."""
    kms = site.open()
    kms.keys.create("acme")
    foreign = site.directory / "new.ring"
    foreign.touch(0o600)
    foreign.write_text("somebody's notes")
    with pytest.raises(KMSError) as caught:
        kms.keys.create("new")
    assert type(caught.value).__name__ in {"AlreadyExists", "RingRejected"}
    with pytest.raises(RingRejected):
        kms.keys.rotate("new")
    assert foreign.read_text() == "somebody's notes"


# --- listing ----------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [1, 2, 3, 5, 6, 7, 100])
def test_pages_join_to_the_whole_list(rings: RingFiles, limit: int) -> None:
    """Tenants come in the order of their ids, each once, and the last page has no cursor."""
    wanted = ["B", "Bb", "a", "b", "b.c", "z"]
    for tenant in reversed(wanted):
        rings.save_ring(tenant, b"x", None, SOON)
    found: list[str] = []
    cursor: str | None = None
    pages = 0
    while True:
        page = rings.list_rings(cursor, limit, SOON)
        assert len(page.tenants) <= limit
        found += page.tenants
        pages += 1
        if page.cursor is None:
            break
        cursor = page.cursor
    assert found == wanted
    assert pages == -(-len(wanted) // limit)


def test_cursor_of_a_tenant_that_is_gone_still_leads_on(rings: RingFiles) -> None:
    """A ring deleted between two pages takes no other with it."""
    revisions = {name: rings.save_ring(name, b"x", None, SOON) for name in "abcd"}
    page = rings.list_rings(None, 2, SOON)
    assert page.cursor == "b"
    rings.delete_ring("b", revisions["b"], SOON)
    assert rings.list_rings(page.cursor, 2, SOON).tenants == ("c", "d")


# --- whole replacement ------------------------------------------------------------------------


class Recorder:
    """The module `os` as `ring_files` sees it: notes the calls that touch the disk."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str]] = []
        self.fail: Callable[[str, str, tuple[Any, ...]], Any] | None = None
        self._paths: dict[int, str] = {}

    def __getattr__(self, name: str) -> Any:
        real = getattr(os, name)
        if name not in {"open", "write", "fsync", "rename", "fchmod", "unlink", "mkdir", "read"}:
            return real

        def call(*arguments: Any, **options: Any) -> Any:
            first = arguments[0]
            path = self._paths.get(first, "?") if isinstance(first, int) else str(first)
            kind = "file" if path.endswith(".tmp") else os.path.basename(path) or path
            self.calls.append((name, kind))
            if self.fail is not None:
                answer = self.fail(name, kind, arguments)
                if answer is not None:
                    return answer
            answer = real(*arguments, **options)
            if name == "open":
                self._paths[answer] = path
            return answer

        return call


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    """Stands between `ring_files` and the operating system."""
    found = Recorder()
    monkeypatch.setattr(ring_files, "os", found)
    return found


def test_bytes_reach_the_disk_before_the_name_and_the_name_before_the_answer(
    rings: RingFiles, recorder: Recorder
) -> None:
    """File fsync, then rename, then directory fsync: power may fail between any two."""
    revision = rings.save_ring("acme", b"1", None, SOON)
    recorder.calls.clear()
    rings.save_ring("acme", b"2", revision, SOON)
    order = [call for call in recorder.calls if call[0] in {"write", "fsync", "rename"}]
    assert order == [("write", "file"), ("fsync", "file"), ("rename", "file"), ("fsync", "keys")]


def test_new_directory_reaches_the_disk_too(
    rings: RingFiles, recorder: Recorder, tmp_path: Path
) -> None:
    """The entry of a directory that was just made is flushed in its parent."""
    rings.save_ring("acme", b"1", None, SOON)
    assert recorder.calls.index(("mkdir", "keys")) < recorder.calls.index(("fsync", tmp_path.name))


def test_deletion_reaches_the_disk(rings: RingFiles, recorder: Recorder) -> None:
    """A deleted ring's entry is flushed before the answer."""
    revision = rings.save_ring("acme", b"1", None, SOON)
    recorder.calls.clear()
    rings.delete_ring("acme", revision, SOON)
    assert [call for call in recorder.calls if call[0] in {"unlink", "fsync"}] == [
        ("unlink", "acme.ring"),
        ("fsync", "keys"),
    ]


def test_short_writes_are_completed(rings: RingFiles, recorder: Recorder) -> None:
    """A system that takes seven bytes at a time gets the whole ring all the same."""

    def short(name: str, kind: str, arguments: tuple[Any, ...]) -> Any:
        return os.write(arguments[0], bytes(arguments[1])[:7]) if name == "write" else None

    recorder.fail = short
    document = bytes(range(256)) * 3
    rings.save_ring("acme", document, None, SOON)
    recorder.fail = None
    assert rings.load_ring("acme", SOON).document == document


def failing(name: str, kind: str, code: int) -> Callable[[str, str, tuple[Any, ...]], Any]:
    """Return what makes one call fail; a write fails after half of its bytes."""

    def fail(called: str, on: str, arguments: tuple[Any, ...]) -> None:
        if (called, on) != (name, kind):
            return
        if called == "write":
            os.write(arguments[0], bytes(arguments[1])[: len(arguments[1]) // 2])
        raise OSError(code, os.strerror(code))

    return fail


DISK = [errno.ENOSPC, errno.EIO, errno.EDQUOT]
STEPS = [("open", "file"), ("fchmod", "file"), ("write", "file"), ("fsync", "file"),
         ("rename", "file")]  # fmt: skip


@pytest.mark.parametrize("code", DISK, ids=errno.errorcode.get)
@pytest.mark.parametrize("step", STEPS, ids="-".join)
def test_disk_that_fails_leaves_the_old_ring(
    site: Site, recorder: Recorder, step: tuple[str, str], code: int
) -> None:
    """A full or broken disk is ServiceUnavailable; the old ring stays, and no litter."""
    kms = site.open()
    kms.keys.create("acme")
    message = kms.keys.encrypt("acme", b"x")
    before = site.document()
    recorder.fail = failing(*step, code)
    with pytest.raises(ServiceUnavailable) as caught:
        kms.keys.rotate("acme")
    with pytest.raises(ServiceUnavailable):
        kms.keys.create("new")
    error = caught.value
    assert error.retryable
    assert (error.backend, error.operation, error.subject) == ("local", "save_ring", "acme")
    assert os.strerror(code) in str(error)
    assert isinstance(error.__cause__, VendorError)
    assert error.__cause__.code == errno.errorcode[code]
    assert site.document() == before
    assert [name for name in names_in(site.directory) if not name.endswith(".lock")] == [
        "acme.ring"
    ]
    assert kms.keys.decrypt("acme", message) == b"x"
    recorder.fail = None
    assert kms.keys.rotate("acme").primary == 2
    assert kms.keys.create("new").primary == 1


@pytest.mark.parametrize("step", STEPS, ids="-".join)
def test_read_only_file_system_is_told_as_such(
    site: Site, recorder: Recorder, step: tuple[str, str]
) -> None:
    """AccessDenied that says what to do: owner and mode are not what is wrong."""
    kms = site.open()
    kms.keys.create("acme")
    recorder.fail = failing(*step, errno.EROFS)
    with pytest.raises(AccessDenied, match="mounted read-only: mount it for writing") as caught:
        kms.keys.rotate("acme")
    assert not caught.value.retryable
    assert isinstance(caught.value.__cause__, VendorError)
    assert caught.value.__cause__.code == "EROFS"
    recorder.fail = None
    assert kms.keys.rotate("acme").primary == 2


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT], ids=errno.errorcode.get)
def test_full_disk_says_what_to_do(site: Site, recorder: Recorder, code: int) -> None:
    """No room, or none within the quota: free some."""
    kms = site.open()
    kms.keys.create("acme")
    recorder.fail = failing("write", "file", code)
    with pytest.raises(ServiceUnavailable, match="Free some and try again"):
        kms.keys.rotate("acme")


@pytest.mark.parametrize("code", DISK, ids=errno.errorcode.get)
def test_directory_flush_that_fails_is_told_and_loses_nothing(
    site: Site, recorder: Recorder, code: int
) -> None:
    """The new ring is in place by then: whole, usable, and the caller is told to look again."""
    kms = site.open()
    kms.keys.create("acme")
    message = kms.keys.encrypt("acme", b"x")
    recorder.fail = failing("fsync", "keys", code)
    with pytest.raises(ServiceUnavailable):
        kms.keys.rotate("acme", request_id="r")
    recorder.fail = None
    assert kms.keys.rotate("acme", request_id="r").primary == 2
    assert kms.keys.decrypt("acme", message) == b"x"
    assert len(site.open().keys.describe("acme").versions) == 2


def test_disk_that_cannot_be_read_is_unavailable(site: Site, recorder: Recorder) -> None:
    """An error while reading is no missing tenant and no rejected ring."""
    kms = site.open()
    kms.keys.create("acme")
    recorder.fail = failing("read", "acme.ring", errno.EIO)
    with pytest.raises(ServiceUnavailable) as caught:
        kms.keys.describe("acme")
    assert caught.value.retryable
    with pytest.raises(ServiceUnavailable):
        kms.keys.rotate("acme")
    recorder.fail = None
    assert kms.keys.describe("acme").primary == 1


@pytest.mark.parametrize("code", [errno.EMFILE, errno.ENFILE, errno.ENOMEM])
def test_process_without_descriptors_is_told_to_try_again(
    site: Site, recorder: Recorder, code: int
) -> None:
    """Running out of descriptors is a passing trouble, not a missing tenant."""
    kms = site.open()
    kms.keys.create("acme")
    recorder.fail = failing("open", "keys", code)
    with pytest.raises(ServiceUnavailable) as caught:
        kms.keys.describe("acme")
    assert caught.value.retryable


def test_no_descriptor_is_left_open(site: Site, recorder: Recorder) -> None:
    """Neither success nor any failure leaks a file descriptor."""

    def open_now() -> set[str]:
        return set(os.listdir("/proc/self/fd" if os.path.isdir("/proc/self/fd") else "/dev/fd"))

    kms = site.open()
    kms.keys.create("acme")
    kms.keys.rotate("acme")
    before = len(open_now())
    for step in [*STEPS, ("fsync", "keys"), ("read", "acme.ring"), ("open", ".acme.lock")]:
        recorder.fail = failing(*step, errno.EIO)
        with pytest.raises(ServiceUnavailable):
            kms.keys.rotate("acme")
    recorder.fail = None
    for _ in range(5):
        kms.keys.rotate("acme")
        kms.keys.describe("acme")
        list(kms.keys.tenants())
        with pytest.raises(KMSError):
            kms.keys.describe("nobody")
        with pytest.raises(KMSError):
            kms.keys.create("acme")
    site.path("acme").chmod(0o644)
    with pytest.raises(AccessDenied):
        kms.keys.describe("acme")
    assert len(open_now()) == before


# --- locks ------------------------------------------------------------------------------------

HOLD = """
import fcntl, os, sys
file = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT, 0o600)
fcntl.flock(file, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def hold() -> Iterator[Callable[[Path], subprocess.Popen[str]]]:
    """Start a process that holds the lock in a file until it is ended."""
    started: list[subprocess.Popen[str]] = []

    def start(path: Path) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", HOLD, str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_lock_held_elsewhere_is_a_timeout(
    site: Site, hold: Callable[[Path], subprocess.Popen[str]]
) -> None:
    """A save gives up after the backend's timeout; reading and other tenants go on."""
    kms = site.open(timeout="100ms")
    kms.keys.create("acme")
    kms.keys.create("other")
    process = hold(site.directory / ".acme.lock")
    with pytest.raises(Timeout, match="has held the lock") as caught:
        kms.keys.rotate("acme")
    assert caught.value.retryable
    assert (caught.value.backend, caught.value.subject) == ("local", "acme")
    assert kms.keys.describe("acme").primary == 1
    assert kms.keys.encrypt("acme", b"x")
    assert kms.keys.rotate("other").primary == 2
    process.kill()
    process.communicate()
    assert kms.keys.rotate("acme").primary == 2


def test_lock_of_a_killed_process_is_free(
    site: Site, hold: Callable[[Path], subprocess.Popen[str]]
) -> None:
    """A lock file that is left over holds nobody up."""
    kms = site.open()
    kms.keys.create("acme")
    process = hold(site.directory / ".acme.lock")
    process.kill()
    process.communicate()
    assert (site.directory / ".acme.lock").exists()
    assert kms.keys.rotate("acme").primary == 2


FORK_AND_DIE = """
import os, signal, sys
from sentra_kms.backends.ring_files import RingFiles
rings = RingFiles(sys.argv[1], network_allowed=True)
with rings._opened(create=True) as folder, rings._locked(folder, "acme", 5.0):
    if os.fork() == 0:
        os.write(1, b"alive")
        os.read(0, 1)
        os._exit(0)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_lock_of_a_killed_process_is_free_though_its_fork_lives(
    rings: RingFiles, directory: Path
) -> None:
    """A child forked in the middle of another thread's save does not inherit the lock."""
    process = subprocess.Popen(
        [sys.executable, "-c", FORK_AND_DIE, str(directory)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stdout.read(5) == b"alive"
    assert process.wait(60) == -signal.SIGKILL
    try:
        rings.save_ring("acme", b"1", None, 0.1)
    finally:
        process.communicate()  # closes what the child reads


def test_waiting_for_a_lock_ends_when_it_is_free(
    rings: RingFiles, directory: Path, hold: Callable[[Path], subprocess.Popen[str]]
) -> None:
    """A save that waits goes on as soon as the other one is done."""
    revision = rings.save_ring("acme", b"1", None, SOON)
    process = hold(directory / ".acme.lock")
    done: list[str] = []
    thread = threading.Thread(
        target=lambda: done.append(rings.save_ring("acme", b"2", revision, 30)), daemon=True
    )
    thread.start()
    process.communicate("")
    thread.join(60)
    assert done == [rings.load_ring("acme", SOON).revision]


def test_threads_of_one_part_take_turns(rings: RingFiles) -> None:
    """Of sixteen threads that save over one revision exactly one gets through."""
    revision = rings.save_ring("acme", b"0", None, SOON)

    def work(index: int) -> int:
        try:
            rings.save_ring("acme", f"thread {index}".encode(), revision, 30)
        except Conflict:
            return 0
        return 1

    outcomes: list[Any] = in_threads(work, 16)
    assert sum(outcomes) == 1


def test_directory_that_vanishes_under_a_running_process(site: Site) -> None:
    """What is gone is not found, and is not made again by anything but a new tenant."""
    kms = site.open()
    kms.keys.create("acme")
    shutil.rmtree(site.directory)
    with pytest.raises(TenantNotFound):
        kms.keys.rotate("acme")
    assert not site.directory.exists()
    kms.keys.create("new")
    assert names_in(site.directory) == [".new.lock", "new.ring"]


# --- network file systems ---------------------------------------------------------------------


def mountinfo(tmp_path: Path, kind: str) -> str:
    """Return the path of a mountinfo that says that `tmp_path` is on a file system of this kind."""
    device = tmp_path.stat().st_dev
    major, minor = os.major(device), os.minor(device)
    path = tmp_path / "mountinfo"
    path.write_text(
        "21 1 999:1 / /proc rw,nosuid shared:1 - proc proc rw\n"
        f"22 1 {major}:{minor} / /mnt/a\\040b rw,relatime shared:2 master:1 - {kind} "
        "server:/export rw,vers=4.2\n"
        "23 1 999:2 / /sys rw - sysfs sysfs rw\n"
    )
    return str(path)


@pytest.mark.parametrize("kind", ["nfs", "nfs4", "cifs", "smb3", "fuse.sshfs", "ceph", "9p"])
def test_network_file_system_is_refused_outside_development(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """It is told by name, for saving and for reading; in development it may be used."""
    site.open().keys.create("acme")
    monkeypatch.setattr(file_system, "_MOUNTS", mountinfo(tmp_path, kind))
    production = site.open(development=False)
    for use in (
        lambda: production.keys.create("new"),
        lambda: production.keys.rotate("acme"),
        lambda: production.keys.encrypt("acme", b"x"),
        lambda: list(production.keys.tenants()),
    ):
        with pytest.raises(ConfigurationError, match="network file system") as caught:
            use()
        assert f"({kind})" in str(caught.value)
        assert str(site.directory) in str(caught.value)
    assert site.open().keys.rotate("acme").primary == 2


@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs", "tmpfs", "overlay", "zfs", "apfs"])
def test_local_file_systems_are_used_in_production(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """File systems of one machine are fine outside development."""
    monkeypatch.setattr(file_system, "_MOUNTS", mountinfo(tmp_path, kind))
    kms = site.open(development=False)
    kms.keys.create("acme")
    assert kms.keys.decrypt("acme", kms.keys.encrypt("acme", b"x")) == b"x"


def test_system_without_mountinfo_is_not_checked(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the system does not tell, the directory is used."""
    monkeypatch.setattr(file_system, "_MOUNTS", str(tmp_path / "none"))
    assert site.open(development=False).keys.create("acme").primary == 1


def test_device_that_mountinfo_does_not_name_is_not_refused(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A subvolume has a device of its own, which no mount shows."""
    path = tmp_path / "mountinfo"
    path.write_text("22 1 999:7 / / rw - nfs4 server:/ rw\n")
    monkeypatch.setattr(file_system, "_MOUNTS", str(path))
    assert site.open(development=False).keys.create("acme").primary == 1


# --- what an operator is told -----------------------------------------------------------------


def test_check_of_a_directory_in_order(rings: RingFiles, directory: Path) -> None:
    """A missing directory is a warning; rings and their locks are fine."""
    assert [finding.level for finding in rings.check(SOON)] == ["warning"]
    assert not directory.exists()
    rings.save_ring("acme", b"1", None, SOON)
    rings.save_ring("Other", b"1", None, SOON)
    (finding,) = rings.check(SOON)
    assert (finding.level, finding.subject) == ("ok", str(directory))


def test_check_names_each_file_that_is_not_as_it_should_be(
    rings: RingFiles, directory: Path
) -> None:
    """Foreign and left-over files, wide modes, links and rings near the bound, each by its path."""
    for name in ("acme", "wide", "linked"):
        rings.save_ring(name, b"1", None, SOON)
    rings.save_ring("large", bytes(BOUND * 3 // 4), None, SOON)
    rings.save_ring("smaller", bytes(BOUND * 3 // 4 - 1), None, SOON)
    (directory / "notes.txt").write_text("x")
    (directory / "Foreign.ring").write_text("x")
    (directory / ".acme.0a1b2c3d.tmp").write_text("x")
    (directory / "wide.ring").chmod(0o644)
    (directory / "linked.ring").unlink()
    (directory / "linked.ring").symlink_to(directory / "acme.ring")
    found = {os.path.basename(finding.subject): finding.level for finding in rings.check(SOON)}
    assert found == {
        "notes.txt": "warning",
        "Foreign.ring": "warning",
        ".acme.0a1b2c3d.tmp": "warning",
        "wide.ring": "error",
        "linked.ring": "error",
        "large.ring": "warning",
    }


def test_check_of_a_directory_that_is_refused(rings: RingFiles, directory: Path) -> None:
    """One error says what every operation would say, and nothing within is looked at."""
    rings.save_ring("acme", b"1", None, SOON)
    directory.chmod(0o755)
    (finding,) = rings.check(SOON)
    assert (finding.level, finding.subject) == ("error", str(directory))
    assert "chmod 700" in finding.message


# --- what a killed writer left ----------------------------------------------------------------


def test_purge_removes_what_a_killed_writer_of_the_ring_left(tmp_path: Path) -> None:
    """Its temporary files go, which may hold wraps; those of other tenants and all else stay."""
    rings = RingFiles(str(tmp_path / "keys"), network_allowed=True)
    for tenant in ("acme", "Acme", "acme.b"):
        rings.save_ring(tenant, tenant.encode(), None, 1.0)
    folder = tmp_path / "keys"
    for name in (".acme.0a1b2c3d.tmp", ".=acme.0a1b2c3d.tmp", ".acme.b.0a1b2c3d.tmp", "acme.txt"):
        (folder / name).touch(0o600)
    before = set(os.listdir(folder))
    (remains,) = rings.purge_ring_history("acme", 1.0)
    assert before - set(os.listdir(folder)) == {".acme.0a1b2c3d.tmp"}
    assert str(folder) in remains.place
    assert rings.load_ring("acme", 1.0).document == b"acme"


def test_purge_where_there_is_no_directory_yet(tmp_path: Path) -> None:
    """Nothing is made by it."""
    rings = RingFiles(str(tmp_path / "keys"), network_allowed=True)
    assert rings.purge_ring_history("acme", 1.0)
    assert not (tmp_path / "keys").exists()
