"""Compare-and-set for the built-in stores: a revision is the hash of the stored bytes."""

from __future__ import annotations

from cryptography.hazmat.primitives.hashes import SHA256, Hash

from sentra_kms.errors import Conflict, TenantNotFound


def revision_of(document: bytes) -> str:
    """Return the revision of a stored document, SHA-256 in hex.

    Two documents of one ring never have the same bytes, since `sequence` rises with every save.
    """
    digest = Hash(SHA256())
    digest.update(document)
    return digest.finalize().hex()


def expect_revision(tenant: str, found: str | None, expected: str | None) -> None:
    """Raise `Conflict`, or `TenantNotFound`, unless the stored revision is the expected one."""
    if found == expected:
        return
    if found is None:
        raise TenantNotFound(f"the ring of '{tenant}' was deleted meanwhile")
    raise Conflict(f"the ring of '{tenant}' was saved by somebody else: read it again")
