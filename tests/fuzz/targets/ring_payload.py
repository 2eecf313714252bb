"""Payloads of key rings under a right MAC: both readers take one, alike, or both refuse it."""

from __future__ import annotations

from sentra_kms.keys.ring import decode, encode
from tests.properties.both_readers import read_by_both


def run(data: bytes) -> None:
    """Try one payload."""
    ring = read_by_both(data, "acme")
    if ring is not None:
        payload = encode(ring)
        assert decode(payload, "acme") == ring
        assert encode(decode(payload, "acme")) == payload
