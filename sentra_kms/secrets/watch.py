"""One secret watched: a thread that looks again and again, and calls back once a change."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from queue import Empty, SimpleQueue
from time import monotonic as _now
from typing import TYPE_CHECKING, Self

from sentra_kms.errors import KMSError, afresh
from sentra_kms.forks import tell_after_fork
from sentra_kms.material import Secret
from sentra_kms.secrets.compose import same

if TYPE_CHECKING:
    from sentra_kms.secrets.manager import SecretManager

STOP_TIME = 5.0  # seconds for which stop() waits for a callback that is running
_JITTER = 0.1  # of the interval, taken off
_log = logging.getLogger("sentra_kms.secrets")


class Watch:
    """A handle on a watch; `stop()` ends it. Made by `SecretManager.watch`, a context manager."""

    def __init__(
        self,
        manager: SecretManager,
        secret: str,
        seen: Secret,
        callback: Callable[[Secret], object],
        interval: float,
        on_error: Callable[[KMSError], object] | None,
    ) -> None:
        self.secret: str = secret
        self._manager = manager
        self._seen = seen
        self._callback = callback
        self._interval = interval
        self._on_error = on_error
        self._stopped = False
        self.after_fork()
        tell_after_fork(self)

    def __repr__(self) -> str:
        return f"Watch({self.secret!r}{', stopped' if self._stopped else ''})"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def after_fork(self) -> None:
        """Forget the thread, which stayed in the parent; the manager starts another."""
        self._calls: SimpleQueue[None] = SimpleQueue()  # no Event: signal handlers put to it, too
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to look, if nobody does."""
        if self._stopped or self._thread is not None:
            return
        self._thread = threading.Thread(
            target=self._run, name=f"sentra-kms-watch-{self.secret[:40]}", daemon=True
        )
        self._thread.start()

    def wake(self) -> None:
        """Look now: somebody saw a change."""
        self._calls.put(None)

    def stop(self) -> None:
        """End the watch: no call back begins after this returns, unless it was made in one.

        Waits up to 5 s for a call back that is running. May be called more than once.
        """
        stop_all([self])

    def end(self) -> None:
        """End the watch, and wait for nothing."""
        self._stopped = True
        self._calls.put(None)
        self._manager.forget(self)

    def join(self, seconds: float) -> None:
        """Wait for a call back that is running, unless it is this that calls."""
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(seconds)

    def _run(self) -> None:
        while True:
            woken = self._is_woken()
            if self._is_over():
                return
            found = self._look(asking=not woken)
            if found is None or self._is_over() or same(found, self._seen):
                continue
            self._seen = found
            self._tell(self._callback, found)

    def _is_woken(self) -> bool:
        """Wait until it is time to look; whether somebody saw a change before."""
        woken = False
        wait = min(self._pause(), threading.TIMEOUT_MAX)
        with suppress(Empty):
            while True:  # several are one
                self._calls.get(timeout=0 if woken else wait)
                woken = True
        return woken

    def _is_over(self) -> bool:
        return self._stopped

    def _look(self, *, asking: bool) -> Secret | None:
        try:
            return self._manager.refresh(self.secret) if asking else self._manager.get(self.secret)
        except KMSError as error:
            failure = afresh(error)
        if self._stopped:
            return None
        _log.warning(
            "the watched secret %s cannot be read, its last value stays: %s",
            self.secret,
            failure.message,
        )
        if self._on_error is not None:
            self._tell(self._on_error, failure)
        return None

    def _tell(self, callback: Callable[..., object], what: object) -> None:
        try:
            callback(what)
        except BaseException as error:  # noqa: BLE001 - no call back, nor sys.exit, ends a watch
            # Its text and traceback are foreign and may hold the value, so only its kind is told.
            _log.error(
                "the callback of the watched secret %s raised %s", self.secret, type(error).__name__
            )

    def _pause(self) -> float:
        return self._interval * (1 - _JITTER * int.from_bytes(os.urandom(2), "big") / 0xFFFF)


def stop_all(watches: Iterable[Watch]) -> None:
    """End watches; wait for call backs that are running no longer than for one."""
    ended = list(watches)
    for watch in ended:
        watch.end()
    deadline = _now() + STOP_TIME
    for watch in ended:
        watch.join(max(0.0, deadline - _now()))
