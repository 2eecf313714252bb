"""No line of an operation, whether it succeeds or fails, has key bytes in a local variable."""

from __future__ import annotations

import base64
import errno
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

import sentra_kms
from sentra_kms.errors import KMSError, ServiceUnavailable
from sentra_kms.material import KeyMaterial
from sentra_kms.runtime import KMS
from tests.ground.bare_keys import PACKAGE, Watch
from tests.keys.conftest import Site, Spy

MASTERS = ("m1", "m2")
AUTH = "ring"


def secrets_of(site: Site) -> list[bytes]:
    """Return the site's master keys and ring key as their files hold them, and decoded."""
    raw = [site.secret(name) for name in (*MASTERS, AUTH)]
    return raw + [base64.b64decode(each) for each in raw]


def open_site(site: Site) -> KMS:
    """Open a KMS with two KEKs, outside development, whose rings have a key of their own."""
    return site.open(
        "local:m1",
        "other:m2",
        authenticate_with=(site.reference(AUTH), "local:m1"),
        development=False,
    )


def edit(site: Site) -> None:
    """Change a byte of acme's ring."""
    site.put(site.document().replace(b'"enabled"', b'"enabler"', 1))


def swap_master_key(site: Site) -> None:
    """Put another master key under the name of the first."""
    (site.home / "m1.secret").write_bytes(base64.b64encode(os.urandom(32)))


def cut_ring_key(site: Site) -> None:
    """Cut the last character off the key that authenticates rings."""
    path = site.home / f"{AUTH}.secret"
    path.write_bytes(path.read_bytes()[:-1])


def shorten_master_key(site: Site) -> None:
    """Leave 31 bytes of a master key."""
    path = site.home / "m1.secret"
    path.write_bytes(path.read_bytes()[:31])


def pass_phrase(site: Site) -> None:
    """Make a master key that is refused outside development."""
    (site.home / "m1.secret").write_bytes(b"a pass-phrase that somebody thought of\n")


def fail_second_kek(kms: KMS) -> None:
    """Let the second KEK be out of reach, after the first has wrapped."""
    Spy(kms, "other", "wrap_key").failure = ServiceUnavailable("down")


WORK: dict[str, Callable[[KMS, bytes], object]] = {
    "create": lambda kms, _: kms.keys.create("new"),
    "create again": lambda kms, _: kms.keys.create("acme"),
    "rotate": lambda kms, _: kms.keys.rotate("acme", request_id="1"),
    "rewrap": lambda kms, _: kms.keys.rewrap("acme"),
    "describe": lambda kms, _: kms.keys.describe("acme"),
    "encrypt": lambda kms, _: [kms.keys.encrypt("acme", b"x", {"a": "b"}) for _ in range(2)],
    "encrypt_many": lambda kms, _: kms.keys.encrypt_many("acme", [b"x", b"y"]),
    "decrypt": lambda kms, box: [kms.keys.decrypt("acme", box) for _ in range(2)],
    "decrypt_many": lambda kms, box: kms.keys.decrypt_many("acme", [box, box]),
    "decrypt changed": lambda kms, box: kms.keys.decrypt("acme", box[:-1] + b"\x00"),
    "decrypt forged": lambda kms, box: kms.keys.decrypt("acme", box[:40] + bytes(56) + box[96:]),
    "examine": lambda kms, _: kms.examine(),
    "close": lambda kms, _: kms.close(),
}
SITES: dict[str, Callable[[Site], None]] = {
    "all well": lambda _: None,
    "ring edited": edit,
    "another master key": swap_master_key,
    "ring key cut": cut_ring_key,
    "master key short": shorten_master_key,
    "pass-phrase": pass_phrase,
}


def watched(secrets: list[bytes], work: Callable[[], object]) -> None:
    """Do the work, which may fail with an error of ours, and assert that no frame held a key."""
    with Watch(*secrets) as watch, suppress(KMSError):
        work()
    assert watch.found == set()


@pytest.mark.parametrize(
    ("work", "spoil"),
    [(work, "all well") for work in WORK]
    + [(work, spoil) for spoil in list(SITES)[1:] for work in ("create", "rotate", "decrypt")],
)
def test_operation_holds_no_key_bare(key_site: Site, work: str, spoil: str) -> None:
    """From the load on, in a process that has nothing cached."""
    first = open_site(key_site)
    first.keys.create("acme")
    box = first.keys.encrypt("acme", b"plain text")
    secrets = secrets_of(key_site)
    SITES[spoil](key_site)
    watched(secrets, lambda: WORK[work](open_site(key_site), box))


@pytest.mark.parametrize("work", ["create", "rotate", "rewrap"])
def test_kek_out_of_reach_holds_no_key_bare(key_site: Site, work: str) -> None:
    """The tenant key was made, or unwrapped, and wrapped once when the second KEK fails."""
    first = key_site.open("local:m1", authenticate_with=(key_site.reference(AUTH),))
    first.keys.create("acme")
    kms = open_site(key_site)
    fail_second_kek(kms)
    watched(secrets_of(key_site), lambda: WORK[work](kms, b""))


@pytest.mark.parametrize("work", ["create", "rotate"])
def test_full_disk_holds_no_key_bare(
    key_site: Site, work: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ring with the new key cannot be written."""
    kms = open_site(key_site)
    kms.keys.create("acme")

    def write(_file: int, _data: object) -> int:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "write", write)
    watched(secrets_of(key_site), lambda: WORK[work](kms, b""))


def test_variable_and_memory_hold_no_key_bare(
    key_site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The development backends keep to it, too."""
    master = base64.b64encode(os.urandom(32))
    monkeypatch.setenv("MASTER", master.decode("ascii"))
    tables: dict[str, Any] = {
        "development": True,
        "backends": {
            "local": {
                "type": "local",
                "directory": str(tmp_path / "rings"),
                "master_keys": {"k": "env://MASTER"},
            },
            "memory": {"type": "memory"},
        },
        "keys": {"wrap_with": ["local:k", "memory:k"], "store": "local"},
    }
    with Watch(master) as watch, sentra_kms.load({"laptop": tables}, "laptop") as kms:
        kms.keys.create("acme")
        kms.keys.rotate("acme")
        kms.keys.decrypt("acme", kms.keys.encrypt("acme", b"x"))
    assert watch.found == set()
    assert watch.seen > 10  # keys were made, and each was looked for


@pytest.mark.parametrize(
    "careless",
    [
        "raw = key.reveal()\n    return len(raw)",
        "text = key.reveal().hex() and key.reveal().decode('latin-1')\n    return len(text)",
        "return key.reveal()",
        "pair = [('a', key.reveal())]\n    return len(pair)",
        "found = {'k': key.reveal()[16:]}\n    return len(found)",
    ],
)
def test_watch_sees_a_careless_function(careless: str) -> None:
    """The control: each of these would show a key, and is told by its name."""
    space: dict[str, Any] = {}
    source = f"def careless(key):\n    {careless}\n"
    exec(compile(source, PACKAGE + "careless.py", "exec"), space)  # noqa: S102 - our own text
    with Watch() as watch:
        space["careless"](KeyMaterial(os.urandom(32)))
    assert {each.rpartition(":")[0] for each in watch.found} == {"careless.py: careless"}
