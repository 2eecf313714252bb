"""The file of a backup: one record a tenant, each authenticated, none to be left out.

Specified in `docs/spec/backup.md`. A record has the stored ring as it is, so nothing in a backup
is unwrapped. Who reads all records to the end without an error has verified the file.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import BinaryIO, NoReturn

import msgspec

from sentra_kms.encoding import lp, u32
from sentra_kms.errors import MalformedInput, RingRejected
from sentra_kms.keys.document import AUTH_ID_SIZE, MAC_SIZE, MAX_DOCUMENT, Authenticator, AuthKey
from sentra_kms.keys.ring import Ring, decode
from sentra_kms.tenant import MAX_LENGTH, is_tenant

BACKUP_ID_SIZE = 16
_MAGIC = b"SKB"
_FORMAT = 1
_LAST_TIME = 253_402_300_799  # 9999-12-31T23:59:59Z
_HEAD_SIZE = len(_MAGIC) + 1 + BACKUP_ID_SIZE + 4 + 1 + 8 + AUTH_ID_SIZE


class Record(msgspec.Struct, frozen=True):
    """One tenant's ring in a backup. `time` is when the backup began, in seconds of the epoch."""

    backup_id: bytes
    time: int
    ring: Ring
    document: bytes


class _Head(msgspec.Struct, frozen=True):
    backup_id: bytes
    index: int
    last: bool
    time: int
    auth_id: str


def write_records(
    stream: BinaryIO,
    key: AuthKey,
    backup_id: bytes,
    time: int,
    documents: Iterable[tuple[str, bytes]],
) -> int:
    """Write a record for each tenant and its stored ring; return how many.

    Holds one record at a time. The last one says that it is, so none is written before the next
    is known to be there; without any, nothing is.
    """
    index = 0
    waiting: tuple[str, bytes] | None = None
    for found in documents:
        if waiting is not None:
            stream.write(_record(key, backup_id, index, time, waiting, last=False))
            index += 1
        waiting = found
    if waiting is None:
        return 0
    stream.write(_record(key, backup_id, index, time, waiting, last=True))
    return index + 1


def _record(
    key: AuthKey, backup_id: bytes, index: int, time: int, found: tuple[str, bytes], *, last: bool
) -> bytes:
    tenant, document = found
    body = b"".join(
        (
            _MAGIC,
            bytes([_FORMAT]),
            backup_id,
            u32(index),
            bytes([last]),
            time.to_bytes(8, "big"),
            bytes.fromhex(key.auth_id),
            lp(tenant),
            lp(document),
        )
    )
    return body + key.mac_under("backup-mac/v1", tenant, body)


def read_records(stream: BinaryIO, authenticator: Authenticator) -> Iterator[Record]:
    """Yield the records of a backup, each verified before it is yielded.

    Raises `MalformedInput` for what is no backup or not a whole one, and `RingRejected` for what
    was changed, put together from several, or authenticated by a key that is not configured.
    """
    first: _Head | None = None
    tenants: set[str] = set()
    while True:
        index = len(tenants)
        body = _exactly(stream, _HEAD_SIZE, index)
        head = _head(body, index)
        raw_tenant, raw_size = _prefixed(stream, MAX_LENGTH, index, "tenant")
        document, document_size = _prefixed(stream, MAX_DOCUMENT, index, "key ring")
        tenant = raw_tenant.decode("latin-1")
        if not is_tenant(tenant):
            _malformed(index, "its tenant is no tenant id")
        authenticator.verify_mac(
            "backup-mac/v1",
            tenant,
            head.auth_id,
            body + raw_size + raw_tenant + document_size + document,
            _exactly(stream, MAC_SIZE, index),
            what=f"the backup's record of '{tenant}'",
        )
        first = first or head
        if (head.backup_id, head.time) != (first.backup_id, first.time):
            _rejected(tenant, "it belongs to another backup")
        if head.index != index:
            _rejected(tenant, f"it is record {head.index} in the place of record {index}")
        if tenant in tenants:
            _rejected(tenant, "the tenant has a record before it")
        tenants.add(tenant)
        yield Record(head.backup_id, head.time, _ring(authenticator, tenant, document), document)
        if head.last:
            break
    if stream.read(1):
        raise MalformedInput("the backup is not valid: something stands after its last record")


def _head(body: bytes, index: int) -> _Head:
    start = len(_MAGIC)
    if body[:start] != _MAGIC:
        _malformed(index, "it does not begin like one: damaged, or another file")
    if body[start] != _FORMAT:
        _malformed(
            index, f"its format is {body[start]}, this version reads {_FORMAT}: upgrade sentra_kms"
        )
    rest = body[start + 1 :]
    number, last = rest[BACKUP_ID_SIZE : BACKUP_ID_SIZE + 4], rest[BACKUP_ID_SIZE + 4]
    if last > 1:
        _malformed(index, f"the mark of the last record is 0 or 1, and here {last}")
    time = int.from_bytes(rest[BACKUP_ID_SIZE + 5 : -AUTH_ID_SIZE], "big")
    if time > _LAST_TIME:
        _malformed(index, "its time is after the year 9999")
    return _Head(
        rest[:BACKUP_ID_SIZE],
        int.from_bytes(number, "big"),
        bool(last),
        time,
        rest[-AUTH_ID_SIZE:].hex(),
    )


def _prefixed(stream: BinaryIO, most: int, index: int, what: str) -> tuple[bytes, bytes]:
    """Read what has its length before it; return it and the length's bytes."""
    raw = _exactly(stream, 4, index)
    size = int.from_bytes(raw, "big")
    if not 0 < size <= most:
        _malformed(index, f"its {what} would have {size} bytes, {most} is the bound")
    return _exactly(stream, size, index), raw


def _exactly(stream: BinaryIO, size: int, index: int) -> bytes:
    data = stream.read(size)
    if len(data) != size:
        _malformed(index, "the file ends before its end: it was cut off, or is empty")
    return data


def _ring(authenticator: Authenticator, tenant: str, document: bytes) -> Ring:
    failure: RingRejected
    try:
        ring = decode(authenticator.verify(tenant, document), tenant)
    except RingRejected as error:
        failure = RingRejected(f"in the backup: {error.message}", subject=tenant)
    else:
        if ring.moved_to is None:
            return ring
        failure = RingRejected(
            f"in the backup: the ring of '{tenant}' is the mark of one that moved to "
            f"'{ring.moved_to}'",
            subject=tenant,
        )
    raise failure


def _malformed(index: int, why: str) -> NoReturn:
    raise MalformedInput(f"the backup is not valid at record {index}: {why}")


def _rejected(tenant: str, why: str) -> NoReturn:
    raise RingRejected(f"the backup's record of '{tenant}' was refused: {why}", subject=tenant)
