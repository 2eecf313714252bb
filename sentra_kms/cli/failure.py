"""How a command fails: one message on standard error, an exit code, and no traceback."""

from __future__ import annotations

import logging
import os
import sys
import traceback
from collections.abc import Generator
from contextlib import contextmanager, suppress

import click
import msgspec

from sentra_kms.cli import exits
from sentra_kms.cli.output import colours, printable
from sentra_kms.errors import KMSError, Throttled

DEBUG_VARIABLE = "SENTRA_KMS_DEBUG"


class ErrorInfo(msgspec.Struct, frozen=True):
    """An error as `--json` shows it."""

    type: str
    message: str
    backend: str | None = None
    operation: str | None = None
    subject: str | None = None
    retryable: bool = False


class SomeFailed(Exception):  # noqa: N818 - shown to people as the type of the failure
    """An operation over all tenants ended, and some of them failed."""


def error_info(error: KMSError) -> ErrorInfo:
    """Describe an error for `--json`."""
    return ErrorInfo(
        type=type(error).__name__,
        message=error.message,
        backend=error.backend,
        operation=error.operation,
        subject=error.subject,
        retryable=error.retryable,
    )


def report(error: Exception, *, json: bool) -> int:
    """Tell standard error what went wrong, and return the exit code."""
    match error:
        case click.UsageError() if not json:
            with suppress(OSError):
                error.show()
            return exits.USAGE
        case click.ClickException():
            return _tell(error, error.format_message(), exits.USAGE, json=json)
        case KMSError():
            info = error_info(error)
            code = exits.code_of(error)
            text = [info.message, *_background(error)]
        case SomeFailed():
            return _tell(error, str(error), exits.SOME_FAILED, json=json)
        case OSError():
            return _tell(error, _of_file(error), exits.FILE, json=json)
        case _:
            return _unexpected(error, json=json)
    _write(info, text, json=json)
    return code


@contextmanager
def warnings_on_stderr(*, json: bool) -> Generator[None]:
    """Show what the package logs as warnings in the same manner as errors."""
    handler = _Warnings(json=json)
    logger = logging.getLogger("sentra_kms")
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


class _Warnings(logging.Handler):
    def __init__(self, *, json: bool) -> None:
        super().__init__(logging.WARNING)
        self._json = json

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line."""
        text = record.getMessage()
        if self._json:
            _write_line(msgspec.json.encode({"warning": {"message": text}}).decode())
        else:
            _write_line(f"{_styled('Warning:', 'yellow')} {printable(text)}")


def _background(error: KMSError) -> list[str]:
    lines: list[str] = []
    if error.__cause__ is not None:
        lines.append(f"Cause: {error.__cause__}")
    if isinstance(error, Throttled) and error.retry_after is not None:
        lines.append(f"Try again in {error.retry_after:g} s.")
    elif error.retryable:
        lines.append("This may pass: try again.")
    return lines


def _of_file(error: OSError) -> str:
    reason = os.strerror(error.errno) if error.errno else type(error).__name__
    name = error.filename
    return reason if name is None else f"{os.fsdecode(name)}: {reason}"


def _unexpected(error: Exception, *, json: bool) -> int:
    # The error's own text is not shown: nobody has promised that it holds no secret.
    if os.environ.get(DEBUG_VARIABLE) == "1":
        traceback.print_exception(error)
    return _tell(
        error,
        f"unexpected {type(error).__name__}, a fault of sentra_kms: set {DEBUG_VARIABLE}=1 to see "
        "where it comes from",
        exits.UNEXPECTED,
        json=json,
    )


def _tell(error: Exception, message: str, code: int, *, json: bool) -> int:
    _write(ErrorInfo(type(error).__name__, message), [message], json=json)
    return code


def _write(info: ErrorInfo, text: list[str], *, json: bool) -> None:
    if json:
        _write_line(msgspec.json.encode({"error": info}).decode())
        return
    _write_line(f"{_styled('Error:', 'red')} {printable(text[0])}")
    for line in text[1:]:
        _write_line(printable(line))


def _styled(text: str, colour: str) -> str:
    return click.style(text, fg=colour, bold=True) if colours(sys.stderr) else text


def _write_line(text: str) -> None:
    with suppress(OSError):
        click.echo(text, err=True)
