"""Observers: they see events and can do nothing to the operations that made them.

Each has a plugin manager of its own whose only hook is `audit_event`, and a thread of its own fed
by a bounded queue. So one that raises or blocks holds up neither an operation nor the next
observer; what one could not take in time is counted and reported.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from sentra_kms.discovery import OBSERVER_GROUP, distribution_of, scan
from sentra_kms.errors import ConfigurationError, PluginError
from sentra_kms.events import Event
from sentra_kms.forks import tell_after_fork
from sentra_kms.guard import check_observer
from sentra_kms.hookspecs import HookManager, ObserverHooks

if TYPE_CHECKING:
    import logging
    import queue

QUEUE_SIZE = 1000  # events waiting for one observer
CLOSE_TIME = 5.0  # seconds for which close() waits for all of them together


def find_observer(name: str) -> object:
    """Make the observer that a distribution brings under `name`, checked by the guard.

    Raises `ConfigurationError` if none or two bring it, `PluginError` if its factory fails.
    """
    known = scan(OBSERVER_GROUP)
    entries = known.get(name, [])
    if len(entries) != 1:
        brought = " and ".join(sorted("{} {}".format(*distribution_of(each)) for each in entries))
        raise ConfigurationError(
            f"the observer '{name}' is brought by {brought}: uninstall all but one"
            if entries
            else f"no observer '{name}' is installed; known are: {', '.join(known) or 'none'}"
        )
    failure: str
    try:
        made: object = entries[0].load()()
    except Exception as error:  # noqa: BLE001 - a factory is foreign code
        failure = (
            f"the observer '{name}' of {distribution_of(entries[0])[0]} could not be made: "
            f"{type(error).__name__}"
        )
    else:
        check_observer(name, made)
        return made
    raise PluginError(failure)


class Observers:
    """Hands events to every observer; made with none it costs nothing."""

    def __init__(self, observers: Sequence[tuple[str, object]]) -> None:
        self._feeds = [_Feed(name, observer) for name, observer in observers]

    @property
    def emit(self) -> Callable[[Event], None] | None:
        """What takes an event, `None` if nobody observes."""
        return self._emit if self._feeds else None

    def close(self) -> None:
        """Wait a bounded time until the observers have seen what happened, then stop."""
        deadline = time.monotonic() + CLOSE_TIME
        for feed in self._feeds:
            feed.close(deadline)

    def _emit(self, event: Event) -> None:
        for feed in self._feeds:
            feed.put(event)


class _Feed:
    """One observer's queue and thread."""

    def __init__(self, name: str, observer: object) -> None:
        self._name = name
        manager = HookManager(ObserverHooks)
        manager.register(observer)
        self._hook = manager.hook
        self.after_fork()
        tell_after_fork(self)

    def after_fork(self) -> None:
        """Start anew: the thread stayed in the parent, with what it had yet to show."""
        from queue import SimpleQueue  # most processes have no observer, and need none

        # Of this kind, since a signal handler may tell of something while its thread does.
        self._events: queue.SimpleQueue[Event | None] = SimpleQueue()
        self._lock = threading.RLock()
        self._thread: threading.Thread | None = None
        self._lost = 0
        self._closed = False

    def put(self, event: Event) -> None:
        """Queue an event; when the queue is full, count it as lost."""
        if self._events.qsize() >= QUEUE_SIZE:
            with self._lock:
                self._lost += 1
            return
        self._events.put(event)
        if self._thread is None:
            self._start()

    def close(self, deadline: float) -> None:
        """Let the thread finish what is queued, until `deadline` (monotonic seconds)."""
        with self._lock:
            thread, self._closed = self._thread, True
        if thread is None:
            return
        self._events.put(None)
        try:
            thread.join(max(0.0, deadline - time.monotonic()))
        except RuntimeError:
            return  # a signal handler in the midst of its start; it ends when it has begun
        if thread.is_alive():
            _logger().error(
                "observer '%s' did not take its events in time: up to %d are lost",
                self._name,
                self._events.qsize(),
            )

    def _start(self) -> None:
        thread = threading.Thread(
            target=self._run, name=f"sentra-kms-observer-{self._name}", daemon=True
        )
        with self._lock:
            if self._thread is not None or self._closed:
                return
            self._thread = thread
        thread.start()

    def _run(self) -> None:
        while (event := self._events.get()) is not None:
            self._show(event)
            with self._lock:
                lost, self._lost = self._lost, 0
            if lost:
                _logger().error("observer '%s' is too slow: %d events lost", self._name, lost)

    def _show(self, event: Event) -> None:
        try:
            self._hook.audit_event(event=event)
        except BaseException as error:  # noqa: BLE001 - nor to this thread, which is the core's
            # Its text and traceback are foreign, so only its kind is told.
            _logger().error("observer '%s' raised %s", self._name, type(error).__name__)


def _logger() -> logging.Logger:
    import logging

    return logging.getLogger("sentra_kms.observers")
