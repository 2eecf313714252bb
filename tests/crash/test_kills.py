"""Killed at any moment: every ring is whole, and nothing that was acknowledged is lost."""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.crash.crashing import Ledger, Nursery, Step
from tests.crash.nursery import INTERRUPTED
from tests.soak import scale, seed

PER_SITE = 20  # ends after which a new directory is begun
STEPS = 200  # more than a child gets done before it is ended
ENDS = {
    # the signal: the exit code that follows, and how often in `make test` and in `make soak`
    signal.SIGKILL: (-signal.SIGKILL, 200, 5000),
    signal.SIGTERM: (-signal.SIGTERM, 20, 500),
    signal.SIGINT: (INTERRUPTED, 20, 500),
}


def some_steps(ledger: Ledger, chance: random.Random, begun: int) -> list[Step]:
    """Return a mix of all operations on old and new tenants, by one configuration or the other."""
    tenants = list(ledger.known)
    which = chance.randrange(2)
    steps: list[Step] = []
    for number in range(STEPS):
        operation = chance.choice(("create", "rotate", "rewrap"))
        if operation == "create" or not tenants:
            tenants.append(f"Tenant-{begun}-{number}")
            steps.append(Step("create", tenants[-1], which))
        else:
            steps.append(Step(operation, chance.choice(tenants), which))
    return steps


@pytest.mark.soak
@pytest.mark.slow
@pytest.mark.parametrize("how", ENDS, ids=lambda how: how.name)
def test_ended_at_random_nothing_is_lost(
    nursery: Nursery, tmp_path: Path, how: signal.Signals
) -> None:
    """Create, rotate and rewrap: whole rings, every message opens, the next writer just works."""
    status, ci, soak = ENDS[how]
    chance = random.Random(seed())
    ends: Counter[str] = Counter()
    took_effect = 0
    ledger = Ledger(tmp_path / "0")
    while ends.total() < scale(ci, soak):
        if ends.total() % PER_SITE == 0:
            ledger.check(ledger.open())
            ledger = Ledger(tmp_path / str(ends.total()))
        steps = some_steps(ledger, chance, ends.total())
        pid = nursery.start(ledger.configs, steps)
        nursery.go()
        told = [nursery.next() for _ in range(chance.randrange(4))]
        time.sleep(chance.uniform(0, 0.01))  # any moment of the next steps will do
        os.kill(pid, how)
        outcome = nursery.outcome()
        outcome.told[:0] = told
        assert outcome.status == status
        assert not [told for told in outcome.told if "error" in told]
        pending = ledger.take(steps, outcome)
        assert pending is not None
        left = ledger.left()
        kms = ledger.open()
        took_effect += ledger.check(kms, pending)
        ledger.write_again(kms, pending)
        assert ledger.left() == left, "the next writer leaves what it finds, and no more"
        ends[pending.operation] += 1
    ledger.check(ledger.open())
    print(  # noqa: T201 - the figures of a run
        f"{ends.total()} times {how.name}, by operation {dict(ends)}; "
        f"{took_effect} operations had taken effect and were not acknowledged"
    )
