"""Wraps of the local backend: only the one that was made opens, as for the independent reader.

The first byte cuts the input into a key id and a wrap. The wrap `*` stands for the good one, which
the bytes after it then overwrite from the place that the next byte names.
"""

from __future__ import annotations

from sentra_kms.backends.master_key import MasterKey
from sentra_kms.context import WrapContext
from sentra_kms.errors import DecryptionFailed, KeyNotFound
from sentra_kms.hooktypes import WrappedKey
from sentra_kms.material import KeyMaterial
from tests.fuzz import text_of
from tests.reader import reader, writer

MASTER = bytes(range(32))
TENANT_KEY = bytes(range(32, 64))
WHERE = WrapContext("acme", bytes(range(12)), 1)
OURS = MasterKey(KeyMaterial(MASTER))
THEIRS = reader.MasterKey.read(MASTER)
GOOD = writer.wrap_local(THEIRS, TENANT_KEY, "acme", bytes(range(12)), 1, bytes(range(16)))


def run(data: bytes) -> None:
    """Try one key id and wrap."""
    size = data[0] % 32 if data else 0
    key_id = text_of(data[1 : 1 + size]) or OURS.key_id
    blob = data[1 + size :]
    if blob[:1] == b"*":
        place = blob[1] if len(blob) > 1 else len(GOOD)
        blob = GOOD[:place] + blob[2:] + GOOD[place + len(blob[2:]) :]
    try:
        theirs: object = reader.unwrap_local(THEIRS, key_id, blob, WHERE.canonical)
    except reader.ReadError as error:
        theirs = type(error).__name__
    try:
        ours: object = OURS.unwrap("local:a", WrappedKey(blob, key_id, None), WHERE).reveal()
    except (DecryptionFailed, KeyNotFound) as error:
        ours = type(error).__name__
        assert error.__cause__ is None
    assert ours == theirs
    assert (ours == TENANT_KEY) is (blob == GOOD and key_id == OURS.key_id)
