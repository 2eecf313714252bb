"""The command `sentra-kms`, for operators. Needs the extra `cli`: click and rich.

Importing this package loads neither; `main` does, and says what to install if they are missing.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from importlib import import_module

__all__ = ["main"]

_NEEDED = ("click", "rich")
_NOT_INSTALLED = 2
_INTERRUPTED = 130


def main() -> int:
    """Run the command line of this process; mostly leaves by `SystemExit`, else returns a code."""
    try:
        for name in _NEEDED:
            import_module(name)
    except ModuleNotFoundError as error:
        if error.name not in _NEEDED:
            raise
        sys.stderr.write(f'Error: {error.name} is missing: pip install "sentra-kms[cli]"\n')
        return _NOT_INSTALLED
    except KeyboardInterrupt:
        return _INTERRUPTED
    try:
        from sentra_kms.cli.app import app

        app()
    except KeyboardInterrupt:
        return _INTERRUPTED
    finally:
        _give_up_unwritten()
    return 0


def _give_up_unwritten() -> None:
    """Drop what standard output did not take: the interpreter would try again, and complain."""
    output = sys.stdout
    if output is None:
        return
    try:
        output.flush()
    except (OSError, ValueError):
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), output.fileno())
