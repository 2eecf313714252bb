"""gunicorn with `--preload`: loaded once, forked into workers that are killed and replaced."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from typing import Any

import pytest

from tests.life.conftest import WAIT, Project, check_answers, children, is_alive, until

pytestmark = pytest.mark.slow
WORKERS = 3


class Server:
    """A gunicorn of some workers on a port of its own."""

    def __init__(self, project: Project, **variables: str) -> None:
        self.known = project.known
        self.log = project.home / "gunicorn.log"
        self.process: subprocess.Popen[bytes] = project.start(
            "-m", "gunicorn", "--preload", "--workers", WORKERS, "--bind", "127.0.0.1:0",
            "--worker-tmp-dir", project.home, "--graceful-timeout", "20",
            "--chdir", project.home, "tests.life.wsgi:application",
            log=self.log, **variables,
        )  # fmt: skip
        found: re.Match[str] = until(
            lambda: re.search(r"Listening at: http://127\.0\.0\.1:(\d+)", self.log.read_text()),
            self.log,
        )
        self.port = int(found[1])
        until(lambda: len(self.workers()) == WORKERS, self.log)

    def workers(self) -> set[int]:
        """The workers that run."""
        return children(self.process.pid)

    def ask(self) -> dict[str, Any]:
        """One request on a connection of its own."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=WAIT)
        try:
            connection.request("GET", f"/?{self.known}")
            response = connection.getresponse()
            body = response.read()
            assert response.status == 200, self.log.read_text()[-3000:]
            found: dict[str, Any] = json.loads(body)
        finally:
            connection.close()
        return found

    def ask_all(self, workers: set[int]) -> list[dict[str, Any]]:
        """Ask, several at once, until each of these workers has answered."""
        answers: list[dict[str, Any]] = []

        def all_answered() -> bool:
            with ThreadPoolExecutor(2 * WORKERS) as pool:
                futures = [pool.submit(self.ask) for _ in range(4 * WORKERS)]
                answers.extend(future.result() for future in futures)
            return workers <= {answer["pid"] for answer in answers}

        until(all_answered, self.log)
        return answers

    def complaints(self) -> list[str]:
        """What was said that should not be, but for what gunicorn itself does.

        It leaves its listening socket open, and forks a process that may have threads: to do that
        well is what is tested here.
        """
        own = re.compile(
            rf"unclosed <socket.*{self.port}\)>|Enable tracemalloc"
            r"|gunicorn/arbiter\.py.*multi-threaded, use of fork"
        )
        lines = self.log.read_text().splitlines()
        return [
            line for line in lines if re.search("Warning|Traceback", line) and not own.search(line)
        ]

    def stop(self) -> None:
        """Shut it down gracefully; it ends well and leaves nothing."""
        workers = self.workers()
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(WAIT) == 0, self.log.read_text()[-3000:]
        until(lambda: not any(map(is_alive, workers)), self.log)
        assert self.complaints() == []


@pytest.mark.parametrize("warm", ["", "1"], ids=["cold", "warm"])
def test_workers_share_nothing_that_must_not_repeat(project: Project, warm: str) -> None:
    """Nonces and salts are each worker's own; a key cached before the fork is not asked for."""
    server = Server(project, WARM=warm)
    workers = server.workers()
    answers = server.ask_all(workers)
    assert {answer["pid"] for answer in answers} == workers
    check_answers(answers, unwraps=0 if warm else 1)
    assert {tuple(answer["threads"]) for answer in answers} == {("MainThread",)}
    server.stop()


def test_a_worker_that_is_killed_is_replaced(project: Project) -> None:
    """The new one works from its first request, and the others go on."""
    server = Server(project, WARM="1")
    first = server.workers()
    answers = server.ask_all(first)
    victim = min(first)
    os.kill(victim, signal.SIGKILL)
    second: set[int] = until(
        lambda: len(found := server.workers() - {victim}) == WORKERS and found, server.log
    )
    answers += server.ask_all(second)
    assert len({answer["pid"] for answer in answers}) == WORKERS + 1
    check_answers(answers, unwraps=0)
    server.stop()


def test_a_graceful_reload_loses_no_request(project: Project) -> None:
    """All workers are replaced while requests go on, each of which is answered."""
    server = Server(project, WARM="1")
    first = server.workers()
    answers = server.ask_all(first)
    server.process.send_signal(signal.SIGHUP)
    with ThreadPoolExecutor(2) as pool:
        while first & server.workers():
            answers += [future.result() for future in [pool.submit(server.ask) for _ in range(4)]]
    second: set[int] = until(
        lambda: len(found := server.workers()) == WORKERS and found, server.log
    )
    assert first.isdisjoint(second)
    answers += server.ask_all(second)
    check_answers(answers, unwraps=0)
    server.stop()


def test_what_another_process_changed_reaches_every_worker(project: Project) -> None:
    """A message under a version that no worker has seen opens at once in each."""
    import sentra_kms

    server = Server(project, WARM="1")
    workers = server.workers()
    server.ask_all(workers)
    with sentra_kms.load(project.home / "sentra-kms.toml", "production") as kms:
        kms.keys.rotate("acme")
        server.known = kms.keys.encrypt("acme", b"known").hex()
    answers = server.ask_all(workers)
    assert {answer["opened"] for answer in answers} == {"known"}
    assert {answer["unwraps"] for answer in answers} <= {1, 2}
    server.stop()
