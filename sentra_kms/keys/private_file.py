"""The files that operations on key rings write and read: whole or not there, and private."""

from __future__ import annotations

import errno
import os
import stat
import tempfile
from collections.abc import Generator
from contextlib import contextmanager, suppress
from typing import BinaryIO

from sentra_kms.errors import (
    AccessDenied,
    AlreadyExists,
    KMSError,
    MalformedInput,
    ServiceUnavailable,
    VendorError,
)

_MODE = 0o600
_NO_ACCESS = {errno.EACCES, errno.EPERM, errno.EROFS}
_WRONG_PATH = {errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG}


@contextmanager
def new_file(path: str) -> Generator[BinaryIO]:
    """Write a file of mode 600 that is not there yet: whole on the disk, or nothing of it.

    Raises `AlreadyExists` if something stands there, so that no earlier file is ever replaced.
    """
    directory, name = os.path.split(os.path.abspath(path))
    with _translated(path):
        _refuse_to_replace(path)
        file, temporary = tempfile.mkstemp(dir=directory, prefix=f".{name[:32]}.", suffix=".tmp")
    try:
        # What is raised inside is the caller's, but for what writing itself raises.
        with _translated(path), os.fdopen(file, "wb") as stream:
            os.fchmod(file, _MODE)
            yield stream
            stream.flush()
            os.fsync(file)
        with _translated(path):
            _refuse_to_replace(path)
            os.rename(temporary, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise
    with _translated(path):
        _sync(directory)


@contextmanager
def whole_file(path: str) -> Generator[BinaryIO]:
    """Read a regular file, which may be read more than once."""
    with _translated(path):
        # A FIFO would make the open itself wait for a writer.
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    with _translated(path), os.fdopen(file, "rb") as stream:
        if not stat.S_ISREG(os.fstat(file).st_mode):
            raise MalformedInput(f"{path} is not a regular file", subject=path)
        yield stream


def _refuse_to_replace(path: str) -> None:
    if os.path.lexists(path):
        raise AlreadyExists(f"{path} exists: it was left as it is", subject=path)


def _sync(directory: str) -> None:
    folder = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


@contextmanager
def _translated(path: str) -> Generator[None]:
    if "\0" in path:
        raise MalformedInput("the path of a file has no NUL in it")
    failure: KMSError
    try:
        yield
    except OSError as error:
        failure = _own(error, path)
        cause = VendorError(type(error).__name__, code=errno.errorcode.get(error.errno or 0))
    else:
        return
    raise failure from cause


def _own(error: OSError, path: str) -> KMSError:
    reason = os.strerror(error.errno or 0)
    if error.errno in _NO_ACCESS:
        return AccessDenied(f"the operating system denies access to {path}", subject=path)
    if error.errno in _WRONG_PATH:
        return MalformedInput(f"{path} cannot be used as a file: {reason}", subject=path)
    return ServiceUnavailable(f"{path} cannot be read or written now: {reason}", subject=path)
