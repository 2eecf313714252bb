"""How long what is held of a tenant serves, and how it is fetched when it does not.

Each ring and each key has two ends. At the first (`_AHEAD` of its TTL) it is fetched anew in the
background while it goes on serving. At the second it serves no more, and who needs it waits; but
if the service is out of reach, what was fetched less than `max_stale` ago goes on ("coasts"), and
every few seconds a request is the occasion to try again. Only an outage is coasted over: a
service that answers *no* is obeyed at once.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from sys import intern
from typing import TYPE_CHECKING

from sentra_kms.errors import KeyUnavailable, KMSError, ServiceUnavailable
from sentra_kms.keys.background import Background
from sentra_kms.keys.flight import SingleFlight
from sentra_kms.keys.held import Entry, HeldKey
from sentra_kms.keys.memory import Memory
from sentra_kms.keys.message import Epoch, Opener, Sealer
from sentra_kms.keys.outages import PROBE_INTERVAL, Outages
from sentra_kms.keys.ring import Ring, Version
from sentra_kms.keys.source import Bounds, NotAtHandError
from sentra_kms.keys.times import Times
from sentra_kms.material import KeyMaterial

if TYPE_CHECKING:
    from sentra_kms.keys.background import Runner
    from sentra_kms.keys.source import Source

RELOAD_INTERVAL = 1.0  # seconds between forced reloads of one tenant's ring
_AHEAD = 0.8  # of a TTL; then it is fetched anew before anybody has to wait
_STORE = ""  # the place of rings that are in the main store


class KeyCache:
    """Entries by tenant. `now` is a monotonic clock.

    `entries` and `epochs` are for handles to look things up.
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
        self.entries: dict[str, Entry] = self._memory.entries
        self.epochs: dict[str, Epoch] = self._memory.epochs
        self._background = background or Background()
        self._outages = Outages(now, forgives=True)  # a store answers for many tenants
        self._loads: SingleFlight[Entry] = SingleFlight()
        self._unwraps: SingleFlight[HeldKey] = SingleFlight()
        self._times = Times()
        self._tick = self._times.tick
        self._forced_at: dict[str, float] = {}  # reloads before their time, of the last second

    def adopt(self, bounds: Bounds) -> None:
        """Hold things to other bounds and by other policies from now on, also what is held."""
        self._bounds = bounds
        self._memory.max_keys = bounds.max_keys
        self._memory.shorten(
            lambda entry: entry.read + _AHEAD * self._ring_ttl(entry),
            lambda entry, held: held.taken + _AHEAD * ttl if (ttl := self._ttl(entry)) else None,
        )
        now = self.now()
        for tenant, epoch in list(self.epochs.items()):
            entry = self.entries.get(tenant)
            if entry is not None:
                epoch.expires = min(epoch.expires, now + self._ttl(entry))
                epoch.deadline = min(epoch.deadline, epoch.expires)

    def staleness(self) -> float:
        """Return for how many seconds a process may go on with what was changed elsewhere."""
        return max(self._bounds.ring_ttl, self._bounds.max_stale)

    def entry(self, tenant: str) -> Entry:
        """Return a tenant's entry, loading its ring if it is not held or due for a look."""
        found = self.entries.get(tenant)
        if found is None:
            return self._cold(tenant)
        found.asked = True
        now = self.now()
        if now < found.deadline:
            return found
        if self._is_fresh(found, now) or (self._is_known_down(found) and self._coasts(found, now)):
            self._load_ahead(found, now)
            return found
        try:
            return self._loads.do(tenant, lambda: self._loaded(tenant, found))
        except ServiceUnavailable:
            current = self.entries.get(tenant)
            if current is not None and current is not found:
                return current  # saved here, or read, while this thread waited
            if current is None or not self._coasts(found, self.now()):
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
        return self._replace(ring, self._tick(self.now()), key, _STORE)

    def key(self, entry: Entry, number: int, *, wait: bool = True) -> HeldKey:
        """Return a version's key, unwrapped now if it is not held. Raises `KeyUnavailable`.

        Without `wait` nobody is asked: `NotAtHandError` is raised where that would be needed.
        """
        state = entry.state(number)
        if state != "enabled":
            raise KeyUnavailable(
                f"version {number} of tenant '{entry.tenant}' is {state}", subject=entry.tenant
            )
        held = entry.key(number)
        now = self.now()
        if held is not None and now < held.deadline:
            return held
        if not wait:
            raise NotAtHandError
        if held is None:
            held = self._fetch(entry, number, None)
            self._refuse_changed(entry, number)
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
            found = self._fetch(entry, number, held)
        except ServiceUnavailable:
            if self.now() >= last:
                raise
            self._coast(found := held, held.taken)
        self._refuse_changed(entry, number)
        return found

    def sealer(self, entry: Entry, number: int, cost: int, *, wait: bool = True) -> Sealer:
        """Return what seals under a version, with `cost` ticks of its epoch drawn.

        The epoch is the one that the tenant's writers use, or a new one that they use from now
        on. `wait` is as in `key`.
        """
        held = self.key(entry, number, wait=wait)
        now = self.now()
        found = self.epochs.get(entry.tenant)
        if found is not None and found.version == number and now < found.expires:
            found.deadline = min(entry.deadline, held.deadline, found.expires)
            sealer = found.draw(cost)
            if sealer is not None:
                return sealer
        sealer = Sealer(held.material, entry.tenant, entry.ring_id, number)
        epoch = Epoch(sealer, number, now + self._ttl(entry))
        epoch.deadline = min(entry.deadline, held.deadline, epoch.expires)
        epoch.draw(cost)
        self._memory.keep_epoch(entry, held, epoch)
        return sealer

    def opener(self, entry: Entry, number: int, prefix: bytes, *, wait: bool = True) -> Opener:
        """Return the opener of a message's prefix, kept for the next one with the same prefix.

        `wait` is as in `key`.
        """
        held = self.key(entry, number, wait=wait)
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

    def drop(self, tenant: str, ring_id: bytes) -> None:
        """Forget a ring that is not there any more."""
        self._memory.drop(tenant, ring_id)

    def clear(self) -> None:
        """Forget everything."""
        self._memory.clear()

    def close(self) -> None:
        """Forget everything, and hold nothing from now on."""
        self._background.close()
        self._memory.close()

    # --- rings

    def _cold(self, tenant: str) -> Entry:
        found: Entry | None = None
        while True:
            found = self._loads.do(tenant, partial(self._loaded, tenant, found))
            if found.sequence >= self._source.seen(tenant):
                return found
            # This process has saved or read a newer ring while this one was being read. That may
            # have been a look which holds nothing, so what is held now is not taken again.

    def _loaded(self, tenant: str, before: Entry | None) -> Entry:
        # The flight before this one may have landed since this thread looked.
        found = self.entries.get(tenant)
        if found is not None and found is not before:
            return found
        return self._load(tenant)

    def _load(self, tenant: str) -> Entry:
        return self._read(tenant)[0]

    def _read(self, tenant: str) -> tuple[Entry, Ring]:
        """Read a ring and hold it."""
        begun = self._tick(self.now())
        try:
            ring, place = self._source.load(tenant)
        except ServiceUnavailable as error:
            self._outages.failed(self._source.failed_at(error), tenant)
            raise
        except KMSError:
            self._outages.worked(_STORE)  # it answered, if only with a no
            raise
        for each in {_STORE, place}:
            self._outages.worked(each)
        return self._replace(ring, begun, None, place), ring

    def _load_ahead(self, entry: Entry, now: float) -> None:
        """Have a ring read in the background, and serve the one at hand meanwhile."""
        end, last = entry.read + self._ring_ttl(entry), entry.read + self._bounds.max_stale
        entry.deadline = end if now < end else min(now + PROBE_INTERVAL, last)
        tenant = entry.tenant

        def work() -> None:
            try:
                places = {_STORE, entry.place}
                if any(self._outages.should_wait(place, tenant) for place in places):
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

    def _replace(self, ring: Ring, read: float, key: KeyMaterial | None, place: str) -> Entry:
        entry = Entry(ring, read)
        entry.place = intern(place)
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
        places = {_STORE, entry.place}
        return entry.is_coasting or any(self._outages.is_known(place) for place in places)

    def _coasts(self, entry: Entry, now: float) -> bool:
        return now < entry.read + self._bounds.max_stale

    def _coast(self, held: Entry | HeldKey, since: float) -> None:
        """Go on with what was fetched at `since`, until the next try."""
        held.is_coasting = True
        held.deadline = min(self.now() + PROBE_INTERVAL, since + self._bounds.max_stale)

    # --- keys

    def _refuse_changed(self, entry: Entry, number: int) -> None:
        """Raise `KeyUnavailable` for a version that was disabled while its key was waited for."""
        current = self.entries.get(entry.tenant, entry)
        if current is not entry and number not in entry.still_enabled(current):
            raise KeyUnavailable(
                f"version {number} of tenant '{entry.tenant}' is "
                f"{current.state(number) or 'gone'}: its ring was changed just now",
                subject=entry.tenant,
            )

    def _fetch(self, entry: Entry, number: int, before: HeldKey | None) -> HeldKey:
        """Unwrap a key, once for all who ask at the same time."""
        if self._ttl(entry) == 0:
            return self._unwrapped(entry, number, None)  # each asks for himself
        flight = (entry.tenant, entry.ring_id, entry.sequence, number)

        def once() -> HeldKey:
            # The flight before this one may have landed since this thread looked.
            current = self.entries.get(entry.tenant, entry)
            held = current.key(number) if number in entry.same_keys(current) else None
            if held is not None and (before is None or held.taken > before.taken):
                return held
            return self._unwrapped(entry, number, before)

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

    def _unwrapped(self, entry: Entry, number: int, before: HeldKey | None) -> HeldKey:
        begun = self._tick(self.now())
        entry, ring, version = self._with_ring(entry, number)
        coasts = before is not None and begun < before.taken + self._bounds.max_stale
        if coasts and self._source.is_out_of_reach(ring, version):
            # Only now that the ring is at hand can this be known.
            raise ServiceUnavailable(
                f"the KEKs of tenant '{entry.tenant}' did not answer a moment ago",
                subject=entry.tenant,
            )
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
            entry, ring = self._read(entry.tenant)
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
        return self._times.shortened(self._source.key_ttl(entry.policy), entry.tenant)

    def _ring_ttl(self, entry: Entry) -> float:
        return self._times.shortened(self._bounds.ring_ttl, entry.tenant)
