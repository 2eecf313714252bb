"""One background thread for what has to be done before a time: renewing tokens and leases."""

from __future__ import annotations

import heapq
import itertools
import threading
import time
from collections.abc import Callable
from contextlib import suppress

_Task = tuple[float, int, Callable[[], None]]
_LONGEST = 3600.0  # seconds of one wait; the system's own clocks bear no more than some years


class Keeper:
    """Runs tasks when they are due, one after the other, in a thread of its own.

    The thread starts with the first task and ends with `close`; it keeps no process from ending. A
    task raises nothing: what it does raise is dropped with it. Where no thread can be had, tasks
    are not run: what they keep alive then ends in its time. `patience` is the timeout in seconds
    of a task's requests.
    """

    def __init__(self, name: str, patience: float) -> None:
        self.patience = patience
        self._name = name
        self._changed = threading.Condition(threading.RLock())
        self._tasks: list[_Task] = []
        self._numbers = itertools.count()
        self._thread: threading.Thread | None = None
        self._closed = False

    def at(self, seconds: float, task: Callable[[], None]) -> None:
        """Run a task after so many seconds, unless this is closed before."""
        with self._changed:
            if self._closed:
                return
            heapq.heappush(self._tasks, (time.monotonic() + seconds, next(self._numbers), task))
            if self._thread is None:
                thread = threading.Thread(
                    target=self._run, name=f"sentra-kms {self._name} keeper", daemon=True
                )
                with suppress(RuntimeError):  # no thread is left, or the interpreter is ending
                    thread.start()
                    self._thread = thread
            self._changed.notify_all()

    def close(self, patience: float) -> None:
        """Drop what is not due, end the thread, and wait so many seconds for a task under way."""
        with self._changed:
            self._closed = True
            self._tasks.clear()
            self._changed.notify_all()
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(patience)

    def _run(self) -> None:
        while (task := self._next()) is not None:
            with suppress(Exception):  # a task tells for itself, and others go on
                task()

    def _next(self) -> Callable[[], None] | None:
        """Wait for the next task that is due; `None` when closed."""
        with self._changed:
            while not self._closed:
                if not self._tasks:
                    self._changed.wait()
                    continue
                wait = self._tasks[0][0] - time.monotonic()
                if wait <= 0:
                    return heapq.heappop(self._tasks)[2]
                self._changed.wait(min(wait, _LONGEST))
        return None
