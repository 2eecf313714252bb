"""What is done to fetched bytes: a field picked out of a document, a newline dropped, decoding.

Values come and go as `KeyMaterial`, and what is raised is raised where no frame holds them plain.
"""

from __future__ import annotations

import binascii
from collections.abc import Callable, Sequence
from contextlib import suppress

import msgspec

from sentra_kms.errors import KMSError, MalformedInput, SecretNotFound
from sentra_kms.material import KeyMaterial
from sentra_kms.reference import Reference

TRANSFORMS = ("base64", "json")
"""Names of the transforms that a secret may declare."""

_objects = msgspec.json.Decoder(dict[str, msgspec.Raw])
_lists = msgspec.json.Decoder(list[msgspec.Raw])
_WHITE_SPACE = b" \t\r\n"
_JSON_WHITE_SPACE = b" \t\n\r"


def pick_field(document: KeyMaterial, reference: Reference) -> KeyMaterial:
    """Return the field that a reference names of a JSON document.

    A string is given as its text, anything else as its JSON as it was written. A key that is
    not there and `null` are `SecretNotFound`; what is no JSON object or array where the way goes
    on is `MalformedInput`.
    """
    value = document
    for place, key in enumerate(reference.keys):
        found = _below(value, key)
        if isinstance(found, KeyMaterial):
            value = found
            continue
        where = "the document" if place == 0 else "what its field leads to"
        failure = found(f"{reference}: {where}", key)
        # Whose field it is: a backend whose credential lacks it has not said what it was asked.
        failure.backend, failure.subject = reference.backend, str(reference)
        raise failure
    return _unquoted(value, reference)


def drop_newline(value: KeyMaterial) -> KeyMaterial:
    r"""Drop one LF or CRLF at the end of text, UTF-8 without NUL; other bytes stay as they are.

    >>> drop_newline(KeyMaterial(b"hunter2\n")).reveal()
    b'hunter2'
    """
    if not value.reveal().endswith(b"\n") or not _is_text(value):
        return value
    ending = b"\r\n" if value.reveal().endswith(b"\r\n") else b"\n"
    return KeyMaterial(value.reveal().removesuffix(ending))


def apply(transforms: Sequence[str], value: KeyMaterial, subject: str) -> KeyMaterial:
    """Apply declared transforms in their order; raises `MalformedInput` naming `subject`."""
    for name in transforms:
        value = _base64(value, subject) if name == "base64" else _json(value, subject)
    return value


_Failure = Callable[[str, str], KMSError]


def _below(value: KeyMaterial, key: str) -> KeyMaterial | _Failure:
    """Return what is under a key of an object or an index of an array, or how that fails."""
    with suppress(msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        found = _objects.decode(value.reveal())
        return KeyMaterial(bytes(found[key])) if key in found else _missing
    with suppress(msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        items = _lists.decode(value.reveal())
        if key.isascii() and key.isdigit() and str(int(key[:9])) == key and int(key) < len(items):
            return KeyMaterial(bytes(items[int(key)]))
        return _missing
    return _no_object


def _missing(where: str, key: str) -> KMSError:
    return SecretNotFound(f"{where} has no such field: correct the name after '#'")


def _no_object(where: str, key: str) -> KMSError:
    return MalformedInput(
        f"{where} is no JSON object or array, so that it has no fields: drop the '#' and what "
        "follows it, or correct the value"
    )


def _unquoted(value: KeyMaterial, reference: Reference) -> KeyMaterial:
    if value.reveal().strip(_JSON_WHITE_SPACE) == b"null":
        raise SecretNotFound(
            f"{reference}: the field is null", backend=reference.backend, subject=str(reference)
        )
    text = _string(value)
    if text is not None:
        return text
    if value.reveal().lstrip(_JSON_WHITE_SPACE).startswith(b'"'):
        raise MalformedInput(f"{reference}: the field is a JSON string that is no Unicode text")
    return KeyMaterial(value.reveal().strip(_JSON_WHITE_SPACE))


def _string(value: KeyMaterial) -> KeyMaterial | None:
    """Return the text of a JSON string as UTF-8, `None` for anything else."""
    with suppress(ValueError, RecursionError):
        if value.reveal().lstrip(_JSON_WHITE_SPACE)[:1] == b'"':
            import json

            return KeyMaterial(json.loads(value.reveal()).encode("utf-8"))
    return None


def _json(value: KeyMaterial, subject: str) -> KeyMaterial:
    text = _string(value)
    if text is not None:
        return text
    if not _is_json(value):
        raise MalformedInput(f"{subject}: its transform is json, and the value is no JSON")
    return KeyMaterial(value.reveal().strip(_JSON_WHITE_SPACE))


def _is_json(value: KeyMaterial) -> bool:
    with suppress(msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        msgspec.json.decode(value.reveal())
        return not value.reveal().lstrip(_JSON_WHITE_SPACE).startswith(b'"')
    return False


def _base64(value: KeyMaterial, subject: str) -> KeyMaterial:
    decoded = _decoded(value)
    if decoded is None:
        raise MalformedInput(
            f"{subject}: its transform is base64, and the value is not (standard or URL-safe, "
            "padded or not)"
        )
    return decoded


def _decoded(value: KeyMaterial) -> KeyMaterial | None:
    with suppress(binascii.Error):
        standard = value.reveal().translate(bytes.maketrans(b"-_", b"+/"), _WHITE_SPACE)
        bare = standard.rstrip(b"=")
        if len(standard) - len(bare) in {0, -len(bare) % 4}:
            padded = bare + b"=" * (-len(bare) % 4)
            return KeyMaterial(binascii.a2b_base64(padded, strict_mode=True))
    return None


def _is_text(value: KeyMaterial) -> bool:
    with suppress(UnicodeDecodeError):
        return "\x00" not in value.reveal().decode("utf-8")
    return False
