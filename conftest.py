"""The Python examples of README.md and docs/ are tests: each page runs from top to bottom."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from doctest import ELLIPSIS
from typing import Any

import pytest
from sybil import Document, Region, Sybil
from sybil.evaluators.doctest import DocTestEvaluator
from sybil.parsers.abstract.doctest import DocTestStringParser
from sybil.parsers.myst import CodeBlockParser, PythonCodeBlockParser, SkipParser

from tests import soak

collect_ignore = ["docs/conf.py"]


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """Let nothing wait for the lock of the measurement of coverage, which goes on without one.

    Its tracer takes one at each call that is measured, while Python's own (GIL) guards the same.
    A child that is forked while another thread holds it, a signal handler that runs while its
    own thread does, and everybody after a handler that raises there, would wait for ever.
    """
    measurement = sys.modules["coverage"].Coverage.current() if "coverage" in sys.modules else None
    collector: Any = getattr(measurement, "_collector", None)
    if collector is not None:
        collector.data_lock = None


def pytest_report_header() -> str:
    """Say how long the soak tests are, and what seed does this run again."""
    return soak.header()


_blocks = CodeBlockParser("pycon")
_doctests = DocTestStringParser(DocTestEvaluator(ELLIPSIS))


def _console_examples(document: Document) -> Iterator[Region]:
    """Yield the `>>>` examples of fenced `pycon` blocks."""
    for block in _blocks(document):
        for example in _doctests(block.parsed, document.path):
            example.adjust(block, block.parsed)
            yield example


def _enter_scratch(namespace: dict[str, object]) -> None:
    """Run a page in a directory of its own, without the caller's configuration."""
    patch = pytest.MonkeyPatch()
    scratch = tempfile.TemporaryDirectory(prefix="sentra-kms-docs-")
    patch.chdir(scratch.name)
    for name in os.environ:
        if name.startswith(("SENTRA_KMS_", "ENCRYPTION_")):
            patch.delenv(name)
    namespace["_scratch"] = (patch, scratch)


def _leave_scratch(namespace: dict[str, object]) -> None:
    match namespace["_scratch"]:
        case (pytest.MonkeyPatch() as patch, tempfile.TemporaryDirectory() as scratch):
            patch.undo()
            scratch.cleanup()
        case other:
            raise AssertionError(f"an example rebound _scratch to {type(other).__name__}")


pytest_collect_file = Sybil(
    parsers=[
        PythonCodeBlockParser(doctest_optionflags=ELLIPSIS),
        _console_examples,
        SkipParser(),
    ],
    patterns=["README.md", "docs/*.md", "docs/*/*.md"],
    # The design shows shapes, in signatures and with ellipses; it is not meant to run.
    excludes=["docs/design.md"],
    setup=_enter_scratch,
    teardown=_leave_scratch,
).pytest()
