"""Master keys: how they are read, refused, named, and used to wrap."""

from __future__ import annotations

import base64
import hashlib
import hmac
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st

import sentra_kms
from sentra_kms.backends.local import LocalSettings, create
from sentra_kms.backends.master_key import MasterKey, read_master_key
from sentra_kms.context import WrapContext
from sentra_kms.encoding import lp
from sentra_kms.errors import (
    ConfigurationError,
    DecryptionFailed,
    KeyNotFound,
    KMSError,
    MalformedInput,
    RingRejected,
)
from sentra_kms.hooktypes import WrappedKey
from sentra_kms.material import KeyMaterial
from sentra_kms.reference import Reference
from tests.backends.hosts import make_host
from tests.conftest import MASTER_KEYS, ConfigFactory
from tests.ground.leaks import everything, locals_inside

WHERE = WrapContext("acme", bytes(range(12)), 7)
KEY = KeyMaterial(bytes(range(32)))
RANDOM = bytes.fromhex("8f3b" * 16)
NAME = "master key 'local:2026-11' (file:///run/key)"


def read(raw: bytes, *, development: bool = False) -> MasterKey:
    """Read a master key as a backend does."""
    return read_master_key(KeyMaterial(raw), where=NAME, development=development)


def key_id(raw: bytes) -> str:
    """Return the id of the KEK that these bytes make, by the standard library alone."""
    prk = hmac.new(b"sentra-kms/local/v1", raw, hashlib.sha512).digest()
    info = b"sentra-kms/local/key-id/v1\x00"
    return hmac.new(prk, info + b"\x01", hashlib.sha512).digest()[:8].hex()


# --- what is taken -----------------------------------------------------------------------------


HEX = RANDOM.hex()
BASE64 = base64.b64encode(bytes(range(220, 252))).decode("ascii")
URL_SAFE = base64.urlsafe_b64encode(b"\xfb\xff" * 16).decode("ascii")

ACCEPTED = {
    "32 random bytes": RANDOM,
    "33 random bytes": RANDOM + b"\x00",
    "64 random bytes": RANDOM * 2,
    "zeros, which are not text": bytes(32),
    "bytes that no UTF-8 text has": b"\xff" * 32,
    "hex of 64 digits": HEX.encode(),
    "hex in capitals": HEX.upper().encode(),
    "hex of mixed case": (HEX[:32].upper() + HEX[32:]).encode(),
    "hex of 128 digits": (HEX * 2).encode(),
    "hex of 65 digits": (HEX + "0").encode(),
    "base64": BASE64.encode(),
    "base64 without padding": BASE64.rstrip("=").encode(),
    "base64, URL-safe": URL_SAFE.encode(),
    "base64, URL-safe, without padding": URL_SAFE.rstrip("=").encode(),
    "base64 of 33 bytes": base64.b64encode(bytes(33)),
    "base64 of 34 bytes": base64.b64encode(bytes(34)),
    "base64 of 64 bytes": base64.b64encode(RANDOM * 2),
}


@pytest.mark.parametrize("development", [False, True])
@pytest.mark.parametrize("raw", ACCEPTED.values(), ids=ACCEPTED)
def test_key_is_used_as_it_is(raw: bytes, development: bool) -> None:  # noqa: FBT001
    """A master key is opaque bytes: text that encodes a key is never decoded."""
    assert read(raw, development=development).key_id == key_id(raw)


@pytest.mark.parametrize("ending", [b"\n", b"\r\n"])
@pytest.mark.parametrize("raw", [HEX.encode(), BASE64.encode(), URL_SAFE.encode()])
def test_one_newline_after_text_is_dropped(raw: bytes, ending: bytes) -> None:
    """What an editor or `echo` put behind a key is no part of it."""
    assert read(raw + ending).key_id == key_id(raw)


@pytest.mark.parametrize("ending", [b"\n", b"\r\n"])
@pytest.mark.parametrize(
    "body",
    [b"\x00" * 31 + b"x", RANDOM, b"x" * 31 + b"\x7f", b"x" * 31 + b"\x1f", b"\xc3\xbc" * 16],
)
def test_newline_after_binary_stays(body: bytes, ending: bytes) -> None:
    """Bytes that are not all printable ASCII may end in 0x0A by chance."""
    assert read(body + ending, development=True).key_id == key_id(body + ending)


@pytest.mark.parametrize("edge", [b" ", b"~"])
def test_printable_is_from_0x20_to_0x7e(edge: bytes) -> None:
    """The borders of what counts as printable belong to it."""
    body = b"x" * 31 + edge
    assert read(body + b"\n", development=True).key_id == key_id(body)


def test_binary_key_that_ends_in_0x0a() -> None:
    """A random key of 32 bytes whose last is 0x0A stays whole."""
    raw = RANDOM[:31] + b"\n"
    assert read(raw).key_id == key_id(raw)


@pytest.mark.parametrize("ending", [b"\n\n", b"\r\n\r\n", b"\n\r\n", b"\r\n\n"])
def test_newline_is_dropped_once_only(ending: bytes) -> None:
    """Behind two newlines the rest is not all printable, so nothing is dropped."""
    raw = b"x" * 32 + ending
    assert read(raw, development=True).key_id == key_id(raw)


@pytest.mark.parametrize("ending", [b"\r", b" ", b"\t", b"\x00", b"\n "])
def test_nothing_else_is_dropped(ending: bytes) -> None:
    """Neither a lone CR nor a blank is a newline."""
    raw = b"x" * 32 + ending
    assert read(raw, development=True).key_id == key_id(raw)


@pytest.mark.parametrize("start", [b"\n", b" ", b"\xef\xbb\xbf"])
def test_nothing_is_dropped_in_front(start: bytes) -> None:
    """What stands before a key is part of it."""
    raw = start + b"x" * 32
    assert read(raw, development=True).key_id == key_id(raw)


# --- what is refused ---------------------------------------------------------------------------


@pytest.mark.parametrize("development", [False, True])
@pytest.mark.parametrize(
    ("raw", "size"),
    [
        (b"", 0),
        (b"\n", 0),
        (b"x", 1),
        (RANDOM[:31], 31),
        (b"x" * 31, 31),
        (b"x" * 31 + b"\n", 31),
        (b"x" * 31 + b"\r\n", 31),
        (b"x" * 30 + b"\r\n", 30),
        (base64.b64encode(bytes(21)), 28),
        (bytes(15).hex().encode(), 30),
    ],
)
def test_short_key(raw: bytes, size: int, development: bool) -> None:  # noqa: FBT001
    """Fewer than 32 bytes are refused everywhere, with the size, the key's name and a remedy."""
    with pytest.raises(ConfigurationError) as caught:
        read(raw, development=development)
    assert f"has {size} bytes, it needs 32" in caught.value.message
    assert NAME in caught.value.message
    assert "sentra-kms keygen" in caught.value.message


REFUSED = {
    "a pass-phrase": b"correct horse battery staple, and then some",
    "a pass-phrase and a newline": b"correct horse battery staple, and then some\n",
    "a pass-phrase and two newlines": b"correct horse battery staple, and then some\n\n",
    "a pass-phrase of several lines": b"correct horse\nbattery staple\nand then some\n",
    "a pass-phrase with tabs": b"correct\thorse\tbattery\tstaple\tand\tthen\tsome",
    "a German pass-phrase": "richtig öde Größe über schöne Bäume im Frühling".encode(),
    "a Greek pass-phrase": "σωστό άλογο μπαταρία συνδετήρας".encode(),
    "a Chinese pass-phrase": "正确的马电池订书钉还有更多的字".encode(),
    "an emoji pass-phrase": "🐎🔋📎✅🐎🔋📎✅🐎🔋".encode(),
    "a pass-phrase with a byte order mark": b"\xef\xbb\xbf" + "größe, größe, größe, größe".encode(),
    "one character": b"x" * 32 + b"!",
    "hex of 63 digits": HEX[:-1].encode() + b" ",
    "hex with 0x": b"0x" + HEX.encode() + b"!",
    "hex in groups": " ".join(HEX[i : i + 4] for i in range(0, 64, 4)).encode(),
    "hex with colons": ":".join(HEX[i : i + 2] for i in range(0, 64, 2)).encode(),
    "base64 of 31 bytes": base64.b64encode(bytes(31)),
    "base64 of 24 bytes": base64.b64encode(bytes(24)),
    "base64 with blanks": BASE64[:20].encode() + b" " + BASE64[20:].encode(),
    "base64 in lines": BASE64[:20].encode() + b"\n" + BASE64[20:].encode() + b"\n",
    "base64 with a foreign character": BASE64[:-2].encode() + b"*=",
    "base64 of an impossible length": b"A" * 45,
    "base64 with padding in the middle": b"A" * 22 + b"==" + b"A" * 22,
    "base64 with three padding characters": b"A" * 41 + b"===",
    "a UUID": b"123e4567-e89b-12d3-a456-426614174000!",
    "a PEM header": b"-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2Vw\n",
    "a URL": b"postgres://user:password@host/database",
    "JSON": b'{"key": "c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0"}',
}


@pytest.mark.parametrize("raw", REFUSED.values(), ids=REFUSED)
def test_text_that_is_no_encoded_key_outside_development(raw: bytes) -> None:
    """Outside development text must encode a key; in development it is taken as it is."""
    with pytest.raises(ConfigurationError, match="neither hex") as caught:
        read(raw)
    assert NAME in caught.value.message
    assert "sentra-kms keygen" in caught.value.message
    assert read(raw, development=True).key_id


@pytest.mark.parametrize("raw", [*REFUSED.values(), b"planted-short"], ids=[*REFUSED, "short"])
def test_refusal_shows_nothing_of_the_key(raw: bytes) -> None:
    """Neither the message, nor what the error refers to, nor a frame's locals show the key."""
    source = KeyMaterial(raw)
    with pytest.raises(ConfigurationError) as caught:
        read_master_key(source, where=NAME, development=False)
    error = caught.value
    assert error.__cause__ is None
    assert error.__context__ is None
    shown = f"{error} {error!r} {vars(error)!r} {locals_inside(error)}"
    assert "KeyMaterial(redacted)" in shown
    stripped = raw.strip()
    for size in (6, 12):
        for start in range(0, len(stripped) - size + 1, size):
            piece = stripped[start : start + size]
            if len(set(piece)) < 3:
                continue  # such as padding, which stands anywhere
            assert piece.decode("utf-8", "ignore") not in shown
            assert piece.hex() not in shown
            assert repr(piece)[2:-1] not in shown


@given(st.binary(max_size=80), st.booleans())
def test_every_key_is_taken_or_refused(raw: bytes, development: bool) -> None:  # noqa: FBT001
    """Whatever the bytes, there is a KEK or a `ConfigurationError`, and the size decides first."""
    try:
        made = read(raw, development=development)
    except ConfigurationError:
        assert len(raw) < 34 or not development
    else:
        assert len(raw) >= 32
        assert made.key_id in {
            key_id(raw),
            key_id(raw.removesuffix(b"\n")),
            key_id(raw.removesuffix(b"\r\n")),
        }


@given(st.binary(min_size=32, max_size=80))
def test_base64_and_hex_of_every_key_are_taken(raw: bytes) -> None:
    """Every key of 32 bytes or more is accepted in each of its usual forms."""
    forms = [
        base64.b64encode(raw),
        base64.b64encode(raw).rstrip(b"="),
        base64.urlsafe_b64encode(raw),
        base64.urlsafe_b64encode(raw).rstrip(b"="),
        raw.hex().encode(),
        raw.hex().upper().encode(),
    ]
    for form in forms:
        assert read(form).key_id == key_id(form)
        assert read(form + b"\n").key_id == key_id(form)


# --- KEKs --------------------------------------------------------------------------------------


def test_wrap_by_the_specification() -> None:
    """A wrap is what the specification says, recomputed with the standard library and AES-GCM."""
    wrapped = read(RANDOM).wrap(KEY, WHERE)
    assert (wrapped.key_id, wrapped.key_version) == (key_id(RANDOM), None)
    blob = wrapped.ciphertext
    assert len(blob) == 5 + 16 + 48
    assert blob[:5] == b"SKW\x01\x00"
    prk = hmac.new(b"sentra-kms/local/v1", RANDOM, hashlib.sha512).digest()
    info = b"sentra-kms/local/wrap/v1\x00" + blob[5:21] + lp(WHERE.canonical) + b"\x01"
    once = hmac.new(prk, info, hashlib.sha512).digest()[:44]
    assert AESGCM(once[:32]).decrypt(once[32:], blob[21:], None) == KEY.reveal()


def test_wraps_never_repeat() -> None:
    """Each wrap has a salt of its own."""
    key = read(RANDOM)
    assert len({key.wrap(KEY, WHERE).ciphertext for _ in range(50)}) == 50


def test_every_flipped_bit_is_refused() -> None:
    """A wrap that was changed anywhere does not open, and nothing of it is shown."""
    key = read(RANDOM)
    wrapped = key.wrap(KEY, WHERE)
    for index in range(len(wrapped.ciphertext)):
        changed = bytearray(wrapped.ciphertext)
        changed[index] ^= 1
        with pytest.raises(DecryptionFailed) as caught:
            key.unwrap("local:k", WrappedKey(bytes(changed), key.key_id, None), WHERE)
        assert "local:k" in caught.value.message
        assert caught.value.__cause__ is None


@pytest.mark.parametrize("size", [*range(68), 70, 200])
def test_wrap_of_another_size_is_refused(size: int) -> None:
    """A wrap that was cut or continued is none."""
    key = read(RANDOM)
    blob = key.wrap(KEY, WHERE).ciphertext
    other = (blob + bytes(200))[:size]
    assert len(blob) == 69
    with pytest.raises(DecryptionFailed, match="not a local wrap"):
        key.unwrap("local:k", WrappedKey(other, key.key_id, None), WHERE)


@pytest.mark.parametrize("size", [0, 16, 31, 33, 64])
def test_only_tenant_keys_are_wrapped(size: int) -> None:
    """A tenant key has 32 bytes."""
    with pytest.raises(MalformedInput, match="32 bytes"):
        read(RANDOM).wrap(KeyMaterial(bytes(size)), WHERE)


def test_another_master_key_is_told_by_both_ids() -> None:
    """A wrap of another master key is refused before it is tried, naming both key ids."""
    one, other = read(RANDOM), read(RANDOM[::-1])
    with pytest.raises(KeyNotFound) as caught:
        other.unwrap("local:2026-11", one.wrap(KEY, WHERE), WHERE)
    for told in (one.key_id, other.key_id, "local:2026-11", "unwrap_with"):
        assert told in caught.value.message


def test_another_master_key_under_the_same_name(
    config: ConfigFactory,
) -> None:
    """A ring made under another master key of one name is refused, with both key ids."""
    raw = {name: MASTER_KEYS[name].encode() for name in ("2026-11", "2025-01")}
    masters = {"k": MASTER_KEYS["2026-11"]}
    with sentra_kms.load(config(masters=masters), "development") as kms:
        kms.keys.create("acme")
    swapped = {"k": MASTER_KEYS["2025-01"]}
    with sentra_kms.load(config(masters=swapped), "development") as kms:
        for operation in (kms.keys.describe, kms.keys.rotate, kms.keys.rewrap):
            with pytest.raises(RingRejected) as caught:
                operation("acme")
            told = caught.value.message
            assert "another master key" in told
            assert key_id(raw["2025-01"]) in told


def test_another_master_key_where_something_else_authenticates(
    config: ConfigFactory, tmp_path: Path
) -> None:
    """With a ring key of its own the ring opens, and the wrap's refusal names both key ids."""
    ring_key = tmp_path / "ring_key"
    ring_key.write_text(base64.b64encode(bytes(range(32))).decode())
    ring_key.chmod(0o600)
    keys = {"authenticate_with": [f"file://{ring_key}"]}
    with sentra_kms.load(
        config(masters={"k": MASTER_KEYS["2026-11"]}, keys=keys), "development"
    ) as kms:
        kms.keys.create("acme")
    with (
        sentra_kms.load(
            config(masters={"k": MASTER_KEYS["2025-01"]}, keys=keys), "development"
        ) as kms,
        pytest.raises(KMSError) as caught,
    ):
        kms.keys.encrypt("acme", b"x")
    told = everything(caught.value)
    for name in ("2026-11", "2025-01"):
        assert key_id(MASTER_KEYS[name].encode()) in told


# --- through the local backend -----------------------------------------------------------------


@pytest.mark.parametrize("ending", [b"", b"\n", b"\r\n"])
def test_master_key_from_a_file(config: ConfigFactory, tmp_path: Path, ending: bytes) -> None:
    """A master key in a file works in production, with or without its newline, as one key."""
    path = tmp_path / "master"
    path.write_bytes(BASE64.encode() + ending)
    path.chmod(0o600)
    mapping = config(environment="production", development=False, masters={"k": ""})
    mapping["production"]["backends"]["local"]["master_keys"] = {"k": f"file://{path}"}
    with sentra_kms.load(mapping, "production") as kms:
        kms.keys.create("acme")
        box = kms.keys.encrypt("acme", b"x")
    path.write_bytes(BASE64.encode())
    with sentra_kms.load(mapping, "production") as kms:
        assert kms.keys.decrypt("acme", box) == b"x"


def test_binary_master_key_from_a_file_that_ends_in_0x0a(
    config: ConfigFactory, tmp_path: Path
) -> None:
    """The file's newline is dropped by nobody, so the 32nd byte of a binary key stays."""
    path = tmp_path / "master"
    path.write_bytes(RANDOM[:31] + b"\n")
    path.chmod(0o600)
    mapping = config(environment="production", development=False, masters={"k": ""})
    mapping["production"]["backends"]["local"]["master_keys"] = {"k": f"file://{path}"}
    with sentra_kms.load(mapping, "production") as kms:
        assert kms.keys.create("acme").primary == 1


def test_master_key_is_read_at_its_first_use_and_once() -> None:
    """Making the parts reads nothing; wrapping twice reads once; closing forgets."""
    asked: list[Reference] = []

    def secret(reference: Reference) -> KeyMaterial:
        asked.append(reference)
        return KeyMaterial(RANDOM)

    settings = LocalSettings(directory="/nowhere", master_keys={"k": Reference("file:///k")})
    keys, _ = create(settings, make_host("local", secret=secret))
    assert asked == []
    wrapped = keys.wrap_key("k", KEY, WHERE, 5.0)  # type: ignore[attr-defined]
    assert keys.unwrap_key("k", wrapped, WHERE, 5.0) == KEY  # type: ignore[attr-defined]
    assert asked == ["file:///k"]
    keys.close()  # type: ignore[attr-defined]
    keys.describe_key("k", 5.0)  # type: ignore[attr-defined]
    assert asked == ["file:///k"] * 2


def test_without_master_keys_there_is_no_keys_part() -> None:
    """A local backend that only keeps rings has one part."""
    assert len(create(LocalSettings(directory="/nowhere"), make_host("local"))) == 1


def test_master_key_shows_in_no_object() -> None:
    """Neither a KEK nor the part that holds it prints a key."""
    key = read(RANDOM)
    assert "redacted" in repr(vars(key))
    assert RANDOM.hex() not in repr(vars(key))
