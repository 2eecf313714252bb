"""SIGKILL, and errors of the operating system, at every system call that an operation makes.

strace does both, from outside: the code under test is as it is shipped. `make test` leaves out
calls that only look; `make soak` has them, too.
"""

from __future__ import annotations

import re
import signal
from collections import Counter
from pathlib import Path

import pytest

from tests.crash.crashing import KEKS, Ledger, Nursery, Outcome, Step
from tests.crash.strace import Call, calls_of, need_strace, traced
from tests.soak import FULL_LENGTH

pytestmark = [pytest.mark.slow, pytest.mark.soak]

STEPS = {
    # name: the step, and whether there is a key directory with rings by then
    "create-first": (Step("create", "new"), False),
    "create": (Step("create", "new"), True),
    "rotate": (Step("rotate", "acme"), True),
    "rewrap": (Step("rewrap", "acme", 1), True),
}
LOOKING = re.compile(r"f?l?stat.*|newfstatat|statx|read|pread.*")
FAMILIES = ("open", "write", "fsync", "rename")
ERRORS = {
    # errno: what it is to us, and the calls that give it
    "EIO": ("ServiceUnavailable", r""),
    "ENOSPC": ("ServiceUnavailable", r"O_CREAT|^(write|fsync|rename|mkdir)"),
    "EROFS": ("AccessDenied", r"O_CREAT|^(write|fsync|rename|mkdir|f?chmod)"),
}


class Operation:
    """An operation to be cut short: each `begin` is a copy of the same rings before it."""

    def __init__(self, nursery: Nursery, home: Path, name: str) -> None:
        self.step, existing = STEPS[name]
        self._nursery = nursery
        self._home = home
        self._copies = 0
        self._origin = Ledger(home / "origin", "above/keys")
        for kek in KEKS:
            self._origin.site.secret(kek.partition(":")[2])
        if existing:
            kms = self._origin.open()
            for operation, tenant in (("create", "acme"), ("rotate", "acme"), ("create", "Other")):
                self._origin.write(kms, Step(operation, tenant))
        every = calls_of(nursery, self.begin(), [self.step], home / "log")
        (self._rename,) = (call for call in every if call.name.startswith("rename"))
        self.calls = [call for call in every if FULL_LENGTH or not LOOKING.fullmatch(call.name)]
        self.counted = Counter(call.name for call in every)

    def begin(self) -> Ledger:
        """Return a copy of the rings as they were."""
        self._copies += 1
        return self._origin.copy(self._home / str(self._copies))

    def run(self, ledger: Ledger, *injections: str, times: int = 1) -> Outcome:
        """Do the operation in a child while strace injects something, and again if `times` is 2."""
        options = [option for injection in injections for option in ("-e", f"inject={injection}")]
        return traced(self._nursery, ledger, [self.step] * times, *options)

    def is_in_place(self, call: Call) -> bool:
        """Whether the new ring is in place when this call begins."""
        return call.place > self._rename.place


@pytest.fixture(params=STEPS)
def operation(request: pytest.FixtureRequest, nursery: Nursery, tmp_path: Path) -> Operation:
    """Each of the operations in turn."""
    need_strace()
    return Operation(nursery, tmp_path, request.param)


def test_killed_at_every_system_call(operation: Operation) -> None:
    """A whole ring, the new one from the rename on and not before; the next writer just works."""
    for call in operation.calls:
        ledger = operation.begin()
        outcome = operation.run(ledger, f"{call.name}:signal=KILL:when={call.number}")
        assert (outcome.status, outcome.told) == (-signal.SIGKILL, []), call
        kms = ledger.open()
        assert ledger.check(kms, operation.step) == operation.is_in_place(call), call
        ledger.write_again(kms, operation.step)
        ledger.check(kms)
    print(f"{len(operation.calls)} kills: {', '.join(map(str, operation.calls))}")  # noqa: T201


def test_no_call_is_left_at_which_it_could_be_killed(operation: Operation) -> None:
    """One call further in each family, and in a family that it does not use, it completes."""
    names = [name for name in operation.counted if name.startswith(FAMILIES)]
    assert len(names) >= len(FAMILIES)
    for name in (*names, "unlinkat"):
        ledger = operation.begin()
        outcome = operation.run(ledger, f"{name}:signal=KILL:when={operation.counted[name] + 1}")
        assert outcome.status == 0, name
        assert ledger.take([operation.step], outcome) is None
        ledger.check(ledger.open())
        assert ledger.left() == []


@pytest.mark.parametrize("failing", ["write", "fsync", "rename"])
def test_killed_while_it_cleans_up(operation: Operation, failing: str) -> None:
    """A save that failed and is killed before its temporary file is gone: the old ring, in use."""
    first_of = [call for call in operation.calls if call.name.startswith(failing)]
    # Of the flushes, the one before the rename: it is the temporary file's.
    call = [call for call in first_of if not operation.is_in_place(call)][-1]
    ledger = operation.begin()
    outcome = operation.run(
        ledger, f"{call.name}:error=ENOSPC:when={call.number}", "unlinkat:signal=KILL:when=1"
    )
    assert (outcome.status, outcome.told) == (-signal.SIGKILL, [])
    (left,) = ledger.left()
    assert left.endswith(".tmp")
    assert (ledger.site.directory / left).stat().st_mode & 0o777 == 0o600
    kms = ledger.open()
    assert not ledger.check(kms, operation.step)
    ledger.write_again(kms, operation.step)
    ledger.check(ledger.open())
    assert ledger.left() == [left]


@pytest.mark.parametrize("code", ERRORS)
def test_error_of_every_system_call(operation: Operation, code: str) -> None:
    """One of our errors, the old ring whole, no litter; the same process goes on afterwards."""
    kind, where = ERRORS[code]
    step = operation.step
    # The last of all is the child's own word about its success.
    hit = [call for call in operation.calls[:-1] if re.search(where, call.kind)]
    for call in hit:
        ledger = operation.begin()
        before = ledger.known[step.tenant].sequence if step.tenant in ledger.known else 0
        outcome = operation.run(ledger, f"{call.name}:error={code}:when={call.number}", times=2)
        assert outcome.status == 0, call
        first, second = outcome.told
        if "error" not in first:
            # What Python asks of a path, or of a file that it reads as text, may fail unnoticed;
            # and a ring is verified by any key, also when the first cannot be read.
            is_first_key = step.operation == "rewrap" and "m2.secret" in call.line
            assert is_first_key or LOOKING.fullmatch(call.name), call
            assert ledger.take([step], outcome) is None
            continue
        assert (first["error"], first["code"]) == (kind, code), call
        assert first["retryable"] == (kind == "ServiceUnavailable"), call
        assert str(ledger.site.home) in first["text"], call
        in_place = operation.is_in_place(call)
        if "error" in second:
            assert (second["error"], step.operation, in_place) == ("AlreadyExists", "create", True)
            assert ledger.check(ledger.open(), step), call
        else:
            ledger.take([step, step], outcome)
            saves = 1 + (in_place and step.operation == "rotate")
            assert second["sequence"] == before + saves, call
            ledger.check(ledger.open())
        assert ledger.left() == [], call
    print(f"{len(hit)} times {code}: {', '.join(map(str, hit))}")  # noqa: T201


def test_temporary_file_that_cannot_be_removed_is_in_nobodys_way(operation: Operation) -> None:
    """Renaming fails, and removing too: the first failure is told, and the next save goes by."""
    ledger = operation.begin()
    (rename,) = (name for name in operation.counted if name.startswith("rename"))
    outcome = operation.run(ledger, f"{rename}:error=EIO:when=1", "unlinkat:error=EROFS", times=2)
    first, second = outcome.told
    assert (first["error"], first["code"]) == ("ServiceUnavailable", "EIO")
    assert "error" not in second
    ledger.take([operation.step, operation.step], outcome)
    ledger.check(ledger.open())
    (left,) = ledger.left()
    assert left.endswith(".tmp")
