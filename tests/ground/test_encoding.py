"""The byte encodings that every format is built from."""

from __future__ import annotations

import base64
import hmac
import importlib.util

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sentra_kms import encoding
from sentra_kms.encoding import lp, same_bytes, strict_base64, u32
from sentra_kms.errors import MalformedInput
from tests.ground.leaks import shows


@pytest.mark.parametrize(
    ("number", "encoded"),
    [(0, "00000000"), (1, "00000001"), (0x01020304, "01020304"), (2**32 - 1, "ffffffff")],
)
def test_u32(number: int, encoded: str) -> None:
    """Four bytes, the highest first."""
    assert u32(number).hex() == encoded


@pytest.mark.parametrize("number", [-1, 2**32])
def test_u32_out_of_range(number: int) -> None:
    """What four bytes cannot hold is refused, never cut."""
    with pytest.raises(OverflowError):
        u32(number)


@pytest.mark.parametrize(
    ("data", "encoded"),
    [
        (b"", "00000000"),
        ("", "00000000"),
        (b"\x00", "0000000100"),
        ("ü", "00000002c3bc"),
        ("\U0001f512", "00000004f09f9492"),
        (b"x" * 256, "00000100" + "78" * 256),
    ],
)
def test_lp(data: bytes | str, encoded: str) -> None:
    """The length counts bytes, not characters."""
    assert lp(data).hex() == encoded


@given(st.lists(st.binary(max_size=6), max_size=4), st.lists(st.binary(max_size=6), max_size=4))
def test_lp_keeps_lists_apart(one: list[bytes], other: list[bytes]) -> None:
    """Two lists have one encoding only if they are one list."""
    encoded = [b"".join(map(lp, pieces)) for pieces in (one, other)]
    assert (encoded[0] == encoded[1]) == (one == other)


@given(st.binary(max_size=40), st.binary(max_size=40))
def test_same_bytes_is_compare_digest(one: bytes, other: bytes) -> None:
    """It says of any two what `hmac.compare_digest` says of them."""
    for left, right in ((one, other), (one, bytes(bytearray(one))), (one, one + b"\x00")):
        assert same_bytes(left, right) is hmac.compare_digest(left, right) is (left == right)


@pytest.mark.parametrize("place", range(32))
def test_same_bytes_sees_every_bit(place: int) -> None:
    """One bit of 32 bytes, wherever it is, makes them others."""
    data = bytes(range(32))
    for bit in range(8):
        changed = bytearray(data)
        changed[place] ^= 1 << bit
        assert not same_bytes(data, bytes(changed))


def test_same_bytes_takes_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """It asks what `hmac.compare_digest` is where Python has no OpenSSL, and no `==`."""
    operator = pytest.importorskip("_operator")
    genuine = vars(encoding)["_compare"]
    assert genuine is operator._compare_digest
    asked: list[tuple[bytes, bytes]] = []

    def compare(one: bytes, other: bytes) -> bool:
        asked.append((one, other))
        return bool(genuine(one, other))

    monkeypatch.setattr(encoding, "_compare", compare)
    assert same_bytes(b"ab", b"ab")
    assert not same_bytes(b"ab", b"ac")
    assert asked == [(b"ab", b"ab"), (b"ab", b"ac")]


def test_same_bytes_does_without_what_is_not_public(monkeypatch: pytest.MonkeyPatch) -> None:
    """An interpreter without that name compares by `hmac.compare_digest`."""
    monkeypatch.delattr("_operator._compare_digest")
    spec = importlib.util.find_spec("sentra_kms.encoding")
    assert spec is not None
    assert spec.loader is not None
    again = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(again)
    assert again._compare is hmac.compare_digest
    assert again.same_bytes(b"ab", b"ab")
    assert not again.same_bytes(b"ab", b"ac")


@given(st.binary(max_size=100))
def test_strict_base64_undoes_base64(data: bytes) -> None:
    """What a standard encoder wrote is read back."""
    assert strict_base64(base64.b64encode(data)) == data


@pytest.mark.parametrize(
    "text",
    [
        b"YQ",  # no padding
        b"YQ=",
        b"YQ===",
        b"YQ==\n",
        b"\nYQ==",
        b" YQ==",
        b"Y Q==",
        b"YR==",  # bits that are cut off
        b"YWF=",
        b"YQ==YQ==",
        b"=",
        b"====",
        b"-_-_",  # the URL-safe alphabet
        b"YW\x00I",
        b"Y",
        b"YWI=extra",
        "YWÌ".encode(),
    ],
)
def test_strict_base64_refuses(text: bytes) -> None:
    """One text for one value: anything that does not encode back the same is refused."""
    with pytest.raises(MalformedInput):
        strict_base64(text)


def test_strict_base64_does_not_quote() -> None:
    """The refusal shows nothing of the text, which may be a key, and keeps no codec's error."""
    text = b"not-base64-but-a-planted-secret!"
    with pytest.raises(MalformedInput) as caught:
        strict_base64(text)
    error = caught.value
    assert error.__context__ is None
    assert not shows(f"{error} {error!r} {error.args}", text)
