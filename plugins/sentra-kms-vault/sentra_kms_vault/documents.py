"""From what Vault answers to a secret's document: a JSON object of its fields."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from decimal import Decimal
from typing import TypeVar

import msgspec

from sentra_kms import KeyMaterial, SecretNotFound
from sentra_kms.hooktypes import SecretValue
from sentra_kms.reference import Reference

_T = TypeVar("_T")
_encode = msgspec.json.Encoder(decimal_format="number").encode
_decode = msgspec.json.Decoder(float_hook=Decimal).decode


def understood(answer: object, kind: type[_T]) -> _T | None:
    """Return an answer as what it should be, `None` if it is not.

    >>> understood({"7": "x"}, dict[int, str])
    {7: 'x'}
    """
    with suppress(msgspec.ValidationError):  # its message may quote the answer
        return msgspec.convert(answer, kind, str_keys=True)  # numbers are no keys in JSON
    return None


def document_of(fields: Mapping[str, object]) -> KeyMaterial:
    """Return fields as compact JSON, each number as Vault wrote it.

    >>> document_of({"user": "app", "port": 5432}).reveal()
    b'{"user":"app","port":5432}'
    """
    return KeyMaterial(_encode(fields))


def pick(found: SecretValue, reference: Reference) -> SecretValue:
    """Return the field that a reference names. The core asks for documents, and picks by itself."""
    value: object = _decode(found.data.reveal())
    for key in reference.keys:
        value = value.get(key) if isinstance(value, dict) else None
    if value is None:
        raise SecretNotFound(f"{reference}: there is no such field: correct the name after '#'")
    picked = value.encode("utf-8") if isinstance(value, str) else _encode(value)
    return msgspec.structs.replace(found, data=KeyMaterial(picked))
