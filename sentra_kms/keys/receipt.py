"""Receipts of keys destroyed: what, under which KEKs it had been wrapped, and what remains.

Specified in `docs/spec/receipt.md`: one line of canonical JSON, then 32 bytes of MAC under the
ring's authentication key, so that a receipt in an evidence file can be told from one made up.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from itertools import pairwise
from typing import Annotated, Literal, NoReturn

import msgspec
from msgspec import Meta

from sentra_kms.errors import MalformedInput
from sentra_kms.keys.document import MAC_SIZE, Authenticator
from sentra_kms.keys.ring import (
    CHECK_SIZE,
    Number,
    Ring,
    Text,
    format_time,
    parse_time,
)
from sentra_kms.reference import BACKEND_NAME
from sentra_kms.tenant import is_tenant

FORMAT = 1
MAX_RECEIPT = 1024 * 1024  # bytes; what a full ring gives has less
Operation = Literal["shred", "revoke"]
_HOUR = "(?:[01][0-9]|2[0-3])"
Time = Annotated[
    str, Meta(pattern=rf"\A[0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}}T{_HOUR}:[0-9]{{2}}:[0-9]{{2}}Z\Z")
]
Kek = Annotated[str, Meta(pattern=rf"\A{BACKEND_NAME}:(?s:.)")]


class ReceiptWrap(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A wrap that was erased: the KEK's name, and its id and version as its service had them."""

    kek: Kek
    key_id: Text
    key_version: Text | None


class ReceiptVersion(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A key version that was destroyed. `check` tells whether a key that turns up is this one."""

    version: Number
    check: bytes
    wraps: tuple[ReceiptWrap, ...]


class Remains(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A place that may still hold wraps, and until when; `None`: until somebody erases it."""

    where: Text
    until: Time | None


class Receipt(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a receipt says. `ring_id` and `auth_id` are hex; times are RFC 3339 in UTC."""

    format: int
    auth_id: Annotated[str, Meta(pattern=r"\A[0-9a-f]{16}\Z")]
    operation: Operation
    tenant: str
    ring_id: Annotated[str, Meta(pattern=r"\A[0-9a-f]{24}\Z")]
    sequence: Annotated[int, Meta(ge=1, le=2**63 - 1)]
    policy: Text
    time: Time
    actor: Text | None
    request: Text | None
    versions: tuple[ReceiptVersion, ...]
    remains: tuple[Remains, ...]


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Receipt)
_format_decoder = msgspec.json.Decoder(dict[str, msgspec.Raw])


def make_receipt(
    authenticator: Authenticator,
    operation: Operation,
    before: Ring,
    sequence: int,
    *,
    time: float,
    actor: str | None,
    request: str | None,
    remains: Sequence[Remains],
) -> bytes:
    """Return the receipt for the versions of a ring.

    `before` is the ring as it was last with its wraps, `sequence` that of the save that erased
    them, `time` seconds since the epoch. Raises `MalformedInput` for text that JSON cannot hold.
    """
    key = authenticator.signer()
    receipt = Receipt(
        format=FORMAT,
        auth_id=key.auth_id,
        operation=operation,
        tenant=before.tenant,
        ring_id=before.ring_id.hex(),
        sequence=sequence,
        policy=before.policy,
        time=format_time(time),
        actor=actor,
        request=request,
        versions=tuple(
            ReceiptVersion(
                version.version,
                version.check,
                tuple(
                    ReceiptWrap(wrap.kek, wrap.key_id, wrap.key_version) for wrap in version.wraps
                ),
            )
            for version in before.versions
        ),
        remains=tuple(remains),
    )
    line = _encode(receipt)
    _decode(line)  # what no reader would accept is not handed out
    made = line + key.mac_under("receipt-mac/v1", receipt.tenant, line)
    if len(made) > MAX_RECEIPT:
        _malformed(f"it would have more than {MAX_RECEIPT} bytes")
    return made


def verify_receipt(authenticator: Authenticator, data: bytes) -> Receipt:
    """Return what an authentic receipt says.

    Raises `MalformedInput` for what is no receipt, and `RingRejected` for one that was changed or
    that a key made which is not configured.
    """
    if not isinstance(data, bytes):  # whatever annotations promise
        _malformed(f"it is {type(data).__name__} and not bytes")
    if len(data) > MAX_RECEIPT:
        _malformed(f"it has more than {MAX_RECEIPT} bytes")
    line, mac = data[:-MAC_SIZE], data[-MAC_SIZE:]
    if not line.endswith(b"\n") or line.count(b"\n") != 1:
        _malformed("it is not one line and 32 bytes after it: truncated, edited, or another file")
    receipt = _decode(line)
    authenticator.verify_mac(
        "receipt-mac/v1",
        receipt.tenant,
        receipt.auth_id,
        line,
        mac,
        what=f"the receipt of '{receipt.tenant}'",
    )
    return receipt


def _encode(receipt: Receipt) -> bytes:
    with suppress(ValueError):  # a lone surrogate
        return _encoder.encode(receipt) + b"\n"
    _malformed("it would hold text that JSON cannot")


def _decode(line: bytes) -> Receipt:
    failure: str
    try:
        receipt = _decoder.decode(line)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        failure = _explain(line, str(error))
    else:
        failure = _fault(receipt) or ""
        if not failure and _encode(receipt) != line:
            failure = "its JSON is not canonical"
        if not failure:
            return receipt
    _malformed(failure)


def _fault(receipt: Receipt) -> str | None:
    """Return which rule a receipt breaks that its types do not hold, `None` if none."""
    if receipt.format != FORMAT:
        return f"its format is {receipt.format}, this version reads {FORMAT}: upgrade sentra_kms"
    if not is_tenant(receipt.tenant):
        return "its tenant is no tenant id"
    numbers = [version.version for version in receipt.versions]
    if not numbers or any(before >= after for before, after in pairwise(numbers)):
        return "it names no version, or its versions do not ascend"
    if any(len(version.check) != CHECK_SIZE for version in receipt.versions):
        return f"a check value has not {CHECK_SIZE} bytes"
    for time in (receipt.time, *(each.until for each in receipt.remains)):
        if time is not None and parse_time(time) is None:
            return "it has a time that is no date"
    return None


def _explain(line: bytes, error: str) -> str:
    with suppress(msgspec.MsgspecError, ValueError, RecursionError):
        found = _format_decoder.decode(line).get("format")
        if found is not None and bytes(found) != str(FORMAT).encode("ascii"):
            return f"its format is not {FORMAT}, the one that this version reads"
    return error


def _malformed(why: str) -> NoReturn:
    raise MalformedInput(f"this is no receipt: {why}")
