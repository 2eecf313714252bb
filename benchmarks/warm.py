"""A warm process: what its backends are asked, a tenant's look-up, and eight threads at once.

Peers: a look-up in a plain dict; eight threads that do what LIMIT does with an `AESGCM` each.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from typing import Any, cast

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

import sentra_kms
from benchmarks.harness import ratios
from benchmarks.site import ENVIRONMENT, write_config

MESSAGES = 10_000
THREADS = 8
SIZES = (64, 1024, 4096, 65536, 262144)  # from 2 KiB on the cipher lets other threads run
_OPERATIONS = ("load_ring", "save_ring", "wrap_key", "unwrap_key", "describe_key")


def run(rounds: int = 9) -> dict[str, Any]:
    """Measure all three through `load()` on the local backend."""
    with tempfile.TemporaryDirectory() as directory:
        config = write_config(directory)
        with sentra_kms.load(config, ENVIRONMENT) as kms:
            kms.keys.create("acme")
            acme = kms.keys.tenant("acme")
            acme.encrypt(b"x")
            return {
                "messages": MESSAGES,
                "calls": _calls(kms, acme),
                "look-up": _look_up(kms, rounds),
                "threads": THREADS,
                "throughput": {size: _throughput(acme, size, rounds) for size in SIZES},
            }


def _calls(kms: sentra_kms.KMS, acme: sentra_kms.TenantKeys) -> int:
    """Count what the backend is asked while this many messages are sealed and opened."""
    binding = cast("Any", kms)._wiring.bindings["local"]  # noqa: SLF001 - counts at the boundary
    asked: list[str] = []

    def counting(name: str, work: Callable[..., object]) -> Callable[..., object]:
        def call(*arguments: object) -> object:
            asked.append(name)
            return work(*arguments)

        return call

    originals = {name: getattr(binding, name) for name in _OPERATIONS}
    for name, work in originals.items():
        setattr(binding, name, counting(name, work))
    for _ in range(MESSAGES):
        acme.decrypt(acme.encrypt(b"x"))
    for name, work in originals.items():
        setattr(binding, name, work)
    return len(asked)


def _look_up(kms: sentra_kms.KMS, rounds: int) -> dict[str, float]:
    """Return seconds for `kms.keys.tenant(...)`, and for a look-up in a dict."""
    plain = {"acme": object()}
    keys = kms.keys
    peer, found = ratios(
        lambda: plain.get("acme"),
        {"ours": lambda: keys.tenant("acme")},
        rounds=rounds,
    )
    return {"dict": peer, "ours": peer * found["ours"]}


def _throughput(acme: sentra_kms.TenantKeys, size: int, rounds: int) -> float:
    """Return our messages a second in eight threads over those of eight LIMIT threads."""
    plain, associated = os.urandom(size), os.urandom(32)
    calls = 20_000 if size < 2048 else 1_000
    ciphers = [AESGCM(os.urandom(32)) for _ in range(THREADS)]

    def limit(number: int) -> Callable[[], object]:
        cipher = ciphers[number]

        def seal() -> bytes:
            nonce = os.urandom(12)
            return nonce + cipher.encrypt(nonce, plain, associated)

        return seal

    found: list[float] = []
    for _ in range(rounds):
        theirs = _in_threads(limit, calls)
        ours = _in_threads(lambda _: lambda: acme.encrypt(plain, associated), calls)
        found.append(theirs / ours)
    return statistics.median(found)


def _in_threads(make: Callable[[int], Callable[[], object]], calls: int) -> float:
    """Return the seconds in which all threads have made their calls."""
    start = threading.Barrier(THREADS + 1)

    def work(number: int) -> None:
        call = make(number)
        start.wait(60)
        for _ in range(calls):
            call()

    crew = [threading.Thread(target=work, args=(number,)) for number in range(THREADS)]
    for thread in crew:
        thread.start()
    start.wait(60)
    begun = time.perf_counter()
    for thread in crew:
        thread.join(60)
    return time.perf_counter() - begun
