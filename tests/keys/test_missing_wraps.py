"""`min_wraps`: what wraps a version when not every KEK works, and how the rest is mended."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from sentra_kms.config import read_settings
from sentra_kms.errors import AccessDenied, KMSError, ServiceUnavailable
from sentra_kms.keys.info import RingInfo
from sentra_kms.runtime import KMS
from tests.keys.conftest import ManualClock, Spy

DOWN = ServiceUnavailable("no route to host")


@pytest.fixture
def kms(manual_clock: ManualClock) -> Iterator[KMS]:
    """A KMS whose rings are wrapped by two of three KEKs at least."""
    config: dict[str, Any] = {
        "test": {
            "development": True,
            "backends": {name: {"type": "memory"} for name in ("a", "b", "c", "rings")},
            "keys": {"wrap_with": ["a:k", "b:k", "c:k"], "min_wraps": 2, "store": "rings"},
        }
    }
    with KMS(read_settings(config, "test"), now=manual_clock) as found:
        yield found


def wraps(ring: RingInfo) -> list[tuple[list[str], tuple[str, ...]]]:
    """Return, by version, the KEKs that wrap it and those that are missing."""
    return [([wrap.kek for wrap in each.wraps], each.missing) for each in ring.versions]


@pytest.mark.parametrize("failure", [DOWN, AccessDenied("the key is disabled")])
def test_what_is_missing_is_recorded_and_mended(kms: KMS, failure: KMSError) -> None:
    """A new ring and a new version are saved with what works; rewrap wraps the rest."""
    spies = [Spy(kms, "b", "wrap_key"), Spy(kms, "b", "describe_key")]
    for spy in spies:
        spy.failure = failure
    kms.keys.create("acme")
    message = kms.keys.encrypt("acme", b"x")
    ring = kms.keys.rotate("acme")
    assert wraps(ring) == [(["a:k", "c:k"], ("b:k",))] * 2
    assert wraps(kms.keys.rewrap("acme")) == wraps(ring)
    assert wraps(kms.keys.describe("acme")) == wraps(ring)
    for spy in spies:
        spy.failure = None
    mended = [(["a:k", "b:k", "c:k"], ())] * 2
    assert [(sorted(each), left) for each, left in wraps(kms.keys.rewrap("acme"))] == mended
    assert kms.keys.decrypt("acme", message) == b"x"


def test_too_few_wraps_make_nothing(kms: KMS) -> None:
    """One of three is less than `min_wraps`: no ring, no version."""
    for name in ("a", "b"):
        Spy(kms, name, "wrap_key").failure = DOWN
    with pytest.raises(ServiceUnavailable):
        kms.keys.create("acme")
    assert list(kms.keys.tenants()) == []
