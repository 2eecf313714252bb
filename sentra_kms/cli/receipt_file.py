"""Where a receipt goes: made sure of before keys are destroyed, so that it is never lost."""

from __future__ import annotations

import errno
import os
import sys
from base64 import b64encode
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager, suppress

import click
import msgspec

from sentra_kms.cli.files import PATIENCE, PRIVATE, fill, named
from sentra_kms.cli.output import to_terminal, write, write_json
from sentra_kms.cli.session import Session
from sentra_kms.cli.signals import put_off
from sentra_kms.keys.destruction import Shredded
from sentra_kms.place import NEW, left_alone, must_be_free, name_anew, place_of, temporary_name

End = Callable[[], Shredded]
_AGAIN = os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC


@contextmanager
def receipt_kept(session: Session, path: str | None) -> Generator[Callable[[End], Shredded]]:
    """Give what ends a tenant and writes the receipt: a new file of mode 600, or standard output.

    Raises before anything is done if the file is there or cannot be made, and if the receipt would
    go to a terminal. What cannot be written afterwards is told on standard error, in base64. A
    signal that comes from the tenant's end until the receipt is written ends this process then.
    """
    if path is None:
        if to_terminal() and not session.json:
            raise click.UsageError("The receipt is not for a terminal: add --receipt FILE.")
        if sys.stdout is None:
            raise OSError(errno.EBADF, "closed", "standard output")
        yield lambda end: _kept(end, lambda ended: _shown(session, ended))
        return
    with _reserved(path) as keep:
        yield lambda end: _kept(end, lambda ended: keep(ended.receipt))


def document(ended: Shredded, path: str | None) -> dict[str, object]:
    """Return what `--json` tells of a tenant's end, the receipt included."""
    receipt = b64encode(ended.receipt).decode("ascii")
    return {**msgspec.to_builtins(ended.destroyed), "receipt": receipt, "path": path}


def _shown(session: Session, ended: Shredded) -> None:
    if session.json:
        write_json(document(ended, None))
    else:
        write(ended.receipt)


def _kept(end: End, keep: Callable[[Shredded], None]) -> Shredded:
    with put_off(PATIENCE):
        ended = end()
        try:
            keep(ended)
        except (OSError, KeyboardInterrupt):
            with suppress(OSError):
                click.echo(
                    "The keys are destroyed, and the receipt could not be written. This is it, for "
                    f"`base64 -d`:\n{b64encode(ended.receipt).decode('ascii')}",
                    err=True,
                )
            raise
    return ended


@contextmanager
def _reserved(path: str) -> Generator[Callable[[bytes], None]]:
    """Make an empty file beside `path`, which must not be there; give what fills and names it."""
    # By a signal this ends at once, and takes the empty file away.
    with put_off(0), ExitStack() as stack:
        folder, name = _free_place(path, stack)
        temporary, filled = temporary_name(name), False

        def clear() -> None:
            if not filled:
                with suppress(OSError):
                    os.unlink(temporary, dir_fd=folder)

        def keep(receipt: bytes) -> None:
            nonlocal filled
            with named(path):
                file = os.open(temporary, _AGAIN, dir_fd=folder)
                filled = True  # from here on it may be the only copy
                fill(file, receipt, PRIVATE)
                name_anew(temporary, name, folder)
                os.fsync(folder)

        stack.callback(clear)
        with named(path):
            os.close(os.open(temporary, NEW, PRIVATE, dir_fd=folder))
        yield keep


def _free_place(path: str, stack: ExitStack) -> tuple[int, str]:
    with suppress(FileExistsError), named(path):
        folder, name = stack.enter_context(place_of(path))
        must_be_free(name, folder)
        return folder, name
    raise left_alone(path)
