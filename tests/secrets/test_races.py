"""What happens between two steps: close, reload and loops of other threads come in the middle."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import sentra_kms
from sentra_kms.errors import UnsupportedOperation
from sentra_kms.secrets import aio, values, watch
from sentra_kms.secrets.manager import SecretManager
from sentra_kms.secrets.view import View
from tests.conftest import ManualClock
from tests.secrets.sources import PATIENCE, Source, make_manager
from tests.secrets.test_watch import OFTEN


def test_watch_that_a_close_overtakes(clock: ManualClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is refused, and leaves no thread that looks at closed backends without an end."""
    source = Source(a=b"one")
    made = make_manager(source, clock, A="fake://a")
    started: list[watch.Watch] = []
    init = watch.Watch.__init__

    def closing(self: watch.Watch, *given: Any) -> None:
        init(self, *given)
        started.append(self)
        made.close()

    monkeypatch.setattr(watch.Watch, "__init__", closing)
    with pytest.raises(UnsupportedOperation, match="closed"):
        made.watch("A", lambda _: None, interval=OFTEN)
    (overtaken,) = started
    assert overtaken._thread is None
    assert made._watches == []


def test_value_that_a_close_overtakes(clock: ManualClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is put away while another thread closes is not held afterwards."""
    source = Source(a=b"one")
    made = make_manager(source, clock, A="fake://a")
    closer = threading.Thread(target=made.close)

    def closing(*given: Any) -> View:
        closer.start()
        closer.join(0.5)  # it may have to wait until the value is put away
        return View(*given)

    monkeypatch.setattr(values, "View", closing)
    assert made.get("A").reveal() == "one"
    closer.join(PATIENCE)
    assert made.live() == []


def test_reload_before_there_are_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reload while another thread makes `kms.secrets` is what that goes by, too."""
    (tmp_path / "a").touch(0o600)
    (tmp_path / "a").write_text("x")

    def table(name: str) -> dict[str, Any]:
        return {"production": {"secrets": {name: f"file://{tmp_path}/a"}}}

    kms = sentra_kms.load(table("OLD"), "production")
    reloader = threading.Thread(target=kms.reload, args=[table("NEW")])
    init = SecretManager.__init__

    def reloading(self: SecretManager, *given: Any, **named: Any) -> None:
        init(self, *given, **named)
        if reloader.ident is None:
            reloader.start()
            reloader.join(0.5)  # it may have to wait until the manager is there

    monkeypatch.setattr(SecretManager, "__init__", reloading)
    first = kms.secrets
    reloader.join(PATIENCE)
    assert first is kms.secrets
    assert kms.secrets.names() == ("NEW",)
    kms.close()


def test_two_loops_that_are_first(clock: ManualClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two threads with loops of their own that ask first, both use one object and one pool."""
    source = Source(a=b"one", b=b"two")
    made = make_manager(source, clock)
    both = threading.Barrier(2)
    pools: list[ThreadPoolExecutor] = []

    class Slow(ThreadPoolExecutor):
        def __init__(self, *given: Any) -> None:
            super().__init__(*given)
            pools.append(self)
            both.wait(PATIENCE)

    monkeypatch.setattr(aio, "ThreadPoolExecutor", Slow)
    used: list[aio.AsyncSecrets] = []
    found: list[str] = []

    def work(reference: str) -> None:
        async def ask() -> None:
            secrets = made.aio
            used.append(secrets)
            found.append((await secrets.get(reference)).reveal())

        asyncio.run(ask())

    threads = [threading.Thread(target=work, args=[f"fake://{each}"]) for each in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert sorted(found) == ["one", "two"]
    made.close()
    assert used[0] is used[1]
    for pool in pools:
        assert pool._shutdown or not pool._threads


def test_close_between_two_steps_of_a_task(
    clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A look that cannot begin any more is told as what it is."""
    source = Source(a=b"one")
    made = make_manager(source, clock)

    def closing() -> Any:
        made.close()
        return contextvars.copy_context()

    monkeypatch.setattr(aio, "copy_context", closing)
    with pytest.raises(UnsupportedOperation, match="closed"):
        asyncio.run(made.aio.get("fake://a"))
