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
from sentra_kms.cli.output import colours, json_text, printable
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

    code = exits.SOME_FAILED


class ErrorsFound(Exception):  # noqa: N818
    """A command that looks for errors did its work, and there are some."""

    code = exits.ERRORS_FOUND


class NotReady(Exception):  # noqa: N818
    """What keys need does not answer."""

    code = exits.NOT_READY


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
    if isinstance(error, click.UsageError) and not json:
        with suppress(OSError):
            if sys.stderr is not None:  # else click shows it on standard output
                error.show()
        return exits.USAGE
    if isinstance(error, KMSError):
        _write(error_info(error), _background(error), json=json)
        return exits.code_of(error)
    code, message = _outside_the_tree(error)
    if code == exits.UNEXPECTED and os.environ.get(DEBUG_VARIABLE) == "1":
        traceback.print_exception(error)
    _write(ErrorInfo(type(error).__name__, message), [], json=json)
    return code


def _outside_the_tree(error: Exception) -> tuple[int, str]:
    match error:
        case click.exceptions.NoArgsIsHelpError():
            return exits.USAGE, "name a command: --help lists them"
        case click.ClickException():
            return exits.USAGE, error.format_message()
        case SomeFailed() | ErrorsFound() | NotReady():
            return error.code, str(error)
        case OSError():
            return exits.FILE, _of_file(error)
        case _:
            # The error's own text is not shown: nobody has promised that it holds no secret.
            return exits.UNEXPECTED, (
                f"unexpected {type(error).__name__}, a fault of sentra_kms: set "
                f"{DEBUG_VARIABLE}=1 to see where it comes from"
            )


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


@contextmanager
def warnings_held_back() -> Generator[None]:
    """Leave warnings to a command that shows them itself."""
    handlers = [
        each for each in logging.getLogger("sentra_kms").handlers if isinstance(each, _Warnings)
    ]
    for handler in handlers:
        handler.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        for handler in handlers:
            handler.setLevel(logging.WARNING)


class _Warnings(logging.Handler):
    def __init__(self, *, json: bool) -> None:
        super().__init__(logging.WARNING)
        self._json = json

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line."""
        from sentra_kms.redaction import message_of  # few commands warn

        text = message_of(record)
        if self._json:
            _write_line(json_text({"warning": {"message": text}}))
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


def _write(info: ErrorInfo, background: list[str], *, json: bool) -> None:
    if json:
        _write_line(json_text({"error": info}))
        return
    _write_line(f"{_styled('Error:', 'red')} {printable(info.message)}")
    for line in background:
        _write_line(printable(line))


def _styled(text: str, colour: str) -> str:
    return click.style(text, fg=colour, bold=True) if colours(sys.stderr) else text


def _write_line(text: str) -> None:
    with suppress(OSError):
        click.echo(text, err=True)
