"""Vectors of key rings, of their file names and of tenant ids."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

from tests.reader import writer
from tests.reader.reader import (
    MAX_DOCUMENT,
    MasterKey,
    auth_id,
    check_value,
    file_name,
    open_ring,
    ring_mac,
)
from tests.vectors.fixed import (
    AUTH_KEY,
    MASTERS,
    RAW_MASTERS,
    FixedRing,
    fixed,
    ring,
    ring_of_states,
    ring_shredded,
    sign,
)

Payload = dict[str, Any]
_K1 = MASTERS["local:k1"]


def ring_vectors() -> dict[str, Any]:
    """The content of `ring.json`."""
    return {
        "format": "ring documents, payload format 1",
        "master_keys": {kek: raw.hex() for kek, raw in RAW_MASTERS.items()},
        "auth_keys": {
            "local:k1": _K1.auth_key.hex(),
            "own": AUTH_KEY.hex(),
        },
        "file_names": [
            {"tenant": tenant, "file_name": file_name(tenant)}
            for tenant in ("acme", "Acme", "ACME", "a.b_c-9", "9", "x.ring", "T" * 120)
        ],
        "invalid_tenants": [
            {"shows": shows, "tenant": tenant, "error": "MalformedInput"}
            for shows, tenant in _INVALID_TENANTS
        ],
        "valid": _valid(),
        "invalid": _invalid_documents() + _invalid_payloads() + _invalid_wraps(),
    }


_INVALID_TENANTS = [
    ("empty", ""),
    ("a dot first", ".acme"),
    ("a hyphen first", "-acme"),
    ("an underscore first", "_acme"),
    ("a slash", "a/b"),
    ("the way up", ".."),
    ("the way up, further on", "a/../b"),
    ("NUL", "a\x00b"),
    ("a space", "a b"),
    ("a trailing newline", "acme\n"),
    ("an equals sign, which file names use", "=acme"),
    ("a letter beyond ASCII", "größe"),
    ("a digit beyond ASCII", "a\u0663"),
    ("121 characters", "a" * 121),
]


def _described(
    name: str,
    shows: str,
    tenant: str,
    document: bytes,
    *,
    authenticated_by: str = "local:k1",
    **more: Any,
) -> dict[str, Any]:
    vector: dict[str, Any] = {
        "id": name,
        "shows": shows,
        "tenant": tenant,
        "authenticated_by": authenticated_by,
    }
    stripped = document.rstrip(b" ")
    if len(document) - len(stripped) > 64:
        vector["trailing_spaces"] = len(document) - len(stripped)
        document = stripped
    try:
        vector["document"] = document.decode("utf-8")
    except UnicodeDecodeError:
        vector["document_hex"] = document.hex()
    return vector | more


# --- valid ------------------------------------------------------------------------------------


def _valid() -> list[dict[str, Any]]:
    vectors: list[dict[str, Any]] = []

    def add(
        name: str,
        shows: str,
        made: FixedRing,
        document: bytes | None = None,
        authenticated_by: str = "local:k1",
    ) -> None:
        document = document or made.document()
        auth = _K1.auth_key if authenticated_by == "local:k1" else AUTH_KEY
        opened = open_ring(document, made.tenant, [auth])
        expect = {
            "ring_id": opened.ring_id.hex(),
            "sequence": opened.sequence,
            "policy": opened.policy,
            "primary": opened.primary,
            "moved_to": opened.moved_to,
            "extensions": opened.extensions,
            "versions": {
                str(number): {
                    "state": version.state,
                    "origin": version.origin,
                    "request": version.request,
                    "missing": list(version.missing),
                    "keks": [wrap.kek for wrap in version.wraps],
                    "key": made.keys[number].hex() if version.wraps else None,
                }
                for number, version in opened.versions.items()
            },
        }
        vectors.append(
            _described(
                name,
                shows,
                made.tenant,
                document,
                authenticated_by=authenticated_by,
                file_name=file_name(made.tenant),
                expect=expect,
            )
        )

    def changed(made: FixedRing, change: Callable[[Payload], object]) -> FixedRing:
        change(made.payload)
        return made

    add("one", "one version under one KEK", ring("acme"))
    add("two", "two versions, the second primary", ring("acme", 2))
    add(
        "older-primary",
        "the primary need not be the last version",
        changed(ring("older", 2), lambda p: p.update(primary=1)),
    )
    add("two-keks", "one version under two KEKs", ring("two-keks", keks=("local:k1", "local:k2")))
    add("upper", "an upper-case tenant", ring("Acme"))
    add("longest", "a tenant of 120 characters", ring("T" * 120))
    add("states", "a version of every state, and an imported one", ring_of_states())
    add("shredded", "all versions destroyed, no primary", ring_shredded())
    add(
        "moved",
        "moved to another store: the document is kept and marked",
        changed(ring("moved"), lambda p: p.update(moved_to="vault-eu")),
    )
    add(
        "extension",
        "extensions hold any JSON under names that begin with x-",
        changed(
            ring("extended"),
            lambda p: p.update(extensions={"x-note": {"any": [1, None, "ü"]}, "x-": True}),
        ),
    )
    add(
        "request",
        "the request id of the rotation that made the version",
        changed(ring("request"), lambda p: p["versions"][0].update(request="job-17/ü")),
    )
    add(
        "missing",
        "a KEK of the policy that could not wrap is recorded",
        changed(ring("missing"), lambda p: p["versions"][0].update(missing=["aws-eu:alias/t"])),
    )
    add(
        "policy",
        "another policy",
        changed(ring("policy"), lambda p: p.update(policy="gold")),
    )
    add(
        "other-kek",
        "a KEK of another backend: versioned, its key may hold colons and slashes",
        changed(
            ring("other-kek"),
            lambda p: p["versions"][0]["wraps"].append(_foreign("aws-eu:arn:aws:kms:x:1:key/2")),
        ),
    )
    for name, shows, field, value in (
        ("first-broken", "the first KEK's wrap is broken: the second's serves", "ciphertext",
         writer.b64(b"SKW\x01\x00" + bytes(64))),
        ("first-elsewhere", "the first KEK is another master key now: the second's wrap serves",
         "key_id", "00" * 8),
    ):  # fmt: skip
        add(
            name,
            shows,
            changed(
                ring(name, keks=("local:k1", "local:k2")),
                _setting(_wrap_of, **{field: value}),
            ),
        )
    add(
        "sixteen",
        "16 wraps, the most that a version has; the usable one is last",
        changed(
            ring("sixteen"),
            lambda p: p["versions"][0].update(
                wraps=[_foreign(f"far:k{n}") for n in range(15)] + p["versions"][0]["wraps"]
            ),
        ),
    )
    add(
        "sequence", "a high sequence", changed(ring("high"), lambda p: p.update(sequence=2**63 - 1))
    )
    add("gap", "numbers ascend, with a gap", _gap())
    spaced = ring("spaced")
    text = json.dumps(spaced.payload, indent=2, sort_keys=True, ensure_ascii=True) + "\n"
    add(
        "spaced",
        "fields in another order, with white space: the MAC covers the bytes as they are",
        spaced,
        writer.sign(_K1.auth_key, spaced.tenant, text.encode()),
    )
    own = ring("own-key")
    add(
        "own-key",
        "authenticated by a key of its own, not by a KEK's",
        own,
        writer.sign(AUTH_KEY, own.tenant, writer.to_json(own.payload)),
        "own",
    )
    full = ring("full")
    add("full", "256 KiB, the most: spaces after the payload", full, _padded(full, MAX_DOCUMENT))
    return vectors


def _foreign(kek: str) -> Payload:
    return {
        "kek": kek,
        "key_id": f"id of {kek}",
        "key_version": "7",
        "ciphertext": writer.b64(fixed(f"foreign wrap {kek}", 24)),
    }


def _gap() -> FixedRing:
    made = ring("gap", 3)
    del made.payload["versions"][1]
    return made


def _padded(made: FixedRing, size: int) -> bytes:
    payload = writer.to_json(made.payload)
    return writer.sign(_K1.auth_key, made.tenant, payload.ljust(size - 96))


# --- invalid: the document --------------------------------------------------------------------


def _invalid_documents() -> list[dict[str, Any]]:
    good = ring("acme").document()
    other = ring("beta").document()
    head, payload = good[:96], good[96:]
    mac = good[31:95]
    wrong_mac_key = ring_mac(AUTH_KEY, "acme", payload).hex().encode()
    assert good.count(b"enabled") == 1

    def flip(at: int) -> bytes:
        new = b"0" if good[at : at + 1] != b"0" else b"1"
        return good[:at] + new + good[at + 1 :]

    cases: list[tuple[str, str, bytes]] = [
        ("empty", "nothing", b""),
        ("header-alone", "a header without its newline", good[:95]),
        ("payload-alone", "a payload without a header", payload),
        ("cut", "the last byte cut off", good[:-1]),
        ("trailing", "a byte more", good + b" "),
        ("magic", "another first word", b"Sentra-ring" + good[11:]),
        ("format-0", "header format 0", b"sentra-ring 0" + good[13:]),
        ("format-2", "header format 2", b"sentra-ring 2" + good[13:]),
        ("crlf", "CRLF ends the header", good[:95] + b"\r" + good[95:]),
        ("two-spaces", "two spaces in the header", good[:13] + b" " + good[13:]),
        ("leading-newline", "a newline before the header", b"\n" + good),
        ("byte-order-mark", "a byte order mark before the header", b"\xef\xbb\xbf" + good),
        ("upper-case-auth-id", "upper-case hex: auth id",
         head[:14] + good[14:30].upper() + good[30:]),
        ("upper-case-mac", "upper-case hex: MAC", head[:31] + mac.upper() + good[95:]),
        ("auth-id", "an edited auth id", flip(14)),
        ("auth-id-short", "an auth id of 7 bytes", good[:28] + good[30:]),
        ("auth-id-other", "another auth key's id",
         good[:14] + auth_id(AUTH_KEY).hex().encode() + good[30:]),
        ("mac-first", "an edited MAC, first digit", flip(31)),
        ("mac-last", "an edited MAC, last digit", flip(94)),
        ("mac-short", "a MAC of 31 bytes", good[:93] + good[95:]),
        ("mac-long", "a MAC of 64 bytes, not truncated", good[:95] + mac + good[95:]),
        ("mac-other-key", "a MAC under another key", good[:31] + wrong_mac_key + good[95:]),
        ("white-space", "a space more in the payload",
         good.replace(b'"sequence":1', b'"sequence": 1')),
        ("payload-edit", "a state edited", good.replace(b"enabled", b"disabled")),
        ("payload-first", "the payload's first byte edited", flip(96)),
        ("other-tenant", "another tenant's ring copied in: the MAC binds the tenant", other),
    ]  # fmt: skip
    for name, _, document in cases:
        assert document != good, name
    return [
        _described(f"document-{name}", shows, "acme", document, at="open", error="RingRejected")
        for name, shows, document in cases
    ] + [
        _described(
            "document-unknown-key",
            "authenticated by a key that is not configured",
            "acme",
            writer.sign(AUTH_KEY, "acme", payload),
            at="open",
            error="RingRejected",
        ),
        _described(
            "document-too-long",
            "a byte more than 256 KiB, correctly authenticated",
            "full",
            _padded(ring("full"), MAX_DOCUMENT + 1),
            at="open",
            error="RingRejected",
        ),
    ]


# --- invalid: the payload, correctly authenticated --------------------------------------------

_RING_FIELDS: dict[str, list[Any]] = {
    # field: values of a wrong type or out of bounds (null is tried by itself)
    "format": [0, 2, "1", True, 1.0],
    "tenant": ["beta", "Acme", "", "a/b", 1],
    "ring_id": ["", 12, writer.b64(bytes(11)), writer.b64(bytes(13)), bytes(12).hex()],
    "sequence": [0, -1, 2**63, "1", True, 1.5],
    "policy": ["", 1, ["default"]],
    "primary": [0, 2, -1, "1", True],
    "moved_to": ["", "Vault", "1vault", "vault eu", 1],
    "versions": [[], {}, "1"],
    "extensions": [[], {"note": 1}, {"X-note": 1}, {"": 1}, "x-"],
}
_VERSION_FIELDS: dict[str, list[Any]] = {
    "version": [0, -1, 2**32, "1", True, 1.5],
    "state": ["", "Enabled", "active", "compromised", 1],
    "created": [
        "",
        1767250800,
        "2026-01-01",
        "2026-01-01 09:30:00Z",
        "2026-01-01T09:30:00",
        "2026-01-01T09:30:00+00:00",
        "2026-01-01T09:30:00.000Z",
        "2026-01-01T09:30Z",
        "2026-01-01t09:30:00z",
        "2026-02-30T09:30:00Z",
        "2026-01-01T24:00:00Z",
        "2026-01-01T09:30:60Z",
        "20260101T093000Z",
        "\u0662\u0660\u0662\u0666-01-01T09:30:00Z",
        "2026-01-01T09:30:00Z\n",
        "2026-01-01T09:30:00.123456Z",
    ],
    "origin": ["", "Generated", "derived", 1],
    "check": ["", 1, writer.b64(bytes(31)), writer.b64(bytes(33)), bytes(32).hex()],
    "request": ["", 1, []],
    "destroy_after": ["", 1, "2026-03-01", "2026-03-01T00:00:00+01:00"],
    "missing": [{}, "local:k2", [1], [None], ["k2"], [":k2"], ["local:"], ["Local:k2"]],
    "wraps": [[], {}, "x", [None], ["x"]],
}
_WRAP_FIELDS: dict[str, list[Any]] = {
    "kek": ["", "k1", "local:", ":k1", "Local:k1", "1local:k1", 1],
    "key_id": ["", 1],
    "key_version": ["", 7],
    "ciphertext": ["", 1],
}
_NULLABLE = {"primary", "moved_to", "request", "destroy_after", "key_version"}


# Fields whose invalid values would make the primary invalid too: then there is none, so that each
# vector has one fault.
_WITHOUT_PRIMARY = {"versions", "version", "state", "origin"}


def _setting(of: Callable[[Payload], Payload], **fields: Any) -> Callable[[Payload], object]:
    """A change of a payload that sets fields in one of its objects."""

    def change(payload: Payload) -> None:
        of(payload).update(fields)
        if _WITHOUT_PRIMARY & set(fields):
            payload["primary"] = None

    return change


def _dropping(of: Callable[[Payload], Payload], field: str) -> Callable[[Payload], object]:
    """A change of a payload that takes a field out of one of its objects."""
    return lambda payload: of(payload).pop(field)


def _ring_of(payload: Payload) -> Payload:
    return payload


def _version_of(payload: Payload) -> Payload:
    return payload["versions"][0]  # type: ignore[no-any-return]


def _wrap_of(payload: Payload) -> Payload:
    return payload["versions"][0]["wraps"][0]  # type: ignore[no-any-return]


def _invalid_payloads() -> list[dict[str, Any]]:
    vectors: list[dict[str, Any]] = []

    def add_bytes(name: str, shows: str, payload: bytes, tenant: str = "acme") -> None:
        document = writer.sign(_K1.auth_key, tenant, payload)
        vectors.append(
            _described(f"payload-{name}", shows, tenant, document, at="open", error="RingRejected")
        )

    def add(
        name: str,
        shows: str,
        change: Callable[[Payload], object],
        made: FixedRing | None = None,
    ) -> None:
        made = made or ring("acme")
        payload = copy.deepcopy(made.payload)
        change(payload)
        changed = writer.to_json(payload)
        assert changed != writer.to_json(made.payload), name
        add_bytes(name, shows, changed, made.tenant)

    for place, of, fields in (
        ("ring", _ring_of, _RING_FIELDS),
        ("version", _version_of, _VERSION_FIELDS),
        ("wrap", _wrap_of, _WRAP_FIELDS),
    ):
        add(f"{place}-unknown", f"an unknown field of a {place}",
            _setting(of, note=None))  # fmt: skip
        for field, values in fields.items():
            add(f"{place}-{field}-absent", f"{field} is absent",
                _dropping(of, field))  # fmt: skip
            for number, value in enumerate(values if field in _NULLABLE else [None, *values], 1):
                add(
                    f"{place}-{field}-{number}",
                    f"{field} is not valid: {json.dumps(value)[:60]}",
                    _setting(of, **{field: value}),
                )

    check = _version_of(ring("acme").payload)["check"]
    assert len(check) == 44
    for name, shows, value in (
        ("unpadded", "no padding", check.rstrip("=")),
        ("newline", "a newline within", check[:20] + "\n" + check[20:]),
        ("url-safe", "the URL-safe alphabet", "-_" + check[2:]),
        ("trailing-bits", "bits that nobody uses are set", check[:42] + _next(check[42]) + "="),
        ("more", "something after the padding", check + "AAAA"),
        ("space", "a leading space", " " + check),
    ):
        add(f"base64-{name}", f"base64: {shows}",
            _setting(_version_of, check=value))  # fmt: skip
    add("base64-ring-id", "ring id: base64 of the URL-safe alphabet",
        lambda p: p.update(ring_id="-_" + p["ring_id"][2:]))  # fmt: skip
    add("base64-ciphertext", "ciphertext: base64 without its padding",
        _setting(_wrap_of, ciphertext="QQ"))  # fmt: skip

    _add_invariants(add)

    good = writer.to_json(ring("acme").payload)
    for name, shows, payload in (
        ("empty", "no payload", b""),
        ("null", "null", b"null"),
        ("array", "an array", b"[" + good + b"]"),
        ("string", "a string", b'"payload"'),
        ("cut", "cut JSON", good[:-1]),
        ("two", "two values", good + good),
        ("trailing-text", "text after the value", good + b"x"),
        ("comment", "a comment", good + b"/**/"),
        ("single-quotes", "single quotes", good.replace(b'"', b"'")),
        ("trailing-comma", "a comma too many", good[:-1] + b",}"),
        ("latin-1", "not UTF-8", good.replace(b'"default"', b'"d\xe9fault"')),
        ("extension-latin-1", "an extension that is not UTF-8",
         good.replace(b"{}}", b'{"x-n":"\xe9"}}')),
        ("extension-surrogate", "a lone surrogate in an extension, escaped",
         good.replace(b"{}}", b'{"x-n":"\\ud800"}}')),
        ("surrogate", "a lone surrogate, escaped", good.replace(b'"default"', b'"d\\ud800"')),
        ("byte-order-mark", "a byte order mark", b"\xef\xbb\xbf" + good),
        ("utf-16", "UTF-16", good.decode().encode("utf-16")),
        ("not-a-number", "NaN is not JSON", good.replace(b"{}}", b'{"x-n":NaN}}')),
        ("surrogate-in-extension", "a lone surrogate, escaped, in an extension",
         good.replace(b"{}}", b'{"x-n":["\\udc00"]}}')),
        ("surrogate-in-extension-name", "a lone surrogate, escaped, in a name within an extension",
         good.replace(b"{}}", b'{"x-n":{"\\udc00":1}}}')),
        ("latin-1-in-extension", "not UTF-8 in an extension",
         good.replace(b"{}}", b'{"x-n":["\xe9"]}}')),
        ("latin-1-in-spaced-extension", "not UTF-8 in an extension, with white space",
         good.replace(b"{}}", b'{"x-n": ["\xe9"]}}')),
        ("deep", "nested too deep", good.replace(b"{}}", b'{"x-n":' + b"[" * 3_000)),
    ):  # fmt: skip
        assert payload != good, name
        add_bytes(f"json-{name}", f"JSON: {shows}", payload)
    return vectors


def _next(char: str) -> str:
    """The base64 digit after `char`: the unused low bits of a last digit are zero before it."""
    digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    return digits[digits.index(char) + 1]


def _add_invariants(add: Callable[..., None]) -> None:
    two = ring("acme", 2)
    states = ring_of_states()

    def version(payload: Payload, number: int) -> Payload:
        return payload["versions"][number - 1]  # type: ignore[no-any-return]

    def of(number: int) -> Callable[[Payload], Payload]:
        return lambda payload: version(payload, number)

    add("versions-descending", "versions descend", lambda p: p["versions"].reverse(), two)
    add("versions-twice", "a version number twice",
        _setting(of(1), version=2), two)  # fmt: skip
    add("primary-absent", "the primary is no version of the ring",
        _setting(_ring_of, primary=3), two)  # fmt: skip
    for number, shows in ((1, "disabled"), (2, "scheduled"), (3, "destroyed"), (4, "imported")):
        add(f"primary-{shows}", f"the primary is {shows}",
            _setting(_ring_of, primary=number), states)  # fmt: skip
    add("scheduled-when", "scheduled without saying when",
        _setting(of(2), destroy_after=None), states)  # fmt: skip
    for number, shows in ((1, "disabled"), (5, "enabled")):
        add(f"{shows}-when", f"{shows}, with a time of destruction",
            _setting(of(number), destroy_after="2026-03-01T00:00:00Z"), states)  # fmt: skip
    add("destroyed-wraps", "destroyed, with a wrap",
        lambda p: version(p, 3).update(wraps=version(p, 1)["wraps"]), states)  # fmt: skip
    for number, shows in ((1, "disabled"), (2, "scheduled"), (5, "enabled")):
        add(f"{shows}-no-wraps", f"{shows}, without a wrap",
            _setting(of(number), wraps=[]), states)  # fmt: skip
    add("wraps-twice", "two wraps under one KEK",
        lambda p: version(p, 1)["wraps"].append(version(p, 1)["wraps"][0]), two)  # fmt: skip
    add("wraps-seventeen", "17 wraps of one version",
        lambda p: version(p, 1)["wraps"].extend(_foreign(f"far:k{n}") for n in range(16)),
        two)  # fmt: skip


# --- invalid: found when a key is unwrapped ---------------------------------------------------


def _invalid_wraps() -> list[dict[str, Any]]:
    made = ring("acme")
    key = made.keys[1]
    other_key = fixed("another tenant key", 32)
    k2 = MASTERS["local:k2"]

    def rewrapped(key: bytes, tenant: str, ring_id: bytes, version: int, master: MasterKey) -> str:
        salt = fixed("a wrap that does not fit", 16)
        return writer.b64(writer.wrap_local(master, key, tenant, ring_id, version, salt))

    good = (key, "acme", made.ring_id, 1, _K1)
    raw = writer.wrap_local(_K1, key, "acme", made.ring_id, 1, fixed("edited", 16))

    cases: list[tuple[str, str, str, Payload, Payload]] = [
        ("tenant", "wrapped for another tenant", "DecryptionFailed",
         {"ciphertext": rewrapped(key, "beta", *good[2:])}, {}),
        ("ring", "wrapped for another ring", "DecryptionFailed",
         {"ciphertext": rewrapped(key, "acme", bytes(12), 1, _K1)}, {}),
        ("version", "wrapped for another version", "DecryptionFailed",
         {"ciphertext": rewrapped(key, "acme", made.ring_id, 2, _K1)}, {}),
        ("master", "wrapped by another master key under this one's id", "DecryptionFailed",
         {"ciphertext": rewrapped(key, "acme", made.ring_id, 1, k2)}, {}),
        ("edited", "an edited wrap", "DecryptionFailed",
         {"ciphertext": writer.b64(raw[:-1] + bytes([raw[-1] ^ 1]))}, {}),
        ("short", "a wrap cut short", "DecryptionFailed", {"ciphertext": writer.b64(raw[:-1])}, {}),
        ("key-id", "another master key, named by its id", "KeyNotFound",
         {"key_id": k2.key_id}, {}),
        ("check", "a check value of another key", "RingRejected", {},
         {"check": writer.b64(check_value(other_key, "acme", made.ring_id, 1))}),
        ("check-version", "a check value of another version", "RingRejected", {},
         {"check": writer.b64(check_value(key, "acme", made.ring_id, 2))}),
        ("key", "a wrap that holds another key than the check value's", "RingRejected",
         {"ciphertext": rewrapped(other_key, *good[1:])}, {}),
    ]  # fmt: skip
    vectors = []
    for name, shows, error, wrap_change, version_change in cases:
        payload = copy.deepcopy(made.payload)
        _wrap_of(payload).update(wrap_change)
        _version_of(payload).update(version_change)
        vectors.append(
            _described(
                f"unwrap-{name}", shows, "acme", sign("acme", payload), at="unwrap", error=error
            )
        )
    return vectors
