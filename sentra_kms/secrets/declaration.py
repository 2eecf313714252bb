"""One entry of `[ENV.secrets]`, from what is written to a record that was checked."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated, TypeVar, cast

import msgspec
from msgspec import Meta

from sentra_kms.errors import MalformedInput
from sentra_kms.reference import Reference
from sentra_kms.secret_settings import SecretEntry, SecretSource
from sentra_kms.secrets.template import parse_template
from sentra_kms.secrets.transforms import TRANSFORMS
from sentra_kms.settings import Duration

NAME_PATTERN = "[A-Za-z_][A-Za-z0-9_]{0,127}"
"""A secret's name, as a regular expression: what may also name an environment variable."""

_NAME = re.compile(NAME_PATTERN)
_T = TypeVar("_T", bound=msgspec.Struct)

FromText = Callable[[type, object], object]
"""What makes references and durations of text, as msgspec calls it."""

References = Annotated[
    tuple[Reference, ...],
    Meta(
        min_length=1,
        max_length=16,
        description="A reference, or a list of them: the next is asked only if one is not found.",
    ),
]
Transforms = Annotated[
    tuple[str, ...],
    Meta(description="What is done to the value: base64 decodes, json unquotes; or a list."),
]
Ttl = Annotated[
    Duration, Meta(description="A value is used this long, then the source is asked again.")
]
MaxAge = Annotated[Duration, Meta(description="The age past which `doctor` asks for a rotation.")]


class SecretTable(msgspec.Struct, frozen=True, kw_only=True):
    """An entry written as a table with `from`."""

    source: References = msgspec.field(name="from")
    transform: Transforms = ()
    ttl: Ttl | None = None
    max_age: MaxAge | None = None


class TemplateTable(msgspec.Struct, frozen=True, kw_only=True):
    """An entry written as a table with `template`; its other keys are the parts."""

    template: Annotated[
        str,
        Meta(
            description="Text in which {part} stands for a part's value, URL-quoted, and "
            "{part:raw} for the value as it is. The table's other keys are the parts."
        ),
    ]
    ttl: Ttl | None = None
    max_age: MaxAge | None = None


class PartTable(msgspec.Struct, frozen=True, kw_only=True):
    """A template's part written as a table."""

    source: References = msgspec.field(name="from")
    transform: Transforms = ()


_OWN = frozenset(field.encode_name for field in msgspec.structs.fields(TemplateTable))
_NO_PARTS = frozenset({"from", "transform"})


def is_secret_name(name: str) -> bool:
    """Whether this may be a secret's name: letters, digits and underscores, no digit first.

    >>> is_secret_name("DATABASE_URL"), is_secret_name("2nd")
    (True, False)
    """
    return _NAME.fullmatch(name) is not None


def parse_secret(name: str, value: object, from_text: FromText) -> SecretEntry:
    """Check an entry; raises `MalformedInput`, which quotes no value: it may be the secret."""
    if not is_secret_name(name):
        raise MalformedInput(
            "a secret's name has 1 to 128 letters, digits and underscores, and no digit first, "
            "as environment variables have it"
        )
    if isinstance(value, str):
        return SecretEntry({"": SecretSource((Reference(value),))})
    if not isinstance(value, dict):
        raise MalformedInput("a secret is a reference, or a table with 'from' or 'template'")
    table = cast("dict[str, object]", value)
    if "template" in table:
        return _composed(table, from_text)
    found = _table(table, SecretTable, from_text)
    return _timed(
        SecretEntry({"": _source(found.source, found.transform)}), found.ttl, found.max_age
    )


def _composed(table: dict[str, object], from_text: FromText) -> SecretEntry:
    named = {key: value for key, value in table.items() if key not in _OWN}
    for key in sorted(_NO_PARTS & named.keys()):
        raise MalformedInput(f"'{key}' does not go with 'template': it belongs to a part")
    own = _table(
        {key: value for key, value in table.items() if key in _OWN}, TemplateTable, from_text
    )
    parts = {key: _part(key, value, from_text) for key, value in named.items()}
    return _timed(SecretEntry(parts, parse_template(own.template, parts)), own.ttl, own.max_age)


def _part(name: str, value: object, from_text: FromText) -> SecretSource:
    if not is_secret_name(name):
        raise MalformedInput("a part's name has letters, digits and underscores, no digit first")
    table = cast("dict[str, object]", value) if isinstance(value, dict) else {"from": value}
    failure: str
    try:
        found = _table(table, PartTable, from_text)
        return _source(found.source, found.transform)
    except MalformedInput as error:
        failure = f"part '{name}': {error.message}"
    raise MalformedInput(failure)


def _source(references: tuple[Reference, ...], transforms: tuple[str, ...]) -> SecretSource:
    if len(set(references)) != len(references):
        raise MalformedInput("'from' names a reference twice")
    if not set(transforms) <= set(TRANSFORMS):
        raise MalformedInput(f"'transform' is one of {', '.join(TRANSFORMS)}, or a list of them")
    return SecretSource(references, transforms)


def _timed(entry: SecretEntry, ttl: float | None, max_age: float | None) -> SecretEntry:
    for name, seconds in (("ttl", ttl), ("max_age", max_age)):
        if seconds is not None and seconds <= 0:
            raise MalformedInput(f"'{name}' is longer than no time")
    return msgspec.structs.replace(entry, ttl=ttl, max_age=max_age)


def _table(table: dict[str, object], kind: type[_T], from_text: FromText) -> _T:
    known = [field.encode_name for field in msgspec.structs.fields(kind)]
    for key in table:
        if key not in known:
            from difflib import get_close_matches  # only for an error

            close = get_close_matches(key, known, n=1)
            hint = f"; did you mean '{close[0]}'?" if close else ""
            raise MalformedInput(f"unknown key '{key}'{hint}")
    # One reference or transform may stand without brackets.
    whole = {
        key: [value] if key in {"from", "transform"} and isinstance(value, str) else value
        for key, value in table.items()
    }
    return _converted(whole, kind, from_text)


def _converted(value: object, kind: type[_T], from_text: FromText) -> _T:
    failure: str
    try:
        return msgspec.convert(value, kind, dec_hook=from_text)
    except msgspec.ValidationError as error:
        failure = str(error).replace("`$.", "`").replace("Object missing", "missing")
    raise MalformedInput(failure)
