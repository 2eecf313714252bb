"""Values composed of parts: `postgresql://{user}:{password}@db/app`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NoReturn

from sentra_kms.errors import MalformedInput
from sentra_kms.material import KeyMaterial
from sentra_kms.secret_settings import TemplatePiece

_RAW = "raw"


def parse_template(text: str, parts: Iterable[str]) -> tuple[TemplatePiece, ...]:
    """Split a template at its `{part}`; a brace that is none is doubled.

    Raises `MalformedInput`, with the column, for a stray brace and for a part that is not there;
    and for a part that stands nowhere.

    >>> parse_template("a{{{user}", ["user"])
    (TemplatePiece(text='a{', part='user', raw=False),)
    """
    pieces: list[TemplatePiece] = []
    known = list(parts)
    plain = ""
    at = 0
    while at < len(text):
        character = text[at]
        if text[at : at + 2] in {"{{", "}}"}:
            plain += character
            at += 2
        elif character == "{":
            end = text.find("}", at)
            if end < 0:
                _refuse("a '{' is not closed: a brace that opens no part is written '{{'", at)
            name, raw = _placeholder(text[at + 1 : end], known, at)
            pieces.append(TemplatePiece(plain, name, raw))
            plain, at = "", end + 1
        elif character == "}":
            _refuse("a '}' closes nothing: one that stands for itself is written '}}'", at)
        else:
            plain += character
            at += 1
    if plain:
        pieces.append(TemplatePiece(plain))
    unused = [name for name in known if all(piece.part != name for piece in pieces)]
    if unused:
        raise MalformedInput(f"the template does not use its part '{unused[0]}'")
    if not known:
        raise MalformedInput("a template without parts would be a secret in the configuration")
    return tuple(pieces)


def render(template: tuple[TemplatePiece, ...], values: Mapping[str, KeyMaterial]) -> KeyMaterial:
    """Put the parts' values in their places."""
    return KeyMaterial(
        b"".join(
            piece.text.encode("utf-8", "surrogatepass") + _value(piece, values)
            for piece in template
        )
    )


def _value(piece: TemplatePiece, values: Mapping[str, KeyMaterial]) -> bytes:
    if piece.part is None:
        return b""
    value = values[piece.part].reveal()
    if piece.raw:
        return value
    from urllib.parse import quote

    return quote(value, safe="").encode("ascii")


def _placeholder(text: str, known: list[str], at: int) -> tuple[str, bool]:
    name, colon, how = text.partition(":")
    if colon and how != _RAW:
        _refuse("after a part's name stands nothing, or ':raw' for a value as it is", at)
    if name not in known:
        # Not quoted: a brace in a misplaced secret could begin it.
        _refuse(f"a part is named that is not given; there are {', '.join(known) or 'none'}", at)
    return name, bool(colon)


def _refuse(what: str, at: int) -> NoReturn:
    raise MalformedInput(f"template: {what} (column {at + 1})")
