"""Vectors of backups."""

from __future__ import annotations

import copy
from typing import Any

from tests.reader import writer
from tests.reader.reader import LAST_TIME, MAX_DOCUMENT, open_backup
from tests.vectors.fixed import AUTH_KEY, MASTERS, fixed, ring, ring_of_states, ring_shredded, sign

_KEY = MASTERS["local:k1"].auth_key
_ID = fixed("backup id", 16)
_TIME = 1_770_000_000


def pieces(data: bytes) -> list[Any]:
    """A file as a vector has it: hex, and long runs of spaces by their number."""
    found: list[Any] = []
    while data:
        start = data.find(b" " * 64)
        if start < 0:
            return [*found, data.hex()]
        after = data[start:].lstrip(b" ")
        found += [data[:start].hex(), {"fill": len(data) - start - len(after)}]
        data = after
    return found


def joined(found: list[Any]) -> bytes:
    """The bytes of a vector's file."""
    return b"".join(
        bytes.fromhex(piece) if isinstance(piece, str) else b" " * piece["fill"] for piece in found
    )


def backup_vectors() -> dict[str, Any]:
    """The content of `backup.json`."""
    return {
        "format": "backups, format 1",
        "auth_keys": {"local:k1": _KEY.hex(), "own": AUTH_KEY.hex()},
        "valid": _valid(),
        "invalid": _invalid(),
    }


def _record(index: int, tenant: str | bytes, document: bytes | None = None, **more: Any) -> bytes:
    """A record of the backup that all vectors are made from."""
    name = tenant.encode() if isinstance(tenant, str) else tenant
    if document is None:
        document = ring(name.decode()).document()
    fields: dict[str, Any] = {"auth_key": _KEY, "backup_id": _ID, "time": _TIME, "last": 0} | more
    return writer.backup_record(index=index, tenant=name, document=document, **fields)


def _one(**more: Any) -> bytes:
    return _record(0, "acme", **({"last": 1} | more))


def _valid() -> list[dict[str, Any]]:
    full = ring("full").document()
    cases: list[tuple[str, str, bytes]] = [
        ("one", "one tenant, the last record", _one()),
        ("three", "three tenants, of several versions, states and KEKs",
         _record(0, "acme", ring("acme", 3, keks=("local:k1", "local:k2")).document())
         + _record(1, "states", ring_of_states().document())
         + _record(2, "shredded", ring_shredded().document(), last=1)),
        ("case", "ids that differ in case, in no order",
         _record(0, "acme") + _record(1, "Acme") + _record(2, "0", last=1)),
        ("longest-tenant", "a tenant of 120 characters", _record(0, "T" * 120, last=1)),
        ("time-bounds", "the first second", _one(time=0)),
        ("time-last", "the last second", _one(time=LAST_TIME)),
        ("own-key", "records under an authentication key of its own, the ring under another",
         _one(auth_key=AUTH_KEY)),
        ("two-keys", "records under two keys",
         _record(0, "acme") + _record(1, "beta", last=1, auth_key=AUTH_KEY)),
        ("zero-id", "any backup id", _one(backup_id=bytes(16))),
        ("largest-ring", "a document of 256 KiB",
         _record(0, "full", _grown(full, MAX_DOCUMENT), last=1)),
    ]  # fmt: skip
    vectors = []
    for name, shows, data in cases:
        records = open_backup(data, [_KEY, AUTH_KEY])
        vectors.append(
            {
                "id": name,
                "shows": shows,
                "file": pieces(data),
                "backup_id": records[0].backup_id.hex(),
                "time": records[0].time,
                "tenants": [record.ring.tenant for record in records],
                "sequences": [record.ring.sequence for record in records],
            }
        )
    return vectors


def _grown(document: bytes, size: int) -> bytes:
    payload = document.partition(b"\n")[2]
    return writer.sign(_KEY, "full", payload + b" " * (size - len(document)))


def _changed(data: bytes, offset: int) -> bytes:
    offset %= len(data)
    return data[:offset] + bytes([data[offset] ^ 1]) + data[offset + 1 :]


def _invalid() -> list[dict[str, Any]]:
    one = _one()
    acme, beta = _record(0, "acme"), _record(1, "beta", last=1)
    other = fixed("another backup id", 16)
    moved = copy.deepcopy(ring("acme").payload) | {"moved_to": "vault"}
    full = ring("full").document()
    size = int.from_bytes(one[49:53], "big")
    malformed: list[tuple[str, str, bytes]] = [
        ("empty", "an empty file", b""),
        ("head-cut", "cut within the head of a record", one[:40]),
        ("tenant-cut", "cut within the tenant", one[:47]),
        ("ring-cut", "cut within the document", one[:100]),
        ("mac-cut", "cut within the MAC", one[:-1]),
        ("last-missing", "cut after a whole record that is not the last", acme),
        ("more", "a byte after the last record", one + b"\x00"),
        ("more-records", "a record after the last one", one + beta),
        ("magic", "wrong magic", _one(magic=b"SKW\x01")),
        ("format", "unknown format", _one(magic=b"SKB\x02")),
        ("last", "the mark of the last record is neither 0 nor 1", _one(last=2)),
        ("time", "a time after the year 9999", _one(time=LAST_TIME + 1)),
        ("tenant-empty", "no tenant", _record(0, b"", ring("acme").document(), last=1)),
        ("tenant-long", "a tenant of 121 bytes",
         _record(0, b"a" * 121, ring("acme").document(), last=1)),
        ("tenant-length", "a tenant of 4 GiB, says its length",
         one[:41] + b"\xff\xff\xff\xff" + one[45:]),
        ("tenant-rule", "a tenant that breaks the rule",
         _record(0, b"../a", ring("acme").document(), last=1)),
        ("tenant-latin", "a tenant that is not ASCII",
         _record(0, b"gr\xfcn", ring("acme").document(), last=1)),
        ("ring-empty", "no document", _one(document=b"")),
        ("ring-long", "a document of 256 KiB and a byte",
         _record(0, "full", _grown(full, MAX_DOCUMENT + 1), last=1)),
        ("ring-length", "a document of 4 GiB, says its length",
         one[:49] + b"\xff\xff\xff\xff" + one[53:]),
    ]  # fmt: skip
    rejected: list[tuple[str, str, bytes]] = [
        ("auth-id", "authenticated by a key that is not configured",
         _one(auth_key=fixed("a key of somebody else", 32))),
        ("mac-wrong", "an edited MAC", _changed(one, len(one) - 1)),
        ("mac-id", "an edited backup id", _changed(one, 4)),
        ("mac-index", "an edited index", _changed(one, 23)),
        ("mac-last", "the mark of the last record, edited: a shorter backup made of a longer one",
         _changed(acme, 24)),
        ("mac-time", "an edited time", _changed(one, 32)),
        ("mac-tenant", "an edited tenant", _changed(one, 48)),
        ("mac-ring", "an edited document", _changed(one, 53 + size - 1)),
        ("mac-key", "the MAC of another tenant's key",
         one[:-32] + _record(0, "beta", ring("acme").document(), last=1)[-32:]),
        ("other-backup", "a record of another backup",
         acme + _record(1, "beta", last=1, backup_id=other)),
        ("other-time", "a record of the same id and another time",
         acme + _record(1, "beta", last=1, time=_TIME + 1)),
        ("index-first", "the first record left out", beta),
        ("index-gap", "a record left out", acme + _record(2, "beta", last=1)),
        ("index-twice", "a record twice", acme + acme + beta),
        ("tenant-twice", "two records of one tenant", acme + _record(1, "acme", last=1)),
        ("ring-other", "the ring of another tenant",
         _one(document=ring("beta").document())),
        ("ring-other-named", "a ring signed for this tenant that names another",
         _one(document=writer.sign(_KEY, "acme", writer.to_json(ring("beta").payload)))),
        ("ring-edited", "a document whose own MAC is wrong",
         _one(document=_changed(ring("acme").document(), -2))),
        ("ring-payload", "a document whose payload breaks a rule",
         _one(document=sign("acme", ring("acme").payload | {"sequence": 0}))),
        ("ring-key", "a document that a key signed which is not configured",
         _one(document=writer.sign(
             fixed("a key of somebody else", 32), "acme", writer.to_json(ring("acme").payload)))),
        ("ring-moved", "the mark of a ring that moved", _one(document=sign("acme", moved))),
    ]  # fmt: skip
    return [
        {"id": name, "shows": shows, "file": pieces(data), "error": error}
        for error, cases in (("MalformedInput", malformed), ("RingRejected", rejected))
        for name, shows, data in cases
    ]
