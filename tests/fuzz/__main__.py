"""`python -m tests.fuzz TARGET [OPTION …]`: fuzz one parser with libFuzzer's options."""

from __future__ import annotations

import sys
import tempfile
from importlib import import_module
from pathlib import Path

from tests.fuzz import TARGETS, load_target, seeds


def main(name: str, *options: str) -> None:
    """Fuzz until an option ends it or a fault is found."""
    atheris = import_module("atheris")
    with atheris.instrument_imports(include=["sentra_kms", "tomllib"]):
        run = load_target(name)
    with tempfile.TemporaryDirectory(prefix="sentra-kms-fuzz-") as corpus:
        for number, seed in enumerate(seeds(name)):
            Path(corpus, f"seed-{number}").write_bytes(seed)
        atheris.Setup([sys.argv[0], *options, corpus], run)
        atheris.Fuzz()


if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1] not in TARGETS:
        sys.exit(f"usage: python -m tests.fuzz TARGET [OPTION …]; targets: {', '.join(TARGETS)}")
    main(*sys.argv[1:])
