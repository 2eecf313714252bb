"""What this process has seen of each ring, so that no store can go back behind it."""

from __future__ import annotations

from sentra_kms.errors import Conflict, RingRejected
from sentra_kms.forks import Lock, tell_after_fork
from sentra_kms.keys.ring import Ring

_BITS = 32


class Seen:
    """The highest sequence seen of each tenant, and which document had it.

    One integer a tenant, the sequence over 32 bits of the document's MAC, kept for the life of
    the process: of two documents of one sequence, which only who holds the authentication key can
    make, the other is noticed but once in 2^32. Safe to use from many threads.
    """

    def __init__(self) -> None:
        self._marks: dict[str, int] = {}
        self.after_fork()
        tell_after_fork(self)

    def after_fork(self) -> None:
        """Replace a lock that another thread may have held."""
        self._lock = Lock()

    def mark(self, tenant: str) -> int:
        """Return what was seen until now, to be noted before a read begins."""
        return self._marks.get(tenant, 0)

    def sequence(self, tenant: str) -> int:
        """Return the highest sequence seen, 0 if none was."""
        return self._marks.get(tenant, 0) >> _BITS

    def has_newer(self, ring: Ring, document: bytes) -> bool:
        """Whether a ring above this one was seen, or another of its sequence."""
        seen, mark = self._marks.get(ring.tenant, 0), _mark(ring, document)
        return mark != seen and mark >> _BITS <= seen >> _BITS

    def refuse_rollback(self, ring: Ring, document: bytes, seen: int) -> None:
        """Raise `RingRejected` for a ring that is behind `seen`; note one that is not."""
        mark = _mark(ring, document)
        same = mark >> _BITS == seen >> _BITS
        if mark >> _BITS < seen >> _BITS or (same and mark != seen):
            raise RingRejected(
                f"the stored ring of '{ring.tenant}' has sequence {ring.sequence}, but this "
                f"process has seen {'another ' if same else ''}{seen >> _BITS}: the store was "
                "rolled back, or holds a copy of another store",
                subject=ring.tenant,
            )
        self._note(ring.tenant, mark)

    def refuse_regress(self, ring: Ring, expected: str | None) -> None:
        """Raise unless a ring about to be saved is ahead of all that was seen."""
        seen = self.sequence(ring.tenant)
        if ring.sequence > seen:
            return
        if expected is not None:
            raise Conflict(f"the ring of '{ring.tenant}' was saved by somebody else: read it again")
        raise RingRejected(
            f"the ring of '{ring.tenant}' was not created: this process has seen one of sequence "
            f"{seen} that is gone from the store. Restore it: what was encrypted under it opens "
            "under no other",
            subject=ring.tenant,
        )

    def saved(self, ring: Ring, document: bytes) -> None:
        """Note a ring that was saved."""
        self._note(ring.tenant, _mark(ring, document))

    def _note(self, tenant: str, mark: int) -> None:
        # Without a call, so that no signal handler comes that would wait for this lock.
        with self._lock:
            if tenant not in self._marks or mark > self._marks[tenant]:
                self._marks[tenant] = mark


def _mark(ring: Ring, document: bytes) -> int:
    # The header holds the MAC in hex at a fixed place: "sentra-ring 1 " + 16 + " " + 64.
    return ring.sequence << _BITS | int(document[31:39], 16)
