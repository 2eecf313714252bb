"""Work that nobody waits for: rings read and keys unwrapped ahead of their time."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol

from sentra_kms.errors import KMSError
from sentra_kms.forks import RLock, tell_after_fork

THREADS = 4

if TYPE_CHECKING:
    from queue import SimpleQueue

    _Work = tuple[object, Callable[[], object]]

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
    What is not ours goes where a thread's last words go, and the thread goes on.
    """

    def __init__(self, threads: int = THREADS) -> None:
        self._most = threads
        self._closed = False
        self.after_fork()
        tell_after_fork(self)

    def after_fork(self) -> None:
        """Start anew: the threads stayed in the parent."""
        self._lock = RLock()  # a signal handler may close while work is taken
        self._work: SimpleQueue[_Work | None] | None = None
        self._names: set[object] = set()
        self._threads = 0

    def submit(self, name: object, work: Callable[[], object]) -> None:
        """Do `work` soon, unless work of this name is waiting or under way."""
        from queue import SimpleQueue  # nothing is fetched ahead until long after a start

        with self._lock:
            if self._closed or name in self._names:
                return
            made: SimpleQueue[_Work | None] = SimpleQueue()
            queue = self._work = self._work or made  # a signal handler may have been first
            self._names.add(name)
            queue.put((name, work))
            if self._is_closed():  # by a signal handler, just now
                self._drop()
                return
            begin = self._threads < min(self._most, len(self._names))
            self._threads += begin
        if begin:
            self._begin(queue)

    def close(self) -> None:
        """Drop what is not begun; a thread at work ends after it."""
        with self._lock:
            self._closed = True
            if self._work is None:
                return
            self._drop()
            for _ in range(self._threads):
                self._work.put(None)

    def _is_closed(self) -> bool:
        return self._closed

    def _begin(self, queue: SimpleQueue[_Work | None]) -> None:
        import threading

        thread = threading.Thread(
            target=self._run, args=(queue,), name="sentra-kms-refresh", daemon=True
        )
        try:
            thread.start()
        except RuntimeError:  # the process is at its end, or at its bound of threads
            with self._lock:
                self._threads -= 1
                if not self._threads:  # nobody is there to do it: it can wait for the next time
                    self._drop()

    def _drop(self) -> None:
        if self._work is None:
            return
        from queue import Empty

        with suppress(Empty):
            while True:
                taken = self._work.get_nowait()
                if taken is not None:
                    self._names.discard(taken[0])

    def _run(self, queue: SimpleQueue[_Work | None]) -> None:
        while (taken := queue.get()) is not None:
            name, work = taken
            try:
                with suppress(KMSError):
                    work()
            except BaseException as error:  # noqa: BLE001 - else nobody does what comes after it
                import threading

                told = (type(error), error, error.__traceback__, threading.current_thread())
                threading.excepthook(threading.ExceptHookArgs(told))
            finally:
                with self._lock:
                    self._names.discard(name)
