"""Credentials as text, read anew at each login, and never shown."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from typing import NamedTuple

from sentra_kms import AuthenticationFailed, ConfigurationError, KeyMaterial, NotFound, Reference
from sentra_kms.hooktypes import Host

_LONGEST = 64 * 1024  # bytes of a token's file: more than any header may have


class Seen(NamedTuple):
    """What tells one state of a file from another."""

    device: int
    inode: int
    size: int
    changed: int


def credential(host: Host, reference: Reference, what: str) -> KeyMaterial:
    """Return what is at a reference.

    Raises what its backend does, but `AuthenticationFailed` where nothing is there: nobody must
    take that for an answer about the secret or key that was to be got by logging in.
    """
    with suppress(NotFound):
        return host.secret(reference)
    raise AuthenticationFailed(
        f"{what} of backend '{host.name}' is not at {reference}: put it there"
    )


def word_of(material: KeyMaterial, what: str) -> str:
    """Return a credential that is one word of ASCII, without the newline that a file ends in."""
    text = ""
    with suppress(UnicodeDecodeError):  # it holds the bytes, so ours must not refer to it
        text = material.reveal().decode("ascii").strip()
    if text and text.isprintable() and " " not in text:
        return text
    raise ConfigurationError(f"{what} is no line of printable ASCII without spaces")


def line_of(material: KeyMaterial, what: str) -> str:
    """Return a credential that is one line, spaces and all, without the newline at its end."""
    text = ""
    with suppress(UnicodeDecodeError):
        text = material.reveal().decode("utf-8").removesuffix("\n").removesuffix("\r")
    if text and text.isprintable():
        return text
    raise ConfigurationError(f"{what} is no line of printable UTF-8")


def read_word(path: str, what: str) -> tuple[str, Seen]:
    """Return the word that a file holds, and what the file was when it was read.

    Raises `AuthenticationFailed` if it is not there or cannot be read, `ConfigurationError` if it
    is no such file.
    """
    data, failure = b"", ""
    try:
        # A FIFO would be waited for without an end.
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            status = os.fstat(file.fileno())
            if stat.S_ISREG(status.st_mode):
                data = file.read(_LONGEST + 1)
    except OSError as error:
        failure = type(error).__name__
    else:
        if len(data) <= _LONGEST:
            return word_of(KeyMaterial(data), f"{what} at {path}"), _seen(status)
        failure = "too large"
    raise AuthenticationFailed(f"{what} at {path} cannot be read ({failure})")


def look_at(path: str) -> Seen | None:
    """Return what a file is now; `None` if it is not there, or empty: about to be written."""
    with suppress(OSError):
        status = os.stat(path)
        return _seen(status) if status.st_size else None
    return None


def _seen(status: os.stat_result) -> Seen:
    return Seen(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
