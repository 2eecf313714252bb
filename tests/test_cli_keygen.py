"""`keygen`: new master keys."""

from __future__ import annotations

import base64
import io
import os
import stat
import sys
from pathlib import Path

import pytest

import sentra_kms
from sentra_kms.cli.app import app
from tests.ground.bare_keys import Watch
from tests.test_cli_support import error_of, on_terminal, process, run, run_json


@pytest.fixture(autouse=True)
def _empty_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_base64_of_32_bytes_and_nothing_else() -> None:
    """Standard output has one line, the key; standard error has nothing without a terminal."""
    result = run("keygen")
    assert result.exit_code == 0
    assert len(base64.b64decode(result.stdout.removesuffix("\n"), validate=True)) == 32
    assert result.stdout.count("\n") == 1
    assert result.stderr == ""


def test_keys_differ() -> None:
    """Two keys are not the same."""
    assert run("keygen").stdout != run("keygen").stdout


def test_raw() -> None:
    """`--raw` gives 32 bytes and no line end."""
    done = process("keygen", "--raw")
    assert (done.returncode, len(done.stdout), done.stderr) == (0, 32, b"")


@pytest.mark.parametrize(("options", "size"), [([], 45), (["--raw"], 32)])
@pytest.mark.parametrize("mask", [0o000, 0o277])
def test_output_file(options: list[str], size: int, mask: int, tmp_path: Path) -> None:
    """`--output` writes a file of mode 600 whatever the umask, and prints nothing."""
    before = os.umask(mask)
    try:
        result = run("keygen", "--output", "key", *options)
    finally:
        os.umask(before)
    assert (result.exit_code, result.output) == (0, "")
    status = (tmp_path / "key").stat()
    assert stat.S_IMODE(status.st_mode) == 0o600
    assert status.st_size == size


def test_an_existing_file_is_left(tmp_path: Path) -> None:
    """A key that is there is never overwritten: rings may depend on it."""
    (tmp_path / "key").write_bytes(b"precious")
    assert run("keygen", "--output", "key").exit_code == 5
    assert (tmp_path / "key").read_bytes() == b"precious"


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    """A link in the way is refused, also one that leads nowhere."""
    (tmp_path / "key").symlink_to(tmp_path / "elsewhere")
    assert run("keygen", "--output", "key").exit_code == 5
    assert not (tmp_path / "elsewhere").exists()


def test_a_failed_write_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a key would look like a key: the file goes when the disk does not take it."""

    def fail(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    result = run("keygen", "--output", "key")
    assert result.exit_code == 16
    assert result.stderr == "Error: key: No space left on device\n"
    assert os.listdir(tmp_path) == []


def test_json(tmp_path: Path) -> None:
    """The key or the path; raw bytes are no JSON."""
    assert len(base64.b64decode(run_json("keygen")["key"])) == 32
    assert run_json("keygen", "--output", "key", "--raw") == {"path": "key"}
    assert (tmp_path / "key").stat().st_size == 32
    result = run("keygen", "--raw", "--json")
    assert result.exit_code == 2
    assert error_of(result)["type"] == "UsageError"


@pytest.mark.parametrize(
    "options", [[], ["--raw"], ["--json"], ["--output", "key"], ["--output", "key", "--raw"]]
)
@pytest.mark.parametrize(("disk", "code"), [("/dev/null", 0), ("/dev/full", 16)])
def test_no_frame_holds_the_key(
    options: list[str], disk: str, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither while it is written nor when the output does not take it."""

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    if code:
        monkeypatch.setattr(os, "fsync", full)
    with io.TextIOWrapper(open(disk, "wb", buffering=0), write_through=True) as output:
        monkeypatch.setattr(sys, "stdout", output)
        with Watch() as watch, pytest.raises(SystemExit) as ended:
            app(["keygen", *options])
    assert ended.value.code == code
    assert watch.seen > 0
    assert watch.found == set()


def test_the_terminal_gets_a_hint_beside_the_key() -> None:
    """A person is told to keep the key."""
    code, shown = on_terminal("keygen")
    assert code == 0
    assert "Keep this key" in shown


def test_raw_bytes_are_refused_to_a_terminal() -> None:
    """Random bytes would garble it."""
    code, shown = on_terminal("keygen", "--raw")
    assert code == 2
    assert "not for a terminal" in shown


@pytest.mark.parametrize("options", [[], ["--raw"]])
def test_production_takes_the_key(
    options: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that `keygen` wrote is a master key outside development."""
    run("keygen", "--output", "key", *options)
    local = {
        "type": "local",
        "directory": str(tmp_path / "keys"),
        "master_keys": {"a": f"file://{tmp_path}/key"},
    }
    keys = {"wrap_with": ["local:a"], "store": "local"}
    config = {"production": {"backends": {"local": local}, "keys": keys}}
    with sentra_kms.load(config, environment="production") as kms:
        assert kms.keys.create("acme").primary == 1
