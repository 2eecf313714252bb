"""`python -m tests.everything "3.12 3.13"`: the whole suite, in several runs beside each other.

Each run is a process of its own with its own fixtures, servers, hunt for planted secrets and
coverage data, so that none shares anything with another but the machine. The first one is shown as
it goes; what the others say is kept apart, and shown whole when they are done. Then comes what all
of them covered, and the last line counts the tests of this Python, in the form of pytest's own.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import NamedTuple

LAST_LINE = re.compile(r"^=+ (.+) in [0-9.]+s(?: \([0-9:]+\))? =+$", re.MULTILINE)
COUNT = re.compile(r"([0-9]+) ([a-z]+)")
ORDER = ("failed", "passed", "skipped", "deselected", "errors")
PYTEST = (sys.executable, "-m", "pytest", "--cov", "--cov-report=")
HUNT = "tests/test_planted.py"


class Run(NamedTuple):
    """A run of a part of the tests."""

    name: str
    words: Sequence[str]


CORE = Run(
    "core",
    (
        *PYTEST, "tests", "docs", "sentra_kms", "README.md",
        "--ignore=tests/keys", "--ignore=tests/crash", "--ignore=tests/properties",
    ),
)  # fmt: skip
KEYS = Run("keys", (*PYTEST, "tests/keys", "tests/crash", "tests/properties", HUNT))
PLUGINS = Run("plugins", (*PYTEST, "plugins", HUNT))


def runs_of(newer: str) -> list[Run]:
    """Return all runs; `newer` are versions of Python, such as `3.12 3.13`.

    The longest comes first, and then the one that mostly waits for servers, beside which others go
    on: at the end it would leave the machine idle.
    """
    others = [
        Run(f"Python {each}", ("make", "test-newer", f"NEWER={each}")) for each in newer.split()
    ]
    return [CORE, PLUGINS, KEYS, *others]


class Done(NamedTuple):
    """What became of a run: all that it said, its exit code, and how long it took."""

    run: Run
    said: bytes
    status: int
    seconds: float


class Everything:
    """All runs, and what became of them."""

    def __init__(self, data: Path) -> None:
        self.counts: Counter[str] = Counter()
        self.failed: list[str] = []
        self._data = data
        self._begun = time.monotonic()
        self._processes: list[subprocess.Popen[bytes]] = []

    def do(self, run: Run, *, live: bool) -> Done:
        """Do one of them; if it is `live` what it says is shown as it goes."""
        begun = time.monotonic()
        if live:
            show(f"\n===== {run.name}\n")
        with self._start(run) as process:
            assert process.stdout is not None
            said = b""
            while piece := os.read(process.stdout.fileno(), 1 << 16):
                said += piece
                if live:
                    show(piece)
            status = process.wait()
        return Done(run, said, status, time.monotonic() - begun)

    def end(self, done: Done, *, live: bool) -> None:
        """Show what one of them said, if that is not on the screen yet, and count it."""
        if not live:
            show(f"\n===== {done.run.name}\n")
            show(done.said)
        show(f"===== {done.run.name}: {done.status or 'ok'}, {done.seconds:.0f} s\n")
        self._count(done.run, done.said.decode("utf-8", "replace"), done.status)

    def _start(self, run: Run) -> subprocess.Popen[bytes]:
        place = self._data / run.name
        place.mkdir()
        place.chmod(0o1777)  # children that gave up their privileges write coverage data, too
        process = subprocess.Popen(
            run.words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, "COVERAGE_FILE": str(place / "coverage")},
            start_new_session=True,  # so that all that it started can be ended
        )
        self._processes.append(process)
        return process

    def _count(self, run: Run, said: str, status: int) -> None:
        counts: Counter[str] = Counter()
        if run.words[: len(PYTEST)] == PYTEST:
            for line in LAST_LINE.findall(said)[-1:]:
                for number, what in COUNT.findall(line):
                    counts["errors" if what == "error" else what] += int(number)
        if status:
            self.failed.append(run.name)
            if not counts["failed"] + counts["errors"]:
                counts["errors"] += 1  # no test says it
        self.counts += counts

    def cover(self, options: Sequence[str]) -> None:
        """Report what all of them covered, as `coverage report` does; its failure is one."""
        found = [str(path) for path in self._data.glob("*/coverage*")]
        whole = [sys.executable, "-m", "coverage"]
        data = f"--data-file={self._data / 'whole'}"
        subprocess.run([*whole, "combine", "--quiet", data, *found], check=False)
        # Without the errors that pytest-cov ignores, too: code whose file a test made and removed.
        report = [*whole, "report", "--ignore-errors", data, *options]
        if subprocess.run(report, check=False).returncode:
            self.failed.append("coverage")
            self.counts["errors"] += 1

    def tell(self) -> None:
        """Say how it went, last of all in a line like pytest's."""
        if self.failed:
            show(f"Failed: {', '.join(self.failed)}\n")
        seconds = time.monotonic() - self._begun
        order = dict.fromkeys((*ORDER, *self.counts))
        counts = ", ".join(f"{self.counts[what]} {what}" for what in order if self.counts[what])
        minutes, rest = divmod(int(seconds), 60)
        text = f" {counts} in {seconds:.2f}s ({minutes // 60}:{minutes % 60:02}:{rest:02}) "
        show(f"{text:=^100}\n")

    def stop(self) -> None:
        """Interrupt what still runs, as Ctrl-C would: it then clears up."""
        for process in self._processes:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGINT)


def show(text: str | bytes) -> None:
    """Write to the standard output at once."""
    sys.stdout.buffer.write(text.encode() if isinstance(text, str) else text)
    sys.stdout.buffer.flush()


def end(number: int, _: object) -> None:
    """Leave by way of what is to be ended first."""
    sys.exit(128 + number)


def main(runs: Sequence[Run], options: Sequence[str]) -> int:
    """Do all of them; return the exit code. Options are those of `coverage report`."""
    signal.signal(signal.SIGTERM, end)
    with tempfile.TemporaryDirectory(prefix="sentra-kms-coverage-") as data:
        os.chmod(data, 0o711)  # noqa: S103 - its directories are open to those children
        everything = Everything(Path(data))
        # One more than cores: the plugins' run mostly waits. What others say is shown once the
        # first is done; until then it keeps no thread from the next run.
        with ThreadPoolExecutor(1 + len(os.sched_getaffinity(0))) as pool:
            doing = [pool.submit(everything.do, run, live=run is runs[0]) for run in runs]
            try:
                everything.end(doing[0].result(), live=True)
                for each in as_completed(doing[1:]):
                    everything.end(each.result(), live=False)
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                everything.stop()
                raise
        everything.cover(options)
        everything.tell()
    return 1 if everything.failed else 0


if __name__ == "__main__":
    sys.exit(main(runs_of(sys.argv[1]), sys.argv[2:]))
