"""Rings that move from one store to another: stopped anywhere, raced, and rolled back."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from sentra_kms.backends.ring_files import file_name
from sentra_kms.config import read_settings
from sentra_kms.errors import (
    AccessDenied,
    AlreadyExists,
    ConfigurationError,
    Conflict,
    KeyUnavailable,
    KMSError,
    RingRejected,
    ServiceUnavailable,
    TenantNotFound,
    UnsupportedOperation,
)
from sentra_kms.runtime import KMS
from tests.keys.conftest import ROOT, WAIT, Crew, Later, Site, Spy, in_threads, until

DOWN = ServiceUnavailable("down for maintenance")
ORDERS = (("new", "old"), ("old", "new"))


class Two:
    """Two local stores, and configurations that name the one, the other, or both."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.opened: list[KMS] = []
        self.wall = 1_800_000_000.0

    def config(self, store: str = "new", previous: str | None = "old") -> dict[str, Any]:
        """Return a configuration."""
        master = {"m1": self.site.reference("m1")}
        keys: dict[str, Any] = {"wrap_with": ["old:m1"], "store": store}
        if previous is not None:
            keys["previous_store"] = previous
        return {
            "test": {
                "development": True,
                "backends": {
                    name: {
                        "type": "local",
                        "directory": str(self.folder(name)),
                        "master_keys": master,
                    }
                    for name in ("old", "new")
                },
                "keys": keys,
            }
        }

    def folder(self, store: str) -> Path:
        """Return a store's directory."""
        return self.site.home / store

    def path(self, store: str, tenant: str = "acme") -> Path:
        """Return where a store keeps a ring."""
        return self.folder(store) / f"{file_name(tenant)}.ring"

    def payload(self, store: str, tenant: str = "acme") -> dict[str, Any]:
        """Return the fields of a stored ring."""
        fields: dict[str, Any] = json.loads(
            self.path(store, tenant).read_bytes().partition(b"\n")[2]
        )
        return fields

    def has(self, store: str, tenant: str = "acme") -> bool:
        """Whether a store has a ring."""
        return self.path(store, tenant).exists()

    def open(self, store: str = "new", previous: str | None = "old") -> KMS:
        """Open a KMS, as in another process."""
        config = self.config(store, previous)
        kms = KMS(
            read_settings(config, "test"),
            clock=lambda: self.wall,
            now=self.site.clock,
            source=config,
            background=Later(),
        )
        self.opened.append(kms)
        return kms

    def before(self) -> KMS:
        """Open a KMS that knows the old store only."""
        return self.open("old", None)


@pytest.fixture
def two(key_site: Site) -> Iterator[Two]:
    """Two stores, the old one with a ring of two versions."""
    found = Two(key_site)
    kms = found.before()
    kms.keys.create("acme")
    kms.keys.rotate("acme")
    yield found
    for each in found.opened:
        each.close()


def leave_mark(two: Two) -> None:
    """Begin to move acme, and fail before the ring is created in the new store."""
    mover = two.open()
    Spy(mover, "new", "save_ring").failure = DOWN
    with pytest.raises(ServiceUnavailable):
        mover.keys.move("acme")


def cut_short(kms: KMS, tenant: str = "acme") -> None:
    """Leave a ring in the new store whose creation was stopped before it was put to use."""
    store = kms._wiring.plan.store  # type: ignore[union-attr]
    kms.keys.create("model", exist_ok=True)
    fields = {"tenant": tenant, "sequence": 1, "primary": None}
    store.save_over(msgspec.structs.replace(store.load("model").ring, **fields), None)


# --- where a ring is ----------------------------------------------------------------------------


def test_ring_that_has_not_moved_is_used_where_it_is(two: Two) -> None:
    """Messages, rotation, states and rewrap: the old store has it, the new one nothing."""
    message = two.before().keys.encrypt("acme", b"x")
    kms = two.open()
    assert kms.keys.decrypt("acme", message) == b"x"
    kms.keys.rotate("acme")
    kms.keys.disable("acme", 1)
    kms.keys.enable("acme", 1)
    kms.keys.rewrap("acme")
    assert kms.keys.describe("acme").primary == 3
    assert not two.has("new")
    assert two.payload("old")["moved_to"] is None
    assert two.before().keys.describe("acme").primary == 3


def test_new_tenant_is_made_in_the_new_store(two: Two) -> None:
    """And listed once beside the others."""
    two.open().keys.create("beta")
    assert (two.has("new", "beta"), two.has("old", "beta")) == (True, False)
    assert sorted(two.open().keys.tenants()) == ["acme", "beta"]


@pytest.mark.parametrize("exist_ok", [False, True])
def test_tenant_in_the_old_store_is_not_made_again(two: Two, *, exist_ok: bool) -> None:
    """It exists, wherever it is."""
    kms = two.open()
    if exist_ok:
        assert kms.keys.create("acme", exist_ok=True).primary == 2
    else:
        with pytest.raises(AlreadyExists):
            kms.keys.create("acme")
    assert not two.has("new")


def test_create_is_refused_while_the_old_store_does_not_answer(two: Two) -> None:
    """It may have the ring."""
    kms = two.open()
    Spy(kms, "old", "load_ring").failure = DOWN
    with pytest.raises(ServiceUnavailable):
        kms.keys.create("beta")
    assert not two.has("new", "beta")


def test_old_store_that_fails_is_not_a_tenant_that_is_not_there(two: Two) -> None:
    """Only *not found* falls through, in both directions."""
    for store in ("old", "new"):
        kms = two.open()
        Spy(kms, store, "load_ring").failure = DOWN
        with pytest.raises(ServiceUnavailable):
            kms.keys.encrypt("acme", b"x")
        with pytest.raises(ServiceUnavailable):
            kms.keys.rotate("acme")
    assert not two.has("new")


# --- a move -------------------------------------------------------------------------------------


def test_move_marks_the_old_ring_and_creates_the_new_one(two: Two) -> None:
    """The document stays, with the mark; everything goes on in the new store."""
    message = two.before().keys.encrypt("acme", b"x")
    kms = two.open()
    before = two.payload("old")
    moved = kms.keys.move("acme")
    marked, new = two.payload("old"), two.payload("new")
    assert marked == {**before, "moved_to": "new", "sequence": before["sequence"] + 1}
    assert new == {**before, "sequence": before["sequence"] + 2}
    assert moved.sequence == new["sequence"]
    assert kms.keys.decrypt("acme", message) == b"x"
    kms.keys.rotate("acme")
    assert len(two.payload("new")["versions"]) == 3
    assert two.payload("old") == marked
    assert list(kms.keys.tenants()) == ["acme"]
    assert two.open("new", None).keys.decrypt("acme", message) == b"x"


def test_move_again_changes_nothing(two: Two) -> None:
    """Also for a tenant that was made in the new store, and without a previous store."""
    kms = two.open()
    moved = kms.keys.move("acme")
    assert kms.keys.move("acme") == moved
    made = kms.keys.create("beta")
    assert kms.keys.move("beta") == made
    assert two.open("new", None).keys.move("acme") == moved
    with pytest.raises(TenantNotFound):
        kms.keys.move("nobody")


def test_messages_flow_while_a_ring_moves_and_rotates(two: Two) -> None:
    """No message fails in any thread, and every one opens afterwards."""
    kms, other = two.open(), two.open()
    made: list[bytes] = []
    stop = threading.Event()

    def use(index: int) -> None:
        own = kms if index % 2 else other
        while not stop.is_set():
            message = own.keys.encrypt("acme", b"x")
            assert own.keys.decrypt("acme", message) == b"x"
            made.append(message)
            own.keys._cache.clear()

    crew = Crew(use, 4)
    until(lambda: len(made) > 20)
    kms.keys.move("acme")
    other.keys.rotate("acme")
    mark = len(made)
    until(lambda: len(made) > mark + 20 or not any(t.is_alive() for t in crew.threads))
    stop.set()
    assert crew.join() == [None] * 4
    fresh = two.open("new", None)
    assert all(fresh.keys.decrypt("acme", message) == b"x" for message in made)


def test_each_tenant_is_listed_once_at_every_stage(two: Two) -> None:
    """Not moved, marked, moved, and made new."""
    for name in ("b", "c", "d"):
        two.before().keys.create(name)
    kms = two.open()
    kms.keys.create("e")
    kms.keys.move("c")
    Spy(kms, "new", "save_ring").failure = DOWN
    with pytest.raises(ServiceUnavailable):
        kms.keys.move("d")
    assert sorted(two.open().keys.tenants()) == ["acme", "b", "c", "d", "e"]


# --- stopped ------------------------------------------------------------------------------------

MOVE = """
import json, os, sys
import sentra_kms
from sentra_kms.backends import ring_files
config, point, half = map(json.loads, sys.argv[1:])
kms = sentra_kms.load(config, environment="test")
kms.keys.describe("acme")
calls = []

class Doomed:
    def __getattr__(self, name):
        real = getattr(os, name)
        if name not in {"open", "fchmod", "write", "fsync", "rename"}:
            return real
        def call(*arguments, **options):
            calls.append(name)
            if len(calls) != point:
                return real(*arguments, **options)
            if half and name == "write":
                real(arguments[0], bytes(arguments[1])[:99])
            elif half:
                real(*arguments, **options)
            os._exit(9)
        return call

ring_files.os = Doomed()
kms.keys.move("acme")
print(json.dumps(calls))
"""


def run_move(two: Two, point: int, *, half: bool = False) -> subprocess.CompletedProcess[str]:
    """Move in a process that ends before, or in the midst of, its n-th call of the system."""
    arguments = [json.dumps(value) for value in (two.config(), point, half)]
    return subprocess.run(
        [sys.executable, "-c", MOVE, *arguments],
        capture_output=True,
        text=True,
        timeout=WAIT,
        check=False,
        env={**os.environ, "PYTHONPATH": ROOT},
    )


@pytest.mark.slow
def test_move_that_is_killed_anywhere_is_finished_by_the_next_reader(two: Two) -> None:
    """Before and after every call that changes something: one ring, whole, with all messages."""
    message = two.before().keys.encrypt("acme", b"x")
    shutil.copytree(two.folder("old"), two.site.home / "start")
    two.folder("new").mkdir(mode=0o700)
    calls: list[str] = json.loads(run_move(two, 0).stdout)
    assert calls.count("rename") == 2
    points = [n for n, name in enumerate(calls, 1) if name in {"write", "fsync", "rename"}]
    stages = set()
    for point in points:
        for half in (False, True):
            for store in ("old", "new"):
                shutil.rmtree(two.folder(store))
            shutil.copytree(two.site.home / "start", two.folder("old"))
            two.folder("new").mkdir(mode=0o700)
            ended = run_move(two, point, half=half)
            assert ended.returncode == 9, ended.stderr
            stages.add((two.payload("old")["moved_to"], two.has("new")))
            marked = two.payload("old")["moved_to"] is not None
            kms = two.open()
            assert kms.keys.decrypt("acme", message) == b"x"
            assert two.has("new") is marked  # a reader finishes what was begun
            assert list(kms.keys.tenants()) == ["acme"]
            assert kms.keys.rotate("acme").primary == 3
            kms.keys.move("acme")
            assert two.open("new", None).keys.decrypt("acme", message) == b"x"
            assert len(two.payload("new")["versions"]) == 3
            kms.close()
    assert stages == {(None, False), ("new", False), ("new", True)}


@pytest.mark.parametrize("use", ["describe", "encrypt", "rotate", "create", "move", "destroy_due"])
def test_whoever_comes_next_finishes_a_move(two: Two, use: str) -> None:
    """A mark without a new ring: every way to it makes it first."""
    kms = two.open()
    Spy(kms, "new", "save_ring").failure = DOWN
    with pytest.raises(ServiceUnavailable):
        kms.keys.move("acme")
    assert (two.payload("old")["moved_to"], two.has("new")) == ("new", False)
    fresh = two.open()
    uses: dict[str, Callable[[], object]] = {
        "describe": lambda: fresh.keys.describe("acme"),
        "encrypt": lambda: fresh.keys.encrypt("acme", b"x"),
        "rotate": lambda: fresh.keys.rotate("acme"),
        "create": lambda: fresh.keys.create("acme", exist_ok=True),
        "move": lambda: fresh.keys.move("acme"),
        "destroy_due": fresh.keys.destroy_due,
    }
    uses[use]()
    assert two.has("new")
    assert two.payload("new")["moved_to"] is None


def test_process_whose_move_failed_goes_on(two: Two) -> None:
    """The one that marked it finds its own mark."""
    kms = two.open()
    saves = Spy(kms, "new", "save_ring")
    saves.failure = DOWN
    with pytest.raises(ServiceUnavailable):
        kms.keys.move("acme")
    saves.failure = None
    assert kms.keys.rotate("acme").primary == 3
    assert len(two.payload("new")["versions"]) == 3


def test_answer_of_the_create_is_lost(two: Two) -> None:
    """The new ring was saved, and the mover did not hear of it: it is read, not made again."""
    kms = two.open()
    saves = Spy(kms, "new", "save_ring")
    real = saves._original

    def lose(*arguments: Any) -> Any:
        real(*arguments)
        raise ServiceUnavailable("no answer")

    saves.instead = lose
    with pytest.raises(ServiceUnavailable):
        kms.keys.move("acme")
    saves.instead = None
    before = two.payload("new")
    assert kms.keys.move("acme").sequence == before["sequence"]
    assert two.payload("new") == before


# --- created while processes have the stores in either order ----------------------------------


@pytest.mark.parametrize("exist_ok", [False, True])
def test_tenant_made_in_the_old_store_meanwhile_is_not_made_twice(
    two: Two, *, exist_ok: bool
) -> None:
    """A process that is still to be redeployed was faster: there is its ring, and no other."""
    kms, other = two.open(), two.open("old", "new")
    saves = Spy(kms, "new", "save_ring")
    saves.before = lambda: other.keys.create("beta")
    if exist_ok:
        made = kms.keys.create("beta", exist_ok=True)
        assert made.ring_id == other.keys.describe("beta").ring_id
    else:
        with pytest.raises(AlreadyExists):
            kms.keys.create("beta")
    assert (two.has("new", "beta"), two.has("old", "beta")) == (False, True)
    message = kms.keys.tenant("beta").encrypt(b"x")
    assert other.keys.tenant("beta").decrypt(message) == b"x"


def test_tenants_made_at_once_under_both_configurations_have_one_ring(two: Two) -> None:
    """Who was told of a ring has the one that there is, and what he sealed at once opens."""
    crew = [two.open(*order) for order in [("new", "old"), ("old", "new")] * 2]
    for number in range(40):
        tenant = f"t{number}"

        told: set[str] = set()
        sealed: list[bytes] = []

        def make(index: int) -> None:
            for _ in range(1000):
                with suppress(Conflict):
                    told.add(crew[index].keys.create(tenant, exist_ok=True).ring_id)  # noqa: B023
                    sealed.append(crew[index].keys.encrypt(tenant, b"x"))  # noqa: B023
                    return
            raise AssertionError("nobody makes it")

        assert Crew(make, len(crew)).join() == [None] * len(crew)
        assert [store for store in ("old", "new") if two.has(store, tenant)] in [["old"], ["new"]]
        assert told == {kms.keys.describe(tenant).ring_id for kms in crew}
        for kms in crew:
            assert kms.keys.decrypt_many(tenant, sealed) == [b"x"] * len(crew)


@pytest.mark.parametrize("taken_back", [False, True])
def test_create_that_cannot_look_into_the_old_store_afterwards(
    two: Two, *, taken_back: bool
) -> None:
    """The ring is taken back, or cannot be used, and is made later on."""
    kms = two.open()
    saves = Spy(kms, "new", "save_ring")
    loads = Spy(kms, "old", "load_ring")
    deletes = Spy(kms, "new", "delete_ring")
    saves.before = lambda: setattr(loads, "failure", DOWN)
    if not taken_back:
        deletes.failure = DOWN
    with pytest.raises(ServiceUnavailable):
        kms.keys.create("beta")
    assert two.has("new", "beta") is not taken_back
    with pytest.raises(TenantNotFound if taken_back else KeyUnavailable):
        two.open().keys.encrypt("beta", b"x")
    loads.failure = saves.before = None
    assert kms.keys.create("beta", exist_ok=not taken_back).primary == 1
    assert kms.keys.decrypt("beta", kms.keys.encrypt("beta", b"x")) == b"x"


@pytest.mark.parametrize("order", [("new", "old"), ("old", "new")])
@pytest.mark.parametrize("other", [False, True])
def test_create_that_was_cut_short(two: Two, order: tuple[str, str], *, other: bool) -> None:
    """Killed between the save and the look: who creates it next puts it to use, or makes one."""
    kms = two.open()
    loads = Spy(kms, "old", "load_ring")

    def killed(*arguments: Any) -> Any:
        if two.has("new", "beta"):
            raise KeyboardInterrupt
        return loads._original(*arguments)

    loads.instead = killed
    with pytest.raises(KeyboardInterrupt):
        kms.keys.create("beta")
    assert two.payload("new", "beta")["primary"] is None
    last = two.open(*order)
    if other:  # by a process that looked before there was this one
        two.before().keys.create("beta")
        message = two.before().keys.encrypt("beta", b"x")
        assert two.open(*order).keys.decrypt("beta", message) == b"x"
        assert two.has("new", "beta") is (order == ("old", "new"))
    assert last.keys.create("beta", exist_ok=True).primary == 1
    message = last.keys.encrypt("beta", b"x")
    for stores in (("new", "old"), ("old", "new")):
        assert two.open(*stores).keys.decrypt("beta", message) == b"x"
    assert not (two.has("new", "beta") and two.has("old", "beta"))


@pytest.mark.parametrize("marked", [False, True])
def test_ring_is_moved_over_one_whose_creation_was_cut_short(two: Two, *, marked: bool) -> None:
    """Which is none, and in nobody's way."""
    message = two.before().keys.encrypt("acme", b"x")
    if marked:
        leave_mark(two)
    mover = two.open()
    cut_short(mover)
    assert mover.keys.decrypt("acme", message) == b"x"
    mover.keys.move("acme")
    assert two.open("new", None).keys.decrypt("acme", message) == b"x"


def test_slow_look_while_a_ring_is_put_to_use_is_no_rollback(two: Two) -> None:
    """It began before this process had seen the ring in use."""
    kms, other = two.open(), two.open()
    known, go_on = Spy(kms, "new", "load_ring").hold_answers()
    outcomes: list[object] = []

    def read() -> None:
        try:
            outcomes.append(kms.keys.describe("beta").ring_id)
        except KMSError as error:
            outcomes.append(error)

    thread = threading.Thread(target=read)
    looks = Spy(other, "old", "load_ring")

    def look() -> None:
        if two.has("new", "beta"):
            thread.start()
            assert known.wait(WAIT)

    looks.before = look
    made = other.keys.create("beta").ring_id
    kms._wiring.plan.store._seen.saved(  # type: ignore[union-attr]
        other._wiring.plan.store.load("beta").ring,  # type: ignore[union-attr]
        two.path("new", "beta").read_bytes(),
    )
    go_on.set()
    thread.join(WAIT)
    assert outcomes == [made]


def test_store_that_goes_back_to_how_a_ring_was_created_is_refused(two: Two) -> None:
    """By a process that has seen it in use, as any that was rolled back."""
    kms = two.open()
    path = two.path("new", "beta")
    first: list[bytes] = []
    loads = Spy(kms, "old", "load_ring")
    loads.before = lambda: first.append(path.read_bytes()) if path.exists() else None
    kms.keys.create("beta")
    path.write_bytes(first[0])
    with pytest.raises(RingRejected, match="rolled back"):
        kms.keys.rotate("beta")


@pytest.mark.parametrize("awaited", [False, True])
def test_process_that_came_too_soon_asks_again(two: Two, *, awaited: bool) -> None:
    """Who read a ring before it was put to use seals as soon as it is."""
    kms, reader = two.open(), two.open()
    loads = Spy(kms, "old", "load_ring")

    def look(*arguments: Any) -> Any:
        if two.has("new", "beta"):
            with pytest.raises(KeyUnavailable):
                reader.keys.encrypt("beta", b"x")
        return loads._original(*arguments)

    loads.instead = look
    kms.keys.create("beta")
    two.site.clock.advance(1.0)
    if awaited:
        message = asyncio.run(reader.keys.aio.encrypt("beta", b"x"))
    else:
        message = reader.keys.encrypt("beta", b"x")
    assert kms.keys.decrypt("beta", message) == b"x"


def test_ring_that_is_put_to_use_by_another_meanwhile_stays(two: Two) -> None:
    """Who comes to take it back finds that it is in use, and has made that one."""
    kms, helper = two.open(), two.open()
    deletes = Spy(kms, "new", "delete_ring")
    loads = Spy(kms, "old", "load_ring")

    def look(*arguments: Any) -> Any:
        if two.has("new", "beta") and not two.has("old", "beta"):
            helper.keys.create("beta", exist_ok=True)
            two.before().keys.create("beta")
        return loads._original(*arguments)

    loads.instead = look
    made = kms.keys.create("beta")
    assert deletes.count == 1
    assert two.payload("new", "beta")["primary"] == made.primary == 1
    assert made.ring_id == helper.keys.describe("beta").ring_id


def test_lost_answer_of_a_create_hides_no_second_ring(two: Two) -> None:
    """A client below that tried again was told of a conflict with what it had saved itself."""
    kms, other = two.open(), two.open("old", "new")
    saves = Spy(kms, "new", "save_ring")

    def lose(*arguments: Any) -> Any:
        other.keys.create("beta")
        saves._original(*arguments)
        raise Conflict("not the revision that is expected")

    saves.instead = lose
    made = kms.keys.create("beta", exist_ok=True)
    assert (two.has("new", "beta"), two.has("old", "beta")) == (False, True)
    assert made.ring_id == other.keys.describe("beta").ring_id


@pytest.mark.parametrize("answer", [DOWN, Conflict("changed"), TenantNotFound("none")])
def test_lost_answer_of_taking_back(two: Two, answer: KMSError) -> None:
    """What is gone is gone: nothing is to be deleted by hand, and it can be made later on."""
    kms = two.open()
    saves, loads = Spy(kms, "new", "save_ring"), Spy(kms, "old", "load_ring")
    deletes = Spy(kms, "new", "delete_ring")

    def lose(*arguments: Any) -> Any:
        deletes._original(*arguments)
        raise answer

    deletes.instead = lose
    saves.before = lambda: setattr(loads, "failure", DOWN)
    with pytest.raises(ServiceUnavailable):
        kms.keys.create("beta")
    loads.failure = saves.before = None
    assert kms.keys.create("beta").primary == 1


@pytest.mark.parametrize("there", [False, True])
def test_ring_that_was_taken_back_is_not_used_on(two: Two, *, there: bool) -> None:
    """Nor by another thread of this process, which has read it before that."""
    kms, other = two.open(), two.open("old", "new")
    saves, loads = Spy(kms, "new", "save_ring"), Spy(kms, "old", "load_ring")
    soon = [True]

    def look(*arguments: Any) -> Any:
        if two.has("new", "beta") and soon:
            soon.clear()
            if there:  # and found there is what is used
                assert other.keys.decrypt("beta", kms.keys.encrypt("beta", b"x")) == b"x"
                return loads._original(*arguments)
            with pytest.raises(KeyUnavailable):
                kms.keys.encrypt("beta", b"x")
            raise DOWN
        return loads._original(*arguments)

    loads.instead = look
    if there:
        saves.before = lambda: other.keys.create("beta")
        kms.keys.create("beta", exist_ok=True)
        assert other.keys.decrypt("beta", kms.keys.encrypt("beta", b"x")) == b"x"
    else:
        with pytest.raises(ServiceUnavailable):
            kms.keys.create("beta")
        with pytest.raises(TenantNotFound):
            kms.keys.encrypt("beta", b"x")


# --- raced --------------------------------------------------------------------------------------


@pytest.mark.parametrize("own", [False, True])
def test_many_movers_make_one_ring(two: Two, *, own: bool) -> None:
    """With one KMS and with one each: the same ring for all, and nobody fails."""
    shared = two.open()
    movers = [two.open() if own else shared for _ in range(8)]
    moved = in_threads(lambda index: movers[index].keys.move("acme"), 8)
    assert {info.sequence for info in moved} == {two.payload("new")["sequence"]}  # type: ignore[attr-defined]
    assert two.payload("new")["sequence"] == two.payload("old")["sequence"] + 1


@pytest.mark.parametrize("change", ["rotate", "disable"])
def test_late_writer_conflicts_and_reads_again(two: Two, change: str) -> None:
    """What was read before the move and is saved after it lands in the new store."""
    late, mover = two.open(), two.open()
    saves = Spy(late, "old", "save_ring")
    once = [True]

    def overtake() -> None:
        if once:
            once.pop()
            mover.keys.move("acme")

    saves.before = overtake
    if change == "rotate":
        assert late.keys.rotate("acme").primary == 3
        assert len(two.payload("new")["versions"]) == 3
        assert len(two.payload("old")["versions"]) == 2
    else:
        assert late.keys.disable("acme", 1).versions[0].state == "disabled"
        assert two.payload("new")["versions"][0]["state"] == "disabled"
        assert two.payload("old")["versions"][0]["state"] == "enabled"


def test_mover_that_is_overtaken_by_a_writer_moves_what_was_written(two: Two) -> None:
    """Its mark conflicts, and it reads again."""
    mover, writer = two.open(), two.open()
    saves = Spy(mover, "old", "save_ring")
    once = [True]

    def overtake() -> None:
        if once:
            once.pop()
            writer.keys.rotate("acme")

    saves.before = overtake
    assert mover.keys.move("acme").primary == 3
    assert len(two.payload("new")["versions"]) == 3


def test_reader_between_the_two_looks_of_a_reader(two: Two) -> None:
    """Not in the new store when that was asked, moved when the old one was: found."""
    reader, mover = two.open(), two.open()
    loads = Spy(reader, "old", "load_ring")

    def overtake() -> None:
        if not two.has("new"):
            mover.keys.move("acme")
            mover.keys.rotate("acme")

    loads.before = overtake
    assert reader.keys.describe("acme").primary == 3


def test_reader_finds_the_old_copy_gone_meanwhile(two: Two) -> None:
    """Moved and then shredded between the two looks: the new ring is found."""
    reader, mover = two.open(), two.open()
    loads = Spy(reader, "old", "load_ring")

    def overtake() -> None:
        if not two.has("new"):
            mover.keys.move("acme")
            mover.keys.shred("acme", confirm="acme")

    loads.before = overtake
    assert reader.keys.describe("acme").primary is None
    assert not two.has("old")


# --- other configurations -----------------------------------------------------------------------


def test_process_with_the_old_configuration_meets_the_mark(two: Two) -> None:
    """It may not go on writing under the old ring: it is told where the ring is."""
    old = two.before()
    message = old.keys.encrypt("acme", b"x")
    two.open().keys.move("acme")
    two.site.clock.advance(60)
    uses: list[Callable[[], object]] = [
        lambda: old.keys.decrypt("acme", message),
        lambda: old.keys.encrypt("acme", b"x"),
        lambda: old.keys.rotate("acme"),
        lambda: old.keys.disable("acme", 1),
        lambda: old.keys.create("acme"),
        lambda: old.keys.create("acme", exist_ok=True),
        lambda: old.keys.shred("acme", confirm="acme"),
        lambda: old.keys.move("acme"),
    ]
    marked = two.path("old").read_bytes()
    for use in uses:
        with pytest.raises(UnsupportedOperation, match="has moved to 'new': name that as store"):
            use()
    assert two.path("old").read_bytes() == marked


def test_process_with_the_old_configuration_goes_on_after_a_reload(two: Two) -> None:
    """The way out: the same process, handles and all."""
    config = two.config("old", None)
    old = KMS(read_settings(config, "test"), now=two.site.clock, source=config, background=Later())
    two.opened.append(old)
    acme = old.keys.tenant("acme")
    message = acme.encrypt(b"x")
    two.open().keys.move("acme")
    old.reload(two.config())
    two.site.clock.advance(60)
    assert acme.decrypt(message) == b"x"
    assert old.keys.rotate("acme").primary == 3


def test_mark_of_another_store_is_not_finished_here(two: Two) -> None:
    """The ring went to `new`; a configuration whose store is another one may not make it."""
    kms = two.open()
    Spy(kms, "new", "save_ring").failure = DOWN
    with pytest.raises(ServiceUnavailable):
        kms.keys.move("acme")
    config = two.config("third", "old")
    config["test"]["backends"]["third"] = {
        **config["test"]["backends"]["new"],
        "directory": str(two.site.home / "third"),
    }
    other = KMS(read_settings(config, "test"), now=two.site.clock, background=Later())
    two.opened.append(other)
    with pytest.raises(UnsupportedOperation, match="has moved to 'new'"):
        other.keys.describe("acme")
    assert not (two.site.home / "third").exists()


def test_store_that_cannot_be_two_is_refused() -> None:
    """The previous store is another one."""
    table = {
        "development": True,
        "backends": {"m": {"type": "memory"}},
        "keys": {"wrap_with": ["m:k"], "store": "m", "previous_store": "m"},
    }
    with pytest.raises(ConfigurationError, match="this is store itself"):
        read_settings({"test": table}, "test")


# --- rolled back and attacked -------------------------------------------------------------------


def test_new_store_that_lost_the_ring_is_noticed(two: Two) -> None:
    """By a process that has seen the new ring; it is not quietly made again from the mark."""
    kms = two.open()
    kms.keys.move("acme")
    kms.keys.rotate("acme")
    two.path("new").unlink()
    with pytest.raises(RingRejected):
        kms.keys.describe("acme")
    with pytest.raises(RingRejected):
        kms.keys.rotate("acme")
    with pytest.raises(KMSError):
        kms.keys.create("acme")
    assert not two.has("new")


def test_unmarked_old_ring_is_replayed_after_the_move(two: Two) -> None:
    """Whoever writes the old store gains nothing: the new ring is asked first."""
    saved = two.path("old").read_bytes()
    kms = two.open()
    kms.keys.move("acme")
    kms.keys.rotate("acme")
    two.path("old").write_bytes(saved)
    for reader in (kms, two.open()):
        assert reader.keys.describe("acme").primary == 3
        assert reader.keys.move("acme").primary == 3
    assert list(two.open().keys.tenants()) == ["acme"]


def test_old_ring_is_replayed_and_the_new_one_deleted(two: Two) -> None:
    """A rollback, refused by every process that has seen the move."""
    saved = two.path("old").read_bytes()
    kms = two.open()
    message = kms.keys.encrypt("acme", b"x")
    kms.keys.move("acme")
    two.path("new").unlink()
    two.path("old").write_bytes(saved)
    two.site.clock.advance(60)
    for use in (
        lambda: kms.keys.decrypt("acme", message),
        lambda: kms.keys.rotate("acme"),
        lambda: kms.keys.move("acme"),
    ):
        with pytest.raises(RingRejected, match="rolled back"):
            use()
    assert not two.has("new")


def test_old_ring_that_is_edited_is_refused(two: Two) -> None:
    """The mark is authenticated as everything else is."""
    kms = two.open()
    raw = two.path("old").read_bytes()
    two.path("old").write_bytes(raw.replace(b'"moved_to":null', b'"moved_to":"new"'))
    with pytest.raises(RingRejected):
        kms.keys.describe("acme")
    assert not two.has("new")


def test_mark_of_another_tenant_makes_nothing(two: Two) -> None:
    """A marked ring under another tenant's name is refused, not created."""
    kms = two.open()
    kms.keys.move("acme")
    shutil.copy(two.path("old"), two.path("old", "beta"))
    with pytest.raises(RingRejected):
        kms.keys.describe("beta")
    assert not two.has("new", "beta")


# --- keys destroyed after a move ----------------------------------------------------------------


@pytest.mark.parametrize("how", ["destroy_due", "shred"])
def test_destroying_after_a_move_deletes_the_marked_copy(two: Two, how: str) -> None:
    """Its wraps would bring the key back."""
    kms = two.open()
    kms.keys.move("acme")
    if how == "shred":
        done = kms.keys.shred("acme", confirm="acme").destroyed
    else:
        kms.keys.schedule_destroy("acme", 1, after=timedelta(0))
        (done,) = kms.keys.destroy_due().destroyed
    assert not two.has("old")
    assert two.has("new")
    places = [each.where.partition(":")[0] for each in done.remains]
    assert [place for place in places if place.startswith("store")] == [
        "store 'new'",
        "store 'old'",
    ]
    assert list(two.open().keys.tenants()) == ["acme"]
    with pytest.raises(AlreadyExists):
        two.open().keys.create("acme")


def test_destroying_after_a_move_deletes_a_copy_whose_mark_was_lost(two: Two) -> None:
    """A backup of the old store put back: it is older than the ring, and goes too."""
    saved = two.path("old").read_bytes()
    kms = two.open()
    kms.keys.move("acme")
    two.path("old").write_bytes(saved)
    kms.keys.shred("acme", confirm="acme")
    assert not two.has("old")


def test_destroying_again_deletes_what_a_run_that_was_stopped_has_left(two: Two) -> None:
    """Stopped between the save and the purge, as by a kill: the next run comes to it."""
    kms = two.open()
    kms.keys.move("acme")
    kms.keys.schedule_destroy("acme", 1, after=timedelta(0))
    saves = Spy(kms, "new", "save_ring")
    real = saves._original

    def stop(*arguments: Any) -> Any:
        real(*arguments)
        raise KeyboardInterrupt

    saves.instead = stop
    with pytest.raises(KeyboardInterrupt):
        kms.keys.destroy_due()
    assert two.payload("new")["versions"][0]["state"] == "destroyed"
    saves.instead = None
    assert kms.keys.destroy_due().failed == {}
    assert not two.has("old")


def test_another_ring_in_the_old_store_is_not_deleted_and_told(two: Two) -> None:
    """Made anew by who knows only the old store, it holds other keys, which nobody destroyed."""
    kms = two.open()
    kms.keys.move("acme")
    two.path("old").unlink()
    stranger = two.open("old", None)
    stranger.keys.create("acme")
    message = stranger.keys.encrypt("acme", b"x")
    kms.keys.schedule_destroy("acme", 1, after=timedelta(0))
    (done,) = kms.keys.destroy_due().destroyed
    assert two.open("old", None).keys.decrypt("acme", message) == b"x"
    (left,) = [each for each in done.remains if "'old'" in each.where and "another" in each.where]
    assert left.until is None


def test_newer_copy_in_the_old_store_is_told(two: Two) -> None:
    """Somebody went on in the old store with a copy that had lost its mark: it has the wraps."""
    saved = two.path("old").read_bytes()
    kms = two.open()
    kms.keys.move("acme")
    two.path("old").write_bytes(saved)
    stranger = two.open("old", None)
    for _ in range(5):
        stranger.keys.rotate("acme")
    done = kms.keys.shred("acme", confirm="acme").destroyed
    assert two.has("old")
    assert any("'old'" in each.where and "another" in each.where for each in done.remains)


def test_ring_that_never_moved_is_not_deleted(two: Two) -> None:
    """Not even when somebody rolled it back meanwhile: it is the only one."""
    kms = two.open()
    saved = two.path("old").read_bytes()
    saves = Spy(kms, "old", "save_ring")
    real = saves._original

    def roll_back(*arguments: Any) -> Any:
        revision = real(*arguments)
        two.path("old").write_bytes(saved)
        return revision

    saves.instead = roll_back
    kms.keys.shred("acme", confirm="acme")
    assert two.path("old").read_bytes() == saved


def test_destroying_before_a_move_leaves_the_ring_where_it_is(two: Two) -> None:
    """The live ring is in the old store and stays there, destroyed."""
    kms = two.open()
    kms.keys.shred("acme", confirm="acme")
    assert two.has("old")
    assert not two.has("new")
    assert {version["state"] for version in two.payload("old")["versions"]} == {"destroyed"}
    moved = kms.keys.move("acme")
    assert moved.primary is None
    with pytest.raises(KeyUnavailable):
        kms.keys.encrypt("acme", b"x")


def test_copy_that_cannot_be_deleted_is_reported(two: Two) -> None:
    """The destruction is done all the same, and the report says what is left."""
    kms = two.open()
    kms.keys.move("acme")
    Spy(kms, "old", "delete_ring").failure = DOWN
    done = kms.keys.shred("acme", confirm="acme").destroyed
    (left,) = [each for each in done.remains if "'old'" in each.where]
    assert left.where == "store 'old', which could not be purged: down for maintenance"
    assert two.has("old")
    Spy(kms, "old", "delete_ring").failure = None
    assert kms.keys.describe("acme").primary is None


# --- outages ------------------------------------------------------------------------------------


def test_moved_tenants_are_not_held_up_by_the_old_store(two: Two) -> None:
    """While the old store is down, a change made elsewhere to a moved ring is obeyed in time."""
    two.before().keys.create("still")
    here, elsewhere = two.open(), two.open()
    here.keys.move("acme")
    old = here.keys.encrypt("acme", b"x")
    here.keys.rotate("acme")
    assert here.keys.decrypt("acme", old) == b"x"
    here.keys.encrypt("still", b"x")
    elsewhere.keys.disable("acme", 2)
    Spy(here, "old", "load_ring").failure = ServiceUnavailable("down", backend="old")
    two.site.clock.advance(60)
    here.keys.encrypt("still", b"x")  # goes on from memory
    with pytest.raises(KeyUnavailable):
        here.keys.decrypt("acme", old)


def test_outage_of_the_new_store_is_coasted_over_for_both(two: Two) -> None:
    """Whether a ring has moved is not known without it."""
    kms = two.open()
    kms.keys.encrypt("acme", b"x")
    Spy(kms, "new", "load_ring").failure = DOWN
    two.site.clock.advance(600)
    kms.keys.encrypt("acme", b"x")
    two.site.clock.advance(3600)
    with pytest.raises(ServiceUnavailable):
        kms.keys.encrypt("acme", b"x")


def test_conflict_that_never_ends_is_told(two: Two, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the time that is given to lost races."""
    from sentra_kms.keys import changes

    monkeypatch.setattr(changes, "_SAVE_TIME", 0.0)
    kms = two.open()
    Spy(kms, "old", "save_ring").failure = Conflict("again")
    with pytest.raises(Conflict):
        kms.keys.move("acme")


@pytest.mark.parametrize("marked", [False, True])
def test_move_that_cannot_make_way_says_so(two: Two, *, marked: bool) -> None:
    """As where nothing may be deleted: another ring is never told to be the one that moved."""
    message = two.before().keys.encrypt("acme", b"x")
    if marked:
        leave_mark(two)
    mover = two.open()
    cut_short(mover)
    deletes = Spy(mover, "new", "delete_ring")
    deletes.failure = AccessDenied("nothing may be deleted here")
    with pytest.raises(AccessDenied):
        mover.keys.move("acme")
    if marked:
        with pytest.raises(AccessDenied):
            mover.keys.rotate("acme")
    else:
        assert two.payload("old")["moved_to"] is None
        assert mover.keys.rotate("acme").primary == 3
    assert two.payload("new")["primary"] is None
    deletes.failure = None
    mover.keys.move("acme")
    assert two.open("new", None).keys.decrypt("acme", message) == b"x"


def test_ring_that_comes_into_the_way_of_a_move_is_not_taken_for_it(two: Two) -> None:
    """Whatever is created there while the mark is set: the move is made again over it."""
    message = two.before().keys.encrypt("acme", b"x")
    mover = two.open()
    Spy(mover, "old", "save_ring").before = lambda: cut_short(two.open())
    assert mover.keys.move("acme").primary == 2
    assert two.open("new", None).keys.decrypt("acme", message) == b"x"


def test_move_of_a_ring_that_another_has_moved(two: Two) -> None:
    """It is found there, and nothing is marked twice."""
    mover, other = two.open(), two.open()
    reads = Spy(mover, "old", "load_ring")

    def overtake() -> None:
        reads.before = None
        other.keys.rotate("acme")

    reads.before = overtake
    looks = Spy(mover, "new", "load_ring")

    def move() -> None:
        if looks.count == 2:
            other.keys.move("acme")

    looks.before = move
    assert mover.keys.move("acme").primary == 3
    assert two.payload("old")["moved_to"] == "new"


def test_rotation_does_not_put_a_ring_to_use_that_is_being_taken_back(two: Two) -> None:
    """A tenant that two create at once has one ring, also if a third changes it meanwhile."""
    maker, other, third = two.open("old", "new"), two.open(), two.open()
    go_on, changed = threading.Event(), threading.Event()
    Spy(maker, "old", "save_ring").before = lambda: go_on.wait(WAIT)
    looks = Spy(maker, "new", "load_ring")
    looks.before = lambda: two.has("old", "beta") and changed.wait(WAIT)
    reads = Spy(third, "old", "load_ring")

    def overtake() -> None:
        reads.before = None
        other.keys.create("beta")
        go_on.set()
        until(lambda: two.has("old", "beta"))

    reads.before = overtake
    crew = Crew(lambda _: maker.keys.create("beta"), 1)
    until(lambda: looks.count == 1)
    try:
        third.keys.rotate("beta")
    finally:
        changed.set()
    crew.join()
    messages = [two.open(*order).keys.encrypt("beta", b"x") for order in ORDERS]
    for order in ORDERS:
        assert two.open(*order).keys.decrypt_many("beta", messages) == [b"x", b"x"]


# --- restored while there are two -----------------------------------------------------------------


@pytest.mark.parametrize("marked", [False, True])
def test_ring_that_is_refused_in_the_old_store_is_restored_by_force_alone(
    two: Two, tmp_path: Path, *, marked: bool
) -> None:
    """It may be newer than the backup, and be mended: nothing is put in front of it unasked."""
    path = tmp_path / "rings.backup"
    two.open().keys.backup(path)
    two.open().keys.rotate("acme")
    message = two.open().keys.encrypt("acme", b"x")
    if marked:
        leave_mark(two)
    sound = two.path("old").read_bytes()
    two.path("old").write_bytes(sound[:-1] + b"?")
    (left,) = two.open().keys.restore(path).tenants
    assert (left.action, left.losses.unknown, two.has("new")) == ("refuse", True, False)
    assert left.error is not None
    assert "its MAC is wrong" in left.error.message
    two.path("old").write_bytes(sound)
    assert two.open().keys.decrypt("acme", message) == b"x"
    two.path("old").write_bytes(sound[:-1] + b"?")
    if two.has("new"):
        two.path("new").unlink()
    (done,) = two.open().keys.restore(path, force=True).tenants
    assert (done.action, done.error) == ("force", None)
    assert len(two.open().keys.describe("acme").versions) == 2
    assert two.open().keys.restore(path).failed == ()
