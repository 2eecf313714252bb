"""An independent reader of key rings and messages, written from `docs/spec/` alone.

It imports the standard library and `cryptography` and nothing else, so that it can disagree with
the package. It favours plainness over speed: no cache, no I/O, one function a rule.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any, NoReturn

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

MAX_CONTEXT = 64 * 1024
MAX_PLAINTEXT = 64 * 1024 * 1024
MAX_DOCUMENT = 256 * 1024
MAX_WRAPS = 16
MAX_VERSION = 2**32 - 1
MAX_SEQUENCE = 2**63 - 1
MIN_MASTER_KEY = 32
OVERHEAD = 96

_TENANT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,119}")
_BACKEND = re.compile(r"[a-z][a-z0-9+.-]*")
_RING_HEADER = re.compile(rb"sentra-ring 1 ([0-9a-f]{16}) ([0-9a-f]{64})\n")
_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z")
_LOCAL_MAGIC = b"SKW\x01\x00"


class ReadError(Exception):
    """Base of the reader's errors; each subclass has the name of the package's own."""


class ConfigurationError(ReadError):
    """A master key or an authentication key cannot be used."""


class MalformedInput(ReadError):  # noqa: N818 - the package's name
    """An argument is not of the right form."""


class DecryptionFailed(ReadError):  # noqa: N818 - the package's name
    """The message, or a wrap, does not open."""


class KeyNotFound(ReadError):  # noqa: N818 - the package's name
    """The ring never had the version, or the KEK is another one."""


class KeyUnavailable(ReadError):  # noqa: N818 - the package's name
    """The version exists but is not enabled."""


class RingRejected(ReadError):  # noqa: N818 - the package's name
    """The ring document is not authentic or not of the right form."""


# --- the ground -------------------------------------------------------------------------------


def u32(number: int) -> bytes:
    """Four bytes, big-endian."""
    return number.to_bytes(4, "big")


def lp(data: bytes) -> bytes:
    """Length-prefix: `u32be length ‖ data`."""
    return u32(len(data)) + data


def derive(key: bytes, label: str, data: bytes, size: int) -> bytes:
    """HKDF-Expand-SHA512 (RFC 5869 section 2.3), written out, under the project's label rule."""
    info = b"sentra-kms/" + label.encode("ascii") + b"\x00" + data
    out = block = b""
    counter = 1
    while len(out) < size:
        block = hmac.digest(key, block + info + bytes([counter]), hashlib.sha512)
        out += block
        counter += 1
    return out[:size]


def check_tenant(tenant: object) -> str:
    """Return the tenant id if it keeps the rule."""
    if type(tenant) is not str or _TENANT.fullmatch(tenant) is None:
        raise MalformedInput("not a tenant id")
    return tenant


def encode_context(context: object) -> bytes:
    """Return the canonical bytes of a message's context."""
    if context is None:
        return b""
    if type(context) is bytes:
        encoded = b"\x01" + context
    elif isinstance(context, Mapping):
        pairs = [(_context_text(key), _context_text(value)) for key, value in context.items()]
        encoded = b"\x02" + b"".join(lp(key) + lp(value) for key, value in sorted(pairs))
    else:
        raise MalformedInput("a context is None, bytes or a mapping")
    if len(encoded) > MAX_CONTEXT:
        raise MalformedInput("the context is too long")
    return encoded


def _context_text(text: object) -> bytes:
    if type(text) is not str:
        raise MalformedInput("a context's keys and values are str")
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError:
        raise MalformedInput("lone surrogate") from None


# --- key-encryption keys made of a master key -------------------------------------------------


@dataclass(frozen=True, repr=False)
class MasterKey:
    """What the local backend derives from one master key."""

    prk: bytes
    key_id: str
    auth_key: bytes

    @classmethod
    def read(cls, raw: bytes) -> MasterKey:
        """Make it of a master key as its source holds it."""
        key = strip_newline(raw)
        if len(key) < MIN_MASTER_KEY:
            raise ConfigurationError("the master key is shorter than 32 bytes")
        prk = hmac.digest(b"sentra-kms/local/v1", key, hashlib.sha512)  # HKDF-Extract
        key_id = derive(prk, "local/key-id/v1", b"", 8).hex()
        return cls(prk, key_id, derive(prk, "local/ring-auth/v1", b"", 32))


def strip_newline(raw: bytes) -> bytes:
    """Drop one trailing LF or CRLF, if everything before it is 0x20 to 0x7E."""
    for ending in (b"\r\n", b"\n"):
        body = raw.removesuffix(ending)
        if body != raw and all(0x20 <= byte <= 0x7E for byte in body):
            return body
    return raw


def allowed_outside_development(raw: bytes) -> bool:
    """Whether a master key passes the net against pass-phrases."""
    try:
        text = strip_newline(raw).decode("utf-8")
    except UnicodeDecodeError:
        return True
    if any(unicodedata.category(char) == "Cc" and not char.isspace() for char in text):
        return True
    if re.fullmatch(r"[0-9A-Fa-f]{64,}", text):
        return True
    if not re.fullmatch(r"[A-Za-z0-9+/_-]+={0,2}", text):
        return False
    digits = text.rstrip("=").replace("-", "+").replace("_", "/")
    try:
        data = base64.b64decode(digits + "=" * (-len(digits) % 4), validate=True)
    except binascii.Error:
        return False
    return len(data) >= MIN_MASTER_KEY


def wrap_context(tenant: str, ring_id: bytes, version: int) -> bytes:
    """The canonical bytes that bind a wrap to tenant, ring and version."""
    return b"sentra-kms/wrap/v1\x00" + lp(tenant.encode()) + ring_id + u32(version)


def wrap_context_pairs(tenant: str, ring_id: bytes, version: int) -> dict[str, str]:
    """The same binding as pairs of text."""
    return {
        "sentra-kms:format": "sentra-kms/wrap/v1",
        "sentra-kms:tenant": tenant,
        "sentra-kms:ring": ring_id.hex(),
        "sentra-kms:version": str(version),
    }


def unwrap_local(master: MasterKey, key_id: str, ciphertext: bytes, context: bytes) -> bytes:
    """Unwrap a tenant key that a master key wrapped."""
    if key_id != master.key_id:
        raise KeyNotFound(f"wrapped by master key {key_id}, this is {master.key_id}")
    if len(ciphertext) != 69 or ciphertext[:5] != _LOCAL_MAGIC:
        raise DecryptionFailed("not a local wrap")
    once = derive(master.prk, "local/wrap/v1", ciphertext[5:21] + lp(context), 44)
    return _open(once[:32], once[32:], ciphertext[21:], b"")


def split_onetime(ciphertext: bytes) -> tuple[int, bytes, bytes]:
    """Split a one-time-key wrap into its algorithm, the encrypted one-time key and the sealed."""
    if len(ciphertext) < 7 or ciphertext[:4] != b"SKW\x01" or ciphertext[4] not in (1, 2):
        raise DecryptionFailed("not a one-time-key wrap")
    size = int.from_bytes(ciphertext[5:7], "big")
    fits = size == 40 if ciphertext[4] == 2 else size >= 256
    if not fits or len(ciphertext) != 7 + size + 48:
        raise DecryptionFailed("not a one-time-key wrap")
    return ciphertext[4], ciphertext[7 : 7 + size], ciphertext[7 + size :]


def unwrap_onetime(once: bytes, kek_version_id: str, ciphertext: bytes, context: bytes) -> bytes:
    """Unwrap with a one-time key that the KEK has decrypted already."""
    if len(once) != 32:
        raise DecryptionFailed("a one-time key has 32 bytes")
    _, encrypted, sealed = split_onetime(ciphertext)
    data = lp(kek_version_id.encode()) + lp(encrypted) + lp(context)
    key = derive(once, "wrap-onetime/v1", data, 44)
    return _open(key[:32], key[32:], sealed, b"")


def _open(key: bytes, nonce: bytes, sealed: bytes, associated: bytes) -> bytes:
    try:
        return AESGCM(key).decrypt(nonce, sealed, associated)
    except InvalidTag:
        raise DecryptionFailed("does not open") from None


# --- key rings --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Wrap:
    """One wrap of one version."""

    kek: str
    key_id: str
    key_version: str | None
    ciphertext: bytes


@dataclass(frozen=True)
class Version:
    """One version of a ring."""

    number: int
    state: str
    created: datetime
    origin: str
    check: bytes
    request: str | None
    destroy_after: datetime | None
    missing: tuple[str, ...]
    wraps: tuple[Wrap, ...]


@dataclass(frozen=True)
class Ring:
    """A ring whose document was authenticated and whose payload keeps every rule."""

    mac: bytes
    tenant: str
    ring_id: bytes
    sequence: int
    policy: str
    primary: int | None
    moved_to: str | None
    versions: dict[int, Version]
    extensions: dict[str, Any]


def file_name(tenant: str) -> str:
    """The name of a tenant's ring file."""
    name = "".join(f"={c.lower()}" if "A" <= c <= "Z" else c for c in check_tenant(tenant))
    return f"{name}.ring"


def auth_id(auth_key: bytes) -> bytes:
    """The id under which a ring names the key that authenticates it."""
    return derive(auth_key, "ring-auth-id/v1", b"", 8)


def ring_mac(auth_key: bytes, tenant: str, payload: bytes) -> bytes:
    """The MAC over a ring's header, without the MAC itself, and its payload."""
    key = derive(auth_key, "ring-mac/v1", lp(tenant.encode()), 32)
    head = b"sentra-ring 1 " + auth_id(auth_key).hex().encode() + b"\n"
    return hmac.digest(key, head + payload, hashlib.sha512)[:32]


def open_ring(
    document: bytes, tenant: str, auth_keys: Iterable[bytes], *, seen: Ring | None = None
) -> Ring:
    """Authenticate a ring document, then parse it.

    `seen` is the ring of highest sequence that this reader has met for the tenant.
    """
    mac, payload = authenticate(document, check_tenant(tenant), auth_keys)
    ring = _ring(mac, _json(payload))
    if ring.tenant != tenant:
        _reject("the ring is another tenant's")
    if seen is not None and ring.sequence < seen.sequence:
        _reject("the ring is older than one seen before")
    if seen is not None and ring.sequence == seen.sequence and ring.mac != seen.mac:
        _reject("the ring is another one of a sequence seen before")
    return ring


def authenticate(document: bytes, tenant: str, auth_keys: Iterable[bytes]) -> tuple[bytes, bytes]:
    """Return MAC and payload of a document whose size, header, auth id and MAC are right."""
    if len(document) > MAX_DOCUMENT:
        _reject("longer than 256 KiB")
    header = _RING_HEADER.match(document)
    if header is None:
        _reject("no header line of format 1")
    named, mac = (bytes.fromhex(part.decode()) for part in header.groups())
    payload = document[header.end() :]
    for key in auth_keys:
        if len(key) != 32:
            raise ConfigurationError("an authentication key has 32 bytes")
        if hmac.compare_digest(auth_id(key), named):
            if hmac.compare_digest(ring_mac(key, tenant, payload), mac):
                return mac, payload
            _reject("the MAC is wrong")
    _reject("no configured key has this auth id")


def _reject(why: str) -> NoReturn:
    raise RingRejected(why)


def _json(payload: bytes) -> object:
    try:
        value = json.loads(payload.decode("utf-8"), parse_constant=_reject)
        json.dumps(value, ensure_ascii=False).encode("utf-8")  # fails on any lone surrogate
    except (ValueError, RecursionError):
        _reject("the payload is not JSON in UTF-8")
    return value


def _ring(mac: bytes, value: object) -> Ring:
    fields = _fields(
        value,
        "format tenant ring_id sequence policy primary moved_to versions extensions",
    )
    if _integer(fields["format"], 1, 2**31) != 1:
        _reject("unknown payload format")
    tenant = _text(fields["tenant"])
    if _TENANT.fullmatch(tenant) is None:
        _reject("tenant")
    versions = [_version(item) for item in _array(fields["versions"])]
    numbers = [version.number for version in versions]
    if not numbers or any(a >= b for a, b in pairwise(numbers)):
        _reject("versions are not ascending")
    by_number = dict(zip(numbers, versions, strict=True))
    primary = _optional(fields["primary"], lambda value: _integer(value, 1, MAX_VERSION))
    if primary is not None:
        version = by_number.get(primary)
        if version is None or (version.state, version.origin) != ("enabled", "generated"):
            _reject("the primary is not an enabled, generated version")
    moved_to = _optional(fields["moved_to"], _text)
    if moved_to is not None and _BACKEND.fullmatch(moved_to) is None:
        _reject("moved_to is not a backend's name")
    extensions = fields["extensions"]
    if not isinstance(extensions, dict) or not all(key.startswith("x-") for key in extensions):
        _reject("extensions")
    return Ring(
        mac,
        tenant,
        _base64(fields["ring_id"], 12),
        _integer(fields["sequence"], 1, MAX_SEQUENCE),
        _filled(fields["policy"]),
        primary,
        moved_to,
        by_number,
        extensions,
    )


def _version(value: object) -> Version:
    fields = _fields(
        value,
        "version state created origin check request destroy_after missing wraps",
    )
    version = Version(
        _integer(fields["version"], 1, MAX_VERSION),
        _one_of(fields["state"], "enabled", "disabled", "scheduled", "destroyed"),
        _time(fields["created"]),
        _one_of(fields["origin"], "generated", "imported"),
        _base64(fields["check"], 32),
        _optional(fields["request"], _filled),
        _optional(fields["destroy_after"], _time),
        tuple(_kek(item) for item in _array(fields["missing"])),
        tuple(_wrap(item) for item in _array(fields["wraps"])),
    )
    if version.state == "scheduled" and version.destroy_after is None:
        _reject("a scheduled version says when")
    if version.state in ("enabled", "disabled") and version.destroy_after is not None:
        _reject("only a scheduled or destroyed version says when")
    if (version.state == "destroyed") != (not version.wraps):
        _reject("a destroyed version has no wraps, any other at least one")
    keks = [wrap.kek for wrap in version.wraps]
    if len(keks) > MAX_WRAPS or len(set(keks)) != len(keks):
        _reject("more than 16 wraps, or one KEK twice")
    return version


def _wrap(value: object) -> Wrap:
    fields = _fields(value, "kek key_id key_version ciphertext")
    return Wrap(
        _kek(fields["kek"]),
        _filled(fields["key_id"]),
        _optional(fields["key_version"], _filled),
        _base64(fields["ciphertext"], None),
    )


def _fields(value: object, names: str) -> dict[str, Any]:
    if not isinstance(value, dict) or set(value) != set(names.split()):
        _reject("a field is missing or unknown")
    return value


def _array(value: object) -> list[Any]:
    if not isinstance(value, list):
        _reject("not an array")
    return value


def _integer(value: object, low: int, high: int) -> int:
    if type(value) is not int or not low <= value <= high:
        _reject("not an integer within its bounds")
    return value


def _text(value: object) -> str:
    if not isinstance(value, str):
        _reject("not a string")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        _reject("lone surrogate")
    return value


def _filled(value: object) -> str:
    return _text(value) or _reject("an empty string")


def _one_of(value: object, *allowed: str) -> str:
    if value not in allowed:
        _reject("an unknown name")
    return str(value)


def _optional(value: object, read: Any) -> Any:
    return None if value is None else read(value)


def _kek(value: object) -> str:
    text = _text(value)
    backend, colon, key = text.partition(":")
    if not colon or not key or _BACKEND.fullmatch(backend) is None:
        _reject("a KEK is named BACKEND:KEY")
    return text


def _base64(value: object, size: int | None) -> bytes:
    text = _text(value)
    try:
        data = base64.b64decode(text, validate=True)
    except (ValueError, binascii.Error):
        _reject("not base64")
    if base64.b64encode(data).decode() != text or not data:
        _reject("not canonical base64")
    if size is not None and len(data) != size:
        _reject("wrong length")
    return data


def _time(value: object) -> datetime:
    text = _text(value)
    if _TIME.fullmatch(text) is None:
        _reject("not an RFC 3339 time to the second with Z")
    try:
        return datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    except ValueError:
        _reject("no such time")


# --- tenant keys and messages -----------------------------------------------------------------


def check_value(key: bytes, tenant: str, ring_id: bytes, version: int) -> bytes:
    """The value by which a ring commits to the key of a version."""
    return derive(key, "key-check/v1", lp(tenant.encode()) + ring_id + u32(version), 32)


def tenant_key(ring: Ring, number: int, masters: Mapping[str, MasterKey]) -> bytes:
    """Return the key of a version from the first of the KEKs in `masters` that gives it."""
    version = ring.versions[number]
    wraps = {wrap.kek: wrap for wrap in version.wraps}
    failures: list[ReadError] = []
    for kek, master in masters.items():
        if kek in wraps:
            try:
                return _unwrap_one(ring, version, wraps[kek], master)
            except ReadError as error:
                failures.append(error)
    raise failures[0] if failures else KeyNotFound("no KEK of this version is at hand")


def _unwrap_one(ring: Ring, version: Version, wrap: Wrap, master: MasterKey) -> bytes:
    context = wrap_context(ring.tenant, ring.ring_id, version.number)
    key = unwrap_local(master, wrap.key_id, wrap.ciphertext, context)
    expected = check_value(key, ring.tenant, ring.ring_id, version.number)
    if not hmac.compare_digest(expected, version.check):
        _reject("the unwrapped key is not the one that the check value names")
    return key


def check_form(message: bytes) -> None:
    """Refuse what is not a message of format 1, suite 1; needs no key and no ring."""
    if not OVERHEAD <= len(message) <= OVERHEAD + MAX_PLAINTEXT:
        raise MalformedInput("wrong length")
    if message[0:2] != b"SK":
        raise MalformedInput("wrong magic")
    if message[2] != 1:
        raise MalformedInput("unknown format")
    if message[3] != 1:
        raise MalformedInput("unknown suite")


def decrypt(ring: Ring, message: bytes, context: object, masters: Mapping[str, MasterKey]) -> bytes:
    """Open a message of the ring's tenant, with the checks in the order of the specification."""
    associated = encode_context(context)
    check_form(message)
    if message[4:16] != ring.ring_id:
        raise DecryptionFailed("does not open")
    number = int.from_bytes(message[16:20], "big")
    version = ring.versions.get(number)
    if version is None:
        raise KeyNotFound(f"the ring never had version {number}")
    if version.state != "enabled":
        raise KeyUnavailable(f"version {number} is {version.state}")
    if version.origin != "generated":
        raise DecryptionFailed("does not open")
    key = tenant_key(ring, number, masters)
    subkey, commitment = message_keys(key, ring.tenant, message[:36])
    if not hmac.compare_digest(commitment, message[36:68]):
        raise DecryptionFailed("does not open")
    return _open(subkey, message[68:80], message[80:], associated)


def message_keys(key: bytes, tenant: str, head: bytes) -> tuple[bytes, bytes]:
    """The subkey and commitment for a header and salt, the first 36 bytes of a message."""
    out = derive(key, "message/v1", lp(tenant.encode()) + head, 64)
    return out[:32], out[32:]
