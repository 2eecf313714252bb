"""Work that nobody waits for: rings read and keys unwrapped ahead of their time."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol

from sentra_kms.errors import KMSError
from sentra_kms.forks import tell_after_fork

THREADS = 4

if TYPE_CHECKING:
    from queue import SimpleQueue

    class Runner(Protocol):
        """Runs work later, once for a name at a time."""

        def submit(self, name: object, work: Callable[[], object]) -> None:
            """Take work."""
            ...

        def close(self) -> None:
            """Drop what is not begun, and take no more."""
            ...


class Background:
    """A few daemon threads, begun when there is work for them and ended by `close`.

    What the work raises of ours is dropped: whoever needs its outcome meets the failure himself.
    """

    def __init__(self, threads: int = THREADS) -> None:
        self._most = threads
        self._closed = False
        self.after_fork()
        tell_after_fork(self)

    def after_fork(self) -> None:
        """Start anew: the threads stayed in the parent."""
        self._lock = threading.Lock()
        self._work: SimpleQueue[tuple[object, Callable[[], object]] | None] | None = None
        self._names: set[object] = set()
        self._threads = 0

    def submit(self, name: object, work: Callable[[], object]) -> None:
        """Do `work` soon, unless work of this name is waiting or under way."""
        from queue import SimpleQueue  # nothing is fetched ahead until long after a start

        with self._lock:
            if self._closed or name in self._names:
                return
            if self._work is None:
                self._work = SimpleQueue()
            queue = self._work
            self._names.add(name)
            queue.put((name, work))
            begin = self._threads < min(self._most, len(self._names))
            self._threads += begin
        if begin:
            threading.Thread(
                target=self._run, args=(queue,), name="sentra-kms-refresh", daemon=True
            ).start()

    def close(self) -> None:
        """Drop what is not begun; a thread at work ends after it."""
        with self._lock:
            self._closed = True
            if self._work is None:
                return
            from queue import Empty

            with suppress(Empty):
                while True:
                    self._work.get_nowait()
            for _ in range(self._threads):
                self._work.put(None)

    def _run(self, queue: SimpleQueue[tuple[object, Callable[[], object]] | None]) -> None:
        while (taken := queue.get()) is not None:
            name, work = taken
            try:
                with suppress(KMSError):
                    work()
            finally:
                with self._lock:
                    self._names.discard(name)
