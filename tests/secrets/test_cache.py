"""The cache: one fetch however many ask, times to live, outages, bounds."""

from __future__ import annotations

import json
import os
import threading
from datetime import UTC, datetime
from typing import Any

import pytest

from sentra_kms.errors import (
    AccessDenied,
    KMSError,
    MalformedInput,
    SecretNotFound,
    ServiceUnavailable,
    Throttled,
    Timeout,
    UnsupportedOperation,
)
from sentra_kms.events import actor
from sentra_kms.hookspecs import BatchSecretHooks, hookimpl
from sentra_kms.hooktypes import SecretRequest, SecretValue
from sentra_kms.material import KeyMaterial, Secret
from sentra_kms.reference import Reference
from sentra_kms.secrets import documents, manager, values
from sentra_kms.secrets.compose import Snapshot, compose
from sentra_kms.secrets.documents import Held
from tests.binding.fakes import Secrets, bind
from tests.conftest import ManualClock
from tests.keys.conftest import in_fork
from tests.secrets.sources import PATIENCE, Source, entries, make_manager

DOWN = ServiceUnavailable("the source is down")


def _in(clock: ManualClock, seconds: float) -> datetime:
    return datetime.fromtimestamp(clock() + seconds, UTC)


def test_one_fetch_in_a_time_to_live(clock: ManualClock) -> None:
    """A held value is used until its time to live is over, less at most a tenth."""
    source = Source(a=b"1")
    manager = make_manager(source, clock, A={"from": "fake://a", "ttl": "100s"})
    for _ in range(5):
        assert manager.get("A").reveal() == "1"
    clock.advance(89)
    manager.get("A")
    assert source.asked == ["fake://a"]
    clock.advance(12)
    manager.get("A")
    assert source.asked == ["fake://a"] * 2


def test_times_to_live_differ(clock: ManualClock) -> None:
    """Values fetched together do not all fall due together."""
    source = Source(**{f"a{n}": b"x" for n in range(64)})
    made = make_manager(source, clock)
    for number in range(64):
        made.get(f"fake://a{number}")
    clock.advance(documents.DEFAULT_TTL * 0.95)
    for number in range(64):
        made.get(f"fake://a{number}")
    assert 64 < len(source.asked) < 128


def test_full_reference_is_the_key(clock: ManualClock) -> None:
    """References that differ in backend, path or any option are fetched and held apart."""
    references = [
        "fake://a",
        "other://a",
        "fake://a?version=1",
        "fake://a?version=2",
        "fake://a?version=1&stage=x",
        "fake://a?stage=x&version=1",
        "fake://b",
    ]
    source = Source()
    made = make_manager(source, clock)
    for number, reference in enumerate(references):
        source.answers = {"a": b"%d" % number, "b": b"%d" % number}
        assert made.get(reference).reveal() == str(number)
    assert [made.get(reference).reveal() for reference in references] == list("0123456")
    assert source.asked == references


def test_fields_of_one_document_share_a_fetch(clock: ManualClock) -> None:
    """A document is fetched once for all its fields."""
    source = Source(doc=b'{"user":"u","password":"p"}')
    made = make_manager(source, clock, U="fake://doc#user", P="fake://doc#/password")
    assert (made.get("U").reveal(), made.get("P").reveal()) == ("u", "p")
    assert source.asked == ["fake://doc"]


def test_shortest_time_to_live_of_a_document_holds(clock: ManualClock) -> None:
    """Of secrets in one document the one that is due first has it fetched for all."""
    source = Source(doc=b'{"a":"1","b":"2"}')
    made = make_manager(
        source,
        clock,
        A={"from": "fake://doc#a", "ttl": "10s"},
        B={"from": "fake://doc#b", "ttl": "1h"},
    )
    made.get("A")
    made.get("B")
    source.answers["doc"] = b'{"a":"3","b":"4"}'
    clock.advance(11)
    assert made.get("A").reveal() == "3"
    assert made.get("B").reveal() == "4"


@pytest.mark.parametrize("threads", [1000])
def test_thousand_threads_make_one_fetch(threads: int, clock: ManualClock) -> None:
    """1,000 threads that ask for one cold secret at once make one fetch and get one value."""
    started = threading.Event()
    arrived = threading.Semaphore(0)

    def slow() -> bytes:
        started.wait(PATIENCE)
        return b"value"

    source = Source(a=slow)
    made = make_manager(source, clock, A="fake://a")
    found: list[str] = []

    def work() -> None:
        arrived.release()
        found.append(made.get("A").reveal())

    workers = [threading.Thread(target=work) for _ in range(threads)]
    for worker in workers:
        worker.start()
    for _ in range(threads):
        assert arrived.acquire(timeout=PATIENCE)
    started.set()
    for worker in workers:
        worker.join(PATIENCE)
    assert found == ["value"] * threads
    assert source.asked == ["fake://a"]


def test_failure_is_shared_by_who_waited(clock: ManualClock) -> None:
    """An outage costs one attempt, not one a thread; each gets an error object of its own."""
    waiting = threading.Semaphore(0)
    go = threading.Event()

    def fail() -> bytes:
        go.wait(PATIENCE)
        raise DOWN

    source = Source(a=fail)
    made = make_manager(source, clock, A="fake://a")
    errors: list[KMSError] = []

    def work() -> None:
        waiting.release()
        try:
            made.get("A")
        except KMSError as error:
            errors.append(error)

    workers = [threading.Thread(target=work) for _ in range(50)]
    for worker in workers:
        worker.start()
    for _ in workers:
        assert waiting.acquire(timeout=PATIENCE)
    # All that came before the answer wait at the lock or for the source, or are about to.
    while len(source.asked) < 1:
        pass
    go.set()
    for worker in workers:
        worker.join(PATIENCE)
    assert len(errors) == 50
    assert len(set(map(id, errors))) == 50
    assert len(source.asked) < 50


def test_due_value_is_renewed_behind_its_user(clock: ManualClock) -> None:
    """Just past its time a value is returned at once, and renewed in the background, once."""
    waiting: list[object] = []
    source = Source(a=b"old")
    made = make_manager(source, clock, spawn=waiting.append, A="fake://a")
    made.get("A")
    source.answers["a"] = b"new"
    clock.advance(documents.DEFAULT_TTL + 1)
    assert [made.get("A").reveal() for _ in range(3)] == ["old"] * 3
    assert len(waiting) == 1
    assert len(source.asked) == 1
    (work,) = waiting
    assert callable(work)
    work()
    assert made.get("A").reveal() == "new"
    assert len(source.asked) == 2


def test_background_is_a_thread(clock: ManualClock) -> None:
    """By default the renewal runs in a thread, and its end is seen by the next who asks."""
    source = Source(a=b"old")
    made = make_manager(source, clock, spawn=None, A="fake://a")
    made.get("A")
    source.answers["a"] = b"new"
    clock.advance(documents.DEFAULT_TTL + 1)
    made.get("A")
    for thread in threading.enumerate():
        if thread.name == "sentra-kms-secrets":
            thread.join(PATIENCE)
    assert made.get("A").reveal() == "new"


def test_value_that_nobody_asked_for_long_is_waited_for(clock: ManualClock) -> None:
    """After two times to live without a look the source is asked first: the value may be wrong."""
    source = Source(a=b"old")
    made = make_manager(source, clock, spawn=lambda _: None, A="fake://a")
    made.get("A")
    source.answers["a"] = b"new"
    clock.advance(2 * documents.DEFAULT_TTL + 1)
    assert made.get("A").reveal() == "new"


@pytest.mark.parametrize(
    "failure", [DOWN, Timeout("slow"), Throttled("slower")], ids=lambda e: type(e).__name__
)
def test_outage_is_coasted_through_to_the_maximum(failure: KMSError, clock: ManualClock) -> None:
    """While the source is down the last value is used, and not past `max_stale`."""
    source = Source(a=b"last good")
    made = make_manager(source, clock, max_stale=3600, A="fake://a")
    made.get("A")
    source.down = failure
    for _ in range(30):
        clock.advance(119)
        assert made.get("A").reveal() == "last good"
    clock.advance(31)
    with pytest.raises(type(failure)):
        made.get("A")
    source.down = None
    clock.advance(documents.RETRY_AFTER + 0.1)
    assert made.get("A").reveal() == "last good"


def test_outage_costs_few_looks(clock: ManualClock) -> None:
    """A source that is down is asked about every five seconds, not at each get."""
    source = Source(a=b"last good")
    made = make_manager(source, clock, A="fake://a")
    made.get("A")
    source.down = DOWN
    clock.advance(documents.DEFAULT_TTL + 1)
    before = len(source.asked)
    for _ in range(100):
        for _ in range(10):
            assert made.get("A").reveal() == "last good"
        clock.advance(1)
    assert 15 <= len(source.asked) - before <= 30


def test_outage_that_passed_long_ago_is_not_coasted_through(clock: ManualClock) -> None:
    """A look that failed once does not let an old value be used when nobody looked for long."""
    source = Source(a=b"old")
    made = make_manager(source, clock, spawn=lambda work: work(), A="fake://a")
    made.get("A")
    source.down = DOWN
    clock.advance(documents.DEFAULT_TTL + 1)
    assert made.get("A").reveal() == "old"
    source.down = None
    source.answers["a"] = b"new"
    clock.advance(2000)
    waiting: list[object] = []
    made._documents._spawn = waiting.append
    assert made.get("A").reveal() == "new"
    assert waiting == []


def test_time_to_live_longer_than_the_maximum(clock: ManualClock) -> None:
    """A declared time to live holds also where it is longer than `max_stale`."""
    source = Source(a=b"x")
    made = make_manager(source, clock, max_stale=60, A={"from": "fake://a", "ttl": "1h"})
    made.get("A")
    source.down = DOWN
    clock.advance(3200)
    assert made.get("A").reveal() == "x"
    clock.advance(401)
    with pytest.raises(ServiceUnavailable):
        made.get("A")


@pytest.mark.parametrize("failure", [AccessDenied("no"), None], ids=["denied", "deleted"])
def test_definite_answer_ends_a_value(failure: KMSError | None, clock: ManualClock) -> None:
    """A source that now denies, or has the secret no more, is believed at the next look."""
    source = Source(a=b"x")
    made = make_manager(source, clock, A="fake://a")
    made.get("A")
    if failure is None:
        del source.answers["a"]
    else:
        source.answers["a"] = failure
    clock.advance(documents.DEFAULT_TTL + 1)
    with pytest.raises(SecretNotFound if failure is None else AccessDenied):
        made.get("A")


def test_down_at_the_start(clock: ManualClock) -> None:
    """Without a value an outage is an error at each get, and over when the source is back."""
    source = Source(a=b"x")
    source.down = DOWN
    made = make_manager(source, clock, A="fake://a")
    for _ in range(2):
        with pytest.raises(ServiceUnavailable) as caught:
            made.get("A")
        assert caught.value.retryable
    source.down = None
    assert made.get("A").reveal() == "x"


def test_throttled_source_is_left_alone(clock: ManualClock) -> None:
    """A source that asks for time is not asked again before, up to a minute."""
    source = Source(a=b"x")
    source.down = Throttled("later", retry_after=30)
    made = make_manager(source, clock, A="fake://a")
    for _ in range(3):
        with pytest.raises(Throttled):
            made.get("A")
    assert len(source.asked) == 1
    source.down = None
    clock.advance(30)
    assert made.get("A").reveal() == "x"


def test_not_found_is_held_for_a_while(clock: ManualClock) -> None:
    """What was not found is not looked for again for some seconds, then it is."""
    source = Source()
    made = make_manager(source, clock, A="fake://a")
    for _ in range(3):
        with pytest.raises(SecretNotFound):
            made.get("A")
    assert len(source.asked) == 1
    source.answers["a"] = b"there"
    clock.advance(documents.NEGATIVE_TTL)
    assert made.get("A").reveal() == "there"


def test_fallback_goes_back_to_the_first(clock: ManualClock) -> None:
    """When the first of a chain appears it is used soon, not only at the second's end."""
    source = Source(b=b"second")
    made = make_manager(source, clock, A={"from": ["fake://a", "fake://b"]})
    assert made.get("A").reveal() == "second"
    source.answers["a"] = b"first"
    clock.advance(documents.NEGATIVE_TTL)
    assert made.get("A").reveal() == "first"
    assert source.asked.count("fake://b") == 1


def test_expiry_bounds_the_time(clock: ManualClock) -> None:
    """A value that expires by itself is not used past that, also not in an outage."""
    expires = _in(clock, 30)
    source = Source(a=SecretValue(KeyMaterial(b"lease"), expires=expires))
    made = make_manager(source, clock, A="fake://a")
    made.get("A")
    source.down = DOWN
    clock.advance(29)
    assert made.get("A").reveal() == "lease"
    clock.advance(2)
    with pytest.raises(ServiceUnavailable):
        made.get("A")


def test_refreshed_before_it_expires(clock: ManualClock) -> None:
    """What expires by itself is renewed ahead of its end, behind its user's back."""
    source = Source(a=SecretValue(KeyMaterial(b"1"), expires=_in(clock, 90)))
    made = make_manager(source, clock, A="fake://a")
    assert made.get("A").reveal() == "1"
    clock.advance(53)
    made.get("A")
    assert source.asked == ["fake://a"]
    source.answers["a"] = SecretValue(KeyMaterial(b"2"), expires=_in(clock, 90))
    clock.advance(8)
    assert made.get("A").reveal() == "2"
    assert source.asked == ["fake://a"] * 2


def test_users_do_not_refresh_all_at_once(clock: ManualClock) -> None:
    """Processes that fetched what expires together ask for the next one after the other."""
    source = Source(a=SecretValue(KeyMaterial(b"1"), expires=_in(clock, 300)))
    users = [make_manager(source, clock, A="fake://a") for _ in range(20)]
    for user in users:
        user.get("A")
    asked = []
    for _ in range(201):
        clock.advance(1)
        for user in users:
            user.get("A")
        asked.append(len(source.asked))
    assert asked[178] == 20
    assert asked[-1] >= 40
    assert len(set(asked)) > 5


def test_same_value_near_its_end_is_asked_for_rarely(clock: ManualClock) -> None:
    """A source with nothing newer is not asked ever faster while a value comes to its end."""
    expires = _in(clock, 90)
    source = Source(a=SecretValue(KeyMaterial(b"1"), expires=expires))
    made = make_manager(source, clock, A="fake://a")
    for _ in range(89 * 4):
        made.get("A")
        clock.advance(0.25)
    assert 2 <= len(source.asked) <= 6


@pytest.mark.parametrize("torn", [b'{"f":', b"", b"\xff", b'{"f":""}'], ids=ascii)
def test_half_written_value_is_not_used(
    torn: bytes, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    """A value that makes no sense, as while a file is written, does not replace the last good."""
    source = Source(a=b'{"f":"planted-s3cr3t-value"}')
    made = make_manager(source, clock, max_stale=3600, A="fake://a#f")
    made.get("A")
    source.answers["a"] = torn
    clock.advance(documents.DEFAULT_TTL + 1)
    assert made.get("A").reveal() == "planted-s3cr3t-value"
    assert "its new value is not used" in caplog.text
    assert "planted" not in caplog.text
    source.answers["a"] = b'{"f":"new"}'
    clock.advance(documents.RETRY_AFTER)
    assert made.get("A").reveal() == "new"


def test_senseless_value_for_longer_than_the_maximum(clock: ManualClock) -> None:
    """What stays malformed is told once the last good value is too old."""
    source = Source(a=b'{"f":"x"}')
    made = make_manager(source, clock, max_stale=600, A="fake://a#f")
    made.get("A")
    source.answers["a"] = b"torn"
    for _ in range(9):
        clock.advance(60)
        made.get("A")
    clock.advance(61)
    with pytest.raises(MalformedInput):
        made.get("A")


# --- many at once ------------------------------------------------------------------------------


def test_get_many_is_of_one_state(clock: ManualClock) -> None:
    """A secret that is rotated in the middle of a `get_many` gives parts that belong together."""
    count = iter(range(1000))

    def rotating() -> bytes:
        number = next(count)
        return json.dumps({"user": f"u{number}", "password": f"p{number}"}).encode()

    source = Source(doc=rotating, b=b"x")
    made = make_manager(
        source,
        clock,
        U={"from": "fake://doc#user", "ttl": "10s"},
        P={"from": "fake://doc#password", "ttl": "20s"},
        URL={"template": "{u}:{p}", "u": "fake://doc#user", "p": "fake://doc#password"},
        B="fake://b",
    )
    for _ in range(20):
        found = made.get_many(["U", "B", "P", "URL"])
        user, password = found["U"].reveal(), found["P"].reveal()
        assert user[1:] == password[1:]
        assert found["URL"].reveal() == f"{user}:{password}"
        clock.advance(7)


def test_rotation_between_fetches_of_a_get_many(clock: ManualClock) -> None:
    """Also when another thread renews the document while the rest is fetched."""
    state = {"n": 0}
    source = Source(doc=lambda: json.dumps({"u": f"u{state['n']}", "p": f"p{state['n']}"}).encode())
    made = make_manager(source, clock, U="fake://doc#u", P="fake://doc#p", SLOW="fake://slow")

    def slow() -> bytes:
        state["n"] += 1
        made.refresh("U")
        return b"x"

    source.answers["slow"] = slow
    found = made.get_many(["U", "SLOW", "P"])
    assert found["U"].reveal()[1:] == found["P"].reveal()[1:]
    found = made.get_many(["U", "SLOW", "P"])
    assert (found["U"].reveal(), found["P"].reveal()) == ("u1", "p1")


def test_get_many_fetches_at_once(clock: ManualClock) -> None:
    """Documents are fetched side by side: each waits here until all are asked for."""
    barrier = threading.Barrier(4)

    def meet() -> bytes:
        barrier.wait(PATIENCE)
        return b"x"

    source = Source(a=meet, b=meet, c=meet, d=meet)
    made = make_manager(source, clock)
    names = [f"fake://{name}" for name in "abcd"]
    with actor("user:42"):
        assert list(made.get_many([*names, *names])) == names


def test_get_many_in_one_call(clock: ManualClock) -> None:
    """Where a backend can fetch several in one call it is asked once; an error is one item's."""
    calls: list[list[str]] = []

    class Batched(Secrets, BatchSecretHooks):
        @hookimpl
        def fetch_secrets(
            self, requests: tuple[SecretRequest, ...], timeout: float
        ) -> list[SecretValue | KMSError]:
            calls.append([str(each.reference) for each in requests])
            return [
                SecretNotFound("gone")
                if each.reference.path == "c"
                else SecretValue(KeyMaterial(b"v"))
                for each in requests
            ]

    source = Source()
    source.binding = bind(Batched)
    made = make_manager(source, clock, C={"from": ["fake://c", "fake://a"]})
    found = made.get_many(["fake://a", "fake://b", "C"])
    assert [secret.reveal() for secret in found.values()] == ["v", "v", "v"]
    assert calls == [["fake://a", "fake://b", "fake://c"]]
    assert source.asked == []


def test_get_many_raises_the_first_error(clock: ManualClock) -> None:
    """One that cannot be had is an error that names it; the others were fetched all the same."""
    source = Source(a=b"x", b=AccessDenied("not yours"))
    made = make_manager(source, clock, A="fake://a", B="fake://b", C="fake://c")
    with pytest.raises(AccessDenied):
        made.get_many(["A", "B", "C"])
    assert sorted(source.asked) == ["fake://a", "fake://b", "fake://c"]
    assert made.get_many([]) == {}


def test_get_many_of_what_is_held_asks_nobody(clock: ManualClock) -> None:
    """Held values are returned without a look."""
    source = Source(a=b"x", b=b"y")
    made = make_manager(source, clock, A="fake://a", B="fake://b")
    first = made.get_many(["A", "B"])
    assert made.get_many(["B", "A"]) == {"B": first["B"], "A": first["A"]}
    assert len(source.asked) == 2


# --- refresh and previous ----------------------------------------------------------------------


def test_refresh_asks_now(clock: ManualClock) -> None:
    """After a rotation `refresh` gives the new value, and so do all that are made of it."""
    source = Source(doc=b'{"p":"old"}')
    made = make_manager(
        source, clock, P="fake://doc#p", URL={"template": "x:{p}", "p": "fake://doc#p"}
    )
    assert made.get("URL").reveal() == "x:old"
    source.answers["doc"] = b'{"p":"new"}'
    assert made.get("P").reveal() == "old"
    assert made.refresh("P").reveal() == "new"
    assert made.get("URL").reveal() == "x:new"
    assert len(source.asked) == 2


def test_refresh_forgets_that_nothing_was_there(clock: ManualClock) -> None:
    """A secret that was put there after a look is found by `refresh` at once."""
    source = Source()
    made = make_manager(source, clock, A="fake://a")
    with pytest.raises(SecretNotFound):
        made.get("A")
    source.answers["a"] = b"x"
    assert made.refresh("A").reveal() == "x"


def test_refresh_tells_of_an_outage(clock: ManualClock) -> None:
    """Who asks for the value of now is told that it cannot be had; others use the last one."""
    source = Source(a=b"x")
    made = make_manager(source, clock, A="fake://a")
    made.get("A")
    source.down = DOWN
    with pytest.raises(ServiceUnavailable):
        made.refresh("A")
    assert made.get("A").reveal() == "x"


def test_refreshes_at_once_share_a_look(clock: ManualClock) -> None:
    """Threads that refresh while one is at it share the next look, begun after they asked."""
    go, asked = threading.Event(), threading.Event()
    arrived = threading.Semaphore(0)
    answers = iter(["old", "new", "new", "new"])

    def slow() -> bytes:
        value = next(answers)
        asked.set()
        go.wait(PATIENCE)
        return value.encode()

    source = Source(a=slow)
    made = make_manager(source, clock, A="fake://a")
    first = threading.Thread(target=made.get, args=["A"])
    first.start()
    assert asked.wait(PATIENCE)
    found: list[str] = []

    def refresh() -> None:
        arrived.release()
        found.append(made.refresh("A").reveal())

    others = [threading.Thread(target=refresh) for _ in range(20)]
    for other in others:
        other.start()
    for _ in others:
        assert arrived.acquire(timeout=PATIENCE)
    go.set()
    for thread in [first, *others]:
        thread.join(PATIENCE)
    assert found == ["new"] * 20  # never what the look before them came to
    assert 2 <= len(source.asked) <= 4


def test_previous(clock: ManualClock) -> None:
    """The value before the last change is there for the time of an overlap, and no longer."""
    source = Source(a=b"one")
    made = make_manager(source, clock, max_stale=3600, A="fake://a")
    assert made.previous("A") is None
    made.get("A")
    made.refresh("A")
    assert made.previous("A") is None
    source.answers["a"] = b"two"
    made.refresh("A")
    assert made.previous("A") == Secret(b"one")
    source.answers["a"] = b"three"
    clock.advance(10)
    made.refresh("A")
    assert made.previous("A") == Secret(b"two")
    clock.advance(3600)
    assert made.previous("A") is None
    with pytest.raises(SecretNotFound):
        made.previous("B")


# --- bounds, close, fork -----------------------------------------------------------------------


def test_bounded(clock: ManualClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many references are asked for, a bounded number is held."""
    monkeypatch.setattr(documents, "MAX_DOCUMENTS", 10)
    monkeypatch.setattr(values, "MAX_VIEWS", 10)
    source = Source(**{f"a{n}": b"x" for n in range(30)})
    made = make_manager(source, clock)
    for number in range(30):
        made.get(f"fake://a{number}")
    assert len(made.live()) == 20
    made.get("fake://a29")
    assert len(source.asked) == 30
    made.get("fake://a0")
    assert len(source.asked) == 31


def test_close_forgets(clock: ManualClock) -> None:
    """After `close` nothing is held, and the backends refuse to be asked."""
    source = Source(a=b"x")
    made = make_manager(source, clock, A="fake://a")
    made.get("A")
    made.close()
    source.binding.close()
    assert made.live() == []
    with pytest.raises(UnsupportedOperation, match="closed"):
        made.get("A")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_fork_while_a_fetch_holds_the_lock(clock: ManualClock) -> None:
    """A child that is forked while another thread fetches can fetch itself."""
    asked, go = threading.Event(), threading.Event()

    def slow() -> bytes:
        asked.set()
        go.wait(PATIENCE)
        return b"x"

    source = Source(a=slow)
    made = make_manager(source, clock, A="fake://a")
    thread = threading.Thread(target=made.get, args=["A"])
    thread.start()
    assert asked.wait(PATIENCE)
    receive, send = os.pipe()
    child = os.fork()
    if child == 0:
        told = b"failed"
        try:
            source._lock = threading.Lock()
            source.answers["a"] = b"of the child"
            told = made.get("A").reveal_bytes()
        finally:
            os.write(send, told)
            os._exit(0)
    os.close(send)
    go.set()
    thread.join(PATIENCE)
    with os.fdopen(receive, "rb") as answer:
        assert answer.read() == b"of the child"
    assert os.waitpid(child, 0)[1] == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_fork_with_what_the_parent_gives_back(clock: ManualClock) -> None:
    """A child asks for a login of its own, and uses the parent's on only if it can have none."""
    source = Source(a=SecretValue(KeyMaterial(b"parent's"), expires=_in(clock, 3600)), b=b"plain")
    made = make_manager(source, clock, A="fake://a", B="fake://b")
    made.get_many(["A", "B"])

    def child() -> bytes:
        source.down = ServiceUnavailable("away")
        told = [made.get("A").reveal(), made.get("B").reveal()]
        source.down = None
        source.answers["a"] = SecretValue(KeyMaterial(b"child's"), expires=_in(clock, 3600))
        clock.advance(documents.RETRY_AFTER)
        told += [made.get("A").reveal(), made.get("A").reveal(), *source.asked[2:]]
        return " ".join(told).encode()

    told = in_fork(child).decode()
    assert told == "parent's plain child's child's fake://a fake://a"
    assert made.get("A").reveal() == "parent's"
    assert len(source.asked) == 2


# --- chains, other declarations, races ----------------------------------------------------------


def test_throttled_source_is_coasted_through(clock: ManualClock) -> None:
    """While a source asks to be left alone the last value is used, however short its time."""
    source = Source(a=b"last good")
    made = make_manager(source, clock, A={"from": "fake://a", "ttl": "10s"})
    made.get("A")
    source.down = Throttled("later", retry_after=60)
    for _ in range(70):
        clock.advance(1)
        assert made.get("A").reveal() == "last good"
    assert len(source.asked) <= 4


def test_source_that_is_throttled_is_not_refreshed(clock: ManualClock) -> None:
    """Whoever asks for it now is told so again, until the time is over that the source named."""
    source = Source(a=b"last good", b=b"other")
    made = make_manager(source, clock, A="fake://a", B="fake://b")
    made.get_many(["A", "B"])
    source.down = Throttled("later", retry_after=30)
    for _ in range(29):
        with pytest.raises(Throttled) as caught:
            made.refresh("A")
        assert caught.value.retry_after == 30
        assert made.get("A").reveal() == "last good"
        clock.advance(1)
    assert source.asked.count("fake://a") == 2
    clock.advance(2)
    source.down = None
    source.answers["a"] = b"new"
    assert made.refresh("A").reveal() == "new"
    source.down = ServiceUnavailable("away")  # which names no time
    for _ in range(3):
        with pytest.raises(ServiceUnavailable):
            made.refresh("A")
    assert source.asked.count("fake://a") == 6


def test_refresh_of_a_chain_is_kept(clock: ManualClock) -> None:
    """Also if the first of a chain is not there a refreshed value is held, and its change told."""
    source = Source(b=b"one")
    made = make_manager(source, clock, A={"from": ["fake://a", "fake://b"]})
    made.get("A")
    source.answers["b"] = b"two"
    assert made.refresh("A").reveal() == "two"
    assert made.previous("A") == Secret(b"one")
    held = made.held("A")
    assert held is not None
    assert held.reveal() == "two"


def test_value_of_an_earlier_configuration_is_not_kept(clock: ManualClock) -> None:
    """What was being fetched while other declarations were adopted is not held under the name."""
    source = Source(old=b"old", new=b"new")
    made = make_manager(source, clock, A="fake://old", GONE="fake://old")

    def adopting() -> bytes:
        made.adopt(entries({"A": "fake://new"}), 3600.0)
        return b"old"

    source.answers["old"] = adopting
    assert made.get("A").reveal() == "old"
    assert made.get("A").reveal() == "new"
    made.adopt(entries({"A": "fake://old", "GONE": "fake://other"}), 3600.0)
    source.answers["other"] = adopting
    assert made.get("GONE").reveal() == "old"
    with pytest.raises(SecretNotFound):
        made.get("GONE")


def test_change_by_another_configuration_is_a_change(clock: ManualClock) -> None:
    """A name that is declared anew as another reference has its earlier value as the previous."""
    source = Source(a=b"one", b=b"two", c=b"")
    made = make_manager(source, clock, A="fake://a")
    made.get("A")
    made.adopt(entries({"A": "fake://b"}), 3600.0)
    assert made.held("A") is None
    assert made.get("A").reveal() == "two"
    assert made.previous("A") == Secret(b"one")
    made.adopt(entries({"A": "fake://c"}), 3600.0)
    with pytest.raises(MalformedInput):  # the value of the earlier reference is no answer
        made.get("A")


def test_good_value_that_comes_while_a_torn_one_is_read_is_used(clock: ManualClock) -> None:
    """The last good value is not held over a new one that was fetched behind it meanwhile."""
    source = Source(a=b'{"f":"one"}')
    made = make_manager(source, clock, A="fake://a#f")
    made.get("A")
    source.answers["a"] = b"torn"
    clock.advance(2 * documents.DEFAULT_TTL + 1)
    doubt = made._documents.doubt

    def meanwhile(document: Reference) -> None:
        made._documents.doubt = doubt  # type: ignore[method-assign]
        source.answers["a"] = b'{"f":"two"}'
        made._documents.renew(document)

    made._documents.doubt = meanwhile  # type: ignore[method-assign]
    made.get("A")
    assert made.get("A").reveal() == "two"


def test_get_many_where_no_thread_can_be_started(
    clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a process that is out of threads the one that asks fetches alone."""

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    source = Source(a=b"1", b=b"2", c=b"3")
    made = make_manager(source, clock)
    monkeypatch.setattr(threading.Thread, "start", refuse)
    found = made.get_many(["fake://a", "fake://b", "fake://c"])
    assert [each.reveal() for each in found.values()] == ["1", "2", "3"]


def test_chain_goes_on_from_a_look_that_was_long_ago(clock: ManualClock) -> None:
    """That a first was not there holds for who asked together, however long the others took."""
    source = Source(b=b"second", c=b"other")
    made = make_manager(source, clock, A={"from": ["fake://a", "fake://b"]}, C="fake://c")
    first = Reference("fake://a")
    known: dict[Reference, Held | KMSError] = {first: SecretNotFound("fake://a is not there")}
    snapshot = Snapshot(made._documents, known=known)
    assert snapshot.get(first).value is None
    assert (
        compose("A", made._values.entries["A"], snapshot, source.bound).secret.reveal() == "second"
    )
    known[first] = ServiceUnavailable("away")
    with pytest.raises(ServiceUnavailable):
        Snapshot(made._documents, known=known).get(first)


# --- one state of a document, also where its newest makes no sense -------------------------------


def _login(user: str, password: str) -> bytes:
    return json.dumps({"user": user, "password": password}).encode()


def test_fields_that_are_used_on_are_of_one_state(clock: ManualClock) -> None:
    """Of a document whose newest state makes sense for one field alone, none is of that state."""
    source = Source(db=_login("a", "1"))
    made = make_manager(source, clock, U="fake://db#user", P="fake://db#password")
    both = ["U", "P"]
    assert _told(made, both) == ["a", "1"]
    source.answers["db"] = _login("b", "")
    made.expire()
    for _ in range(3):
        assert _told(made, both) == ["a", "1"]
    clock.advance(documents.RETRY_AFTER)
    source.answers["db"] = _login("b", "2")
    assert _told(made, both) == ["b", "2"]
    previous = [made.previous(name) for name in both]
    assert [each.reveal() for each in previous if each is not None] == ["a", "1"]


@pytest.mark.parametrize("newest", [b"{", _login("c", "")])
def test_fields_of_two_states_are_not_given_together(clock: ManualClock, newest: bytes) -> None:
    """What was last asked for at different times is not used on together: that is an error."""
    source = Source(db=_login("a", "1"), other=b"x")
    names: Any = {"U": "fake://db#user", "P": "fake://db#password", "O": "fake://other"}
    made = make_manager(source, clock, **names)
    assert made.get("U").reveal() == "a"
    source.answers["db"] = _login("b", "2")
    made.expire()
    assert made.get("P").reveal() == "2"
    source.answers["db"] = newest
    for _ in range(2):
        made.expire()
        made.get("P")
        for _ in range(2):  # the second time of what is held
            with pytest.raises(MalformedInput, match="db"):
                made.get_many(["U", "P"])
            assert _told(made, ["P", "O"]) == ["2", "x"]
    source.answers["db"] = _login("d", "4")
    made.expire()
    assert _told(made, ["U", "P"]) == ["d", "4"]


def test_rest_of_a_list_that_makes_no_sense_for_another(clock: ManualClock) -> None:
    """A value does not depend on what a list would have gone on to."""
    source = Source(a=b"1", b=b"{")
    made = make_manager(
        source, clock, A={"from": ["fake://a", "fake://b#x"]}, B="fake://b#x", WHOLE="fake://b"
    )
    source.answers["b"] = b'{"x": "good"}'
    assert _told(made, ["A", "B"]) == ["1", "good"]
    source.answers |= {"a": b"2", "b": b"{"}
    made.expire()
    assert _told(made, ["A", "B"]) == ["2", "good"]
    assert [made.get(name).reveal() for name in ("A", "B", "WHOLE")] == ["2", "good", "{"]


def test_what_is_held_of_two_states_is_not_given_together(clock: ManualClock) -> None:
    """Neither if one of them was asked for by itself meanwhile."""
    source = Source(db=_login("a", "1"))
    made = make_manager(source, clock, U="fake://db#user", P="fake://db#password")
    assert _told(made, ["U", "P"]) == ["a", "1"]
    source.answers["db"] = _login("b", "")
    made.expire()
    assert [made.get("P").reveal(), made.get("U").reveal()] == ["1", "b"]
    with pytest.raises(MalformedInput, match="is empty"):
        made.get_many(["U", "P"])


def test_change_of_one_is_noted_though_another_has_changed_again(clock: ManualClock) -> None:
    """What a value is not made of keeps nobody from holding it."""
    source = Source(a=b"1", b=b"1")
    made = make_manager(source, clock, A="fake://a", B="fake://b")
    made.get_many(["A", "B"])
    snapshot = Snapshot(made._documents, renew=True)
    source.answers |= {"a": b"2", "b": b"2"}
    snapshot.get(Reference("fake://a"))
    snapshot.get(Reference("fake://b"))
    source.answers["a"] = b"3"
    made.refresh("A")
    made._build("B", made._values.entries["B"], snapshot)
    previous = made.previous("B")
    assert previous is not None
    assert previous.reveal() == "1"


def _told(made: manager.SecretManager, names: list[str]) -> list[str]:
    return [each.reveal() for each in made.get_many(names).values()]
