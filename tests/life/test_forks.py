"""`os.fork` and threads: a child works at once, whatever the parent was in the middle of."""

from __future__ import annotations

import os
import pickle
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import sentra_kms
from sentra_kms.errors import KeyNotFound
from sentra_kms.runtime import KMS
from tests.keys.conftest import in_fork
from tests.life.conftest import Project

FORKS = 8


@pytest.fixture
def kms(tmp_path: Path) -> Iterator[KMS]:
    """A KMS over real files, with one tenant."""
    with sentra_kms.load(Project(tmp_path).home / "sentra-kms.toml", "production") as kms:
        yield kms


def busy(work: Callable[[], object], size: int) -> Callable[[], None]:
    """Keep threads at work until what is returned is called, which tells if one failed."""
    stop = threading.Event()
    failures: list[BaseException] = []

    def run() -> None:
        try:
            while not stop.is_set():
                work()
        except BaseException as error:  # noqa: BLE001 - told to the test
            failures.append(error)

    threads = [threading.Thread(target=run) for _ in range(size)]
    for thread in threads:
        thread.start()

    def end() -> None:
        stop.set()
        for thread in threads:
            thread.join(60)
            assert not thread.is_alive()
        assert failures == []

    return end


def _cold(kms: KMS) -> None:
    kms.keys._cache.clear()
    kms.keys.encrypt("acme", b"x")


def _forged(kms: KMS) -> None:
    """Force a look at the ring, as messages of unknown versions do."""
    message = kms.keys.encrypt("acme", b"x")
    with pytest.raises(KeyNotFound):
        kms.keys.decrypt("acme", message[:16] + b"\xff\xff\xff\xff" + message[20:])


WORK: dict[str, Callable[[KMS], object]] = {
    "messages": lambda kms: kms.keys.encrypt("acme", b"x"),
    "cold loads": _cold,
    "new tenants": lambda kms: kms.keys.create(f"t-{os.urandom(6).hex()}"),
    "rewraps": lambda kms: kms.keys.rewrap("acme"),
    "reloads": _forged,
}


@pytest.mark.no_cover
@pytest.mark.parametrize("name", WORK)
def test_a_child_of_a_busy_process_works(kms: KMS, name: str) -> None:
    """It encrypts, decrypts, rotates, and makes a tenant, while the parent's threads go on."""
    known = kms.keys.encrypt("acme", b"known")
    end = busy(lambda: WORK[name](kms), 4)
    try:
        salts = {in_fork(lambda: _child(kms, known)) for _ in range(FORKS)}
    finally:
        end()
    assert len(salts) == FORKS
    assert len(kms.keys.describe("acme").versions) == FORKS + 1


def _child(kms: KMS, known: bytes) -> bytes:
    """All that a child may do; returns a salt of its own."""
    assert threading.active_count() == 1
    message = kms.keys.encrypt("acme", b"from the child")
    assert kms.keys.decrypt("acme", known) == b"known"
    assert kms.keys.decrypt("acme", message) == b"from the child"
    kms.keys.rotate("acme")
    kms.keys.create(f"child-{os.getpid()}")
    assert kms.keys.decrypt("acme", known) == b"known"
    return message[20:36]


def test_measuring_coverage_holds_no_lock() -> None:
    """So no fork, no signal handler and nothing that one raises can leave it held for ever."""
    measurement = pytest.importorskip("coverage").Coverage.current()
    if measurement is None:
        pytest.skip("this run measures no coverage")
    assert measurement._collector.data_lock is None
    assert in_fork(lambda: str(measurement._collector.data_lock).encode()) == b"None"


def test_a_child_that_closes_takes_nothing_from_its_parent(kms: KMS) -> None:
    """Nor does a grandchild take anything from its own."""
    known = kms.keys.encrypt("acme", b"known")

    def child() -> bytes:
        def grandchild() -> bytes:
            salt = kms.keys.encrypt("acme", b"x")[20:36]
            kms.close()
            return salt

        salt = in_fork(grandchild)
        assert kms.keys.decrypt("acme", known) == b"known"
        own = kms.keys.encrypt("acme", b"x")[20:36]
        kms.close()
        return salt + own

    salts = in_fork(child)
    parents = kms.keys.encrypt("acme", b"x")[20:36]
    assert len({salts[:16], salts[16:], parents, known[20:36]}) == 4 - (parents == known[20:36])
    assert kms.keys.decrypt("acme", known) == b"known"


def test_closing_leaves_no_thread(tmp_path: Path) -> None:
    """Whatever was used before."""
    before = set(threading.enumerate())
    with sentra_kms.load(Project(tmp_path).home / "sentra-kms.toml", "production") as kms:
        kms.keys.encrypt("acme", b"x")
        kms.keys.rotate("acme")
        kms.keys.rewrap("acme")
    assert set(threading.enumerate()) == before


def test_nothing_that_holds_keys_goes_to_another_process_by_pickle(kms: KMS) -> None:
    """A pool whose tasks are given a KMS or a handle is told what to do instead."""
    acme = kms.keys.tenant("acme")
    acme.encrypt(b"x")
    holders: list[Any] = [kms, kms.keys, acme]
    for holder in holders:
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
            with pytest.raises(TypeError, match=r"never pickled: call sentra_kms\.load"):
                pickle.dumps([holder], protocol)
    for inner in (kms.keys._cache, kms.keys._cache.entries):
        with pytest.raises((TypeError, AttributeError)):
            pickle.dumps(inner)
