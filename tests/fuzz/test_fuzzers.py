"""Every parser takes its corpus, and whatever a fuzzer makes of it: right, or refused as ours."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.fuzz import HOME, TARGETS, load_target, seeds
from tests.keys.conftest import ROOT
from tests.needs import need
from tests.soak import scale, seed

DONE = re.compile(r"^Done (\d+) runs in \d+ second", re.MULTILINE)
SECONDS = scale(ci=3, soak=300)
RUNS = scale(ci=50_000, soak=-1)  # -1: no bound


def test_every_parser_has_a_corpus() -> None:
    """No target is without seeds, and no seeds are without a target."""
    assert sorted(path.name for path in (HOME / "corpus").iterdir()) == list(TARGETS)
    for name in TARGETS:
        assert len(list(seeds(name))) > 3


@pytest.mark.parametrize("name", TARGETS)
def test_corpus_is_taken(name: str) -> None:
    """Each seed, among them all that once found a fault, passes; also cut short, and twice."""
    run = load_target(name)
    for data in seeds(name):
        for changed in (data, data[:-1], data[1:], data + data, data.replace(b'"', b"", 1)):
            run(changed)


@pytest.mark.slow
@pytest.mark.soak
@pytest.mark.parametrize("name", TARGETS)
def test_fuzzer_finds_no_fault(name: str, tmp_path: Path) -> None:
    """A coverage-guided fuzzer finds no input that is slow, large, misread or badly refused."""
    if find_spec("atheris") is None:
        version = f"{sys.version_info[0]}.{sys.version_info[1]}"
        message = f"atheris, which Python {version} lacks (dependency group `fuzz`)"
        need(version != "3.11", message)
        pytest.skip(f"missing on this machine: {message}")
    outside = {key: value for key, value in os.environ.items() if not key.startswith("COVERAGE_")}
    ended = subprocess.run(
        [
            sys.executable,
            "-m",
            "tests.fuzz",
            name,
            f"-seed={seed() % 2**31 or 1}",
            f"-runs={RUNS}",
            f"-max_total_time={SECONDS}",
            "-max_len=4096",
            "-timeout=10",
            "-rss_limit_mb=1024",
            f"-artifact_prefix={tmp_path}/",
        ],
        cwd=ROOT,
        env={**outside, "PYTHONPATH": ROOT},
        capture_output=True,
        timeout=SECONDS * 2 + 120,
        check=False,
    )
    told = (ended.stdout + ended.stderr).decode("utf-8", "replace")
    found = "".join(f"\ninput: {path.read_bytes()!r}" for path in tmp_path.iterdir())
    assert ended.returncode == 0, told[-6000:] + found
    done = DONE.search(told)
    assert done is not None, told[-6000:]
    print(f"{name}: {done[1]} inputs")  # noqa: T201 - the figure
    assert int(done[1]) > len(list(seeds(name)))
