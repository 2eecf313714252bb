"""Erasing what KV keeps of a ring that was saved over or deleted."""

from __future__ import annotations

from sentra_kms.hooktypes import Remainder
from sentra_kms_vault.kv_paths import KvPaths

_BACKUPS = Remainder("snapshots and backups of Vault's storage, if there are any", None)


def purge(paths: KvPaths, tenant: str) -> list[Remainder]:
    """Destroy every version below the newest; say what remains.

    The newest is the live ring, or a tombstone with no key in it. Nothing at or above it is
    touched: a save that comes while this runs makes a higher version, and what it replaced is the
    next purge's. Numbers only rise, so that what was below the newest once is so for ever.

    A newest version that was deleted in Vault can be undeleted, and it is not ours to destroy the
    one copy of a ring that somebody may want back: it is told as what remains.
    """
    known = paths.metadata(tenant)
    if known is None:
        return [_BACKUPS]
    old = [
        number
        for number, fate in sorted(known.versions.items())
        if number < known.current_version and not fate.destroyed
    ]
    if old:
        paths.destroy(tenant, old)
    newest = paths.read(tenant)
    if newest is None or newest.fields is not None or newest.destroyed:
        return [_BACKUPS]
    return [
        Remainder(
            f"version {newest.number} of {paths.shown(tenant)}, which was deleted in Vault and can "
            "be undeleted until it is destroyed",
            None,
        ),
        _BACKUPS,
    ]
