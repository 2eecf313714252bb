"""A signal handler that comes while its own thread notes something does not wait for it."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from types import FrameType

import pytest

from sentra_kms.keys.outages import PROBE_INTERVAL, Outages
from sentra_kms.keys.seen import Seen
from sentra_kms.runtime import KMS
from tests.keys.conftest import in_fork

TIMES = 300


def shaken(work: Callable[[int], object]) -> None:
    """Do some work again and again while a handler does it, too, in a process that may hang."""

    def child() -> bytes:
        handled = 0
        inside = False

        def handler(_: int, frame: FrameType | None) -> None:
            nonlocal handled, inside
            if not inside:  # one at a time is what is tried
                inside = True
                handled += 1
                work(handled)
                inside = False

        signal.signal(signal.SIGVTALRM, handler)
        signal.setitimer(signal.ITIMER_VIRTUAL, 1e-3, 1e-3)  # a hanging child takes no time
        number = 0
        while handled < TIMES:
            work(number := number + 1)
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        return b"done"

    assert in_fork(child) == b"done"


def test_handler_may_note_a_ring_while_its_thread_notes_one(memory_kms: KMS) -> None:
    """The highest sequence of a tenant is kept under a lock."""
    document = memory_kms._wiring.bindings["memory"].load_ring("acme").document
    ring = memory_kms.keys._rings.store.load("acme").ring
    seen = Seen()
    shaken(lambda _: [seen.saved(ring, document) for _ in range(50)])


@pytest.mark.parametrize("forgives", [False, True])
def test_handler_may_meet_an_outage_while_its_thread_meets_one(
    forgives: bool,  # noqa: FBT001 - a case
) -> None:
    """Whatever the two find of it, at the same time: neither hangs, nor fails."""
    began = time.monotonic()
    outages = Outages(lambda: (time.monotonic() - began) * 1000 * PROBE_INTERVAL, forgives=forgives)

    def work(number: int) -> None:
        for step in range(number, number + 50):
            if step % 3 == 0:
                outages.failed("kek", "acme")
            elif step % 3 == 1:
                outages.should_wait("kek", "other")
            else:
                outages.worked("kek")
            outages.is_known("kek")

    shaken(work)
