"""The pytest plugin for applications: the fixture `sentra_kms_fake`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, cast

import pytest

if TYPE_CHECKING:
    from sentra_kms.binding import Binding
    from sentra_kms.testing.fake import Fake


@pytest.fixture
def sentra_kms_fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[Fake]:
    """Return a `Fake`: while it lasts `sentra_kms.load` gives its `kms`, all in memory.

    A test that reaches a real backend all the same, for example by a KMS that was loaded before
    the fixture, fails and says which.
    """
    from sentra_kms import binding, runtime
    from sentra_kms.testing.fake import Fake

    fake = Fake()
    monkeypatch.setattr(runtime, "open_kms", fake.load)
    for name in ("_ask", "_call_batch", "_ask_parts"):  # ours, not public: all ways to a backend
        call: Callable[..., object] = getattr(binding.Binding, name)
        monkeypatch.setattr(binding.Binding, name, _guarded(call, fake))
    try:
        yield fake
    finally:
        fake.close()
    if fake.reached:  # also by a thread, or where the application caught the failure
        pytest.fail(fake.reached[0])


def _guarded(call: Callable[..., object], fake: Fake) -> Callable[..., object]:
    def guarded(self: Binding, *given: object, **arguments: object) -> object:
        what = [each for each in given if not isinstance(each, type)]  # operation, and of what
        if self.kind != "memory" and what[0] != "close":
            told = (
                f"the test reached the real backend '{self.name}' (type {self.kind}) by "
                f"{' of '.join(map(_named, what[:2]))}: use sentra_kms_fake.kms, or load() after "
                "the fixture"
            )
            fake.reached.append(told)
            pytest.fail(told)
        return call(self, *given, **arguments)

    return guarded


def _named(what: object) -> str:
    subjects = cast("list[object]", what) if isinstance(what, list) else [what]
    return ", ".join(map(str, subjects))
