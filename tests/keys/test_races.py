"""Many at once, in threads and in processes: nothing is lost, nothing is made twice."""

from __future__ import annotations

import base64
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

from sentra_kms.errors import KMSError, RingRejected
from sentra_kms.runtime import KMS
from tests.keys.conftest import Children, Site, in_threads, version_in

pytestmark = pytest.mark.no_cover  # again and again what others do once

START = """
import json, sys
import sentra_kms
from sentra_kms.errors import AlreadyExists
config, *rest = map(json.loads, sys.argv[1:])
kms = sentra_kms.load(config, environment="test")
print("ready", flush=True)
sys.stdin.readline()
"""

ROTATE = """
import base64
made = []
for _ in range(rest[0]):
    number = kms.keys.rotate("acme").primary
    made.append([number, base64.b64encode(kms.keys.encrypt("acme", b"x")).decode()])
print(json.dumps(made))
"""

CREATE = """
won = []
for tenant in rest[0]:
    try:
        won.append([tenant, kms.keys.create(tenant).ring_id])
    except AlreadyExists:
        pass
print(json.dumps(won))
"""

REQUEST = """
print(json.dumps([kms.keys.rotate("acme", request_id=f"r-{n}").primary for n in range(rest[0])]))
"""

WORK = """
import base64
acme = kms.keys.tenant("acme")
boxes = []
for number in range(rest[0]):
    kms.keys.rotate("acme")
    for _ in range(3):
        box = acme.encrypt(str(number).encode(), context=str(number).encode())
        assert acme.decrypt(box, context=str(number).encode()) == str(number).encode()
    boxes.append(base64.b64encode(box).decode())
print(json.dumps(boxes))
"""


def test_8_processes_rotating_25_times_make_200_versions(key_site: Site) -> None:
    """Each rotation makes the version that it reports; none is lost and none is made twice."""
    kms = key_site.open()
    kms.keys.create("acme")
    message = kms.keys.encrypt("acme", b"from the start")
    answers = Children(START + ROTATE, key_site.config(), 25, size=8).answers()
    made = [[number for number, _ in part] for part in answers]
    assert [len(part) for part in made] == [25] * 8
    assert all(part == sorted(part) for part in made)
    assert sorted(number for part in made for number in part) == list(range(2, 202))
    info = key_site.open().keys.describe("acme")
    assert [version.version for version in info.versions] == list(range(1, 202))
    assert (info.primary, info.sequence) == (201, 201)
    sealed = [base64.b64decode(box) for part in answers for _, box in part]
    assert all(
        version_in(box) >= made for box, (made, _) in zip(sealed, chain(*answers), strict=True)
    )
    for reader in (kms, key_site.open()):
        assert reader.keys.decrypt("acme", message) == b"from the start"
        assert reader.keys.decrypt_many("acme", sealed) == [b"x"] * 200
        assert version_in(reader.keys.encrypt("acme", b"x")) == 201


def test_16_processes_creating_one_tenant_make_one_ring(key_site: Site) -> None:
    """For each of twenty tenants one process wins, all others are told, and its ring stays."""
    names = [f"tenant-{number}" for number in range(20)]
    won = Children(START + CREATE, key_site.config(), names, size=16).answers()
    winners = dict(pair for part in won for pair in part)
    assert sum(len(part) for part in won) == 20
    kms = key_site.open()
    assert sorted(kms.keys.tenants()) == sorted(names)
    for name in names:
        info = kms.keys.describe(name)
        assert info.ring_id == winners[name]
        assert len(info.versions) == 1


def test_processes_that_retry_the_same_requests_make_each_once(key_site: Site) -> None:
    """Eight processes send the same ten requests: ten versions, in whoever's hands they fell."""
    kms = key_site.open()
    kms.keys.create("acme")
    Children(START + REQUEST, key_site.config(), 10, size=8).answers()
    requests = [version.request for version in kms.keys.describe("acme").versions]
    assert requests == [None, *(f"r-{number}" for number in range(10))]


def test_messages_sealed_during_rotations_elsewhere_open_everywhere(key_site: Site) -> None:
    """Processes that rotate and write at once leave nothing that cannot be read."""
    kms = key_site.open()
    kms.keys.create("acme")
    parts = Children(START + WORK, key_site.config(), 10, size=4).answers()
    assert len(kms.keys.describe("acme").versions) == 41
    reader = key_site.open()
    for part in parts:
        for number, text in enumerate(part):
            plain = str(number).encode()
            assert reader.keys.decrypt("acme", base64.b64decode(text), plain) == plain


@pytest.mark.parametrize("opened_times", [1, 16])
def test_16_threads_rotating_lose_no_version(key_site: Site, opened_times: int) -> None:
    """Threads take turns as processes do, with one KMS and with one each."""
    opened = [key_site.open() for _ in range(opened_times)]
    opened[0].keys.create("acme")

    def work(index: int) -> list[int | None]:
        kms = opened[index % len(opened)]
        return [kms.keys.rotate("acme").primary for _ in range(10)]

    made: list[Any] = in_threads(work, 16)
    assert sorted(number for part in made for number in part) == list(range(2, 162))
    info = key_site.open().keys.describe("acme")
    assert [version.version for version in info.versions] == list(range(1, 162))


def test_threads_rotating_in_memory_lose_no_version(memory_kms: KMS) -> None:
    """The memory store compares and sets as the files do."""
    in_threads(lambda _: [memory_kms.keys.rotate("acme") for _ in range(20)], 8)
    info = memory_kms.keys.describe("acme")
    assert [version.version for version in info.versions] == list(range(1, 162))


def test_16_threads_creating_one_tenant_make_one_ring(key_site: Site) -> None:
    """With exist_ok all get the same ring."""
    opened = [key_site.open() for _ in range(4)]
    infos: list[Any] = in_threads(
        lambda index: opened[index % 4].keys.create("acme", exist_ok=True), 16
    )
    assert len({info.ring_id for info in infos}) == 1
    assert opened[0].keys.describe("acme").sequence == 1


def test_rewraps_and_rotations_at_once_keep_every_key(key_site: Site) -> None:
    """A rewrap that loses a race begins again and covers the version that it had not seen."""
    old = key_site.open("local:m1", authenticate_with=("local:m1",))
    old.keys.create("acme")
    new = key_site.open("local:m2", unwrap_with=("local:m1",), authenticate_with=("local:m1",))
    messages: list[bytes] = []

    def work(index: int) -> None:
        for _ in range(8):
            if index % 2:
                new.keys.rewrap("acme")
            else:
                (new if index else old).keys.rotate("acme")
                messages.append(new.keys.encrypt("acme", b"x"))

    in_threads(work, 4)
    new.keys.rewrap("acme")
    info = new.keys.describe("acme")
    assert [version.version for version in info.versions] == list(range(1, 18))
    assert {wrap.kek for version in info.versions for wrap in version.wraps} == {"local:m2"}
    alone = key_site.open("local:m2", authenticate_with=("local:m1",))
    assert alone.keys.decrypt_many("acme", messages) == [b"x"] * 16


def test_readers_see_a_whole_ring_while_it_is_saved(key_site: Site) -> None:
    """Reading takes no lock, and never meets half a ring or an older one."""
    kms = key_site.open()
    kms.keys.create("acme")
    done: list[bool] = []

    def work(index: int) -> None:
        if index == 0:
            try:
                for _ in range(100):
                    kms.keys.rotate("acme")
            finally:
                done.append(True)
            return
        reader = key_site.open()
        seen = 0
        while not done:
            sequence = reader.keys.describe("acme").sequence
            assert sequence >= seen
            seen = sequence

    in_threads(work, 3)


def test_two_directories_are_two_stores(tmp_path: Path, key_site: Site) -> None:
    """A ring copied from one directory to another is refused by a process that knows better."""
    kms = key_site.open()
    kms.keys.create("acme")
    copy = key_site.document()
    kms.keys.rotate("acme")
    kms.keys.encrypt("acme", b"x")
    key_site.put(copy)
    key_site.clock.advance(60)
    with pytest.raises(RingRejected):
        kms.keys.encrypt("acme", b"x")
    with pytest.raises(KMSError):
        kms.keys.rotate("acme")
