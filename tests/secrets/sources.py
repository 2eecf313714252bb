"""A source of secrets that does what the test says, and managers over it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any

from sentra_kms.config import read_settings
from sentra_kms.errors import KMSError, SecretNotFound
from sentra_kms.hooktypes import SecretRequest, SecretValue
from sentra_kms.material import KeyMaterial
from sentra_kms.secrets.documents import Spawn
from sentra_kms.secrets.manager import SecretManager
from tests.binding.fakes import Secrets, bind
from tests.conftest import ManualClock

Answer = bytes | KMSError | SecretValue | Callable[[], Any]
PATIENCE = 60.0  # seconds after which a test that hangs fails


class Source:
    """Holds what is under each path, and counts who asks."""

    def __init__(self, **answers: Answer) -> None:
        self.answers: dict[str, Answer] = dict(answers)
        self.down: KMSError | None = None
        self.asked: list[str] = []
        self._lock = threading.Lock()
        self.binding = bind(lambda: Secrets(self._answer))

    def bound(self, name: str) -> Any:
        """Return the binding, under any name."""
        return self.binding

    def _answer(self, operation: str, arguments: dict[str, Any]) -> SecretValue:
        request: SecretRequest = arguments["request"]
        with self._lock:
            self.asked.append(str(request.reference))
        if self.down is not None:
            raise self.down
        answer = self.answers.get(request.reference.path)
        if callable(answer):
            answer = answer()
        if answer is None:
            raise SecretNotFound(f"{request.reference} is not there")
        if isinstance(answer, KMSError):
            raise answer
        return answer if isinstance(answer, SecretValue) else SecretValue(KeyMaterial(answer))


def inline(work: Callable[[], None]) -> None:
    """Do in the foreground what is done in the background, so that a test sees the end of it."""
    work()


def make_manager(
    source: Source,
    clock: ManualClock,
    *,
    max_stale: float = 3600.0,
    spawn: Spawn | None = inline,
    **secrets: object,
) -> SecretManager:
    """Return a manager of declared secrets, whose references are `fake://PATH`."""
    return SecretManager(
        source.bound,
        entries(secrets),
        max_stale=max_stale,
        clock=clock,
        now=clock,
        spawn=spawn,
        where="[test.secrets]",
    )


def entries(secrets: Mapping[str, object]) -> dict[str, Any]:
    """Return declared secrets as the configuration reads them."""
    table = {
        "development": True,
        "backends": {"fake": {"type": "file"}, "other": {"type": "file"}},
        "secrets": dict(secrets),
    }
    return read_settings({"test": table}, "test").secrets
