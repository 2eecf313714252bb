"""Erasing what KV keeps of a ring that was saved over or deleted."""

from __future__ import annotations

from sentra_kms.hooktypes import Remainder
from sentra_kms_vault.kv_paths import KvPaths

_BACKUPS = Remainder("snapshots and backups of Vault's storage, if there are any", None)


def purge(paths: KvPaths, tenant: str, newest: int) -> list[Remainder]:
    """Destroy every version below `newest`, the live ring or a tombstone; say what remains.

    Nothing at or above it is touched: a save that comes while this runs makes a higher version, and
    what it replaced is the next purge's. Numbers only rise, so that what was below the newest once
    is so for ever; unless an operator deletes the metadata while this runs.
    """
    known = paths.metadata(tenant)
    old = [
        number
        for number, fate in sorted(known.versions.items() if known else ())
        if number < newest and not fate.destroyed
    ]
    if old:
        paths.destroy(tenant, old)
    return [_BACKUPS]
