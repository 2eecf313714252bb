"""The one rule for tenant ids, applied wherever an id enters."""

from __future__ import annotations

from sentra_kms.errors import MalformedInput

MAX_LENGTH = 120
_MARKS = str.maketrans("", "", "._-")  # a regular expression takes 0.1 ms to compile


def is_tenant(text: str) -> bool:
    """Whether `text` is a valid id; for names found on a disk, which may be foreign."""
    return (
        len(text) <= MAX_LENGTH
        and text.isascii()
        and text[:1].isalnum()
        and text.translate(_MARKS).isalnum()
    )


def check_tenant(tenant: str) -> str:
    """Return `tenant` if it is a valid id, else raise `MalformedInput`.

    An id is 1 to 120 of `A-Z a-z 0-9 . _ -`, beginning with a letter or digit, case-sensitive.
    The alphabet makes it safe in file names, KEK names and paths.

    >>> check_tenant("acme")
    'acme'
    >>> check_tenant("../acme")
    Traceback (most recent call last):
    ...
    sentra_kms.errors.MalformedInput: tenant id '../acme' is not valid: ...
    """
    if type(tenant) is not str:
        raise MalformedInput(f"a tenant id is a str, not {type(tenant).__name__}")
    if not is_tenant(tenant):
        shown = ascii(tenant if len(tenant) <= MAX_LENGTH else tenant[:20] + "…")
        raise MalformedInput(
            f"tenant id {shown} is not valid: use 1 to {MAX_LENGTH} letters, digits, '.', '_' or "
            "'-' (ASCII), beginning with a letter or digit"
        )
    return tenant
