"""What resident tenants cost in memory, and how often a cold one is unwrapped."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from typing import Any, cast

import sentra_kms
from benchmarks.site import ENVIRONMENT, write_config

TENANTS = 5_000
THREADS = 1_000


def memory(tenants: int = TENANTS) -> dict[str, float]:
    """Return bytes a tenant, resident after a look-up, an encryption and a decryption each.

    One process makes the tenants and another looks at them, so that no memory was in use before.
    """
    with tempfile.TemporaryDirectory() as directory:
        path = write_config(directory)
        with open(path, "a", encoding="utf-8") as file:
            file.write(f"[{ENVIRONMENT}.cache]\nmax_keys = {tenants}\n")
            file.write('ring_ttl = "1d"\nkey_ttl = "1d"\n')
        _child("make", path, str(tenants))
        held, sealed, opened = (float(figure) for figure in _child("look", path).split())
    return {
        "tenants": tenants,
        "entry and key": held / tenants,
        "and an epoch": sealed / tenants,
        "and an opener": opened / tenants,
        "entry and key, MiB per 100k": held / tenants * 100_000 / 2**20,
    }


def _child(*arguments: str) -> str:
    return subprocess.run(
        [sys.executable, "-m", "benchmarks.residence", *arguments],
        capture_output=True,
        text=True,
        check=True,
        timeout=240,
    ).stdout


def unwraps(threads: int = THREADS) -> dict[str, object]:
    """Let this many threads ask for one cold tenant at once; return how many unwraps it took."""
    with tempfile.TemporaryDirectory() as directory:
        config = write_config(directory)
        with sentra_kms.load(config, ENVIRONMENT) as kms:
            kms.keys.create("acme")
            message = kms.keys.encrypt("acme", b"x")
        with sentra_kms.load(config, ENVIRONMENT) as kms:
            counted = {"unwrap_key": 0, "load_ring": 0}
            binding = cast("Any", kms)._wiring.bindings["local"]  # noqa: SLF001 - counts calls at the boundary
            for operation in counted:
                setattr(
                    binding, operation, _counting(getattr(binding, operation), counted, operation)
                )
            start = threading.Barrier(threads)
            opened: list[bytes] = []

            def work() -> None:
                start.wait(60)
                opened.append(kms.keys.decrypt("acme", message))

            crew = [threading.Thread(target=work, daemon=True) for _ in range(threads)]
            for thread in crew:
                thread.start()
            for thread in crew:
                thread.join(60)
            return {"threads": threads, "opened": len(opened), **counted}


def _counting(
    work: Callable[..., object], counted: dict[str, int], operation: str
) -> Callable[..., object]:
    lock = threading.Lock()

    def call(*arguments: object) -> object:
        with lock:
            counted[operation] += 1
        return work(*arguments)

    return call


def _resident() -> int:
    with open("/proc/self/smaps_rollup", encoding="ascii") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("Pss_Anon")) * 1024


def _make(path: str, tenants: int) -> None:
    with (
        sentra_kms.load(path, ENVIRONMENT) as kms,
        open(f"{path}.messages", "xb") as file,
    ):
        for number in range(tenants):
            name = f"tenant-{number:06}"
            kms.keys.create(name)
            file.write(name.encode("ascii") + kms.keys.encrypt(name, b"x"))


def _look(path: str) -> None:
    with open(f"{path}.messages", "rb") as file:
        data = file.read()
    records = [data[start : start + 110] for start in range(0, len(data), 110)]
    messages = {record[:13].decode("ascii"): record[13:110] for record in records}
    with sentra_kms.load(path, ENVIRONMENT) as kms:
        found = []
        before = _resident()
        for name in messages:
            kms.keys.tenant(name).warm()
        found.append(_resident() - before)
        for name in messages:
            kms.keys.encrypt(name, b"x")
        found.append(_resident() - before)
        for name, message in messages.items():
            kms.keys.decrypt(name, message)
        found.append(_resident() - before)
    print(*found)


if __name__ == "__main__":
    if sys.argv[1] == "make":
        _make(sys.argv[2], int(sys.argv[3]))
    else:
        _look(sys.argv[2])
