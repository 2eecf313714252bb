"""What secrets cost: a cached `get`, 1,000 threads on a cold secret, and `sentra-kms exec`.

`exec` is measured as it is installed, that is with its modules compiled beforehand.
The peer of a cached `get` is a look-up in a dict; that of `exec` is the command run alone.
"""

from __future__ import annotations

import compileall
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import sentra_kms
from benchmarks.harness import ratios

THREADS = 1000
_CONFIG = """
[bench]
development = true
[bench.backends.docker]
type = "docker"
directory = "docker"
[bench.secrets]
FROM_ENV = "env://BENCH_SECRET"
FROM_DOCKER = "docker://one"
FROM_FILE = "file://{work}/docker/one"
"""
_LAUNCH = "import sys; from sentra_kms.cli import main; sys.exit(main())"


def run(rounds: int = 15) -> list[dict[str, Any]]:
    """Measure all; one row each, with the peer's and our seconds."""
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        (work / "docker").mkdir()
        secret = work / "docker" / "one"
        secret.touch(0o600)
        secret.write_bytes(b"a secret\n")
        (work / "sentra-kms.toml").write_text(_CONFIG.format(work=work), encoding="utf-8")
        os.environ["BENCH_SECRET"] = "a secret"  # noqa: S105 - made up
        return [_cached(work, rounds), _cold(work), *_exec(work)]


def _cached(work: Path, rounds: int) -> dict[str, object]:
    with sentra_kms.load(work / "sentra-kms.toml", "bench") as kms:
        get = kms.secrets.get
        held = {"FROM_ENV": get("FROM_ENV")}
        peer, found = ratios(
            lambda: held["FROM_ENV"],
            {"ours": lambda: get("FROM_ENV")},
            rounds=rounds,
        )
    return _row("cached get", peer, peer * found["ours"])


def _cold(work: Path) -> dict[str, object]:
    """Let many threads ask for one cold secret at once; `fetches` is how often it was fetched."""
    with sentra_kms.load(work / "sentra-kms.toml", "bench") as kms:
        seen: list[str] = []
        fetch = kms.secrets.get
        start = threading.Barrier(THREADS + 1)

        def ask() -> None:
            start.wait()
            seen.append(fetch("FROM_FILE").reveal())

        threads = [threading.Thread(target=ask) for _ in range(THREADS)]
        for thread in threads:
            thread.start()
        start.wait()
        begun = time.perf_counter()
        for thread in threads:
            thread.join()
        taken = time.perf_counter() - begun
        begun = time.perf_counter()
        kms.secrets.refresh("FROM_FILE")
        alone = time.perf_counter() - begun
    return _row("1,000 threads, cold", alone, taken)


def _exec(work: Path) -> list[dict[str, Any]]:
    package = Path(sentra_kms.__file__).parent
    shutil.copytree(package, work / "site" / "sentra_kms")
    compileall.compile_dir(work / "site", quiet=1)
    environment = {
        **os.environ,
        "PYTHONPATH": str(work / "site"),
        "SENTRA_KMS_ENV": "bench",
    }
    ours = [sys.executable, "-c", _LAUNCH, "exec"]
    bare = [shutil.which("true") or "/bin/true"]

    def start(words: list[str]) -> Callable[[], object]:
        return lambda: subprocess.run(words, cwd=work, env=environment, check=True)

    rows: list[dict[str, object]] = []
    for name, options in (("exec", []), ("exec --files", ["--files"]), ("exec --mask", ["--mask"])):
        peer, mine = _alternating(start(bare), start([*ours, *options, "--", *bare]))
        rows.append({**_row(name, peer, mine), "added": mine - peer})
    return rows


def _alternating(peer: Callable[[], object], ours: Callable[[], object]) -> tuple[float, float]:
    """Return the median seconds of both, run in turn."""
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(21):
        for work, kept in zip((peer, ours), times, strict=True):
            begun = time.perf_counter()
            work()
            kept.append(time.perf_counter() - begun)
    return statistics.median(times[0]), statistics.median(times[1])


def _row(what: str, peer: float, ours: float) -> dict[str, object]:
    return {"what": what, "peer": peer, "ours": ours, "ratio": ours / peer}
