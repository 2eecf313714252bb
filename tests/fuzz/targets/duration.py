"""Durations: seconds or `ValueError`, which quotes nothing."""

from __future__ import annotations

import re

from sentra_kms.config import parse_duration
from tests.fuzz import text_of

UNITS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
RULE = re.compile(r"(?a:\d{1,9})(ms|s|m|h|d)")


def run(data: bytes) -> None:
    """Try one text."""
    text = text_of(data)
    found = RULE.fullmatch(text)
    try:
        seconds = parse_duration(text)
    except ValueError as error:
        assert found is None
        assert len(text) < 12 or text not in str(error)
        return
    assert found is not None
    milliseconds = int(text[: -len(found[1])]) * UNITS[found[1]]
    assert abs(seconds * 1000 - milliseconds) <= milliseconds * 1e-12
