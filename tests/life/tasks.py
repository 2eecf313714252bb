"""A Celery application whose broker and results are directories. As a program it is a client."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from celery import Celery  # type: ignore[import-untyped]  # it has no stubs

ROOT = Path(os.environ["CELERY_DIRECTORY"])
WAIT = 60.0  # seconds for all answers together

app = Celery(
    "tasks",
    broker="filesystem://",
    backend=f"file://{ROOT / 'results'}",
)
app.conf.update(
    broker_transport_options={
        "data_folder_in": str(ROOT / "queue"),
        "data_folder_out": str(ROOT / "queue"),
        "control_folder": str(ROOT / "control"),
        "polling_interval": 0.05,
    },
    broker_connection_retry_on_startup=True,
    worker_prefetch_multiplier=1,
)


@app.task(name="work")  # type: ignore[untyped-decorator]
def work(known: str) -> dict[str, Any]:
    """One piece of work."""
    from tests.life import work as module

    return module.work(known)


@app.task(name="die")  # type: ignore[untyped-decorator]
def die(known: str) -> None:
    """Die in the middle of the work: an idle process may hold the lock that all others wait for."""
    from tests.life.work import acme

    acme.decrypt(bytes.fromhex(known))
    os.kill(os.getpid(), signal.SIGKILL)


if os.environ.get("PRELOAD"):
    import tests.life.work

    if os.environ.get("WARM"):
        tests.life.work.acme.encrypt(b"before the workers are forked")


if __name__ == "__main__":
    task, known, number = sys.argv[1], sys.argv[2], int(sys.argv[3])
    waiting = [app.send_task(task, [known]) for _ in range(number)]
    if task == "die":
        sys.exit(sys.stdout.write("[]") != len("[]"))
    sys.stdout.write(json.dumps([each.get(timeout=WAIT) for each in waiting]))
