"""Whether an output shows planted bytes, in one of the forms in which they slip out."""

from __future__ import annotations

import base64
import io
import logging
import traceback
import warnings
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from functools import partial

SHORTEST = 16
"""Bytes that a planted secret has at least: shorter ones stand in any output by chance."""


def shows(output: str, secret: bytes) -> bool:
    """Whether the output holds the bytes: as they are, escaped, in hex, base64 or decimal.

    >>> shows("key=" + bytes(range(32)).hex(), bytes(range(32)))
    True
    >>> shows("KeyMaterial(redacted)", bytes(range(32)))
    False
    """
    flat = "".join(output.split())
    return any("".join(form.split()) in flat for form in _forms(secret))


def everything(error: BaseException) -> str:
    """Return an error with all that it refers to: its chain, attributes, and frames' locals."""
    told: list[str] = []
    pending: list[BaseException | None] = [error]
    seen: set[int] = set()
    while pending:
        each = pending.pop()
        if each is None or id(each) in seen:
            continue
        seen.add(id(each))
        told.append(f"{each} {each!r} {each.args!r} {vars(each)!r}")
        told += traceback.TracebackException.from_exception(each, capture_locals=True).format()
        pending += [each.__cause__, each.__context__]
    return "\n".join(told)


@contextmanager
def all_logs() -> Generator[io.StringIO]:
    """Collect what is logged at any level, with arguments and tracebacks, and what is warned of."""
    told = io.StringIO()
    handler = _Collect(told)
    root = logging.getLogger()
    level, disabled = root.level, logging.root.manager.disable
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    logging.disable(logging.NOTSET)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.showwarning = partial(_tell_warning, told)
            yield told
    finally:
        root.removeHandler(handler)
        root.setLevel(level)
        logging.disable(disabled)


def _tell_warning(told: io.StringIO, message: Warning | str, *_: object, **__: object) -> None:
    told.write(f"{message}\n")


class _Collect(logging.StreamHandler[io.StringIO]):
    def format(self, record: logging.LogRecord) -> str:
        return f"{super().format(record)} {record.args!r}"


def _forms(secret: bytes) -> Iterator[str]:
    for codec in ("latin-1", "utf-8", "cp437"):
        text = secret.decode(codec, "backslashreplace")
        yield text
        yield ascii(text)[1:-1]
    yield repr(secret)[2:-1]
    yield secret.hex()
    yield secret.hex().upper()
    yield secret.hex(":")
    yield secret.hex(":").upper()
    yield ", ".join(str(byte) for byte in secret)
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        for offset in range(3):
            # Without the characters that depend on what stands before and after.
            encoded = encode(bytes(offset) + secret).decode("ascii")
            yield encoded[4 if offset else 0 : -4]
