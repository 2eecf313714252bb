"""Server processes that end with the test run, whatever ends that."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

PATIENCE = 60.0
"""Seconds that a server may take to start or to stop."""


@contextmanager
def serving(
    words: Sequence[str],
    *,
    stop: str = "INT",
    env: Mapping[str, str] | None = None,
    user: Mapping[str, Any] | None = None,
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server under a shell that ends it, by the signal `stop`, when our end of a pipe closes.

    So it does not outlive this process. The shell ends when the server does, with its status.
    """
    script = (
        'exec 3<&0; "$@" 3<&- & server=$!; '
        f'{{ read -r _ <&3; kill -{stop} "$server"; }} 2>/dev/null & watch=$!; exec 3<&-; '
        'wait "$server"; ended=$?; kill "$watch" 2>/dev/null; exit "$ended"'
    )
    given: dict[str, Any] = dict(user or {})
    with subprocess.Popen(
        ["sh", "-c", script, "sh", *words], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL, cwd="/", env=None if env is None else dict(env), **given,
    ) as server:  # fmt: skip
        assert server.stdin is not None
        try:
            yield server
        finally:
            server.stdin.close()
            server.wait(PATIENCE)


def wait_until(ready: Callable[[], object], server: subprocess.Popen[bytes] | None = None) -> None:
    """Call `ready` until it raises nothing; raise what it raised last when patience is over."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            ready()
        except Exception:
            ended = server is not None and server.poll() is not None
            if ended or time.monotonic() > deadline:
                raise
            time.sleep(0.02)
        else:
            return


def free_port() -> int:
    """Return a port of loopback that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
