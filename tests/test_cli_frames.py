"""Errors of `exec` and `render`: no frame on the way to the user holds a value."""

from __future__ import annotations

import os
from pathlib import Path

import click
import pytest

from sentra_kms.cli import run as light
from sentra_kms.cli.render import render_template
from sentra_kms.cli.session import Session
from sentra_kms.errors import KMSError
from sentra_kms.testing.leaks import everything, shows

PLANTED = b"planted-s3cr3t-value-of-A"
CONFIG = """
[test]
development = true
[test.secrets]
A = "file://{path}/a"
NUL = "file://{path}/nul"
RAW = "file://{path}/raw"
"""


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("sentra-kms.toml").write_text(CONFIG.format(path=tmp_path), encoding="utf-8")
    monkeypatch.setenv("SENTRA_KMS_ENV", "test")
    for name, value in {"a": PLANTED, "nul": PLANTED + b"\x00", "raw": PLANTED + b"\xff"}.items():
        Path(name).touch(0o600)
        Path(name).write_bytes(value)


def render(text: bytes, out: str) -> BaseException:
    """Return what rendering a template raises."""
    Path("t.tmpl").write_bytes(text)
    callback = render_template.callback
    assert callback is not None
    with click.Context(render_template, obj=Session(json=False)):
        try:
            callback(template="t.tmpl", target=out)
        except (KMSError, OSError) as error:
            return error
    pytest.fail("it was rendered")


def test_value_that_no_variable_can_hold() -> None:
    """What was filled in before it is in no frame."""
    options = light.ExecOptions(("true",), only=("A", "NUL"))
    with pytest.raises(Exception, match="NUL holds a NUL byte") as caught:
        light.run(options)
    assert not shows(everything(caught.value), PLANTED)


def test_value_that_has_no_such_form() -> None:
    """Nor is the text that was filled in before one that cannot be."""
    error = render(b"{{ A }} {{ A | base64 }} {{ RAW | json }}", "out")
    assert "not UTF-8" in str(error)
    assert not shows(everything(error), PLANTED)


@pytest.mark.parametrize("step", ["fdopen", "fsync", "replace"])
def test_file_that_cannot_be_written(step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk is told without what was to be written."""

    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, step, fail)
    error = render(b"{{ A }}", "out")
    assert "No space left" in str(error)
    assert not shows(everything(error), PLANTED)
    assert sorted(os.listdir()) == ["a", "nul", "raw", "sentra-kms.toml", "t.tmpl"]
