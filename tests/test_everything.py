"""`make test` leaves no test out, hides no failure, and keeps apart what its runs say."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.everything import HUNT, PYTEST, Run, runs_of
from tests.keys.conftest import ROOT

PROGRAM = """
import sys
from tests.everything import Run, main
runs = [Run(name, words) for name, words in {runs!r}]
sys.exit(main(runs, sys.argv[1:]))
"""
GOOD = """
import pytest, thing
def test_one(): assert thing.one()
def test_two(): pytest.skip("not here")
"""
BAD = """
def test_three(): assert False, "broken"
def test_four(): pass
"""


def done(place: Path, *runs: Run, options: tuple[str, ...] = ()) -> tuple[int, list[str]]:
    """Return the exit code of some runs, and the lines that were shown."""
    program = PROGRAM.format(runs=[tuple(run) for run in runs])
    ended = subprocess.run(
        [sys.executable, "-c", program, *options],
        cwd=place,
        env={k: v for k, v in os.environ.items() if not k.startswith("COV")} | {"PYTHONPATH": ROOT},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return ended.returncode, ended.stdout.splitlines()


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Return a project whose tests use all of its module together, and none of them by itself."""
    (tmp_path / "thing.py").write_text("def one():\n    return 1\n\n\ndef two():\n    return 2\n")
    (tmp_path / "pyproject.toml").write_text(
        '[tool.coverage.run]\nbranch = true\nparallel = true\nsource = ["."]\n'
        'omit = ["test_*"]\n[tool.pytest.ini_options]\npythonpath = ["."]\n'
    )
    (tmp_path / "test_good.py").write_text(GOOD)
    (tmp_path / "test_half.py").write_text("import thing\ndef test_five(): assert thing.one()\n")
    (tmp_path / "test_rest.py").write_text("import thing\ndef test_six(): assert thing.two()\n")
    (tmp_path / "test_bad.py").write_text(BAD)
    return tmp_path


def pytest_of(name: str) -> Run:
    """Return a run of one file."""
    return Run(name, (*PYTEST, f"test_{name}.py"))


def counts(line: str) -> str:
    """Return what a last line counts; it has the form of pytest's."""
    found = re.fullmatch(r"=+ (.*) in [0-9.]+s \([0-9]:[0-9]{2}:[0-9]{2}\) =+", line)
    assert found is not None, line
    return found[1]


def test_runs_are_added_up(place: Path) -> None:
    """Tests are counted and coverage is joined over all of them."""
    status, lines = done(place, pytest_of("half"), pytest_of("rest"), options=("--fail-under=100",))
    assert status == 0, lines
    assert counts(lines[-1]) == "2 passed"
    assert any(re.fullmatch(r"TOTAL .* 100%", line) for line in lines)


def test_too_little_coverage_fails(place: Path) -> None:
    """Though every test passes."""
    status, lines = done(place, pytest_of("half"), options=("--fail-under=95",))
    assert status == 1
    assert counts(lines[-1]) == "1 passed, 1 errors"
    assert lines[-2] == "Failed: coverage"


@pytest.mark.parametrize("first", [True, False])
def test_failure_in_one_fails_all(place: Path, first: bool) -> None:  # noqa: FBT001
    """Wherever it is, it is counted, its run is named, and the others are done to their end."""
    runs = [pytest_of("bad"), pytest_of("good")]
    status, lines = done(place, *(runs if first else runs[::-1]))
    assert status == 1
    assert counts(lines[-1]) == "1 failed, 2 passed, 1 skipped"
    assert lines[-2] == "Failed: bad"
    heads = [line for line in lines if line in {"===== bad", "===== good"}]
    assert heads == (["===== bad", "===== good"] if first else ["===== good", "===== bad"])
    where = {name: lines.index(f"===== {name}") for name in ("bad", "good")}
    broken = lines.index("E   AssertionError: broken")
    assert where["bad"] < broken
    assert (broken < where["good"]) == first


@pytest.mark.parametrize("words", [("false",), (*PYTEST, "nowhere.py"), ("sh", "-c", "kill -9 $$")])
def test_run_that_cannot_say_how_it_went_fails(place: Path, words: tuple[str, ...]) -> None:
    """A tool that fails, an empty collection, a run that was killed: an error is counted."""
    status, lines = done(place, pytest_of("half"), Run("odd", words))
    assert status == 1
    assert counts(lines[-1]) == "1 passed, 1 errors"
    assert lines[-2] == "Failed: odd"


def test_every_path_of_tests_is_in_a_run() -> None:
    """What `pytest` by itself would run is in one of them; each has the hunt for secrets."""
    ours = [run.words[len(PYTEST) :] for run in runs_of("") if run.words[: len(PYTEST)] == PYTEST]
    given = {word for words in ours for word in words if not word.startswith("--")}
    left_out = {
        word.removeprefix("--ignore=")
        for words in ours
        for word in words
        if word.startswith("--ignore=")
    }
    with Path(ROOT, "pyproject.toml").open("rb") as file:
        wanted = tomllib.load(file)["tool"]["pytest"]["ini_options"]["testpaths"]
    assert set(wanted) | left_out | {HUNT} == given
    assert all(HUNT in words or "tests" in words for words in ours)
    assert sum("tests" in words for words in ours) == 1


def test_each_newer_python_is_a_run() -> None:
    """Beside those of this one, by the target that finds it, and says if it is not there."""
    newer = runs_of("3.12 3.13")
    assert [run for run in newer if run not in runs_of("")] == [
        Run("Python 3.12", ("make", "test-newer", "NEWER=3.12")),
        Run("Python 3.13", ("make", "test-newer", "NEWER=3.13")),
    ]
    assert len(newer) == len(runs_of("")) + 2
