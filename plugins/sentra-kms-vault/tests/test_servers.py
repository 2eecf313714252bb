"""What the servers of these tests run under: it ends with them, and tells that they ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from vault_user import until

from tests.servers.lifeline import serving, wait_until

_SERVER = """
import os, pathlib, sys, time
path = pathlib.Path(sys.argv[1])
path.with_suffix(".new").write_text(str(os.getpid()))
path.with_suffix(".new").rename(path)
time.sleep(600)
"""


def _words(pid: Path) -> list[str]:
    return [sys.executable, "-c", _SERVER, str(pid)]


def _is_alive(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


def _never() -> None:
    raise ConnectionError("planted")


def test_dead_server_is_noticed_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for a server that has ended, whatever ended it."""
    slept: list[float] = []
    with serving([sys.executable, "-c", "raise SystemExit(7)"]) as server:
        until(lambda: server.poll() is not None)
        monkeypatch.setattr(time, "sleep", slept.append)
        with pytest.raises(ConnectionError, match="planted"):
            wait_until(_never, server)
        assert slept == []
        assert server.returncode == 7
    monkeypatch.undo()
    pid = tmp_path / "pid"
    with serving(_words(pid)) as server:
        until(pid.exists)
        os.kill(int(pid.read_text()), signal.SIGKILL)
        until(lambda: server.poll() is not None)


def test_server_ends_with_its_block(tmp_path: Path) -> None:
    """It is told to end, and has ended."""
    pid = tmp_path / "pid"
    with serving(_words(pid), stop="TERM") as server:
        until(pid.exists)
        assert server.poll() is None
        assert _is_alive(int(pid.read_text()))
    assert not _is_alive(int(pid.read_text()))


def test_server_ends_with_who_started_it(tmp_path: Path) -> None:
    """Killed, a test run leaves none behind."""
    pid = tmp_path / "pid"
    code = (
        "import sys, time\n"
        "from tests.servers.lifeline import serving\n"
        f"with serving({_words(pid)!r}, stop='TERM'):\n"
        "    time.sleep(600)\n"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with subprocess.Popen([sys.executable, "-c", code], env=env) as run:
        until(pid.exists)
        run.kill()
    until(lambda: not _is_alive(int(pid.read_text())))
