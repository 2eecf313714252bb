"""A project on disk for processes that the tests start, and how such a process is watched."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

import sentra_kms
from tests.conftest import MASTER_KEYS

ROOT = Path(sentra_kms.__file__).parents[1]
collect_ignore = ["pool.py", "tasks.py", "work.py", "wsgi.py"]  # programs: importing begins them
WAIT = 60.0  # seconds after which something that hangs is told so

CONFIG = """
[production.backends.local]
type = "local"
directory = "keys"
master_keys = { m1 = "file://HOME/m1" }
[production.keys]
wrap_with = ["local:m1"]
store = "local"
"""


class Project:
    """A configuration with one tenant, and the processes that were started on it."""

    def __init__(self, home: Path) -> None:
        self.home = home
        key = home / "m1"
        key.touch(0o600)
        key.write_text(MASTER_KEYS["2026-11"])
        config = home / "sentra-kms.toml"
        config.write_text(CONFIG.replace("HOME", str(home)))
        with sentra_kms.load(config, "production") as kms:
            kms.keys.create("acme")
            self.known = kms.keys.encrypt("acme", b"known").hex()
        self._started: list[subprocess.Popen[bytes]] = []

    def environment(self, **variables: str) -> dict[str, str]:
        """The variables of a process on this project."""
        return {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "PYTHONUNBUFFERED": "1",
            "PYTHONWARNINGS": "default",
            "SENTRA_KMS_CONFIG": str(self.home / "sentra-kms.toml"),
            "SENTRA_KMS_ENV": "production",
            **variables,
        }

    def start(self, *words: object, log: Path, **variables: str) -> subprocess.Popen[bytes]:
        """Start a Python program in a process group of its own; what it says goes to `log`."""
        with log.open("ab") as output:
            process = subprocess.Popen(
                [sys.executable, *map(str, words)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=self.home,
                env=self.environment(**variables),
                start_new_session=True,
            )
        self._started.append(process)
        return process

    def run(self, *words: object, **variables: str) -> Any:
        """Run a Python program to its end; return the JSON that it prints. It may not warn."""
        done = subprocess.run(
            [sys.executable, *map(str, words)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            cwd=self.home,
            env=self.environment(**variables),
            timeout=WAIT,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")
        return json.loads(done.stdout)

    def end(self) -> None:
        """End what is still running, with all that it started."""
        for process in self._started:
            for kill in (os.killpg, os.kill):
                try:
                    kill(process.pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
            process.wait(WAIT)


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    """A project; what is started on it is ended with the test."""
    made = Project(tmp_path)
    yield made
    made.end()


def until(condition: Callable[[], Any], log: Path | None = None) -> Any:
    """Wait for what another process does; return what it came to."""
    deadline = time.monotonic() + WAIT
    while not (found := condition()):
        assert time.monotonic() < deadline, (
            log.read_text()[-3000:] if log else "it did not come to pass"
        )
        time.sleep(0.02)
    return found


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that ended and was not waited for does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in {"Z", "X"}


def children(pid: int) -> set[int]:
    """The processes that a process started and that run."""
    found: list[str] = []
    for listed in Path(f"/proc/{pid}/task").glob("*/children"):  # of each of its threads
        with suppress(FileNotFoundError, ProcessLookupError):
            found += listed.read_text().split()
    return {int(child) for child in found if is_alive(int(child))}


def check_answers(answers: Sequence[dict[str, Any]], *, unwraps: int) -> None:
    """Hold what processes told: no nonce and no salt twice, and no needless question.

    `unwraps` is how often each process may ask a KEK, in all its work.
    """
    assert {answer["opened"] for answer in answers} == {"known"}
    messages = [(answer["pid"], message) for answer in answers for message in answer["messages"]]
    nonces = {message[136:160] for _, message in messages}
    assert len(nonces) == len(messages)
    salts: dict[str, set[int]] = {}
    for pid, message in messages:
        salts.setdefault(message[40:72], set()).add(pid)
    assert all(len(pids) == 1 for pids in salts.values()), "two processes share a salt"
    for answer in answers:
        assert answer["unwraps"] <= unwraps, answer["pid"]
        assert answer["loads"] <= max(unwraps, 1), answer["pid"]
