"""Run by `test_joining`: the suite in its live profile, within a budget and past one."""

from __future__ import annotations

from sentra_kms.testing import BackendConformance
from tests.kit.faulty import Harness


class PaidHarness(Harness):
    live = True
    call_budget = 1000


class PoorHarness(Harness):
    live = True
    call_budget = 20


class TestPaid(BackendConformance):
    harness = PaidHarness


class TestPoor(BackendConformance):
    harness = PoorHarness


def test_spent() -> None:
    """Print what was spent, for the test that runs this."""
    from sentra_kms.testing.budget import budget_of

    print(f"spent {budget_of(PaidHarness).spent} and {budget_of(PoorHarness).spent}")  # noqa: T201
