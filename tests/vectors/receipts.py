"""Vectors of receipts."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

from tests.reader import writer
from tests.reader.reader import MAX_RECEIPT, open_receipt
from tests.vectors.backups import pieces
from tests.vectors.fixed import AUTH_KEY, MASTERS, fixed, ring, ring_of_states

Fields = dict[str, Any]
_KEY = MASTERS["local:k1"].auth_key


def receipt_vectors() -> dict[str, Any]:
    """The content of `receipt.json`."""
    return {
        "format": "receipts, format 1",
        "auth_keys": {"local:k1": _KEY.hex(), "own": AUTH_KEY.hex()},
        "valid": _valid(),
        "invalid": _invalid(),
    }


def _fields(*, key: bytes = _KEY, **more: Any) -> Fields:
    made = ring("acme", 2, keks=("local:k1", "local:k2"))
    fields = writer.receipt_fields(key, "acme", made.ring_id, 3, made.payload["versions"])
    fields["remains"] = [
        {"where": "older revisions in vault-eu", "until": "2026-05-01T00:00:00Z"},
        {"where": "backups", "until": None},
    ]
    return copy.deepcopy(fields | more)


def _short() -> Fields:
    """Fields with one version and one wrap."""
    fields = _fields()
    del fields["versions"][1:]
    del fields["versions"][0]["wraps"][1:]
    return fields


def _line(fields: object) -> bytes:
    return writer.to_json(fields) + b"\n"


def _made(fields: Fields, key: bytes = _KEY) -> bytes:
    tenant = fields.get("tenant")
    return writer.receipt(key, tenant if isinstance(tenant, str) else "acme", _line(fields))


def _valid() -> list[dict[str, Any]]:
    states = ring_of_states()
    cases: list[tuple[str, str, bytes]] = [
        ("shred", "two versions under two KEKs, and what remains", _made(_fields())),
        ("revoke", "the tenant's own KEK is gone", _made(_fields(operation="revoke"))),
        ("nobody", "no actor and no request", _made(_fields(actor=None, request=None))),
        ("nothing-remains", "nothing remains", _made(_fields(remains=[]))),
        ("states", "a version that was destroyed before has no wraps",
         _made(writer.receipt_fields(
             _KEY, "states", states.ring_id, 2**63 - 1, states.payload["versions"]))),
        ("key-version", "a KEK whose service names versions",
         _made(_with_key_version(_fields()))),
        ("text", "text with all that is escaped, and some that is not",
         _made(_fields(actor='"\\/\b\f\n\r\t\x00\x1f\x7f é\u2028\U0001f511'))),
        ("own-key", "under an authentication key of its own",
         _made(_fields(key=AUTH_KEY), AUTH_KEY)),
    ]  # fmt: skip
    vectors = []
    for name, shows, data in cases:
        fields = open_receipt(data, [_KEY, AUTH_KEY])
        vectors.append({"id": name, "shows": shows, "file": pieces(data), "fields": fields})
    return vectors


def _with_key_version(fields: Fields) -> Fields:
    fields["versions"][0]["wraps"][0]["key_version"] = "7"
    return fields


_TIMES: list[Any] = [
    "", 1, "2026-02-01", "2026-02-30T12:00:00Z", "2026-02-01T24:00:00Z", "2026-02-01T12:00:00",
    "2026-02-01T12:00:00+00:00", "2026-02-01T12:00:00.0Z", "2026-02-01 12:00:00Z",
]  # fmt: skip
_BAD: list[tuple[str, Callable[[Fields], Fields], dict[str, list[Any]]]] = [
    ("receipt", lambda fields: fields, {
        "format": [None, 0, 2, "1", True, 1.0],
        "auth_id": [None, "", "0" * 15, "0" * 17, "D88A1AAA21106B03", 1],
        "operation": [None, "", "Shred", "release", 1],
        "tenant": [None, "", "a/b", "a" * 121, 1],
        "ring_id": [None, "", "0" * 23, "0" * 25, "A" * 24, 1],
        "sequence": [None, 0, -1, 2**63, "1", True, 1.5],
        "policy": [None, "", 1],
        "time": [None, *_TIMES],
        "actor": ["", 1, []],
        "request": ["", 1, []],
        "versions": [None, [], {}, "x", [None]],
        "remains": [None, {}, "x", [None], ["backups"]],
    }),
    ("version", lambda fields: fields["versions"][0], {
        "version": [None, 0, 2**32, "1", True],
        "check": [None, "", 1, writer.b64(bytes(31)), writer.b64(bytes(33)), "-_" + "A" * 41 + "=",
                  "A" * 42 + "B="],
        "wraps": [None, {}, "x", [None]],
    }),
    ("wrap", lambda fields: fields["versions"][0]["wraps"][0], {
        "kek": [None, "", "k1", "local:", ":k1", "Local:k1", 1],
        "key_id": [None, "", 1],
        "key_version": ["", 7],
    }),
    ("remains", lambda fields: fields["remains"][0], {
        "where": [None, "", 1],
        "until": _TIMES,
    }),
]  # fmt: skip


def _invalid() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []

    def add(name: str, shows: str, data: bytes, error: str = "MalformedInput") -> None:
        found.append({"id": name, "shows": shows, "file": pieces(data), "error": error})

    good = _made(_short())
    line = good[:-32]
    _add_bytes(add, line)
    for place, of, bad in _BAD:
        fields = _short()
        of(fields)["note"] = 1
        add(f"{place}-unknown", f"an unknown field of a {place}", _made(fields))
        for field, values in bad.items():
            fields = _short()
            del of(fields)[field]
            add(f"{place}-{field}-absent", f"{field} is absent", _made(fields))
            for number, value in enumerate(values, 1):
                fields = _short()
                assert of(fields)[field] != value or type(of(fields)[field]) is not type(value)
                of(fields)[field] = value
                shows = f"{field} is not valid: {json.dumps(value)[:60]}"
                add(f"{place}-{field}-{number}", shows, _made(fields))
    fields = _fields()
    fields["versions"].reverse()
    add("versions-descending", "versions descend", _made(fields))
    add("too-long", "a byte more than 1 MiB",
        _made(_fields(policy="x" + " " * (MAX_RECEIPT - len(good) + 1 + 6))))  # fmt: skip
    stranger = fixed("a key of somebody else", 32)
    add("auth-id", "made by a key that is not configured",
        _made(_fields(key=stranger), stranger), "RingRejected")  # fmt: skip
    add("mac-wrong", "an edited MAC",
        good[:-1] + bytes([good[-1] ^ 1]), "RingRejected")  # fmt: skip
    edited = line.replace(b'"user:42"', b'"user:43"')
    add("mac-line", "an edited line", edited + good[-32:], "RingRejected")
    add("mac-tenant", "the MAC of another tenant's key",
        writer.receipt(_KEY, "beta", line), "RingRejected")  # fmt: skip
    add("mac-label", "the MAC of a backup",
        line + _backup_mac(line), "RingRejected")  # fmt: skip
    return found


def _backup_mac(line: bytes) -> bytes:
    from tests.reader.reader import end_mac

    return end_mac(_KEY, "backup-mac/v1", "acme", line)


def _add_bytes(add: Callable[..., None], line: bytes) -> None:
    for name, shows, changed in (
        ("empty", "an empty file", None),
        ("no-newline", "no newline", line[:-1]),
        ("two-lines", "two lines", line + line),
        ("crlf", "a carriage return", line[:-1] + b"\r\n"),
        ("pretty", "white space", line.replace(b'"format":1', b'"format": 1')),
        ("newline-within", "a newline within", line.replace(b',"tenant"', b',\n"tenant"')),
        ("order", "fields in another order",
         line.replace(b'"actor":"user:42","request":"change-4711"',
                      b'"request":"change-4711","actor":"user:42"')),
        ("field-twice", "a field twice",
         line.replace(b'"operation"', b'"operation":"shred","operation"')),
        ("escape", "an escape that need not be", line.replace(b"user:42", b"user:4\\u0032")),
        ("slash", "an escaped slash", line.replace(b"user:42", b"user\\/42")),
        ("zero", "a leading zero", line.replace(b'"sequence":3', b'"sequence":03')),
        ("exponent", "an exponent", line.replace(b'"sequence":3', b'"sequence":3e0')),
        ("surrogate", "a lone surrogate, escaped", line.replace(b"user:42", b"user\\ud800")),
        ("latin-1", "not UTF-8", line.replace(b"user:42", b"us\xe9r:42")),
        ("byte-order-mark", "a byte order mark", b"\xef\xbb\xbf" + line),
        ("array", "an array", b"[" + line[:-1] + b"]\n"),
        ("text", "no JSON", b"shredded\n"),
        ("deep", "nested too deep", b'{"format":' + b"[" * 3000 + b"\n"),
    ):  # fmt: skip
        assert changed != line, name
        data = b"" if changed is None else writer.receipt(_KEY, "acme", changed)
        add(f"line-{name}", f"the line: {shows}", data)
