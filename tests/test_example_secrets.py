"""The example runs from three sources, by SENTRA_KMS_ENV alone, and shows no secret."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import sentra_kms
from sentra_kms.config import read_settings
from tests.test_demo import ROOT

EXAMPLE = ROOT / "examples" / "secrets"


def test_example_runs_under_every_environment() -> None:
    """Each run ends well, finds its database, and masks what slips into its log."""
    done = subprocess.run(
        [sys.executable, EXAMPLE / "demo.py"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line.partition(":")[0] for line in lines] == ["development", "docker", "service"]
    assert [line.partition("database at ")[2].partition(",")[0] for line in lines] == [
        "localhost", "localhost", "db.internal",
    ]  # fmt: skip
    # One session secret from all three: the signatures are the same.
    assert len({line.partition("signed ")[2][:8] for line in lines}) == 1
    assert done.stderr.count("connecting to ***") == 3
    assert "p%40ss" not in done.stdout + done.stderr


def test_docker_environment_is_fit_for_production() -> None:
    """The environment of containers is no development environment."""
    assert not read_settings(EXAMPLE / "sentra-kms.toml", "docker").development


def test_application_names_no_source() -> None:
    """The application's code says nothing of where secrets come from."""
    text = (EXAMPLE / "app.py").read_text(encoding="utf-8")
    assert "://" not in text
    assert "environ" not in text.replace("kms.environment", "")
    assert Path(sentra_kms.__file__).exists()
