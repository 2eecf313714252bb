"""Observers brought by distributions: each sees every event, and none can do anything to others."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import sentra_kms
from sentra_kms import ConfigurationError, KMSError, PluginError, observers
from sentra_kms.events import Event
from sentra_kms.hookspecs import ObserverHooks, hookimpl
from sentra_kms.observers import QUEUE_SIZE, Observers, find_observer
from tests.plugin.distributions import install

ROOT = Path(sentra_kms.__file__).parents[1]
WAIT = 60.0  # seconds after which a test that hangs is told so
SECRET = "hunter2-correct-horse"
COLLECT = """
from sentra_kms.hookspecs import ObserverHooks, hookimpl
seen = []
class Collect(ObserverHooks):
    @hookimpl
    def audit_event(self, event):
        seen.append(event)
def create():
    return Collect()
"""


def bring(site: Path, name: str, source: str = COLLECT, distribution: str | None = None) -> None:
    """Install a distribution that brings the observer `name`."""
    install(
        site,
        distribution or f"acme-{name}",
        observers={name: f"observing_{name}:create"},
        modules={f"observing_{name}": source},
    )


def configured(*names: str) -> dict[str, object]:
    """Return a configuration of a memory backend with the observers."""
    return {
        "dev": {
            "development": True,
            "backends": {"memory": {"type": "memory"}},
            "keys": {"wrap_with": ["memory:k"], "store": "memory"},
            "audit": {"observers": list(names)},
        }
    }


def event(number: int = 0) -> Event:
    """Return an event that can be told from others."""
    return Event(time=0.0, operation="wrap_key", backend="memory", subject=str(number))


class Collect(ObserverHooks):
    """Keeps what it sees; `full` is set once that is `wanted` events."""

    def __init__(self, wanted: int = 0) -> None:
        self.seen: list[Event] = []
        self.wanted = wanted
        self.full = threading.Event()

    @hookimpl
    def audit_event(self, event: Event) -> None:
        """Keep it."""
        self.seen.append(event)
        if len(self.seen) == self.wanted:
            self.full.set()


class Blocked(Collect):
    """Takes its first event and stays with it until it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.entered = threading.Event()
        self.let_go = threading.Event()

    @hookimpl
    def audit_event(self, event: Event) -> None:
        """Block."""
        self.entered.set()
        assert self.let_go.wait(WAIT)
        self.seen.append(event)


class Raising(ObserverHooks):
    """Raises what it was made with."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    @hookimpl
    def audit_event(self, event: Event) -> None:
        """Raise."""
        raise self.error


def test_observer_sees_operations(site: Path) -> None:
    """A configured observer is told of each operation, in order, and close waits for that."""
    bring(site, "one")
    with sentra_kms.load(configured("one"), "dev") as kms, sentra_kms.actor("user:42"):
        kms.keys.create("acme")
    seen: list[Event] = sys.modules["observing_one"].seen
    operations = [each.operation for each in seen]
    assert operations.index("wrap_key") < operations.index("save_ring")
    assert operations[-1] == "close"
    assert {each.actor for each in seen if each.operation == "wrap_key"} == {"user:42"}
    assert all(each.backend == "memory" for each in seen)


def test_observer_that_is_not_configured(site: Path) -> None:
    """An installed observer that no configuration names is not imported."""
    bring(site, "one")
    sentra_kms.load(configured(), "dev").close()
    assert "observing_one" not in sys.modules


def test_unknown_observer(site: Path) -> None:
    """An observer that nobody brings is refused, and those that there are are named."""
    bring(site, "one")
    with pytest.raises(ConfigurationError, match="no observer 'two' is installed; known are: one"):
        sentra_kms.load(configured("two"), "dev")


def test_two_bring_one_observer(site: Path) -> None:
    """Of two that bring one observer none is taken; both are named, with versions."""
    bring(site, "one")
    install(site, "globex-one", version="2.0", observers={"one": "elsewhere:create"})
    with pytest.raises(ConfigurationError, match=r"acme-one 1\.0 and globex-one 2\.0: uninstall"):
        find_observer("one")
    assert "observing_one" not in sys.modules


@pytest.mark.parametrize(
    ("source", "told"),
    [
        (f"raise RuntimeError('{SECRET}')", "of acme-one could not be made: RuntimeError"),
        ("", "of acme-one could not be made: AttributeError"),
        (
            f"def create():\n    raise RuntimeError('{SECRET}')",
            "of acme-one could not be made: RuntimeError",
        ),
        ("def create(settings): ...", "of acme-one could not be made: TypeError"),
        ("def create(): return None", "NoneType implements no hook"),
        (COLLECT.replace("return Collect()", "return Collect"), "is a class"),
        (COLLECT.replace("    @hookimpl\n", ""), "is not marked @hookimpl"),
        (COLLECT.replace("    def audit", "    async def audit"), "is async or a generator"),
        (COLLECT.replace("@hookimpl", "@hookimpl(wrapper=True)"), "is marked wrapper"),
        (COLLECT.replace("event):", "event, more):"), "must take exactly"),
        (
            COLLECT.replace("(ObserverHooks)", "").replace("audit_event", "wrap_key"),
            "implements no known hook",
        ),
    ],
)
def test_faulty_observer_is_refused(
    site: Path, caplog: pytest.LogCaptureFixture, source: str, told: str
) -> None:
    """An observer that cannot be made, or breaks the rules, is refused when it is loaded."""
    bring(site, "one", source)
    with pytest.raises(PluginError) as caught:
        sentra_kms.load(configured("one"), "dev")
    assert "observer 'one'" in caught.value.message
    assert told in caught.value.message
    assert SECRET not in caught.value.message + caplog.text
    assert caught.value.__context__ is None


def test_raising_observer_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    """What an observer raises is reported by kind; it and the others get the next event."""
    last = Collect()
    shown = Observers([("bad", Raising(RuntimeError(SECRET))), ("last", last)])
    assert shown.emit is not None
    for number in range(3):
        shown.emit(event(number))
    shown.close()
    assert [each.subject for each in last.seen] == ["0", "1", "2"]
    reports = [record.getMessage() for record in caplog.records]
    assert reports == ["observer 'bad' raised RuntimeError"] * 3
    assert SECRET not in caplog.text
    assert all(record.exc_info is None for record in caplog.records)


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, GeneratorExit, BaseException])
def test_observer_that_would_end_its_thread(
    kind: type[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever it raises is reported, and it gets the next event: it ends nothing silently."""
    collect = Collect()
    raised = iter([kind(SECRET)])

    class Once(ObserverHooks):
        @hookimpl
        def audit_event(self, event: Event) -> None:
            """Raise for the first event."""
            for each in raised:
                raise each
            collect.audit_event(event)

    shown = Observers([("once", Once())])
    assert shown.emit is not None
    for number in range(3):
        shown.emit(event(number))
    shown.close()
    assert [each.subject for each in collect.seen] == ["1", "2"]
    assert [each.getMessage() for each in caplog.records] == [
        f"observer 'once' raised {kind.__name__}"
    ]


def test_raising_observer_changes_no_operation(
    site: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Operations go on as if nobody had raised, whatever was raised."""
    bring(site, "bad", COLLECT.replace("seen.append(event)", f"raise ValueError('{SECRET}')"))
    bring(site, "good")
    with sentra_kms.load(configured("bad", "good"), "dev") as kms:
        kms.keys.create("acme")
        assert kms.keys.decrypt("acme", kms.keys.encrypt("acme", b"x")) == b"x"
    assert "save_ring" in {each.operation for each in sys.modules["observing_good"].seen}
    assert "observer 'bad' raised ValueError" in caplog.text
    assert SECRET not in caplog.text


def test_blocking_observer_holds_up_nothing() -> None:
    """While one observer blocks, events can be told and the others see them."""
    blocked, last = Blocked(), Collect(wanted=10)
    shown = Observers([("blocked", blocked), ("last", last)])
    assert shown.emit is not None
    shown.emit(event(0))
    assert blocked.entered.wait(WAIT)
    for number in range(1, 10):
        shown.emit(event(number))
    assert last.full.wait(WAIT)
    assert [each.subject for each in last.seen] == [str(number) for number in range(10)]
    assert blocked.seen == []
    blocked.let_go.set()
    shown.close()
    assert len(blocked.seen) == 10


def test_what_is_too_slow_is_counted(caplog: pytest.LogCaptureFixture) -> None:
    """Events beyond what may wait for one observer are dropped, and their number is reported."""
    blocked = Blocked()
    shown = Observers([("blocked", blocked)])
    assert shown.emit is not None
    shown.emit(event())
    assert blocked.entered.wait(WAIT)
    for number in range(QUEUE_SIZE + 7):
        shown.emit(event(number))
    blocked.let_go.set()
    shown.close()
    assert len(blocked.seen) == 1 + QUEUE_SIZE
    assert "observer 'blocked' is too slow: 7 events lost" in caplog.text


def test_close_does_not_wait_for_ever(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Closing gives up an observer that does not take its events, and says what may be lost."""
    monkeypatch.setattr(observers, "CLOSE_TIME", 0.0)
    blocked = Blocked()
    shown = Observers([("blocked", blocked)])
    assert shown.emit is not None
    shown.emit(event())
    assert blocked.entered.wait(WAIT)
    shown.emit(event())
    shown.close()
    assert "observer 'blocked' did not take its events in time" in caplog.text
    blocked.let_go.set()


def test_close_drains() -> None:
    """Closing waits until what happened before it has been seen."""
    collect = Collect()
    shown = Observers([("one", collect)])
    assert shown.emit is not None
    for number in range(500):
        shown.emit(event(number))
    shown.close()
    assert [each.subject for each in collect.seen] == [str(number) for number in range(500)]
    shown.close()


def test_events_cannot_be_changed(caplog: pytest.LogCaptureFixture) -> None:
    """An observer that tries to change an event fails, and the next sees it as it was."""

    class Changing(ObserverHooks):
        @hookimpl
        def audit_event(self, event: Event) -> None:
            """Try."""
            event.subject = "changed"  # type: ignore[misc]

    last = Collect()
    shown = Observers([("changing", Changing()), ("last", last)])
    assert shown.emit is not None
    shown.emit(event(1))
    shown.close()
    assert last.seen == [event(1)]
    assert "observer 'changing' raised AttributeError" in caplog.text


def test_events_hold_no_values(site: Path) -> None:
    """No event holds a secret that was fetched or a key that was wrapped."""
    bring(site, "one")
    table = {
        "dev": {
            "development": True,
            "backends": {
                "local": {
                    "type": "local",
                    "directory": str(site / "keys"),
                    "master_keys": {"k": "env://MASTER"},
                }
            },
            "keys": {"wrap_with": ["local:k"], "store": "local"},
            "audit": {"observers": ["one"]},
        }
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MASTER", SECRET * 2)
        with sentra_kms.load(table, "dev") as kms:
            kms.keys.create("acme")
    seen: list[Event] = sys.modules["observing_one"].seen
    assert "env://MASTER" in {each.subject for each in seen}
    assert SECRET not in repr(seen)


def test_nobody_observes() -> None:
    """Without observers there is nothing to hand events to, so that none is made."""
    shown = Observers([])
    assert shown.emit is None
    shown.close()


FORKED = """
import os, sys
import sentra_kms
kms = sentra_kms.load({
    "dev": {"development": True, "backends": {"memory": {"type": "memory"}},
            "keys": {"wrap_with": ["memory:k"], "store": "memory"},
            "audit": {"observers": ["lines"]}}}, "dev")
kms.keys.create("before")
child = os.fork()
if child == 0:
    kms.keys.create("in-child")
    kms.close()
    os._exit(0)
os.waitpid(child, 0)
kms.keys.create("after")
kms.close()
"""
LINES = """
import os
from sentra_kms.hookspecs import ObserverHooks, hookimpl
parent = os.getpid()
class Lines(ObserverHooks):
    @hookimpl
    def audit_event(self, event):
        with open(os.environ["LINES"], "a") as file:
            who = "parent" if os.getpid() == parent else "child"
            file.write(f"{who} {event.operation} {event.subject}\\n")
def create():
    return Lines()
"""


def test_after_a_fork(site: Path) -> None:
    """In a forked child the observer sees the child's events, once, and the parent's go on."""
    bring(site, "lines", LINES)
    lines = site / "lines.txt"
    subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", FORKED],
        env={
            **os.environ,
            "LINES": str(lines),
            "PYTHONPATH": os.pathsep.join([str(site), str(ROOT)]),
        },
        check=True,
        timeout=WAIT * 2,
    )
    saved = [line for line in lines.read_text().splitlines() if " save_ring " in line]
    assert sorted(saved) == [
        "child save_ring in-child",
        "parent save_ring after",
        "parent save_ring before",
    ]


def test_errors_of_the_tree(site: Path) -> None:
    """Everything that keeps an observer from being used is an error of ours."""
    bring(site, "one", "import no_such_sdk")
    with pytest.raises(KMSError, match="ModuleNotFoundError"):
        find_observer("one")
