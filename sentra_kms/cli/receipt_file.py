"""Where a receipt goes: made sure of before keys are destroyed, so that it is never lost."""

from __future__ import annotations

import errno
import os
import sys
import tempfile
from base64 import b64encode
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress

import click

from sentra_kms.cli.files import PRIVATE
from sentra_kms.cli.output import to_terminal, write
from sentra_kms.cli.session import Session
from sentra_kms.errors import AlreadyExists

Keep = Callable[[bytes], None]
_NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}


@contextmanager
def receipt_kept(session: Session, path: str | None) -> Generator[Keep]:
    """Give what writes the receipt to a new file of mode 600, or to standard output.

    Raises before anything is done if the file is there or cannot be made, and if the receipt would
    go to a terminal. What cannot be written afterwards is told on standard error, in base64.
    """
    if path is None:
        if to_terminal() and not session.json:
            raise click.UsageError("The receipt is not for a terminal: add --receipt FILE.")
        if sys.stdout is None:
            raise OSError(errno.EBADF, "closed", "standard output")
        # As JSON it is a field of the one document that standard output has.
        yield _never_lost(_nothing if session.json else write)
        return
    temporary = _reserve(path)
    try:
        yield _never_lost(lambda receipt: _fill(temporary, path, receipt))
    finally:
        with suppress(FileNotFoundError):
            if os.path.getsize(temporary) == 0:  # else it is the only copy
                os.unlink(temporary)


def _never_lost(write_it: Keep) -> Keep:
    def keep(receipt: bytes) -> None:
        try:
            write_it(receipt)
        except OSError:
            with suppress(OSError):
                click.echo(
                    "The keys are destroyed, and the receipt could not be written. This is it, for "
                    f"`base64 -d`:\n{b64encode(receipt).decode('ascii')}",
                    err=True,
                )
            raise

    return keep


def _nothing(_: bytes) -> None:
    return


def _reserve(path: str) -> str:
    """Return an empty file beside `path`, which must not be there."""
    _refuse_to_replace(path)
    directory, name = os.path.split(os.path.abspath(path))
    try:
        file, temporary = tempfile.mkstemp(dir=directory, prefix=f".{name[:32]}.", suffix=".tmp")
    except OSError as error:
        failure = OSError(error.errno, error.strerror, path)
    else:
        os.close(file)
        return temporary
    raise failure


def _fill(temporary: str, path: str, receipt: bytes) -> None:
    with open(temporary, "wb") as stream:
        os.fchmod(stream.fileno(), PRIVATE)
        stream.write(receipt)
        stream.flush()
        os.fsync(stream.fileno())
    try:
        os.link(temporary, path)  # a rename would replace what came there meanwhile
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        _refuse_to_replace(path)
        os.rename(temporary, path)
    else:
        os.unlink(temporary)
    directory = os.open(os.path.dirname(os.path.abspath(path)), os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _refuse_to_replace(path: str) -> None:
    if os.path.lexists(path):
        raise AlreadyExists(f"{path} exists: it was left as it is", subject=path)
