"""References: parsed or refused, never quoted, and written in one way from their parts."""

from __future__ import annotations

from urllib.parse import quote

from sentra_kms.errors import MalformedInput
from sentra_kms.reference import MAX_REFERENCE, Reference
from tests.fuzz import text_of


def run(data: bytes) -> None:
    """Try one text."""
    text = text_of(data)
    try:
        found = Reference(text)
    except MalformedInput as error:
        assert len(text) < 12 or text not in error.message
        assert error.__cause__ is error.__context__ is None
        return
    assert found == text
    assert len(text) <= MAX_REFERENCE
    again = Reference(written(found))
    assert vars(again) == vars(found)
    assert written(again) == written(found)


def written(reference: Reference) -> str:
    """Return the reference with everything encoded that may be."""
    text = f"{reference.backend}://{quote(reference.path, safe='/')}"
    if reference.options:
        pairs = (f"{quote(name, safe='')}={quote(value)}" for name, value in reference.options)
        text += "?" + "&".join(pairs)
    if reference.field is not None:
        text += "#" + quote(reference.field, safe="")
    # Encoded, a text may be three times as long.
    return text if len(text) <= MAX_REFERENCE else str(reference)
