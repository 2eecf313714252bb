"""The one derivation rule, against RFC 5869's HKDF-Expand written out with the standard library."""

from __future__ import annotations

import hashlib
import hmac
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sentra_kms.derive import Label, derive
from sentra_kms.material import KeyMaterial
from tests.ground.leaks import shows

LABELS: tuple[Label, ...] = get_args(Label)
KEY = bytes(range(32))
PRK = bytes(range(64))


def expand(key: bytes, info: bytes, length: int) -> bytes:
    """HKDF-Expand-SHA512, RFC 5869 section 2.3."""
    output, block, counter = b"", b"", 0
    while len(output) < length:
        counter += 1
        block = hmac.new(key, block + info + bytes([counter]), hashlib.sha512).digest()
        output += block
    return output[:length]


def test_labels_are_those_of_the_specification() -> None:
    """A label more or less is a change of the formats."""
    assert set(LABELS) == {
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
    }


@pytest.mark.parametrize("length", [1, 8, 32, 44, 64, 65, 128, 255 * 64])
@pytest.mark.parametrize("key", [KEY, PRK], ids=["key", "prk"])
@pytest.mark.parametrize("label", LABELS)
def test_rule(label: Label, key: bytes, length: int) -> None:
    """Every label, both sizes of key, outputs of part of a block, one, and many."""
    info = b"sentra-kms/" + label.encode() + b"\x00" + b"data"
    derived = derive(KeyMaterial(key), label, b"data", length)
    assert isinstance(derived, KeyMaterial)
    assert derived.reveal() == expand(key, info, length)


@given(st.binary(min_size=32, max_size=32), st.sampled_from(LABELS), st.binary(max_size=300))
def test_rule_for_any_data(key: bytes, label: Label, data: bytes) -> None:
    """Data of any length is bound as it is."""
    info = b"sentra-kms/" + label.encode() + b"\x00" + data
    assert derive(KeyMaterial(key), label, data, 64).reveal() == expand(key, info, 64)


def test_labels_keep_uses_apart() -> None:
    """No two labels give one output, whatever stands in the data."""
    outputs = {derive(KeyMaterial(KEY), label, b"", 32).reveal() for label in LABELS}
    assert len(outputs) == len(LABELS)


@pytest.mark.parametrize(
    "label", ["", "message", "message/v2", "index/v1", "purpose/v1", "record/v1", "MESSAGE/V1"]
)
def test_unknown_or_reserved_label_is_refused(label: Any) -> None:
    """Nothing is derived under a label that is not in the list, reserved ones included."""
    with pytest.raises(ValueError, match="no derivation label"):
        derive(KeyMaterial(KEY), label, b"", 32)


@pytest.mark.parametrize("size", [0, 1, 16, 31, 33, 48, 63, 65, 128])
def test_key_of_another_size_is_refused(size: int) -> None:
    """Only 32 bytes, or the 64 of an extracted key, are derived from."""
    with pytest.raises(ValueError, match="32 bytes"):
        derive(KeyMaterial(bytes(size)), "message/v1", b"", 32)


@pytest.mark.parametrize("length", [255 * 64 + 1, 10**6])
def test_output_beyond_what_the_rule_can_give_is_refused(length: int) -> None:
    """RFC 5869 ends at 255 blocks."""
    with pytest.raises(ValueError, match=r"."):
        derive(KeyMaterial(KEY), "message/v1", b"", length)


def test_result_does_not_show() -> None:
    """What is derived is as redacted as what it was derived from."""
    derived = derive(KeyMaterial(KEY), "message/v1", b"", 32)
    assert not shows(f"{derived!r}", derived.reveal())
