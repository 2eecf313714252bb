"""The examples of the page on the command line, run as they stand."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.test_cli_support import ROOT, child_environment


def _examples() -> list[tuple[str, str]]:
    page = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    found: list[tuple[str, str]] = []
    for block in re.findall(r"^```console\n(.*?)^```$", page, re.MULTILINE | re.DOTALL):
        for line in block.splitlines():
            if line.startswith("$ "):
                found.append((line[2:], ""))
            else:
                text, output = found[-1]
                found[-1] = (text, f"{output}{line}\n")
    return found


def test_the_page_runs_from_top_to_bottom(tmp_path: Path) -> None:
    """Each example succeeds in one shell, and prints what is shown where something is shown."""
    programs = tmp_path / "bin"
    programs.mkdir()
    program = programs / "sentra-kms"
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m sentra_kms.cli "$@"\n')
    program.chmod(0o755)
    work = tmp_path / "work"
    work.mkdir()
    examples = _examples()
    assert len(examples) > 15
    script = ["set -euo pipefail", f'PATH={shlex.quote(str(programs))}:"$PATH"']
    for number, (text, _) in enumerate(examples):
        # A group, not a subshell: what it exports is for the examples after it.
        script.append(f"{{ {text}; }} > {tmp_path}/{number}.out 2> {tmp_path}/{number}.err")
    done = subprocess.run(
        ["bash"],
        input="\n".join(script).encode(),
        capture_output=True,
        cwd=work,
        env=child_environment(),
        check=False,
    )
    ran = len(list(tmp_path.glob("*.out")))
    errors = "".join(file.read_text() for file in tmp_path.glob("*.err"))
    assert (done.returncode, errors) == (0, ""), f"{examples[ran - 1][0]}: {errors}{done.stderr!r}"
    for number, (text, output) in enumerate(examples):
        if output:
            assert (tmp_path / f"{number}.out").read_text() == output, text


@pytest.mark.parametrize(
    "name",
    [
        "init",
        "keygen",
        "config schema",
        "doctor",
        "backends",
        "health",
        "plugin new",
        "encrypt",
        "decrypt",
        "secret list",
        "secret check",
        "secret get",
        "exec",
        "render",
        "completion",
    ],
)
def test_every_command_has_an_example(name: str) -> None:
    """No command is described without one."""
    assert any(f"sentra-kms {name}" in text for text, _ in _examples())


@pytest.mark.parametrize(
    "name",
    [
        "create",
        "list",
        "show",
        "rotate",
        "rewrap",
        "set-policy",
        "move",
        "disable",
        "enable",
        "schedule-destroy",
        "cancel-destroy",
        "destroy-due",
        "shred",
        "release",
        "backup",
        "restore",
    ],
)
def test_every_command_on_tenants_has_an_example(name: str) -> None:
    """Nor any of those below `tenant`."""
    assert any(f"sentra-kms tenant {name}" in text for text, _ in _examples())
