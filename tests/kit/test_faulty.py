"""The suite catches wrong backends, each by the check that is named for its mistake."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

import sentra_kms
from tests.kit.faulty import ALSO_CAUGHT_BY, CAUGHT_BY
from tests.plugin.distributions import install

ROOT = Path(sentra_kms.__file__).parents[1]

PAIRS = [*CAUGHT_BY.items(), *ALSO_CAUGHT_BY]
"""Each mistake with a check that has to catch it."""

SHORT_PAGES = [
    f"TestShortPages::{check}"
    for check in (
        "test_list_of_nothing",
        "test_list_in_pages",
        "test_lost_answer_of_create",
        "test_purge_of_nothing",
        "test_check_changes_nothing",
        "test_life_with_its_rings",
    )
]
"""What lists rings, over a store whose first page is empty."""

AMONG_PROCESSES = "test_none_is_lost_among_processes"

Results = Mapping[str, Mapping[str, str]]
"""How each check ended, by class and by name without parameters: `failure` before the others."""


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """Run the suite over all of them, once, in a process where the backend is installed."""
    place = tmp_path_factory.mktemp("faulty")
    install(
        place,
        "sentra-kms-service",
        backends={"service": "tests.kit.service_backend", "shared": "tests.kit.shared_rings"},
    )
    report = place / "report.xml"
    cases = ["TestRight", "TestShared", "TestAlone", "TestDrops", *SHORT_PAGES]
    cases += [f"{store}Again::{AMONG_PROCESSES}" for store in ("TestAlone", "TestDrops")]
    cases += [f"Test {fault}::{check}" for fault, check in PAIRS]
    subprocess.run(
        [
            sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider",
            "-o", "addopts=--import-mode=importlib",
            *(f"{ROOT / 'tests/kit/faulty.py'}::{case}" for case in cases),
            f"--junit-xml={report}", f"--basetemp={place / 'work'}",
        ],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(place), str(ROOT)])},
        capture_output=True,
        check=False,
    )  # fmt: skip
    return _read(report)


def _read(report: Path) -> Results:
    found: dict[str, dict[str, str]] = {}
    for case in ET.parse(report).iter("testcase"):  # noqa: S314 - written just now
        checks = found.setdefault(case.attrib["classname"].rpartition(".")[2], {})
        name = case.attrib["name"].partition("[")[0]
        ends = [each.tag for each in case if each.tag in {"failure", "error", "skipped"}]
        if ends or name not in checks:
            checks[name] = ends[0] if ends else "passed"
    return found


def test_right_backend_passes(results: Results) -> None:
    """A right backend passes every check, and with all abilities none is skipped.

    But one, for its service lives in the process of the checks: another's proves that one right.
    """
    assert len(results["TestRight"]) >= 60
    others = {name: end for name, end in results["TestRight"].items() if end != "passed"}
    assert others == {AMONG_PROCESSES: "skipped"}
    assert results["TestShared"][AMONG_PROCESSES] == "passed"
    assert "failure" not in results["TestShared"].values()


@pytest.mark.parametrize("store", ["TestAlone", "TestDrops"])
def test_atomic_within_its_process_only(results: Results, store: str) -> None:
    """A store whose lock holds its own process only passes all checks but the one among several.

    So does one whose lock is dropped when another thread of its process closes the file.
    """
    both = (*results[store].items(), *results[f"{store}Again"].items())
    assert {name for name, end in both if end == "failure"} == {AMONG_PROCESSES}


def test_short_pages_pass(results: Results) -> None:
    """A page without a tenant and with a next is right, too."""
    assert len(results["TestShortPages"]) == len(SHORT_PAGES)
    assert set(results["TestShortPages"].values()) == {"passed"}


@pytest.mark.parametrize(("fault", "check"), PAIRS)
def test_fault_is_caught(results: Results, fault: str, check: str) -> None:
    """The check that is named for a mistake fails when a backend makes it."""
    assert results[f"Test {fault}"][check] == "failure"
