"""From references to what their sources hold now; nothing is kept here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from sentra_kms.binding import Binding
from sentra_kms.errors import (
    AuthenticationFailed,
    KMSError,
    MalformedInput,
    SecretNotFound,
    afresh,
)
from sentra_kms.hooktypes import SecretRequest, SecretValue
from sentra_kms.material import KeyMaterial
from sentra_kms.reference import Reference

MAX_SECRET = 1024 * 1024  # bytes, of a whole document
LOCAL = frozenset({"docker", "env", "file", "systemd"})
"""Types that read what is on this machine, and answer at once."""

Bound = Callable[[str], Binding]
"""From a backend's name to the backend in use; raises `ConfigurationError` for one that is not."""

Outcome = SecretValue | KMSError
"""What fetching one of several documents came to."""


def fetch_value(bound: Bound, reference: Reference) -> KeyMaterial:
    """Return a reference's bytes, its field picked out; the source is asked each time."""
    found = fetch_document(bound, reference.document)
    if not reference.keys:
        return found.data
    from sentra_kms.secrets.transforms import pick_field  # a master key is a document of its own

    return pick_field(found.data, reference)


def fetch_document(bound: Bound, document: Reference) -> SecretValue:
    """Fetch a document, a reference without a field; raises what the backend does."""
    binding = bound(document.backend)
    try:
        found = binding.fetch_secret(SecretRequest(document))
    except SecretNotFound as error:
        failure = _about(error, document)
    else:
        return _checked(found, document)
    raise failure


def _about(error: SecretNotFound, document: Reference) -> KMSError:
    """Return an error about a document, of one that may be about what its backend needs itself.

    A backend whose own credential is not found has not said that the document is not.
    """
    if error.backend in {None, document.backend}:
        return afresh(error)
    return AuthenticationFailed(
        f"backend '{document.backend}' cannot be asked for {document}, since what it needs itself "
        f"is not there: {error.message}",
        backend=document.backend,
        operation="fetch_secret",
        subject=str(document),
    )


Batch = Callable[[list[SecretRequest]], Sequence[Outcome]]


def batch_of(bound: Bound, name: str) -> Batch | None:
    """Return a backend's way to fetch several secrets in one call, `None` if it has none."""
    try:
        binding = bound(name)
    except KMSError:
        return None  # told for each of them when it is fetched
    return binding.fetch_secrets if "fetch_secrets" in binding.operations else None


def is_local(bound: Bound, name: str) -> bool:
    """Whether a backend answers at once."""
    try:
        return bound(name).kind in LOCAL
    except KMSError:
        return True  # which it does with this error


def in_one_call(batch: Batch, documents: Sequence[Reference]) -> list[Outcome]:
    """Fetch documents of one backend in one call; an error is one document's, or all theirs."""
    try:
        answers = batch([SecretRequest(document) for document in documents])
    except KMSError as error:
        answers = [afresh(error) for _ in documents]
    return [_end_of(answer, document) for answer, document in zip(answers, documents, strict=True)]


def _end_of(answer: Outcome, document: Reference) -> Outcome:
    if isinstance(answer, SecretNotFound):
        return _about(answer, document)
    if isinstance(answer, KMSError):
        return answer
    return _attempt(partial(_checked, answer, document))


def _attempt(fetch: Callable[[], SecretValue]) -> Outcome:
    try:
        return fetch()
    except KMSError as error:
        return afresh(error)


def _checked(found: SecretValue, document: Reference) -> SecretValue:
    """Hold an answer to the rule that the boundary does not check."""
    if len(found.data.reveal()) > MAX_SECRET:
        raise MalformedInput(
            f"{document} holds more than {MAX_SECRET} bytes: not a secret", subject=str(document)
        )
    return found
