"""Receipts as they are made."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from sentra_kms.errors import ConfigurationError, MalformedInput
from sentra_kms.keys.document import Authenticator
from sentra_kms.keys.receipt import MAX_RECEIPT, Remains, make_receipt
from sentra_kms.keys.ring import Ring, decode
from tests.keys.conftest import Site
from tests.reader import reader

TIME = 1_770_000_000.9


def stored(site: Site) -> Ring:
    """Acme's ring as it is stored."""
    return decode(Authenticator([site.auth_key]).verify("acme", site.document()), "acme")


def made(site: Site, **changes: Any) -> bytes:
    """Make a receipt for a ring of two versions of the site's store."""
    kms = site.open("local:m1", "local:m2")
    kms.keys.create("acme", exist_ok=True)
    kms.keys.rotate("acme", request_id="second")
    authenticator = Authenticator([site.auth_key])
    facts: dict[str, Any] = {
        "operation": "shred",
        "before": stored(site),
        "sequence": 3,
        "time": TIME,
        "actor": "user:42",
        "request": "r-1",
        "remains": [Remains("backups", None)],
    }
    return make_receipt(authenticator, **(facts | changes))


def test_a_receipt_says_what_was_there(key_site: Site) -> None:
    """Versions, check values and KEKs of the ring; another reader verifies it."""
    data = made(key_site)
    fields = reader.open_receipt(data, [reader.MasterKey.read(key_site.secret("m1")).auth_key])
    ring = key_site.payload()
    assert fields["time"] == "2026-02-02T02:40:00Z"
    assert (fields["tenant"], fields["sequence"]) == ("acme", 3)
    assert [version["check"] for version in fields["versions"]] == [
        version["check"] for version in ring["versions"]
    ]
    assert [[wrap["kek"] for wrap in version["wraps"]] for version in fields["versions"]] == [
        ["local:m1", "local:m2"]
    ] * 2
    assert b"ciphertext" not in data
    assert key_site.open("local:m1").keys.verify_receipt(data).actor == "user:42"


@pytest.mark.parametrize(
    "change",
    [
        {"actor": "\ud800"},
        {"actor": ""},
        {"request": ""},
        {"sequence": 0},
        {"remains": [Remains("", None)]},
        {"remains": [Remains("backups", "tomorrow")]},
        {"operation": "release"},
    ],
    ids=repr,
)
def test_what_no_reader_would_accept_is_not_made(key_site: Site, change: dict[str, Any]) -> None:
    """An error, and no receipt that cannot be verified."""
    with pytest.raises(MalformedInput):
        made(key_site, **change)


@pytest.mark.parametrize("data", [None, 5, "text", memoryview(b"a view"), ["a", "list"]], ids=repr)
def test_what_is_no_bytes_is_no_receipt(key_site: Site, data: Any) -> None:
    """Told as any other input that is malformed, with its type."""
    with pytest.raises(MalformedInput, match=f"it is {type(data).__name__} and not bytes"):
        key_site.open().keys.verify_receipt(data)


@pytest.mark.parametrize("policy", [5, b"default", ["default"], {}], ids=repr)
def test_what_is_no_name_is_no_policy(key_site: Site, policy: Any) -> None:
    """Whatever takes a policy by its name."""
    keys = key_site.open().keys
    keys.create("acme")
    for use in (keys.set_policy, keys.release, keys.create):
        with pytest.raises(ConfigurationError, match="there is no policy"):
            use("acme", policy)


def test_the_receipt_of_a_full_ring_fits(key_site: Site) -> None:
    """A ring can never hold more than a receipt can."""
    kms = key_site.open()
    kms.keys.create("acme")
    ring = stored(key_site)
    version = ring.versions[0]
    wraps = tuple(
        msgspec.structs.replace(version.wraps[0], kek=f"local:k{number}") for number in range(16)
    )
    versions = tuple(
        msgspec.structs.replace(version, version=number, wraps=wraps) for number in range(1, 101)
    )
    full = msgspec.structs.replace(ring, versions=versions)
    data = made(key_site, before=full)
    assert len(data) < MAX_RECEIPT
    with pytest.raises(MalformedInput, match="more than 1048576 bytes"):
        made(key_site, before=full, actor="x" * MAX_RECEIPT)
