"""Signals that would end this process: which they are, how to put them off, how to end by one."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from types import FrameType

_OWN = {
    # What this process did wrong itself.
    signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGSEGV, signal.SIGSYS,
    signal.SIGTRAP, signal.SIGPIPE, signal.SIGXFSZ,
    # What stops and continues, which the terminal sends to the child, too.
    signal.SIGCONT, signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU,
    signal.SIGCHLD, signal.SIGKILL, signal.SIGURG, signal.SIGWINCH,
}  # fmt: skip
PASSED_ON = frozenset(signal.valid_signals() - _OWN)
"""What is meant for whatever this process does, and ends it unless that has another wish."""

_PUT_OFF = PASSED_ON | {signal.SIGABRT}  # which service managers send when they lose patience


_Handler = Callable[[int, FrameType | None], object] | int


class Ended(KeyboardInterrupt):
    """A signal came that ends this process as soon as it is put off no longer."""


class PutOff:
    """Signals that came meanwhile, in their order; `most` of them are put off, if it is given."""

    def __init__(self, most: int | None = None) -> None:
        self.came: list[int] = []
        self._most = most

    def check(self) -> None:
        """Raise `Ended` if one came."""
        if self.came:
            raise Ended

    def note(self, number: int, _: FrameType | None) -> None:
        """Do no more than this in a handler, unless it was told often enough."""
        self.came.append(number)
        if self._most is not None and len(self.came) > self._most:
            raise Ended


@contextmanager
def put_off(most: int | None = None) -> Generator[PutOff]:
    """Put off signals that would end this process; the first that came does so afterwards.

    After `most` of them the next raises `Ended` where it comes, so that what hangs can be ended.

    By handlers and not by a mask: a thread that has no mask would take the signal, and end all.
    Ignored signals stay ignored. In another thread than the main one nothing is put off.
    """
    found = PutOff(most)
    before: dict[signal.Signals, _Handler] = {}
    try:
        if threading.current_thread() is threading.main_thread():
            for number in _PUT_OFF:
                handler = signal.getsignal(number)
                if handler is not None and handler != signal.SIG_IGN:
                    before[number] = handler
                    with suppress(OSError, ValueError):  # the C library keeps some for itself
                        signal.signal(number, found.note)
        yield found
    finally:
        for number, handler in before.items():
            with suppress(OSError, ValueError):
                signal.signal(number, handler)
        if found.came:
            send_to_self(found.came[0])


def send_to_self(number: int) -> None:
    """Take a signal, as if it came now; what that may end leaves no image of its memory."""
    import resource

    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # this process holds secrets
    os.kill(os.getpid(), number)
