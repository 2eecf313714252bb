"""What a test needs of the machine: named where it is missing, and a failure in CI."""

from __future__ import annotations

import os

import pytest


def need(found: object, what: str) -> None:
    """Go on if it is there; else skip and name it, or fail where CI promises a whole run."""
    if found:
        return
    if os.environ.get("CI", "").lower() not in {"", "0", "false"}:
        pytest.fail(f"missing on this machine: {what}")
    pytest.skip(f"missing on this machine: {what}")
