"""How long what is held of a tenant serves, and how it is fetched when it does not.

Each ring and each key has two ends. At the first (`_AHEAD` of its TTL) it is fetched anew in the
background while it goes on serving. At the second it serves no more, and who needs it waits; but
if the service is out of reach, what was fetched less than `max_stale` ago goes on ("coasts"), and
every few seconds a request is the occasion to try again. Only an outage is coasted over: a
service that answers *no* is obeyed at once.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from math import floor
from typing import TYPE_CHECKING, Protocol

import msgspec

from sentra_kms.errors import KeyUnavailable, KMSError, ServiceUnavailable
from sentra_kms.forks import tell_after_fork
from sentra_kms.keys.background import Background
from sentra_kms.keys.eviction import USED
from sentra_kms.keys.flight import SingleFlight
from sentra_kms.keys.held import Entry, HeldKey
from sentra_kms.keys.memory import Memory
from sentra_kms.keys.message import Epoch, Opener
from sentra_kms.keys.outages import PROBE_INTERVAL, Outages
from sentra_kms.keys.ring import Ring, Version
from sentra_kms.material import KeyMaterial

RELOAD_INTERVAL = 1.0  # seconds between forced reloads of one tenant's ring
_JITTER = 0.1  # of a TTL, taken off
_AHEAD = 0.8  # of a TTL; then it is fetched anew before anybody has to wait
_MAX_TICKS = 4096
_STORE = "store"


class Bounds(msgspec.Struct, frozen=True):
    """How long rings are held, in seconds, and how many keys."""

    ring_ttl: float
    max_stale: float
    max_keys: int


if TYPE_CHECKING:
    from sentra_kms.keys.background import Runner

    class Source(Protocol):
        """Where rings and keys come from."""

        def load(self, tenant: str) -> Ring:
            """Read and verify a ring."""
            ...

        def seen(self, tenant: str) -> int:
            """Return the highest sequence of a tenant's ring that was read or saved here."""
            ...

        def unwrap(self, ring: Ring, version: Version) -> KeyMaterial:
            """Ask a KEK for a key."""
            ...

        def key_ttl(self, policy: str) -> float:
            """Return how long keys of a policy are held, in seconds."""
            ...

        def is_out_of_reach(self, ring: Ring, version: Version) -> bool:
            """Whether everybody who could unwrap failed a moment ago."""
            ...


class KeyCache:
    """Entries by tenant. `now` is a monotonic clock.

    `entries` and `epochs` are for the managers' hot paths to look things up.
    """

    def __init__(
        self,
        source: Source,
        bounds: Bounds,
        *,
        now: Callable[[], float],
        background: Runner | None = None,
    ) -> None:
        self.now = now
        self._source = source
        self._bounds = bounds
        self._memory = Memory(bounds.max_keys, source.seen)
        self.entries = self._memory.entries
        self.epochs = self._memory.epochs
        self._background = background or Background()
        self._outages = Outages(now)
        self._loads: SingleFlight[Entry] = SingleFlight()
        self._unwraps: SingleFlight[HeldKey] = SingleFlight()
        self._ticks: dict[float, float] = {}
        self._forced_at: dict[str, float] = {}  # reloads before their time, of the last second
        self.after_fork()
        tell_after_fork(self)

    def after_fork(self) -> None:
        """Give the child other times than its siblings have."""
        self._salt = os.urandom(8)

    def adopt(self, bounds: Bounds) -> None:
        """Hold things to other bounds from now on."""
        self._bounds = bounds
        self._memory.max_keys = bounds.max_keys

    def staleness(self) -> float:
        """Return for how many seconds a process may go on with what was changed elsewhere."""
        return max(self._bounds.ring_ttl, self._bounds.max_stale)

    def entry(self, tenant: str) -> Entry:
        """Return a tenant's entry, loading its ring if it is not held or due for a look."""
        found = self.entries.get(tenant)
        if found is None:
            return self._cold(tenant)
        found.seat |= USED
        now = self.now()
        if now < found.deadline:
            return found
        if self._is_fresh(found, now) or (self._is_known_down(found) and self._coasts(found, now)):
            self._load_ahead(found, now)
            return found
        try:
            return self._loads.do(tenant, lambda: self._loaded(tenant, found))
        except ServiceUnavailable:
            if not self._coasts(found, self.now()):
                raise
        self._coast(found, found.read)
        return found

    def reload(self, entry: Entry) -> Entry:
        """Return a newer entry than this one, read now unless that was done a moment ago.

        Then it is this one again. Who comes while it is read gets what is read.
        """
        return self._loads.do((entry.tenant, "forced"), lambda: self._forced(entry))

    def replace(self, ring: Ring, key: KeyMaterial | None = None) -> Entry:
        """Hold a ring that was just read or saved; `key` is its primary's if it is at hand."""
        return self._replace(ring, self._tick(self.now()), key)

    def key(self, entry: Entry, number: int) -> HeldKey:
        """Return a version's key, unwrapped now if it is not held. Raises `KeyUnavailable`."""
        state = entry.state(number)
        if state != "enabled":
            raise KeyUnavailable(
                f"version {number} of tenant '{entry.tenant}' is {state}", subject=entry.tenant
            )
        held = entry.key(number)
        if held is None:
            return self._fetch(entry, number, None)
        now = self.now()
        if now < held.deadline:
            return held
        end = held.taken + self._ttl(entry)
        last = held.taken + self._bounds.max_stale
        if now < end or (now < last and (held.is_coasting or self._is_out(entry, number))):
            held.deadline = end if now < end else min(now + PROBE_INTERVAL, last)
            self._background.submit(
                (entry.tenant, number), lambda: self._fetch_ahead(entry, number, held)
            )
            return held
        try:
            return self._fetch(entry, number, held)
        except ServiceUnavailable:
            if self.now() >= last:
                raise
        self._coast(held, held.taken)
        return held

    def epoch(self, entry: Entry, number: int, cost: int) -> Epoch:
        """Return an epoch of a version with `cost` ticks drawn from it.

        It is the one that the tenant's writers use, or a new one that they use from now on.
        """
        held = self.key(entry, number)
        now = self.now()
        found = self.epochs.get(entry.tenant)
        if found is not None and found.version == number and now < found.expires:
            found.deadline = min(entry.deadline, held.deadline, found.expires)
            if found.draw(cost):
                return found
        end = now + self._ttl(entry)
        epoch = Epoch(held.material, entry.tenant, entry.ring_id, number, end)
        epoch.deadline = min(entry.deadline, held.deadline, end)
        epoch.draw(cost)
        self._memory.keep_epoch(entry, held, epoch)
        return epoch

    def opener(self, entry: Entry, number: int, prefix: bytes) -> Opener:
        """Return the opener of a message's prefix, kept for the next one with the same prefix."""
        held = self.key(entry, number)
        deadline = min(entry.deadline, held.deadline)
        found = entry.openers.get(prefix)
        if found is not None and found.key is held.material:
            found.deadline = deadline
            return found
        made = Opener(held.material, entry.tenant, prefix, deadline)
        self._memory.keep_opener(entry, held, prefix, made)
        return made

    def can_coast(self) -> bool:
        """Whether some tenant's key is held that may serve through an outage."""
        now, last = self.now(), self._bounds.max_stale
        entries = list(self.entries.values())  # a copy, since other threads change it
        return any(
            now < entry.read + last and any(now < held.taken + last for held in entry.all_held())
            for entry in entries
        )

    def clear(self) -> None:
        """Forget everything."""
        self._memory.clear()

    def close(self) -> None:
        """Forget everything, and hold nothing from now on."""
        self._background.close()
        self._memory.close()

    # --- rings

    def _cold(self, tenant: str) -> Entry:
        while True:
            found = self._loads.do(tenant, lambda: self._loaded(tenant, None))
            if found.sequence >= self._source.seen(tenant):
                return found
            # This process has saved or read a newer ring while this one was being read.

    def _loaded(self, tenant: str, before: Entry | None) -> Entry:
        # The flight before this one may have landed since this thread looked.
        found = self.entries.get(tenant)
        if found is not None and found is not before:
            return found
        return self._load(tenant)

    def _load(self, tenant: str) -> Entry:
        ring, begun = self._read(tenant)
        return self._replace(ring, begun, None)

    def _read(self, tenant: str) -> tuple[Ring, float]:
        """Read a ring; return it and when that began."""
        begun = self._tick(self.now())
        try:
            ring = self._source.load(tenant)
        except ServiceUnavailable:
            self._outages.failed(_STORE)
            raise
        except KMSError:
            self._outages.worked(_STORE)  # it answered, if only with a no
            raise
        self._outages.worked(_STORE)
        return ring, begun

    def _load_ahead(self, entry: Entry, now: float) -> None:
        """Have a ring read in the background, and serve the one at hand meanwhile."""
        end, last = entry.read + self._ring_ttl(entry), entry.read + self._bounds.max_stale
        entry.deadline = end if now < end else min(now + PROBE_INTERVAL, last)
        tenant = entry.tenant

        def work() -> None:
            try:
                if self._outages.should_wait(_STORE):
                    self._coast(entry, entry.read)
                else:
                    self._loads.do(tenant, lambda: self._loaded(tenant, entry))
            except ServiceUnavailable:
                self._coast(entry, entry.read)
            except KMSError:
                # Nothing is coasted over a no: when the ring is due, whoever asks is told.
                entry.is_coasting = False
                self._memory.limit(entry, end)

        self._background.submit(tenant, work)

    def _forced(self, entry: Entry) -> Entry:
        current = self.entries.get(entry.tenant, entry)
        if current.sequence > entry.sequence:
            return current
        now, last = self.now(), self._forced_at.get(entry.tenant)
        if last is not None and now < last + RELOAD_INTERVAL:
            return entry
        for tenant, when in list(self._forced_at.items()):
            if when + RELOAD_INTERVAL <= now:
                self._forced_at.pop(tenant, None)
        self._forced_at[entry.tenant] = now
        return self._load(entry.tenant)

    def _replace(self, ring: Ring, read: float, key: KeyMaterial | None) -> Entry:
        entry = Entry(ring, read)
        entry.deadline = self._tick(read + _AHEAD * self._ring_ttl(entry))
        held: HeldKey | None = None
        if key is not None and ring.primary is not None and self._ttl(entry) > 0:
            held = self._made(entry, ring.primary, key, self._tick(self.now()))
        now = self.now()
        longest = max(self._ttl(entry), self._bounds.max_stale)
        return self._memory.put(entry, ring, held, lambda each: now < each.taken + longest)

    def _is_fresh(self, entry: Entry, now: float) -> bool:
        return now < entry.read + self._ring_ttl(entry)

    def _is_known_down(self, entry: Entry) -> bool:
        return entry.is_coasting or self._outages.is_known(_STORE)

    def _coasts(self, entry: Entry, now: float) -> bool:
        return now < entry.read + self._bounds.max_stale

    def _coast(self, held: Entry | HeldKey, since: float) -> None:
        """Go on with what was fetched at `since`, until the next try."""
        held.is_coasting = True
        held.deadline = min(self.now() + PROBE_INTERVAL, since + self._bounds.max_stale)

    # --- keys

    def _fetch(self, entry: Entry, number: int, before: HeldKey | None) -> HeldKey:
        """Unwrap a key, once for all who ask at the same time."""
        if self._ttl(entry) == 0:
            return self._unwrapped(entry, number)  # each asks for himself
        flight = (entry.tenant, entry.ring_id, entry.sequence, number)

        def once() -> HeldKey:
            # The flight before this one may have landed since this thread looked.
            current = self.entries.get(entry.tenant, entry)
            held = current.key(number) if number in entry.same_keys(current) else None
            if held is not None and (before is None or held.taken > before.taken):
                return held
            return self._unwrapped(entry, number)

        return self._unwraps.do(flight, once)

    def _fetch_ahead(self, entry: Entry, number: int, held: HeldKey) -> None:
        """Unwrap a key in the background, unless its KEKs are known to be out of reach."""
        try:
            if self._is_out(entry, number):
                self._coast(held, held.taken)
            else:
                self._fetch(entry, number, held)
        except ServiceUnavailable:
            self._coast(held, held.taken)

    def _is_out(self, entry: Entry, number: int) -> bool:
        """Whether every KEK of a version is known to be out of reach."""
        ring = self._memory.ring(entry)
        version = None if ring is None else ring.find(number)
        if ring is None or version is None:
            return False
        return self._source.is_out_of_reach(ring, version)

    def _unwrapped(self, entry: Entry, number: int) -> HeldKey:
        begun = self._tick(self.now())
        entry, ring, version = self._with_ring(entry, number)
        try:
            material = self._source.unwrap(ring, version)
        except ServiceUnavailable:
            raise
        except KMSError:
            self._memory.forget(entry.tenant, number)
            raise
        held = self._made(entry, number, material, begun)
        if self._ttl(entry) > 0:
            self._memory.admit(entry, held)
        return held

    def _with_ring(self, entry: Entry, number: int) -> tuple[Entry, Ring, Version]:
        """Return the whole ring of an entry, read anew if it is not at hand, and a version."""
        ring = self._memory.ring(entry)
        if ring is None:
            ring, begun = self._read(entry.tenant)
            entry = self._replace(ring, begun, None)
        version = ring.find(number)
        if version is None or version.state != "enabled":
            state = "gone" if version is None else version.state
            raise KeyUnavailable(
                f"version {number} of tenant '{entry.tenant}' is {state}", subject=entry.tenant
            )
        return entry, ring, version

    def _made(self, entry: Entry, number: int, material: KeyMaterial, taken: float) -> HeldKey:
        return HeldKey(number, material, taken, self._tick(taken + _AHEAD * self._ttl(entry)))

    def _ttl(self, entry: Entry) -> float:
        return self._jittered(self._source.key_ttl(entry.policy), entry)

    def _ring_ttl(self, entry: Entry) -> float:
        return self._jittered(self._bounds.ring_ttl, entry)

    def _tick(self, seconds: float) -> float:
        """Round down to a sixteenth of a second, and return an object that others hold too.

        Of a hundred thousand tenants each would else keep four floats of its own, 128 bytes.
        """
        if len(self._ticks) >= _MAX_TICKS:
            self._ticks.clear()
        rounded = floor(seconds * 16) / 16
        return self._ticks.setdefault(rounded, rounded)

    def _jittered(self, ttl: float, entry: Entry) -> float:
        # Of a tenant always the same, so that it need not be kept; of two processes never.
        return ttl * (1 - _JITTER * (hash((self._salt, entry.tenant)) & 0xFFFF) / 0xFFFF)
