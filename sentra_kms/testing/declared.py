"""What a harness declares absent from its service: with a reason, and nothing that is there."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest

from sentra_kms.testing.harness import BackendHarness

_NEEDED = frozenset(
    {"close", "kek", "missing_secret", "name", "open", "secret", "settings", "unknown_kek"}
)
"""What every harness has, or has to have."""

ABILITIES = frozenset(
    name
    for name, member in vars(BackendHarness).items()
    if callable(member) and not name.startswith("_") and name not in _NEEDED
)
"""Names of what a harness may lack."""


def reason_of(ability: Callable[..., object]) -> str | None:
    """Return why a harness declared this ability absent, `None` if it did not."""
    owner = getattr(ability, "__self__", None)
    if not isinstance(owner, BackendHarness):
        return None
    reason = owner.absent.get(getattr(ability, "__name__", ""))
    return None if reason is None else " ".join(reason.split())  # one line of the summary


def check_declared(harness: type[BackendHarness]) -> None:
    """Fail if `absent` names what is no ability or is there, or gives no reason."""
    given: object = harness.absent
    if not isinstance(given, Mapping):
        pytest.fail(
            f"{harness.__name__} declares `absent` without reasons: write "
            'absent = {"throttle": "Acme takes every request"}',
            pytrace=False,
        )
    for name, reason in harness.absent.items():
        fault = _fault(harness, name, reason)
        if fault is not None:
            pytest.fail(f"{harness.__name__} declares '{name}' absent, {fault}", pytrace=False)


def _fault(harness: type[BackendHarness], name: str, reason: object) -> str | None:
    if name not in ABILITIES:
        return f"and there is no such ability: they are {', '.join(sorted(ABILITIES))}"
    if getattr(harness, name) is not getattr(BackendHarness, name):
        return "and yet has it: take away one of the two"
    if not (isinstance(reason, str) and reason.strip()):
        return "and gives no reason: who reads the summary has to know why"
    return None
