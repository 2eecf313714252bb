"""Whoever asked for it is told in a forked child, and nobody else is."""

from __future__ import annotations

import gc
import os
import weakref

import pytest

from sentra_kms.forks import tell_after_fork

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


class Watched:
    def __init__(self, pid: int) -> None:
        self.told_in = [pid]

    def after_fork(self) -> None:
        """Note in which process this ran."""
        self.told_in.append(os.getpid())


def test_child_is_told_once_and_the_parent_never() -> None:
    """The call comes in the child, once."""
    watched = Watched(os.getpid())
    tell_after_fork(watched)
    receive, send = os.pipe()
    child = os.fork()
    if child == 0:
        told = watched.told_in == [os.getppid(), os.getpid()]
        os.write(send, b"told" if told else repr(watched.told_in).encode())
        os._exit(0)
    os.close(send)
    with os.fdopen(receive, "rb") as answer:
        assert answer.read() == b"told"
    assert os.waitpid(child, 0)[1] == 0
    assert watched.told_in == [os.getpid()]


def test_being_told_keeps_nothing_alive() -> None:
    """Who is only waiting to be told can be collected."""
    watched = Watched(os.getpid())
    tell_after_fork(watched)
    gone = weakref.ref(watched)
    del watched
    gc.collect()
    assert gone() is None
