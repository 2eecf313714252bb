"""Contexts of every kind and of none: encoded as the independent reader does, or refused as by it.

The input is a small program that builds the context: `0` none, `1` bytes, `2` a mapping whose
pieces are cut at NUL NUL, and a piece that begins with `!` becomes something that is no text.
"""

from __future__ import annotations

from typing import Any

from sentra_kms.context import MAX_CONTEXT, encode_context
from sentra_kms.errors import MalformedInput
from tests.fuzz import text_of
from tests.reader import reader


class Text(str):
    """Text that is not exactly `str`."""

    __slots__ = ()


STRANGE: list[Any] = [None, 7, 1.5, True, b"x", ("a",), frozenset("a"), Text("a"), Text("")]


def run(data: bytes) -> None:
    """Try one context."""
    context = built(data)
    try:
        theirs = reader.encode_context(context)
    except reader.MalformedInput:
        theirs = None
    try:
        ours = encode_context(context)
    except MalformedInput as error:
        assert theirs is None, f"only the package refuses it: {error}"
        assert error.__cause__ is error.__context__ is None
        return
    assert ours == theirs
    assert len(ours) <= MAX_CONTEXT
    assert undone(ours) == context


def built(data: bytes) -> Any:
    """Return the context that an input describes."""
    kind, rest = data[:1], data[1:]
    if kind == b"1":
        return rest
    if kind == b"2":
        pieces = [piece_of(piece) for piece in rest.split(b"\x00\x00")]
        return dict(zip(pieces[::2], pieces[1::2], strict=False))
    if kind == b"3":
        # Long ones, near the bound.
        return {text_of(rest[:4]): "x" * (MAX_CONTEXT - 20 + len(rest) % 20)}
    return piece_of(rest) if rest else None


def piece_of(piece: bytes) -> Any:
    """Return a piece of the context: text, or something else."""
    if piece[:1] == b"!":
        return STRANGE[len(piece) % len(STRANGE)]
    return text_of(piece)


def undone(encoded: bytes) -> Any:
    """Return the context that these bytes encode."""
    if not encoded:
        return None
    if encoded[0] == 1:
        return encoded[1:]
    pieces: list[str] = []
    place = 1
    while place < len(encoded):
        size = int.from_bytes(encoded[place : place + 4], "big")
        pieces.append(encoded[place + 4 : place + 4 + size].decode("utf-8"))
        place += 4 + size
    assert place == len(encoded)
    keys = [key.encode("utf-8") for key in pieces[::2]]
    assert keys == sorted(set(keys))
    return dict(zip(pieces[::2], pieces[1::2], strict=True))
