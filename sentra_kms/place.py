"""Where a file is to be written: its directory, opened on a way that nobody else has laid."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Generator
from contextlib import contextmanager, suppress

from sentra_kms.errors import AccessDenied, AlreadyExists

NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
"""How a file is opened that is made by that."""

_MAX_LINKS = 40  # as Linux has it
_NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}
_STEP = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@contextmanager
def place_of(path: str) -> Generator[tuple[int, str]]:
    """Open the directory of a file; yield its descriptor, and the file's name in there.

    Links to directories are followed, but for those that another user made where everybody may
    write, such as in /tmp: `AccessDenied`. Linux refuses the same, unless it was told not to.
    """
    directory, name = os.path.split(path)
    if name in {"", ".", ".."}:
        raise IsADirectoryError(errno.EISDIR if path else errno.ENOENT, "", path)
    folder = _opened(directory, path)
    try:
        yield folder, name
    finally:
        os.close(folder)


def must_be_free(name: str, folder: int) -> None:
    """Raise `FileExistsError` if something stands there, also a link that leads nowhere."""
    with suppress(FileNotFoundError):
        os.stat(name, dir_fd=folder, follow_symlinks=False)
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), name)


def left_alone(path: str) -> AlreadyExists:
    """Return the error for what stands where a new file was to be."""
    return AlreadyExists(f"{path} exists: it was left as it is", subject=path)


def temporary_name(name: str) -> str:
    """Return a name that nobody can guess for what is to become `name`, which it begins with."""
    return f".{name[:32]}.{os.urandom(8).hex()}.tmp"


def name_anew(temporary: str, name: str, folder: int) -> None:
    """Give a temporary file its name; raises `FileExistsError` if something stands there.

    A rename would replace what came there meanwhile. It is one, after a last look, only on file
    systems on which no file has two names.
    """
    try:
        os.link(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        must_be_free(name, folder)
        os.rename(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
    else:
        os.unlink(temporary, dir_fd=folder)


def _opened(directory: str, path: str) -> int:
    here = os.open("/" if directory.startswith("/") else ".", _STEP)
    ahead, links = _names(directory), 0
    try:
        while ahead:
            name = ahead.pop(0)
            target = _link(name, here, path)
            if target is None:
                here = _stepped(here, name)
                continue
            links += 1
            if links > _MAX_LINKS:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
            ahead = _names(target) + ahead
            if target.startswith("/"):
                here = _stepped(here, "/")
        # Anew, as the ways are walked without the right to read what lies there.
        return os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=here)
    finally:
        os.close(here)


def _stepped(here: int, name: str) -> int:
    there = os.open(name, _STEP, dir_fd=here)
    os.close(here)
    return there


def _names(directory: str) -> list[str]:
    return [name for name in directory.split("/") if name not in {"", "."}]


def _link(name: str, folder: int, path: str) -> str | None:
    """Return where a link leads, `None` for what is no link."""
    status = os.stat(name, dir_fd=folder, follow_symlinks=False)
    if not stat.S_ISLNK(status.st_mode):
        return None
    around = os.fstat(folder)
    if around.st_mode & stat.S_IWOTH and status.st_uid not in {os.geteuid(), around.st_uid}:
        raise AccessDenied(
            f"{path}: '{name}' on the way is a link that another user made where everybody may "
            "write: name the directory that is meant, or one of your own",
            subject=path,
        )
    return os.readlink(name, dir_fd=folder)
