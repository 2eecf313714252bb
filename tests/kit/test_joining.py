"""How a backend joins the suite, and what a run tells: little to write, and no silent skip."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import sentra_kms
from sentra_kms.testing import BackendHarness, WholeConformance
from sentra_kms.testing.bench import ENVIRONMENT, Bench, configuration, other_name
from sentra_kms.testing.budget import CallBudget, budget_of, keep_within_budget
from sentra_kms.testing.skips import summary
from tests.plugin.distributions import install

ROOT = Path(sentra_kms.__file__).parents[1]
SMALL = Path(__file__).with_name("small.py")
_LEFT_OUT = ("test_batch_round_trip", "test_batch_of_secrets")


def _run(place: Path, module: str, *options: str) -> str:
    """Run a module of checks where its backends are installed; return what pytest said."""
    install(place, "sentra-kms-service", backends={"service": "tests.kit.service_backend"})
    install(place, "sentra-kms-small", backends={"small": "tests.kit.small"})
    return subprocess.run(
        [
            sys.executable, "-m", "pytest", "-p", "no:cacheprovider",
            "-o", "addopts=--import-mode=importlib", f"--basetemp={place / 'work'}",
            str(ROOT / "tests" / "kit" / module), *options,
        ],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(place), str(ROOT)])},
        capture_output=True,
        text=True,
        check=False,
    ).stdout  # fmt: skip


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return what a run over the small backend says."""
    return _run(tmp_path_factory.mktemp("small"), "small.py", "-q")


@pytest.fixture(scope="module")
def paid(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return what a run of the live profile says."""
    return _run(tmp_path_factory.mktemp("paid"), "paid.py", "-rPf")


def test_small_backend_passes(small: str) -> None:
    """A backend that only wraps and unwraps passes, and some 50 checks hold it to the rules."""
    last = small.splitlines()[-1]
    assert "failed" not in last
    assert "error" not in last
    assert int(last.partition(" passed")[0]) >= 50


def test_small_backend_is_small() -> None:
    """It needs no more than 40 lines and 4 hooks, and its harness no more than 40 and 4 methods.

    Lines of code, that is, as the formatter leaves them, without imports.
    """
    tree = ast.parse(SMALL.read_text(encoding="utf-8"))
    harness = [node for node in tree.body if isinstance(node, ast.ClassDef) and node.bases]
    joined = [node for node in harness if node.name in {"Harness", "TestSmall"}]
    backend = [
        node
        for node in tree.body
        if node not in joined and not isinstance(node, ast.Import | ast.ImportFrom | ast.Expr)
    ]
    for part in (backend, joined):
        assert sum((node.end_lineno or 0) - node.lineno + 1 for node in part) <= 40
    hooks = [
        node
        for part in backend
        for node in ast.walk(part)
        if isinstance(node, ast.FunctionDef)
        and any(
            isinstance(each, ast.Name) and each.id == "hookimpl" for each in node.decorator_list
        )
    ]
    methods = [
        node for part in joined for node in ast.walk(part) if isinstance(node, ast.FunctionDef)
    ]
    assert len(hooks) <= 4
    assert len(methods) <= 4


def test_summary_names_each_ability(small: str) -> None:
    """What was left out stands in pytest's summary by itself, without -rs: ability and checks."""
    _, _, told = small.partition("conformance: not proved")
    for ability, check in {
        "second_kek": "test_other_key_is_refused",
        "disable_key": "test_disabled_key_on_wrap",
        "rotate_key": "test_rotation_keeps_the_binding",
        "deny": "test_denied",
        "throttle": "test_throttled",
        "stall": "test_stalled",
        "cut": "test_service_away",
    }.items():
        assert re.search(
            rf"^TestSmall: the harness lacks the ability {ability}\(\): .*\b{check}\b",
            told,
            re.MULTILINE,
        ), ability
    assert "TestSmall: 'small' has no part that implements save_ring: test_life_with_its_" in told


def test_summary_names_what_the_system_lacks() -> None:
    """Where no process can be forked, what was not proved of forks is told, too."""
    (mark,) = getattr(WholeConformance.test_fork, "pytestmark")  # noqa: B009 - pytest's
    told = summary([("test_x.py::TestAcme::test_fork", f"Skipped: {mark.kwargs['reason']}")])
    assert told == ["TestAcme: this system does not fork: test_fork"]


def test_summary_leaves_others_alone() -> None:
    """Skips of other tests are none of the suite's business."""
    assert summary([("test_x.py::test_other", "Skipped: no network today")]) == []


def test_live_profile_keeps_within_its_budget(paid: str) -> None:
    """With fewer repetitions every check of a right backend passes within the default budget."""
    assert [
        line for line in paid.splitlines() if line.startswith("FAILED") and "Paid" in line
    ] == []
    found = re.search(r"^spent (\d+) and (\d+)$", paid, re.MULTILINE)
    assert found is not None
    assert 100 < int(found[1]) <= 1000
    for check in _LEFT_OUT:
        assert re.search(
            rf"^TestPaid: left out of the live profile: .*\b{check}\b", paid, re.MULTILINE
        )


def test_live_profile_ends_when_the_budget_is_spent(paid: str) -> None:
    """Past its budget not one call more is made, and every check that wants one fails by name."""
    failed = [line for line in paid.splitlines() if line.startswith(("FAILED", "ERROR"))]
    assert any("PoorHarness has a budget of 20 calls" in line for line in paid.splitlines())
    assert len([line for line in failed if "TestPoor" in line]) > 20
    found = re.search(r"^spent \d+ and (\d+)$", paid, re.MULTILINE)
    assert found is not None
    assert int(found[1]) <= 20


def test_budget_spends_nothing_past_its_end() -> None:
    """What does not fit is not counted, so that what fits later can still be made."""
    budget = CallBudget("Acme", 3)
    budget.spend(2)
    with pytest.raises(pytest.fail.Exception, match="budget of 3 calls"):
        budget.spend(2)
    budget.spend()
    assert budget.spent == 3


def test_budget_counts_what_load_builds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls through `sentra_kms.load` count as those through a bench do; other backends' do not."""

    class Memory(BackendHarness):
        type = "memory"
        live = True

    harness = Memory(tmp_path, monkeypatch)
    keep_within_budget(harness, monkeypatch)
    for name, counted in (("other", False), ("memory", True)):
        keys = {"wrap_with": [f"{name}:k"], "store": name}
        table = configuration(name, {"type": "memory"}, keys=keys)
        with sentra_kms.load(table, ENVIRONMENT) as kms:
            kms.keys.create("acme")
        assert (budget_of(Memory).spent > 0) is counted


def test_budget_counts_under_the_other_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Calls of the backend where it is bound under another name are paid for, too."""

    class Memory(BackendHarness):
        type = "memory"
        live = True

    keep_within_budget(Memory(tmp_path, monkeypatch), monkeypatch)
    bench = Bench(other_name("memory"), {"type": "memory"})
    bench.binding.describe_key("k")
    bench.close()
    assert budget_of(Memory).spent == 1
