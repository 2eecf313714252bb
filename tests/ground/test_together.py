"""Work of one caller in several threads: in order, bounded, on their behalf."""

from __future__ import annotations

import threading
from contextvars import ContextVar

import pytest

from sentra_kms.together import AT_ONCE, together

WAIT = 30.0  # seconds until something that has to happen is given up
WHO: ContextVar[str] = ContextVar("WHO", default="nobody")


def test_results_come_in_the_order_of_the_items() -> None:
    """However many there are, also none."""
    for size in (0, 1, 2, AT_ONCE, 5 * AT_ONCE + 1):
        assert together(lambda number: number * 2, range(size)) == [2 * n for n in range(size)]


def test_as_many_as_may_are_under_way_at_once_and_no_more() -> None:
    """The caller's thread is one of them."""
    meet = threading.Barrier(AT_ONCE)
    under_way: list[int] = []
    most: list[int] = []

    def work(number: int) -> int:
        under_way.append(number)
        most.append(len(under_way))
        meet.wait(WAIT)
        under_way.remove(number)
        return threading.get_ident()

    threads = together(work, range(3 * AT_ONCE))
    assert max(most) <= AT_ONCE
    assert threading.get_ident() in threads


def test_one_item_needs_no_thread() -> None:
    """It is done by who asks."""
    assert together(lambda _: threading.get_ident(), ["x"]) == [threading.get_ident()]


def test_work_is_done_on_behalf_of_the_caller() -> None:
    """Each thread has a copy of the caller's context, and changes nothing in it."""
    token = WHO.set("me")
    meet = threading.Barrier(4)

    def work(number: int) -> str:
        found = WHO.get()
        meet.wait(WAIT)
        if threading.current_thread() is not threading.main_thread():
            WHO.set(f"somebody {number}")
        return found

    try:
        assert together(work, range(4)) == ["me"] * 4
        assert WHO.get() == "me"
    finally:
        WHO.reset(token)


def test_first_failure_is_raised_when_all_are_done() -> None:
    """By the items' order, whoever failed first."""
    done: list[int] = []

    def work(number: int) -> None:
        done.append(number)
        if number in {3, 5}:
            raise ValueError(number)

    with pytest.raises(ValueError, match="3"):
        together(work, range(40))
    assert sorted(done) == list(range(40))


def test_interrupt_of_the_caller_is_raised_at_once() -> None:
    """It does not wait for the other threads."""
    entered, go_on = threading.Event(), threading.Event()

    def work(_: int) -> None:
        if threading.current_thread() is threading.main_thread():
            assert entered.wait(WAIT)
            raise KeyboardInterrupt
        entered.set()
        assert go_on.wait(WAIT)

    try:
        with pytest.raises(KeyboardInterrupt):
            together(work, range(2))
    finally:
        go_on.set()


def test_nothing_is_begun_after_an_interrupt() -> None:
    """What is under way ends, and the rest of thousands is not done for nobody."""
    begun: list[int] = []
    crew: list[threading.Thread] = []
    all_in, go_on = threading.Barrier(AT_ONCE), threading.Event()

    def work(number: int) -> None:
        begun.append(number)
        if threading.current_thread() is threading.main_thread():
            all_in.wait(WAIT)
            raise KeyboardInterrupt
        crew.append(threading.current_thread())
        all_in.wait(WAIT)
        assert go_on.wait(WAIT)

    with pytest.raises(KeyboardInterrupt):
        together(work, range(1000))
    go_on.set()
    for thread in crew[: AT_ONCE - 1]:
        thread.join(WAIT)
        assert not thread.is_alive()
    assert len(begun) == AT_ONCE


@pytest.mark.parametrize("more", [0, 1, 3])
def test_where_no_thread_can_be_had_the_caller_does_the_rest(
    monkeypatch: pytest.MonkeyPatch, more: int
) -> None:
    """None, one or a few threads could still be started."""
    start = threading.Thread.start
    left = [more]

    def refuse(thread: threading.Thread) -> None:
        if not left[0]:
            raise RuntimeError("can't start new thread")
        left[0] -= 1
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    assert together(lambda number: number + 1, range(20)) == list(range(1, 21))
