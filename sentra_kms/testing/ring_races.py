"""Checks that compare-and-set holds when many save at once."""

# ruff: noqa: S101 - checks are tests

from __future__ import annotations

import os

import pytest

from sentra_kms.errors import Conflict, TenantNotFound
from sentra_kms.testing import forked
from sentra_kms.testing.base import Conformance, able, need, often, refused, table, together
from sentra_kms.testing.bench import Bench
from sentra_kms.testing.budget import budget_of
from sentra_kms.testing.harness import BackendHarness
from sentra_kms.testing.skips import NO_FORK

_RACERS = 16
_PROCESSES = 4
_THREADS = 2
_SAVES = 3
"""Processes that save at once, threads of each, and how often each saves."""


class RingRaceConformance(Conformance):
    """For a backend that keeps rings."""

    @pytest.fixture
    def store(self, bench: Bench) -> Bench:
        """Return the bench, if the backend keeps rings."""
        need(bench, "save_ring")
        return bench

    def test_one_creates(self, store: Bench) -> None:
        """Of 16 that create one tenant's ring at once, one does, and the others are told so."""
        self._race(store, None)

    def test_one_saves(self, store: Bench) -> None:
        """Of 16 that save over one revision at once, one does, and the others are told so."""
        for _ in range(often(self.harness, 5, live=1)):
            revision = store.binding.save_ring("acme", b"before", None)
            self._race(store, revision)
            store.delete_ring("acme", store.binding.load_ring("acme").revision)

    def test_one_saves_or_deletes(self, store: Bench) -> None:
        """Of 16 that save over one revision or delete it at once, one does; the others are told."""
        for _ in range(often(self.harness, 5, live=1)):
            self._race_to_the_end(store, store.binding.save_ring("acme", b"before", None))

    def test_none_is_lost(self, store: Bench) -> None:
        """When 8 that are told of a conflict read again and retry, the work of each is kept."""
        store.binding.save_ring("acme", b".", None)

        def add(number: int) -> None:
            while True:
                found = store.binding.load_ring("acme")
                try:
                    store.binding.save_ring(
                        "acme", found.document + bytes([number]), found.revision
                    )
                except Conflict:
                    continue
                return

        count = often(self.harness, 8, live=3)
        assert together(count, add) == [None] * count
        assert sorted(store.binding.load_ring("acme").document[1:]) == list(range(count))

    @pytest.mark.skipif(not hasattr(os, "fork"), reason=NO_FORK)
    def test_none_is_lost_among_processes(self, store: Bench, subject: BackendHarness) -> None:
        """Nor when those who save are processes: a lock of this one does not hold another.

        Each has two threads, for some locks are dropped by what another thread does with the file.
        A service in the memory of the tests' process is declared to be shared with none.
        """
        able(subject.share)
        race = (
            often(subject, _PROCESSES, live=2),
            often(subject, _THREADS, live=1),
            often(subject, _SAVES, live=1),
        )
        if subject.live:
            budget_of(type(subject)).spend(forked.calls_of_race(*race))
        told = forked.run_race(subject.name, table(subject), *race)
        assert told == "ok", f"{told} (if the service is this process's own: declare share absent)"

    def _race(self, store: Bench, expected: str | None) -> None:
        ends = together(
            _RACERS, lambda number: store.binding.save_ring("acme", b"%d" % number, expected)
        )
        winners = [number for number, end in enumerate(ends) if isinstance(end, str)]
        others = {type(end) for end in ends if not isinstance(end, str)}
        assert len(winners) == 1
        assert others == {Conflict}
        found = store.binding.load_ring("acme")
        assert found.document == b"%d" % winners[0]
        assert found.revision == ends[winners[0]]

    def _race_to_the_end(self, store: Bench, expected: str) -> None:
        def end(number: int) -> str | None:
            if number % 2 == 0:
                return store.binding.save_ring("acme", b"%d" % number, expected)
            store.delete_ring("acme", expected)
            return None

        ends = together(_RACERS, end)
        winners = [number for number, each in enumerate(ends) if isinstance(each, str | None)]
        assert len(winners) == 1
        others = {type(each) for each in ends if isinstance(each, Exception)}
        assert others <= {Conflict, TenantNotFound}
        if ends[winners[0]] is None:
            refused(TenantNotFound, lambda: store.binding.load_ring("acme"))
            return
        found = store.binding.load_ring("acme")
        assert (found.document, found.revision) == (b"%d" % winners[0], ends[winners[0]])
        store.delete_ring("acme", found.revision)
