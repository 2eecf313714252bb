"""What can come back instead of an answer, and what each is to callers."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from sentra_kms import (
    AccessDenied,
    AuthenticationFailed,
    Conflict,
    KMSError,
    MalformedInput,
    NotFound,
    ServiceUnavailable,
    Throttled,
    Timeout,
    UnsupportedOperation,
    VendorError,
)

_T = TypeVar("_T")

STATUSES: dict[int, type[KMSError]] = {
    400: MalformedInput,
    401: AuthenticationFailed,
    403: AccessDenied,
    404: NotFound,
    405: UnsupportedOperation,
    409: Conflict,
    412: ServiceUnavailable,  # a node that has not seen the write that we depend on yet
    413: MalformedInput,
    429: Throttled,
    472: ServiceUnavailable,  # disaster recovery secondary
    473: ServiceUnavailable,  # performance standby
    500: ServiceUnavailable,
    501: ServiceUnavailable,  # not initialised
    502: ServiceUnavailable,
    503: ServiceUnavailable,  # sealed, or in maintenance
    504: ServiceUnavailable,
}
"""What each status of the API is to callers where nothing more is known.

https://developer.hashicorp.com/vault/api-docs#http-status-codes
"""

_ADVICE = {
    401: "look at the credentials of its `auth`",
    403: "look at the policies of the token, or at its namespace",
    405: "look whether the engine that the path needs is mounted there",
    412: "it will know the newest write soon",
    413: "it was too large",
    429: "it was asked too often",
    472: "it is a disaster recovery secondary: use the address of the primary",
    473: "it is a performance standby that cannot do this: use the address of the active node",
    501: "it is not initialised: run `vault operator init`",
    503: "it is sealed or in maintenance: unseal it",
}


class Unanswered(Exception):  # noqa: N818 - what happened, for this package alone
    """No answer, or none that is Vault's. `sent`: whether the request may have been carried out.

    `kind` is what it is to callers, `what` a few words without anything that was sent or received;
    `passing` says whether it may go by within seconds.
    """

    def __init__(
        self,
        kind: type[ServiceUnavailable],
        what: str,
        cause: str,
        *,
        sent: bool,
        passing: bool = False,
    ) -> None:
        super().__init__(what)
        self.kind = kind
        self.what = what
        self.cause = cause
        self.sent = sent
        self.passing = passing


class Refused(Exception):  # noqa: N818
    """Vault answered with a status of 400 or more.

    `texts` are what it said, which may repeat what it was given: looked at and never shown.
    `body` is the whole answer, for requests that are answered in part.
    """

    def __init__(
        self,
        status: int,
        texts: tuple[str, ...],
        body: dict[str, object],
        *,
        retry_after: float | None = None,
        request_id: str | None = None,
    ) -> None:
        super().__init__(str(status))
        self.status = status
        self.texts = texts
        self.body = body
        self.retry_after = retry_after
        self.request_id = request_id

    def says(self, *parts: str) -> bool:
        """Whether what Vault said has one of these parts, whatever its case."""
        told = "\n".join(self.texts).lower()
        return any(part in told for part in parts)


Special = Callable[[Refused], KMSError | None]
"""Knows better than the status what a refusal is, or gives `None`."""


def ask(
    what: str, call: Callable[[], _T], *, missing: type[NotFound], special: Special | None = None
) -> _T:
    """Return what `call` answers; raise an error of sentra_kms for what came instead.

    `what` says what was asked for, by name and never by value, after "Vault refused". `missing` is
    the error of what is not there. The client's exceptions stay behind: their frames hold keys.
    """
    try:
        return call()
    except Unanswered as problem:
        failure = unanswered(problem, what)
    except Refused as refusal:
        failure = (special and special(refusal)) or refused(refusal, what, missing=missing)
    raise failure


def unanswered(problem: Unanswered, what: str) -> KMSError:
    """Return the error of a request that was not answered."""
    failure = problem.kind(f"Vault did not answer {what}: {problem.what}")
    failure.__cause__ = VendorError(problem.cause)
    return failure


def refused(
    refusal: Refused, what: str, *, missing: type[NotFound], kind: type[KMSError] | None = None
) -> KMSError:
    """Return the error of a refusal; `kind` is it where more is known than the status."""
    status = refusal.status
    if kind is None:
        kind = missing if status == 404 else STATUSES.get(status)
    if kind is None:
        kind = ServiceUnavailable if status >= 500 else AccessDenied
    advice = _ADVICE.get(status)
    message = f"Vault refused {what} with status {status}" + (f": {advice}" if advice else "")
    if issubclass(kind, Throttled):
        failure: KMSError = kind(message, retry_after=refusal.retry_after)
    else:
        failure = kind(message)
    failure.__cause__ = vendor_error(refusal)
    return failure


def vendor_error(refusal: Refused) -> VendorError:
    """Return what a refusal was, without its texts."""
    return VendorError("vault", code=str(refusal.status), request_id=refusal.request_id)


def late(what: str = "the time for it is over") -> Unanswered:
    """Return what is raised when no time is left before anything is sent."""
    return Unanswered(Timeout, what, "timeout", sent=False)
