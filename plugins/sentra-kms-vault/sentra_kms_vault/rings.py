"""Key rings in an engine KV version 2, one path a tenant, changed by check-and-set."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from typing import TypeVar

from sentra_kms import (
    Conflict,
    KMSError,
    RingRejected,
    ServiceUnavailable,
    TenantNotFound,
)
from sentra_kms.hookspecs import PartHooks, RingHistoryHooks, RingHooks, hookimpl
from sentra_kms.hooktypes import Finding, Remainder, RingPage, StoredRing
from sentra_kms.tenant import check_tenant, is_tenant
from sentra_kms_vault import ring_check, ring_history
from sentra_kms_vault.failures import Refused, ask, refused
from sentra_kms_vault.kv_form import MAX_DOCUMENT, form_of_ring, ring_of
from sentra_kms_vault.kv_paths import KvPaths, Superseded, Version
from sentra_kms_vault.ring_mount import RingMount
from sentra_kms_vault.settings import RingSettings
from sentra_kms_vault.tombstones import bury, marked
from sentra_kms_vault.transport import ANSWER_LIMIT
from sentra_kms_vault.vault import Vault

_T = TypeVar("_T")

LIST_LIMIT = 16 * 1024 * 1024
"""Bytes of the longest list of names: some 130,000 of the longest ids, a million of short ones."""
_RESERVE = 0.2  # of a page's time, kept for the answer that is under way
_CREATIONS = 4
"""How often to try to create over a tombstone that others write over, and delete again."""


class Rings(RingHooks, RingHistoryHooks, PartHooks):
    """A revision is the number of a version of KV, which only rises: metadata is never deleted."""

    def __init__(self, vault: Vault, settings: RingSettings) -> None:
        self._vault = vault
        self._mount = RingMount(vault.name, settings.mount, vault.mounts)
        self._prefix = settings.prefix

    @hookimpl
    def load_ring(self, tenant: str, timeout: float) -> StoredRing:
        """Read a ring, in one request.

        A version that was deleted or destroyed in Vault is no missing ring but `RingRejected`: the
        ring may be restored, and until then none may be made in its place.
        """
        check_tenant(tenant)

        def use(paths: KvPaths) -> StoredRing:
            found, document = _newest(paths, tenant)
            if found is None or document is None:
                raise _absent(tenant)
            return StoredRing(document, str(found.number))

        return self._ask(f"to load the ring of '{tenant}'", use, timeout)

    @hookimpl
    def save_ring(self, tenant: str, document: bytes, expected: str | None, timeout: float) -> str:
        """Write a version over the expected one, or the first one; return its number.

        The number is given by Vault, under its own lock, and no other save can have it.
        """
        check_tenant(tenant)
        if len(document) > MAX_DOCUMENT:
            raise RingRejected(f"the ring of '{tenant}' is full: {MAX_DOCUMENT} bytes is its bound")
        fields = form_of_ring(document, _name_of_a_save())

        def use(paths: KvPaths) -> int:
            if expected is None:
                return _create(paths, tenant, fields)
            try:
                return paths.write(tenant, fields, _number(tenant, expected))
            except Superseded:
                pass
            raise _conflict(tenant)

        return str(self._ask(f"to save the ring of '{tenant}'", use, timeout))

    @hookimpl
    def delete_ring(self, tenant: str, expected: str, timeout: float) -> None:
        """Write a tombstone over the expected version.

        What is there is read first, so that nothing is marked as deleted that is another version,
        or no ring; the tombstone's own check-and-set decides against others that come between.
        """
        check_tenant(tenant)

        def use(paths: KvPaths) -> None:
            over = _number(tenant, expected)
            if _live(paths, tenant) != over:
                raise _conflict(tenant)
            try:
                bury(paths, tenant, over, _name_of_a_save())
            except Superseded:
                pass
            else:
                return
            _live(paths, tenant)
            raise _conflict(tenant)

        self._ask(f"to delete the ring of '{tenant}'", use, timeout)

    @hookimpl
    def list_rings(self, cursor: str | None, limit: int, timeout: float) -> RingPage:
        """List tenants in the order of their ids; the cursor is the last id that was looked at.

        Vault knows no pages: it is asked for all names each time. What is no tenant id is passed
        over. A page ends early when reading those that may be deleted leaves little time, so that a
        listing comes to its end however many they are.
        """

        def use(paths: KvPaths) -> RingPage:
            names = sorted(
                name
                for name in paths.names()
                if is_tenant(name) and (cursor is None or name > cursor)
            )
            doubtful = marked(paths) if names else frozenset[str]()
            tenants: list[str] = []
            seen = 0
            for name in names[:limit]:
                if name not in doubtful or not _is_deleted(paths, name):
                    tenants.append(name)
                seen += 1
                if name in doubtful and not paths.allows(timeout * _RESERVE):
                    break
            return RingPage(tuple(tenants), names[seen - 1] if seen < len(names) else None)

        return self._ask("to list key rings", use, timeout, limit=LIST_LIMIT)

    @hookimpl
    def purge_ring_history(self, tenant: str, timeout: float) -> list[Remainder]:
        """Destroy every version but the newest, if that is the live ring or a tombstone.

        Where it is neither, an earlier version may be the one copy of the ring that is left:
        `RingRejected`.
        """
        check_tenant(tenant)

        def use(paths: KvPaths) -> list[Remainder]:
            newest, _ = _newest(paths, tenant)
            return ring_history.purge(paths, tenant, 0 if newest is None else newest.number)

        return self._ask(f"to purge the history of the ring of '{tenant}'", use, timeout)

    @hookimpl
    def check(self, timeout: float) -> list[Finding]:
        """Look at the mount, its configuration, and that of some rings."""
        call = self._vault.call(timeout, limit=LIST_LIMIT)
        paths = KvPaths(call, self._mount, self._prefix)
        return ring_check.look(paths, self._mount.mount, self._prefix, self._special)

    def _ask(
        self, what: str, use: Callable[[KvPaths], _T], timeout: float, limit: int = ANSWER_LIMIT
    ) -> _T:
        call = self._vault.call(timeout, limit=limit)
        return ask(
            what,
            lambda: use(KvPaths(call, self._mount, self._prefix)),
            missing=TenantNotFound,
            special=self._special,
        )

    def _special(self, refusal: Refused) -> KMSError | None:
        """Tell what the status alone does not; a wrong mount is never a missing ring."""
        if refusal.says("no handler for route", "unsupported path"):
            return self._mount.refuse("no such engine is mounted there")
        if refusal.status == 404 and refusal.texts:
            return refused(refusal, "this", missing=TenantNotFound, kind=ServiceUnavailable)
        if refusal.says("upgrading from non-versioned"):
            return ServiceUnavailable("Vault is making the engine versioned: try again")
        if refusal.says("too large"):
            return RingRejected(
                "the key ring is larger than Vault's storage takes: raise its max_entry_size, or "
                "destroy versions that nothing needs"
            )
        return None


def _create(paths: KvPaths, tenant: str, fields: dict[str, object]) -> int:
    """Write the first version, or one over a tombstone. Only a tombstone is ever written over.

    Of many that find the same tombstone one writes over it, and the others find its ring.
    """
    over = 0
    for _ in range(_CREATIONS):
        try:
            return paths.write(tenant, fields, over)
        except Superseded:
            pass
        found, document = _newest(paths, tenant)
        if document is not None:
            break
        over = 0 if found is None else found.number
    raise _conflict(tenant)


def _newest(paths: KvPaths, tenant: str) -> tuple[Version | None, bytes | None]:
    """Return the newest version, if there is one, and the ring in it, if it is no tombstone."""
    found = paths.read(tenant)
    if found is None:
        return None, None
    where = f"version {found.number} of {paths.shown(tenant)}"
    if found.fields is None:
        raise _deleted_in_vault(tenant, where, destroyed=found.destroyed)
    return found, ring_of(found.fields, where)


def _live(paths: KvPaths, tenant: str) -> int:
    """Return the number of the version that is the live ring."""
    found, document = _newest(paths, tenant)
    if found is None or document is None:
        raise _absent(tenant)
    return found.number


def _is_deleted(paths: KvPaths, tenant: str) -> bool:
    """Whether the newest version is a tombstone; what is no ring is listed, so that it is seen."""
    try:
        _, document = _newest(paths, tenant)
    except RingRejected:
        return False
    return document is None


def _number(tenant: str, revision: str) -> int:
    """Return the version that a revision names; what is none of ours is of no ring's."""
    if re.fullmatch(r"[1-9][0-9]{0,17}", revision) is None:
        raise _conflict(tenant)
    return int(revision)


def _name_of_a_save() -> str:
    return os.urandom(16).hex()


def _absent(tenant: str) -> TenantNotFound:
    return TenantNotFound(f"tenant '{tenant}' has no key ring in Vault: create it first")


def _conflict(tenant: str) -> Conflict:
    return Conflict(f"the ring of '{tenant}' was saved by somebody else: read it again")


def _deleted_in_vault(tenant: str, where: str, *, destroyed: bool) -> RingRejected:
    if destroyed:
        return RingRejected(
            f"the ring of '{tenant}' was destroyed in Vault ({where}): put an earlier version back "
            "with `vault kv rollback`; or, to give it up, `vault kv metadata delete` its path, and "
            "restore a backup"
        )
    return RingRejected(
        f"the ring of '{tenant}' was deleted in Vault ({where}), by somebody or by "
        "delete_version_after: bring it back with `vault kv undelete -versions=N`"
    )
