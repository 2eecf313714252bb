"""What installed plugins bring to the command line: rows of `backends`, and commands."""

from __future__ import annotations

import importlib.metadata
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sentra_kms.cli import exits
from sentra_kms.errors import ConfigurationError
from tests.plugin.distributions import install
from tests.test_cli_support import (
    ENVIRONMENT,
    child_environment,
    error_of,
    on_terminal,
    process,
    run,
    run_json,
    write_config,
)

SECRET = "hunter2-correct-horse"
OF_PROJECT = frozenset({"vault"})
"""Types of this project's own plugins, which are installed here or not."""
REGISTER = """
from sentra_kms.hookspecs import hookimpl
from sentra_kms.hooktypes import BackendSettings, BackendType


class Settings(BackendSettings, frozen=True):
    pass


@hookimpl
def backend_type():
    return BackendType(
        api=(1, 0),
        settings=Settings,
        create="acme_backend:create",
        install="pip install acme-sdk",
        summary="KEKs of Acme",
    )
"""
COMMANDS = """

@hookimpl
def register_commands(cli):
    import click

    @click.group("acme")
    def acme():
        "Work with Acme."

    @acme.command("url")
    @click.argument("name")
    def url(name):
        "Print where it is."
        click.echo("https://" + name)

    cli.add_command(acme)
"""
WORKING = "def create(settings, host):\n    return []\n"
WITHOUT_SDK = "import acme_sdk\n"


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return a directory where distributions can be installed for this test."""
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.syspath_prepend(str(site))
    before = set(sys.modules)
    yield site
    for name in set(sys.modules) - before:
        if name.startswith("acme"):
            del sys.modules[name]


@pytest.fixture(autouse=True)
def _project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = tmp_path / "project"
    project.mkdir()
    monkeypatch.chdir(project)
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    write_config(project)


def bring(site: Path, register: str = REGISTER, backend: str = WORKING) -> None:
    """Install a distribution that brings the type `acme`."""
    install(
        site,
        "sentra-kms-acme",
        version="2.5",
        backends={"acme": "acme_register"},
        modules={"acme_register": register, "acme_backend": backend},
    )


def row_of(document: Any, kind: str) -> Any:
    """Return the one row of a type."""
    [row] = [each for each in document["types"] if each["type"] == kind]
    return row


def broken() -> Any:
    """Run `backends`, which finds something unusable, and return its document."""
    result = run("backends", "--json")
    assert result.exit_code == exits.ERRORS_FOUND
    assert '"type":"ErrorsFound"' in result.stderr
    return json.loads(result.stdout)


# --- backends ----------------------------------------------------------------------------------


def test_built_in_types() -> None:
    """The built-in ones are listed, with what is for development only and what uses them."""
    document = run_json("backends")
    assert document["environment"] == "development"
    rows = {row["type"]: row for row in document["types"] if row["type"] not in OF_PROJECT}
    assert list(rows) == ["docker", "env", "file", "local", "memory", "systemd"]
    assert all(row["built_in"] and row["usable"] and row["summary"] for row in rows.values())
    assert {row["distribution"] for row in rows.values()} == {"sentra-kms"}
    assert [name for name, row in rows.items() if row["development_only"]] == ["env", "memory"]
    assert {name: row["used_by"] for name, row in rows.items()} == {
        "docker": [],
        "env": ["env"],
        "file": [],
        "local": ["local"],
        "memory": [],
        "systemd": [],
    }


def test_a_plugins_type(site: Path) -> None:
    """A distribution's type has its summary, distribution and version."""
    bring(site)
    row = row_of(run_json("backends"), "acme")
    assert row == {
        "type": "acme",
        "distribution": "sentra-kms-acme",
        "version": "2.5",
        "built_in": False,
        "summary": "KEKs of Acme",
        "development_only": False,
        "usable": True,
        "error": None,
        "install": "pip install acme-sdk",
        "used_by": [],
    }


def test_rows_for_programs(site: Path) -> None:
    """Into a pipe goes a row for each type."""
    bring(site)
    result = run("backends")
    assert (result.exit_code, result.stderr) == (0, "")
    rows = [line.split("\t") for line in result.stdout.splitlines()]
    assert rows[0] == ["acme", "sentra-kms-acme", "2.5", "usable", "", "", "KEKs of Acme"]
    assert [row[:2] + row[3:6] for row in rows[1:] if row[0] not in OF_PROJECT] == [
        ["docker", "sentra-kms", "usable", "", ""],
        ["env", "sentra-kms", "usable", "development", "env"],
        ["file", "sentra-kms", "usable", "", ""],
        ["local", "sentra-kms", "usable", "", "local"],
        ["memory", "sentra-kms", "usable", "development", ""],
        ["systemd", "sentra-kms", "usable", "", ""],
    ]


def test_a_missing_sdk_says_what_to_install(site: Path) -> None:
    """A type whose library is missing is a row with what to install, and the code says so."""
    bring(site, backend=WITHOUT_SDK)
    row = row_of(broken(), "acme")
    assert not row["usable"]
    assert "module acme_sdk is missing; install it with: pip install acme-sdk" in row["error"]
    result = run("backends")
    assert result.stderr == "Error: 1 backend type cannot be used\n"
    assert "\tunusable\t" in result.stdout


@pytest.mark.parametrize(
    ("register", "backend", "told"),
    [
        ("import acme_sdk\n", WORKING, "failed to import"),
        (f"raise RuntimeError('{SECRET}')\n", WORKING, "RuntimeError"),
        (REGISTER.replace("(1, 0)", "(9, 0)"), WORKING, "hook API 9.0"),
        ("x = 1\n", WORKING, "0 hooks backend_type"),
        (REGISTER, f"raise RuntimeError('{SECRET}')\n", "RuntimeError"),
        (REGISTER, "x = 1\n", "acme_backend:create"),
    ],
)
def test_a_broken_plugin_is_a_row(site: Path, register: str, backend: str, told: str) -> None:
    """What is wrong stands in its row, with its distribution; the others are as usable as ever."""
    bring(site, register, backend)
    document = broken()
    row = row_of(document, "acme")
    assert told in row["error"]
    assert (row["distribution"], row["version"]) == ("sentra-kms-acme", "2.5")
    assert row_of(document, "local")["usable"]
    assert SECRET not in str(document)


def test_two_distributions_of_one_type(site: Path) -> None:
    """Both are named."""
    bring(site)
    install(site, "acme-fork", backends={"acme": "acme_register"})
    row = row_of(broken(), "acme")
    assert "uninstall all but one" in row["error"]
    assert {"sentra-kms-acme", "acme-fork"} == set(row["distribution"].split(" and "))


def test_a_claim_to_a_built_in_name(site: Path) -> None:
    """A distribution that claims `local` is a row of its own; the built-in type goes on."""
    install(site, "usurper", backends={"local": "acme_register"})
    built_in, claim = [row for row in broken()["types"] if row["type"] == "local"]
    assert (built_in["built_in"], built_in["usable"]) == (True, True)
    assert (claim["distribution"], claim["usable"]) == ("usurper", False)
    assert "uninstall it" in claim["error"]


def test_backends_without_a_configuration(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No configuration is no error, and nothing is in use."""
    monkeypatch.chdir(tmp_path)
    document = run_json("backends")
    assert document["environment"] is None
    assert {name for row in document["types"] for name in row["used_by"]} == set()


def test_backends_without_an_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor is a configuration of which no environment is named."""
    monkeypatch.delenv("SENTRA_KMS_ENV")
    assert run_json("backends")["environment"] is None


@pytest.mark.parametrize("arguments", [["--config", "absent.toml"], ["--env", "absent"]])
def test_backends_of_what_is_not_there(arguments: list[str]) -> None:
    """A configuration or environment that was named has to be there."""
    assert run("backends", *arguments).exit_code == 3


def test_backends_of_a_configuration_that_is_refused() -> None:
    """What is declared is told also if the configuration cannot be loaded."""
    file = Path("sentra-kms.toml")
    file.write_text(file.read_text().replace("[development.keys]", "[development.keyz]"))
    document = run_json("backends")
    assert document["environment"] == "development"
    assert row_of(document, "local")["used_by"] == ["local"]


def test_backends_for_a_person(site: Path) -> None:
    """At a terminal it is a table that says what cannot be used and why."""
    bring(site, backend=WITHOUT_SDK)
    code, shown = on_terminal(
        "backends",
        NO_COLOR="1",
        COLUMNS="200",
        PYTHONPATH=child_environment(PYTHONPATH=str(site))["PYTHONPATH"],
    )
    assert code == exits.ERRORS_FOUND
    assert "Used in development" in shown
    assert "sentra-kms-acme 2.5" in shown
    assert "cannot be used: backend type 'acme'" in shown
    assert "Error: 1 backend type cannot be used" in shown


# --- commands ----------------------------------------------------------------------------------


def test_a_plugins_command(site: Path) -> None:
    """A command that the core does not have is the plugin's of that type."""
    bring(site, REGISTER + COMMANDS)
    result = run("acme", "url", "here")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "https://here\n", "")
    assert "Work with Acme." in run("acme", "--help").stdout


def test_a_plugins_command_in_a_process(site: Path) -> None:
    """So it is for a process that finds the distribution on its path."""
    bring(site, REGISTER + COMMANDS)
    path = child_environment()["PYTHONPATH"]
    done = process("acme", "url", "here", PYTHONPATH=f"{site}:{path}")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"https://here\n", b"")


def test_its_backend_is_not_imported(site: Path) -> None:
    """A command needs the registering module only, so it works without the SDK."""
    bring(site, REGISTER + COMMANDS, WITHOUT_SDK)
    assert run("acme", "url", "here").exit_code == 0
    assert "acme_backend" not in sys.modules


def test_wrong_usage_of_a_plugins_command(site: Path) -> None:
    """It is told as of any command."""
    bring(site, REGISTER + COMMANDS)
    assert error_of(run("--json", "acme", "url"))["type"] == "MissingParameter"


@pytest.mark.parametrize("name", ["acme", "local", "nothing-such"])
def test_no_such_command(site: Path, name: str) -> None:
    """A type without commands, a built-in type, or no type at all: there is no such command."""
    bring(site)
    result = run(name)
    assert (result.exit_code, result.stdout) == (2, "")
    assert f"No such command '{name}'" in result.stderr


@pytest.mark.parametrize(
    ("register", "told"),
    [
        (
            REGISTER + COMMANDS.replace("    import click", f"    raise RuntimeError('{SECRET}')"),
            "raised RuntimeError",
        ),
        (REGISTER + COMMANDS.replace('"acme"', '"encrypt"'), "adds encrypt, where it may add"),
        (
            REGISTER + COMMANDS.replace("(cli)", "(commands)"),
            "marks a hook that is not as specified",
        ),
        (f"raise RuntimeError('{SECRET}')\n", "failed to import: RuntimeError"),
    ],
)
def test_a_broken_registration_is_one_line(site: Path, register: str, told: str) -> None:
    """What its hook raises is told in one line, without a traceback or the error's own text."""
    bring(site, register)
    result = run("acme", "url", "here")
    assert (result.exit_code, result.stdout) == (14, "")
    assert result.stderr.count("\n") == 1
    assert told in result.stderr
    assert "sentra-kms-acme" in result.stderr
    assert SECRET not in result.stderr
    assert "Traceback" not in result.stderr
    assert error_of(run("acme", "--json"))["type"] == "PluginError"


def test_a_broken_plugin_hurts_no_other_command(site: Path) -> None:
    """Only its own command is broken; help and an unknown command are as ever."""
    bring(site, f"raise RuntimeError('{SECRET}')\n")
    assert run("tenant", "list").exit_code == 0
    assert run("--help").exit_code == 0
    assert run("nothing-such").exit_code == 2


def test_a_plugin_cannot_replace_a_command(site: Path) -> None:
    """A type named like a command of the core does not get that command."""
    install(site, "thief", backends={"keygen": "acme_register"}, modules={"acme_register": ""})
    assert len(run("keygen").stdout) == 45


@pytest.mark.parametrize(
    "arguments",
    [
        ["tenant", "list"],
        ["keygen"],
        ["init", "x.toml"],
        ["--help"],
        ["tenant", "--help"],
        ["--version"],
    ],
)
def test_commands_of_the_core_look_for_no_plugin(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither they nor help scan what is installed."""

    def scanned(**_: object) -> None:
        raise AssertionError("the installed distributions were scanned")

    monkeypatch.setattr(importlib.metadata, "entry_points", scanned)
    assert run(*arguments).exit_code == 0
    told = run("acme")  # for which they are scanned
    assert told.exit_code == exits.code_of(ConfigurationError("no"))
    assert "the entry points of an installed distribution cannot be read" in told.stderr


def test_completion_of_a_plugins_command(site: Path) -> None:
    """The shell completes what a plugin brings, and hears nothing of one that is broken."""
    bring(site, REGISTER + COMMANDS)

    def completed() -> tuple[bytes, bytes]:
        done = process(
            _SENTRA_KMS_COMPLETE="bash_complete",
            COMP_WORDS="sentra-kms acme u",
            COMP_CWORD="2",
            PYTHONPATH=f"{site}:{child_environment()['PYTHONPATH']}",
        )
        return done.stdout.strip(), done.stderr

    assert completed() == (b"plain,url", b"")
    (site / "acme_register.py").write_text("raise RuntimeError\n")
    assert completed() == (b"", b"")
    (site / "sentra_kms_acme-2.5.dist-info" / "entry_points.txt").write_text("[x]\ny\n")
    assert completed() == (b"", b"")
