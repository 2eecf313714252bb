"""Keys destroyed: wraps erased from the live ring, what else held them erased or reported.

A key is beyond recovery only when every stored revision and every backup that holds a wrap of it
is gone, or every KEK version that wrapped it is destroyed. So each operation here says what it
knows to remain, where, and until when.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import msgspec

from sentra_kms.errors import (
    KMSError,
    MalformedInput,
    PluginError,
    ServiceUnavailable,
    UnsupportedOperation,
    afresh,
)
from sentra_kms.events import current_actor
from sentra_kms.keys import states
from sentra_kms.keys.changes import Change, Rings
from sentra_kms.keys.receipt import Operation, Remains, make_receipt
from sentra_kms.keys.ring import Ring, Version, format_time
from sentra_kms.keys.store import Loaded
from sentra_kms.settings import DEFAULT_POLICY
from sentra_kms.tenant import check_tenant

_MAX_PLACES = 64  # that the stores tell of, so that a receipt stays within its bound
_MAX_TOLD = 1024  # characters of an actor's name, a request id or a store's text, in a receipt


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
        # All names first: a list that breaks off may not cost the report of what was destroyed.
        for tenant in tuple(self._rings.store.tenants()):
            try:
                found = self._of(tenant)
            except KMSError as error:
                failed[tenant] = afresh(error)
                continue
            except BaseException:  # who interrupts this gets no report
                _warn(destroyed)
                raise
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
        before: list[Loaded] = []  # as it was last with its wraps

        def change(loaded: Loaded) -> Ring | None:
            # This call's own save may have come in between, its answer lost.
            if not before or any(version.wraps for version in loaded.ring.versions):
                before[:] = [loaded]
            if operation == "revoke" and loaded.ring.policy == DEFAULT_POLICY:
                raise UnsupportedOperation(
                    f"tenant '{tenant}' follows the default policy and has no KEK of its own to "
                    "revoke: shred it",
                    subject=tenant,
                )
            return states.shredded(loaded.ring)

        ring = self._change(tenant, change)
        self._replace(ring)
        acting = current_actor()
        remains = self._remains(before[0].ring, ring)
        numbers = tuple(version.version for version in ring.versions)
        return Shredded(
            Destroyed(tenant, numbers, remains),
            make_receipt(
                self._rings.store.authenticator,
                operation,
                before[0].ring,
                ring.sequence,
                time=self._clock(),
                actor=_told(acting.name) if acting else None,
                request=_told(acting.request_id) if acting else None,
                remains=remains,
            ),
        )

    def _of(self, tenant: str) -> Destroyed | None:
        due: list[tuple[Ring, tuple[Version, ...]]] = []

        def change(loaded: Loaded) -> Ring | None:
            versions = states.due(loaded.ring, self._clock())
            if not versions:
                return None  # also when this call destroyed them, and the answer was lost
            due[:] = [(loaded.ring, versions)]
            return states.destroyed(loaded.ring, versions)

        ring = self._change(tenant, change)
        for before, versions in due:
            numbers = tuple(each.version for each in versions if _is_destroyed(ring, each.version))
            if numbers:  # else somebody took it back in time
                self._replace(ring)
                return Destroyed(tenant, numbers, self._remains(before, ring))
        if any(version.state == "destroyed" for version in ring.versions):
            self._rings.store.purge(ring)  # what a run that was stopped did not come to
        return None

    def _change(self, tenant: str, change: Change) -> Ring:
        """Change a ring, also where no more than the answer is lost: what is gone is told."""
        try:
            return self._rings.change(tenant, change)
        except (PluginError, ServiceUnavailable) as error:
            failure = afresh(error)
        with suppress(KMSError):
            loaded = self._rings.store.load(tenant)
            if change(loaded) is None:
                return loaded.ring
        raise failure

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
        places = self._rings.store.purge(after)
        found += (
            Remains(_told(each.where) or "a place without a name", each.until)
            for each in places[:_MAX_PLACES]
        )
        if len(places) > _MAX_PLACES:
            found.append(Remains(f"{len(places) - _MAX_PLACES} places more of the stores", None))
        # The ring does not say what wrapped it before a rewrap, nor do its destroyed versions.
        backups = (
            "backups of the ring made before, as long as a KEK that wrapped it then can unwrap"
        )
        last = f"; in the end that was {', '.join(sorted(keks))}" if keks else ""
        found.append(Remains(backups + last, None))
        return tuple(found)


def _is_destroyed(ring: Ring, number: int) -> bool:
    version = ring.find(number)
    return version is not None and version.state == "destroyed"


def _told(text: str | None) -> str | None:
    """Return text as a receipt can hold it: the keys are gone, and it must not fail any more."""
    if not text:
        return None
    return text[:_MAX_TOLD].encode("utf-8", "backslashreplace").decode("utf-8")


def _warn(destroyed: list[Destroyed]) -> None:
    import logging

    for each in destroyed:
        logging.getLogger("sentra_kms.keys").warning(
            "destroy_due was interrupted after it had destroyed of '%s': version %s",
            each.tenant,
            ", ".join(map(str, each.versions)),
        )
