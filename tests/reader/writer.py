"""A deterministic writer, used only to make vectors: everything random is an argument.

Never use it for real data. A fixed salt and nonce are exactly what a real writer must not have.
"""

from __future__ import annotations

import base64
import json
from typing import Any

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from tests.reader.reader import (
    MasterKey,
    auth_id,
    check_value,
    derive,
    encode_context,
    end_mac,
    lp,
    message_keys,
    ring_mac,
    u32,
    wrap_context,
)


def header(ring_id: bytes, version: int, *, suite: int = 1) -> bytes:
    """The 20-byte header of a message."""
    return b"SK\x01" + bytes([suite]) + ring_id + u32(version)


def seal(
    key: bytes,
    tenant: str,
    ring_id: bytes,
    version: int,
    salt: bytes,
    nonce: bytes,
    plaintext: bytes,
    context: object = None,
) -> bytes:
    """A message of format 1, suite 1."""
    head = header(ring_id, version) + salt
    subkey, commitment = message_keys(key, tenant, head)
    sealed = AESGCM(subkey).encrypt(nonce, plaintext, encode_context(context))
    return head + commitment + nonce + sealed


def wrap_local(
    master: MasterKey, key: bytes, tenant: str, ring_id: bytes, version: int, salt: bytes
) -> bytes:
    """A tenant key wrapped by a master key."""
    context = wrap_context(tenant, ring_id, version)
    once = derive(master.prk, "local/wrap/v1", salt + lp(context), 44)
    return b"SKW\x01\x00" + salt + AESGCM(once[:32]).encrypt(once[32:], key, None)


def wrap_onetime(
    algorithm: int, once: bytes, encrypted: bytes, kek_version_id: str, key: bytes, context: bytes
) -> bytes:
    """A tenant key wrapped by a one-time key, which the KEK has encrypted already."""
    data = lp(kek_version_id.encode()) + lp(encrypted) + lp(context)
    out = derive(once, "wrap-onetime/v1", data, 44)
    sealed = AESGCM(out[:32]).encrypt(out[32:], key, None)
    return b"SKW\x01" + bytes([algorithm]) + len(encrypted).to_bytes(2, "big") + encrypted + sealed


def b64(data: bytes) -> str:
    """Standard base64 with padding."""
    return base64.b64encode(data).decode("ascii")


def wrap_record(kek: str, master: MasterKey, ciphertext: bytes) -> dict[str, Any]:
    """One element of a version's `wraps`."""
    return {
        "kek": kek,
        "key_id": master.key_id,
        "key_version": None,
        "ciphertext": b64(ciphertext),
    }


def version_record(
    key: bytes, tenant: str, ring_id: bytes, version: int, wraps: list[dict[str, Any]]
) -> dict[str, Any]:
    """One element of a ring's `versions`: enabled, generated."""
    return {
        "version": version,
        "state": "enabled",
        "created": f"2026-01-{version:02d}T09:30:00Z",
        "origin": "generated",
        "check": b64(check_value(key, tenant, ring_id, version)),
        "request": None,
        "destroy_after": None,
        "missing": [],
        "wraps": wraps,
    }


def ring_payload(tenant: str, ring_id: bytes, versions: list[dict[str, Any]]) -> dict[str, Any]:
    """A ring's payload whose last version is the primary."""
    return {
        "format": 1,
        "tenant": tenant,
        "ring_id": b64(ring_id),
        "sequence": len(versions),
        "policy": "default",
        "primary": versions[-1]["version"],
        "moved_to": None,
        "versions": versions,
        "extensions": {},
    }


def to_json(payload: object) -> bytes:
    """The payload's bytes: compact, in the order of its fields."""
    return json.dumps(payload, separators=(",", ":"), ensure_ascii=False).encode("utf-8")


def sign(auth_key: bytes, tenant: str, payload: bytes) -> bytes:
    """A ring document: the header line with its MAC, then the payload."""
    mac = ring_mac(auth_key, tenant, payload).hex()
    return f"sentra-ring 1 {auth_id(auth_key).hex()} {mac}\n".encode() + payload


def backup_record(
    auth_key: bytes,
    backup_id: bytes,
    index: int,
    time: int,
    tenant: bytes,
    document: bytes,
    *,
    last: int,
    magic: bytes = b"SKB\x01",
) -> bytes:
    """One record of a backup, whatever it holds, with a right MAC."""
    before = b"".join(
        (
            magic,
            backup_id,
            u32(index),
            bytes([last]),
            time.to_bytes(8, "big"),
            auth_id(auth_key),
            lp(tenant),
            lp(document),
        )
    )
    return before + end_mac(auth_key, "backup-mac/v1", tenant.decode("latin-1"), before)


def receipt(auth_key: bytes, tenant: str, line: bytes) -> bytes:
    """A receipt of this line, whatever it says, with a right MAC."""
    return line + end_mac(auth_key, "receipt-mac/v1", tenant, line)


def receipt_fields(
    auth_key: bytes, tenant: str, ring_id: bytes, sequence: int, versions: list[dict[str, Any]]
) -> dict[str, Any]:
    """The fields of a receipt for the `versions` of a ring's payload."""
    return {
        "format": 1,
        "auth_id": auth_id(auth_key).hex(),
        "operation": "shred",
        "tenant": tenant,
        "ring_id": ring_id.hex(),
        "sequence": sequence,
        "policy": "default",
        "time": "2026-02-01T12:00:00Z",
        "actor": "user:42",
        "request": "change-4711",
        "versions": [
            {
                "version": version["version"],
                "check": version["check"],
                "wraps": [
                    {name: wrap[name] for name in ("kek", "key_id", "key_version")}
                    for wrap in version["wraps"]
                ],
            }
            for version in versions
        ],
        "remains": [],
    }
