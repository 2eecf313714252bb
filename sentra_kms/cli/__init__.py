"""The command `sentra-kms`, for operators. Needs the extra `cli`: click and rich.

Importing this package loads neither; `main` does, and says what to install if they are missing.
`exec` does without both, unless it has something to explain.
"""

from __future__ import annotations

import gc
import sys
from importlib import import_module

__all__ = ["main"]

_NEEDED = ("click", "rich")
_NOT_INSTALLED = 2
_INTERRUPTED = 130


def main() -> int:
    """Run the command line of this process; mostly leaves by `SystemExit`, else returns a code."""
    try:
        if "exec" in sys.argv[1:]:
            gc.disable()  # for the imports; this process soon becomes another, or waits for it
            from sentra_kms.cli.run import main as run_main

            code = run_main(sys.argv[1:])
            if code is not None:
                return code
            gc.enable()
        for name in _NEEDED:
            import_module(name)
        from sentra_kms.cli.app import app

        app()
    except ModuleNotFoundError as error:
        if error.name not in _NEEDED:
            raise
        sys.stderr.write(f'Error: {error.name} is missing: pip install "sentra-kms[cli]"\n')
        return _NOT_INSTALLED
    except KeyboardInterrupt:  # before the command line was there to say so
        return _INTERRUPTED
    return 0
