"""Make the vectors of the byte formats: `python -m tests.vectors.make_vectors`.

Everything comes from labels through SHAKE-256, so that making them again gives the same bytes. No
key here has ever protected anything. What the files hold is described in `README.md` beside them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.vectors import backups, contexts, local, messages, receipts, rings

HERE = Path(__file__).parent


def make() -> dict[str, bytes]:
    """Return the bytes of every vector file by name."""
    files: dict[str, Any] = {
        "backup.json": backups.backup_vectors(),
        "context.json": contexts.context_vectors(),
        "derive.json": contexts.derive_vectors(),
        "local.json": local.local_vectors(),
        "message.json": messages.message_vectors(),
        "receipt.json": receipts.receipt_vectors(),
        "ring.json": rings.ring_vectors(),
        "wrap.json": local.wrap_vectors(),
    }
    return {
        name: (json.dumps(value, indent=1, ensure_ascii=True) + "\n").encode("ascii")
        for name, value in files.items()
    }


if __name__ == "__main__":
    for name, data in make().items():
        (HERE / name).write_bytes(data)
