"""The one derivation rule, and the labels that keep its uses apart."""

from __future__ import annotations

from typing import Literal, get_args

from cryptography.hazmat.primitives.hashes import SHA512
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from sentra_kms.material import KeyMaterial

Label = Literal[
    "message/v1",
    "stream/v1",
    "key-check/v1",
    "ring-auth-id/v1",
    "ring-mac/v1",
    "wrap-onetime/v1",
    "local/key-id/v1",
    "local/wrap/v1",
    "local/ring-auth/v1",
    "receipt-mac/v1",
    "backup-mac/v1",
]
_LABELS = frozenset(get_args(Label))
_KEY_SIZES = (32, 64)  # a key, or the local backend's HKDF-Extract output


def derive(key: KeyMaterial, label: Label, data: bytes, length: int) -> KeyMaterial:
    """Derive `length` bytes: `HKDF-Expand-SHA512(key, "sentra-kms/" ‖ label ‖ 0x00 ‖ data)`.

    `key` holds 32 bytes, or 64 (the local backend's PRK). `data` is bound as it is, so its caller
    length-prefixes what varies. Source: RFC 5869 section 2.3. Raises `ValueError` for a label
    that is not in the list, or a key of another size: both are errors in this package's code.

    >>> derive(KeyMaterial(bytes(32)), "ring-auth-id/v1", b"", 8).reveal().hex()
    '75d6a892ac187f19'
    """
    if label not in _LABELS:
        raise ValueError(f"no derivation label {label!r}")
    if len(key.reveal()) not in _KEY_SIZES:
        raise ValueError("a key to derive from has 32 bytes")
    info = b"sentra-kms/" + label.encode("ascii") + b"\x00" + data
    return KeyMaterial(HKDFExpand(SHA512(), length, info).derive(key.reveal()))
