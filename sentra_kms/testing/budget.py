"""The live profile: calls of a paid service are counted, and end when the budget is spent."""

from __future__ import annotations

import threading

import pytest

from sentra_kms import sources
from sentra_kms.binding import Binding
from sentra_kms.hooktypes import Finding
from sentra_kms.testing import bench
from sentra_kms.testing.harness import BackendHarness


class CallBudget:
    """Calls that may still be made. Safe from many threads.

    >>> budget = CallBudget("Acme", 2)
    >>> budget.spend(), budget.spend(), budget.spent
    (None, None, 2)
    """

    def __init__(self, owner: str, calls: int) -> None:
        self._owner = owner
        self._calls = calls
        self._lock = threading.Lock()
        self.spent: int = 0

    def spend(self, calls: int = 1) -> None:
        """Count calls that are about to be made; fail the check instead of making too many."""
        with self._lock:
            within = self.spent + calls <= self._calls
            if within:
                self.spent += calls
        if not within:
            pytest.fail(
                f"{self._owner} has a budget of {self._calls} calls, and it is spent: raise "
                "call_budget, or look for what asks so often"
            )


_BUDGETS: dict[type[BackendHarness], CallBudget] = {}
"""Of this run, by harness."""


def budget_of(harness: type[BackendHarness]) -> CallBudget:
    """Return what this run may still spend with a harness."""
    return _BUDGETS.setdefault(harness, CallBudget(harness.__name__, harness.call_budget))


def keep_within_budget(subject: BackendHarness, patch: pytest.MonkeyPatch) -> None:
    """Count every call of the harness's backend, made by a bench or through `load`."""
    budget = budget_of(type(subject))

    class Counted(Binding):
        """Spends before it calls."""

        def _call(
            self, operation: str, subject: str, arguments: dict[str, object], kind: type
        ) -> object:
            if self.name in counted:
                budget.spend()
            return super()._call(operation, subject, arguments, kind)

        def _call_batch(
            self, kind: type, operation: str, subjects: list[str], arguments: dict[str, object]
        ) -> list[object]:
            if self.name in counted:
                budget.spend()
            return super()._call_batch(kind, operation, subjects, arguments)

        def check(self) -> list[Finding]:
            if self.name in counted:
                budget.spend()
            return super().check()

    counted = {subject.name, bench.other_name(subject.name)}
    patch.setattr(sources, "Binding", Counted)
    patch.setattr(bench, "Binding", Counted)
