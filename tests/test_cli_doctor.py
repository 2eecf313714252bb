"""`doctor`: what a person and a program see of a diagnosis, and the exit codes."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from sentra_kms.cli import exits
from sentra_kms.doctor import diagnose
from sentra_kms.events import current_actor
from sentra_kms.hooktypes import Finding
from tests.test_cli_support import ENVIRONMENT, on_terminal, run, run_json, write_config


@pytest.fixture(autouse=True)
def _project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    write_config(tmp_path)
    run("tenant", "create", "acme")


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    """A warning: a file that is no ring."""
    file = tmp_path / "keys" / "notes.txt"
    file.touch()
    return file


@pytest.fixture
def open_ring(tmp_path: Path) -> Path:
    """An error: a ring that others may read."""
    file = tmp_path / "keys" / "acme.ring"
    file.chmod(0o644)
    return file


def failing_json(*arguments: str) -> Any:
    """Run the doctor, which finds an error, and return its document."""
    result = run("doctor", *arguments, "--json")
    assert result.exit_code == exits.ERRORS_FOUND
    assert json.loads(result.stderr)["error"]["type"] == "ErrorsFound"
    return json.loads(result.stdout)


def test_nothing_to_mend() -> None:
    """The code is 0, and the document is what the library finds."""
    document = run_json("doctor")
    assert document["level"] == "ok"
    assert document["environment"] == "development"
    found = diagnose()
    assert [each["message"] for each in document["findings"]] == [
        each.message for each in found.findings
    ]
    assert {each["level"] for each in document["findings"]} == {"ok"}
    assert document["distributions"] == [list(each) for each in found.distributions]
    assert (document["offline"], document["tried"]) == (False, True)
    assert {"path": "keys.store", "value": "local", "origin": "[development]"} in document[
        "explained"
    ]


@pytest.mark.usefixtures("foreign")
def test_a_warning_is_no_failure() -> None:
    """Nothing is worse than a warning, so the code is 0."""
    document = run_json("doctor")
    assert document["level"] == "warning"
    [told] = [each for each in document["findings"] if each["level"] == "warning"]
    assert told["advice"]


@pytest.mark.usefixtures("foreign", "open_ring")
def test_an_error_has_a_code_of_its_own() -> None:
    """With an error the code says so, and the document is whole."""
    document = failing_json()
    assert document["level"] == "error"
    assert [each["level"] for each in document["findings"]].count("error") == 1
    result = run("doctor")
    assert result.exit_code == exits.ERRORS_FOUND
    assert result.stderr == "Error: 1 error found\n"


def test_offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """`--offline` asks for no secret."""
    for name in ("OLD_MASTER_KEY", "NEW_MASTER_KEY"):
        monkeypatch.delenv(name)
    assert failing_json()["tried"]
    document = run_json("doctor", "--offline")
    assert (document["level"], document["offline"], document["tried"]) == ("ok", True, False)


@pytest.mark.parametrize("arguments", [["--config", "absent.toml"], ["--env", "absent"]])
def test_nothing_to_diagnose(arguments: list[str]) -> None:
    """Without a configuration or an environment it fails as every command does."""
    result = run("doctor", *arguments)
    assert (result.exit_code, result.stdout) == (3, "")


def test_config_and_env(tmp_path: Path) -> None:
    """It takes the file and the environment that are named."""
    (tmp_path / "sentra-kms.toml").rename(tmp_path / "other.toml")
    document = run_json("doctor", "--config", "other.toml", "--env", "development")
    assert document["source"] == str(tmp_path / "other.toml")
    assert (document["source_from"], document["environment_from"]) == ("argument", "argument")


@pytest.mark.usefixtures("foreign")
def test_rows_for_programs(tmp_path: Path) -> None:
    """Into a pipe go rows, whose first field says what they are."""
    rows = [line.split("\t") for line in run("doctor").stdout.splitlines()]
    assert rows[:2] == [
        ["source", str(tmp_path / "sentra-kms.toml"), "working directory"],
        ["environment", "development", "SENTRA_KMS_ENV"],
    ]
    assert ["setting", "keys.store", "local", "[development]"] in rows
    [told] = [row for row in rows if row[:2] == ["finding", "warning"]]
    assert told[2:] == [
        str(tmp_path / "keys" / "notes.txt"),
        "is no key ring and is never read",
        "keep it somewhere else",
    ]
    assert rows[-1][:2] == ["distribution", "sentra-kms"]
    assert {row[0] for row in rows} == {
        "source",
        "environment",
        "setting",
        "finding",
        "distribution",
    }


@pytest.mark.usefixtures("foreign", "open_ring")
def test_a_person_sees_the_worst_last(tmp_path: Path) -> None:
    """Settings, then findings by level, each with what to do, then a conclusion."""
    code, shown = on_terminal("doctor", NO_COLOR="1", COLUMNS="200")
    assert code == exits.ERRORS_FOUND
    pieces = [
        f"{tmp_path}/sentra-kms.toml (working directory), environment development (SENTRA_KMS_ENV)",
        "Setting",
        "backends.local.directory",
        "[development], as keys",
        "\nFine\n",
        "wraps and unwraps",
        "\nWarnings\n",
        "notes.txt: is no key ring and is never read\n    → keep it somewhere else\n",
        "\nErrors\n",
        f"  {tmp_path}/keys/acme.ring has mode 644, wider than 600: chmod 600 it",
        "Read and tried: 1 error and 1 warning. sentra-kms ",
        "Error: 1 error found\n",
    ]
    places = [shown.index(piece) for piece in pieces]
    assert places == sorted(places)
    assert "acme.ring: " not in shown


def test_a_person_sees_that_nothing_is_wrong() -> None:
    """Without a fault it says so, and shows no empty section."""
    code, shown = on_terminal("doctor", NO_COLOR="1", COLUMNS="200")
    assert code == 0
    assert "Read and tried: nothing to mend. " in shown
    assert "Warnings" not in shown
    assert "Errors" not in shown
    assert "Read, and nothing fetched: nothing to mend. " in on_terminal("doctor", "--offline")[1]


def test_a_person_sees_what_cannot_be_loaded(tmp_path: Path) -> None:
    """Of a configuration that is refused no value is shown."""
    file = tmp_path / "sentra-kms.toml"
    file.write_text(file.read_text().replace('"env://OLD_MASTER_KEY"', '"hunter2"'))
    code, shown = on_terminal("doctor", NO_COLOR="1", COLUMNS="200")
    assert code == exits.ERRORS_FOUND
    assert "Setting" not in shown
    assert "hunter2" not in shown
    assert "not a reference" in shown
    assert "Read, and not tried since it cannot be loaded: 1 error. " in shown


def test_a_narrow_terminal_loses_nothing(foreign: Path) -> None:
    """Text is folded, never cut."""
    _, shown = on_terminal("doctor", COLUMNS="50", NO_COLOR="1")
    assert "…" not in shown
    assert str(foreign) in "".join(shown.split())


def test_colours_are_for_levels() -> None:
    """NO_COLOR turns them off."""
    assert "\x1b[1;32mFine" in on_terminal("doctor")[1]
    assert "\x1b" not in on_terminal("doctor", NO_COLOR="1")[1]


def test_names_cannot_steer_the_terminal(tmp_path: Path) -> None:
    """A foreign file's name is written out."""
    (tmp_path / "keys" / "\x1b[2J\x07.txt").touch()
    _, shown = on_terminal("doctor", NO_COLOR="1", COLUMNS="200")
    assert "\x1b" not in shown
    assert r"\x1b[2J\x07.txt" in shown


def test_warnings_of_backends_are_findings(tmp_path: Path) -> None:
    """What a backend warns of is told among the findings, and not on standard error as well."""
    secret = tmp_path / "ring_key"
    secret.write_bytes(b"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=")
    secret.chmod(0o644)
    file = tmp_path / "sentra-kms.toml"
    old, new = '["local:old"]\nstore', f'["file://{secret}", "local:old"]\nstore'
    file.write_text(file.read_text().replace(old, new))
    result = run("doctor", "--json")
    assert (result.exit_code, result.stderr) == (0, "")
    [told] = [each for each in json.loads(result.stdout)["findings"] if each["level"] == "warning"]
    assert "ring_key has mode 644" in told["message"]
    assert "Warning: " in run("tenant", "create", "globex").stderr


def test_how_many_rings_are_read() -> None:
    """A thousand, as many as are asked for, or all; it is said if there are more."""
    run("tenant", "create", "globex")

    def told(*options: str) -> str:
        findings = run_json("doctor", *options)["findings"]
        (found,) = [each["message"] for each in findings if each["subject"] == "key rings"]
        return str(found)

    assert (
        told() == told("--rings", "2") == told("--rings", "all") == "2 read, which is all of them"
    )
    assert told("--rings", "1") == "1 of more were read: `--rings all` reads every one"
    for wrong in ("-1", "some", "", "9" * 10, "²"):
        assert run("doctor", "--rings", wrong).exit_code == exits.USAGE


def test_it_acts_as_the_operator(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it tries is on behalf of who runs it."""
    seen: list[str] = []

    def look(_: object) -> list[Finding]:
        actor = current_actor()
        assert actor is not None
        seen.append(actor.name)
        return []

    monkeypatch.setattr("sentra_kms.runtime.KMS.examine", look)
    assert run("doctor").exit_code == 0
    [name] = seen
    assert name.startswith("cli:")


def test_nothing_is_written(tmp_path: Path) -> None:
    """It leaves no file behind."""
    before = sorted(os.walk(tmp_path))
    run("doctor")
    assert sorted(os.walk(tmp_path)) == before
