"""The forms of transit's names and ciphertexts, held more strictly than Vault holds them."""

from __future__ import annotations

import base64
import binascii
import re

_NAME = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_])?")
_CIPHERTEXT = re.compile(r"vault:v([1-9][0-9]{0,9}):([A-Za-z0-9+/]+={0,2})")


def is_key_name(key: str) -> bool:
    """Whether transit can have a key of that name: its own rule, for ASCII.

    >>> [is_key_name(key) for key in ("tenants-2026", "a/b", "a..b", "")]
    [True, False, False, False]
    """
    return _NAME.fullmatch(key) is not None and ".." not in key


def version_of(ciphertext: bytes) -> str | None:
    """Return the key version in a ciphertext, `None` if it is not exactly as Vault writes one.

    Vault itself takes `v0` for `v1`, and base64 whose last bits differ: a ciphertext that was
    changed would open.

    >>> version_of(b"vault:v3:AAAA"), version_of(b"vault:v03:AAAA"), version_of(b"vault:v3:AAB=")
    ('3', None, None)
    """
    try:
        found = _CIPHERTEXT.fullmatch(ciphertext.decode("ascii"))
        if found is None:
            return None
        canonical = encode(base64.b64decode(found[2], validate=True))
    except (UnicodeDecodeError, binascii.Error):
        return None
    return found[1] if canonical == found[2] else None


def encode(data: bytes) -> str:
    """Return bytes as transit takes them: standard base64."""
    return base64.b64encode(data).decode("ascii")


def decode(text: str) -> bytes | None:
    """Return the bytes of an answer, `None` if it is not base64."""
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:
        return None
