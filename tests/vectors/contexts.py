"""Vectors of the canonical context and of the derivation rule."""

from __future__ import annotations

import hashlib
from typing import Any

from tests.reader.reader import derive, encode_context, lp
from tests.vectors.fixed import fixed

_VALID: list[tuple[str, str, Any]] = [
    ("none", "no context is no bytes", None),
    ("empty-bytes", "empty bytes are not None", {"bytes": ""}),
    ("empty-mapping", "an empty mapping is neither None nor empty bytes", {"pairs": []}),
    ("bytes", "bytes stand after 0x01 as they are, without a length", {"bytes": "00ff02"}),
    ("one-pair", "key and value, each with its length", {"pairs": [["table", "users"]]}),
    (
        "sorted",
        "pairs are sorted by key, whatever order they are given in",
        {"pairs": [["table", "users"], ["id", "42"], ["column", "ssn"]]},
    ),
    ("prefix", "a key sorts before its own extension", {"pairs": [["ab", "2"], ["a", "1"]]}),
    ("case", "upper case sorts before lower case", {"pairs": [["a", "1"], ["B", "2"]]}),
    ("empty-texts", "key and value may be empty", {"pairs": [["", ""]]}),
    ("moved-boundary", "a|bc is not ab|c: lengths keep them apart", {"pairs": [["a", "bc"]]}),
    ("moved-boundary-2", "the other one of the two", {"pairs": [["ab", "c"]]}),
    ("nul", "NUL is a character like any other", {"pairs": [["a\x00b", "\x00"]]}),
    (
        "utf-8-order",
        "sorted by UTF-8: U+FF5E before U+1F600 (UTF-16 code units would say the reverse)",
        {"pairs": [["\U0001f600", "second"], ["\uff5e", "first"]]},
    ),
    ("non-ascii", "lengths count UTF-8 bytes", {"pairs": [["straße", "Zürich"], ["名前", "値"]]}),
    ("composed", "not normalised: U+00E9", {"pairs": [["é", "1"]]}),
    ("decomposed", "not normalised: e and U+0301", {"pairs": [["e\u0301", "1"]]}),
    ("longest-bytes", "65536 bytes encoded: bytes", {"filler": 65535}),
    ("longest-mapping", "65536 bytes encoded: a mapping of k to many v", {"filler_pair": 65526}),
]

_INVALID: list[tuple[str, str, Any]] = [
    ("too-long-bytes", "65537 bytes encoded: bytes", {"filler": 65536}),
    ("too-long-mapping", "65537 bytes encoded: a mapping", {"filler_pair": 65527}),
    ("text", "text is not bytes", {"value": "table=users"}),
    ("number", "a number is no context", {"value": 42}),
    ("list", "a list is no mapping", {"value": [["table", "users"]]}),
    ("number-value", "a value is a string", {"pairs": [["id", 42]]}),
    ("null-value", "null is not a string", {"pairs": [["id", None]]}),
    ("number-key", "a key is a string", {"pairs": [[42, "id"]]}),
    ("bytes-value", "bytes are not a string", {"bytes_pair": ["id", "3432"]}),
    ("surrogate-key", "a lone surrogate has no UTF-8: key", {"pairs": [["\ud800", "1"]]}),
    ("surrogate-value", "a lone surrogate has no UTF-8: value", {"pairs": [["a", "\udfff"]]}),
]


def build(described: Any) -> Any:
    """Make the context that a vector describes."""
    if described is None:
        return None
    ((kind, value),) = described.items()
    match kind:
        case "bytes":
            return bytes.fromhex(value)
        case "pairs":
            return dict(value)
        case "filler":
            return bytes(value)
        case "filler_pair":
            return {"k": "v" * value}
        case "bytes_pair":
            return {value[0]: bytes.fromhex(value[1])}
        case "value":
            return value
    raise ValueError(kind)


def context_vectors() -> dict[str, Any]:
    """The content of `context.json`."""
    return {
        "format": "canonical context",
        "valid": [_valid(name, shows, context) for name, shows, context in _VALID],
        "invalid": [
            {"id": name, "shows": shows, "context": context, "error": "MalformedInput"}
            for name, shows, context in _INVALID
        ],
    }


def _valid(name: str, shows: str, context: Any) -> dict[str, Any]:
    encoded = encode_context(build(context))
    vector = {"id": name, "shows": shows, "context": context, "size": len(encoded)}
    if len(encoded) <= 1024:
        return vector | {"encoded": encoded.hex()}
    return vector | {"encoded_sha256": hashlib.sha256(encoded).hexdigest()}


def derive_vectors() -> dict[str, Any]:
    """The content of `derive.json`."""
    key = fixed("derive key", 32)
    prk = fixed("derive prk", 64)
    tenant = lp(b"acme")
    cases: list[tuple[str, bytes, str, bytes, int]] = [
        ("subkey and commitment of a message", key, "message/v1", tenant + bytes(36), 64),
        ("the key of a stream", key, "stream/v1", tenant + bytes(20), 32),
        ("a check value", key, "key-check/v1", tenant + bytes(16), 32),
        ("an auth id, from no data", key, "ring-auth-id/v1", b"", 8),
        ("the MAC key of a ring", key, "ring-mac/v1", tenant, 32),
        ("the MAC key of a ring, non-ASCII data", key, "ring-mac/v1", lp("ä".encode()), 32),
        ("a one-time wrap", key, "wrap-onetime/v1", lp(b"id") + lp(b"e") + lp(b"context"), 44),
        ("a receipt's MAC key", key, "receipt-mac/v1", tenant, 32),
        ("a backup's MAC key", key, "backup-mac/v1", tenant, 32),
        ("a local key id, from a PRK of 64 bytes", prk, "local/key-id/v1", b"", 8),
        ("a local wrap, from a PRK", prk, "local/wrap/v1", bytes(16) + lp(b"context"), 44),
        ("a local auth key, from a PRK", prk, "local/ring-auth/v1", b"", 32),
        ("a shorter output is the longer one's prefix", key, "ring-auth-id/v1", b"", 4),
        ("an all-zero key", bytes(32), "ring-auth-id/v1", b"", 8),
        ("long data", key, "message/v1", fixed("long data", 300), 64),
    ]
    return {
        "format": "derive(key, label, data, n)",
        "valid": [
            {
                "id": f"{number:02d}-{label}",
                "shows": shows,
                "key": secret.hex(),
                "label": label,
                "data": data.hex(),
                "length": size,
                "output": derive(secret, label, data, size).hex(),
            }
            for number, (shows, secret, label, data, size) in enumerate(cases, 1)
        ],
    }
