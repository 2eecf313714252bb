"""Rings that were deleted: a version that says so, over those that were the ring.

Neither of Vault's own deletions will do. A soft delete makes no version, so that it cannot be done
by check-and-set, and whoever held the revision could write over it. To delete the metadata makes
versions begin again at 1, so that a revision of an earlier life would be good in a later one. So a
tombstone is written over the ring's revision, like any save, and what came before it is left for
`purge_ring_history`.

A path with a tombstone is still listed by Vault. So that a listing need not read every ring, a
*marker* is written beside it, `PREFIX/.deleted/TENANT`, before the tombstone and never taken away:
only paths with a marker may have a tombstone, and only these are read. `.deleted` is no tenant.

After a kill between marker and tombstone the ring is live and has a marker: it is read, and listed,
when rings are. A delete may be tried again, and then finds its marker there. Of two deletes
both make the marker, which is the same, and one writes the tombstone. After a ring was created
again over its tombstone, the marker tells of the earlier life, and is right again after the next.
"""

from __future__ import annotations

from contextlib import suppress

from sentra_kms_vault.kv_form import form_of_tombstone
from sentra_kms_vault.kv_paths import KvPaths, Superseded

_FOLDER = ".deleted"


def bury(paths: KvPaths, tenant: str, over: int, save: str) -> None:
    """Mark a tenant as deleted once, and write a tombstone over a version of its ring.

    Raises `Superseded` if that is not the newest.
    """
    with suppress(Superseded):  # it is there, of this delete or of an earlier one
        paths.write(f"{_FOLDER}/{tenant}", form_of_tombstone(save), 0)
    paths.write(tenant, form_of_tombstone(save), over)


def marked(paths: KvPaths) -> frozenset[str]:
    """Return the tenants whose ring may have been deleted; all others were not.

    Asked after the names were listed: a tombstone that is written later is of a ring that was live
    when they were.
    """
    return frozenset(paths.names(_FOLDER))
