"""How long a run is, what seed does it again, and what it says of a machine that lacks a tool."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.keys.conftest import ROOT
from tests.needs import need

TELL = "from tests import soak; print(soak.scale(8, 30), soak.seed(), soak.header(), sep='|')"


def told(**environment: str) -> list[str]:
    """Return what a run of its own would go by, the line that `seed` prints first."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith("SENTRA_SOAK")}
    command = [sys.executable, "-c", TELL]
    done = subprocess.run(
        command, check=True, capture_output=True, text=True, cwd=ROOT, env=clean | environment
    )
    printed, line = done.stdout.splitlines()
    return [printed, *line.split("|")]


@pytest.mark.parametrize(("soak", "length", "word"), [
    ("", "8", "shortened"), ("0", "8", "shortened"), ("1", "30", "at full length"),
    ("brief", "2", "brief"),
])  # fmt: skip
def test_soak_runs_at_full_length_and_others_do_not(soak: str, length: str, word: str) -> None:
    """SENTRA_SOAK=1 is what `make soak` sets; the head of the run says so."""
    printed, scaled, seed, header = told(SENTRA_SOAK=soak, SENTRA_SOAK_SEED="7")
    assert (printed, scaled, seed) == ("SENTRA_SOAK_SEED=7", length, "7")
    assert header == f"soak tests: {word}, SENTRA_SOAK_SEED=7"


def test_each_run_has_a_seed_of_its_own() -> None:
    """Unless it is set."""
    assert told()[2] != told()[2]


def test_what_is_missing_is_named_and_fails_in_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    """A skip that names it; with CI=true, where nothing may be missing, a failure."""
    need("/usr/bin/strace", "strace")
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="missing on this machine: strace"):
        need(None, "strace")
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="missing on this machine: strace"):
        need(None, "strace")
