"""The pytest plugin for applications: the fixture `sentra_kms_fake`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

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
    ask: Callable[..., object] = getattr(binding.Binding, "_ask")  # noqa: B009 - ours, not public
    monkeypatch.setattr(runtime, "open_kms", fake.load)
    monkeypatch.setattr(binding.Binding, "_ask", _guarded(ask, fake))
    try:
        yield fake
    finally:
        fake.close()
    if fake.reached:  # also by a thread, or where the application caught the failure
        pytest.fail(fake.reached[0])


def _guarded(ask: Callable[..., object], fake: Fake) -> Callable[..., object]:
    def guarded(
        self: Binding, kind: type, operation: str, subject: str, **arguments: object
    ) -> object:
        if self.kind != "memory":
            told = (
                f"the test reached the real backend '{self.name}' (type {self.kind}) by "
                f"{operation} of {subject}: use sentra_kms_fake.kms, or load() after the fixture"
            )
            fake.reached.append(told)
            pytest.fail(told)
        return ask(self, kind, operation, subject, **arguments)

    return guarded
