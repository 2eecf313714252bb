"""`plugin new`: a distribution to begin from."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path

import pytest

import sentra_kms
from sentra_kms.cli import plugin_new
from tests.test_cli_support import error_of, run, run_json


@pytest.fixture(autouse=True)
def _empty_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_what_is_written(tmp_path: Path) -> None:
    """A whole distribution, whose entry point and package are named after the type."""
    result = run("plugin", "new", "acme")
    assert result.exit_code == 0
    assert "Wrote sentra-kms-acme: a backend of type acme" in result.output
    place = tmp_path / "sentra-kms-acme"
    document = tomllib.loads((place / "pyproject.toml").read_text())
    project = document["project"]
    assert project["name"] == "sentra-kms-acme"
    assert project["entry-points"]["sentra_kms.backends"] == {"acme": "sentra_kms_acme.register"}
    for name in ("README.md", "CHANGELOG.md", ".github/workflows/ci.yml", ".gitignore"):
        assert (place / name).read_text()
    assert (place / "sentra_kms_acme" / "py.typed").exists()


def test_pins_this_minor_version() -> None:
    """It depends on the minor version that wrote it, and on no later one."""
    run("plugin", "new", "acme")
    document = tomllib.loads(Path("sentra-kms-acme/pyproject.toml").read_text())
    major, minor, _ = sentra_kms.__version__.split(".")
    (pin,) = document["project"]["dependencies"]
    assert pin == f"sentra-kms>={major}.{minor},<{major}.{int(minor) + 1}"


@pytest.mark.parametrize("name", ["acme", "acme-cloud", "a1-b2-c3", "x" * 40])
def test_every_mark_is_filled(name: str) -> None:
    """Whatever the name, no mark of a template is left, and every module is Python."""
    assert run("plugin", "new", name).exit_code == 0
    for path in Path(f"sentra-kms-{name}").rglob("*"):
        if path.is_file():
            text = path.read_text(encoding="utf-8")
            assert re.search(r"@[A-Za-z]+@", text + path.name) is None, path
            if path.suffix == ".py":
                ast.parse(text)


def test_where_to_put_the_client_is_marked() -> None:
    """What its author has to replace is marked, where it is."""
    run("plugin", "new", "acme")
    marked = {
        str(path.relative_to("sentra-kms-acme"))
        for path in Path("sentra-kms-acme").rglob("*")
        if path.is_file() and "REPLACE" in path.read_text(encoding="utf-8")
    }
    assert marked >= {
        "pyproject.toml",
        "sentra_kms_acme/client.py",
        "sentra_kms_acme/errors.py",
        "tests/test_conformance.py",
        "tests/test_errors.py",
    }


def test_every_template_is_used() -> None:
    """No template lies in the package unused, and none is missing."""
    folder = Path(plugin_new.__file__).with_name("plugin_files")
    assert {path.name for path in folder.iterdir()} == set(plugin_new._FILES.values())


@pytest.mark.parametrize("kind", ["directory", "file", "link"])
def test_nothing_is_overwritten(kind: str, tmp_path: Path) -> None:
    """What is there already is left as it is, whatever it is."""
    place = tmp_path / "sentra-kms-acme"
    if kind == "directory":
        place.mkdir()
    elif kind == "file":
        place.write_text("mine")
    else:
        place.symlink_to(tmp_path / "nowhere")
    error = error_of(run("plugin", "new", "acme", "--json"))
    assert error["type"] == "AlreadyExists"
    assert "sentra-kms-acme exists" in error["message"]
    if kind == "directory":
        assert list(place.iterdir()) == []
    elif kind == "file":
        assert place.read_text() == "mine"
    else:
        assert not (tmp_path / "nowhere").exists()


def test_elsewhere(tmp_path: Path) -> None:
    """`--directory` says where, and JSON says what was written."""
    told = run_json("plugin", "new", "acme", "--directory", "mine")
    assert (told["path"], told["type"]) == ("mine", "acme")
    there = {
        str(path.relative_to(tmp_path / "mine"))
        for path in (tmp_path / "mine").rglob("*")
        if path.is_file()
    }
    assert there == set(told["files"])


@pytest.mark.parametrize(
    "name",
    ["", "Acme", "1acme", "-acme", "acme-", "ac--me", "acme_x", "../acme", "acme.x", "é", "x" * 41],
)
def test_names_that_are_refused(name: str, tmp_path: Path) -> None:
    """A name that is no package's and no backend type's is refused before anything is written."""
    error = error_of(run("plugin", "new", "--json", "--", name))
    assert error["type"] == "MalformedInput"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["local", "memory", "env", "file"])
def test_names_of_built_in_types(name: str, tmp_path: Path) -> None:
    """A built-in type cannot be brought by a plugin."""
    error = error_of(run("plugin", "new", name, "--json"))
    assert error["type"] == "ConfigurationError"
    assert "built-in" in error["message"]
    assert list(tmp_path.iterdir()) == []


def test_names_of_installed_types(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nor one that another distribution brings here."""
    monkeypatch.setattr(plugin_new, "installed_types", lambda: ["acme"])
    error = error_of(run("plugin", "new", "acme", "--json"))
    assert "installed here already" in error["message"]
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_left_of_a_failure(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """If a file cannot be written, none is left."""
    written: list[str] = []

    def fail(path: str, data: bytes, mode: int) -> None:
        written.append(path)
        if len(written) == 4:
            raise OSError(28, "No space left on device", path)
        Path(path).write_bytes(data)

    monkeypatch.setattr(plugin_new, "create_file", fail)
    assert run("plugin", "new", "acme").exit_code == 16
    assert list(tmp_path.iterdir()) == []
