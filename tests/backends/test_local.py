"""The local backend's master keys, as threads and forks find them."""

from __future__ import annotations

import base64
import threading

from sentra_kms.backends.local import LocalSettings, create
from sentra_kms.context import WrapContext
from sentra_kms.hooktypes import Host
from sentra_kms.material import KeyMaterial
from sentra_kms.reference import Reference
from tests.backends.hosts import make_host
from tests.keys.conftest import Crew, in_fork, until

WAIT = 60.0


class Sources:
    """Where the master keys are; that of `slow` answers when it is let go of."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.release = threading.Event()

    def secret(self, reference: Reference) -> KeyMaterial:
        """Return a master key."""
        self.asked.append(str(reference))
        if "SLOW" in str(reference):
            assert self.release.wait(WAIT)
        return KeyMaterial(base64.b64encode(bytes(32)))


def make_keys(host: Host) -> object:
    """Make the part that wraps."""
    references = {"slow": Reference("env://SLOW"), "quick": Reference("env://QUICK")}
    settings = LocalSettings(directory="/nowhere", master_keys=references)
    return create(settings, host)[0]


def wrap(part: object, key: str) -> bool:
    """Wrap a key under one of the master keys."""
    wrap_key = part.wrap_key  # type: ignore[attr-defined]
    wrapped = wrap_key(key, KeyMaterial(bytes(32)), WrapContext("acme", bytes(12), 1), 5.0)
    return bool(wrapped.ciphertext)


def test_master_key_whose_source_hangs_holds_up_no_other() -> None:
    """Each is read under a lock of its own, and once for all who wait for it."""
    sources = Sources()
    part = make_keys(make_host(secret=sources.secret))
    crew = Crew(lambda _: wrap(part, "slow"), 8)
    until(lambda: "env://SLOW" in sources.asked)
    quick = Crew(lambda _: wrap(part, "quick"), 1)
    assert quick.join() == [True]
    sources.release.set()
    assert crew.join() == [True] * 8
    assert sorted(sources.asked) == ["env://QUICK", "env://SLOW"]


def test_child_of_a_fork_waits_for_nobody_who_stayed_in_the_parent() -> None:
    """A thread that reads a master key at the fork is not there to let go of the lock."""
    sources = Sources()
    part = make_keys(make_host(secret=sources.secret))
    crew = Crew(lambda _: wrap(part, "slow"), 1)
    until(lambda: "env://SLOW" in sources.asked)

    def work() -> bytes:
        sources.release = threading.Event()
        sources.release.set()
        return b"made" if wrap(part, "slow") else b""

    assert in_fork(work) == b"made"
    sources.release.set()
    assert crew.join() == [True]
