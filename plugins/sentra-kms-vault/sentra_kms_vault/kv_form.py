"""How a key ring, and its absence, stand in a version of KV."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping

from sentra_kms import RingRejected

MAX_DOCUMENT = 256 * 1024
"""Bytes of the largest ring; 349,528 in base64, below what every storage of Vault takes (1 MiB in
raft, 512 KiB in Consul)."""
_DOCUMENT = "document"
_DELETED = "deleted"
_SAVE = "save"


def form_of_ring(document: bytes, save: str) -> dict[str, object]:
    """Return the fields of a version that holds a ring.

    `save` is the name of this save alone: by it a writer whose answer was lost knows its own.

    >>> form_of_ring(b"sentra-ring", "6f")
    {'document': 'c2VudHJhLXJpbmc=', 'save': '6f'}
    """
    return {_DOCUMENT: base64.b64encode(document).decode("ascii"), _SAVE: save}


def form_of_tombstone(save: str) -> dict[str, object]:
    """Return the fields of a version that says that the ring before it was deleted."""
    return {_DELETED: True, _SAVE: save}


def is_of(save: object, fields: Mapping[str, object] | None) -> bool:
    """Whether a version was written by the save of that name."""
    return fields is not None and type(save) is str and fields.get(_SAVE) == save


def save_of(fields: Mapping[str, object]) -> object:
    """Return the name of the save that these fields are of."""
    return fields.get(_SAVE)


def ring_of(fields: Mapping[str, object], where: str) -> bytes | None:
    """Return the ring that a version holds, `None` for a tombstone; other fields are passed over.

    Raises `RingRejected` for what is neither: somebody else wrote it.

    >>> ring_of({"document": "c2VudHJhLXJpbmc="}, "secret/sentra/rings/acme")
    b'sentra-ring'
    >>> ring_of({"deleted": True}, "secret/sentra/rings/acme")
    """
    if _DOCUMENT not in fields and fields.get(_DELETED) is True:
        return None
    document = fields.get(_DOCUMENT)
    if (
        type(document) is str
        and _DELETED not in fields
        and len(document) <= MAX_DOCUMENT * 4 // 3 + 4
    ):
        found = _decoded(document)
        if found is not None and len(found) <= MAX_DOCUMENT:
            return found
    raise RingRejected(
        f"{where} in Vault is no key ring as sentra_kms writes it: somebody else wrote there. Put "
        "the version before it back with `vault kv rollback`"
    )


def _decoded(text: str) -> bytes | None:
    try:
        return base64.b64decode(text.encode("ascii"), validate=True)
    except (binascii.Error, ValueError):
        return None
