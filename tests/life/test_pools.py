"""Pools of `multiprocessing`: forked, spawned, and from a fork server."""

from __future__ import annotations

import pytest

from tests.life.conftest import Project, check_answers

PROGRAM = "-m", "tests.life.pool"
WORKERS, PIECES = 3, 12  # of the program


@pytest.mark.parametrize("start", ["warm", "cold"])
@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_a_pool_works_from_the_first_piece(project: Project, method: str, start: str) -> None:
    """Each process has salts of its own, asks for its key once, and leaves no thread.

    A forked child of a process whose key is cached asks nobody.
    """
    told = project.run(*PROGRAM, method, project.known, start)
    answers = told["answers"]
    inherited = (method, start) == ("fork", "warm")
    parents = answers[:1] + answers[-1:] if start == "warm" else answers[-1:]
    pooled = answers[len(parents) - 1 : -1]
    assert len(pooled) == PIECES
    assert len({answer["pid"] for answer in pooled}) == WORKERS
    check_answers(answers, unwraps=1)
    check_answers(pooled, unwraps=0 if inherited else 1)
    assert {answer["pid"] for answer in parents}.isdisjoint(a["pid"] for a in pooled)
    assert told["threads"] == ["MainThread"]
