"""Checks of `purge_ring_history`: what it says to be gone is gone, and the live ring is not."""

# ruff: noqa: S101 - checks are tests

from __future__ import annotations

import pytest

from sentra_kms.errors import TenantNotFound
from sentra_kms.hooktypes import Remainder
from sentra_kms.testing.base import Conformance, able, listed, need, refused
from sentra_kms.testing.bench import Bench
from sentra_kms.testing.harness import BackendHarness

_OTHERS = ("globex", "acme-2")  # whose id begins with that of the tenant, too


class RingHistoryConformance(Conformance):
    """For a store that keeps what a save or a delete replaced."""

    @pytest.fixture
    def keeper(self, bench: Bench) -> Bench:
        """Return the bench, if the backend can purge history."""
        need(bench, "purge_ring_history")
        return bench

    def test_purge_leaves_the_live_ring(self, keeper: Bench) -> None:
        """The live ring stays, with its revision, and can be saved; so do other tenants' rings."""
        revision = keeper.binding.save_ring("acme", b"one", None)
        revision = keeper.binding.save_ring("acme", b"two", revision)
        keeper.binding.save_ring("globex", b"theirs", None)
        keeper.binding.purge_ring_history("acme")
        found = keeper.binding.load_ring("acme")
        assert (found.document, found.revision) == (b"two", revision)
        keeper.binding.save_ring("acme", b"three", revision)
        assert keeper.binding.load_ring("acme").document == b"three"
        assert keeper.binding.load_ring("globex").document == b"theirs"

    def test_purge_erases_or_tells(self, keeper: Bench, subject: BackendHarness) -> None:
        """No earlier document is left in the store, unless something is said to remain."""
        revision = keeper.binding.save_ring("acme", b"one", None)
        keeper.binding.save_ring("acme", b"two", revision)
        for other in _OTHERS:
            theirs = keeper.binding.save_ring(other, b"theirs", None)
            keeper.binding.save_ring(other, b"theirs, later", theirs)
        others = [able(subject.ring_history, other) for other in _OTHERS]
        remains = keeper.binding.purge_ring_history("acme")
        kept = subject.ring_history("acme")
        assert b"two" in kept
        _agree(kept, remains, live={b"two"})
        after = [subject.ring_history(other) for other in _OTHERS]
        assert after == others, "another tenant's was erased"

    def test_purge_after_delete(self, keeper: Bench, subject: BackendHarness) -> None:
        """Where no ring is live all of its history is erased, and none comes to life."""
        revision = keeper.binding.save_ring("acme", b"one", None)
        revision = keeper.binding.save_ring("acme", b"two", revision)
        keeper.binding.delete_ring("acme", revision)
        remains = keeper.binding.purge_ring_history("acme")
        refused(TenantNotFound, lambda: keeper.binding.load_ring("acme"))
        _agree(able(subject.ring_history, "acme"), remains, live=set())

    def test_purge_of_nothing(self, keeper: Bench) -> None:
        """To purge again, or a tenant that never was, is no error and makes no ring."""
        keeper.binding.save_ring("acme", b"one", None)
        for tenant in ("acme", "acme", "nobody"):
            keeper.binding.purge_ring_history(tenant)
        refused(TenantNotFound, lambda: keeper.binding.load_ring("nobody"))
        assert listed(keeper, 10) == ["acme"]


def _agree(kept: set[bytes], remains: tuple[Remainder, ...], live: set[bytes]) -> None:
    if kept - live and not remains:
        pytest.fail("earlier documents are still in the store, and nothing was said to remain")
