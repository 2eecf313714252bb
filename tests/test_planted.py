"""No planted secret is in anything that this run of the tests said. This module runs last."""

from __future__ import annotations

import base64
import logging

from tests.planted import HUNT, Hunt


def test_hunt_finds() -> None:
    """The hunt itself finds a value in what is printed and logged, in any of its forms."""
    hunt = Hunt([b"to-be-found-123"])
    for text in (
        "x to-be-found-123 x",
        base64.b64encode(b"ab" + b"to-be-found-123" + b"c").decode(),
    ):
        before = len(hunt.found)
        hunt.look("here", text)
        assert len(hunt.found) > before
    before = len(hunt.found)
    hunt.emit(logging.makeLogRecord({"msg": "%s", "args": ("to-be-found-123",)}))
    assert len(hunt.found) > before
    hunt.look("here", "nothing")
    assert hunt.looked == 4


def test_nothing_planted_was_told() -> None:
    """Neither output, nor log, nor report of any test of this run showed a planted secret."""
    assert HUNT.found == []
