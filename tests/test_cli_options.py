"""The options that every command takes, the version, shell completion, and who acts."""

from __future__ import annotations

import json
import os
import pwd
import subprocess
import sys
from pathlib import Path

import click
import pytest

import sentra_kms
from sentra_kms.cli.app import app
from sentra_kms.events import current_actor
from sentra_kms.keys.manager import KeyManager
from tests.test_cli_support import (
    ENVIRONMENT,
    ROOT,
    child_environment,
    command,
    process,
    run,
    run_json,
    write_config,
)


@pytest.fixture(autouse=True)
def _project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    write_config(tmp_path)


def _commands(group: click.Group, *path: str) -> list[tuple[tuple[str, ...], click.Command]]:
    found: list[tuple[tuple[str, ...], click.Command]] = []
    for name, each in group.commands.items():
        found.append(((*path, name), each))
        if isinstance(each, click.Group):
            found += _commands(each, *path, name)
    return found


COMMANDS = _commands(app)


def test_the_commands_are_these() -> None:
    """A command that is added or renamed is a change to what operators type."""
    assert sorted(" ".join(path) for path, _ in COMMANDS) == [
        "backends",
        "completion",
        "config",
        "config schema",
        "decrypt",
        "doctor",
        "encrypt",
        "init",
        "keygen",
        "plugin",
        "plugin new",
        "tenant",
        "tenant backup",
        "tenant create",
        "tenant list",
        "tenant receipt",
        "tenant restore",
        "tenant rewrap",
        "tenant rotate",
        "tenant show",
    ]


@pytest.mark.parametrize(("path", "each"), COMMANDS, ids=str)
def test_every_command_has_json_and_help(path: tuple[str, ...], each: click.Command) -> None:
    """`--json` is an option of each, and `--help` describes each without loading anything."""
    assert any("--json" in parameter.opts for parameter in each.params)
    result = run(*path, "--help")
    assert result.exit_code == 0
    assert result.stdout.startswith(f"Usage: sentra-kms {' '.join(path)} ")
    assert "--json" in result.stdout
    assert each.help


@pytest.mark.parametrize(("path", "each"), COMMANDS, ids=str)
def test_every_command_is_documented(path: tuple[str, ...], each: click.Command) -> None:
    """The page names each command and each of its own options."""
    page = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    assert " ".join(path) in page
    for parameter in each.params:
        for option in parameter.opts if isinstance(parameter, click.Option) else ():
            assert option in page, option


@pytest.mark.parametrize(
    "arguments",
    [
        ["--json", "tenant", "list"],
        ["tenant", "--json", "list"],
        ["tenant", "list", "--json"],
    ],
)
def test_json_before_and_after_the_command(arguments: list[str]) -> None:
    """Where `--json` stands makes no difference."""
    assert json.loads(run(*arguments).stdout) == {"tenants": []}


def test_json_after_the_end_of_options_is_an_argument() -> None:
    """Behind `--` it is a name like any other, and one that is not valid."""
    result = run("tenant", "create", "--", "--json")
    assert result.exit_code == 13
    assert result.stderr.startswith("Error: tenant id '--json'")


@pytest.mark.parametrize(
    "arguments",
    [
        ["--config", "other/kms.toml", "--env", "development", "tenant", "list"],
        ["tenant", "--config", "other/kms.toml", "list", "--env", "development"],
        ["tenant", "list", "--env", "development", "--config", "other/kms.toml"],
    ],
)
def test_config_and_env_before_and_after_the_command(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are taken anywhere, and count more than the variables and the working directory."""
    run("tenant", "create", "here")
    other = tmp_path / "other"
    other.mkdir()
    (tmp_path / "sentra-kms.toml").rename(other / "kms.toml")
    run("--config", "other/kms.toml", "tenant", "create", "there")
    monkeypatch.setenv("SENTRA_KMS_ENV", "staging")
    monkeypatch.setenv("SENTRA_KMS_CONFIG", "absent.toml")
    assert run(*arguments).stdout == "there\n"


def test_variables_name_config_and_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the options SENTRA_KMS_CONFIG and SENTRA_KMS_ENV count."""
    (tmp_path / "sentra-kms.toml").rename(tmp_path / "kms.toml")
    assert run("tenant", "list").exit_code == 3
    monkeypatch.setenv("SENTRA_KMS_CONFIG", "kms.toml")
    assert run("tenant", "list").exit_code == 0
    monkeypatch.delenv("SENTRA_KMS_ENV")
    result = run("tenant", "list")
    assert result.exit_code == 3
    assert "no environment is named" in result.stderr


@pytest.mark.parametrize("option", ["--config", "--env"])
def test_an_empty_option_is_no_default(option: str) -> None:
    """An empty variable in a script does not fall back to whatever is there."""
    result = run("tenant", "list", option, "")
    assert result.exit_code == 2
    assert "may not be empty" in result.stderr


def test_version() -> None:
    """`--version` names program and version."""
    assert run("--version").stdout == f"sentra-kms {sentra_kms.__version__}\n"


@pytest.mark.parametrize("short", ["-h", "--help"])
def test_help(short: str) -> None:
    """Help goes to standard output and is a success."""
    result = run(short)
    assert (result.exit_code, result.stderr) == (0, "")
    assert "Begin with `sentra-kms init`" in result.stdout


def test_without_a_command() -> None:
    """Nothing to do is wrong usage, and shows what there is."""
    result = run()
    assert (result.exit_code, result.stdout) == (2, "")
    assert "Commands:" in result.stderr


def test_a_success_of_a_real_process() -> None:
    """`python -m sentra_kms.cli` is the command."""
    done = process("tenant", "create", "acme")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"acme: version 1 is primary\n", b"")


def test_the_entry_point_is_main(monkeypatch: pytest.MonkeyPatch) -> None:
    """What an installed `sentra-kms` calls takes the process's arguments and exits."""
    from sentra_kms.cli import main

    monkeypatch.setattr(sys, "argv", ["/usr/bin/anything", "tenant", "show", "acme"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 4


def test_operations_are_the_operators(monkeypatch: pytest.MonkeyPatch) -> None:
    """Events name who runs the command, by user id and not by what variables say."""
    seen: list[str] = []

    def look(_: KeyManager) -> list[str]:
        actor = current_actor()
        assert actor is not None
        seen.append(actor.name)
        return []

    monkeypatch.setenv("LOGNAME", "somebody-else")
    monkeypatch.setattr(KeyManager, "tenants", look)
    assert run("tenant", "list").exit_code == 0
    assert seen == [f"cli:{pwd.getpwuid(os.getuid()).pw_name}"]
    assert current_actor() is None


def test_operators_without_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """A user id that no account has stands for itself, as in many containers."""

    def unknown(_: int) -> None:
        raise KeyError("no such user")

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    assert run("tenant", "list").exit_code == 0


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_script(shell: str) -> None:
    """The script of each shell asks the program by the variable that click looks for."""
    script = run("completion", shell).stdout
    assert f"_SENTRA_KMS_COMPLETE={shell}_complete" in script
    assert run_json("completion", shell) == {"shell": shell, "script": script.rstrip("\n")}


def test_completion_of_another_shell() -> None:
    """A shell that is not known is wrong usage."""
    assert run("completion", "tcsh").exit_code == 2


def test_bash_reads_the_script() -> None:
    """The script is valid for bash."""
    script = run("completion", "bash").stdout
    done = subprocess.run(["bash", "-n"], input=script.encode(), capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("sentra-kms te", "tenant"),
        ("sentra-kms tenant ro", "rotate"),
        ("sentra-kms tenant rewrap --a", "--all"),
        ("sentra-kms completion fi", "fish"),
    ],
)
def test_completions(typed: str, offered: str) -> None:
    """What the script asks for is answered."""
    assert completed(typed) == [f"plain,{offered}"]


@pytest.mark.parametrize(
    "typed",
    [
        "sentra-kms --config sen",
        "sentra-kms tenant show --config sen",
        "sentra-kms init sen",
        "sentra-kms encrypt acme --in sen",
        "sentra-kms decrypt acme --out sen",
        "sentra-kms keygen --output sen",
        "sentra-kms config schema --output sen",
    ],
)
def test_names_of_files_are_completed(typed: str) -> None:
    """The shell is told to look among its files."""
    assert completed(typed) == ["file,sen"]


@pytest.mark.parametrize("before", ["", "--config other.toml"])
@pytest.mark.parametrize("after", ["--env ", "tenant show --env "])
def test_names_of_environments_are_completed(
    before: str, after: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are those of the configuration that is meant, by then."""
    monkeypatch.chdir(tmp_path)
    Path("sentra-kms.toml").write_text("[production]\n[preview]\n[shared]\n", encoding="utf-8")
    Path("other.toml").write_text("[staging]\n", encoding="utf-8")
    typed = f"sentra-kms {before} {after}"
    names = ["staging"] if before else ["production", "preview"]
    assert completed(typed) == [f"plain,{name}" for name in names]
    assert completed(typed + "pro") == [f"plain,{name}" for name in names if name[:3] == "pro"]


@pytest.mark.parametrize("content", [None, "not TOML", "a = 1"])
def test_broken_configuration_completes_nothing(
    content: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody who is typing is told what is wrong with a file."""
    monkeypatch.chdir(tmp_path)
    Path("sentra-kms.toml").unlink(missing_ok=True)
    if content is not None:
        Path("sentra-kms.toml").write_text(content, encoding="utf-8")
    assert completed("sentra-kms --env ") == []


def completed(typed: str) -> list[str]:
    """Return what is offered for the last word, which may be empty."""
    words = typed.split()
    done = subprocess.run(
        command(),
        capture_output=True,
        env=child_environment(
            _SENTRA_KMS_COMPLETE="bash_complete",
            COMP_WORDS=typed,
            COMP_CWORD=str(len(words) - (not typed.endswith(" "))),
        ),
        check=False,
    )
    assert done.stderr == b""
    return done.stdout.decode().split()
