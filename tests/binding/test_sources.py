"""The backends of one environment, each bound when it is first asked for."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from sentra_kms import sources
from sentra_kms.binding import Binding
from sentra_kms.config import read_settings
from sentra_kms.errors import ServiceUnavailable
from sentra_kms.sources import Sources
from sentra_kms.testing.base import together

PATIENCE = 60.0
_TABLE: dict[str, object] = {
    "development": True,
    "backends": {name: {"type": "file", "directory": "."} for name in ("one", "two", "three")},
}


def _made() -> Sources:
    return Sources(read_settings({"test": _TABLE}, "test"))


def test_threads_that_bind_at_once_use_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second one would have a login and leases of its own, and be closed by nobody."""
    at_once = threading.Barrier(4)
    bind = sources.bind

    def slow(*arguments: Any, **options: Any) -> Binding:
        at_once.wait(PATIENCE)
        return bind(*arguments, **options)

    monkeypatch.setattr(sources, "bind", slow)
    with _made() as made:
        found = together(4, lambda _: made.bound("one"), PATIENCE)
    assert len({id(each) for each in found}) == 1


def test_all_are_closed_though_one_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """What one raises when it is closed keeps no other open, and is raised at the end."""
    closed: list[str] = []

    def close(self: Binding) -> None:
        closed.append(self.name)
        if self.name == "two":
            raise ServiceUnavailable("it hangs on")

    monkeypatch.setattr(Binding, "close", close)
    made = _made()
    for name in ("one", "two", "three"):
        made.bound(name)
    with pytest.raises(ServiceUnavailable, match="hangs on"):
        made.__exit__(None, None, None)
    assert sorted(closed) == ["one", "three", "two"]
    closed.clear()
    with made:
        pass
    assert closed == []
