"""Modes, owners and kinds of files, as an unprivileged process meets them.

Root may read and write anything, so that a test of permissions that runs as root proves nothing:
here each runs in a child that has dropped to an unprivileged user, and asserts that it did.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import stat
import tempfile
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sentra_kms.backends import ring_files
from sentra_kms.errors import (
    AccessDenied,
    AlreadyExists,
    KMSError,
    ServiceUnavailable,
    TenantNotFound,
    VendorError,
)
from sentra_kms.runtime import KMS
from tests.keys.conftest import ManualClock, Site

NOBODY = 65534
OTHER = 65533
ROOT = os.geteuid() == 0
UMASKS = [0o000, 0o022, 0o027, 0o077, 0o177, 0o277, 0o777]

needs_root = pytest.mark.skipif(not ROOT, reason="only root can give files to another user")


@pytest.fixture
def home() -> Iterator[Path]:
    """A directory that belongs to the unprivileged user and that it can reach."""
    path = Path(tempfile.mkdtemp(prefix="sentra-kms-"))
    if ROOT:
        os.chown(path, NOBODY, NOBODY)
    yield path
    for folder, _, _ in os.walk(path):
        os.chmod(folder, 0o700)
    shutil.rmtree(path)


@pytest.fixture(autouse=True, scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Import what is imported late: the unprivileged user may not reach where it is installed."""
    site = Site(tmp_path_factory.mktemp("imports"), ManualClock())
    kms = site.open()
    kms.keys.create("acme")
    kms.keys.rotate("acme")
    site.path("acme").chmod(0o644)
    with pytest.raises(AccessDenied):
        kms.keys.describe("acme")
    site.close()


@pytest.fixture
def site(home: Path) -> Iterator[Site]:
    """Rings and master keys of the unprivileged user; to be used in its process."""
    found = Site(home, ManualClock())
    yield found
    found.close()


def unprivileged(work: Callable[[], object]) -> None:
    """Run `work` as an unprivileged user, in a forked child, and assert that it was one."""
    read_end, write_end = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forking with threads
        child = os.fork()
    if child == 0:
        _run_as_nobody(work, write_end)
    os.close(write_end)
    with os.fdopen(read_end, "rb") as pipe:
        told = pipe.read().decode("utf-8", "replace")
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert (status, told) == (0, "dropped"), told


def _run_as_nobody(work: Callable[[], object], pipe: int) -> None:
    status, told = 1, "dropped"
    try:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(60)  # what waits for a pipe that nobody writes is ended, and the test fails
        _drop()
        work()
        status = 0
    except BaseException:  # noqa: BLE001 - told to the parent, pytest's own outcomes too
        told = traceback.format_exc()
    finally:
        os.write(pipe, told.encode("utf-8")[:60_000])
        os._exit(status)


def _drop() -> None:
    if ROOT:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
    assert os.getuid() == os.geteuid() != 0
    assert 0 not in {os.getgid(), os.getegid(), *os.getgroups()} or not ROOT
    with pytest.raises(PermissionError):
        os.setuid(0)
    with pytest.raises(PermissionError):
        os.open("/", os.O_RDWR | os.O_TMPFILE)  # root could make a file there


def mode_of(path: Path) -> int:
    """Return the permission bits of a file, of the link itself if it is one."""
    return stat.S_IMODE(path.lstat().st_mode)


def denied(use: Callable[[], object]) -> str:
    """Return the text of the AccessDenied that a use raises."""
    with pytest.raises(AccessDenied) as caught:
        use()
    error = caught.value
    assert not error.retryable
    assert error.backend == "local"
    assert error.__cause__ is None or isinstance(error.__cause__, VendorError)
    assert error.__context__ is None
    return str(error)


def uses(kms: KMS, tenant: str = "acme") -> list[Callable[[], object]]:
    """Return the operations that read a tenant's ring."""
    return [
        lambda: kms.keys.encrypt(tenant, b"x"),
        lambda: kms.keys.rotate(tenant),
        lambda: kms.keys.rewrap(tenant),
        lambda: kms.keys.describe(tenant),
        lambda: kms.keys.create(tenant),
        lambda: kms.keys.create(tenant, exist_ok=True),
    ]


# --- what is made -----------------------------------------------------------------------------


@pytest.mark.parametrize("umask", UMASKS, ids=lambda umask: f"{umask:03o}")
def test_directory_is_700_and_files_600_whatever_the_umask(site: Site, umask: int) -> None:
    """Directory, rings and locks have their modes, and all of it goes on working."""

    def work() -> None:
        site.secret("m1")
        os.umask(umask)
        kms = site.open()
        kms.keys.create("acme")
        message = kms.keys.encrypt("acme", b"x")
        kms.keys.rotate("acme")
        kms.keys.create("Other")
        assert mode_of(site.directory) == 0o700
        modes = {path.name: mode_of(path) for path in site.directory.iterdir()}
        assert modes == dict.fromkeys(
            ["acme.ring", ".acme.lock", "=other.ring", ".=other.lock"], 0o600
        )
        assert {path.stat().st_uid for path in site.directory.iterdir()} == {os.getuid()}
        assert site.open().keys.decrypt("acme", message) == b"x"
        assert site.open().keys.rotate("acme").primary == 3

    unprivileged(work)


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077], ids=lambda umask: f"{umask:03o}")
def test_temporary_files_are_600_from_the_start(
    site: Site, monkeypatch: pytest.MonkeyPatch, umask: int
) -> None:
    """At no instant is a ring's new content open to others."""
    real = os.write
    seen: list[int] = []

    def write(descriptor: int, data: bytes) -> int:
        seen.append(stat.S_IMODE(os.fstat(descriptor).st_mode))
        return real(descriptor, data)

    def work() -> None:
        os.umask(umask)
        kms = site.open()
        kms.keys.create("acme")
        monkeypatch.setattr(os, "write", write)
        kms.keys.rotate("acme")
        monkeypatch.undo()
        assert seen == [0o600]

    unprivileged(work)


# --- modes ------------------------------------------------------------------------------------

WIDER = [0o640, 0o604, 0o660, 0o620, 0o602, 0o610, 0o601, 0o644, 0o666, 0o777, 0o700]


@pytest.mark.parametrize("mode", WIDER, ids=oct)
def test_ring_with_a_wider_mode_is_refused(site: Site, mode: int) -> None:
    """Somebody may have read or changed it: the error names file, mode and command."""

    def work() -> None:
        kms = site.open()
        kms.keys.create("acme")
        kms.keys.create("other")
        site.path("acme").chmod(mode)
        before = site.document()
        for use in uses(site.open()):
            text = denied(use)
            assert f"{site.path('acme')} has mode {mode:o}" in text
            assert "chmod 600" in text
        assert site.document() == before
        assert mode_of(site.path("acme")) == mode
        assert site.open().keys.encrypt("other", b"x")
        site.path("acme").chmod(0o600)
        assert site.open().keys.rotate("acme").primary == 2

    unprivileged(work)


@pytest.mark.parametrize("mode", [0o710, 0o701, 0o750, 0o755, 0o770, 0o777, 0o1777, 0o702], ids=oct)
def test_directory_with_a_wider_mode_is_refused(site: Site, mode: int) -> None:
    """Nothing in it is used, listed or made until somebody has looked."""

    def work() -> None:
        kms = site.open()
        kms.keys.create("acme")
        before = sorted(os.listdir(site.directory))
        site.directory.chmod(mode)
        fresh = site.open()
        for use in [*uses(fresh), lambda: list(fresh.keys.tenants()), *uses(fresh, "new")]:
            text = denied(use)
            assert f"{site.directory} has mode {mode:o}" in text
            assert "chmod 700" in text
        site.directory.chmod(0o700)
        assert sorted(os.listdir(site.directory)) == before

    unprivileged(work)


def test_directory_made_beforehand_with_a_wide_mode_is_refused(site: Site) -> None:
    """A directory that an installer made is not narrowed silently."""

    def work() -> None:
        site.directory.mkdir()
        site.directory.chmod(0o755)
        assert "chmod 700" in denied(lambda: site.open().keys.create("acme"))
        assert os.listdir(site.directory) == []
        site.directory.chmod(0o700)
        assert site.open().keys.create("acme").primary == 1

    unprivileged(work)


def test_modes_are_looked_at_each_time(site: Site) -> None:
    """A running process notices a change at its next look at the ring."""

    def work() -> None:
        kms = site.open()
        kms.keys.create("acme")
        message = kms.keys.encrypt("acme", b"x")
        site.path("acme").chmod(0o644)
        assert kms.keys.decrypt("acme", message) == b"x"
        site.clock.advance(60)
        denied(lambda: kms.keys.decrypt("acme", message))
        site.path("acme").chmod(0o600)
        assert kms.keys.decrypt("acme", message) == b"x"

    unprivileged(work)


@pytest.mark.parametrize("mode", [0o400, 0o500], ids=oct)
def test_narrower_modes_can_be_read(site: Site, mode: int) -> None:
    """A ring or directory that its owner may only read is good for encrypting and decrypting."""

    def work() -> None:
        site.open().keys.create("acme")
        (site.path("acme") if mode == 0o400 else site.directory).chmod(mode)
        kms = site.open()
        assert kms.keys.decrypt("acme", kms.keys.encrypt("acme", b"x")) == b"x"
        assert list(kms.keys.tenants()) == ["acme"]

    unprivileged(work)


def test_directory_that_cannot_be_written_refuses_to_save_only(site: Site) -> None:
    """Without write permission messages go on, and saves are told to look at owner and mode."""

    def work() -> None:
        kms = site.open()
        kms.keys.create("acme")
        before = site.document()
        site.directory.chmod(0o500)
        for use in (lambda: kms.keys.rotate("acme"), lambda: kms.keys.create("new")):
            text = denied(use)
            assert str(site.directory) in text
            assert "check owner and mode" in text
        assert kms.keys.encrypt("acme", b"x")
        assert site.document() == before
        with pytest.raises(AlreadyExists):
            kms.keys.create("acme")

    unprivileged(work)


@pytest.mark.parametrize("what", ["ring", "directory", "parent", "lock"])
def test_what_cannot_be_opened_is_denied_and_not_missing(site: Site, what: str) -> None:
    """No permission is never taken for no tenant, or a second ring would be made."""

    def work() -> None:
        kms = site.open()
        kms.keys.create("acme")
        path = {
            "ring": site.path("acme"),
            "directory": site.directory,
            "parent": site.home / "within",
            "lock": site.directory / ".acme.lock",
        }[what]
        if what == "parent":
            path.mkdir()
            shutil.move(site.directory, path / "keys")
            kms = site.open(directory=str(path / "keys"))
        site.secret("m1")
        before = mode_of(path)
        path.chmod(0)
        try:
            text = denied(lambda: kms.keys.rotate("acme"))
            assert "operating system denies access" in text
            if what != "lock":
                denied(lambda: kms.keys.describe("acme"))
                denied(lambda: kms.keys.create("acme"))
        finally:
            path.chmod(before)
        assert kms.keys.rotate("acme").primary == 2

    unprivileged(work)


def test_place_where_no_directory_can_be_made_is_denied(site: Site) -> None:
    """The first tenant cannot be created where this user may not write."""

    def work() -> None:
        closed = site.home / "closed"
        closed.mkdir(0o500)
        kms = site.open(directory=str(closed / "keys"))
        text = denied(lambda: kms.keys.create("acme"))
        assert str(closed / "keys") in text
        with pytest.raises(TenantNotFound):
            kms.keys.describe("acme")

    unprivileged(work)


# --- owners -----------------------------------------------------------------------------------


@needs_root
@pytest.mark.parametrize("owner", [0, OTHER])
def test_ring_of_another_owner_is_refused(site: Site, owner: int) -> None:
    """Though it could be read: whoever owns it can change it. The error names both users."""
    unprivileged(lambda: site.open().keys.create("acme"))
    path = site.path("acme")
    os.chown(path, owner, NOBODY)
    path.chmod(0o640)  # this user may read it as its group

    def wider() -> None:
        for use in uses(site.open()):
            text = denied(use)
            assert f"{path} belongs to user {owner}, this process runs as {NOBODY}" in text
            assert "chown" in text

    unprivileged(wider)
    path.chmod(0o600)
    unprivileged(lambda: denied(lambda: site.open().keys.describe("acme")))
    os.chown(path, NOBODY, NOBODY)
    unprivileged(lambda: site.open().keys.rotate("acme"))


@needs_root
@pytest.mark.parametrize("owner", [0, OTHER])
def test_directory_of_another_owner_is_refused(site: Site, owner: int) -> None:
    """Its owner could replace what is in it."""
    unprivileged(lambda: site.open().keys.create("acme"))
    os.chown(site.directory, owner, NOBODY)
    site.directory.chmod(0o750)

    def work() -> None:
        kms = site.open()
        for use in [*uses(kms), lambda: list(kms.keys.tenants())]:
            text = denied(use)
            assert f"{site.directory} belongs to user {owner}" in text

    unprivileged(work)


@needs_root
def test_root_does_not_use_another_users_rings(site: Site) -> None:
    """A job that runs as root by mistake neither uses nor replaces the service's rings."""
    unprivileged(lambda: site.open().keys.create("acme"))
    before = site.document()
    kms = site.open()
    for use in uses(kms):
        text = denied(use)
        assert f"belongs to user {NOBODY}, this process runs as 0: run as the owner" in text
    assert site.document() == before
    assert site.path("acme").stat().st_uid == NOBODY


def test_effective_user_is_what_counts(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process whose effective user is another one does not own the rings."""

    def work() -> None:
        site.open().keys.create("acme")
        monkeypatch.setattr(os, "geteuid", lambda: 4242)
        assert "runs as 4242" in denied(lambda: site.open().keys.describe("acme"))

    unprivileged(work)


# --- kinds ------------------------------------------------------------------------------------


def make_symlink(path: Path, real: Path) -> None:
    """Put a symlink to a whole ring in the ring's place."""
    path.rename(real)
    path.symlink_to(real)


def make_dangling(path: Path, real: Path) -> None:
    """Put a symlink to nothing in the ring's place."""
    path.unlink()
    path.symlink_to(real)


def make_loop(path: Path, real: Path) -> None:
    """Put a symlink to itself in the ring's place."""
    path.unlink()
    path.symlink_to(path)


def make_fifo(path: Path, real: Path) -> None:
    """Put a named pipe, which nobody writes, in the ring's place."""
    path.unlink()
    os.mkfifo(path, 0o600)


def make_directory(path: Path, real: Path) -> None:
    """Put a directory in the ring's place."""
    path.unlink()
    path.mkdir(0o700)


def make_socket(path: Path, real: Path) -> None:
    """Put a socket in the ring's place."""
    path.unlink()
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(path))
    path.chmod(0o600)


KINDS = [make_symlink, make_dangling, make_loop, make_fifo, make_directory, make_socket]


@pytest.mark.parametrize("make", KINDS, ids=lambda make: make.__name__.removeprefix("make_"))
def test_anything_but_a_plain_file_is_refused(
    site: Site, make: Callable[[Path, Path], None]
) -> None:
    """It is neither read, followed, waited for nor replaced, and the error says to remove it."""

    def work() -> None:
        site.open().keys.create("acme")
        path, real = site.path("acme"), site.home / "real.ring"
        make(path, real)
        kind = stat.S_IFMT(path.lstat().st_mode)
        content = real.read_bytes() if real.exists() else None
        for use in uses(site.open()):
            text = denied(use)
            assert str(path) in text
            assert "remove it" in text or "move it out" in text
        assert stat.S_IFMT(path.lstat().st_mode) == kind
        assert (real.read_bytes() if real.exists() else None) == content

    unprivileged(work)


@pytest.mark.parametrize("make", KINDS, ids=lambda make: make.__name__.removeprefix("make_"))
def test_anything_but_a_directory_is_refused_as_one(
    site: Site, make: Callable[[Path, Path], None]
) -> None:
    """A link, pipe, file or socket where the key directory should be is told by its path."""

    def work() -> None:
        site.open().keys.create("acme")
        real = site.home / "real"
        if make is make_symlink:
            make(site.directory, real)
        else:
            shutil.rmtree(site.directory)
            site.directory.touch()
            make(site.directory, real)
        if make is make_directory:
            site.directory.rmdir()
            site.directory.write_text("a file")
        kms = site.open()
        for use in [*uses(kms), lambda: list(kms.keys.tenants())]:
            assert str(site.directory) in denied(use)
        assert not real.exists() or make is make_symlink

    unprivileged(work)


@pytest.mark.parametrize("make", [make_symlink, make_dangling, make_directory])
def test_odd_lock_file_is_refused_by_its_own_name(
    site: Site, make: Callable[[Path, Path], None]
) -> None:
    """The error names the lock file: nobody may be told to remove the key directory."""

    def work() -> None:
        site.open().keys.create("acme")
        before = site.document()
        lock = site.directory / ".acme.lock"
        make(lock, site.home / "victim")
        text = denied(lambda: site.open().keys.rotate("acme"))
        assert str(lock) in text
        assert f"{site.directory} is" not in text
        assert site.document() == before
        assert site.open().keys.encrypt("acme", b"x")

    unprivileged(work)


@pytest.mark.parametrize("mode", [0o640, 0o602, 0o666], ids=oct)
def test_lock_file_with_a_wider_mode_is_refused(site: Site, mode: int) -> None:
    """Who may open it may hold it, and keep every writer waiting."""

    def work() -> None:
        site.open().keys.create("acme")
        before = site.document()
        lock = site.directory / ".acme.lock"
        lock.chmod(mode)
        text = denied(lambda: site.open().keys.rotate("acme"))
        assert f"{lock} has mode {mode:o}" in text
        assert site.document() == before
        lock.chmod(0o600)
        assert site.open().keys.rotate("acme").primary == 2

    unprivileged(work)


@needs_root
def test_lock_file_of_another_owner_is_refused(site: Site) -> None:
    """Its owner could hold it, or put another in its place, so that two writers meet."""
    unprivileged(lambda: site.open().keys.create("acme"))
    before = site.document()
    lock = site.directory / ".acme.lock"
    os.chown(lock, OTHER, NOBODY)
    lock.chmod(0o660)  # this user may open it as its group

    def work() -> None:
        text = denied(lambda: site.open().keys.rotate("acme"))
        assert f"{lock} belongs to user {OTHER}, this process runs as {NOBODY}" in text

    unprivileged(work)
    assert site.document() == before


def test_temporary_name_is_never_followed(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A link laid where the temporary file would be made is not written through."""
    monkeypatch.setattr(ring_files, "_random_text", lambda: "0" * 8)

    def work() -> None:
        kms = site.open()
        kms.keys.create("acme")
        before = site.document()
        victim = site.home / "victim"
        victim.write_text("precious")
        (site.directory / f".acme.{'0' * 8}.tmp").symlink_to(victim)
        with pytest.raises((AccessDenied, ServiceUnavailable)):
            kms.keys.rotate("acme")
        assert victim.read_text() == "precious"
        assert site.document() == before

    unprivileged(work)


def test_directory_swapped_for_another_while_in_use(site: Site) -> None:
    """A directory put in the place of the first is held to the same rules."""

    def work() -> None:
        kms = site.open()
        kms.keys.create("acme")
        aside = site.home / "aside"
        site.directory.rename(aside)
        site.directory.mkdir(0o755)
        site.directory.chmod(0o755)
        denied(lambda: kms.keys.describe("acme"))
        site.directory.rmdir()
        site.directory.symlink_to(aside)
        denied(lambda: kms.keys.describe("acme"))
        site.directory.unlink()
        aside.rename(site.directory)
        assert kms.keys.describe("acme").primary == 1

    unprivileged(work)


def test_error_of_the_system_keeps_its_code(site: Site) -> None:
    """The cause tells what the system said, by code, without its exception object."""

    def work() -> None:
        kms = site.open()
        kms.keys.create("acme")
        site.path("acme").chmod(0)
        with pytest.raises(KMSError) as caught:
            kms.keys.describe("acme")
        assert isinstance(caught.value.__cause__, VendorError)
        assert caught.value.__cause__.code == "EACCES"

    unprivileged(work)
