"""The files that operations on key rings write and read: whole or not there, and private."""

from __future__ import annotations

import errno
import os
import stat
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
from sentra_kms.place import NEW, left_alone, must_be_free, name_anew, place_of, temporary_name

_MODE = 0o600
_NO_ACCESS = {errno.EACCES, errno.EPERM, errno.EROFS}
_WRONG_PATH = {errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG}


def absolute(path: str | os.PathLike[str]) -> str:
    """Return a path that means the same wherever the process goes on to."""
    text = os.fsdecode(path)
    with _translated(text):
        return os.path.abspath(text)


@contextmanager
def new_file(path: str) -> Generator[BinaryIO]:
    """Write a file of mode 600 that is not there yet: whole on the disk, or nothing of it.

    Raises `AlreadyExists` if something stands there, so that no earlier file is ever replaced, and
    `AccessDenied` for a link on the way that another user made where everybody may write.
    """
    # What is raised inside is the caller's, but for what writing itself raises.
    with _translated(path), place_of(path) as place:
        folder, name = place
        must_be_free(name, folder)
        temporary = temporary_name(name)
        try:
            with os.fdopen(os.open(temporary, NEW, _MODE, dir_fd=folder), "wb") as stream:
                os.fchmod(stream.fileno(), _MODE)  # whatever the umask is
                yield stream
                stream.flush()
                os.fsync(stream.fileno())
            name_anew(temporary, name, folder)
        except BaseException:
            with suppress(OSError):
                os.unlink(temporary, dir_fd=folder)
            raise
        os.fsync(folder)


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
    raise failure from (None if isinstance(failure, AlreadyExists) else cause)


def _own(error: OSError, path: str) -> KMSError:
    reason = os.strerror(error.errno or 0)
    if error.errno == errno.EEXIST:
        return left_alone(path)
    if error.errno in _NO_ACCESS:
        return AccessDenied(f"the operating system denies access to {path}", subject=path)
    if error.errno in _WRONG_PATH:
        return MalformedInput(f"{path} cannot be used as a file: {reason}", subject=path)
    return ServiceUnavailable(f"{path} cannot be read or written now: {reason}", subject=path)
