"""Files that the command line reads and writes: bounded, never half written."""

from __future__ import annotations

import errno
import os
import stat
import sys
import tempfile
from collections.abc import Generator
from contextlib import contextmanager, suppress
from typing import BinaryIO, NoReturn, TextIO

from sentra_kms.cli.output import from_terminal, hint
from sentra_kms.errors import AlreadyExists, MalformedInput
from sentra_kms.material import KeyMaterial

STANDARD = "-"
PRIVATE = 0o600
PUBLIC = 0o644


def read_input(path: str, limit: int) -> bytes:
    """Return a file's bytes, or those of standard input for `-`; at most `limit`."""
    if path == STANDARD:
        if from_terminal():
            hint("Reading from the terminal: end with Ctrl-D on a line of its own.")
        return _bounded(_standard_input(sys.stdin), "standard input", limit)
    with _named(path), open(path, "rb") as file:
        status = os.fstat(file.fileno())
        if stat.S_ISREG(status.st_mode) and status.st_size > limit:
            _too_large(path, limit)
        return _bounded(file, path, limit)


def create_file(path: str, data: bytes | KeyMaterial, mode: int) -> None:
    """Write a file that must not exist yet, of exactly this mode; also a link is in the way."""
    with suppress(FileExistsError), _named(path):
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        with _removed_on_failure(path):
            _fill(file, data, mode)
        _sync_directory(path)
        return
    raise AlreadyExists(f"{path} exists: it was left as it is", subject=path)


def replace_file(path: str, data: bytes, mode: int) -> None:
    """Put a whole file in the place of what is there, or leave that as it is.

    A link is followed. What is no regular file, like a device, is refused: it would be replaced.
    """
    target = os.path.realpath(path)
    with suppress(FileNotFoundError):
        status = os.stat(target)
        if stat.S_ISDIR(status.st_mode):
            raise IsADirectoryError(errno.EISDIR, "", path)
        if not stat.S_ISREG(status.st_mode):
            raise MalformedInput(
                f"{path} is not a regular file: redirect standard output to it instead",
                subject=path,
            )
    directory, name = os.path.split(target)
    with _named(path):
        file, temporary = tempfile.mkstemp(dir=directory, prefix=f".{name[:64]}.", suffix=".tmp")
        with _removed_on_failure(temporary):
            _fill(file, data, mode)
            os.replace(temporary, target)
        _sync_directory(target)


def _standard_input(stream: TextIO | None) -> BinaryIO:
    if stream is None:  # so is what the process was started without
        raise OSError(errno.EBADF, "closed", "standard input")
    return stream.buffer


def _bounded(file: BinaryIO, name: str, limit: int) -> bytes:
    with _named(name):
        data = file.read(limit + 1)
    if len(data) > limit:
        _too_large(name, limit)
    return data


def _too_large(name: str, limit: int) -> NoReturn:
    raise MalformedInput(
        f"{name} has more than {limit} bytes, the most that one message takes: split it",
        subject=name,
    )


def _fill(file: int, data: bytes | KeyMaterial, mode: int) -> None:
    with os.fdopen(file, "wb") as stream:
        os.fchmod(file, mode)  # whatever the umask is
        stream.write(data.reveal() if isinstance(data, KeyMaterial) else data)
        stream.flush()
        os.fsync(file)


def _sync_directory(path: str) -> None:
    directory = os.open(os.path.dirname(os.path.abspath(path)), os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


@contextmanager
def _named(path: str) -> Generator[None]:
    """Give errors of the operating system the name that the user gave."""
    try:
        yield
    except OSError as error:
        named = OSError(error.errno, error.strerror, path)
    else:
        return
    raise named


@contextmanager
def _removed_on_failure(path: str) -> Generator[None]:
    try:
        yield
    except BaseException:
        with suppress(OSError):
            os.unlink(path)
        raise
