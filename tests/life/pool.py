"""A program: a pool of processes by one of the methods of `multiprocessing`."""

from __future__ import annotations

import json
import multiprocessing
import sys
import threading
from typing import Any

from tests.life.work import acme, kms, work

WORKERS = 3
PIECES = 12

_barrier: Any = None


def begin(barrier: Any) -> None:
    """Let every process of the pool have one piece of work before any has another."""
    global _barrier  # noqa: PLW0603 - how a pool's initializer hands something over
    _barrier = barrier


def piece(known: str) -> dict[str, Any]:
    """Do one piece of work, the first of each process together with the others'."""
    global _barrier  # noqa: PLW0603
    if _barrier is not None:
        _barrier.wait(60)
        _barrier = None
    return work(known)


def main() -> None:
    """Work in the pool and here; tell what that took, and which threads are left at the end."""
    method, known, warm = sys.argv[1], sys.argv[2], sys.argv[3] == "warm"
    multiprocessing.set_start_method(method)
    answers = [work(known)] if warm else []
    barrier = multiprocessing.Barrier(WORKERS)
    with multiprocessing.Pool(WORKERS, begin, (barrier,)) as pool:
        answers += pool.map(piece, [known] * PIECES, chunksize=1)
        pool.close()
        pool.join()
    answers.append(work(known))
    assert acme.decrypt(acme.encrypt(b"x")) == b"x"
    kms.close()
    print(json.dumps({"answers": answers, "threads": [t.name for t in threading.enumerate()]}))  # noqa: T201


if __name__ == "__main__":
    main()
