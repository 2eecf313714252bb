"""`warm`, `health` and `close`: what an orchestrator asks of a process, and its orderly end."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from sentra_kms.config import read_settings
from sentra_kms.errors import (
    AccessDenied,
    KMSError,
    MalformedInput,
    ServiceUnavailable,
    TenantNotFound,
    UnsupportedOperation,
)
from sentra_kms.runtime import KMS
from tests.keys.conftest import WAIT, Crew, Later, ManualClock, Spy, in_threads, until

DOWN = ServiceUnavailable("down for maintenance")
OPERATIONS = ("wrap_key", "unwrap_key", "describe_key", "load_ring", "save_ring", "list_rings")


class Watched:
    """A KMS over two KEKs, one for each tenant, and a store, with a spy on all that they do."""

    def __init__(self, clock: ManualClock) -> None:
        self.clock = clock
        self.table: dict[str, Any] = {
            "development": True,
            "backends": {name: {"type": "memory"} for name in ("a", "b", "rings")},
            "keys": {
                "wrap_with": ["a:k", "b:t-{tenant}"],
                "authenticate_with": ["rings:auth"],
                "store": "rings",
            },
        }
        self.kms = KMS(read_settings({"test": self.table}, "test"), now=clock, background=Later())
        self.names = [f"t{number}" for number in range(40)]
        for name in self.names:
            self.kms.keys.create(name)
        self.kms.keys._cache.clear()
        self.spies = {
            (name, operation): Spy(self.kms, name, operation)
            for name in ("a", "b", "rings")
            for operation in OPERATIONS
        }

    def count(self, operation: str) -> int:
        """Return how often an operation was asked for, of all backends."""
        return sum(spy.count for (_, name), spy in self.spies.items() if name == operation)

    def later(self) -> None:
        """Let the last answer of `health` grow old."""
        self.clock.advance(5.0)


@pytest.fixture
def watched(manual_clock: ManualClock) -> Iterator[Watched]:
    """Everything is watched."""
    found = Watched(manual_clock)
    yield found
    found.kms.close()


# --- warm -----------------------------------------------------------------------------------------


def test_warm_fetches_each_key_once_and_messages_need_nobody(watched: Watched) -> None:
    """Several at a time; afterwards no backend is asked."""
    assert watched.kms.warm(watched.names) == {}
    assert (watched.count("load_ring"), watched.count("unwrap_key")) == (40, 40)
    for name in watched.names:
        watched.kms.keys.decrypt(name, watched.kms.keys.encrypt(name, b"x"))
    assert (watched.count("load_ring"), watched.count("unwrap_key")) == (40, 40)
    assert watched.kms.warm(watched.names) == {}
    assert watched.count("unwrap_key") == 40


def test_warm_tells_who_failed_and_goes_on(watched: Watched) -> None:
    """A process may start without some of its tenants, and says which."""
    watched.kms.keys.shred("t3", confirm="t3")
    failed = watched.kms.warm(["t1", "nobody", "t2", "t3"])
    assert set(failed) == {"nobody", "t3"}
    assert type(failed["nobody"]) is TenantNotFound
    assert set(watched.kms.keys._cache.entries) >= {"t1", "t2"}
    for name in ("a", "b"):
        watched.spies[name, "unwrap_key"].failure = DOWN
    failed = watched.kms.warm(iter(watched.names[10:13]))
    assert {type(error) for error in failed.values()} == {ServiceUnavailable}
    assert len(failed) == 3


def test_warm_of_nobody_and_of_what_is_no_id(watched: Watched) -> None:
    """Nothing to do is nothing wrong; an id that is none is found before anything is asked."""
    assert watched.kms.warm([]) == {}
    with pytest.raises(MalformedInput):
        watched.kms.warm(["t1", "no/id"])
    assert watched.count("load_ring") == 0


# --- health ---------------------------------------------------------------------------------------


def test_health_asks_each_backend_and_decrypts_nothing(watched: Watched) -> None:
    """Nor does it wrap, write or list."""
    health = watched.kms.health()
    assert (health.live, health.ready) == (True, True)
    assert [(each.name, each.ok, each.problems) for each in health.backends] == [
        ("a", True, ()),
        ("b", True, ()),
        ("rings", True, ()),
    ]
    assert (watched.count("describe_key"), watched.count("load_ring")) == (1, 1)
    for operation in ("wrap_key", "unwrap_key", "save_ring", "list_rings"):
        assert watched.count(operation) == 0


def test_backends_are_asked_at_once(watched: Watched) -> None:
    """One that answers nobody costs a probe its own timeout, and not that of each other, too."""
    all_are_asked = threading.Barrier(2)
    for name, operation in (("a", "describe_key"), ("rings", "load_ring")):
        watched.spies[name, operation].before = lambda: all_are_asked.wait(30)
        watched.spies[name, operation].failure = DOWN
    health = watched.kms.health()
    assert [each.name for each in health.backends if not each.ok] == ["a", "rings"]
    assert not all_are_asked.broken


def test_health_is_asked_anew_after_a_while_only(watched: Watched) -> None:
    """However often a probe comes, and however many come at once."""
    for _ in range(100):
        watched.kms.health()
    assert watched.count("load_ring") == 1
    watched.later()
    watched.kms.health()
    assert watched.count("load_ring") == 2


def test_probes_that_come_at_once_ask_once(watched: Watched) -> None:
    """While one waits for a backend, the others wait for it."""
    entered, release = threading.Event(), threading.Event()

    def hang() -> None:
        entered.set()
        assert release.wait(WAIT)

    watched.spies["rings", "load_ring"].before = hang
    crew = Crew(lambda _: watched.kms.health().ready, 10)
    until(entered.is_set)
    release.set()
    assert crew.join() == [True] * 10
    assert watched.count("load_ring") == 1


@pytest.mark.parametrize("warm", [True, False])
def test_outage_of_the_store_is_told_and_what_is_in_memory_makes_ready(
    watched: Watched, *, warm: bool
) -> None:
    """Ready while something may coast, and not a second longer."""
    if warm:
        watched.kms.warm(["t1"])
    store = watched.spies["rings", "load_ring"]
    store.failure = DOWN
    health = watched.kms.health()
    assert (health.live, health.ready) == (True, warm)
    (problem,) = [each for each in health.backends if not each.ok]
    assert problem.name == "rings"
    assert problem.problems[0].startswith("down")
    watched.clock.advance(3599)
    assert watched.kms.health().ready is warm
    watched.later()
    assert not watched.kms.health().ready
    store.failure = None
    watched.later()
    assert watched.kms.health().ready


def test_kek_that_is_down_is_told_and_one_that_cannot_be_asked_may_answer(watched: Watched) -> None:
    """There is no telling whose `{tenant}` to ask, so it makes nobody unready."""
    watched.spies["a", "describe_key"].failure = DOWN
    health = watched.kms.health()
    assert health.ready
    (problem,) = [each for each in health.backends if not each.ok]
    assert (problem.name, problem.problems[0]) == ("a", "a:k: down for maintenance")


def test_health_shows_nothing_foreign(watched: Watched) -> None:
    """A backend that refuses is a problem, with our words; health itself never raises."""
    watched.spies["a", "describe_key"].failure = AccessDenied("the role may not describe")
    watched.spies["rings", "load_ring"].failure = DOWN
    problems = {each.name: each.problems for each in watched.kms.health().backends}
    assert problems["a"] == ("a:k: the role may not describe",)
    assert problems["rings"] == ("down for maintenance",)


def test_closed_process_is_neither_live_nor_ready(watched: Watched) -> None:
    """At once, though the last answer said otherwise, and asks nobody."""
    assert watched.kms.health().live
    watched.kms.close()
    asked = watched.count("load_ring")
    health = watched.kms.health()
    assert (health.live, health.ready, health.backends) == (False, False, ())
    assert watched.count("load_ring") == asked


def test_answer_that_a_close_overtakes_does_not_last(watched: Watched) -> None:
    """A probe that was under way may say what it saw; the next one sees the end."""
    entered, release = threading.Event(), threading.Event()

    def hang() -> None:
        entered.set()
        assert release.wait(WAIT)

    watched.spies["rings", "load_ring"].before = hang
    crew = Crew(lambda _: watched.kms.health(), 1)
    until(entered.is_set)
    closing = Crew(lambda _: watched.kms.close(), 1)
    release.set()
    crew.join()
    assert closing.join() == [None]
    assert not watched.kms.health().live


def test_health_follows_a_reload(watched: Watched) -> None:
    """The next answer is that of the new configuration."""
    assert len(watched.kms.health().backends) == 3
    watched.table["backends"]["c"] = {"type": "memory"}
    watched.table["keys"]["unwrap_with"] = ["c:old"]
    watched.kms.reload({"test": watched.table})
    assert [each.name for each in watched.kms.health().backends] == ["a", "b", "c", "rings"]


def test_health_without_keys_is_that_of_the_process() -> None:
    """No keys, no backends to ask."""
    with KMS(read_settings({"test": {"development": True}}, "test")) as kms:
        health = kms.health()
        assert (health.live, health.ready, health.backends) == (True, True, ())


# --- close ----------------------------------------------------------------------------------------


def test_close_from_many_threads_at_once_while_messages_flow(watched: Watched) -> None:
    """Every message ends with an answer or our error; nothing is in memory afterwards."""
    watched.kms.warm(watched.names)

    def work(index: int) -> object:
        if index % 4 == 0:
            watched.kms.close()
            return None
        try:
            for turn in range(1000):
                name = watched.names[(index + turn) % 40]
                watched.kms.keys.decrypt(name, watched.kms.keys.encrypt(name, b"x"))
        except KMSError as error:
            return type(error)
        return None

    outcomes = in_threads(work, 16)
    assert set(outcomes) <= {None, UnsupportedOperation}
    cache = watched.kms.keys._cache
    assert (cache.entries, cache.epochs) == ({}, {})
    with pytest.raises(UnsupportedOperation):
        watched.kms.keys.encrypt("t1", b"x")
    watched.kms.close()


def test_close_while_a_warm_up_is_at_work(watched: Watched) -> None:
    """Who is not warm yet is told why."""
    entered, release = threading.Event(), threading.Event()

    def hang() -> None:
        entered.set()
        assert release.wait(WAIT)

    watched.spies["rings", "load_ring"].before = hang
    crew = Crew(lambda _: watched.kms.warm(watched.names), 1)
    until(entered.is_set)
    watched.kms.close()
    release.set()
    (failed,) = crew.join()
    assert isinstance(failed, dict)
    assert {type(error) for error in failed.values()} <= {UnsupportedOperation}
    assert watched.kms.keys._cache.entries == {}
