"""Standard output: bytes, JSON, plain text for programs, and styled text for a person."""

from __future__ import annotations

import errno
import json
import os
import sys
from typing import TYPE_CHECKING, Literal, TextIO

import click
import msgspec

from sentra_kms.material import KeyMaterial

if TYPE_CHECKING:
    from rich.console import RenderableType


def write(data: bytes | KeyMaterial) -> None:
    """Write bytes to standard output, at once, so that a failure is noticed here."""
    _must_be_open(sys.stdout)
    try:
        sys.stdout.buffer.write(data.reveal() if isinstance(data, KeyMaterial) else data)
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        failure = OSError(error.errno, error.strerror, "standard output")
    else:
        return
    raise failure


def write_line(text: str) -> None:
    """Write one line of text."""
    _must_be_open(sys.stdout)
    write(f"{text}\n".encode(sys.stdout.encoding or "utf-8", "backslashreplace"))


def write_command(text: str) -> None:
    """Write a command that a person may copy."""
    write_line("  " + (click.style(text, fg="cyan") if colours(sys.stdout) else text))


def write_row(*fields: object) -> None:
    """Write one line of fields with tabs between them, for programs."""
    write_line("\t".join(printable(str(field)) for field in fields))


def write_json(document: object) -> None:
    """Write one JSON document on one line."""
    write_line(json_text(document))


def json_text(document: object) -> str:
    r"""Return JSON in ASCII.

    What is no Unicode, like some names of files, is kept as the escape of a lone surrogate; an
    encoder to UTF-8 would fail on it.

    >>> json_text({"path": "\udcff"})
    '{"path":"\\udcff"}'
    """
    return json.dumps(msgspec.to_builtins(document), separators=(",", ":"))


def hint(text: str) -> None:
    """Tell a person at the terminal something that is not output."""
    if _is_terminal(sys.stderr):
        click.echo(text, err=True)


def to_terminal() -> bool:
    """Whether a person reads standard output."""
    return _is_terminal(sys.stdout)


def from_terminal() -> bool:
    """Whether a person types standard input."""
    return _is_terminal(sys.stdin)


def colours(stream: TextIO | None) -> bool:
    """Whether a stream may be coloured: a capable terminal whose user did not say NO_COLOR."""
    capable = os.environ.get("TERM") != "dumb" and not os.environ.get("NO_COLOR")
    return capable and _is_terminal(stream)


def render(*parts: RenderableType) -> None:
    """Lay out for a person at the terminal."""
    from rich.console import Console

    styles: Literal["auto"] | None = "auto" if colours(sys.stdout) else None
    console = Console(file=sys.stdout, highlight=False, color_system=styles)
    with console.capture() as captured:
        for part in parts:
            console.print(part, soft_wrap=isinstance(part, str), markup=False)
    write_line(captured.get().rstrip("\n"))


def printable(text: str) -> str:
    r"""Return text with what could steer a terminal written out.

    >>> printable("\x1b[31mred")
    '\\x1b[31mred'
    """
    return "".join(
        character if character.isprintable() else ascii(character)[1:-1] for character in text
    )


def count(number: int, what: str) -> str:
    """Return a number of things.

    >>> count(1, "error"), count(2, "error")
    ('1 error', '2 errors')
    """
    return f"{number} {what}" + ("" if number == 1 else "s")


def _must_be_open(stream: TextIO | None) -> None:
    if stream is None:  # so is what the process was started without
        raise OSError(errno.EBADF, "closed", "standard output")


def _is_terminal(stream: TextIO | None) -> bool:
    return stream is not None and stream.isatty()
