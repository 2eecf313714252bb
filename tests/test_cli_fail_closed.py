"""`exec`, `render`, `secret`, `doctor` where the first of a list of references cannot be read."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from sentra_kms.cli import run as light
from tests.backends.hosts import in_unprivileged_child, open_directory
from tests.test_cli_support import run

OLD = "planted-old-value"


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory with a list of two: a file that is closed to this user, and one that is not."""
    with open_directory() as path:
        path.chmod(0o777)
        monkeypatch.chdir(path)
        text = (
            "[production.backends.app]\n"
            f'type = "file"\ndirectory = "{path}/app"\n'
            f'[production.secrets]\nA = {{ from = ["app://a", "file://{path}/old"] }}\n'
        )
        (path / "sentra-kms.toml").write_text(text, encoding="utf-8")
        (path / "sentra-kms.toml").chmod(0o644)
        monkeypatch.setenv("SENTRA_KMS_ENV", "production")
        yield path


@pytest.mark.parametrize("mode", [[], ["--mask"], ["--files"]], ids=str)
@pytest.mark.parametrize("closed", ["file", "directory"])
def test_nothing_is_started_or_written(home: Path, mode: list[str], closed: str) -> None:
    """With the error's exit code, and without the value that the second reference has."""
    # The library is imported by here: that user may not reach where it is installed.
    run("render", "nothing", "--out", "out")
    run("doctor")

    def work() -> str:
        (home / "app").mkdir()
        (home / "t.tmpl").write_text("{{ A }}")
        for path, value in (("app/a", "first"), ("old", OLD)):
            (home / path).touch(0o600)
            (home / path).write_text(value)
        (home / ("app" if closed == "directory" else "app/a")).chmod(0)
        codes = [light.main(["exec", *mode, "--", "/bin/touch", "started"])]
        for words in (
            ["render", "t.tmpl", "--out", "out"],
            ["render", "t.tmpl"],
            ["secret", "get", "A", "--reveal"],
            ["secret", "check"],
            ["doctor"],
        ):
            result = run(*words)
            assert OLD not in result.output
            codes.append(result.exit_code)
        (home / "app").chmod(0o700)
        (home / "app/a").unlink()
        assert run("secret", "get", "A", "--reveal").stdout == OLD
        return f"{codes} {sorted(os.listdir(home))}"

    files = "['app', 'old', 'sentra-kms.toml', 't.tmpl']"
    assert in_unprivileged_child(work) == f"[6, 6, 6, 6, 18, 18] {files}"
