"""Exit codes: one table, from which `--help` and the errors' codes come."""

from __future__ import annotations

from typing import NamedTuple

from sentra_kms import errors

OK = 0
UNEXPECTED = 1
USAGE = 2
FILE = 16
SOME_FAILED = 17
ERRORS_FOUND = 18
NOT_READY = 19
INTERRUPTED = 130
BROKEN_PIPE = 141


class ExitCode(NamedTuple):
    """One code, what it means, and the errors that end with it."""

    code: int
    meaning: str
    errors: tuple[type[errors.KMSError], ...] = ()


TABLE = (
    ExitCode(OK, "done"),
    ExitCode(UNEXPECTED, "unexpected error, which is a fault of sentra_kms", (errors.KMSError,)),
    ExitCode(USAGE, "wrong usage of the command line"),
    ExitCode(3, "the configuration is wrong", (errors.ConfigurationError,)),
    ExitCode(4, "tenant, key or secret not found", (errors.NotFound,)),
    ExitCode(5, "it exists already", (errors.AlreadyExists,)),
    ExitCode(
        6, "access denied, or not authenticated", (errors.AccessDenied, errors.AuthenticationFailed)
    ),
    ExitCode(7, "the key is disabled or destroyed", (errors.KeyUnavailable,)),
    ExitCode(8, "decryption failed", (errors.DecryptionFailed,)),
    ExitCode(9, "the stored key ring was refused", (errors.RingRejected,)),
    ExitCode(10, "somebody else saved first: retry", (errors.Conflict,)),
    ExitCode(11, "a service or disk cannot answer now: retry", (errors.ServiceUnavailable,)),
    ExitCode(12, "not supported by the backend or this version", (errors.UnsupportedOperation,)),
    ExitCode(13, "malformed input", (errors.MalformedInput,)),
    ExitCode(14, "a backend broke its rules", (errors.PluginError,)),
    ExitCode(15, "a required audit record could not be written", (errors.AuditFailed,)),
    ExitCode(FILE, "a file cannot be read or written"),
    ExitCode(SOME_FAILED, "some tenants failed"),
    ExitCode(ERRORS_FOUND, "doctor found errors, or a backend type or secret cannot be used"),
    ExitCode(NOT_READY, "not ready to serve"),
    ExitCode(INTERRUPTED, "interrupted"),
    ExitCode(BROKEN_PIPE, "the reader of the output went away"),
)

_CODES = {kind: row.code for row in TABLE for kind in row.errors}


def code_of(error: errors.KMSError) -> int:
    """Return the exit code of an error: that of the nearest class in the table.

    >>> code_of(errors.TenantNotFound("no ring"))
    4
    """
    return next(_CODES[kind] for kind in type(error).__mro__ if kind in _CODES)


def help_text() -> str:
    """Return the table for `--help`."""
    rows = "\n".join(f"  {row.code:>3}  {row.meaning}" for row in TABLE)
    # The control character keeps click from filling the lines into a paragraph.
    return f"\b\nExit codes:\n{rows}"
