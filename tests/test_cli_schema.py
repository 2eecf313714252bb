"""`config schema`: the schema printed, or written beside the configuration."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest

from sentra_kms.schema import config_schema
from tests.test_cli_support import run, run_json

EXPECTED = json.loads(json.dumps(config_schema()))


@pytest.fixture(autouse=True)
def _empty_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_it_is_printed() -> None:
    """Without a configuration, for a person to read; with `--json` on one line."""
    result = run("config", "schema")
    assert (result.exit_code, result.stderr) == (0, "")
    assert json.loads(result.stdout) == EXPECTED
    assert '\n  "title": ' in result.stdout
    assert run_json("config", "schema") == EXPECTED


def test_it_is_written(tmp_path: Path) -> None:
    """`--output` writes the file, of mode 644, and says so."""
    result = run("config", "schema", "--output", "sentra-kms.schema.json")
    assert (result.exit_code, result.stdout) == (0, "Wrote sentra-kms.schema.json.\n")
    file = tmp_path / "sentra-kms.schema.json"
    assert json.loads(file.read_text(encoding="utf-8")) == EXPECTED
    assert stat.S_IMODE(file.stat().st_mode) == 0o644
    assert run_json("config", "schema", "--output", "other.json") == {"path": "other.json"}


def test_an_earlier_one_is_replaced(tmp_path: Path) -> None:
    """It is made anew after a backend was installed, with nothing left behind."""
    (tmp_path / "schema.json").write_text("earlier", encoding="utf-8")
    assert run("config", "schema", "--output", "schema.json").exit_code == 0
    assert json.loads((tmp_path / "schema.json").read_text(encoding="utf-8")) == EXPECTED
    assert os.listdir(tmp_path) == ["schema.json"]


def test_no_such_directory() -> None:
    """A file that cannot be written is an error of the file."""
    result = run("config", "schema", "--output", "nowhere/schema.json")
    assert result.exit_code == 16
    assert result.stderr == "Error: nowhere/schema.json: No such file or directory\n"
