"""What the ways to log in share: reading credentials, and understanding Vault's answers."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

import msgspec

from sentra_kms import (
    AuthenticationFailed,
    ConfigurationError,
    KeyMaterial,
    KMSError,
    NotFound,
    ServiceUnavailable,
)
from sentra_kms_vault.failures import Refused, ask, refused
from sentra_kms_vault.login import Token

_T = TypeVar("_T")


class _Auth(msgspec.Struct, frozen=True):
    client_token: str
    lease_duration: int = 0
    renewable: bool = False
    accessor: str | None = None
    policies: tuple[str, ...] | None = None


class _LookedUp(msgspec.Struct, frozen=True):
    ttl: int = 0
    renewable: bool = False
    accessor: str | None = None
    policies: tuple[str, ...] | None = None


def logging_in(method: str, call: Callable[[], _T]) -> _T:
    """Return what a login answers; what Vault refuses is a matter of the credentials."""

    def special(refusal: Refused) -> KMSError | None:
        if refusal.status in {400, 401, 403}:
            return refused(
                refusal,
                f"the login by '{method}' (look at its credentials, and at the role in Vault)",
                missing=NotFound,
                kind=AuthenticationFailed,
            )
        if refusal.status == 404:
            return refused(
                refusal,
                f"the login by '{method}' (look at the mount of its `auth`)",
                missing=NotFound,
                kind=ConfigurationError,
            )
        return None

    return ask(f"the login by '{method}'", call, missing=NotFound, special=special)


def token_of_login(answer: object) -> Token:
    """Return the token of a login's or a renewal's answer; raises `ServiceUnavailable`."""
    found = _convert(answer, "auth", _Auth)
    return Token(
        found.client_token,
        life=float(found.lease_duration) or None,
        renewable=found.renewable,
        accessor=found.accessor,
        policies=found.policies or (),
    )


def token_of_lookup(value: str, answer: object) -> Token:
    """Return a token with what a look-up of it answers."""
    found = _convert(answer, "data", _LookedUp)
    return Token(
        value,
        life=float(found.ttl) or None,
        renewable=found.renewable,
        accessor=found.accessor,
        policies=found.policies or (),
    )


def text_of(material: KeyMaterial, what: str) -> str:
    """Return a credential as text, without the newline that a file ends in."""
    text = ""
    with suppress(UnicodeDecodeError):  # it holds the bytes, so ours must not hold it
        text = material.reveal().decode("ascii").strip()
    if text and text.isprintable() and " " not in text:
        return text
    raise ConfigurationError(f"{what} is no line of printable ASCII without spaces")


def _convert(answer: object, part: str, kind: type[_T]) -> _T:
    try:
        return msgspec.convert(msgspec.convert(answer, dict[str, object])[part], kind)
    except (msgspec.ValidationError, KeyError):
        pass  # its message may quote the answer
    raise ServiceUnavailable("what Vault answered to a login is none: look at its address")
