"""What processes of these tests do: messages of one tenant, and what that took.

Imported by applications that the tests start, as those of a platform would import sentra_kms: one
`KMS` for the process, made when the module is imported.
"""

from __future__ import annotations

import atexit
import os
import threading
from collections import Counter
from typing import Any

import sentra_kms
from sentra_kms.binding import Binding

MESSAGES = 20  # that one piece of work encrypts
calls: Counter[tuple[int, str]] = Counter()
"""How often this process, by its id, asked a backend for what."""


def _count(operation: str) -> None:
    ask = getattr(Binding, operation)

    def counted(*arguments: Any) -> Any:
        calls[os.getpid(), operation] += 1
        return ask(*arguments)

    setattr(Binding, operation, counted)


for _operation in ("unwrap_key", "load_ring"):
    _count(_operation)

kms = sentra_kms.load()
acme = kms.keys.tenant("acme")
atexit.register(kms.close)


def work(known: str) -> dict[str, Any]:
    """Open a message that another process sealed, seal some, and tell how that went."""
    opened = acme.decrypt(bytes.fromhex(known))
    messages = [acme.encrypt(b"%d" % number) for number in range(MESSAGES)]
    messages += acme.encrypt_many([b"many"] * MESSAGES)
    assert [acme.decrypt(message) for message in messages[:3]] == [b"0", b"1", b"2"]
    pid = os.getpid()
    return {
        "pid": pid,
        "opened": opened.decode(),
        "messages": [message.hex() for message in messages],
        "unwraps": calls[pid, "unwrap_key"],
        "loads": calls[pid, "load_ring"],
        "threads": [thread.name for thread in threading.enumerate()],
    }
