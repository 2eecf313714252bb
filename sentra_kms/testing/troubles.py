"""Checks of a service in trouble: each trouble has its error, and says rightly if a retry helps."""

# ruff: noqa: S101 - checks are tests

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import cast

import pytest

from sentra_kms.errors import (
    AccessDenied,
    KMSError,
    NotFound,
    ServiceUnavailable,
    Throttled,
    Timeout,
)
from sentra_kms.hooktypes import Finding
from sentra_kms.testing.base import (
    Conformance,
    able,
    expect_retryable,
    need,
    refused,
    table,
    together,
)
from sentra_kms.testing.bench import Bench
from sentra_kms.testing.harness import BackendHarness
from sentra_kms.testing.user import READS, useful_calls

_SOON = 0.5
"""Seconds that a backend is given whose service does not answer."""

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
        """While the service is away every operation is `ServiceUnavailable`, and retryable.

        Also what worked a moment ago: to coast on what is kept is the core's work.
        """
        calls = useful_calls(bench.binding, subject)
        _read(calls)
        able(subject.cut)
        for call in calls.values():
            refused(ServiceUnavailable, call)

    def test_denied(self, bench: Bench, subject: BackendHarness) -> None:
        """Without rights every operation is `AccessDenied`, for good: never as if nothing was.

        A denial that looks like *not found* lets a chain of references go on to a weaker source.
        """
        calls = useful_calls(bench.binding, subject)
        _read(calls)
        able(subject.deny)
        for call in calls.values():
            refused(AccessDenied, call)

    def test_check_tells_of_an_outage(self, bench: Bench, subject: BackendHarness) -> None:
        """While the service is away `check`, if there is one, finds an error: it asks each time."""
        need(bench, "check")
        bench.binding.check()
        able(subject.cut)
        _expect_error(bench.binding.check())

    def test_check_tells_of_a_denial(self, bench: Bench, subject: BackendHarness) -> None:
        """Without rights `check`, if there is one, does not find everything in order."""
        need(bench, "check")
        bench.binding.check()
        able(subject.deny)
        found = bench.binding.check()
        assert {each.level for each in found} & {"warning", "error"}, found

    def test_unknown_answer(self, bench: Bench, subject: BackendHarness) -> None:
        """An answer that the backend does not know is an error for good, and nobody's absence.

        Taken for a passing outage it would be coasted over and retried, and nobody would be told;
        taken for *not found* it would let a chain of references go on.
        """
        calls = useful_calls(bench.binding, subject)
        able(subject.answer_unknown)
        for operation, call in calls.items():
            with pytest.raises(KMSError) as caught:
                call()
            end = f"{operation}: {type(caught.value).__name__}: {caught.value.message}"
            assert not isinstance(caught.value, NotFound), end
            assert not caught.value.retryable, end
            assert "escape from" not in caught.value.message, end

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
        """A service that takes requests and answers none is `Timeout`, and in the time given.

        Logins, attempts and retries fit into it together. A call may be late by `lateness`; one
        that is later still has a second try, in case it was this machine that was busy.
        """
        soon = min(_SOON, subject.patience / 2)
        hasty = Bench(subject.name, {**table(subject), "timeout": f"{soon * 1000:.0f}ms"})
        calls = useful_calls(bench.binding, subject, through=hasty.binding)
        able(subject.stall)
        work = {**calls, "check": hasty.binding.check}
        last = soon + subject.lateness
        ends, took = _timed(work, subject.patience)
        if max(took.values()) > last:
            ends, took = _timed(work, subject.patience)
        late = [f"{name} {each:.1f} s" for name, each in took.items() if each > last]
        assert not late, f"given {soon:.1f} s, these took longer, twice: {', '.join(late)}"
        found = ends.pop("check")
        assert isinstance(found, list), "check raises nothing: it finds"
        if "check" in bench.operations:
            _expect_error(cast("list[Finding]", found))
        for operation, end in ends.items():
            assert isinstance(end, Timeout), f"{operation}: {type(end).__name__}"
            expect_retryable(end)


def _read(calls: Mapping[str, Callable[[], object]]) -> None:
    """Make each call that changes nothing, so that what keeps answers has them."""
    for operation in READS:
        if operation in calls:
            calls[operation]()


def _expect_error(found: list[Finding]) -> None:
    assert "error" in {each.level for each in found}, f"check passes over it: {found}"


def _timed(
    work: Mapping[str, Callable[[], object]], patience: float
) -> tuple[dict[str, object], dict[str, float]]:
    """Do all of it at once; return by name how it ended, and after how many seconds."""
    names = list(work)
    took: dict[str, float] = {}

    def run(number: int) -> object:
        start = time.monotonic()
        try:
            return work[names[number]]()
        finally:
            took[names[number]] = time.monotonic() - start

    ends = together(len(names), run, patience)
    return dict(zip(names, ends, strict=True)), took
