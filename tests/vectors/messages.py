"""Vectors of messages."""

from __future__ import annotations

from typing import Any

from tests.reader import writer
from tests.reader.reader import encode_context, message_keys
from tests.vectors.contexts import build
from tests.vectors.fixed import (
    RAW_MASTERS,
    FixedRing,
    fixed,
    ring,
    ring_of_states,
    ring_shredded,
)

_ROW: dict[str, Any] = {"pairs": [["table", "users"], ["column", "ssn"], ["id", "42"]]}


def _rings() -> dict[str, FixedRing]:
    return {
        "acme": ring("acme", 2),
        "upper": ring("Acme"),
        "two-keks": ring("two-keks", keks=("local:k1", "local:k2")),
        "longest": ring("T" * 120),
        "twin": ring("acme-twin", 2, label="acme"),
        "states": ring_of_states(),
        "shredded": ring_shredded(),
    }


def message_vectors() -> dict[str, Any]:
    """The content of `message.json`."""
    made = _rings()
    return {
        "format": "message format 1, suite 1",
        "master_keys": {kek: raw.hex() for kek, raw in RAW_MASTERS.items()},
        "rings": {
            name: {
                "tenant": ring.tenant,
                "keys": {str(number): key.hex() for number, key in ring.keys.items()},
                "document": ring.document().decode(),
            }
            for name, ring in made.items()
        },
        "valid": _valid(made),
        "invalid": _invalid(made),
    }


def _seal(
    ring: FixedRing, version: int, plaintext: bytes, context: Any = None, **change: Any
) -> bytes:
    salt = fixed(f"message salt {ring.tenant} {version}", 16)
    nonce = fixed(f"message nonce {ring.tenant} {version} {plaintext!r} {context}", 12)
    place: dict[str, Any] = {
        "key": ring.keys.get(version, bytes(32)),
        "tenant": ring.tenant,
        "ring_id": ring.ring_id,
        "version": version,
        "salt": salt,
        "nonce": nonce,
    }
    return writer.seal(**(place | change), plaintext=plaintext, context=build(context))


def _valid(rings: dict[str, FixedRing]) -> list[dict[str, Any]]:
    hello = "hello, größe".encode()
    cases: list[tuple[str, str, str, int, bytes, Any]] = [
        ("row", "a field of a row under its context", "acme", 2, b"078-05-1120", _ROW),
        ("first-version", "an older version still opens", "acme", 1, b"078-05-1120", _ROW),
        ("empty", "an empty plaintext: 96 bytes in all", "acme", 2, b"", None),
        ("none", "no context", "acme", 2, hello, None),
        ("empty-bytes", "a context of empty bytes", "acme", 2, hello, {"bytes": ""}),
        ("empty-mapping", "an empty mapping as context", "acme", 2, hello, {"pairs": []}),
        ("bytes", "a context of bytes", "acme", 2, hello, {"bytes": "00ff"}),
        (
            "non-ascii",
            "a context beyond ASCII, sorted by UTF-8",
            "acme",
            2,
            hello,
            {"pairs": [["\U0001f600", "2"], ["\uff5e", "1"], ["é", "Zürich"]]},
        ),
        ("block", "16 bytes, one block", "acme", 2, bytes(16), None),
        ("long", "1000 bytes", "acme", 2, fixed("a long plaintext", 1000), _ROW),
        ("upper", "an upper-case tenant", "upper", 1, hello, None),
        ("two-keks", "a ring under two KEKs", "two-keks", 1, hello, None),
        ("longest-tenant", "a tenant of 120 characters", "longest", 1, hello, None),
        ("twin", "the twin's own message", "twin", 2, hello, None),
        ("beside-disabled", "the enabled version of a ring of states", "states", 5, hello, None),
    ]
    vectors = []
    for name, shows, ring_name, version, plaintext, context in cases:
        ring = rings[ring_name]
        message = _seal(ring, version, plaintext, context)
        subkey, commitment = message_keys(ring.keys[version], ring.tenant, message[:36])
        assert commitment == message[36:68]
        vectors.append(
            {
                "id": name,
                "shows": shows,
                "ring": ring_name,
                "version": version,
                "context": context,
                "associated_data": encode_context(build(context)).hex(),
                "subkey": subkey.hex(),
                "plaintext": plaintext.hex(),
                "message": message.hex(),
            }
        )
    return vectors


def _invalid(rings: dict[str, FixedRing]) -> list[dict[str, Any]]:
    acme, states, twin = rings["acme"], rings["states"], rings["twin"]
    good = _seal(acme, 2, b"078-05-1120", _ROW)
    other_ring = fixed("ring id of nobody", 12)
    vectors: list[dict[str, Any]] = []

    def add(
        name: str,
        shows: str,
        error: str,
        message: bytes,
        *,
        ring: str = "acme",
        context: Any = _ROW,
    ) -> None:
        vectors.append(
            {
                "id": name,
                "shows": shows,
                "ring": ring,
                "context": context,
                "message": message.hex(),
                "error": error,
            }
        )

    def put(at: int, new: bytes) -> bytes:
        return good[:at] + new + good[at + len(new) :]

    def flip(at: int) -> bytes:
        return put(at, bytes([good[at] ^ 1]))

    for size, shows in ((0, "nothing"), (2, "the magic alone"), (20, "a header alone"),
                        (80, "no tag"), (95, "a byte short of the least")):  # fmt: skip
        add(f"length-{size}", shows, "MalformedInput", good[:size])
    add("cut", "the last byte cut off", "DecryptionFailed", good[:-1])
    add("cut-to-least", "cut to 96 bytes", "DecryptionFailed", good[:96])
    add("trailing", "a byte more", "DecryptionFailed", good + b"\x00")
    add("magic-0", "magic, first byte", "MalformedInput", flip(0))
    add("magic-1", "magic, second byte", "MalformedInput", flip(1))
    for number in (0, 2, 255):
        add(f"format-{number}", "an unknown format", "MalformedInput", put(2, bytes([number])))
    for number, shows in ((0, "no suite"), (2, "a stream"), (3, "reserved"), (4, "reserved"),
                          (255, "unknown")):  # fmt: skip
        add(f"suite-{number}", f"suite: {shows}", "MalformedInput", put(3, bytes([number])))
    add("ring-id-first", "ring id, first byte", "DecryptionFailed", flip(4))
    add("ring-id-last", "ring id, last byte", "DecryptionFailed", flip(15))
    add(
        "ring-id-and-version",
        "another ring's id is found before its version is looked at",
        "DecryptionFailed",
        put(4, other_ring + (99).to_bytes(4, "big")),
    )
    for number in (0, 3, 2**32 - 1):
        add(
            f"version-{number}",
            "a version that this ring never had",
            "KeyNotFound",
            put(16, number.to_bytes(4, "big")),
        )
    add(
        "version-other",
        "another version that the ring has",
        "DecryptionFailed",
        put(16, (1).to_bytes(4, "big")),
    )
    for name, at in (
        ("salt-first", 20), ("salt-last", 35), ("commitment-first", 36), ("commitment-last", 67),
        ("nonce-first", 68), ("nonce-last", 79), ("ciphertext-first", 80),
        ("ciphertext-last", len(good) - 17), ("tag-first", len(good) - 16),
        ("tag-last", len(good) - 1),
    ):  # fmt: skip
        add(name, f"one bit of the {name.replace('-', ', ')} byte", "DecryptionFailed", flip(at))

    for number, shows in ((1, "disabled"), (2, "scheduled"), (3, "destroyed")):
        add(
            shows,
            f"the version is {shows}",
            "KeyUnavailable",
            _seal(states, number, b"x"),
            ring="states",
            context=None,
        )
    add(
        "disabled-and-forged",
        "the state is looked at before any key: a forged message says no more",
        "KeyUnavailable",
        _seal(states, 1, b"x", key=bytes(32)),
        ring="states",
        context=None,
    )
    add(
        "imported",
        "an imported version opens no message of this format",
        "DecryptionFailed",
        _seal(states, 4, b"x"),
        ring="states",
        context=None,
    )
    add(
        "shredded",
        "a ring of which all versions are destroyed",
        "KeyUnavailable",
        _seal(rings["shredded"], 1, b"x"),
        ring="shredded",
        context=None,
    )

    for name, shows, context in (
        ("context-none", "no context instead of the row's", None),
        ("context-value", "another value", {"pairs": [*_ROW["pairs"][:2], ["id", "43"]]}),
        ("context-less", "a pair less", {"pairs": _ROW["pairs"][:2]}),
        ("context-more", "a pair more", {"pairs": [*_ROW["pairs"], ["x", ""]]}),
        ("context-encoded", "the encoded row given as bytes",
         {"bytes": encode_context(build(_ROW)).hex()}),
    ):  # fmt: skip
        add(name, f"wrong context: {shows}", "DecryptionFailed", good, context=context)
    sealed: dict[str, bytes] = {
        "none": _seal(acme, 2, b"x", None),
        "empty bytes": _seal(acme, 2, b"x", {"bytes": ""}),
        "an empty mapping": _seal(acme, 2, b"x", {"pairs": []}),
    }
    for name, written, read, context in (
        ("none-as-bytes", "none", "empty bytes", {"bytes": ""}),
        ("none-as-mapping", "none", "an empty mapping", {"pairs": []}),
        ("bytes-as-none", "empty bytes", "none", None),
        ("bytes-as-mapping", "empty bytes", "an empty mapping", {"pairs": []}),
        ("mapping-as-none", "an empty mapping", "none", None),
    ):
        add(
            name,
            f"written with the context {written}, read with {read}",
            "DecryptionFailed",
            sealed[written],
            context=context,
        )
    add(
        "context-malformed",
        "a context that cannot be encoded",
        "MalformedInput",
        good,
        context={"pairs": [["id", 42]]},
    )

    add("wrong-tenant", "another tenant's message", "DecryptionFailed", good, ring="upper")
    add(
        "twin-tenant",
        "same ring id and tenant key, other tenant: the tenant itself is bound",
        "DecryptionFailed",
        good,
        ring="twin",
    )
    add(
        "twin-tenant-back",
        "the same the other way round",
        "DecryptionFailed",
        _seal(twin, 2, b"078-05-1120", _ROW),
    )
    add(
        "wrong-key",
        "sealed under another key throughout",
        "DecryptionFailed",
        _seal(acme, 2, b"078-05-1120", _ROW, key=fixed("a key of somebody else", 32)),
    )
    forged = _seal(acme, 2, b"078-05-1120", _ROW, key=fixed("a key of somebody else", 32))
    add(
        "borrowed-commitment",
        "header, salt and commitment are genuine, the rest is sealed under another key",
        "DecryptionFailed",
        good[:68] + forged[68:],
    )
    return vectors
