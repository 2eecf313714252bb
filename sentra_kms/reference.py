"""Names of things elsewhere: `BACKEND://PATH[?…][#FIELD]` a secret, `BACKEND:KEY` a KEK."""

from __future__ import annotations

import re
from contextlib import suppress
from typing import Self

from sentra_kms.errors import MalformedInput

BACKEND_NAME = re.compile(r"[a-z][a-z0-9+.-]*")
# Compiled when they are first needed, which takes half a millisecond: few names need them.
_BAD_PERCENT = r"%(?![0-9A-Fa-f]{2})"
_UNSAFE = "[\x00-\x20\x7f\ud800-\udfff]"
_CONTROL = "[\x00-\x1f\x7f\ud800-\udfff]"
MAX_REFERENCE = 4096  # characters
TENANT_PLACE = "{tenant}"
"""What stands in a KEK's name where each tenant has one of its own."""


class Reference(str):  # noqa: SLOT000 - its parts are kept beside the text
    """A reference, checked when it is made; as text it is what was written. Holds no secret.

    `backend`, `path`, `options` (pairs, in the order written) and `field` (`None` if absent) are
    its parts, percent-decoded. Raises `MalformedInput`, which never quotes the text: people put a
    secret where a reference belongs, and an error that quoted it would log it.

    >>> Reference("env://ENCRYPTION_MASTER_KEY").path
    'ENCRYPTION_MASTER_KEY'
    >>> Reference("vault://secret/platform?version=3#db_url").options
    (('version', '3'),)
    """

    backend: str
    path: str
    options: tuple[tuple[str, str], ...]
    field: str | None

    def __new__(cls, text: str) -> Self:
        """Parse `text`."""
        if not isinstance(text, str):
            raise MalformedInput(f"a reference is text, not {type(text).__name__}")
        if len(text) > MAX_REFERENCE:
            raise MalformedInput(f"a reference has at most {MAX_REFERENCE} characters")
        backend, separator, rest = text.partition("://")
        if not separator or BACKEND_NAME.fullmatch(backend) is None:
            raise MalformedInput(
                "not a reference: write BACKEND://PATH, e.g. file:///run/secrets/NAME"
            )
        unsafe = None if _is_plain(text) and " " not in text else re.search(_UNSAFE, text)
        if unsafe is not None:
            raise MalformedInput(
                f"a reference has no spaces or control characters (column {unsafe.start() + 1}): "
                "percent-encode them"
            )
        rest, hash_sign, field = rest.partition("#")
        path, question_mark, query = rest.partition("?")
        self = super().__new__(cls, text)
        self.backend = backend
        self.path = _checked_path(_decode(path))
        self.options = _parse_options(query) if question_mark else ()
        self.field = _checked_field(_decode(field)) if hash_sign else None
        return self


class KekName(str):
    """A KEK's full name, `BACKEND:KEY`; raises `MalformedInput` if it is not one.

    >>> KekName("local:2026-11").key
    '2026-11'
    """

    __slots__ = ()

    def __new__(cls, text: str) -> Self:
        """Check `text`."""
        backend, colon, key = text.partition(":")
        if not colon or not key or BACKEND_NAME.fullmatch(backend) is None:
            raise MalformedInput("a KEK is named BACKEND:KEY, e.g. 'local:2026-11'")
        if not _is_plain(key) and re.search(_CONTROL, key) is not None:
            raise MalformedInput("a KEK's name has no control characters and no lone surrogates")
        return super().__new__(cls, text)

    @property
    def backend(self) -> str:
        """The backend's name."""
        return self.partition(":")[0]

    @property
    def key(self) -> str:
        """The key's name inside its backend; may hold further colons."""
        return self.partition(":")[2]

    def of(self, tenant: str) -> KekName:
        """Return the KEK's name for one tenant, whose id the caller has checked.

        >>> KekName("vault:tenant-{tenant}").of("acme")
        'vault:tenant-acme'
        """
        return KekName(self.replace(TENANT_PLACE, tenant)) if TENANT_PLACE in self else self


def _is_plain(text: str) -> bool:
    """Whether all of it is visible ASCII or spaces."""
    return text.isascii() and text.isprintable()


def _decode(text: str) -> str:
    if "%" not in text:
        return text
    from urllib.parse import unquote

    if re.search(_BAD_PERCENT, text) is not None:
        raise MalformedInput("a reference has a '%' that two hex digits do not follow")
    with suppress(UnicodeDecodeError):  # which holds the text, so ours must not hold it
        return unquote(text, errors="strict")
    raise MalformedInput("a reference's percent-encoding is not UTF-8")


def _checked_path(path: str) -> str:
    if not path:
        raise MalformedInput("a reference names a path after '://'")
    if "\x00" in path or any(segment in {".", ".."} for segment in path.split("/")):
        raise MalformedInput("a reference's path has no '.' or '..' segment and no NUL")
    return path


def _checked_field(field: str) -> str:
    if not field:
        raise MalformedInput("a reference that ends in '#' names no field: drop the '#'")
    return field


def _parse_options(query: str) -> tuple[tuple[str, str], ...]:
    options: dict[str, str] = {}
    for piece in query.split("&"):
        name, equals, value = piece.partition("=")
        if not name or not equals:
            raise MalformedInput("a reference's options are written ?name=value&name=value")
        decoded = _decode(name)
        if decoded in options:
            raise MalformedInput("a reference names one option twice")
        options[decoded] = _decode(value)
    return tuple(options.items())
