"""One nursery for all crash tests of a module."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.crash.crashing import Nursery


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    """A process that forks children to be killed."""
    if not hasattr(os, "fork"):
        pytest.skip("needs fork")
    found = Nursery()
    yield found
    found.close()
