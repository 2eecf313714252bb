"""Whether a frame of the package ever holds key bytes outside of `KeyMaterial`.

A traceback that is printed with locals, by a debugger or an error reporter, shows what stands in
the frames at the line that failed. Any line may: a signal, or a lack of memory, asks nobody. So
each line of the package is looked at while it runs, and whatever a function returns.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping
from types import FrameType, TracebackType
from typing import Any, Self

import pytest

import sentra_kms
from sentra_kms.material import KeyMaterial

PACKAGE = os.path.dirname(sentra_kms.__file__) + os.sep
PIECE = 16  # bytes that are taken for a part of a key
PUBLIC = {"key-check/v1", "local/key-id/v1", "ring-auth-id/v1"}  # what these derive is no secret
_LOOK_INTO = 3  # levels of lists and mappings


class Watch:
    """While it is entered, looks at every line of the package; `found` tells what held a key."""

    def __init__(self, *secrets: bytes) -> None:
        self.found: set[str] = set()
        self.seen = 0  # keys that were made meanwhile
        self._pieces: set[bytes] = set()
        for secret in secrets:
            self._learn(secret)
        self._patch = pytest.MonkeyPatch()

    def __enter__(self) -> Self:
        """Begin."""
        original = KeyMaterial.__init__
        watch = self

        def learn(self: KeyMaterial, data: bytes) -> None:
            original(self, data)
            caller = sys._getframe(1).f_locals
            if caller.get("label") == "message/v1":
                watch._learn(data[:32])  # the rest is the commitment
            elif caller.get("label") not in PUBLIC:
                watch._learn(data)

        self._patch.setattr(KeyMaterial, "__init__", learn)
        self._before = sys.gettrace()
        sys.settrace(self._enter_frame)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End."""
        sys.settrace(self._before)
        self._patch.undo()

    def _learn(self, data: bytes) -> None:
        self.seen += 1
        self._pieces |= {data[at : at + PIECE] for at in range(0, len(data) - PIECE + 1, PIECE)}

    def _enter_frame(self, frame: FrameType, event: str, argument: object) -> Any:
        name = frame.f_code.co_filename
        if not name.startswith(PACKAGE) or name == PACKAGE + "material.py":
            return None
        before: dict[str, object] = {}  # what was looked at, at an earlier line

        def look(frame: FrameType, event: str, argument: object) -> Any:
            for name, value in frame.f_locals.items():
                if before.get(name) is not value or isinstance(value, (list, dict, bytearray)):
                    before[name] = value
                    if self._holds(value):
                        self._tell(frame, name)
            if event == "return" and self._holds(argument):
                self._tell(frame, "what is returned")
            return look

        return look

    def _tell(self, frame: FrameType, what: str) -> None:
        place = frame.f_code.co_filename.removeprefix(PACKAGE)
        self.found.add(f"{place}: {frame.f_code.co_name}: {what}")

    def _holds(self, value: object, depth: int = 0) -> bool:
        if isinstance(value, str):
            value = value.encode("latin-1", "ignore")
        if isinstance(value, (bytes, bytearray, memoryview)):
            data = bytes(value)
            return len(data) >= PIECE and any(piece in data for piece in self._pieces)
        if depth == _LOOK_INTO or value is os.environ:
            return False
        if isinstance(value, Mapping):
            return any(self._holds(each, depth + 1) for pair in value.items() for each in pair)
        if isinstance(value, (list, tuple, set, frozenset)):
            items: Iterable[object] = value
            return any(self._holds(each, depth + 1) for each in items)
        return False
