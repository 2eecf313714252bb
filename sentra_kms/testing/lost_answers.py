"""Checks of a write that was done and whose answer was lost: nothing is lost, nothing made twice.

It is the one failure after which a caller cannot know what is stored. A backend says so, with
`ServiceUnavailable`, or looks and gives the answer that was lost. What it must not do is repeat the
write and tell the conflict with itself: its caller would take that for somebody else's save.
"""

# ruff: noqa: S101 - checks are tests

from __future__ import annotations

from collections.abc import Callable

import pytest

from sentra_kms.errors import Conflict, ServiceUnavailable, TenantNotFound
from sentra_kms.testing.base import Conformance, able, expect_retryable, listed, need, refused
from sentra_kms.testing.bench import Bench
from sentra_kms.testing.harness import BackendHarness


class LostAnswerConformance(Conformance):
    """For a backend that keeps rings."""

    @pytest.fixture
    def rings(self, bench: Bench) -> Bench:
        """Return the bench, if the backend keeps rings."""
        need(bench, "save_ring")
        return bench

    def test_lost_answer_of_create(self, rings: Bench, subject: BackendHarness) -> None:
        """A ring whose creation was not answered is there, once."""
        able(subject.lose_answer)
        given = _unanswered(lambda: rings.binding.save_ring("acme", b"one", None))
        found = rings.binding.load_ring("acme")
        assert found.document == b"one"
        assert given in {None, found.revision}
        refused(Conflict, lambda: rings.binding.save_ring("acme", b"two", None))
        assert listed(rings, 10) == ["acme"]

    def test_lost_answer_of_save(self, rings: Bench, subject: BackendHarness) -> None:
        """A save that was not answered is stored, and can be saved over."""
        first = rings.binding.save_ring("acme", b"one", None)
        able(subject.lose_answer)
        given = _unanswered(lambda: rings.binding.save_ring("acme", b"two", first))
        found = rings.binding.load_ring("acme")
        assert found.document == b"two"
        assert given in {None, found.revision}
        refused(Conflict, lambda: rings.binding.save_ring("acme", b"two", first))
        rings.binding.save_ring("acme", b"three", found.revision)
        assert rings.binding.load_ring("acme").document == b"three"

    def test_lost_answer_of_delete(self, rings: Bench, subject: BackendHarness) -> None:
        """A ring whose deletion was not answered is gone."""
        revision = rings.binding.save_ring("acme", b"one", None)
        able(subject.lose_answer)
        _unanswered(lambda: rings.delete_ring("acme", revision))
        refused(TenantNotFound, lambda: rings.binding.load_ring("acme"))


def _unanswered(write: Callable[[], object]) -> object:
    """Return what a write gave, `None` if it said that it cannot know."""
    try:
        return write()
    except ServiceUnavailable as error:
        expect_retryable(error)
        return None
