"""Secrets in files: read whole, bounded, from anywhere or from inside one directory only.

Inside a directory a path is walked by descriptors, so that nobody can swap a link between a check
and its use. Relative links that stay inside are followed, as mounted secrets of Kubernetes are made
of them (`NAME -> ..data/NAME`, `..data -> ..2026_11_26`); what leads out is refused.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from contextlib import ExitStack, suppress
from datetime import UTC, datetime

from sentra_kms.errors import (
    AccessDenied,
    KMSError,
    MalformedInput,
    SecretNotFound,
    ServiceUnavailable,
    VendorError,
)
from sentra_kms.hooktypes import Host, SecretValue
from sentra_kms.material import KeyMaterial
from sentra_kms.reference import Reference

MAX_SECRET = 1024 * 1024  # bytes
OPEN_TO_OTHERS = stat.S_IWGRP | stat.S_IRWXO
WRITABLE_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH
_MAX_LINKS = 40
_TRIES = 100  # while links are swapped under the walk; some 50 us each
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
_NEWLINE = ("newline", "keep")

Warn = Callable[[str, int], None]
"""Told of a path and its mode, if it is open to others."""


class ModeWarnings:
    """Warns of each file once, not at every read; `bits` are the modes to warn of."""

    def __init__(self, host: Host, bits: int) -> None:
        self._host = host
        self._bits = bits
        self._told: set[tuple[str, int]] = set()

    def __call__(self, path: str, mode: int) -> None:
        """Warn of a path if its mode asks for it."""
        if not mode & self._bits or (path, mode) in self._told:
            return
        self._told.add((path, mode))
        self._host.logger.warning(
            "%s has mode %o and is open to other users: chmod 600 it", path, mode
        )


def check_plain(reference: Reference, scheme: str) -> None:
    """Refuse options and fields; `?newline=keep` is for who asked, and changes no byte here."""
    if reference.field is not None or any(option != _NEWLINE for option in reference.options):
        raise MalformedInput(
            f"{reference}: a {scheme}:// reference takes no options and no field here, but "
            "?newline=keep"
        )


def read_anywhere(path: str, warn: Warn) -> SecretValue:
    """Read a file by its absolute path; links are followed wherever they lead."""
    return _opened(lambda: os.open(path, _FILE), path, warn)


def read_inside(directory: str, path: str, warn: Warn) -> SecretValue:
    """Read the file at a relative path inside a directory."""
    if path.startswith("/"):
        raise MalformedInput(
            f"a reference into {directory} names a path inside it, not one from the root"
        )
    shown = os.path.join(directory, path)
    return _opened(lambda: _open_inside(directory, path, shown), shown, warn)


def _opened(open_it: Callable[[], int], path: str, warn: Warn) -> SecretValue:
    try:
        file = open_it()
        try:
            return _read(file, path, warn)
        finally:
            os.close(file)
    except OSError as error:
        failure, cause = _translate(error, path)
    raise failure from cause


def _open_inside(directory: str, path: str, shown: str) -> int:
    """Walk to a file, again while it is missing behind links that somebody is swapping."""
    before: list[str] | None = None
    for _ in range(_TRIES):
        links: list[str] = []
        try:
            return _Walk(directory, shown, links).open(path)
        except FileNotFoundError:
            if links == before or not links:
                raise
            before = links
    raise OSError(errno.EBUSY, "", shown)  # not *not found*, which would let a list go on


class _Walk:
    """One walk from a directory down to a file, never above it."""

    def __init__(self, directory: str, shown: str, links: list[str]) -> None:
        self._directory = directory
        self._shown = shown
        self._links = links  # what the links on the way said

    def open(self, path: str) -> int:
        """Return the open file."""
        with ExitStack() as opened:
            way = [os.open(self._directory, _DIRECTORY)]
            opened.callback(os.close, way[0])
            ahead = [each for each in path.split("/") if each]
            while ahead:
                name = ahead.pop(0)
                if name == ".":
                    continue
                if name == "..":
                    if len(way) == 1:
                        self._refuse()
                    way.pop()
                    continue
                target = self._link(name, way[-1])
                if target is not None:
                    ahead = target + ahead
                elif ahead:
                    way.append(os.open(name, _DIRECTORY | os.O_NOFOLLOW, dir_fd=way[-1]))
                    opened.callback(os.close, way[-1])
                else:
                    return os.open(name, _FILE | os.O_NOFOLLOW, dir_fd=way[-1])
        raise IsADirectoryError(errno.EISDIR, "", self._shown)

    def _link(self, name: str, folder: int) -> list[str] | None:
        try:
            target = os.readlink(name, dir_fd=folder)
        except OSError as error:
            if error.errno == errno.EINVAL:
                return None  # no link
            raise
        self._links.append(target)
        if target.startswith("/"):
            self._refuse()
        if len(self._links) > _MAX_LINKS:
            raise OSError(errno.ELOOP, "", self._shown)
        return [each for each in target.split("/") if each]

    def _refuse(self) -> None:
        raise AccessDenied(
            f"{self._shown} is a link that leads out of {self._directory}: put the file itself "
            "there, or a relative link inside it"
        )


def _read(file: int, path: str, warn: Warn) -> SecretValue:
    status = os.fstat(file)
    if not stat.S_ISREG(status.st_mode):
        raise AccessDenied(f"{path} is not a regular file")
    if status.st_size > MAX_SECRET:
        raise MalformedInput(f"{path} is larger than {MAX_SECRET} bytes: not a secret")
    warn(path, stat.S_IMODE(status.st_mode))
    return SecretValue(_read_whole(file, path), created=_time(status.st_mtime))


def _time(seconds: float) -> datetime | None:
    with suppress(ValueError, OverflowError, OSError):  # file systems hold years that are no dates
        return datetime.fromtimestamp(seconds, UTC)
    return None


def _read_whole(file: int, path: str) -> KeyMaterial:
    data = KeyMaterial(b"")
    while True:
        size = len(data.reveal())
        data = KeyMaterial(data.reveal() + os.read(file, MAX_SECRET + 1 - size))
        if len(data.reveal()) > MAX_SECRET:
            raise MalformedInput(f"{path} is larger than {MAX_SECRET} bytes: not a secret")
        if len(data.reveal()) == size:
            return data


def _translate(error: OSError, path: str) -> tuple[KMSError, VendorError]:
    cause = VendorError(type(error).__name__, code=errno.errorcode.get(error.errno or 0))
    if error.errno in {errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG}:
        return SecretNotFound(
            f"{path} does not exist: put the secret there, or correct the path"
        ), cause
    if error.errno in {errno.EISDIR, errno.ENXIO, errno.ENODEV}:  # a socket, a device of nothing
        return AccessDenied(f"{path} is not a regular file"), cause
    if error.errno in {errno.EACCES, errno.EPERM, errno.ELOOP}:
        return AccessDenied(
            f"the operating system denies access to {path}: check owner and mode"
        ), cause
    reason = os.strerror(error.errno or 0)
    return ServiceUnavailable(f"{path} cannot be read now: {reason}"), cause
