"""The error tree. Everything that sentra_kms raises on purpose is a `KMSError`.

::

    KMSError
    ├── ConfigurationError      the configuration is wrong; the message names file, table and key
    ├── PluginError             a backend broke the rules of its boundary
    ├── UnsupportedOperation    this backend or this version cannot do it
    ├── NotFound
    │   ├── TenantNotFound
    │   ├── KeyNotFound
    │   └── SecretNotFound
    ├── AlreadyExists
    ├── AuthenticationFailed    the service does not accept our credentials
    ├── AccessDenied            it knows us and says no; also wrong mode, owner, or a symlink
    ├── KeyUnavailable          disabled, scheduled for destruction, or destroyed
    ├── DecryptionFailed        tampered, wrong context, wrong tenant, wrong key: one message
    ├── RingRejected            a key ring's MAC, auth id, rollback or bounds
    ├── Conflict                somebody else saved first
    ├── ServiceUnavailable      retryable: down, unreachable, a full disk
    │   ├── Throttled           with `retry_after`
    │   └── Timeout
    ├── AuditFailed
    └── MalformedInput          what was passed in is not of the right form

    VendorError                 never raised alone: the `__cause__` that tells what a vendor said

No error holds key or secret bytes, and none refers to a vendor's exception object.
"""

from __future__ import annotations

from typing import ClassVar

_TEXTS = ("backend", "operation", "subject")
_LONGEST = 1e9  # seconds that a service may ask for: 31 years are no number that it means


class KMSError(Exception):
    """Base of all errors of this package.

    `backend`, `operation` and `subject` (a tenant, a KEK or a reference, never a value) say what
    was being done, each `None` where it does not apply. `retryable` says whether the same call
    may succeed later without anybody changing anything.

    >>> error = TenantNotFound("no ring for tenant 'acme'", backend="local", subject="acme")
    >>> str(error), error.backend, error.retryable
    ("no ring for tenant 'acme'", 'local', False)
    """

    default_retryable: ClassVar[bool] = False

    def __init__(
        self,
        message: str,
        *,
        backend: str | None = None,
        operation: str | None = None,
        subject: str | None = None,
        retryable: bool | None = None,
    ) -> None:
        super().__init__(message)
        self.backend = backend
        self.operation = operation
        self.subject = subject
        self.retryable: bool = self.default_retryable if retryable is None else retryable

    @property
    def message(self) -> str:
        """What happened and what to do next, one paragraph of text."""
        return str(self.args[0])

    def __reduce__(self) -> tuple[object, ...]:
        # Keyword-only arguments do not survive the default pickling of exceptions, and errors
        # must cross process pools.
        return (_rebuild, (type(self), self.message, dict(self.__dict__)))


def afresh(error: KMSError) -> KMSError:
    """Return an equal error that refers to no frame, no context and no foreign object.

    For passing an error over a boundary: from a plugin to its caller, from one thread to others.
    What a plugin put where text belongs is dropped and not turned into text: it may hold keys.
    """
    kind = next(base for base in type(error).__mro__ if globals().get(base.__name__) is base)
    message = _text(error.args[0]) if error.args else None
    fresh = _rebuild(
        kind,
        message or f"{kind.__name__}, without a message",
        {name: _text(getattr(error, name, None)) for name in _TEXTS},
    )
    fresh.retryable = getattr(error, "retryable", fresh.retryable) is True
    if isinstance(fresh, Throttled):
        fresh.retry_after = _seconds(getattr(error, "retry_after", None))
    cause = error.__cause__
    if isinstance(cause, VendorError):
        fresh.__cause__ = VendorError(
            _text(getattr(cause, "type", None)) or "unknown",
            code=_text(getattr(cause, "code", None)),
            message=_text(getattr(cause, "message", None)) or "",
            request_id=_text(getattr(cause, "request_id", None)),
        )
    return fresh


def _text(value: object) -> str | None:
    if type(value) is not str or value.isascii():
        return value if type(value) is str else None
    return value.encode("utf-8", "backslashreplace").decode("utf-8")  # no log takes a surrogate


def _seconds(value: object) -> float | None:
    if type(value) is not float and type(value) is not int:
        return None
    return value if 0 <= value <= _LONGEST else None


def _rebuild(kind: type[KMSError], message: str, state: dict[str, object]) -> KMSError:
    error = kind(message)
    error.__dict__.update(state)
    return error


class ConfigurationError(KMSError):
    """The configuration, or a key or credential that it names, cannot be used as it is."""


class PluginError(KMSError):
    """A backend broke the rules of the plugin boundary; its author has to mend it."""


class UnsupportedOperation(KMSError):  # noqa: N818 - the tree's names are the public face
    """The backend cannot do it, or this version of sentra_kms does not do it yet."""


class NotFound(KMSError):  # noqa: N818
    """Something that was named does not exist. The only error that lets a chain go on."""


class TenantNotFound(NotFound):
    """The tenant has no key ring. Create it explicitly; none is ever made implicitly."""


class KeyNotFound(NotFound):
    """The KEK, or the version of a key ring, does not exist."""


class SecretNotFound(NotFound):
    """The secret, its version or its field does not exist."""


class AlreadyExists(KMSError):  # noqa: N818
    """What should be created is there already."""


class AuthenticationFailed(KMSError):  # noqa: N818
    """The service does not accept the credentials."""


class AccessDenied(KMSError):  # noqa: N818
    """The service knows the caller and refuses; or a file's mode, owner or kind is not safe."""


class KeyUnavailable(KMSError):  # noqa: N818
    """The key exists but may not be used: disabled, scheduled for destruction, or destroyed."""


class DecryptionFailed(KMSError):  # noqa: N818
    """The message does not open: tampered, wrong context, wrong tenant or wrong key.

    Which of these it was is not said, so that the error is no oracle.
    """


class RingRejected(KMSError):  # noqa: N818
    """A stored key ring was refused: its MAC, auth id, sequence, form or size is wrong."""


class Conflict(KMSError):  # noqa: N818
    """Somebody else saved the ring first. Read it again and retry."""

    default_retryable = True


class ServiceUnavailable(KMSError):  # noqa: N818
    """The service cannot answer now: down, unreachable, or its disk is full."""

    default_retryable = True


class Throttled(ServiceUnavailable):
    """The service asks for fewer calls; `retry_after` is in seconds, `None` if it did not say."""

    def __init__(
        self,
        message: str,
        *,
        retry_after: float | None = None,
        backend: str | None = None,
        operation: str | None = None,
        subject: str | None = None,
        retryable: bool | None = None,
    ) -> None:
        super().__init__(
            message, backend=backend, operation=operation, subject=subject, retryable=retryable
        )
        self.retry_after = retry_after


class Timeout(ServiceUnavailable):
    """No answer came within the time given."""


class AuditFailed(KMSError):  # noqa: N818
    """A required audit record could not be written, so the operation was not carried out."""


class MalformedInput(KMSError):  # noqa: N818
    """An argument is not of the right form: a tenant id, a context, a message, a reference."""


class VendorError(Exception):
    """What a vendor's library or the operating system reported, as text only.

    Backends raise one of ours `from VendorError(...)`; the vendor's own exception, its frames and
    its arguments stay behind, because they have been seen to hold keys. `message` must already be
    free of secrets; when in doubt leave it empty.

    >>> VendorError("PermissionError", code="EACCES")
    VendorError('PermissionError', code='EACCES', message='', request_id=None)
    """

    def __init__(
        self,
        type: str,  # noqa: A002 - the word of the design
        *,
        code: str | None = None,
        message: str = "",
        request_id: str | None = None,
    ) -> None:
        super().__init__(type)
        self.type = type
        self.code = code
        self.message = message
        self.request_id = request_id

    def __str__(self) -> str:
        parts = [self.type]
        if self.code is not None:
            parts.append(self.code)
        head = " ".join(parts)
        return f"{head}: {self.message}" if self.message else head

    def __repr__(self) -> str:
        return (
            f"VendorError({self.type!r}, code={self.code!r}, message={self.message!r}, "
            f"request_id={self.request_id!r})"
        )

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild_vendor, (self.type, self.code, self.message, self.request_id))


def _rebuild_vendor(
    kind: str, code: str | None, message: str, request_id: str | None
) -> VendorError:
    return VendorError(kind, code=code, message=message, request_id=request_id)
