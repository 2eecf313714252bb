"""Rings read, changed and saved by compare-and-set, each under its policy."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping

import msgspec

from sentra_kms.context import WrapContext
from sentra_kms.errors import ConfigurationError, Conflict, KMSError, MalformedInput
from sentra_kms.keys.ring import Ring, Version, check_value, new_version
from sentra_kms.keys.store import Loaded, RingStore
from sentra_kms.keys.wrapping import Wrapping
from sentra_kms.material import KeyMaterial
from sentra_kms.settings import DEFAULT_POLICY, Policy

_SAVE_TIME = 30.0  # seconds over which a lost compare-and-set is tried again
_KEY_SIZE = 32
_MAX_REQUEST = 256  # characters of a request id

Change = Callable[[Loaded], Ring | None]
"""From a ring as it was read to the ring to save, `None` to leave it as it is."""


class Made(msgspec.Struct, frozen=True):
    """A new key, and the version that holds it."""

    version: Version
    key: KeyMaterial


class Plan(msgspec.Struct, frozen=True):
    """What the configuration says of keys: the store, and the KEKs of each policy."""

    store: RingStore
    policies: Mapping[str, Wrapping]


class Rings:
    """The rings of a plan, which another may replace while they are in use."""

    def __init__(self, plan: Plan, clock: Callable[[], float]) -> None:
        self.plan = plan
        self._clock = clock

    @property
    def store(self) -> RingStore:
        """Where the rings are."""
        return self.plan.store

    def wrapping(self, policy: str | None, tenant: str) -> Wrapping:
        """Return what wraps under a policy; `None` is the default one."""
        name = DEFAULT_POLICY if policy is None else policy
        found = self.plan.policies.get(name) if type(name) is str else None  # or unhashable
        if found is None:
            known = ", ".join(sorted(self.plan.policies))
            raise ConfigurationError(
                f"there is no policy '{name}', which '{tenant}' follows or should; the "
                f"configuration has {known}",
                subject=tenant,
            )
        return found

    def wrapping_anew(self, policy: str | None, tenant: str) -> Wrapping:
        """Return what `wrapping` does, for a tenant that is about to be put under the policy.

        Raises `ConfigurationError` if the tenant's id makes a KEK with `{tenant}` in its name one
        that the default policy names, and so everybody's, or one that the policy has besides.
        """
        found = self.wrapping(policy, tenant)
        shared = self.plan.policies[DEFAULT_POLICY].policy.unwrap_with
        taken = set(shared) | set(found.policy.wrap_with)
        for kek in found.policy.wrap_with:
            if kek.of(tenant) != kek and kek.of(tenant) in taken:
                raise ConfigurationError(
                    f"policy '{found.policy.name}' has '{kek}', and for tenant '{tenant}' that is "
                    f"'{kek.of(tenant)}', which the configuration names for others: name one of "
                    "the two otherwise",
                    subject=tenant,
                )
        return found

    def policy(self, ring: Ring) -> Policy | None:
        """Return a ring's policy, `None` if the configuration does not have it."""
        found = self.plan.policies.get(ring.policy)
        return None if found is None else found.policy

    def change(self, tenant: str, change: Change) -> Ring:
        """Read, change and save a ring; when somebody else saved first, all of it again."""
        return self.retried(lambda: self._change_once(tenant, change))

    def retried(self, attempt: Callable[[], Ring]) -> Ring:
        """Return what `attempt` does once no `Conflict` stops it; raises that after 30 s."""
        deadline = time.monotonic() + _SAVE_TIME
        pause = 0.001
        while True:
            try:
                return attempt()
            except Conflict:
                if time.monotonic() >= deadline:
                    raise
            time.sleep(pause * int.from_bytes(os.urandom(1), "big") / 255)
            pause = min(pause * 2, 0.1)

    def new_version(self, wrapping: Wrapping, where: WrapContext, request_id: str | None) -> Made:
        """Make a key and the version that holds it."""
        key = KeyMaterial(os.urandom(_KEY_SIZE))
        wrapped = wrapping.wrap(key, where)
        version = new_version(
            where.version,
            self._clock(),
            check_value(key, where),
            wrapped.wraps,
            request_id,
            wrapped.missing,
        )
        return Made(version, key)

    def _change_once(self, tenant: str, change: Change) -> Ring:
        loaded = self.store.settled(self.store.load(tenant))  # or this save would put it to use
        changed = change(loaded)
        if changed is None:
            return loaded.ring
        self.store.save(changed, loaded)
        return changed


def check_request(request_id: str) -> None:
    """Refuse what cannot be kept in a ring as a request's id."""
    try:
        valid = type(request_id) is str and bool(request_id.encode("utf-8"))
    except UnicodeEncodeError:
        valid = False
    if not valid or len(request_id) > _MAX_REQUEST:
        raise MalformedInput(f"a request id is text of 1 to {_MAX_REQUEST} characters")


class KeySource:
    """Where the cache gets rings and keys from: the rings of the plan as it is now."""

    def __init__(self, rings: Rings) -> None:
        self._rings = rings

    def load(self, tenant: str) -> tuple[Ring, str]:
        """Read and verify a ring; return it and where it was."""
        store = self._rings.store
        loaded = store.load(tenant)
        return loaded.ring, store.place(loaded)

    def failed_at(self, error: KMSError) -> str:
        """Return which store an error of `load` is of."""
        return self._rings.store.failed_at(error)

    def seen(self, tenant: str) -> int:
        """Return the highest sequence of a tenant's ring that was read or saved here."""
        return self._rings.store.seen(tenant)

    def unwrap(self, ring: Ring, version: Version) -> KeyMaterial:
        """Ask the KEKs of a ring's policy for a version's key."""
        wrapping = self._rings.wrapping(ring.policy, ring.tenant)
        return wrapping.unwrap(version, ring.where(version.version))

    def key_ttl(self, policy: str) -> float:
        """Return how long keys of a policy are held, in seconds; 0 for one that is gone."""
        found = self._rings.plan.policies.get(policy)
        return 0.0 if found is None else found.policy.key_ttl

    def is_out_of_reach(self, ring: Ring, version: Version) -> bool:
        """Whether every KEK that could unwrap a version failed a moment ago."""
        found = self._rings.plan.policies.get(ring.policy)
        return found is not None and found.is_out_of_reach(version, ring.tenant)
