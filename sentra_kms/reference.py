"""Names of things elsewhere: `BACKEND://PATH[?…][#FIELD]` a secret, `BACKEND:KEY` a KEK."""

from __future__ import annotations

import re
from typing import NoReturn, Self

from sentra_kms.errors import MalformedInput

BACKEND_NAME = r"[a-z][a-z0-9+.-]*"
"""A backend's name, as a regular expression; `is_backend_name` checks it."""
PREFIX = "ref+"
"""What may stand before a reference, as users of vals write it; no backend's name begins so."""

# Compiled when they are first needed, which takes half a millisecond: few names need them.
_BAD_PERCENT = r"%(?![0-9A-Fa-f]{2})"
_BAD_TILDE = r"~(?![01])"
_UNSAFE = "[\x00-\x20\x7f\ud800-\udfff]"
_CONTROL = "[\x00-\x1f\x7f\ud800-\udfff]"
MAX_REFERENCE = 4096  # characters
TENANT_PLACE = "{tenant}"
"""What stands in a KEK's name where each tenant has one of its own."""


_MARKS = str.maketrans("", "", "+.-")


def is_backend_name(text: str) -> bool:
    """Whether `text` is a name that a backend may have.

    >>> is_backend_name("vault-eu"), is_backend_name("Vault"), is_backend_name("2nd")
    (True, False, False)
    """
    # Without the expression, which takes 0.1 ms to compile.
    return (
        text.isascii()
        and text.islower()
        and text[:1].isalpha()
        and text.translate(_MARKS).isalnum()
    )


class Reference(str):  # noqa: SLOT000 - its parts are kept beside the text
    """A reference, checked when it is made; as text it is what was written. Holds no secret.

    `backend`, `path`, `options` (pairs, in the order written) and `field` (`None` if absent) are
    its parts, percent-decoded. `keys` is the way from the top of a JSON document to the field:
    one key, or those of a JSON pointer (RFC 6901) if the field begins with a slash; empty without
    a field. A prefix `ref+` is taken off. Raises `MalformedInput`, which names the column and
    never quotes the text: people put a secret where a reference belongs, and an error that quoted
    it would log it.

    >>> Reference("env://ENCRYPTION_MASTER_KEY").path
    'ENCRYPTION_MASTER_KEY'
    >>> Reference("vault://secret/platform?version=3#db_url").options
    (('version', '3'),)
    >>> Reference("ref+vault://secret/platform#/db/password").keys
    ('db', 'password')
    """

    backend: str
    path: str
    options: tuple[tuple[str, str], ...]
    field: str | None
    keys: tuple[str, ...]

    def __new__(cls, text: str) -> Self:
        """Parse `text`."""
        if not isinstance(text, str):
            raise MalformedInput(f"a reference is text, not {type(text).__name__}")
        if len(text) > MAX_REFERENCE:
            raise MalformedInput(
                f"a reference has at most {MAX_REFERENCE} characters (column {MAX_REFERENCE + 1})"
            )
        parsed = _Parsed(text)
        self = super().__new__(cls, text.removeprefix(PREFIX))
        self.backend = parsed.backend
        self.path = parsed.path
        self.options = parsed.options
        self.field = parsed.field
        self.keys = parsed.keys
        return self

    @property
    def document(self) -> Reference:
        """What is fetched: the same without its field.

        >>> Reference("vault://secret/platform?version=3#db_url").document
        'vault://secret/platform?version=3'
        """
        return self if self.field is None else Reference(self.partition("#")[0])


class KekName(str):
    """A KEK's full name, `BACKEND:KEY`; raises `MalformedInput` if it is not one.

    >>> KekName("local:2026-11").key
    '2026-11'
    """

    __slots__ = ()

    def __new__(cls, text: str) -> Self:
        """Check `text`."""
        backend, colon, key = text.partition(":")
        if not colon or not key or not is_backend_name(backend):
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


class _Parsed:
    """The parts of a reference. Columns count the characters of what was written, from 1."""

    def __init__(self, text: str) -> None:
        start = len(PREFIX) if text.startswith(PREFIX) else 0
        backend, separator, _ = text[start:].partition("://")
        if not separator or not is_backend_name(backend):
            # Without '://' it may be a secret, whose length is nobody's business.
            name = re.match(BACKEND_NAME, backend) if separator else None
            wrong = start + (name.end() if name else 0)
            _refuse("not a reference: write BACKEND://PATH, e.g. file:///run/secrets/NAME", wrong)
        unsafe = None if _is_plain(text) and " " not in text else re.search(_UNSAFE, text)
        if unsafe is not None:
            _refuse(
                "a reference has no spaces or control characters: percent-encode them",
                unsafe.start(),
            )
        self.backend = backend
        begin = start + len(backend) + len(separator)
        rest, hash_sign, field = text[begin:].partition("#")
        path, question_mark, query = rest.partition("?")
        self.path = _path(path, begin)
        after = begin + len(path) + 1
        self.options = _options(query, after) if question_mark else ()
        after = begin + len(rest) + 1
        self.field = _field(field, after) if hash_sign else None
        self.keys = _keys(self.field, after)


def _refuse(what: str, index: int) -> NoReturn:
    raise MalformedInput(f"{what} (column {index + 1})")


def _is_plain(text: str) -> bool:
    """Whether all of it is visible ASCII or spaces."""
    return text.isascii() and text.isprintable()


def _decode(text: str, begin: int) -> str:
    if "%" not in text:
        return text
    from urllib.parse import unquote

    bad = re.search(_BAD_PERCENT, text)
    if bad is not None:
        _refuse("a reference has a '%' that two hex digits do not follow", begin + bad.start())
    try:
        return unquote(text, errors="strict")
    except UnicodeDecodeError:
        pass  # it holds the text, so ours must not hold it
    _refuse("a reference's percent-encoding is not UTF-8", begin + text.index("%"))


def _path(text: str, begin: int) -> str:
    if not text:
        _refuse("a reference names a path after '://'", begin)
    decoded: list[str] = []
    at = begin
    for segment in text.split("/"):
        decoded.append(_decode(segment, at))
        if "\x00" in decoded[-1] or any(each in {".", ".."} for each in decoded[-1].split("/")):
            _refuse("a reference's path has no '.' or '..' segment and no NUL", at)
        at += len(segment) + 1
    return "/".join(decoded)


def _options(query: str, begin: int) -> tuple[tuple[str, str], ...]:
    options: dict[str, str] = {}
    at = begin
    for piece in query.split("&"):
        name, equals, value = piece.partition("=")
        if not name or not equals:
            _refuse("a reference's options are written ?name=value&name=value", at)
        decoded = _decode(name, at)
        if decoded in options:
            _refuse("a reference names one option twice", at)
        options[decoded] = _decode(value, at + len(name) + 1)
        at += len(piece) + 1
    return tuple(options.items())


def _field(text: str, begin: int) -> str:
    if not text:
        _refuse("a reference that ends in '#' names no field: drop the '#'", begin - 1)
    return _decode(text, begin)


def _keys(field: str | None, begin: int) -> tuple[str, ...]:
    if field is None:
        return ()
    if not field.startswith("/"):
        return (field,)
    if re.search(_BAD_TILDE, field) is not None:
        _refuse("in a JSON pointer '~' is written ~0, and '/' in a key ~1", begin)
    return tuple(
        key.replace("~1", "/").replace("~0", "~") for key in field.removeprefix("/").split("/")
    )
