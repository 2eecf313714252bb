"""Files that the command line reads and writes: bounded, never half written."""

from __future__ import annotations

import errno
import os
import stat
import sys
from collections.abc import Generator
from contextlib import contextmanager, suppress
from typing import BinaryIO, NoReturn, TextIO

from sentra_kms.cli.output import from_terminal, hint
from sentra_kms.cli.signals import put_off
from sentra_kms.errors import AccessDenied, MalformedInput
from sentra_kms.material import KeyMaterial
from sentra_kms.place import NEW, left_alone, place_of

STANDARD = "-"
PRIVATE = 0o600
PUBLIC = 0o644
PATIENCE = 2
"""Signals that are put off while a file is written, which may hang."""


def read_input(path: str, limit: int) -> bytes:
    """Return a file's bytes, or those of standard input for `-`; at most `limit`."""
    if path == STANDARD:
        if from_terminal():
            hint("Reading from the terminal: end with Ctrl-D on a line of its own.")
        return _bounded(_standard_input(sys.stdin), "standard input", limit)
    with named(path), open(path, "rb") as file:
        status = os.fstat(file.fileno())
        if stat.S_ISREG(status.st_mode) and status.st_size > limit:
            _too_large(path, limit)
        return _bounded(file, path, limit)


def create_file(path: str, data: bytes | KeyMaterial, mode: int) -> None:
    """Write a file that must not exist yet, of exactly this mode; also a link is in the way."""
    with (
        suppress(FileExistsError),
        named(path),
        put_off(PATIENCE) as signals,
        place_of(path) as place,
    ):
        folder, name = place
        file = os.open(name, NEW, PRIVATE, dir_fd=folder)
        with _removed_on_failure(name, folder):
            fill(file, data, mode)
            signals.check()
        os.fsync(folder)
        return
    raise left_alone(path)


def replace_file(path: str, data: bytes | KeyMaterial, mode: int) -> None:
    """Put a whole file of exactly this mode in the place of what is there, or leave that as it is.

    What is no regular file, like a device, is refused: it would be replaced. So is a link, which
    whoever made it could have write to any file.
    """
    with named(path), put_off(PATIENCE) as signals, place_of(path) as place:
        folder, name = place
        _check_replaced(path, name, folder)
        temporary = f".sentra-kms-{os.urandom(8).hex()}.tmp"
        file = os.open(temporary, NEW, PRIVATE, dir_fd=folder)
        with _removed_on_failure(temporary, folder):
            fill(file, data, mode)
            signals.check()
            os.replace(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
        os.fsync(folder)


def _check_replaced(path: str, name: str, folder: int) -> None:
    with suppress(FileNotFoundError):
        status = os.stat(name, dir_fd=folder, follow_symlinks=False)
        if stat.S_ISDIR(status.st_mode):
            raise IsADirectoryError(errno.EISDIR, "", path)
        if stat.S_ISLNK(status.st_mode):
            raise AccessDenied(
                f"{path} is a link, and nothing is written through one: name the file that it "
                "leads to, or take the link away",
                subject=path,
            )
        if not stat.S_ISREG(status.st_mode):
            raise MalformedInput(
                f"{path} is not a regular file: redirect standard output to it instead",
                subject=path,
            )


def _standard_input(stream: TextIO | None) -> BinaryIO:
    if stream is None:  # so is what the process was started without
        raise OSError(errno.EBADF, "closed", "standard input")
    return stream.buffer


def _bounded(file: BinaryIO, name: str, limit: int) -> bytes:
    with named(name):
        data = file.read(limit + 1)
    if len(data) > limit:
        _too_large(name, limit)
    return data


def _too_large(name: str, limit: int) -> NoReturn:
    raise MalformedInput(
        f"{name} has more than {limit} bytes, and no more are taken here: split it, if it is data",
        subject=name,
    )


def fill(file: int, data: bytes | KeyMaterial, mode: int) -> None:
    """Write an open file, of exactly this mode, to the disk, and close it."""
    with os.fdopen(file, "wb") as stream:
        os.fchmod(file, mode)  # whatever the umask is
        stream.write(data.reveal() if isinstance(data, KeyMaterial) else data)
        stream.flush()
        os.fsync(file)


@contextmanager
def named(path: str) -> Generator[None]:
    """Give errors of the operating system the name that the user gave."""
    try:
        yield
    except OSError as error:
        failure = OSError(error.errno, error.strerror, path)
    else:
        return
    raise failure


@contextmanager
def _removed_on_failure(name: str, folder: int) -> Generator[None]:
    try:
        yield
    except BaseException:
        with suppress(OSError):
            os.unlink(name, dir_fd=folder)
        raise
