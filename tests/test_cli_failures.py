"""How commands fail: no traceback, nothing secret, and one message for people or programs."""

from __future__ import annotations

import errno
import json
import logging
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import sentra_kms
from sentra_kms import cli
from sentra_kms.errors import ServiceUnavailable, Throttled, VendorError
from tests.test_cli_support import (
    ENVIRONMENT,
    child_environment,
    command,
    error_of,
    on_terminal,
    process,
    run,
    write_config,
)


@pytest.fixture(autouse=True)
def _project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    write_config(tmp_path)


def failing(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    """Let every command that loads the configuration raise."""

    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(sentra_kms, "load", fail)


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["tenant", "show", "acme"], 4),
        (["tenant", "create", "../x"], 13),
        (["--config", "absent.toml", "tenant", "list"], 3),
        (["--env", "staging", "tenant", "list"], 3),
        (["decrypt", "acme", "--in", "absent"], 16),
        (["tenant", "frobnicate"], 2),
        (["encrypt"], 2),
        (["--nonsense"], 2),
    ],
)
def test_expected_errors_have_no_traceback(arguments: list[str], code: int) -> None:
    """A real process ends with the code and a message; standard output stays empty."""
    done = process(*arguments)
    assert (done.returncode, done.stdout) == (code, b"")
    assert b"Error: " in done.stderr
    assert b"Traceback" not in done.stderr
    assert b"File " not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "kind"),
    [
        (["tenant", "frobnicate", "--json"], "NoSuchCommand"),
        (["--json", "encrypt"], "MissingParameter"),
        (["keygen", "--nonsense", "--json"], "NoSuchOption"),
        (["tenant", "--json"], "UsageError"),
        (["--json", "tenant"], "NoArgsIsHelpError"),
        (["tenant", "list", "--env", "", "--json"], "BadParameter"),
    ],
)
def test_wrong_usage_is_json_too(arguments: list[str], kind: str) -> None:
    """Also what click refuses before a command runs is an object, on one line."""
    result = run(*arguments)
    assert result.exit_code == 2
    error = error_of(result)
    assert error["type"] == kind
    assert "\n" not in error["message"]
    assert (error["backend"], error["operation"], error["subject"]) == (None, None, None)
    assert error["retryable"] is False


def test_an_unexpected_error_shows_its_type_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its text may hold anything, so it is not shown; how to see more is."""
    failing(monkeypatch, ValueError("hunter2"))
    result = run("tenant", "list")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "unexpected ValueError" in result.stderr
    assert "SENTRA_KMS_DEBUG=1" in result.stderr
    assert "hunter2" not in result.stderr
    assert "Traceback" not in result.stderr
    shown = run("tenant", "list", "--json")
    assert error_of(shown)["type"] == "ValueError"
    assert "hunter2" not in shown.stderr


def test_debug_shows_a_plain_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    """With SENTRA_KMS_DEBUG=1 an unexpected error has its traceback, an expected one has none."""
    monkeypatch.setenv("SENTRA_KMS_DEBUG", "1")
    failing(monkeypatch, ValueError("what it was"))
    result = run("tenant", "list")
    assert result.exit_code == 1
    assert "Traceback (most recent call last)" in result.stderr
    assert "ValueError: what it was" in result.stderr
    failing(monkeypatch, ServiceUnavailable("down"))
    assert "Traceback" not in run("tenant", "list").stderr


def test_debug_is_on_for_1_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another value of the variable shows no traceback."""
    monkeypatch.setenv("SENTRA_KMS_DEBUG", "0")
    failing(monkeypatch, ValueError("what it was"))
    assert "Traceback" not in run("tenant", "list").stderr


def test_the_vendors_words_are_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """The cause, free of secrets by its contract, is a line of its own; so is when to retry."""
    error = Throttled("too many calls", retry_after=2.5)
    error.__cause__ = VendorError("SlowDown", code="503", message="reduce your rate")
    failing(monkeypatch, error)
    assert run("tenant", "list").stderr == (
        "Error: too many calls\nCause: SlowDown 503: reduce your rate\nTry again in 2.5 s.\n"
    )


def test_control_characters_do_not_reach_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a service or a file name says cannot steer the terminal."""
    error = ServiceUnavailable("down \x1b]0;owned\x07\nError: fake")
    error.__cause__ = VendorError("\x1b[2J")
    failing(monkeypatch, error)
    shown = run("tenant", "list").stderr
    assert "\x1b" not in shown
    assert "\x07" not in shown
    assert r"Error: down \x1b]0;owned\x07\nError: fake" in shown


def test_a_file_name_that_is_not_text() -> None:
    """Arguments that are no UTF-8 are shown escaped, and kept as such in JSON."""
    words = [os.fsencode(word) for word in command("encrypt", "acme", "--json", "--in")]
    done = subprocess.run(
        [*words, b"\xff"],
        capture_output=True,
        env=child_environment(PYTHONUTF8="1"),
        check=False,
    )
    assert done.returncode == 16
    assert json.loads(done.stderr)["error"]["message"] == "\udcff: No such file or directory"


def test_an_interrupt_ends_with_130(tmp_path: Path) -> None:
    """Ctrl-C while a command works ends it without a traceback."""
    fifo = tmp_path / "input"
    os.mkfifo(fifo)
    with subprocess.Popen(
        command("encrypt", "acme", "--in", str(fifo)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=child_environment(),
    ) as child:
        run("tenant", "create", "acme")
        # Whoever opens a pipe that nobody reads yet is refused: so it is known to be reading.
        writer = None
        while writer is None and child.poll() is None:
            try:
                writer = os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)
            except OSError as error:
                assert error.errno == errno.ENXIO
        child.send_signal(signal.SIGINT)
        # Its end of file wakes a child that was told just before it began to read.
        if writer is not None:
            os.close(writer)
        out, err = child.communicate()
    assert child.returncode == 130
    assert out == b""
    assert err.strip() == b""


def test_an_interrupt_while_it_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C before the command line is loaded ends in the same way."""

    def interrupt(_: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "import_module", interrupt)
    assert cli.main() == 130


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["keygen"],
        ["completion", "bash"],
        ["tenant", "list"],
        ["tenant", "list", "--json"],
    ],
)
def test_a_reader_that_goes_away(arguments: list[str]) -> None:
    """A closed pipe ends a command with 141 and not a word."""
    run("tenant", "create", "acme")
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        command(*arguments),
        stdout=writer,
        stderr=subprocess.PIPE,
        env=child_environment(),
        check=False,
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, b"")


def test_a_full_disk_behind_standard_output() -> None:
    """Output that is not taken is an error, said once."""
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            command("keygen"),
            stdout=full,
            stderr=subprocess.PIPE,
            env=child_environment(),
            check=False,
        )
    assert done.returncode == 16
    assert done.stderr == b"Error: standard output: No space left on device\n"


@pytest.mark.parametrize(
    ("line", "code", "reason"),
    [
        ("{} keygen >&-", 16, "standard output: Bad file descriptor"),
        ("{} tenant create acme >/dev/null && {} encrypt acme <&-", 16, "standard input: Bad file"),
    ],
)
def test_closed_standard_streams(line: str, code: int, reason: str) -> None:
    """A process started without them says so."""
    words = line.replace("{}", f"{sys.executable} -m sentra_kms.cli")
    done = subprocess.run(
        ["sh", "-c", words], capture_output=True, env=child_environment(), check=False
    )
    assert done.returncode == code
    assert reason in done.stderr.decode()
    assert b"Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ("nope", 2),
        ("tenant create", 2),
        ("tenant show nosuch", 4),
        ("tenant show nosuch --json", 4),
    ],
)
def test_closed_standard_error(arguments: str, code: int) -> None:
    """What nobody is there to read is not written among the output instead."""
    words = f"{sys.executable} -m sentra_kms.cli {arguments} 2>&-"
    done = subprocess.run(
        ["sh", "-c", words], capture_output=True, env=child_environment(), check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (code, b"", b"")


@pytest.mark.parametrize("missing", ["click", "rich"])
def test_without_the_extra(missing: str) -> None:
    """One line says what to install."""
    script = (
        f"import sys; sys.modules[{missing!r}] = None; "
        "from sentra_kms.cli import main; sys.exit(main())"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, env=child_environment(), check=False
    )
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr == f'Error: {missing} is missing: pip install "sentra-kms[cli]"\n'.encode()


def test_importing_the_package_loads_nothing() -> None:
    """Click and rich are loaded by `main`, not by the import."""
    script = "import sys, sentra_kms.cli; sys.exit('click' in sys.modules or 'rich' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], env=child_environment(), check=False)
    assert done.returncode == 0


def test_rich_shows_no_tracebacks() -> None:
    """Rich's tracebacks show local variables, which hold keys: it is never loaded here."""
    script = (
        "import sys\n"
        "from sentra_kms.cli import main\n"
        "hook = sys.excepthook\n"
        "try:\n"
        "    main()\n"
        "except SystemExit:\n"
        "    sys.exit('rich.traceback' in sys.modules or sys.excepthook is not hook)\n"
    )
    run("tenant", "create", "acme")
    done = subprocess.run(
        [sys.executable, "-c", script, "tenant", "show", "acme"],
        stdout=subprocess.PIPE,
        env=child_environment(),
        check=False,
    )
    assert done.returncode == 0
    package = Path(sentra_kms.__file__).parent / "cli"
    assert not [file for file in package.glob("*.py") if "rich.traceback" in file.read_text()]


@pytest.mark.parametrize("extra", [[], ["--json"]])
def test_warnings_of_the_package(extra: list[str], tmp_path: Path) -> None:
    """A master key that others may read is warned of on standard error, in the form of the run."""
    key = tmp_path / "master"
    key.write_text(ENVIRONMENT["OLD_MASTER_KEY"], encoding="ascii")
    key.chmod(0o644)
    config = tmp_path / "sentra-kms.toml"
    text = config.read_text(encoding="utf-8")
    config.write_text(text.replace("env://OLD_MASTER_KEY", f"file://{key}"), encoding="utf-8")
    result = run("tenant", "create", "acme", *extra)
    assert result.exit_code == 0
    first = result.stderr.splitlines()[0]
    if extra:
        assert "chmod 600" in json.loads(first)["warning"]["message"]
    else:
        assert first.startswith("Warning: ")
        assert "chmod 600" in first
    assert logging.getLogger("sentra_kms").handlers == []


def test_warning_that_cannot_be_told() -> None:
    """A log call of a backend whose arguments do not fit fails no command."""
    script = (
        "import logging, sys\n"
        "from sentra_kms.cli.failure import warnings_on_stderr\n"
        "with warnings_on_stderr(json=False):\n"
        "    logging.getLogger('sentra_kms.backends.acme').warning('odd %s %s', 'planted')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    told = "odd %s %s (its arguments do not fit it, and are not shown)"
    assert (done.returncode, done.stderr) == (0, f"Warning: {told}\n")


def test_errors_are_coloured_on_a_terminal_only() -> None:
    """A terminal shows the word in red, unless its user said NO_COLOR."""
    assert "\x1b[31m" in on_terminal("tenant", "show", "acme")[1]
    assert "\x1b" not in on_terminal("tenant", "show", "acme", NO_COLOR="1")[1]
    assert "\x1b" not in on_terminal("tenant", "show", "acme", TERM="dumb")[1]
    assert b"\x1b" not in process("tenant", "show", "acme").stderr
