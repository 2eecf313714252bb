"""The example of a third party's backend passes its own tests, the suite's, and stays small."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import sentra_kms
from tests.plugin.distributions import install

ROOT = Path(sentra_kms.__file__).parents[1]
EXAMPLE = ROOT / "examples" / "sqlite_backend"


def test_example_passes_its_tests(tmp_path: Path) -> None:
    """Where it is installed, its tests pass; what its harness lacks an ability for is told."""
    install(tmp_path, "sentra-kms-sqlite", backends={"sqlite": "sentra_kms_sqlite.register"})
    done = subprocess.run(
        [
            sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "error",
            "-o", "addopts=--import-mode=importlib", f"--basetemp={tmp_path / 'work'}",
            str(EXAMPLE / "tests"),
        ],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (tmp_path, EXAMPLE, ROOT)))},
        capture_output=True,
        text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert int(done.stdout.splitlines()[-1].partition(" passed")[0]) >= 90
    for check in ("test_rotation_keeps_the_binding", "test_stalled", "test_service_away"):
        assert check not in done.stdout, "the example has what these checks need"


def test_example_is_small() -> None:
    """It takes at most 150 lines of code, without imports, docstrings and comments."""
    assert sum(map(_lines_of_code, EXAMPLE.glob("sentra_kms_sqlite/*.py"))) <= 150


def _lines_of_code(path: Path) -> int:
    text = path.read_text(encoding="utf-8")
    other: set[int] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import | ast.ImportFrom) or (
            isinstance(node, ast.Expr)
            and isinstance(node.value, ast.Constant)
            and isinstance(node.value.value, str)
        ):
            other |= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return sum(
        number not in other and bool(line.strip()) and not line.strip().startswith("#")
        for number, line in enumerate(text.splitlines(), start=1)
    )
