"""What the ways to log in share: understanding Vault's answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import msgspec

from sentra_kms import (
    AuthenticationFailed,
    ConfigurationError,
    KMSError,
    NotFound,
    ServiceUnavailable,
    VendorError,
)
from sentra_kms_vault.auth.means import Means
from sentra_kms_vault.documents import understood
from sentra_kms_vault.failures import Refused, ask, vendor_error
from sentra_kms_vault.login import Token
from sentra_kms_vault.pace import ELSEWHERE

_T = TypeVar("_T")
_NO_ANSWER = "what Vault answered to a login is none: look at its address"


_REFUSED: dict[int, type[KMSError]] = {
    400: AuthenticationFailed,
    401: AuthenticationFailed,
    403: AuthenticationFailed,  # also where nothing is mounted
    404: ConfigurationError,
}


class _Auth(msgspec.Struct, frozen=True):
    client_token: str
    lease_duration: int = 0
    renewable: bool = False
    accessor: str | None = None
    policies: tuple[str, ...] | None = None
    mfa_requirement: dict[str, object] | None = None

    def __repr__(self) -> str:
        return "_Auth(redacted)"


class _LookedUp(msgspec.Struct, frozen=True):
    ttl: int = 0
    expire_time: str | None = None
    renewable: bool = False
    accessor: str | None = None
    policies: tuple[str, ...] | None = None


def logging_in(method: str, means: Means, credentials: Sequence[str], call: Callable[[], _T]) -> _T:
    """Return what a login answers; what Vault refuses is a matter of the credentials.

    After a refusal `call` is made again with the same credentials when a while has gone by.
    """

    def special(refusal: Refused) -> KMSError | None:
        kind = _REFUSED.get(refusal.status)
        if kind is None:
            return None
        if "errors" not in refusal.body:
            failure = kind(
                f"what answered the login by '{method}' with status {refusal.status} is not Vault: "
                "look at the address and at proxies"
            )
            failure.__cause__ = VendorError(ELSEWHERE, code=str(refusal.status))
            return failure
        failure = kind(
            f"Vault refused the login by '{method}' with status {refusal.status}: look at its "
            "credentials, at its role in Vault, and at the mount and the namespace of its `auth`"
        )
        failure.__cause__ = vendor_error(refusal)
        return failure

    def send() -> _T:
        return ask(f"the login by '{method}'", call, missing=NotFound, special=special)

    return means.pace.log_in(method, (*means.place, *credentials), send)


def token_of_login(answer: object) -> Token:
    """Return the token of a login's or a renewal's answer; raises `ServiceUnavailable`."""
    found = part_of(answer, "auth", _Auth)
    if found.mfa_requirement is not None and not found.client_token:
        raise AuthenticationFailed(
            "Vault wants a second factor for this login, which a program has not: exempt its "
            "role from the MFA enforcement, or use another method"
        )
    return Token(
        _line(found.client_token),
        life=float(found.lease_duration) or None,
        renewable=found.renewable,
        accessor=found.accessor,
        policies=found.policies or (),
    )


def token_of_lookup(value: str, answer: object) -> Token:
    """Return a token with what a look-up of it answers."""
    found = part_of(answer, "data", _LookedUp)
    return Token(
        value,
        life=None if found.expire_time is None and found.ttl == 0 else float(found.ttl),
        renewable=found.renewable,
        accessor=found.accessor,
        policies=found.policies or (),
    )


def _line(value: str) -> str:
    """Return a token that fits into a header: one that does not would be shown by the client."""
    if value and value.isascii() and value.isprintable() and " " not in value:
        return value
    raise ServiceUnavailable(_NO_ANSWER)


def part_of(answer: object, part: str, kind: type[_T]) -> _T:
    """Return a part of an answer that is known by its form; raises `ServiceUnavailable`."""
    parts = understood(answer, dict[str, object]) or {}
    found = understood(parts.get(part), kind)
    if found is None:
        raise ServiceUnavailable(_NO_ANSWER)
    return found
