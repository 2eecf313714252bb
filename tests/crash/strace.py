"""strace around a child of the nursery: what it calls, and a kill or an error at any one call."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tests.crash.crashing import Ledger, Nursery, Outcome, Step
from tests.needs import need

_CALL = re.compile(r"^(?:\d+ +)?(?:\[pid +\d+\] )?([a-z_0-9]+)\(")
_NO_FILE = re.compile(
    r"brk|clock_.*|exit_group|futex|get.*|ioctl|lseek|m(advise|map|protect|remap)|munmap|readv|"
    r"restart_syscall|rt_sig.*|sched_.*"
)
"""Calls that touch no file, and the one in which a child waits for its `go`."""


def need_strace() -> None:
    """Skip, or fail in CI, where strace is not installed or may not attach."""
    path = shutil.which("strace")
    need(path, "strace (on Debian: apt-get install strace)")
    command = ["strace", "-qq", "-o", os.devnull, "true"]
    tried = subprocess.run(command, check=False, capture_output=True)
    need(tried.returncode == 0, "the right to trace processes (ptrace), which strace needs")


def traced(
    nursery: Nursery,
    ledger: Ledger,
    steps: Sequence[Step],
    *options: str,
    log: str | os.PathLike[str] = os.devnull,
) -> Outcome:
    """Run a child under strace with these options, from its `go` on."""
    pid = nursery.start(ledger.configs, steps)
    command = ["strace", "-f", *options, "-o", log, "-p", str(pid)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as strace:
        try:
            assert strace.stderr is not None
            told = strace.stderr.readline()
            assert told.endswith(" attached\n"), told
            nursery.go()
            return nursery.outcome()
        finally:
            strace.kill()  # the child is gone, or hangs


class Call(NamedTuple):
    """The `number`-th call of its name (from 1) that an operation makes, at `place` among all."""

    place: int
    name: str
    number: int
    line: str

    @property
    def kind(self) -> str:
        """The name, and whether the call may make a file."""
        return f"{self.name} O_CREAT" if "O_CREAT" in self.line else self.name

    def __str__(self) -> str:
        return f"{self.name}-{self.number}"


def calls_of(nursery: Nursery, ledger: Ledger, steps: Sequence[Step], log: Path) -> list[Call]:
    """Return the system calls of a child in their order, from its `go` on until it is done."""
    outcome = traced(nursery, ledger, steps, "-y", log=log)
    assert outcome.status == 0
    counted: Counter[str] = Counter()
    calls: list[Call] = []
    for place, line in enumerate(log.read_text().splitlines()):
        match = _CALL.match(line)
        if match is not None and _NO_FILE.fullmatch(match.group(1)) is None:
            counted[match.group(1)] += 1
            calls.append(Call(place, match.group(1), counted[match.group(1)], line))
    return calls
