"""What may come back from a backend: a record of the right kind and form, or an error of ours.

msgspec checks records when it decodes, not when they are made, so a plugin can put anything there.
What is wrong is told by its kind and never by its value, which may be a key.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime
from types import CoroutineType
from typing import cast

from sentra_kms.errors import KMSError, PluginError, VendorError, afresh
from sentra_kms.hooktypes import (
    Finding,
    KeyDescription,
    Remainder,
    RingPage,
    SecretValue,
    StoredRing,
    WrappedKey,
)
from sentra_kms.material import KeyMaterial

TENANT_KEY_SIZE = 32
LEVELS = ("ok", "warning", "error")
"""A finding's levels, the worst last."""

_UNWRAPS = frozenset({"unwrap_key", "unwrap_keys"})

_Check = Callable[[object], str | None]
"""Says what is wrong with a field's value, without showing it; `None` if nothing is."""


def own_error(backend: str, error: object, operation: str) -> KMSError:
    """Return an error of ours for what a hook raised, or gave as an end of a batch."""
    if issubclass(type(error), KMSError):
        with suppress(Exception):  # a plugin's own subclass is foreign code, too
            return afresh(cast("KMSError", error))
    failure = PluginError(
        f"backend '{backend}' let {type(error).__name__} escape from {operation}: its author must "
        "map it"
    )
    failure.__cause__ = VendorError(type(error).__name__)
    return failure


def wrong_answer(
    backend: str, operation: str, subject: str, answer: object, kind: type
) -> PluginError | None:
    """Return what is wrong with the answer of a hook, `None` if nothing is."""
    said = f"backend '{backend}' answered {operation} with"
    if type(answer) is not kind:  # and no subclass, which is foreign code wherever it is read
        given = type(answer).__name__
        drop_coroutine(answer)
        return PluginError(f"{said} {given}, not {kind.__name__}")
    if kind is str and _text(answer) is not None:
        return PluginError(f"{said} text that is empty or no text")
    if operation == "purge_ring_history" and kind is list:
        faults = (
            wrong_answer(backend, operation, subject, each, Remainder)
            for each in cast("list[object]", answer)
        )
        return next((fault for fault in faults if fault is not None), None)
    for field, check in _FIELDS.get(kind, ()):
        fault = check(getattr(answer, field, None))
        if fault is not None:
            return PluginError(f"{said} a {kind.__name__} whose {field} {fault}")
    if operation in _UNWRAPS:
        size = len(cast("KeyMaterial", answer).reveal())
        if size != TENANT_KEY_SIZE:
            return PluginError(
                f"'{subject}' unwrapped {size} bytes where a tenant key has {TENANT_KEY_SIZE}"
            )
    return None


def findings_of(backend: str, answer: object) -> list[Finding]:
    """Return what a part answered `check` with; in the place of what is none, what is wrong."""
    said = f"backend '{backend}' answered check with"
    if type(answer) is not list and type(answer) is not tuple:
        drop_coroutine(answer)
        fault = PluginError(f"{said} {type(answer).__name__}, not a list of Finding")
        return [Finding("error", backend, fault.message)]
    found: list[Finding] = []
    for each in cast("Sequence[object]", answer):
        wrong = wrong_answer(backend, "check", backend, each, Finding)
        found.append(
            cast("Finding", each)
            if wrong is None
            else Finding("error", backend, wrong.message, "its author must mend it")
        )
    return found


def drop_coroutine(answer: object) -> None:
    """Close a coroutine that is refused, or Python would warn that nobody awaited it."""
    if type(answer) is CoroutineType:
        cast("CoroutineType[object, object, object]", answer).close()


def wrong_ends(backend: str, operation: str, ends: object, count: int) -> PluginError | None:
    """Return what is wrong with a batch hook's answer as a whole, `None` if nothing is."""
    said = f"backend '{backend}' answered {operation} with"
    if type(ends) is list or type(ends) is tuple:
        size = len(cast("Sequence[object]", ends))
        if size == count:
            return None
        return PluginError(f"{said} {size} ends for {count} requests: one is needed for each")
    return PluginError(f"{said} {type(ends).__name__}, not a list of one end for each request")


def version_of(answer: object) -> str | None:
    """Return the version that an answer which is not wrong names, of a KEK, a secret or a ring."""
    match answer:
        case WrappedKey() | KeyDescription():
            return answer.key_version
        case SecretValue():
            return answer.version
        case StoredRing():
            return answer.revision
        case str():  # what save_ring answers
            return answer
        case _:
            return None


def _of(*kinds: type) -> _Check:
    return lambda value: None if type(value) in kinds else f"is {type(value).__name__}"


def _text(value: object) -> str | None:
    if type(value) is not str:
        return f"is {type(value).__name__}"
    if not value or any("\ud800" <= each <= "\udfff" for each in value):
        return "is empty, or no text: None says that there is none"
    return None


def _text_or_none(value: object) -> str | None:
    return None if value is None else _text(value)


def _maybe_empty(value: object) -> str | None:
    return None if value == "" and type(value) is str else _text(value)


def _level(value: object) -> str | None:
    is_one = type(value) is str and value in LEVELS
    return None if is_one else f"is none of {', '.join(LEVELS)}"


def _bytes(value: object) -> str | None:
    if type(value) is not bytes:
        return f"is {type(value).__name__}"
    return None if value else "is empty"


def _moment_or_none(value: object) -> str | None:
    if value is None:
        return None
    if not isinstance(value, datetime):
        return f"is {type(value).__name__}"
    aware = False
    with suppress(Exception):  # a time zone is foreign code, and this is outside the hook's call
        aware = value.utcoffset() is not None
    return None if aware else "has no time zone: make it aware"


def _texts(value: object) -> str | None:
    if type(value) is not tuple:
        return f"is {type(value).__name__}"
    faults = (_text(each) for each in cast("tuple[object, ...]", value))
    return next((f"holds one that {fault}" for fault in faults if fault is not None), None)


_FIELDS: dict[type, tuple[tuple[str, _Check], ...]] = {
    WrappedKey: (("ciphertext", _bytes), ("key_id", _text), ("key_version", _text_or_none)),
    KeyDescription: (("key_id", _text), ("key_version", _text_or_none)),
    SecretValue: (
        ("data", _of(KeyMaterial)),
        ("version", _text_or_none),
        ("expires", _moment_or_none),
        ("created", _moment_or_none),
        ("leased", _of(bool)),
    ),
    StoredRing: (("document", _of(bytes)), ("revision", _text)),
    RingPage: (("tenants", _texts), ("cursor", _text_or_none)),
    Finding: (
        ("level", _level),
        ("subject", _text),
        ("message", _text),
        ("advice", _maybe_empty),
    ),
    Remainder: (("place", _text), ("until", _moment_or_none)),
}
