"""An observer that writes a line for each event to the file that TOY_EVENTS names."""

from __future__ import annotations

import json
import os

from sentra_kms.events import Event
from sentra_kms.hookspecs import ObserverHooks, hookimpl


class Lines(ObserverHooks):
    """Appends JSON lines."""

    def __init__(self, path: str) -> None:
        self._path = path

    @hookimpl
    def audit_event(self, event: Event) -> None:
        """Write one line."""
        line = {"operation": event.operation, "backend": event.backend, "subject": event.subject}
        with open(self._path, "a", encoding="utf-8") as file:
            file.write(json.dumps({**line, "outcome": event.outcome}) + "\n")


def create() -> Lines:
    """Make the observer."""
    return Lines(os.environ["TOY_EVENTS"])
