"""`python -m sentra_kms.cli`."""

from __future__ import annotations

import sys

from sentra_kms.cli import main

if __name__ == "__main__":
    sys.exit(main())
