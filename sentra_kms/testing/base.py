"""What all checks start from: the harness, the bench, and skips that say what is lacking."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import ClassVar, ParamSpec, TypeVar

import pytest

from sentra_kms.context import WrapContext
from sentra_kms.errors import KMSError
from sentra_kms.testing.bench import Bench
from sentra_kms.testing.budget import keep_within_budget
from sentra_kms.testing.declared import check_declared, reason_of
from sentra_kms.testing.harness import BackendHarness
from sentra_kms.testing.skips import DECLARED, LACKS_ABILITY, LACKS_PART, tell_skips

PLACE = WrapContext("acme", bytes(range(12)), 1)
"""Where the checks wrap a key."""

PATIENCE = BackendHarness.patience
"""Seconds after which a check that hangs fails; nothing is measured by it."""

_PAGES = 10_000  # more than any listing of so few needs

_P = ParamSpec("_P")
_T = TypeVar("_T")


class Conformance:
    """Base of the checks of each capability."""

    harness: ClassVar[type[BackendHarness]]

    @pytest.fixture
    def subject(
        self,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        pytestconfig: pytest.Config,
    ) -> Iterator[BackendHarness]:
        """Return a harness of this check's own, opened."""
        tell_skips(pytestconfig)
        check_declared(self.harness)
        subject = self.harness(tmp_path, monkeypatch)
        if subject.live:
            keep_within_budget(subject, monkeypatch)
        try:
            subject.open()
            yield subject
        finally:
            subject.close()

    @pytest.fixture
    def bench(self, subject: BackendHarness) -> Iterator[Bench]:
        """Return the backend, bound; one that cannot be says why, and not where it was tried."""
        bench = _built(subject)
        yield bench
        bench.close()


def _built(subject: BackendHarness) -> Bench:
    try:
        return Bench(subject.name, table(subject))
    except KMSError as error:
        told = error.message
    pytest.fail(f"the backend cannot be used at all: {told}", pytrace=False)


def table(subject: BackendHarness) -> dict[str, object]:
    """Return the backend's table of the configuration."""
    return {"type": subject.type, **subject.settings()}


def often(subject: type[BackendHarness] | BackendHarness, count: int, live: int) -> int:
    """Return how often something is done: `count`, or `live` where each call is paid for."""
    return live if subject.live else count


def need(bench: Bench, operation: str) -> None:
    """Skip the check unless a part of the backend implements `operation`."""
    if operation not in bench.operations:
        pytest.skip(
            f"backend '{bench.binding.name}' has {LACKS_PART} {operation} as it is configured"
        )


def able(ability: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
    """Use an ability of the harness; skip the check, naming the ability, if it lacks it.

    One that is declared absent is not used, and the reason that was given is told.
    """
    absent = reason_of(ability)
    if absent is not None:
        pytest.skip(f"{DECLARED} {_name(ability)}(), {absent}")
    try:
        return ability(*args, **kwargs)
    except NotImplementedError:
        lacking = _name(ability)
    pytest.skip(f"{LACKS_ABILITY} {lacking}()")


def must(ability: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
    """Use what the harness has to have, given what the backend implements; else fail."""
    try:
        return ability(*args, **kwargs)
    except NotImplementedError:
        lacking = _name(ability)
    pytest.fail(f"the backend needs a harness with {lacking}(), or its checks prove nothing")


def refused(kinds: type[KMSError] | tuple[type[KMSError], ...], call: Callable[[], object]) -> str:
    """Return the message of the error with which `call` is refused; fail for any other end.

    That the error says rightly whether a retry may help is part of it.
    """
    with pytest.raises(kinds) as caught:
        call()
    expect_retryable(caught.value)
    return caught.value.message


def expect_retryable(error: KMSError) -> None:
    """Fail if an error says of a retry what its kind does not."""
    if error.retryable is not error.default_retryable:
        pytest.fail(f"{type(error).__name__} says retryable={error.retryable}")


def together(
    count: int, work: Callable[[int], _T], patience: float = PATIENCE
) -> list[_T | Exception]:
    """Run `work(0)` to `work(count - 1)` at once; return what each gave or raised, in order."""
    start = threading.Barrier(count)
    ends: dict[int, _T | Exception] = {}

    def run(number: int) -> None:
        start.wait(patience)
        try:
            ends[number] = work(number)
        except Exception as error:  # noqa: BLE001 - judged by the check
            ends[number] = error

    threads = [threading.Thread(target=run, args=(number,), daemon=True) for number in range(count)]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + patience
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    if len(ends) != count:
        pytest.fail(f"{count - len(ends)} of {count} threads did not come back")
    return [ends[number] for number in range(count)]


def listed(bench: Bench, limit: int, cursor: str | None = None) -> list[str]:
    """Return all tenants from `cursor` on, page by page; no page is longer than asked for."""
    found: list[str] = []
    for _ in range(_PAGES):
        page = bench.binding.list_rings(cursor, limit)
        assert len(page.tenants) <= limit  # noqa: S101 - checks are tests
        found += page.tenants
        cursor = page.cursor
        if cursor is None:
            return found
    pytest.fail(f"a list in pages of {limit} does not end")


def _name(ability: Callable[..., object]) -> str:
    return getattr(ability, "__name__", repr(ability))
