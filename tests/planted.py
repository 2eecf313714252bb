"""The hunt for planted secrets in everything that a run of the tests says and leaves behind.

Tests that need a secret which must not show itself use one of `VALUES`. Whatever any test prints or
logs, and whatever report it ends in, is looked through; `tests/test_planted.py`, which runs last,
tells what was found, and looks through what the run left where files are put for a while;
`tests/test_cli_planted.py` hunts in the files of a whole use.
"""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

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


class Leavings:
    """What a run leaves behind where programs put files for a while, beside what its tests gave.

    Entries that were there when this was made are somebody else's, and so is pytest's own
    directory, where tests put the secrets that they make. `ours` is what a name may begin with:
    another run on the same machine has files of its own under way.
    """

    def __init__(self, places: Iterable[Path] | None = None, ours: str = "") -> None:
        self._places = list(_temporary() if places is None else places)
        self._ours = ours
        self._before = set(self._entries())

    def look(self, hunt: Hunt) -> None:
        """Look through the names and the contents of every new file."""
        for entry in sorted(set(self._entries()) - self._before):
            for path in [entry, *(entry.rglob("*") if entry.is_dir() else ())]:
                hunt.look(f"the name of {path}", path.name)
                if path.is_file():
                    with suppress(OSError):  # another program's, gone meanwhile
                        hunt.look(f"file {path}", path.read_bytes().decode("latin-1"))

    def _entries(self) -> Iterator[Path]:
        for place in self._places:
            with suppress(OSError):
                yield from (
                    each
                    for each in place.iterdir()
                    if each.name.startswith(self._ours) and not each.name.startswith("pytest-of-")
                )


def _temporary() -> set[Path]:
    named = (tempfile.gettempdir(), "/dev/shm", os.environ.get("XDG_RUNTIME_DIR"), os.getcwd())
    return {Path(each).resolve() for each in named if each}


def _told_forms(value: bytes) -> Iterator[str]:
    for form in forms(value):
        flat = "".join(form.split())
        if len(flat) >= SHORTEST:
            yield flat


HUNT = Hunt()
"""The one of this run."""

LEAVINGS = Leavings(ours="sentra-kms-exec-")
"""Of this run: `exec` names its directory so, and nothing else of ours goes there."""
