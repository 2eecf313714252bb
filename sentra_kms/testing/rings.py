"""Checks of the rings part: opaque bytes by tenant, changed by compare-and-set only."""

# ruff: noqa: S101 - checks are tests

from __future__ import annotations

from sentra_kms.errors import Conflict, MalformedInput, RingRejected, TenantNotFound
from sentra_kms.testing.base import listed, often, refused
from sentra_kms.testing.bench import Bench
from sentra_kms.testing.lost_answers import LostAnswerConformance

MAX_DOCUMENT = 256 * 1024
"""Bytes of the largest ring."""

_TENANTS = ["a", "A", "0", "a.b", "a..b", "a.", "a-", "a_", "CON", "x" * 120, "X" * 120]


class RingConformance(LostAnswerConformance):
    """For a backend that keeps rings."""

    def test_saved_is_loaded(self, rings: Bench) -> None:
        """A ring is loaded as it was saved, with the revision that saving it returned."""
        revision = rings.binding.save_ring("acme", b"one", None)
        found = rings.binding.load_ring("acme")
        assert (found.document, found.revision) == (b"one", revision)
        assert revision

    def test_save_replaces(self, rings: Bench) -> None:
        """A save with the present revision replaces the whole document."""
        first = rings.binding.save_ring("acme", b"a longer document", None)
        rings.binding.save_ring("acme", b"short", first)
        assert rings.binding.load_ring("acme").document == b"short"

    def test_each_save_has_a_revision(self, rings: Bench) -> None:
        """Each save has a revision of its own, and is what the next load shows."""
        revision: str | None = None
        seen: set[str] = set()
        count = often(self.harness, 20, live=4)
        for number in range(count):
            document = f"document {number}".encode()
            revision = rings.binding.save_ring("acme", document, revision)
            found = rings.binding.load_ring("acme")
            assert (found.document, found.revision) == (document, revision)
            seen.add(revision)
        assert len(seen) == count

    def test_create_twice(self, rings: Bench) -> None:
        """Where a ring is, none is created: `Conflict`, and it stays as it was."""
        rings.binding.save_ring("acme", b"one", None)
        refused(Conflict, lambda: rings.binding.save_ring("acme", b"two", None))
        assert rings.binding.load_ring("acme").document == b"one"

    def test_stale_save(self, rings: Bench) -> None:
        """A save with an earlier revision is a `Conflict`, and changes nothing."""
        first = rings.binding.save_ring("acme", b"one", None)
        second = rings.binding.save_ring("acme", b"two", first)
        refused(Conflict, lambda: rings.binding.save_ring("acme", b"three", first))
        found = rings.binding.load_ring("acme")
        assert (found.document, found.revision) == (b"two", second)

    def test_foreign_revision(self, rings: Bench) -> None:
        """A revision of another tenant's ring is a `Conflict`."""
        rings.binding.save_ring("acme", b"one", None)
        foreign = rings.binding.save_ring("globex", b"two", None)
        foreign = rings.binding.save_ring("globex", b"three", foreign)
        refused(Conflict, lambda: rings.binding.save_ring("acme", b"four", foreign))
        assert rings.binding.load_ring("acme").document == b"one"

    def test_missing_ring(self, rings: Bench) -> None:
        """A tenant without a ring is `TenantNotFound`."""
        refused(TenantNotFound, lambda: rings.binding.load_ring("nobody"))

    def test_save_over_nothing(self, rings: Bench) -> None:
        """A save with a revision creates nothing where there is no ring."""
        revision = rings.binding.save_ring("acme", b"one", None)
        rings.delete_ring("acme", revision)
        refused(
            (Conflict, TenantNotFound), lambda: rings.binding.save_ring("acme", b"two", revision)
        )
        refused(TenantNotFound, lambda: rings.binding.load_ring("acme"))

    def test_delete(self, rings: Bench) -> None:
        """A deleted ring is gone, for loads and for lists; another tenant's is not."""
        revision = rings.binding.save_ring("acme", b"one", None)
        rings.binding.save_ring("globex", b"two", None)
        rings.delete_ring("acme", revision)
        refused(TenantNotFound, lambda: rings.binding.load_ring("acme"))
        assert listed(rings, 10) == ["globex"]
        assert rings.binding.load_ring("globex").document == b"two"

    def test_stale_delete(self, rings: Bench) -> None:
        """To delete with an earlier revision is a `Conflict`, and the ring stays."""
        first = rings.binding.save_ring("acme", b"one", None)
        rings.binding.save_ring("acme", b"two", first)
        refused(Conflict, lambda: rings.delete_ring("acme", first))
        assert rings.binding.load_ring("acme").document == b"two"

    def test_delete_nothing(self, rings: Bench) -> None:
        """To delete a ring that is not there, or not there any more, is `TenantNotFound`."""
        revision = rings.binding.save_ring("acme", b"one", None)
        rings.delete_ring("acme", revision)
        refused(TenantNotFound, lambda: rings.delete_ring("acme", revision))

    def test_created_again(self, rings: Bench) -> None:
        """After a delete a ring can be created again, and its earlier life is over.

        No revision of that comes again: who still holds one would write over what is not his.
        """
        revision = rings.binding.save_ring("acme", b"one", None)
        rings.delete_ring("acme", revision)
        rings.binding.save_ring("acme", b"two", None)
        refused(Conflict, lambda: rings.binding.save_ring("acme", b"three", revision))
        refused(Conflict, lambda: rings.delete_ring("acme", revision))
        assert rings.binding.load_ring("acme").document == b"two"

    def test_list_of_nothing(self, rings: Bench) -> None:
        """A store without rings lists none, and the list ends."""
        assert listed(rings, 10) == []

    def test_list_in_pages(self, rings: Bench) -> None:
        """Whatever the size of a page, each of many tenants is listed once and the list ends."""
        count = often(self.harness, self.harness.tenants, live=11)
        tenants = [f"tenant-{number}" for number in range(count)]
        for tenant in tenants:
            rings.binding.save_ring(tenant, tenant.encode(), None)
        # At most some 100 pages: a store may look at every ring for each.
        few = (4, count)
        for limit in few if self.harness.live else (max(1, count // 100), 10, 100, count, 1000):
            assert sorted(listed(rings, limit)) == sorted(tenants)

    def test_list_while_rings_go(self, rings: Bench) -> None:
        """A list goes on behind what was deleted meanwhile, and passes over none that stayed.

        Not even if that was the last of a page. What works through a fleet would leave some out.
        """
        revisions = {
            tenant: rings.binding.save_ring(tenant, b"one", None)
            for tenant in (f"tenant-{number}" for number in range(7))
        }
        found = {*revisions}
        page = rings.binding.list_rings(None, 2)
        for _ in revisions:
            if page.tenants or page.cursor is None:
                break
            page = rings.binding.list_rings(page.cursor, 2)  # one without a tenant, as may be
        for tenant in page.tenants:
            rings.delete_ring(tenant, revisions[tenant])
            found.discard(tenant)
        later = [] if page.cursor is None else listed(rings, 2, page.cursor)
        assert sorted(later) == sorted(found)
        assert sorted(listed(rings, 10)) == sorted(found)

    def test_tenants_that_differ_in_case(self, rings: Bench) -> None:
        """Ids that differ only in case are two tenants."""
        for tenant in ("acme", "Acme", "ACME"):
            rings.binding.save_ring(tenant, tenant.encode(), None)
        for tenant in ("acme", "Acme", "ACME"):
            assert rings.binding.load_ring(tenant).document == tenant.encode()
        assert sorted(listed(rings, 10)) == ["ACME", "Acme", "acme"]

    def test_every_valid_tenant(self, rings: Bench) -> None:
        """Every valid id can be kept, told apart and listed, up to 120 characters."""
        for tenant in _TENANTS:
            rings.binding.save_ring(tenant, tenant.encode(), None)
        for tenant in _TENANTS:
            assert rings.binding.load_ring(tenant).document == tenant.encode()
        assert sorted(listed(rings, 4)) == sorted(_TENANTS)

    def test_any_bytes(self, rings: Bench) -> None:
        """A document is opaque bytes: NUL, newlines, and what is not UTF-8."""
        document = bytes(range(256)) + b"\r\n\x00"
        rings.binding.save_ring("acme", document, None)
        assert rings.binding.load_ring("acme").document == document

    def test_largest_document(self, rings: Bench) -> None:
        """The largest ring, 256 KiB, is kept whole, and replaced."""
        first, second = b"\xa5" * MAX_DOCUMENT, b"\x5a" * MAX_DOCUMENT
        revision = rings.binding.save_ring("acme", first, None)
        assert rings.binding.load_ring("acme").document == first
        rings.binding.save_ring("acme", second, revision)
        assert rings.binding.load_ring("acme").document == second

    def test_more_than_the_largest(self, rings: Bench) -> None:
        """A byte more than the largest is refused and changes nothing, or is kept whole."""
        more = b"\xa5" * (MAX_DOCUMENT + 1)
        revision = rings.binding.save_ring("acme", b"one", None)
        try:
            rings.binding.save_ring("acme", more, revision)
        except (MalformedInput, RingRejected):
            more = b"one"
        assert rings.binding.load_ring("acme").document == more

    def test_smallest_documents(self, rings: Bench) -> None:
        """A document of 1 byte is kept, whatever byte it is."""
        revision: str | None = None
        for document in (b"\x00", b"\n", b"0", b" "):
            revision = rings.binding.save_ring("acme", document, revision)
            assert rings.binding.load_ring("acme").document == document

    def test_made_anew_sees_saves(self, rings: Bench) -> None:
        """Parts that are made anew see what was saved, and others see at once what they save."""
        revision = rings.binding.save_ring("acme", b"one", None)
        again = rings.again()
        assert again.load_ring("acme").revision == revision
        again.save_ring("acme", b"two", revision)
        assert rings.binding.load_ring("acme").document == b"two"
        again.close()
