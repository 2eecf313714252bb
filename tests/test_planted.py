"""No planted secret is in what this run of the tests said or left. This module runs last."""

from __future__ import annotations

import base64
import logging
from pathlib import Path

from tests.planted import HUNT, LEAVINGS, Hunt, Leavings


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


def test_leavings_are_found(tmp_path: Path) -> None:
    """A file that was left where files are put for a while is looked through, at any depth."""
    (tmp_path / "before").write_bytes(b"to-be-found-123")
    leavings = Leavings([tmp_path])
    hunt = Hunt([b"to-be-found-123"])
    leavings.look(hunt)
    assert hunt.looked == 0
    (tmp_path / "left" / "deep").mkdir(parents=True)
    (tmp_path / "left" / "deep" / "file").write_bytes(b"\xff\x00x to-be-found-123 x")
    leavings.look(hunt)
    assert hunt.found == [f"file {tmp_path / 'left' / 'deep' / 'file'}: a form of a planted secret"]


def test_nothing_planted_was_left() -> None:
    """No file that the run left for commands to find holds a planted secret."""
    hunt = Hunt()
    LEAVINGS.look(hunt)
    assert hunt.found == []
