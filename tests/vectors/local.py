"""Vectors of the local backend's master keys, and of wraps."""

from __future__ import annotations

import hashlib
from typing import Any

from tests.reader import writer
from tests.reader.reader import (
    MasterKey,
    allowed_outside_development,
    auth_id,
    strip_newline,
    wrap_context,
    wrap_context_pairs,
)
from tests.vectors.fixed import MASTERS, fixed

_BINARY = hashlib.sha256(b"a binary master key").digest()  # holds bytes outside 0x20-0x7E
_BASE64 = writer.b64(fixed("a text master key", 32)).encode()
_URL_SAFE = b"-_" + _BASE64[2:]

_READ: list[tuple[str, str, bytes]] = [
    ("binary", "32 binary bytes are used as they are", _BINARY),
    ("binary-lf", "binary that ends in 0x0A keeps it", _BINARY[:-1] + b"\n"),
    ("binary-crlf", "binary that ends in CRLF keeps both", _BINARY[:-2] + b"\r\n"),
    ("text", "text is used as it is, never decoded", _BASE64),
    ("text-lf", "one trailing LF of text is dropped: the same key as without", _BASE64 + b"\n"),
    ("text-crlf", "one trailing CRLF of text is dropped", _BASE64 + b"\r\n"),
    ("text-two-lf", "of two LF none is dropped: the rest is not all text", _BASE64 + b"\n\n"),
    ("text-cr", "a lone CR is not a line ending", _BASE64 + b"\r"),
    ("text-lf-crlf", "LF before CRLF: the rest is not all text", _BASE64 + b"\n\r\n"),
    ("tab-lf", "a tab is not in 0x20-0x7E: the LF stays", b"\t" + _BASE64 + b"\n"),
    ("space-lf", "a space is: the LF goes, the space stays", _BASE64 + b" \n"),
    ("delete-lf", "0x7F is not: the LF stays", _BASE64 + b"\x7f\n"),
    ("non-ascii-lf", "UTF-8 beyond ASCII is not: the LF stays", "ü".encode() + _BASE64 + b"\n"),
    ("nul", "NUL is a byte like any other", b"\x00" * 32),
    ("hex", "hex of 64 digits is not decoded: 64 bytes", _BINARY.hex().encode()),
    ("hex-upper", "upper-case hex is another key", _BINARY.hex().upper().encode()),
    ("hex-63", "63 hex digits are no hex key, but unpadded base64", _BINARY.hex()[:63].encode()),
    ("url-safe", "URL-safe base64", _URL_SAFE),
    ("unpadded", "base64 without its padding", _BASE64.rstrip(b"=")),
    ("base64-31", "base64 of 31 bytes is too little", writer.b64(bytes(31)).encode()),
    ("pass-phrase", "a pass-phrase of 32 bytes or more", b"correct horse battery staple, twice"),
    ("pass-phrase-lf", "a pass-phrase with a newline", b"correct horse battery staple, twice\n"),
    (
        "pass-phrase-utf8",
        "a pass-phrase beyond ASCII",
        "über allen gipfeln ist ruh, in allen wipfeln".encode(),
    ),
    (
        "pass-phrase-bom",
        "text that a byte order mark precedes is text, and no base64",
        b"\xef\xbb\xbf" + _BASE64,
    ),
    ("exactly-32", "32 bytes after the LF is dropped", b"a" * 32 + b"\n"),
    ("long", "1000 bytes", fixed("a long master key", 1000)),
]

_SHORT: list[tuple[str, str, bytes]] = [
    ("empty", "nothing", b""),
    ("one-lf", "a newline alone", b"\n"),
    ("31", "31 bytes", _BINARY[:31]),
    ("31-lf", "31 printable bytes and LF: the LF does not count", b"a" * 31 + b"\n"),
    ("31-crlf", "31 printable bytes and CRLF", b"a" * 31 + b"\r\n"),
]


def local_vectors() -> dict[str, Any]:
    """The content of `local.json`."""
    return {
        "format": "local master keys and their wraps",
        "valid": [_read(name, shows, raw) for name, shows, raw in _READ],
        "invalid": [
            {"id": name, "shows": shows, "raw": raw.hex(), "error": "ConfigurationError"}
            for name, shows, raw in _SHORT
        ],
        "wraps": _wraps(),
        "invalid_wraps": _invalid_wraps(),
    }


def _read(name: str, shows: str, raw: bytes) -> dict[str, Any]:
    master = MasterKey.read(raw)
    return {
        "id": name,
        "shows": shows,
        "raw": raw.hex(),
        "used": strip_newline(raw).hex(),
        "prk": master.prk.hex(),
        "key_id": master.key_id,
        "auth_key": master.auth_key.hex(),
        "auth_id": auth_id(master.auth_key).hex(),
        "outside_development": allowed_outside_development(raw),
    }


def _wrap(tenant: str, version: int, kek: str = "local:k1") -> dict[str, Any]:
    ring_id = fixed(f"ring id {tenant}", 12)
    key = fixed(f"tenant key {tenant} {version}", 32)
    salt = fixed(f"wrap {tenant} {version}", 16)
    master = MASTERS[kek]
    return {
        "prk": master.prk.hex(),
        "key_id": master.key_id,
        "tenant": tenant,
        "ring_id": ring_id.hex(),
        "version": version,
        "key": key.hex(),
        "ciphertext": writer.wrap_local(master, key, tenant, ring_id, version, salt).hex(),
    }


def _wraps() -> list[dict[str, Any]]:
    return [
        {"id": "one", "shows": "salt and sealed key, 69 bytes", **_wrap("acme", 1)},
        {"id": "two", "shows": "another version is another key", **_wrap("acme", 2)},
        {"id": "other-kek", "shows": "another master key", **_wrap("acme", 1, "local:k2")},
        {"id": "big", "shows": "the greatest version", **_wrap("Acme", 2**32 - 1)},
    ]


def _invalid_wraps() -> list[dict[str, Any]]:
    good = _wrap("acme", 1)
    raw = bytes.fromhex(good["ciphertext"])

    def edited(name: str, shows: str, error: str = "DecryptionFailed", **change: Any) -> Any:
        kept = {key: value for key, value in good.items() if key != "key"}
        return {"id": name, "shows": shows, **kept, **change, "error": error}

    def flipped(at: int) -> str:
        return (raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :]).hex()

    return [
        edited("magic", "not SKW", ciphertext=flipped(0)),
        edited("format", "an unknown format", ciphertext=flipped(3)),
        edited("algorithm", "the algorithm of a one-time-key wrap", ciphertext=flipped(4)),
        edited("salt", "an edited salt", ciphertext=flipped(5)),
        edited("sealed", "an edited sealed key", ciphertext=flipped(21)),
        edited("tag", "an edited tag", ciphertext=flipped(68)),
        edited("short", "a byte short", ciphertext=raw[:-1].hex()),
        edited("long", "a byte more", ciphertext=raw.hex() + "00"),
        edited("empty", "nothing", ciphertext=""),
        edited("tenant", "another tenant", tenant="acme2"),
        edited("ring", "another ring", ring_id=fixed("ring id other", 12).hex()),
        edited("version", "another version", version=2),
        edited("key-id", "another master key's id", "KeyNotFound", key_id="00" * 8),
        edited("prk", "another master key", "KeyNotFound", prk=MASTERS["local:k2"].prk.hex()),
        edited(
            "prk-key-id",
            "another master key under its own id",
            prk=MASTERS["local:k2"].prk.hex(),
            key_id=MASTERS["local:k2"].key_id,
        ),
    ]


def wrap_vectors() -> dict[str, Any]:
    """The content of `wrap.json`: wrap contexts, and one-time-key wraps."""
    places = [("acme", 1), ("Acme", 2), ("T" * 120, 2**32 - 1)]
    return {
        "format": "wrap contexts and one-time-key wraps",
        "contexts": [_context(tenant, version) for tenant, version in places],
        "onetime": [
            _onetime("rsa", "alg 1: 256 bytes of RSA-OAEP-256", 1, 256),
            _onetime("aes-kw", "alg 2: 40 bytes of A256KW", 2, 40),
        ],
        "invalid_onetime": _invalid_onetime(),
    }


def _context(tenant: str, version: int) -> dict[str, Any]:
    ring_id = fixed(f"ring id {tenant}", 12)
    return {
        "id": f"{tenant[:8]}-{version}",
        "shows": f"a tenant of {len(tenant)} characters, version {version}",
        "tenant": tenant,
        "ring_id": ring_id.hex(),
        "version": version,
        "canonical": wrap_context(tenant, ring_id, version).hex(),
        "pairs": wrap_context_pairs(tenant, ring_id, version),
    }


def _onetime(
    name: str, shows: str, algorithm: int, size: int, *, key_size: int = 32
) -> dict[str, Any]:
    ring_id = fixed("ring id acme", 12)
    once = fixed(f"one-time key {name}", key_size)
    encrypted = fixed(f"encrypted one-time key {name}", size)
    kek = f"https://keys.example/keys/tenants/{fixed(name, 16).hex()}"
    key = fixed("tenant key acme 1", 32)
    context = wrap_context("acme", ring_id, 1)
    return {
        "id": name,
        "shows": shows,
        "kek_version_id": kek,
        "one_time_key": once.hex(),
        "encrypted_one_time_key": encrypted.hex(),
        "wrap_context": context.hex(),
        "key": key.hex(),
        "ciphertext": writer.wrap_onetime(algorithm, once, encrypted, kek, key, context).hex(),
    }


def _invalid_onetime() -> list[dict[str, Any]]:
    good = _onetime("aes-kw", "", 2, 40)
    raw = bytes.fromhex(good["ciphertext"])

    def edited(name: str, /, because: str, **change: Any) -> dict[str, Any]:
        kept = {key: value for key, value in (good | change).items() if key != "key"}
        return kept | {"id": name, "shows": because, "error": "DecryptionFailed"}

    def flipped(at: int) -> str:
        return (raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :]).hex()

    return [
        edited("magic", "not SKW", ciphertext=flipped(2)),
        edited("format", "an unknown format", ciphertext=flipped(3)),
        edited("algorithm", "an unknown algorithm", ciphertext=flipped(4)),
        edited("size", "n that does not fit the length", ciphertext=flipped(6)),
        edited("encrypted", "another encrypted one-time key", ciphertext=flipped(7)),
        edited("sealed", "an edited sealed key", ciphertext=flipped(47)),
        edited("short", "a byte short", ciphertext=raw[:-1].hex()),
        edited("long", "a byte more", ciphertext=raw.hex() + "00"),
        edited(
            "aes-kw-39",
            "39 bytes of A256KW, rightly sealed: it makes 40",
            **_onetime("aes-kw-39", "", 2, 39),
        ),
        edited(
            "rsa-255",
            "RSA of fewer than 2048 bits, rightly sealed",
            **_onetime("rsa-255", "", 1, 255),
        ),
        edited(
            "once-31",
            "a one-time key of 31 bytes, rightly sealed",
            **_onetime("once-31", "", 2, 40, key_size=31),
        ),
        edited("kek", "another version of the KEK", kek_version_id="https://keys.example/other"),
        edited(
            "context",
            "another version of the ring",
            wrap_context=wrap_context("acme", fixed("ring id acme", 12), 2).hex(),
        ),
    ]
