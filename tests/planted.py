"""The hunt for planted secrets in everything that a run of the tests says and leaves behind.

Tests that need a secret which must not show itself use one of `VALUES`. Whatever any test prints or
logs, and whatever report it ends in, is looked through; `tests/test_planted.py`, which runs last,
tells what was found; `tests/test_cli_planted.py` hunts in the files of a whole use.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from contextlib import suppress

from tests.ground.leaks import forms

VALUES = (
    b"planted-s3cr3t-value",
    b"planted-secret",
    b"planted-old-password",
    b"planted-new-password",
    b"planted-admin-password",
    b"planted-tenant-key-of-32-bytes!!",
    b"other/planted@value%",
)
SHORTEST = 8
"""A form of fewer characters stands in any output by chance."""


class Hunt(logging.Handler):
    """Looks through what it is shown, as a log handler and by `look`, and keeps what it finds."""

    def __init__(self, values: Iterable[bytes] = VALUES) -> None:
        super().__init__(logging.DEBUG)
        self._forms = sorted({form for value in values for form in _told_forms(value)})
        self.found: list[str] = []
        self.looked: int = 0

    def emit(self, record: logging.LogRecord) -> None:
        """Look through a record, its arguments and its traceback."""
        told = f"{record.msg} {record.args} {record.exc_text or ''} {record.exc_info or ''}"
        with suppress(Exception):  # what does not fit is looked at in pieces
            told += record.getMessage()
        self.look(f"log record of {record.name}", told)

    def look(self, where: str, text: str) -> None:
        """Look through a text."""
        self.looked += 1
        flat = "".join(text.split())
        self.found += [f"{where}: a form of a planted secret" for f in self._forms if f in flat]


def _told_forms(value: bytes) -> Iterator[str]:
    for form in forms(value):
        flat = "".join(form.split())
        if len(flat) >= SHORTEST:
            yield flat


HUNT = Hunt()
"""The one of this run."""
