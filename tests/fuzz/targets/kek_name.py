"""Names of KEKs, and sources of ring authentication keys, which are these or references."""

from __future__ import annotations

from sentra_kms.errors import MalformedInput
from sentra_kms.reference import KekName, Reference
from sentra_kms.settings import AuthSource
from tests.fuzz import text_of


def run(data: bytes) -> None:
    """Try one text as either."""
    text = text_of(data)
    for kind in (KekName, AuthSource):
        try:
            found = kind(text)
        except MalformedInput as error:
            assert len(text) < 12 or text not in error.message
            assert error.__cause__ is error.__context__ is None
            continue
        assert found == text
        name = found.target if isinstance(found, AuthSource) else found
        assert isinstance(name, Reference) == ("://" in text and kind is AuthSource)
        if isinstance(name, KekName):
            assert f"{name.backend}:{name.key}" == text
            assert name.key
            assert text.isprintable() or not any(ord(char) < 32 for char in text)
            text.encode("utf-8")
