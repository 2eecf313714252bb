"""Key rings in files: one directory, one file a tenant, whole at every instant.

A ring is replaced by rename after its bytes and its directory entry are on the disk. Writers take
turns by a lock file for each tenant, across threads and processes of one machine. Every file is
reached through one open directory, so that swapping a path for a symlink gains nothing.
"""

from __future__ import annotations

import errno
import os
import re
import stat
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress

from sentra_kms.backends.file_system import refuse_network_file_system
from sentra_kms.backends.revision import expect_revision, revision_of
from sentra_kms.errors import (
    AccessDenied,
    KMSError,
    RingRejected,
    ServiceUnavailable,
    TenantNotFound,
    Timeout,
    VendorError,
)
from sentra_kms.forks import tell_after_fork
from sentra_kms.hookspecs import PartHooks, RingHistoryHooks, RingHooks, hookimpl
from sentra_kms.hooktypes import Finding, Remainder, RingPage, StoredRing
from sentra_kms.tenant import is_tenant

MAX_DOCUMENT = 256 * 1024  # bytes; DESIGN section 7
_DIRECTORY_MODE = 0o700
_FILE_MODE = 0o600
_SUFFIX = ".ring"
_RANDOM = "[a-z0-9_]{8}"
_LEFT_BEHIND = rf"\.[a-z0-9=._-]+\.{_RANDOM}\.tmp"
_LOCK = r"\.[a-z0-9=._-]+\.lock"
_LOCK_POLL = 0.002  # seconds between two tries at a lock
_NOT_OURS = {errno.ELOOP, errno.EISDIR, errno.ENXIO, errno.ENOTDIR}
_NO_ACCESS = {errno.EACCES, errno.EPERM}
_FULL = {errno.ENOSPC, errno.EDQUOT}


def file_name(tenant: str) -> str:
    """Return a tenant's name on disk: each upper-case letter is `=` and its lower-case form.

    So that two ids that differ only in case stay apart on a disk that folds case.

    >>> file_name("AcmeCorp")
    '=acme=corp'
    """
    return "".join("=" + c.lower() if c.isupper() else c for c in tenant)


def tenant_of(name: str) -> str | None:
    """Return the tenant whose ring a file of this name is, `None` for a foreign file.

    >>> tenant_of("=acme.ring"), tenant_of("notes.txt")
    ('Acme', None)
    """
    if not name.endswith(_SUFFIX):
        return None
    pieces = name[: -len(_SUFFIX)].split("=")
    tenant = pieces[0] + "".join(piece[:1].upper() + piece[1:] for piece in pieces[1:])
    return tenant if is_tenant(tenant) and file_name(tenant) + _SUFFIX == name else None


class RingFiles(RingHooks, RingHistoryHooks, PartHooks):
    """The rings part of the local backend."""

    def __init__(self, directory: str, *, network_allowed: bool) -> None:
        self._directory = os.path.abspath(directory)
        self._network_allowed = network_allowed
        self._locks: set[int] = set()
        tell_after_fork(self)

    def after_fork(self) -> None:
        """Close the locks that other threads of the parent hold: a child would go on holding them.

        That is, if the parent is killed before it unlocks, for as long as the child lives.
        """
        for file in self._locks:
            os.close(file)
        self._locks.clear()

    @hookimpl
    def load_ring(self, tenant: str, timeout: float) -> StoredRing:
        """Read a ring; checks owner and mode of file and directory first."""
        with self._opened() as folder:
            document = self._read(folder, tenant)
        return StoredRing(document, revision_of(document))

    @hookimpl
    def save_ring(self, tenant: str, document: bytes, expected: str | None, timeout: float) -> str:
        """Replace a ring atomically if it is still the expected one."""
        if len(document) > MAX_DOCUMENT:
            raise RingRejected(f"the ring of '{tenant}' is full: {MAX_DOCUMENT} bytes is its bound")
        with self._opened(create=True) as folder, self._locked(folder, tenant, timeout):
            self._expect(folder, tenant, expected)
            self._replace(folder, tenant, document)
        return revision_of(document)

    @hookimpl
    def delete_ring(self, tenant: str, expected: str, timeout: float) -> None:
        """Delete a ring if it is still the expected one."""
        with self._opened() as folder, self._locked(folder, tenant, timeout):
            self._expect(folder, tenant, expected)
            os.unlink(file_name(tenant) + _SUFFIX, dir_fd=folder)
            os.fsync(folder)

    @hookimpl
    def list_rings(self, cursor: str | None, limit: int, timeout: float) -> RingPage:
        """List tenants in the order of their ids; foreign files are passed over."""
        from heapq import nsmallest

        try:
            with self._opened() as folder, os.scandir(folder) as entries:
                names = (tenant_of(entry.name) for entry in entries)
                found = nsmallest(
                    limit + 1,
                    (name for name in names if name and (cursor is None or name > cursor)),
                )
        except TenantNotFound:
            return RingPage((), None)
        page = tuple(found[:limit])
        return RingPage(page, page[-1] if len(found) > limit else None)

    @hookimpl
    def purge_ring_history(self, tenant: str, timeout: float) -> list[Remainder]:
        """Remove what a writer of this ring left behind that was killed; it may hold wraps."""
        left = re.compile(re.escape(f".{file_name(tenant)}.") + _RANDOM + re.escape(".tmp"))
        with (
            suppress(TenantNotFound),
            self._opened() as folder,
            self._locked(folder, tenant, timeout),
            os.scandir(folder) as entries,
        ):
            for name in [each.name for each in entries if left.fullmatch(each.name)]:
                os.unlink(name, dir_fd=folder)
            os.fsync(folder)
        return [Remainder(f"snapshots and backups of {self._directory}, if there are any", None)]

    @hookimpl
    def check(self, timeout: float) -> list[Finding]:
        """Look at the directory and everything in it; opens no ring."""
        try:
            with self._opened() as folder, os.scandir(folder) as entries:
                found = [self._look_at(entry) for entry in entries]
        except KMSError as error:
            absent = isinstance(error, TenantNotFound)
            return [Finding("warning" if absent else "error", self._directory, error.message)]
        return [each for each in found if each is not None] or [
            Finding("ok", self._directory, f"key directory with {len(found)} files")
        ]

    def _look_at(self, entry: os.DirEntry[str]) -> Finding | None:
        path = os.path.join(self._directory, entry.name)
        if tenant_of(entry.name) is None:
            if re.fullmatch(_LEFT_BEHIND, entry.name) is not None:
                return Finding(
                    "warning",
                    path,
                    "was left behind by a writer that was killed; it may hold wrapped keys",
                    "remove it once no writer is at work",
                )
            if re.fullmatch(_LOCK, entry.name) is not None:
                return None
            return Finding(
                "warning", path, "is no key ring and is never read", "keep it somewhere else"
            )
        status = entry.stat(follow_symlinks=False)
        try:
            _check_regular(status, path)
            self._check_safe(status, path, _FILE_MODE)
        except AccessDenied as error:
            return Finding("error", path, error.message)
        if status.st_size >= MAX_DOCUMENT * 3 // 4:
            return Finding(
                "warning",
                path,
                f"is {status.st_size * 100 // MAX_DOCUMENT} % full",
                "destroy versions that nothing needs, or wrap with fewer KEKs",
            )
        return None

    @contextmanager
    def _opened(self, *, create: bool = False) -> Generator[int]:
        """Open the directory, safe to use; translate what the operating system says."""
        failure: KMSError
        try:
            folder = self._open_directory(create=create)
            try:
                yield folder
            finally:
                os.close(folder)
        except OSError as error:
            failure, cause = _translate(error, self._directory), _vendor(error)
        else:
            return
        raise failure from cause

    def _open_directory(self, *, create: bool) -> int:
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            folder = os.open(self._directory, flags)
        except FileNotFoundError:
            if not create:
                raise TenantNotFound(
                    f"the key directory {self._directory} does not exist yet: create a tenant "
                    "first, or check `directory` and ENCRYPTION_KEYS_DIR"
                ) from None
            _make_directory(self._directory)
            folder = os.open(self._directory, flags)
        try:
            self._check_safe(os.fstat(folder), self._directory, _DIRECTORY_MODE)
            if not self._network_allowed:
                refuse_network_file_system(self._directory, folder)
        except BaseException:
            os.close(folder)
            raise
        return folder

    def _check_safe(self, status: os.stat_result, path: str, mode: int) -> None:
        if status.st_uid != os.geteuid():
            raise AccessDenied(
                f"{path} belongs to user {status.st_uid}, this process runs as {os.geteuid()}: "
                "run as the owner, or chown it"
            )
        if stat.S_IMODE(status.st_mode) & ~mode & 0o777:
            raise AccessDenied(
                f"{path} has mode {stat.S_IMODE(status.st_mode):o}, wider than {mode:o}: "
                f"chmod {mode:o} it once you know who could read or change it"
            )

    def _read(self, folder: int, tenant: str) -> bytes:
        name = file_name(tenant) + _SUFFIX
        path = os.path.join(self._directory, name)
        try:
            file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
        except FileNotFoundError:
            raise TenantNotFound(
                f"tenant '{tenant}' has no key ring in {self._directory}: create it first"
            ) from None
        except OSError as error:
            failure, cause = _translate(error, path), _vendor(error)
        else:
            try:
                return self._read_open(file, path)
            finally:
                os.close(file)
        raise failure from cause

    def _read_open(self, file: int, path: str) -> bytes:
        status = os.fstat(file)
        _check_regular(status, path)
        self._check_safe(status, path, _FILE_MODE)
        pieces: list[bytes] = []
        left = MAX_DOCUMENT + 1
        while left > 0 and (piece := os.read(file, left)):
            pieces.append(piece)
            left -= len(piece)
        if left <= 0:
            raise RingRejected(f"{path} is larger than any ring ({MAX_DOCUMENT} bytes)")
        return b"".join(pieces)

    def _expect(self, folder: int, tenant: str, expected: str | None) -> None:
        try:
            found: str | None = revision_of(self._read(folder, tenant))
        except TenantNotFound:
            found = None
        expect_revision(tenant, found, expected)

    def _open_lock(self, folder: int, tenant: str) -> int:
        name = f".{file_name(tenant)}.lock"
        path = os.path.join(self._directory, name)
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK
        try:
            file = os.open(name, flags, _FILE_MODE, dir_fd=folder)
        except OSError as error:
            failure, cause = _translate(error, path), _vendor(error)
        else:
            try:
                status = os.fstat(file)
                _check_regular(status, path)
                self._check_safe(status, path, _FILE_MODE)
                os.fchmod(file, _FILE_MODE)  # whatever the umask took away
            except BaseException:
                os.close(file)
                raise
            return file
        raise failure from cause

    def _replace(self, folder: int, tenant: str, document: bytes) -> None:
        name = file_name(tenant)
        temporary = f".{name}.{_random_text()}.tmp"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        file = os.open(temporary, flags, _FILE_MODE, dir_fd=folder)
        try:
            try:
                os.fchmod(file, _FILE_MODE)  # whatever the umask took away
                view = memoryview(document)
                while view:
                    view = view[os.write(file, view) :]
                os.fsync(file)
            finally:
                os.close(file)
            os.rename(temporary, name + _SUFFIX, src_dir_fd=folder, dst_dir_fd=folder)
        except BaseException:
            with suppress(OSError):
                os.unlink(temporary, dir_fd=folder)
            raise
        os.fsync(folder)

    @contextmanager
    def _locked(self, folder: int, tenant: str, timeout: float) -> Generator[None]:
        from filelock import lock_descriptor, unlock_descriptor  # 25 ms to import; rarely needed

        file = self._open_lock(folder, tenant)
        self._locks.add(file)
        try:
            deadline = time.monotonic() + timeout
            while not lock_descriptor(file, blocking=False):
                if time.monotonic() >= deadline:
                    raise Timeout(
                        f"another process has held the lock on the ring of '{tenant}' for "
                        f"{timeout:g} s: try again"
                    )
                time.sleep(_LOCK_POLL)
            try:
                yield
            finally:
                unlock_descriptor(file)  # at once, even if a forked child still holds the file
        finally:
            self._locks.discard(file)  # first: once it is closed, the number may be another file's
            os.close(file)


def _check_regular(status: os.stat_result, path: str) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise AccessDenied(f"{path} is not a regular file: move it out of the key directory")


def _make_directory(path: str) -> None:
    """Make the directory and what is missing above it, each entry flushed before the next."""
    parent, name = os.path.split(path)
    if not os.path.isdir(parent):
        _make_parent(parent)
    folder = os.open(parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with suppress(FileExistsError):
            os.mkdir(name, _DIRECTORY_MODE, dir_fd=folder)
            os.chmod(name, _DIRECTORY_MODE, dir_fd=folder)  # whatever the umask took away
        os.fsync(folder)
    finally:
        os.close(folder)


def _make_parent(path: str) -> None:
    above = os.path.dirname(path)
    if not os.path.isdir(above):
        _make_parent(above)
    with suppress(FileExistsError):
        os.mkdir(path)
    folder = os.open(above, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _translate(error: OSError, path: str) -> KMSError:
    if error.errno in _NOT_OURS:
        return AccessDenied(f"{path} is a symlink, or not what should stand there: remove it")
    if error.errno in _NO_ACCESS:
        return AccessDenied(f"the operating system denies access to {path}: check owner and mode")
    if error.errno == errno.EROFS:
        return AccessDenied(
            f"{path} is on a file system that is mounted read-only: mount it for writing; if the "
            "system made it so itself, look at its log first"
        )
    told = os.strerror(error.errno or 0)
    if error.errno in _FULL:
        return ServiceUnavailable(f"{path} cannot be written: {told}. Free some and try again")
    return ServiceUnavailable(f"{path} cannot be used now: {told}")


def _vendor(error: OSError) -> VendorError:
    return VendorError(type(error).__name__, code=errno.errorcode.get(error.errno or 0))


def _random_text() -> str:
    return os.urandom(4).hex()  # the module secrets would cost a cold start 3 ms
