"""One answer from several who could give it: in order, the next when one fails or dawdles."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextvars import copy_context
from typing import TYPE_CHECKING, TypeVar

from sentra_kms.errors import KMSError, afresh

if TYPE_CHECKING:
    from queue import SimpleQueue

HEDGE_AFTER = 2.0
"""Seconds after which the next is asked although the one before has not failed yet."""

T = TypeVar("T")
Ask = Callable[[], T]


def _tell_nobody(index: int) -> None:
    pass


def first_answer(
    asks: Sequence[Ask[T]],
    *,
    hedge_after: float = HEDGE_AFTER,
    dawdles: Callable[[int], None] = _tell_nobody,
) -> tuple[T | None, list[KMSError]]:
    """Return the first answer that comes and the failures before it; `None` if all failed.

    A single one is asked in the caller's thread. Of several each is asked in a thread of its own,
    in the caller's context: the second when the first has failed or has not answered within
    `hedge_after` seconds, and so on; `dawdles` is told the index of who did not. An answer that
    comes after another was taken is dropped.
    """
    if len(asks) == 1:
        try:
            return asks[0](), []
        except KMSError as error:
            return None, [afresh(error)]
    from queue import Empty, SimpleQueue  # a single one needs none

    outcomes: SimpleQueue[T | KMSError | BaseException] = SimpleQueue()
    failures: list[KMSError] = []
    begun = 0
    while len(failures) < len(asks):
        if begun == len(failures) and begun < len(asks):
            _begin(asks[begun], outcomes)
            begun += 1
        try:
            outcome = outcomes.get(timeout=hedge_after if begun < len(asks) else None)
        except Empty:
            dawdles(begun - 1)
            _begin(asks[begun], outcomes)
            begun += 1
            continue
        if isinstance(outcome, KMSError):
            failures.append(outcome)
        elif isinstance(outcome, BaseException):
            raise outcome
        else:
            return outcome, failures
    return None, failures


def _begin(ask: Ask[T], outcomes: SimpleQueue[T | KMSError | BaseException]) -> None:
    def run() -> None:
        try:
            outcome: T | KMSError | BaseException = ask()
        except KMSError as error:
            outcome = afresh(error)
        except BaseException as error:  # noqa: BLE001 - raised by who waits for it
            outcome = error
        outcomes.put(outcome)

    import threading

    context = copy_context()  # on whose behalf, for the events
    thread = threading.Thread(
        target=context.run, args=(run,), name="sentra-kms-unwrap", daemon=True
    )
    try:
        thread.start()
    except RuntimeError:  # the process is at its end, or at its bound of threads
        run()
