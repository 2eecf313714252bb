"""Read the vector files; tests of the reader and of the package share it."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent


@cache
def vectors(name: str) -> dict[str, Any]:
    """The content of one file."""
    return json.loads((HERE / f"{name}.json").read_text("ascii"))  # type: ignore[no-any-return]


def document(vector: dict[str, Any]) -> bytes:
    """The bytes of a ring vector's document."""
    if "document_hex" in vector:
        return bytes.fromhex(vector["document_hex"])
    text: str = vector["document"]
    spaces: int = vector.get("trailing_spaces", 0)
    return text.encode("utf-8") + b" " * spaces


def ids(vector: dict[str, Any]) -> str:
    """The name of a vector, for `pytest.mark.parametrize`."""
    return str(vector["id"])
