"""Unwrapped tenant keys and what is derived from them, for a bounded time and in bounded number.

Reads on the hot path take no lock: they look one object up in a dict. Whatever changes is
replaced whole. Ring loads and unwraps are single flights.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

from sentra_kms.errors import KeyUnavailable
from sentra_kms.forks import tell_after_fork
from sentra_kms.keys.flight import SingleFlight
from sentra_kms.keys.message import Epoch, Opener
from sentra_kms.keys.ring import Ring, Version
from sentra_kms.material import KeyMaterial

MAX_OPENERS = 4096  # of all tenants together; some 3 KiB each
RELOAD_INTERVAL = 1.0  # seconds between forced reloads of one tenant's ring
_JITTER = 0.1  # of a TTL, taken off


class HeldKey:
    """An unwrapped key and when it must be unwrapped anew, in monotonic seconds."""

    __slots__ = ("expires", "material")

    def __init__(self, material: KeyMaterial, expires: float) -> None:
        self.material: KeyMaterial = material
        self.expires: float = expires


class Entry:
    """What is held of one tenant under one state of its ring.

    `read` is when reading the ring began, `deadline` when it must be read anew.
    """

    __slots__ = ("deadline", "forced", "keys", "openers", "read", "ring")

    def __init__(self, ring: Ring, read: float, deadline: float) -> None:
        self.ring: Ring = ring
        self.read: float = read
        self.deadline: float = deadline
        self.forced: float = float("-inf")  # when a reload before the deadline was last forced
        self.keys: dict[int, HeldKey] = {}
        self.openers: dict[bytes, Opener] = {}


class KeyCache:
    """Entries by tenant. `now` is a monotonic clock; TTLs are in seconds.

    `seen` returns the highest sequence of a tenant's ring that this process has read or saved.
    `entries` and `epochs` are read by the managers' hot paths and written here only.
    """

    def __init__(
        self,
        *,
        load: Callable[[str], Ring],
        unwrap: Callable[[Ring, Version], KeyMaterial],
        seen: Callable[[str], int],
        now: Callable[[], float],
        key_ttl: float,
        ring_ttl: float,
        max_keys: int,
    ) -> None:
        self.now = now
        self.entries: dict[str, Entry] = {}
        self.epochs: dict[str, Epoch] = {}
        self._load = load
        self._unwrap = unwrap
        self._seen = seen
        self._key_ttl = key_ttl
        self._ring_ttl = ring_ttl
        self._max_keys = max_keys
        self._held = 0
        self._closed = False
        self._loads: SingleFlight[Entry] = SingleFlight()
        self._unwraps: SingleFlight[HeldKey] = SingleFlight()
        # Where each opener is kept, the longest kept first.
        self._openers: dict[tuple[str, bytes], dict[bytes, Opener]] = {}
        self.after_fork()
        tell_after_fork(self)

    def after_fork(self) -> None:
        """Start the child with salts of its own."""
        self._lock = threading.Lock()
        self.epochs.clear()

    def entry(self, tenant: str) -> Entry:
        """Return a tenant's entry, loading its ring if it is not held or due for a look."""
        while True:
            found = self.entries.get(tenant)
            if found is not None and self.now() < found.deadline:
                return found
            found = self._loads.do(tenant, lambda: self._loaded(tenant))
            if not self._is_outdated(found.ring):
                return found
            # This process has saved or read a newer ring while this one was being read.

    def reload(self, entry: Entry) -> Entry:
        """Return a newer entry than this one, read now unless that was done a moment ago.

        Then it is this one again. Who comes while it is read gets what is read.
        """
        return self._loads.do((entry.ring.tenant, "forced"), lambda: self._forced(entry))

    def replace(self, ring: Ring, key: KeyMaterial | None = None) -> Entry:
        """Hold a ring that was just read or saved; `key` is its primary's if it is at hand."""
        return self._put(ring, self.now(), key)

    def key(self, entry: Entry, version: Version) -> HeldKey:
        """Return a version's key, unwrapped now if it is not held. Raises `KeyUnavailable`."""
        if version.state != "enabled":
            raise KeyUnavailable(
                f"version {version.version} of tenant '{entry.ring.tenant}' is {version.state}",
                subject=entry.ring.tenant,
            )
        held = entry.keys.get(version.version)
        if held is not None and self.now() < held.expires:
            return held
        ring = entry.ring
        flight = (ring.tenant, ring.ring_id, ring.sequence, version.version)
        return self._unwraps.do(flight, lambda: self._unwrapped(entry, version))

    def epoch(self, entry: Entry, version: Version, cost: int) -> Epoch:
        """Return a new epoch of a version, and make it the one that the tenant's writers use.

        `cost` ticks are drawn from it before anybody else can.
        """
        held = self.key(entry, version)
        ring = entry.ring
        epoch = Epoch(held.material, ring.tenant, ring.ring_id, version.version, held.expires)
        epoch.deadline = min(entry.deadline, held.expires)
        epoch.draw(cost)
        with self._lock:
            if self.entries.get(ring.tenant) is entry:
                self.epochs[ring.tenant] = epoch
        return epoch

    def opener(self, entry: Entry, version: Version, prefix: bytes) -> Opener:
        """Return the opener of a message's prefix, kept for the next one with the same prefix."""
        found = entry.openers.get(prefix)
        if found is not None and self.now() < found.expires:
            return found
        held = self.key(entry, version)
        made = Opener(held.material, entry.ring.tenant, prefix, held.expires)
        with self._lock:
            if self.entries.get(entry.ring.tenant) is entry:
                self._keep(entry, prefix, made)
        return made

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self.entries.clear()
            self.epochs.clear()
            self._openers.clear()
            self._held = 0

    def close(self) -> None:
        """Forget everything, and hold nothing from now on."""
        self._closed = True
        self.clear()

    def _loaded(self, tenant: str) -> Entry:
        # The flight before this one may have landed since this thread looked.
        found = self.entries.get(tenant)
        if found is not None and self.now() < found.deadline:
            return found
        return self._read(tenant)

    def _read(self, tenant: str) -> Entry:
        begun = self.now()
        return self._put(self._load(tenant), begun)

    def _forced(self, entry: Entry) -> Entry:
        tenant = entry.ring.tenant
        current = self.entries.get(tenant, entry)
        if current.ring.sequence > entry.ring.sequence:
            return current
        if self.now() < current.forced + RELOAD_INTERVAL:
            return entry
        current.forced = self.now()
        fresh = self._read(tenant)
        fresh.forced = current.forced
        return fresh

    def _take_over(self, before: Entry, entry: Entry, usable: set[int]) -> None:
        """Let an entry have what an earlier one held of versions still usable."""
        now = self.now()
        entry.forced = before.forced
        for number, held in before.keys.items():
            if number in usable and now < held.expires:
                entry.keys[number] = held
        for prefix, opener in list(before.openers.items()):
            if opener.version in usable and now < opener.expires:
                self._keep(entry, prefix, opener)

    def _keep(self, entry: Entry, prefix: bytes, opener: Opener) -> None:
        if self._closed:
            return
        place = (entry.ring.tenant, prefix)
        self._openers.pop(place, None)
        if len(self._openers) >= MAX_OPENERS:
            oldest = next(iter(self._openers))
            self._openers.pop(oldest).pop(oldest[1], None)
        entry.openers[prefix] = opener
        self._openers[place] = entry.openers

    def _put(self, ring: Ring, read: float, key: KeyMaterial | None = None) -> Entry:
        """Hold the ring, unless a newer one is held; return the entry of the one that is."""
        tenant = ring.tenant
        entry = Entry(ring, read, self.now() + self._jittered(self._ring_ttl))
        with self._lock:
            before = self.entries.get(tenant)
            if before is not None and before.ring.sequence > ring.sequence:
                # Another thread has seen a newer ring while this one was being read.
                return before
            if before is None and self._is_outdated(ring):
                return entry  # the newer one was dropped already, and is not to come back as this
            usable = set[int]() if before is None else _same_keys(before.ring, ring)
            if before is not None:
                self._take_over(before, entry, usable)
            if key is not None and ring.primary is not None:
                entry.keys[ring.primary] = self._hold(key)
            if self._closed:
                return entry
            self._held += len(entry.keys) - (len(before.keys) if before else 0)
            self.entries.pop(tenant, None)  # what was read last stands last
            self.entries[tenant] = entry
            epoch = self.epochs.get(tenant)
            if epoch is not None:
                self._carry(epoch, entry, usable)
            self._trim(tenant)
            return entry

    def _carry(self, epoch: Epoch, entry: Entry, usable: set[int]) -> None:
        """Let writers keep an epoch under the ring that was read now, if it still has its key."""
        version = epoch.version
        if version == entry.ring.primary and version in usable and version in entry.keys:
            epoch.deadline = min(entry.deadline, epoch.expires)
        else:
            del self.epochs[entry.ring.tenant]

    def _unwrapped(self, entry: Entry, version: Version) -> HeldKey:
        # The flight before this one may have landed since this thread looked.
        held = entry.keys.get(version.version)
        if held is not None and self.now() < held.expires:
            return held
        tenant = entry.ring.tenant
        held = self._hold(self._unwrap(entry.ring, version))
        with self._lock:
            self._admit(entry, version.version, held)
            current = self.entries.get(tenant)
            if current is not None and version.version in _same_keys(entry.ring, current.ring):
                # The ring may have been read again while the KEK was asked.
                self._admit(current, version.version, held)
            self._trim(tenant)
        return held

    def _admit(self, entry: Entry, number: int, held: HeldKey) -> None:
        if number not in entry.keys and self.entries.get(entry.ring.tenant) is entry:
            self._held += 1
        entry.keys.pop(number, None)  # what was unwrapped last stands last
        entry.keys[number] = held

    def _trim(self, keep: str) -> None:
        """Drop the entries that were put longest ago: past their time, or over the bound."""
        while True:
            oldest = next((tenant for tenant in self.entries if tenant != keep), None)
            if oldest is None:
                self._trim_one(keep)
                return
            if not (self._is_over() or self._is_past(self.entries[oldest])):
                return
            dropped = self.entries.pop(oldest)
            dropped.openers.clear()
            self._held -= len(dropped.keys)
            self.epochs.pop(oldest, None)

    def _trim_one(self, tenant: str) -> None:
        """Hold one tenant that has more versions in use than all may have to the bound."""
        entry = self.entries.get(tenant)
        while entry is not None and self._is_over() and len(entry.keys) > 1:
            number = next(iter(entry.keys))
            del entry.keys[number]
            self._held -= 1
            for prefix in [p for p, opener in entry.openers.items() if opener.version == number]:
                del entry.openers[prefix]

    def _is_over(self) -> bool:
        return max(self._held, len(self.entries)) > self._max_keys

    def _is_outdated(self, ring: Ring) -> bool:
        return ring.sequence < self._seen(ring.tenant)

    def _is_past(self, entry: Entry) -> bool:
        now = self.now()
        return now >= entry.deadline and all(now >= held.expires for held in entry.keys.values())

    def _hold(self, material: KeyMaterial) -> HeldKey:
        return HeldKey(material, self.now() + self._jittered(self._key_ttl))

    def _jittered(self, ttl: float) -> float:
        return ttl * (1 - _JITTER * int.from_bytes(os.urandom(2), "big") / 0xFFFF)


def _same_keys(before: Ring, now: Ring) -> set[int]:
    """Return the versions enabled now that hold the key they held before."""
    if before.ring_id != now.ring_id:
        return set()
    checks = {version.version: version.check for version in before.versions}
    return {
        version.version
        for version in now.versions
        if version.state == "enabled" and checks.get(version.version) == version.check
    }
