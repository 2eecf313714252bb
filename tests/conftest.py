"""What several directories of tests share."""

from __future__ import annotations

import base64
import logging
import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import hypothesis
import pytest

from tests import soak
from tests.planted import HUNT

# How long an example takes depends on the machine, and is no property of the code. Short runs try
# the same examples every time; long ones try others each time and print how to do one again.
hypothesis.settings.register_profile("tests", deadline=None, derandomize=True, database=None)
hypothesis.settings.register_profile(
    "soak",
    deadline=None,
    max_examples=3_000,
    print_blob=True,
    database=None,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.register_profile(
    "brief", hypothesis.settings.get_profile("tests"), max_examples=25
)
hypothesis.settings.load_profile("soak" if soak.FULL_LENGTH else "brief" if soak.BRIEF else "tests")

MASTER_KEYS = {
    "2026-11": base64.b64encode(bytes(range(32))).decode("ascii"),
    "2025-01": base64.b64encode(bytes(range(100, 132))).decode("ascii"),
}
"""Master keys that tests may use, by name, in the form that `keygen` prints."""


def pytest_sessionstart() -> None:
    """Hunt in every log record of the run, from the first one on; begin as a terminal would."""
    _heed_signals()
    logging.getLogger().addHandler(HUNT)
    logging.getLogger("sentra_kms").setLevel(logging.DEBUG)


def _heed_signals() -> None:
    """Heed the signals that `nohup` or a shell's `&` told this process to ignore.

    Children inherit that, and tests send them these signals.
    """
    for each in (signal.SIGHUP, signal.SIGQUIT, signal.SIGTERM):
        if signal.getsignal(each) is signal.SIG_IGN:
            signal.signal(each, signal.SIG_DFL)
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Hunt in what each test said. A failed one's own source may show what it planted."""
    for title, text in report.sections:
        HUNT.look(f"{report.nodeid}, {title}", text)
    if not report.failed and report.longrepr:
        HUNT.look(f"{report.nodeid}, its report", str(report.longrepr))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let the tests that tell what was found run last, and measure no coverage in long ones.

    A test marked `soak` does again and again what others do once: it reaches nothing that they do
    not, and measuring would make it twice as long.
    """
    items.sort(key=lambda item: item.path.name == "test_planted.py")
    for item in items:
        if item.get_closest_marker("soak"):
            item.add_marker(pytest.mark.no_cover)


class ConfigFactory(Protocol):
    """Makes a configuration of one environment on a local backend in the test's directory."""

    def __call__(
        self,
        *,
        masters: Mapping[str, str] = ...,
        environment: str = ...,
        development: bool = ...,
        keys: Mapping[str, object] | None = ...,
        **tables: object,
    ) -> dict[str, Any]:
        """Return the mapping; `keys` and `tables` replace or add to what stands there."""


class ManualClock:
    """A clock that stands still until it is told to go on."""

    def __init__(self, time: float = 1_800_000_000.0) -> None:
        self.time = time

    def __call__(self) -> float:
        """Return the time in seconds."""
        return self.time

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.time += seconds


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Keep the caller's configuration away, and what measures coverage from long ones' children."""
    foreign = ["SENTRA_KMS_", "ENCRYPTION_"]
    if request.node.get_closest_marker("no_cover"):
        foreign.append("COVERAGE_")
    for name in list(os.environ):
        if name.startswith(tuple(foreign)):
            monkeypatch.delenv(name)


@pytest.fixture
def clock() -> ManualClock:
    """Return a clock that only the test moves."""
    return ManualClock()


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ConfigFactory:
    """Return a factory of configurations: rings in `tmp_path / "keys"`, master keys in env.

    Each master key is in a variable that is named after it: `2026-11` in `MASTER_KEY_2026_11`.
    The first of them wraps and the others may unwrap, unless `keys` says otherwise.
    """

    def make(
        *,
        masters: Mapping[str, str] = MASTER_KEYS,
        environment: str = "development",
        development: bool = True,
        keys: Mapping[str, object] | None = None,
        **tables: object,
    ) -> dict[str, Any]:
        references: dict[str, str] = {}
        for name, value in masters.items():
            variable = "MASTER_KEY_" + name.replace("-", "_")
            monkeypatch.setenv(variable, value)
            references[name] = f"env://{variable}"
        first, *others = [f"local:{name}" for name in masters]
        table: dict[str, object] = {
            "development": development,
            "backends": {
                "local": {
                    "type": "local",
                    "directory": str(tmp_path / "keys"),
                    "master_keys": references,
                }
            },
            "keys": {
                "wrap_with": [first],
                "unwrap_with": others,
                "store": "local",
                **(keys or {}),
            },
        }
        return {environment: table | tables}

    return make
