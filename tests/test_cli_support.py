"""What the tests of the command line share; it holds no tests itself."""

from __future__ import annotations

import base64
import json
import os
import pty
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result

from sentra_kms.cli.app import app

MASTER_KEY = base64.b64encode(bytes(range(32))).decode("ascii")
OTHER_MASTER_KEY = base64.b64encode(bytes(range(100, 132))).decode("ascii")
ROOT = Path(__file__).parent.parent

CONFIG = """
[development]
development = true
[development.backends.local]
type = "local"
directory = "keys"
[development.backends.local.master_keys]
old = "env://OLD_MASTER_KEY"
new = "env://NEW_MASTER_KEY"
[development.keys]
wrap_with = ["local:{wrap}"]
unwrap_with = {unwrap}
authenticate_with = ["local:old"]
store = "local"
"""
ENVIRONMENT = {
    "SENTRA_KMS_ENV": "development",
    "OLD_MASTER_KEY": MASTER_KEY,
    "NEW_MASTER_KEY": OTHER_MASTER_KEY,
}


def write_config(directory: Path, *, wrap: str = "old", unwrap: Sequence[str] = ()) -> None:
    """Write a configuration on a local backend with the KEKs `local:old` and `local:new`."""
    text = CONFIG.format(wrap=wrap, unwrap=json.dumps([f"local:{name}" for name in unwrap]))
    (directory / "sentra-kms.toml").write_text(text, encoding="utf-8")


def run(*arguments: str, stdin: bytes = b"") -> Result:
    """Run the command line in this process, without a terminal."""
    return CliRunner().invoke(app, arguments, input=stdin)


def run_json(*arguments: str, stdin: bytes = b"") -> Any:
    """Run a command that succeeds, and return its JSON."""
    result = run(*arguments, "--json", stdin=stdin)
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.count("\n") == 1
    return json.loads(result.stdout)


def error_of(result: Result) -> Any:
    """Return the error that a run with `--json` told on standard error, and nothing else."""
    assert result.stdout == ""
    document = json.loads(result.stderr)
    assert list(document) == ["error"]
    return document["error"]


def process(
    *arguments: str, stdin: bytes = b"", **variables: str
) -> subprocess.CompletedProcess[bytes]:
    """Run the command line as a process of its own, in the working directory."""
    return subprocess.run(
        command(*arguments),
        input=stdin,
        capture_output=True,
        env=child_environment(**variables),
        check=False,
    )


def command(*arguments: str) -> list[str]:
    """Return the words that start the command line."""
    return [sys.executable, "-m", "sentra_kms.cli", *arguments]


def child_environment(**variables: str) -> dict[str, str]:
    """Return this process's environment for a child in another directory."""
    path = os.pathsep.join([str(ROOT), *os.environ.get("PYTHONPATH", "").split(os.pathsep)])
    return {**os.environ, "PYTHONPATH": path.rstrip(os.pathsep), **variables}


def on_terminal(
    *arguments: str, stdin: bytes = b"", typed: bytes = b"", **variables: str
) -> tuple[int, str]:
    """Run a process that writes to a terminal, and return its exit code and what it shows.

    Standard input is a pipe with `stdin`, or the terminal if something is `typed` there.
    """
    master, slave = pty.openpty()
    settings = {"TERM": "xterm-256color", "COLUMNS": "120", "NO_COLOR": "", **variables}
    with subprocess.Popen(
        command(*arguments),
        stdin=slave if typed else subprocess.PIPE,
        stdout=slave,
        stderr=slave,
        env=child_environment(**settings),
    ) as child:
        os.close(slave)
        if child.stdin is None:
            os.write(master, typed)
        else:
            child.stdin.write(stdin)
            child.stdin.close()
        shown = bytearray()
        while data := _read(master):
            shown += data
    os.close(master)
    return child.returncode, shown.decode("utf-8", "replace").replace("\r\n", "\n")


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # how Linux says that the other side was closed
        return b""
