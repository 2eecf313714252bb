"""Celery's prefork pool, with a worker process of its own and a directory for a broker."""

from __future__ import annotations

import signal
import subprocess
from typing import Any

import pytest

from tests.life.conftest import WAIT, Project, check_answers, children, is_alive, until

pytestmark = pytest.mark.slow
PROCESSES = 2


class Worker:
    """A Celery worker and its pool."""

    def __init__(self, project: Project, **variables: str) -> None:
        self._project = project
        self._variables = {"CELERY_DIRECTORY": str(project.home / "celery"), **variables}
        for name in ("queue", "control", "results"):
            (project.home / "celery" / name).mkdir(parents=True)
        self.log = project.home / "celery.log"
        self.process: subprocess.Popen[bytes] = project.start(
            "-m", "celery", "--app", "tests.life.tasks", "worker", "--pool", "prefork",
            "--concurrency", PROCESSES, "--without-gossip", "--without-mingle",
            "--without-heartbeat", "--loglevel", "INFO", "--statedb", "",
            log=self.log, **self._variables,
        )  # fmt: skip
        until(lambda: "ready." in self.log.read_text(), self.log)
        until(lambda: len(self.pool()) == PROCESSES, self.log)

    def pool(self) -> set[int]:
        """The processes of the pool that run."""
        return children(self.process.pid)

    def answers(self, number: int, task: str = "work") -> list[dict[str, Any]]:
        """Send so many tasks from another process, and return what they answer."""
        program = "-m", "tests.life.tasks", task, self._project.known, number
        found: list[dict[str, Any]] = self._project.run(
            *program, **{**self._variables, "PRELOAD": "", "PYTHONWARNINGS": "ignore"}
        )
        return found

    def answers_of(self, pool: set[int]) -> list[dict[str, Any]]:
        """Send tasks until each of these processes has answered."""
        found: list[dict[str, Any]] = []

        def all_answered() -> bool:
            found.extend(self.answers(8 * PROCESSES))
            return pool <= {answer["pid"] for answer in found}

        until(all_answered, self.log)
        return found

    def stop(self) -> None:
        """Shut it down warmly; it ends well and leaves nothing."""
        pool = self.pool()
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(WAIT) == 0, self.log.read_text()[-3000:]
        until(lambda: not any(map(is_alive, pool)), self.log)


@pytest.mark.parametrize(
    ("variables", "unwraps"),
    [({}, 1), ({"PRELOAD": "1", "WARM": "1"}, 0)],
    ids=["loaded in the child", "warmed before"],
)
def test_the_pool_works_from_the_first_task(
    project: Project, variables: dict[str, str], unwraps: int
) -> None:
    """Wherever the application loads, each process has salts of its own and asks once at most."""
    worker = Worker(project, **variables)
    pool = worker.pool()
    answers = worker.answers_of(pool)
    assert {answer["pid"] for answer in answers} == pool
    check_answers(answers, unwraps=unwraps)
    assert all(answer["threads"][0] == "MainThread" for answer in answers)
    assert not any("sentra" in name for answer in answers for name in answer["threads"])
    worker.stop()
    assert "Traceback" not in worker.log.read_text()


def test_a_process_that_is_killed_is_replaced(project: Project) -> None:
    """One that died in the middle of its work has a successor that works from its first task."""
    worker = Worker(project, PRELOAD="1", WARM="1")
    first = worker.pool()
    answers = worker.answers_of(first)
    worker.answers(1, "die")
    until(lambda: not all(map(is_alive, first)), worker.log)
    second: set[int] = until(lambda: len(found := worker.pool()) == PROCESSES and found, worker.log)
    assert second != first
    answers += worker.answers_of(second)
    check_answers(answers, unwraps=0)
    worker.stop()
