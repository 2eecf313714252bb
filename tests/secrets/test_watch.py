"""`watch`: once for each change, whatever the callback and the source do."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from sentra_kms.errors import KMSError, MalformedInput, SecretNotFound, ServiceUnavailable
from sentra_kms.hooktypes import SecretValue
from sentra_kms.material import KeyMaterial, Secret
from sentra_kms.secrets import watch
from sentra_kms.secrets.manager import SecretManager
from tests.conftest import ManualClock
from tests.secrets.sources import PATIENCE, Source, make_manager

OFTEN = 0.005  # seconds
SELDOM = 3600.0


def until(true: Callable[[], object]) -> None:
    """Wait until something is true, at most the patience of the tests."""
    deadline = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < deadline
        threading.Event().wait(0.001)


def looks(source: Source, more: int = 5) -> None:
    """Wait for some more looks at the source."""
    before = len(source.asked)
    until(lambda: len(source.asked) >= before + more)


@pytest.fixture
def source() -> Source:
    """Return a source with one secret."""
    return Source(a=b"one")


@pytest.fixture
def made(source: Source, clock: ManualClock) -> Iterator[SecretManager]:
    """Return a manager of it, whose watches end with the test."""
    made = make_manager(source, clock, A="fake://a")
    yield made
    made.close()


def test_change_calls_back_once(source: Source, made: SecretManager) -> None:
    """Each changed value calls back once, in a thread of the watch; the same value never."""
    told: list[tuple[str, str]] = []
    made.watch(
        "A",
        lambda s: told.append((s.reveal(), threading.current_thread().name)),
        interval=OFTEN,
    )
    looks(source)
    assert told == []
    for value in (b"two", b"three"):
        source.answers["a"] = value
        until(lambda value=value: told and told[-1][0] == value.decode())  # type: ignore[misc]
        looks(source)
    assert told == [("two", "sentra-kms-watch-A"), ("three", "sentra-kms-watch-A")]


def test_changed_version_of_an_equal_value_calls_back(source: Source, made: SecretManager) -> None:
    """Where the source has versions, a new one is a change."""
    source.answers["a"] = SecretValue(KeyMaterial(b"x"), version="1")
    told: list[str | None] = []
    made.watch("A", lambda s: told.append(s.version), interval=OFTEN)
    looks(source)
    source.answers["a"] = SecretValue(KeyMaterial(b"x"), version="2")
    until(lambda: told)
    looks(source)
    assert told == ["2"]


def test_begins_from_what_the_process_uses(source: Source, made: SecretManager) -> None:
    """A change between an earlier `get` and `watch` is not missed."""
    made.get("A")
    source.answers["a"] = b"two"
    told: list[str] = []
    made.watch("A", lambda s: told.append(s.reveal()), interval=OFTEN)
    until(lambda: told)
    assert told == ["two"]


def test_change_that_somebody_else_sees_is_told_at_once(
    source: Source, made: SecretManager
) -> None:
    """A `refresh` anywhere in the process wakes the watch; it does not wait for its interval."""
    told: list[str] = []
    made.watch("A", lambda s: told.append(s.reveal()), interval=SELDOM)
    source.answers["a"] = b"two"
    made.refresh("A")
    until(lambda: told)
    assert told == ["two"]


def test_callback_that_raises(
    source: Source, made: SecretManager, caplog: pytest.LogCaptureFixture
) -> None:
    """What a callback raises is logged by its kind, without its text; the watch goes on."""
    told: list[str] = []

    def callback(secret: Secret) -> None:
        told.append(secret.reveal())
        raise RuntimeError(secret.reveal())

    made.watch("A", callback, interval=OFTEN)
    source.answers["a"] = b"planted-s3cr3t-value"
    until(lambda: "RuntimeError" in caplog.text)
    source.answers["a"] = b"three"
    until(lambda: len(told) == 2)
    looks(source)
    assert told == ["planted-s3cr3t-value", "three"]
    assert "planted" not in caplog.text


def test_callback_that_blocks(source: Source, clock: ManualClock) -> None:
    """A callback that takes its time holds up neither another watch nor `get`."""
    source.answers["b"] = b"one"
    made = make_manager(source, clock, A="fake://a", B="fake://b")
    blocked, go = threading.Event(), threading.Event()

    def block(_: Secret) -> None:
        blocked.set()
        go.wait(PATIENCE)

    told: list[str] = []
    first = made.watch("A", block, interval=OFTEN)
    made.watch("B", lambda s: told.append(s.reveal()), interval=OFTEN)
    source.answers["a"] = b"two"
    assert blocked.wait(PATIENCE)
    source.answers["b"] = b"two"
    until(lambda: told)
    assert made.refresh("A").reveal() == "two"
    go.set()
    first.stop()
    made.close()


def test_outage_is_reported_and_the_last_value_stays(
    source: Source, made: SecretManager, caplog: pytest.LogCaptureFixture
) -> None:
    """Errors are logged and given to `on_error`, and the source is asked again until it is back."""
    told: list[str] = []
    errors: list[KMSError] = []
    made.watch("A", lambda s: told.append(s.reveal()), interval=OFTEN, on_error=errors.append)
    source.down = ServiceUnavailable("the source is down")
    until(lambda: len(errors) >= 3)
    assert {type(error) for error in errors} == {ServiceUnavailable}
    assert made.get("A").reveal() == "one"
    assert "its last value stays: the source is down" in caplog.text
    source.down = None
    looks(source)
    assert told == []
    source.answers["a"] = b"two"
    until(lambda: told)
    assert told == ["two"]


def test_error_callback_that_raises(
    source: Source, made: SecretManager, caplog: pytest.LogCaptureFixture
) -> None:
    """An `on_error` that raises ends nothing."""

    def fail(_: KMSError) -> None:
        raise RuntimeError("planted-text")

    made.watch("A", lambda _: None, interval=OFTEN, on_error=fail)
    source.down = ServiceUnavailable("down")
    looks(source)
    until(lambda: "RuntimeError" in caplog.text)
    assert "planted" not in caplog.text


def test_stop(source: Source, made: SecretManager) -> None:
    """After `stop` nobody is called and nobody asks; it may be called again, also in a callback."""
    told: list[str] = []
    with made.watch("A", lambda s: told.append(s.reveal()), interval=OFTEN) as handle:
        looks(source)
    handle.stop()
    until(lambda: not any(t.name.startswith("sentra-kms-watch") for t in threading.enumerate()))
    source.answers["a"] = b"two"
    made.refresh("A")
    assert told == []
    assert repr(handle) == "Watch('A', stopped)"

    calls: list[str] = []

    def end(secret: Secret) -> None:
        calls.append(secret.reveal())
        other.stop()

    other = made.watch("A", end, interval=OFTEN)
    source.answers["a"] = b"three"
    until(lambda: not any(t.name.startswith("sentra-kms-watch") for t in threading.enumerate()))
    assert calls == ["three"]


def test_close_stops_watches(source: Source, made: SecretManager) -> None:
    """Closing the manager ends every watch."""
    made.watch("A", lambda _: None, interval=OFTEN)
    made.close()
    until(lambda: not any(t.name.startswith("sentra-kms-watch") for t in threading.enumerate()))


@pytest.mark.parametrize("interval", [0, -1, float("nan")])
def test_bad_interval(made: SecretManager, interval: float) -> None:
    """A watch asks every so many seconds."""
    with pytest.raises(MalformedInput, match="more than none"):
        made.watch("A", lambda _: None, interval=interval)


def test_what_cannot_be_watched(made: SecretManager, source: Source) -> None:
    """A name that is not declared, and a source that is down at the start, are errors at once."""
    with pytest.raises(SecretNotFound):
        made.watch("B", lambda _: None)
    source.down = ServiceUnavailable("down")
    with pytest.raises(ServiceUnavailable):
        made.watch("A", lambda _: None)
    assert not any(t.name.startswith("sentra-kms-watch") for t in threading.enumerate())


def test_logging_is_silent_when_all_is_well(
    source: Source, made: SecretManager, caplog: pytest.LogCaptureFixture
) -> None:
    """A watch that finds no fault logs nothing, and never a value."""
    with caplog.at_level(logging.DEBUG):
        made.watch("A", lambda _: None, interval=OFTEN)
        looks(source)
    assert caplog.records == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_fork(source: Source, made: SecretManager) -> None:
    """A forked child's watches go on in the child from the next time that it asks for anything."""
    told: list[str] = []
    made.watch("A", lambda s: told.append(s.reveal()), interval=OFTEN)
    looks(source)
    receive, send = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            source._lock = threading.Lock()
            source.answers["a"] = b"in the child"
            made.refresh("A")
            until(lambda: told == ["in the child"])
            code = 0
        finally:
            os.write(send, ",".join(told).encode())
            os._exit(code)
    os.close(send)
    with os.fdopen(receive) as answer:
        assert answer.read() == "in the child"
    assert os.waitpid(child, 0)[1] == 0
    assert told == []


def test_value_past_its_hard_maximum_is_not_begun_from(
    source: Source, made: SecretManager, clock: ManualClock
) -> None:
    """`watch` raises as `get` does, also if a value was held once; a change meanwhile is told."""
    made.get("A")
    clock.advance(3601)
    source.down = ServiceUnavailable("down")
    with pytest.raises(ServiceUnavailable):
        made.watch("A", lambda _: None, interval=SELDOM)
    assert made._watches == []
    source.down = None
    source.answers["a"] = b"two"
    clock.advance(5)
    told: list[str] = []
    made.watch("A", lambda s: told.append(s.reveal()), interval=SELDOM)
    until(lambda: told)
    assert told == ["two"]


@pytest.mark.parametrize("end", [SystemExit, KeyboardInterrupt, GeneratorExit])
def test_callback_that_exits_does_not_end_the_watch(
    end: type[BaseException],
    source: Source,
    made: SecretManager,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """`sys.exit` in a callback would end its thread without a word; later changes are told."""
    told: list[str] = []

    def callback(secret: Secret) -> None:
        told.append(secret.reveal())
        raise end(secret.reveal())

    made.watch("A", callback, interval=OFTEN)
    for value in ("planted-s3cr3t-value", "three"):
        source.answers["a"] = value.encode()
        until(lambda value=value: value in told)  # type: ignore[misc]
    until(lambda: caplog.text.count(end.__name__) == 2)
    assert "planted" not in caplog.text


@pytest.mark.parametrize("interval", [float("inf"), 1e12])
def test_interval_that_no_clock_waits_for(
    interval: float, source: Source, made: SecretManager
) -> None:
    """Who never wants the source to be asked is still told of what others see."""
    told: list[str] = []
    made.watch("A", lambda s: told.append(s.reveal()), interval=interval)
    for value in ("two", "three"):
        source.answers["a"] = value.encode()
        made.refresh("A")
        until(lambda value=value: value in told)  # type: ignore[misc]
    assert told == ["two", "three"]


def test_change_by_refresh_of_a_chain_is_told_at_once(clock: ManualClock) -> None:
    """A `refresh` wakes the watch also if the first of the references is not there."""
    source = Source(b=b"one")
    made = make_manager(source, clock, A={"from": ["fake://a", "fake://b"]})
    told: list[str] = []
    made.watch("A", lambda s: told.append(s.reveal()), interval=SELDOM)
    source.answers["b"] = b"two"
    made.refresh("A")
    until(lambda: told)
    made.close()
    assert told == ["two"]


def test_close_waits_for_all_callbacks_together(
    clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Callbacks that block hold up `close` for one time, not for one each."""
    monkeypatch.setattr(watch, "STOP_TIME", 5.0)
    waited: list[float] = []
    go, blocked = threading.Event(), threading.Semaphore(0)

    def block(_: Secret) -> None:
        blocked.release()
        go.wait(PATIENCE)

    source = Source(a=b"one")
    made = make_manager(source, clock, A="fake://a")
    for _ in range(4):
        made.watch("A", block, interval=SELDOM)
    source.answers["a"] = b"two"
    made.refresh("A")
    for _ in range(4):
        assert blocked.acquire(timeout=PATIENCE)
    times = iter([0.0, 0.0, 2.0, 4.0, 6.0])  # of the clock at each look
    monkeypatch.setattr(watch, "_now", lambda: next(times))
    join = threading.Thread.join

    def spy(thread: threading.Thread, timeout: float | None = None) -> None:
        assert timeout is not None
        waited.append(timeout)

    monkeypatch.setattr(threading.Thread, "join", spy)
    made.close()
    monkeypatch.setattr(threading.Thread, "join", join)
    go.set()
    assert waited == [5.0, 3.0, 1.0, 0.0]
