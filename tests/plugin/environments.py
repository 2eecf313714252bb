"""Fresh environments with wheels in them, as users have them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import sentra_kms

ROOT = Path(sentra_kms.__file__).parents[1]
TOY = Path(__file__).with_name("toy")


class Installed:
    """A fresh environment with the wheels of core and others in it, and a working directory."""

    def __init__(
        self, place: Path, python: Path, variables: Mapping[str, str] | None = None
    ) -> None:
        self.place = place
        self.python = python
        self._variables = dict(variables or {})

    def run(self, *arguments: str) -> str:
        """Run the environment's interpreter in `place`; return what it printed."""
        done = subprocess.run(
            [str(self.python), *arguments],
            cwd=self.place,
            env=own_variables() | self._variables,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout.strip()


def own_variables() -> dict[str, str]:
    """Return this process's environment without what leads an interpreter to this tree."""
    foreign = ("PYTHON", "COV", "PYTEST", "VIRTUAL_ENV", "PIP_CONSTRAINT")
    return {name: value for name, value in os.environ.items() if not name.startswith(foreign)}


def build_wheel(project: Path, place: Path) -> Path:
    """Build a project's wheel into a directory of its own under `place`."""
    wheels = place / "wheels"
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", wheels],
        cwd=project,
        env=own_variables(),
        check=True,
    )
    (wheel,) = wheels.iterdir()
    return wheel


def install_wheel(python: Path, wheel: Path, extras: str = "") -> None:
    """Install a wheel into the environment of an interpreter."""
    subprocess.run(
        [
            python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check",
            "-c", ROOT / "constraints.txt", f"{wheel}{extras}",
        ],
        env=own_variables(),
        check=True,
    )  # fmt: skip
