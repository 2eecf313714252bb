"""`kms.reload()`: what came of a source that is another one now is given to nobody any more."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from sentra_kms.config import read_settings
from sentra_kms.errors import (
    AccessDenied,
    KMSError,
    MalformedInput,
    SecretNotFound,
    ServiceUnavailable,
)
from sentra_kms.hookspecs import BatchSecretHooks, hookimpl
from sentra_kms.hooktypes import SecretRequest, SecretValue
from sentra_kms.material import KeyMaterial, Secret
from sentra_kms.reference import Reference
from sentra_kms.runtime import KMS
from sentra_kms.secrets import documents
from sentra_kms.secrets.manager import SecretManager
from tests.binding.fakes import Secrets, bind
from tests.conftest import ManualClock
from tests.secrets.sources import PATIENCE, Source, entries, make_manager
from tests.secrets.test_watch import SELDOM, until

OLD, NEW = "planted-old", "planted-new"


class Place:
    """Two directories with the same names in them, and a KMS that reads one of them at a time."""

    def __init__(self, home: Path, clock: ManualClock) -> None:
        self.home = home
        self.clock = clock
        for directory, value in (("old", OLD), ("new", NEW)):
            (home / directory).mkdir()
            for name in ("a", "b"):
                self.put(f"{directory}/{name}", f"{value}-{name}")
        self.put("steady", "planted-steady")
        self.kms = KMS(read_settings(self.table("old"), "test"), clock=clock, now=clock)

    def put(self, path: str, value: str) -> None:
        """Write a secret."""
        (self.home / path).touch(0o600)
        (self.home / path).write_text(value, encoding="utf-8")

    def table(self, directory: str, **more: object) -> dict[str, Any]:
        """Return a configuration in which the backend `app` reads this directory."""
        app = {"type": "file", "directory": str(self.home / directory), **more}
        copy = {"type": "memory", "secrets": {"copied": "app://a"}}
        table = {
            "development": True,
            "backends": {"app": app, "copy": copy},
            "secrets": {
                "A": "app://a",
                "B": {"template": "x:{b}", "b": "app://b"},
                "COPIED": "copy://copied",
                "STEADY": f"file://{self.home}/steady",
            },
        }
        return {"test": table}

    def reload(self, directory: str, **more: object) -> None:
        """Have the backend `app` read this directory."""
        self.kms.reload(self.table(directory, **more))

    def get(self, name: str) -> str:
        """Return a value."""
        return self.kms.secrets.get(name).reveal()


@pytest.fixture
def place(tmp_path: Path, clock: ManualClock) -> Iterator[Place]:
    """Return a place whose KMS ends with the test."""
    place = Place(tmp_path, clock)
    yield place
    place.kms.close()


def test_another_directory_is_read_at_the_next_use(place: Place) -> None:
    """By name, by reference, together, composed, awaited, and through a backend that refers to it.

    What came of sources that are as they were is not asked for again.
    """
    secrets = place.kms.secrets
    names = ["A", "B", "COPIED", "STEADY", "app://b"]
    assert [place.get(name) for name in names] == [
        f"{OLD}-a", f"x:{OLD}-b", f"{OLD}-a", "planted-steady", f"{OLD}-b",
    ]  # fmt: skip
    place.put("steady", "planted-other")
    place.reload("new")
    found = secrets.get_many(names)
    assert [found[name].reveal() for name in names] == [
        f"{NEW}-a", f"x:{NEW}-b", f"{NEW}-a", "planted-steady", f"{NEW}-b",
    ]  # fmt: skip
    place.reload("old")
    assert asyncio.run(_awaited(place, "A")) == f"{OLD}-a"
    assert place.get("COPIED") == f"{OLD}-a"
    assert secrets.previous("A") == Secret(f"{NEW}-a".encode())


async def _awaited(place: Place, name: str) -> str:
    return (await place.kms.secrets.aio.get(name)).reveal()


def test_more_time_for_the_same_source_drops_nothing(place: Place) -> None:
    """In an outage one may well give a source more time, and must not lose what is held by that."""
    place.get("A")
    place.put("old/a", "planted-changed")
    place.reload("old", timeout="30s")
    assert place.get("A") == f"{OLD}-a"


def test_lease_of_a_backend_that_is_bound_anew(clock: ManualClock, tmp_path: Path) -> None:
    """It is looked at: the earlier binding, which is closed, gives back what was made for it."""
    (tmp_path / "x").touch(0o600)

    def table(timeout: str) -> dict[str, Any]:
        return {"test": {"development": True, "backends": {"fake": {
            "type": "file", "directory": str(tmp_path), "timeout": timeout}}}}  # fmt: skip

    with KMS(read_settings(table("2s"), "test"), clock=clock, now=clock) as kms:
        live: list[int] = []
        dead: list[int] = []
        down: list[KMSError] = []

        def lease() -> SecretValue:
            if down:
                raise down[0]
            if not live:
                live.append(len(dead))
            ends = datetime.fromtimestamp(clock() + 3600, UTC)
            return SecretValue(KeyMaterial(b"lease-%d" % live[0]), expires=ends)

        kms.secrets._documents._bound = Source(x=lease).bound
        assert kms.secrets.get("fake://x").reveal() == "lease-0"
        dead.append(live.pop())
        kms.reload(table("3s"))
        assert kms.secrets.get("fake://x").reveal() == "lease-1"
        down.append(ServiceUnavailable("away"))
        kms.reload(table("4s"))
        assert kms.secrets.get("fake://x").reveal() == "lease-1"  # nobody could give it back


def test_lease_that_is_being_made_when_its_backend_is_bound_anew(clock: ManualClock) -> None:
    """The earlier binding's is its asker's alone."""
    asked, go = threading.Event(), threading.Event()
    ends = datetime.fromtimestamp(clock() + 3600, UTC)

    def slow() -> SecretValue:
        asked.set()
        go.wait(PATIENCE)
        return SecretValue(KeyMaterial(b"old"), expires=ends)

    source = Source(a=slow)
    made = make_manager(source, clock)
    found: list[str] = []
    thread = threading.Thread(target=lambda: found.append(made.get("fake://a").reveal()))
    thread.start()
    assert asked.wait(PATIENCE)
    source.answers["a"] = SecretValue(KeyMaterial(b"new"), expires=ends)
    made.adopt(entries({}), 3600.0)
    go.set()
    thread.join(PATIENCE)
    assert found == ["old"]
    assert made.get("fake://a").reveal() == "new"


def test_new_source_that_is_away(place: Place) -> None:
    """It is an error: what the earlier source said is no answer of this one, as at a start."""
    assert place.get("A") == f"{OLD}-a"
    place.reload("gone")
    for _ in range(2):
        with pytest.raises(SecretNotFound):
            place.get("A")
    place.reload("old")
    assert place.get("A") == f"{OLD}-a"  # also what was not there is forgotten


def test_outage_of_the_new_source(clock: ManualClock) -> None:
    """It is an error until there is one value of the new source, which is coasted on as any."""
    source = Source(a=b"old")
    made = make_manager(source, clock, A="fake://a")
    assert made.get("A").reveal() == "old"
    source.down = ServiceUnavailable("the new source is down")
    made.adopt(entries({"A": "fake://a"}), 3600.0, lambda name: name != "fake")
    with pytest.raises(ServiceUnavailable):
        made.get("A")
    assert made.held("A") is None
    source.down, source.answers["a"] = None, b"new"
    assert made.get("A").reveal() == "new"
    source.down = ServiceUnavailable("again")
    clock.advance(3000)
    assert made.get("A").reveal() == "new"
    clock.advance(3000)
    with pytest.raises(ServiceUnavailable):
        made.get("A")


def test_backend_that_is_taken_away(place: Place) -> None:
    """A reference to it is refused, and what came of it is not held any more."""
    place.get("app://a")
    place.kms.reload({"test": {"development": True, "backends": {}}})
    with pytest.raises(KMSError, match="has no backend 'app'"):
        place.get("app://a")
    assert place.kms.secrets._documents.values() == []


@pytest.mark.parametrize("failure", [None, AccessDenied("no")], ids=["value", "denied"])
def test_what_is_under_way_is_not_kept(clock: ManualClock, failure: KMSError | None) -> None:
    """A look at the earlier source that ends after the reload is its asker's, and nobody else's."""
    asked, go = threading.Event(), threading.Event()

    def slow() -> bytes:
        asked.set()
        go.wait(PATIENCE)
        if failure is not None:
            raise failure
        return b"old"

    source = Source(a=slow)
    made = make_manager(source, clock)
    found: list[str] = []

    def first() -> None:
        try:
            found.append(made.get("fake://a").reveal())
        except AccessDenied:
            found.append("denied")

    thread = threading.Thread(target=first)
    thread.start()
    assert asked.wait(PATIENCE)
    source.answers["a"] = b"new"
    made.adopt(entries({}), 3600.0, lambda _: False)
    assert made.get("fake://a").reveal() == "new"  # which waits for nothing of the earlier one
    go.set()
    thread.join(PATIENCE)
    assert found == ["old" if failure is None else "denied"]
    assert made.get("fake://a").reveal() == "new"
    assert made.previous("fake://a") is None
    assert len(source.asked) == 2


def test_awaiting_what_is_under_way(clock: ManualClock) -> None:
    """A task that asks after the reload does not share a look that began before it."""
    asked, go = threading.Event(), threading.Event()

    def slow() -> bytes:
        asked.set()
        go.wait(PATIENCE)
        return b"old"

    source = Source(a=slow)
    made = make_manager(source, clock, A="fake://a")

    async def ask() -> list[str]:
        before = [asyncio.create_task(work) for work in (made.aio.get("A"), many())]
        await asyncio.to_thread(asked.wait, PATIENCE)
        source.answers["a"] = b"new"
        made.adopt(entries({"A": "fake://a"}), 3600.0, lambda _: False)
        after = [asyncio.create_task(work) for work in (made.aio.get("A"), many())]
        done = await asyncio.wait_for(asyncio.gather(*after), PATIENCE)
        go.set()
        await asyncio.gather(*before)
        return [each.reveal() for each in done]

    async def many() -> Secret:
        return (await made.aio.get_many(["A"]))["A"]

    assert asyncio.run(ask()) == ["new", "new"]


def test_batch_that_was_chosen_before_the_reload_is_not_kept(clock: ManualClock) -> None:
    """Who was about to ask the earlier source for several in one call keeps nothing of it."""

    def binding(value: bytes) -> Any:
        class Batched(Secrets, BatchSecretHooks):
            @hookimpl
            def fetch_secrets(
                self, requests: tuple[SecretRequest, ...], timeout: float
            ) -> list[SecretValue]:
                return [SecretValue(KeyMaterial(value)) for _ in requests]

        return bind(lambda: Batched(lambda *_: SecretValue(KeyMaterial(value))))

    bindings = [binding(b"old"), binding(b"new")]

    def bound(_: str) -> Any:
        found = bindings[0]
        if len(bindings) > 1:
            del bindings[0]
            made.adopt(entries({}), 3600.0, lambda _: False)
        return found

    made = SecretManager(bound, {}, now=clock, clock=clock)
    names = ["fake://a", "fake://b"]
    assert len(made._documents.get_many([Reference(name) for name in names])) == len(names)
    assert [made.get(name).reveal() for name in names] == ["new", "new"]


def test_watch_is_told_at_once(place: Place) -> None:
    """Of a change that a reload makes, however seldom the watch looks by itself."""
    told: list[str] = []
    secrets = place.kms.secrets
    secrets.watch("A", lambda found: told.append(found.reveal()), interval=SELDOM)
    secrets.watch("STEADY", lambda found: told.append(found.reveal()), interval=SELDOM)
    place.reload("new")
    until(lambda: told)
    assert told == [f"{NEW}-a"]
    errors: list[KMSError] = []
    secrets.watch("B", lambda _: None, interval=SELDOM, on_error=errors.append)
    place.reload("gone")
    until(lambda: errors)
    assert isinstance(errors[0], SecretNotFound)


def test_threads_read_while_sources_change(place: Place) -> None:
    """No look that begins after a reload has returned gives what the source before it held."""
    stop = threading.Event()
    now = [(0, "old")]  # which reload was the last, and of what, once it is done
    wrong: list[tuple[tuple[int, str], str]] = []
    read: list[int] = []

    def reading(get: Callable[[], str]) -> None:
        count = 0
        while not stop.is_set():
            before = now[0]
            found = get()
            if now[0] == before and before[1] not in {"", *found.split("-")}:
                wrong.append((before, found))
            count += 1
        read.append(count)

    secrets = place.kms.secrets
    gets: list[Callable[[], str]] = [
        lambda: place.get("A"),
        lambda: place.get("B"),
        lambda: "-".join(each.reveal() for each in secrets.get_many(["A", "B"]).values()),
        lambda: secrets.refresh("A").reveal(),
    ]
    threads = [threading.Thread(target=reading, args=[get]) for get in gets]
    for thread in threads:
        thread.start()
    for number in range(60):
        directory = "new" if number % 2 == 0 else "old"
        now[0] = number, ""  # which of the two is read is open from here
        place.reload(directory)
        now[0] = number, directory
        for _ in range(20):
            assert directory in place.get("A")
    stop.set()
    for thread in threads:
        thread.join(PATIENCE)
    assert wrong == []
    assert min(read) > 0


def test_memory_backends_that_change_places(clock: ManualClock, tmp_path: Path) -> None:
    """The same with a backend whose credentials' source is another one now."""
    for name in ("one", "two"):
        (tmp_path / name).touch(0o600)
        (tmp_path / name).write_text(f"planted-{name}", encoding="utf-8")

    def table(name: str) -> dict[str, Any]:
        vault = {"type": "memory", "secrets": {"x": f"file://{tmp_path}/{name}"}}
        secrets = {"X": {"from": "vault://x", "ttl": "1h"}}
        return {"test": {"development": True, "backends": {"vault": vault}, "secrets": secrets}}

    with KMS(read_settings(table("one"), "test"), clock=clock, now=clock) as kms:
        assert kms.secrets.get("X").reveal() == "planted-one"
        kms.reload(table("two"))
        assert kms.secrets.get("X").reveal() == "planted-two"
        assert kms.secrets.previous("X") == Secret(b"planted-one", version="1")
        clock.advance(documents.DEFAULT_TTL)
        kms.reload(table("two"))
        assert kms.secrets.get("X").reveal() == "planted-two"


def test_value_that_makes_no_sense_after_a_reload(clock: ManualClock) -> None:
    """It does not replace the last good one of the same declaration and source; else it is told."""
    declared: Any = {"A": "fake://a", "B": {"from": "fake://b"}, "C": "fake://c"}
    source = Source(a=b"1", b=b"1", c=b"1")
    made = make_manager(source, clock, **declared)
    made.get_many(["A", "B", "C", "fake://a"])
    source.answers |= {"a": b"", "b": b"", "c": b""}
    changed = entries(declared | {"B": {"from": "fake://b", "transform": "json"}})
    made.adopt(changed, 3600.0)
    made.expire()
    assert [made.get(name).reveal() for name in ("A", "C", "fake://a")] == ["1"] * 3
    with pytest.raises(MalformedInput, match="no JSON"):
        made.get("B")
    made.adopt(changed, 3600.0, lambda name: name != "fake")
    for name in ("A", "C", "fake://a"):
        with pytest.raises(MalformedInput, match="is empty"):
            made.get(name)
