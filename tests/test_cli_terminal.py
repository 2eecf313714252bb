"""What a person at a terminal sees, and what is kept away from one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.test_cli_support import ENVIRONMENT, on_terminal, run, run_json, write_config

FRAME = "━"  # a table's line below its head


@pytest.fixture(autouse=True)
def _project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    write_config(tmp_path)


def test_ciphertext_is_refused_to_a_terminal() -> None:
    """Binary ciphertext is not written to a terminal; the error says what to do."""
    run("tenant", "create", "acme")
    code, shown = on_terminal("encrypt", "acme", stdin=b"hello")
    assert code == 2
    assert "add --base64 or --out FILE" in shown
    assert "SK\x01" not in shown


@pytest.mark.parametrize("options", [["--base64"], ["--json"]])
def test_text_forms_go_to_a_terminal(options: list[str]) -> None:
    """Base64 and JSON are text."""
    run("tenant", "create", "acme")
    code, shown = on_terminal("encrypt", "acme", *options, stdin=b"hello")
    assert code == 0
    assert "U0sB" in shown


def test_ciphertext_goes_to_a_file_from_a_terminal(tmp_path: Path) -> None:
    """With `--out` the terminal gets nothing."""
    run("tenant", "create", "acme")
    assert on_terminal("encrypt", "acme", "--out", "sealed", stdin=b"hello") == (0, "")
    assert (tmp_path / "sealed").stat().st_size == 101


@pytest.mark.parametrize(
    ("plaintext", "code"),
    [(b"h\xc3\xa9llo\tworld\n", 0), (b"\x1b[2J", 2), (b"\xff\xfe", 2), (b"\x07", 2)],
)
def test_plaintext_goes_to_a_terminal_if_it_is_text(plaintext: bytes, code: int) -> None:
    """Text is shown; bytes that could steer the terminal are not."""
    run("tenant", "create", "acme")
    sealed = run("encrypt", "acme", stdin=plaintext).stdout_bytes
    ended, shown = on_terminal("decrypt", "acme", stdin=sealed, NO_COLOR="1")
    assert ended == code
    if code:
        assert "add --out FILE" in shown
        assert "\x1b" not in shown
    else:
        assert shown.encode() == plaintext


def test_typing_the_input() -> None:
    """Who types the plaintext is told how to end it; what was typed is encrypted."""
    run("tenant", "create", "acme")
    code, shown = on_terminal("encrypt", "acme", "--base64", typed=b"hello\n\x04")
    assert code == 0
    assert "end with Ctrl-D" in shown
    [text] = [line for line in shown.splitlines() if line.startswith("U0sB")]
    assert run("decrypt", "acme", "--base64", stdin=text.encode()).stdout == "hello\n"


def test_a_ring_is_a_table() -> None:
    """`tenant show` draws a table for a person and none for a pipe."""
    run("tenant", "create", "acme")
    run("tenant", "rotate", "acme", "--request-id", "r-1")
    code, shown = on_terminal("tenant", "show", "acme", NO_COLOR="1")
    ring = run_json("tenant", "show", "acme")
    assert code == 0
    assert "Version" in shown
    assert "─" in shown or FRAME in shown
    assert "2 primary" in shown
    assert f"local:old ({ring['versions'][0]['wraps'][0]['key_id']})" in shown
    assert "r-1" in shown
    assert "Destroyed after" not in shown
    piped = run("tenant", "show", "acme").stdout
    assert "─" not in piped
    assert FRAME not in piped


def test_a_narrow_terminal_loses_nothing() -> None:
    """Cells are folded, never cut."""
    run("tenant", "create", "acme")
    run("tenant", "rotate", "acme", "--request-id", "0123456789" * 8)
    _, shown = on_terminal("tenant", "show", "acme", COLUMNS="60", NO_COLOR="1")
    assert "…" not in shown
    assert sum(shown.count(digit) for digit in "9") >= 8


def test_a_request_id_cannot_steer_the_terminal() -> None:
    """Ids from elsewhere are shown with their control characters and markup written out."""
    run("tenant", "create", "acme")
    run("tenant", "rotate", "acme", "--request-id", "\x1b[2J[red]x\ny")
    _, shown = on_terminal("tenant", "show", "acme", NO_COLOR="1", COLUMNS="200")
    assert "\x1b" not in shown
    assert r"\x1b[2J[red]x\ny" in shown


def test_colours() -> None:
    """A table's head is styled; NO_COLOR and a dumb terminal turn styles off."""
    run("tenant", "create", "acme")
    assert "\x1b[1m" in on_terminal("tenant", "show", "acme")[1]
    assert "\x1b" not in on_terminal("tenant", "show", "acme", NO_COLOR="1")[1]
    assert "\x1b" not in on_terminal("tenant", "show", "acme", TERM="dumb")[1]


def test_tenants_are_a_table() -> None:
    """`tenant list` tells a person the environment and the count."""
    code, shown = on_terminal("tenant", "list", NO_COLOR="1")
    assert (code, "No tenants in development yet" in shown) == (0, True)
    run("tenant", "create", "acme")
    assert "1 tenant in development" in on_terminal("tenant", "list", NO_COLOR="1")[1]
    run("tenant", "create", "globex")
    _, shown = on_terminal("tenant", "list", NO_COLOR="1")
    assert "2 tenants in development" in shown
    assert [line.split() for line in shown.splitlines() if "acme" in line] == [
        ["acme", "default", "1", "1"]
    ]
    assert "Rotation due" not in shown
    _, shown = on_terminal("tenant", "list", "--names", NO_COLOR="1")
    assert [line.strip() for line in shown.splitlines() if "acme" in line] == ["acme"]


def test_rewrap_tells_its_progress(tmp_path: Path) -> None:
    """Each tenant is a line, and the KEKs at the end are a table; without tenants it says so."""
    assert on_terminal("tenant", "rewrap", "--all") == (0, "There are no tenants.\n")
    run("tenant", "create", "acme")
    run("tenant", "create", "globex")
    run("tenant", "rotate", "globex")
    write_config(tmp_path, wrap="new", unwrap=["old"])
    code, shown = on_terminal("tenant", "rewrap", "--all", NO_COLOR="1")
    assert code == 0
    assert "acme: 1 version up to date\n" in shown
    assert "globex: 2 versions up to date\n" in shown
    assert "Versions wrapped" in shown
    assert "local:new" in shown
    assert "Key version" not in shown
    assert "local:old" not in shown


def test_rotate_says_when_others_see_it() -> None:
    """A person learns that other processes take a moment."""
    run("tenant", "create", "acme")
    code, shown = on_terminal("tenant", "rotate", "acme")
    assert code == 0
    assert shown.startswith("acme: version 2 is primary\n")
    assert "ring_ttl" in shown
    assert run("tenant", "rotate", "acme").stderr == ""


def test_a_terminal_of_another_encoding(tmp_path: Path) -> None:
    """What it cannot show is written out instead of failing."""
    run("tenant", "create", "acme")
    run("tenant", "rotate", "acme", "--request-id", "é")
    code, shown = on_terminal("tenant", "show", "acme", PYTHONIOENCODING="ascii", NO_COLOR="1")
    assert code == 0
    assert r"\xe9" in shown
    assert shown.isascii()
    assert os.listdir(tmp_path / "keys")
