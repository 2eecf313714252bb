"""Lines whose loss nothing else would notice, each held by the harm that it prevents."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from typing import Any

import msgspec
import pytest

from sentra_kms.context import WrapContext
from sentra_kms.hooktypes import KeyDescription, WrappedKey
from sentra_kms.keys.outages import Outages
from sentra_kms.keys.ring import Version, check_value, new_version
from sentra_kms.keys.wrapping import Wrapping
from sentra_kms.material import KeyMaterial
from sentra_kms.reference import KekName
from sentra_kms.runtime import KMS
from sentra_kms.settings import Policy
from tests.keys.conftest import ROOT, WAIT, Site, Spy, until, version_in

# --- epochs -----------------------------------------------------------------------------------


@pytest.mark.parametrize("many", [False, True])
def test_epoch_of_a_ring_that_was_replaced_meanwhile_is_used_once(
    memory_kms: KMS,
    many: bool,  # noqa: FBT001 - a case
) -> None:
    """A rotation that falls into the unwrapping of the old key is in force for the next message."""
    acme = memory_kms.keys.tenant("acme")
    memory_kms.keys._cache.clear()
    unwraps = Spy(memory_kms, "memory", "unwrap_key")

    def rotate_first() -> None:
        unwraps.before = None
        memory_kms.keys.rotate("acme")

    unwraps.before = rotate_first
    late = acme.encrypt(b"x")
    assert version_in(late) == 1
    following = acme.encrypt_many([b"y"])[0] if many else acme.encrypt(b"y")
    assert version_in(following) == 2
    assert acme.decrypt(late) == b"x"


# --- rewrap -----------------------------------------------------------------------------------

WHERE = WrapContext("acme", bytes(12), 1)
KEY = KeyMaterial(bytes(range(32)))
ONE, TWO = KekName("service:one"), KekName("service:two")


class Service:
    """Wraps by writing down which key did; each key has an id and a version that may move on."""

    def __init__(self) -> None:
        self.keys: dict[str, tuple[str, str | None]] = {"one": ("id-1", "1"), "two": ("id-2", None)}
        self.wraps: list[str] = []
        self.unwraps: list[str] = []

    def wrap_key(self, key: str, material: KeyMaterial, context: WrapContext) -> WrappedKey:
        """Wrap under the key as it is now."""
        assert context == WHERE
        self.wraps.append(key)
        key_id, key_version = self.keys[key]
        return WrappedKey(
            f"{key_id}/{key_version}".encode() + material.reveal(), key_id, key_version
        )

    def unwrap_key(self, key: str, wrapped: WrappedKey, context: WrapContext) -> KeyMaterial:
        """Unwrap what any version of the key wrapped."""
        assert context == WHERE
        self.unwraps.append(key)
        return KeyMaterial(wrapped.ciphertext[-32:])

    def describe_key(self, key: str) -> KeyDescription:
        """Say what the key is now."""
        return KeyDescription(*self.keys[key])


@pytest.fixture
def service() -> Service:
    """A service with two keys."""
    return Service()


@pytest.fixture
def wrapping(service: Service) -> Wrapping:
    """Wrapping under both of them."""
    policy = Policy(
        name="default",
        wrap_with=(ONE, TWO),
        unwrap_with=(ONE, TWO),
        min_wraps=2,
        rotate_after=None,
        key_ttl=300.0,
    )
    return Wrapping({"service": service}, policy, Outages(lambda: 0.0))


@pytest.fixture
def version(wrapping: Wrapping, service: Service) -> Version:
    """A version wrapped under both keys as they were."""
    made = new_version(1, 0.0, check_value(KEY, WHERE), wrapping.wrap(KEY, WHERE).wraps, "r")
    service.wraps.clear()
    return made


@pytest.mark.parametrize(
    ("moved", "now"),
    [
        ("one", ("id-1", "2")),
        ("one", ("id-1", None)),
        ("one", ("id-9", "1")),
        ("two", ("id-2", "1")),
        ("two", ("id-9", None)),
    ],
)
def test_rewrap_follows_a_kek_that_moved_on_under_its_name(
    wrapping: Wrapping, version: Version, service: Service, moved: str, now: tuple[str, str | None]
) -> None:
    """What an older version of the KEK wrapped is wrapped anew; what is current is kept."""
    service.keys[moved] = now
    renewed = wrapping.renewal("acme").renew(version, WHERE)
    assert service.wraps == [moved]
    kept = 1 if moved == "one" else 0
    assert renewed.wraps[kept] is version.wraps[kept]
    changed = renewed.wraps[1 - kept]
    assert (changed.kek, changed.key_id, changed.key_version) == (f"service:{moved}", *now)
    assert msgspec.structs.replace(renewed, wraps=version.wraps) == version
    assert wrapping.unwrap(renewed, WHERE) == KEY


def test_rewrap_of_what_is_current_asks_for_no_key(
    wrapping: Wrapping, version: Version, service: Service
) -> None:
    """Nothing is unwrapped, nothing wrapped, and the version is the very same."""
    assert wrapping.renewal("acme").renew(version, WHERE) is version
    assert (service.wraps, service.unwraps) == ([], [])


def test_rewrap_when_both_keks_moved(
    wrapping: Wrapping, version: Version, service: Service
) -> None:
    """Both wraps are made anew from the key that one of them held, and one of them is tried."""
    service.keys = {"one": ("id-1", "7"), "two": ("id-8", "8")}
    renewed = wrapping.renewal("acme").renew(version, WHERE)
    assert [(wrap.key_id, wrap.key_version) for wrap in renewed.wraps] == [
        ("id-1", "7"),
        ("id-8", "8"),
    ]
    assert (service.wraps, service.unwraps) == (["one", "two"], ["one", "one"])


# --- the lock of a ring -----------------------------------------------------------------------

FORK_WHILE_SAVING = """
import ctypes, json, os, sys
import sentra_kms
from sentra_kms.backends.ring_files import RingFiles

kms = sentra_kms.load(json.loads(sys.argv[1]), environment="test")
kms.keys.create("acme")
replace = RingFiles._replace
wait, go = os.pipe()
children = []

def fork_and_replace(self, *arguments):
    if not children:
        child = ctypes.CDLL(None).fork()  # one that Python does not see
        if child == 0:
            os.close(go)
            os.read(wait, 1)  # until the parent is done, with all of its descriptors open
            os._exit(0)
        children.append(child)
    return replace(self, *arguments)

RingFiles._replace = fork_and_replace
made = [kms.keys.rotate("acme").primary]
held = any(
    os.readlink(f"/proc/{children[0]}/fd/{name}").endswith(".lock")
    for name in os.listdir(f"/proc/{children[0]}/fd")
)
try:
    made.append(kms.keys.rotate("acme").primary)
except sentra_kms.KMSError as error:
    made.append(type(error).__name__)
os.close(go)
os.waitpid(children[0], 0)
print(json.dumps([held, made]))
"""


def test_lock_is_free_after_a_save_though_a_forked_child_holds_its_file(key_site: Site) -> None:
    """A child that was forked in the middle of a save keeps nobody from the next one."""
    told = subprocess.run(
        [sys.executable, "-c", FORK_WHILE_SAVING, json.dumps(key_site.config(timeout="100ms"))],
        capture_output=True,
        check=False,
        env={**os.environ, "PYTHONPATH": ROOT},
        text=True,
        timeout=WAIT,
    )
    assert told.returncode == 0, told.stderr
    assert json.loads(told.stdout) == [True, [2, 3]]


# --- rollback ---------------------------------------------------------------------------------


class Watched:
    """A lock that tells when somebody has to wait for it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.contended = threading.Event()

    def __enter__(self) -> None:
        if not self._lock.acquire(blocking=False):
            self.contended.set()
            self._lock.acquire()

    def __exit__(self, *error: object) -> None:
        self._lock.release()


class Paused(dict[str, int]):
    """What was seen; the first look at it lets another thread go first, or wait for the lock."""

    def __init__(self, meanwhile: Any) -> None:
        super().__init__()
        self._meanwhile = meanwhile

    def __contains__(self, key: object) -> bool:
        """Look, and come back late with what was there."""
        found = super().__contains__(key)
        meanwhile, self._meanwhile = self._meanwhile, None
        if meanwhile is not None:
            meanwhile()
        return found


def test_sequence_that_was_seen_never_goes_down(memory_kms: KMS) -> None:
    """Of two threads that note sequences at once, the one with the lower does not win."""
    seen: Any = memory_kms.keys._rings.store._seen
    lock: Any = Watched()
    noted = threading.Event()

    def note_seven() -> None:
        seen._note("acme", 7 << 32)
        noted.set()

    other = threading.Thread(target=note_seven, daemon=True)

    def meanwhile() -> None:
        other.start()
        until(lambda: noted.is_set() or lock.contended.is_set())

    seen._lock = lock
    seen._marks = Paused(meanwhile)
    seen._note("acme", 6 << 32)
    other.join(WAIT)
    assert noted.is_set()
    assert seen._marks["acme"] >> 32 == 7
