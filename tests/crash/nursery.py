"""A process that forks children which work on key rings until they are done or killed.

It imports once what an operation imports, so that a child is at work within milliseconds, and a
count of a child's system calls is a count of the operation's. `crashing.Nursery` speaks to it, a
line of JSON for each message: an order comes in, the child says its pid, waits for the line `go`,
does what the order says and tells of each step how it went; the nursery says how the child ended.
"""

from __future__ import annotations

import base64
import ctypes
import json
import os
import signal
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Any

import sentra_kms
from sentra_kms.errors import KMSError
from sentra_kms.runtime import KMS

HANG = 60  # seconds after which a child that hangs is ended
INTERRUPTED = 130  # the exit code of a child that Ctrl-C ended
TEXT = b"kept for "
_PR_SET_PTRACER = 0x59616D61  # lets strace attach where only a parent may (Yama)


def tell(**answer: object) -> None:
    """Write a line, by a system call that no ring is written with."""
    os.writev(1, [json.dumps(answer).encode("utf-8") + b"\n"])


def hear() -> bytes:
    """Return the next line, by a system call that no ring is read with.

    What stands before it was for a child that did not live to read it.
    """
    heard, room = b"", bytearray(1 << 16)
    while not heard.endswith(b"\n"):
        size = os.readv(0, [room])
        if not size:
            os._exit(0)  # whoever gave the orders is gone
        heard += room[:size]
    return heard.splitlines()[-1]


def do(kms: KMS, operation: str, tenant: str) -> None:
    """Do a step, seal a message under what it made, and acknowledge both."""
    info = getattr(kms.keys, operation)(tenant)
    message = kms.keys.encrypt(tenant, TEXT + tenant.encode("ascii"))
    tell(
        sequence=info.sequence,
        versions=len(info.versions),
        message=base64.b64encode(message).decode("ascii"),
    )


def work(order: dict[str, Any]) -> None:
    """Follow an order; of each step either its acknowledgement or one of our errors is told."""
    signal.alarm(HANG)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have it ignored
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PTRACER, ctypes.c_ulong(-1), 0, 0, 0)
    opened = {
        which: sentra_kms.load(order["configs"][which], environment="test")
        for which in {which for _, _, which in order["steps"]}
    }
    tell(pid=os.getpid())
    assert hear() == b"go"
    for operation, tenant, which in order["steps"]:
        try:
            do(opened[which], operation, tenant)
        except KMSError as error:
            tell(
                error=type(error).__name__,
                text=str(error),
                retryable=error.retryable,
                subject=error.subject,
                code=getattr(error.__cause__, "code", None),
            )


def warm(home: str) -> None:
    """Do everything once, so that all is imported."""
    secret = Path(home, "secret")
    secret.touch(0o600)
    secret.write_bytes(base64.b64encode(os.urandom(32)))
    local = {
        "type": "local",
        "directory": f"{home}/keys",
        "master_keys": {"m": f"file://{secret}"},
    }
    table = {"backends": {"local": local}, "keys": {"wrap_with": ["local:m"], "store": "local"}}
    with sentra_kms.load({"test": table}, environment="test") as kms:
        kms.keys.create("acme")
        kms.keys.rotate("acme")
        kms.keys.rewrap("acme")
        kms.keys.decrypt("acme", kms.keys.encrypt("acme", b"x"))
        Path(home, "keys", "acme.ring").chmod(0o644)
        try:
            kms.keys.rotate("acme")
        except KMSError:
            return
    raise AssertionError("a ring that is open to others was taken")


def main() -> None:
    """Fork a child for each order, one at a time, until no more come."""
    with tempfile.TemporaryDirectory(prefix="sentra-kms-") as home:
        warm(home)
    tell(ready=True)
    while True:
        line = hear()
        if line == b"go":
            continue  # for a child that did not live to read it
        order = json.loads(line)
        child = os.fork()
        if child == 0:
            try:
                work(order)
            except KeyboardInterrupt:
                os._exit(INTERRUPTED)
            except BaseException:  # noqa: BLE001 - the status tells the test
                traceback.print_exc()
                sys.stderr.flush()
                os._exit(1)
            os._exit(0)
        tell(status=os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))


if __name__ == "__main__":
    main()
