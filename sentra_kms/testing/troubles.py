"""Checks of a service in trouble: each trouble has its error, and says rightly if a retry helps."""

# ruff: noqa: S101 - checks are tests

from __future__ import annotations

import pytest

from sentra_kms.errors import AccessDenied, ServiceUnavailable, Throttled, Timeout
from sentra_kms.testing.base import (
    Conformance,
    able,
    expect_retryable,
    refused,
    table,
    together,
)
from sentra_kms.testing.bench import Bench
from sentra_kms.testing.harness import BackendHarness
from sentra_kms.testing.user import useful_calls

_SOON = "500ms"
"""The timeout of a backend whose service does not answer."""

_RETRIES = 10
"""Requests of one call that is refused each time, at most."""


class TroubleConformance(Conformance):
    """For every backend."""

    def test_built_without_service(self, subject: BackendHarness) -> None:
        """A backend is built while its service is away: creating it connects to nothing."""
        settings = table(subject)
        able(subject.cut)
        Bench(subject.name, settings).close()

    def test_building_asks_nothing(self, subject: BackendHarness) -> None:
        """To build and close a backend makes no request: loading a configuration is no use of it.

        So a process that starts does not log in to services that it may never need.
        """
        before = len(able(subject.requests))
        Bench(subject.name, table(subject)).close()
        assert len(subject.requests()) == before

    def test_service_away(self, bench: Bench, subject: BackendHarness) -> None:
        """While the service is away every operation is `ServiceUnavailable`, and retryable."""
        calls = useful_calls(bench.binding, subject)
        able(subject.cut)
        for call in calls.values():
            refused(ServiceUnavailable, call)

    def test_denied(self, bench: Bench, subject: BackendHarness) -> None:
        """Without rights every operation is `AccessDenied`, for good: never as if nothing was.

        A denial that looks like *not found* lets a chain of references go on to a weaker source.
        """
        calls = useful_calls(bench.binding, subject)
        able(subject.deny)
        for call in calls.values():
            refused(AccessDenied, call)

    def test_throttled(self, bench: Bench, subject: BackendHarness) -> None:
        """One request too many is `Throttled` and retryable, after a time that is no past one."""
        calls = useful_calls(bench.binding, subject)
        able(subject.throttle)
        for operation, call in calls.items():
            with pytest.raises(Throttled) as caught:
                call()
            expect_retryable(caught.value)
            after = caught.value.retry_after
            assert after is None or after >= 0, operation

    def test_retries_are_bounded(self, bench: Bench, subject: BackendHarness) -> None:
        """One call makes at most 10 requests of a service that refuses each."""
        calls = useful_calls(bench.binding, subject)
        able(subject.throttle)
        able(subject.requests)
        for operation, call in calls.items():
            before = len(subject.requests())
            refused(ServiceUnavailable, call)
            assert len(subject.requests()) - before <= _RETRIES, operation

    def test_stalled(self, bench: Bench, subject: BackendHarness) -> None:
        """A service that takes requests and answers none is `Timeout`; no call waits for ever."""
        hasty = Bench(subject.name, {**table(subject), "timeout": _SOON})
        calls = useful_calls(bench.binding, subject, through=hasty.binding)
        able(subject.stall)
        work = [*calls.values(), hasty.binding.check]
        *ends, found = together(len(work), lambda number: work[number](), subject.patience)
        assert isinstance(found, list), "check raises nothing: it finds"
        for operation, end in zip(calls, ends, strict=True):
            assert isinstance(end, Timeout), f"{operation}: {type(end).__name__}"
            expect_retryable(end)
