"""`sentra-kms secret` and `sentra-kms render`."""

from __future__ import annotations

import base64
import json
import stat
import threading
from functools import partial
from pathlib import Path

import pytest

from sentra_kms.backends import env
from sentra_kms.hooktypes import SecretValue
from sentra_kms.material import KeyMaterial
from tests.test_cli_support import error_of, on_terminal, run, run_json

PLANTED = "planted-s3cr3t-value"
PATIENCE = 20.0  # seconds after which what hangs fails
CONFIG = """
[development]
development = true
[development.secrets]
A = "env://PLANTED_A"
B = { from = ["env://NOT_SET", "env://PLANTED_B"], ttl = "10m", max_age = "90d" }
MISSING = "env://NOT_SET"
RAW = "env://PLANTED_RAW"
[development.secrets.URL]
template = "x://{user}:{password}@h"
user = "env://PLANTED_USER"
password = "env://PLANTED_A"
"""


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("sentra-kms.toml").write_text(CONFIG, encoding="utf-8")
    monkeypatch.setenv("SENTRA_KMS_ENV", "development")
    monkeypatch.setenv("PLANTED_A", PLANTED)
    monkeypatch.setenv("PLANTED_B", f"{PLANTED}-b")
    monkeypatch.setenv("PLANTED_RAW", "\x1b[31m\udcff")
    monkeypatch.setenv("PLANTED_USER", "us er")


def test_get_is_masked() -> None:
    """Without --reveal no value is shown, in any form of output."""
    result = run("secret", "get", "A")
    assert (result.exit_code, result.stdout) == (0, "A\t********\t\t\n")
    assert run_json("secret", "get", "A") == {
        "name": "A", "version": None, "expires": None, "value": "********",
    }  # fmt: skip
    code, shown = on_terminal("secret", "get", "A")
    assert code == 0
    assert PLANTED not in shown


def test_get_reveals() -> None:
    """With --reveal the bytes come as they are, without a newline of ours."""
    result = run("secret", "get", "--reveal", "A")
    assert (result.exit_code, result.stdout_bytes) == (0, PLANTED.encode())
    assert run("secret", "get", "--reveal", "RAW").stdout_bytes == b"\x1b[31m\xff"
    assert run("secret", "get", "--reveal", "env://PLANTED_B").stdout == f"{PLANTED}-b"
    assert run_json("secret", "get", "--reveal", "A")["value"] == PLANTED
    raw = run_json("secret", "get", "--reveal", "RAW")
    assert base64.b64decode(raw["base64"]) == b"\x1b[31m\xff"
    assert "value" not in raw


def test_get_reveals_on_a_terminal() -> None:
    """A person sees text with a newline, and nothing that could steer the terminal."""
    assert on_terminal("secret", "get", "--reveal", "A") == (0, f"{PLANTED}\n")
    code, shown = on_terminal("secret", "get", "--reveal", "RAW")
    assert code == 2
    assert "\x1b[31m" not in shown


@pytest.mark.parametrize(
    ("name", "code", "kind"),
    [
        ("NO", 4, "SecretNotFound"),
        ("MISSING", 4, "SecretNotFound"),
        ("nosuch://x", 3, "ConfigurationError"),
        ("env://a b", 13, "MalformedInput"),
    ],
)
def test_get_fails(name: str, code: int, kind: str) -> None:
    """A failure has the exit code of its error."""
    assert run("secret", "get", name).exit_code == code
    assert error_of(run("secret", "get", name, "--json"))["type"] == kind


def test_list_fetches_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The list says where secrets are, also where none can be had."""
    monkeypatch.delenv("PLANTED_A")
    result = run("secret", "list")
    assert result.exit_code == 0
    assert result.stdout.splitlines()[:2] == [
        "A\tenv://PLANTED_A\t\t\t",
        "B\tenv://NOT_SET,env://PLANTED_B\t\t600 s\t7776000 s",
    ]
    rows = {row["name"]: row for row in run_json("secret", "list")["secrets"]}
    assert rows["URL"]["sources"] == ["user: env://PLANTED_USER", "password: env://PLANTED_A"]
    assert rows["URL"]["template"] is True
    code, shown = on_terminal("secret", "list")
    assert code == 0
    assert "5 secrets in development" in shown


def test_check_asks_side_by_side(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that of a source that is away the time is waited for once, and not for each secret."""
    at_once = threading.Barrier(4)

    def slow(data: KeyMaterial) -> SecretValue:
        at_once.wait(PATIENCE)
        return SecretValue(data)

    monkeypatch.setattr(env, "SecretValue", slow)
    names = ["A", "B", "RAW", "env://PLANTED_USER"]
    result = run("secret", "check", *names)
    assert result.exit_code == 0
    assert [line.split("\t")[0] for line in result.stdout.splitlines()] == names


def test_leased_is_not_given_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """A value that ends with the command is refused where it would be used after that."""
    monkeypatch.setattr(env, "SecretValue", partial(SecretValue, leased=True))
    Path("t").write_text("{{ URL }}", encoding="utf-8")
    for words in (["get", "--reveal", "A"], ["get", "--reveal", "URL"]):
        error = error_of(run("secret", *words, "--json"))
        assert error["type"] == "UnsupportedOperation"
        assert "sentra-kms exec" in error["message"]
    assert error_of(run("render", "t", "--out", "out", "--json"))["subject"] == "URL"
    assert not Path("out").exists()
    assert run("secret", "get", "A").exit_code == 0
    assert run("secret", "check", "A", "URL").exit_code == 0


def test_check() -> None:
    """Every secret is tried, none is shown, and one that cannot be had ends with code 18."""
    result = run("secret", "check")
    assert result.exit_code == 18
    assert "1 secret cannot be had" in result.stderr
    rows = [line.split("\t") for line in result.stdout.splitlines()]
    assert [row[:2] for row in rows] == [
        ["A", "ok"], ["B", "ok"], ["MISSING", "SecretNotFound"], ["RAW", "ok"], ["URL", "ok"],
    ]  # fmt: skip
    assert PLANTED not in result.output
    assert run("secret", "check", "A", "URL").exit_code == 0
    checked = run("secret", "check", "A", "--json")
    assert json.loads(checked.stdout)["secrets"][0]["usable"] is True
    assert run("secret", "check", "A", "NO").exit_code == 18


# --- render ------------------------------------------------------------------------------------


def write(text: str) -> None:
    """Write a template."""
    Path("t.tmpl").write_bytes(text.encode())


def test_render() -> None:
    """Values stand where their names stood, in the form that was asked for; all else as it is."""
    write('a={{ A }} {{A}} {{ URL }}\r\n{"u":"{{ env://PLANTED_USER | json }}"} \\{{ A }} { {x} }}')
    result = run("render", "t.tmpl")
    assert result.exit_code == 0
    assert result.stdout_bytes.decode() == (
        f"a={PLANTED} {PLANTED} x://us%20er:{PLANTED}@h\r\n"
        '{"u":"us er"} {{ A }} { {x} }}'
    )


def test_render_forms(monkeypatch: pytest.MonkeyPatch) -> None:
    """Url quotes, json escapes, base64 encodes, and without a form the bytes are as they are."""
    monkeypatch.setenv("PLANTED_A", 'p"@\u00fc/\n!')
    write("{{A|url}} {{ A | json }} {{ A|base64 }} {{ RAW }}")
    assert run("render", "t.tmpl").stdout_bytes == (
        b"p%22%40%C3%BC%2F%0A%21 "
        + json.dumps('p"@\u00fc/\n!')[1:-1].encode()
        + b" "
        + base64.b64encode('p"@\u00fc/\n!'.encode())
        + b" \x1b[31m\xff"
    )


def test_render_to_a_file() -> None:
    """The file has mode 600, whatever was there, and is replaced whole."""
    write("{{ A }}")
    Path("out").write_text("old", encoding="utf-8")
    Path("out").chmod(0o644)
    assert run("render", "t.tmpl", "--out", "out").exit_code == 0
    assert Path("out").read_text(encoding="utf-8") == PLANTED
    assert stat.S_IMODE(Path("out").stat().st_mode) == 0o600
    assert run_json("render", "t.tmpl", "--out", "out") == {"path": "out", "secrets": ["A"]}
    assert sorted(path.name for path in Path().iterdir()) == ["out", "sentra-kms.toml", "t.tmpl"]


@pytest.mark.parametrize(
    ("text", "told", "code"),
    [
        (
            "ok\n  {{ NO }}",
            "there are A, B, MISSING, RAW, URL (line 2, column 3)",
            13,
        ),
        ("{{ A", "write {{ NAME }}", 13),
        ("{{ }}", "write {{ NAME }}", 13),
        ("{{ A B }}", "write {{ NAME }}", 13),
        ("{{ A | upper }}", "a form is one of base64, json, url", 13),
        ("{{ env://a#b#%zz }}", "two hex digits", 13),
        ("{{ MISSING }}", "NOT_SET", 4),
        ("{{ RAW | json }}", "not UTF-8", 13),
    ],
)
def test_render_that_fails_writes_nothing(text: str, told: str, code: int) -> None:
    """An unknown name and anything else that is wrong is told with its place; the file stays."""
    write(text)
    Path("out").write_text("old", encoding="utf-8")
    result = run("render", "t.tmpl", "--out", "out")
    assert result.exit_code == code
    assert told in result.stderr
    assert Path("out").read_text(encoding="utf-8") == "old"
    assert PLANTED not in result.output


def test_render_is_not_for_a_terminal() -> None:
    """Secrets are not written to a screen by accident."""
    write("{{ A }}")
    code, shown = on_terminal("render", "t.tmpl")
    assert code == 2
    assert PLANTED not in shown
    assert run("render", "t.tmpl", "--json").exit_code == 2


def test_render_of_standard_input() -> None:
    """A template may come over a pipe."""
    assert run("render", "-", stdin=b"<{{ A }}>").stdout == f"<{PLANTED}>"
