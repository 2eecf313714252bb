"""Keys destroyed: wraps erased from the live ring, what else held them erased or reported.

A key is beyond recovery only when every stored revision and every backup that holds a wrap of it
is gone, or every KEK version that wrapped it is destroyed. So each operation here says what it
knows to remain, where, and until when.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import msgspec

from sentra_kms.errors import KMSError, MalformedInput, UnsupportedOperation, afresh
from sentra_kms.events import current_actor
from sentra_kms.keys import states
from sentra_kms.keys.changes import Rings
from sentra_kms.keys.receipt import Operation, Remains, make_receipt
from sentra_kms.keys.ring import Ring, format_time
from sentra_kms.keys.store import Loaded
from sentra_kms.settings import DEFAULT_POLICY
from sentra_kms.tenant import check_tenant


class Destroyed(msgspec.Struct, frozen=True):
    """What was destroyed of one tenant, and what may still hold wraps of it."""

    tenant: str
    versions: tuple[int, ...]
    remains: tuple[Remains, ...]


class DestroyReport(msgspec.Struct, frozen=True):
    """What `destroy_due` did; `failed` has, by tenant, why nothing was destroyed there."""

    destroyed: tuple[Destroyed, ...]
    failed: dict[str, KMSError]


class Shredded(msgspec.Struct, frozen=True):
    """A tenant's end. `receipt` is for the evidence file; `docs/spec/receipt.md` specifies it."""

    destroyed: Destroyed
    receipt: bytes


class Destruction:
    """Destroys what is due, or all of a tenant. `clock` gives seconds since the epoch.

    `replace` takes each ring as it was saved, so that this process obeys it at once. `staleness`
    returns for how many seconds other processes may still hold a key.
    """

    def __init__(
        self,
        rings: Rings,
        *,
        clock: Callable[[], float],
        replace: Callable[[Ring], object],
        staleness: Callable[[], float],
    ) -> None:
        self._rings = rings
        self._clock = clock
        self._replace = replace
        self._staleness = staleness

    def due(self) -> DestroyReport:
        """Destroy every scheduled version whose time has come, tenant by tenant."""
        destroyed: list[Destroyed] = []
        failed: dict[str, KMSError] = {}
        for tenant in self._rings.store.tenants():
            try:
                found = self._of(tenant)
            except KMSError as error:
                failed[tenant] = afresh(error)
                continue
            if found is not None:
                destroyed.append(found)
        return DestroyReport(tuple(destroyed), failed)

    def all_of(self, tenant: str, confirm: str, operation: Operation) -> Shredded:
        """Destroy every version of a tenant."""
        check_tenant(tenant)
        if confirm != tenant:
            raise MalformedInput(
                f"to {operation} a tenant, confirm it by its id: confirm='{tenant}'",
                subject=tenant,
            )
        before: Loaded | None = None

        def change(loaded: Loaded) -> Ring | None:
            nonlocal before
            if operation == "revoke" and loaded.ring.policy == DEFAULT_POLICY:
                raise UnsupportedOperation(
                    f"tenant '{tenant}' follows the default policy and has no KEK of its own to "
                    "revoke: shred it",
                    subject=tenant,
                )
            self._receipt(operation, loaded.ring, loaded.ring, ())  # what keeps one from being made
            after = states.shredded(loaded.ring)
            if after is not None or before is None:
                before = loaded  # not the ring as this very call left it, if the answer was lost
            return after

        ring = self._rings.change(tenant, change)
        assert before is not None  # noqa: S101 - `change` was called, or it would have raised
        self._replace(ring)
        remains = self._remains(before.ring, ring)
        numbers = tuple(version.version for version in ring.versions)
        receipt = self._receipt(operation, before.ring, ring, remains)
        return Shredded(Destroyed(tenant, numbers, remains), receipt)

    def _receipt(
        self, operation: Operation, before: Ring, after: Ring, remains: tuple[Remains, ...]
    ) -> bytes:
        acting = current_actor()
        return make_receipt(
            self._rings.store.authenticator,
            operation,
            before,
            after.sequence,
            time=self._clock(),
            actor=acting.name if acting else None,
            request=acting.request_id if acting else None,
            remains=remains,
        )

    def _of(self, tenant: str) -> Destroyed | None:
        before: Loaded | None = None
        numbers: tuple[int, ...] = ()

        def change(loaded: Loaded) -> Ring | None:
            nonlocal before, numbers
            versions = states.due(loaded.ring, self._clock())
            if not versions:
                return None  # after a lost answer: what was due is destroyed, or was taken back
            before, numbers = loaded, tuple(version.version for version in versions)
            return states.destroyed(loaded.ring, versions)

        ring = self._rings.change(tenant, change)
        gone = {each.version for each in ring.versions if each.state == "destroyed"}
        numbers = tuple(number for number in numbers if number in gone)
        if before is None or not numbers:
            if gone:
                self._rings.store.purge(ring)  # what a run that was stopped did not come to
            return None
        self._replace(ring)
        return Destroyed(tenant, numbers, self._remains(before.ring, ring))

    def _remains(self, before: Ring, after: Ring) -> tuple[Remains, ...]:
        """Erase what else holds the wraps that are gone, and tell what is left."""
        until: str | None = None
        with suppress(OverflowError, ValueError):  # beyond the calendar is for ever
            until = format_time(self._clock() + self._staleness())
        gone = {each.version for each in after.versions if each.state == "destroyed"}
        keks = {
            f"{wrap.kek} (key id {wrap.key_id}"
            + (f", version {wrap.key_version})" if wrap.key_version else ")")
            for version in before.versions
            if version.version in gone
            for wrap in version.wraps
        }
        found = [
            Remains(
                "memory of processes that hold the keys: they use them until then at the latest, "
                "and hold them until they next look at the tenant, or end",
                until,
            )
        ]
        found += self._rings.store.purge(after)
        if keks:
            found.append(
                Remains(
                    "backups of the ring made before, as long as these can unwrap: "
                    + ", ".join(sorted(keks)),
                    None,
                )
            )
        return tuple(found)
