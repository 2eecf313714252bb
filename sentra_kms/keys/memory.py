"""What is held of all tenants, bounded in number: entries, writers' epochs, readers' openers.

The hot path looks things up here without a lock. Whatever changes is changed under one, and an
entry, an epoch or an opener is never changed in what it means, only replaced; an epoch also ends.
"""

from __future__ import annotations

from collections.abc import Callable

from sentra_kms.forks import RLock, tell_after_fork
from sentra_kms.keys.eviction import Eviction
from sentra_kms.keys.held import Entry, HeldKey
from sentra_kms.keys.message import NO_EPOCH, Epoch, Opener
from sentra_kms.keys.ring import Ring

MAX_OPENERS = 4096  # of all tenants together; some 3 KiB each
MAX_EPOCHS = 1024  # the same; who has none at hand derives one in some 6 µs
MAX_RINGS = 256  # whole rings, for the unwraps that follow a load


class Memory:
    """`entries` and `epochs` are read by handles, without a lock, and written here only.

    An epoch that is forgotten is ended, since its tenant's handles keep it.

    `seen` returns the highest sequence of a tenant's ring that this process has read or saved.
    """

    def __init__(self, max_keys: int, seen: Callable[[str], int]) -> None:
        self.entries: dict[str, Entry] = {}
        self.epochs: dict[str, Epoch] = {}
        self.max_keys = max_keys
        self._seen = seen
        self._eviction = Eviction(self.entries, self.epochs)
        self._rings: dict[str, Ring] = {}
        # Who keeps each opener, the longest kept first.
        self._openers: dict[tuple[str, bytes], Entry] = {}
        self._held = 0
        self._closed = False
        self.after_fork()
        tell_after_fork(self)

    def after_fork(self) -> None:
        """Start the child with salts of its own."""
        self._lock = RLock()  # a signal handler may close what is being changed
        self._end_epochs()

    def put(
        self,
        entry: Entry,
        ring: Ring,
        key: HeldKey | None,
        may_serve: Callable[[HeldKey], bool],
    ) -> Entry:
        """Hold the entry of a ring that was read or saved; return the one that is then held.

        It takes over what an earlier one held of versions that are still enabled, and that
        `may_serve` says is not too old. An earlier one of a newer ring, or read later, stays.
        `key` is the ring's primary's if it is at hand.
        """
        tenant = entry.tenant
        with self._lock:
            if self._closed:
                return entry
            before = self.entries.get(tenant)
            if before is None:
                if entry.sequence < self._seen(tenant):
                    return entry  # the newer one was dropped, and is not to come back as this
                self._eviction.admit(entry)
            elif (before.sequence, before.read) > (entry.sequence, entry.read):
                return before
            else:
                self._carry(before, entry, may_serve)
            self.entries[tenant] = entry
            if key is not None:
                self._admit(entry, key)
            self._carry_epoch(before, entry)
            self._keep_ring(ring)
            self._trim(tenant)
            if self.entries.get(tenant) is entry and entry.sequence < self._seen(tenant):
                self._give_up(entry)  # a signal handler saved a newer ring meanwhile
            self._end()
        return entry

    def admit(self, asked: Entry, held: HeldKey) -> None:
        """Hold a key that was unwrapped for an entry, in the one that is held now.

        The ring may have been read again while the KEK was asked: then only if the version has
        the same key and is still enabled.
        """
        with self._lock:
            current = self.entries.get(asked.tenant)
            if current is not None and held.number in asked.same_keys(current):
                self._admit(current, held)
                self._trim(asked.tenant)
                self._end()

    def keep_epoch(self, entry: Entry, held: HeldKey, epoch: Epoch) -> None:
        """Make an epoch the one that the tenant's writers use, if its key is held."""
        tenant = entry.tenant
        with self._lock:
            if self._holds(entry, held):
                self._end_epoch(tenant)
                if len(self.epochs) >= MAX_EPOCHS:
                    self._end_epoch(next(iter(self.epochs)))
                self.epochs.setdefault(tenant, epoch)  # one that a signal handler made stays
                if not self._holds(entry, held):
                    self._end_epoch(tenant)  # he changed the ring
                self._end()

    def keep_opener(self, entry: Entry, held: HeldKey, prefix: bytes, opener: Opener) -> None:
        """Keep what opens the messages of one prefix, if its key is held."""
        place = (entry.tenant, prefix)
        with self._lock:
            if self._holds(entry, held):
                self._openers.pop(place, None)
                if len(self._openers) >= MAX_OPENERS:
                    oldest = next(iter(self._openers))
                    self._openers.pop(oldest).forget_opener(oldest[1])
                entry.keep_opener(prefix, opener)
                self._openers[place] = entry
                self._end()

    def ring(self, entry: Entry) -> Ring | None:
        """Return the whole ring that an entry is of, `None` if it is not at hand any more."""
        with self._lock:  # an entry is found before all that belongs to it is kept
            ring = self._rings.get(entry.tenant)
        same = ring is not None and (ring.ring_id, ring.sequence) == (
            entry.ring_id,
            entry.sequence,
        )
        return ring if same else None

    def limit(self, entry: Entry, end: float) -> None:
        """Let an entry, and what writers and readers made of it, serve no longer than `end`."""
        with self._lock:
            entry.deadline = min(entry.deadline, end)
            for opener in entry.openers.values():
                opener.deadline = min(opener.deadline, end)
            epoch = self.epochs.get(entry.tenant)
            if epoch is not None and self.entries.get(entry.tenant) is entry:
                epoch.deadline = min(epoch.deadline, end)

    def shorten(
        self, ring_end: Callable[[Entry], float], key_end: Callable[[Entry, HeldKey], float | None]
    ) -> None:
        """Let what is held serve no longer than to these ends; `None` forgets a key."""
        with self._lock:
            entries = list(self.entries.values())
        for entry in entries:
            end = ring_end(entry)
            for held in entry.all_held():
                until = key_end(entry, held)
                if until is None:
                    self.forget(entry.tenant, held.number)
                else:
                    held.deadline = min(held.deadline, until)
                    end = min(end, held.deadline)
            self.limit(entry, end)

    def forget(self, tenant: str, number: int) -> None:
        """Forget one key of a tenant and what follows from it."""
        with self._lock:
            entry = self.entries.get(tenant)
            if entry is not None:
                self._forget(entry, number)

    def drop(self, tenant: str, ring_id: bytes) -> None:
        """Forget a tenant, if what is held is of this ring."""
        with self._lock:
            entry = self.entries.get(tenant)
            if entry is not None and entry.ring_id == ring_id:
                self._give_up(entry)

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._end_epochs()
            self.entries.clear()
            self._openers.clear()
            self._rings.clear()
            self._eviction.clear()
            self._held = 0

    def close(self) -> None:
        """Forget everything, and hold nothing from now on."""
        self._closed = True
        self.clear()

    def _end(self) -> None:
        """Hold nothing after all if a signal handler closed meanwhile; it had the lock, too."""
        if self._closed:
            self.clear()

    def _holds(self, entry: Entry, held: HeldKey) -> bool:
        found = entry.key(held.number)
        same = found is not None and found.material is held.material
        return same and not self._closed and self.entries.get(entry.tenant) is entry

    def _carry(self, before: Entry, entry: Entry, may_serve: Callable[[HeldKey], bool]) -> None:
        usable = before.same_keys(entry)
        entry.seat, entry.asked = before.seat, before.asked
        entry.hold(
            [held for held in before.all_held() if held.number in usable and may_serve(held)]
        )
        self._held += len(entry.all_held()) - len(before.all_held())
        for prefix, opener in list(before.openers.items()):
            place = (entry.tenant, prefix)
            held = entry.key(opener.version)
            if opener.version in usable and held is not None:
                opener.deadline = min(entry.deadline, held.deadline)
                entry.keep_opener(prefix, opener)
                self._openers[place] = entry
            else:
                self._openers.pop(place, None)

    def _carry_epoch(self, before: Entry | None, entry: Entry) -> None:
        """Let writers keep an epoch under the ring that was read now, if it still has its key."""
        epoch = self.epochs.get(entry.tenant)
        if epoch is None:
            return
        held = entry.key(epoch.version)
        same = before is not None and epoch.version in before.same_keys(entry)
        if same and held is not None and epoch.version == entry.primary:
            epoch.deadline = min(entry.deadline, held.deadline, epoch.expires)
        else:
            self._end_epoch(entry.tenant)

    def _admit(self, entry: Entry, held: HeldKey) -> None:
        kept = [each for each in entry.all_held() if each.number != held.number]
        self._held += len(kept) + 1 - len(entry.all_held())
        entry.hold([held, *kept])

    def _keep_ring(self, ring: Ring) -> None:
        self._rings.pop(ring.tenant, None)
        if len(self._rings) >= MAX_RINGS:
            del self._rings[next(iter(self._rings))]
        self._rings[ring.tenant] = ring

    def _give_up(self, entry: Entry) -> None:
        self.entries.pop(entry.tenant, None)
        self._held -= len(entry.all_held())
        for prefix in list(entry.openers):
            self._openers.pop((entry.tenant, prefix), None)
            entry.forget_opener(prefix)
        entry.hold([])
        self._end_epoch(entry.tenant)
        self._rings.pop(entry.tenant, None)

    def _forget(self, entry: Entry, number: int) -> None:
        kept = [each for each in entry.all_held() if each.number != number]
        self._held -= len(entry.all_held()) - len(kept)
        entry.hold(kept)
        for prefix in [p for p, opener in entry.openers.items() if opener.version == number]:
            entry.forget_opener(prefix)
            self._openers.pop((entry.tenant, prefix), None)
        epoch = self.epochs.get(entry.tenant)
        if epoch is not None and epoch.version == number:
            self._end_epoch(entry.tenant)

    def _end_epoch(self, tenant: str) -> None:
        """Forget an epoch. It is ended first: handles have it, whether it is found here or not."""
        self.epochs.get(tenant, NO_EPOCH).end()
        self.epochs.pop(tenant, NO_EPOCH).end()  # that one, or what a signal handler put there

    def _end_epochs(self) -> None:
        for tenant in list(self.epochs):
            self._end_epoch(tenant)

    def _trim(self, keep: str) -> None:
        """Forget tenants, and of a single one keys, until the bound holds."""
        while max(self._held, len(self.entries)) > self.max_keys:
            entry = self._eviction.choose(keep)
            if entry is not None:
                self._give_up(entry)
                continue
            last = self.entries.get(keep)
            if last is None or len(last.all_held()) < 2:
                return
            self._forget(last, last.all_held()[-1].number)
