"""`sentra-kms exec`: real commands with secrets in their environment or in private files."""

from __future__ import annotations

import base64
import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sentra_kms.cli import run as light
from tests.test_cli_support import child_environment, command, on_terminal, process, run

SECRET = "planted-s3cr3t-value"
OTHER = "other/planted@value%"
CONFIG = """
[development]
development = true
[development.backends.docker]
type = "docker"
directory = "docker"
[development.secrets]
FROM_ENV = "env://PLANTED"
FROM_DOCKER = "docker://one"
[odd]
development = true
[odd.secrets]
NUL = "file://{path}/nul"
SHORT = "file://{path}/short"
LINES = "file://{path}/lines"
[parts]
development = true
[parts.secrets.URL]
template = "db://{{user}}:{{password}}@db"
user = "file://{path}/database#user"
password = "file://{path}/database#password"
[none]
"""
MODES = [[], ["--mask"], ["--files"], ["--mask", "--files"]]
PATIENCE = 30.0


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("sentra-kms.toml").write_text(CONFIG.format(path=tmp_path), encoding="utf-8")
    Path("docker").mkdir()
    for name, data in {
        "docker/one": OTHER.encode() + b"\n",
        "nul": b"planted\x00s3cr3t",
        "short": b"abc",
        "lines": b"two\nlines-of-it",
        "database": b'{"user":"planted-user","password":"planted/p@ssword"}',
    }.items():
        Path(name).touch(0o600)
        Path(name).write_bytes(data)
    monkeypatch.setenv("SENTRA_KMS_ENV", "development")
    monkeypatch.setenv("PLANTED", SECRET)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))
    Path("run").mkdir(0o700)


def script(text: str) -> list[str]:
    """Return the words that run a Python program."""
    return ["--", sys.executable, "-c", text]


def test_environment() -> None:
    """The command has the secrets in its environment, and all else as it was."""
    done = process(
        "exec", *script("import os, json; print(json.dumps(dict(os.environ)))"), OTHER_VARIABLE="x"
    )
    assert (done.returncode, done.stderr) == (0, b"")
    found = json.loads(done.stdout)
    assert (found["FROM_ENV"], found["FROM_DOCKER"], found["OTHER_VARIABLE"]) == (
        SECRET,
        OTHER,
        "x",
    )


def test_process_is_the_command_itself() -> None:
    """Without --mask and --files nothing stands between: the process becomes the command."""
    with subprocess.Popen(
        command("exec", "--", "sh", "-c", "echo $$; exec sleep 60"),
        stdout=subprocess.PIPE,
        env=child_environment(),
    ) as child:
        assert child.stdout is not None
        assert int(child.stdout.readline()) == child.pid
        child.kill()


def test_no_value_in_arguments() -> None:
    """No process on the way has a value among its arguments."""
    look = (
        "import os; up = os.getppid()\n"
        "print(open('/proc/self/cmdline').read(), open(f'/proc/{up}/cmdline').read())"
    )
    for mode in MODES:
        done = process("exec", *mode, *script(look))
        assert done.returncode == 0
        assert SECRET.encode() not in done.stdout


@pytest.mark.parametrize("mode", MODES, ids=str)
@pytest.mark.parametrize("code", [0, 1, 7, 255])
def test_exit_code(mode: list[str], code: int) -> None:
    """The command's exit code is ours."""
    assert process("exec", *mode, "--", "sh", "-c", f"exit {code}").returncode == code


@pytest.mark.parametrize("mode", MODES, ids=str)
@pytest.mark.parametrize("name", ["SIGTERM", "SIGKILL", "SIGSEGV", "SIGPIPE", "SIGINT"])
def test_child_killed_by_a_signal(mode: list[str], name: str) -> None:
    """A command that a signal ends is seen to have been ended by it; its files are gone."""
    number = getattr(signal, name)
    done = process("exec", *mode, "--", "sh", "-c", f"kill -{number} $$")
    assert done.returncode == -number
    assert list(Path("run").iterdir()) == []


@pytest.mark.parametrize("mode", MODES, ids=str)
@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP", "SIGUSR1", "SIGINT"])
def test_signals_reach_the_command(mode: list[str], name: str) -> None:
    """A signal sent to us is the command's, which may handle it and end as it likes."""
    text = (
        "import signal, sys\n"
        f"signal.signal(signal.{name}, lambda *_: sys.exit(42))\n"
        "print('ready', flush=True)\n"
        "while True: signal.pause()\n"
    )
    with subprocess.Popen(
        command("exec", *mode, *script(text)), stdout=subprocess.PIPE, env=child_environment()
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
        child.send_signal(getattr(signal, name))
        assert child.wait(PATIENCE) == 42


@pytest.mark.parametrize("mode", MODES, ids=str)
def test_signals_that_python_ignores_are_not_ignored_in_the_command(mode: list[str]) -> None:
    """A command that writes to a closed pipe ends as it would alone."""
    alone = subprocess.run(["cat", "/proc/self/status"], capture_output=True, check=True)
    done = process("exec", *mode, "--", "cat", "/proc/self/status")
    for field in (b"SigBlk:", b"SigIgn:"):
        sets = [int(told.stdout.split(field)[1].split()[0], 16) for told in (alone, done)]
        # All but 32 and 33, the C library's own, which its way to start a program ignores.
        assert sets[0] & 0x7FFFFFFF == sets[1] & 0x7FFFFFFF


def test_only() -> None:
    """With --only no other secret is passed, nor fetched."""
    Path("docker/one").unlink()
    done = process("exec", "--only", "FROM_ENV", "--", "sh", "-c", "echo $FROM_ENV $FROM_DOCKER")
    assert (done.returncode, done.stdout) == (0, f"{SECRET}\n".encode())


def test_values_that_no_variable_can_hold() -> None:
    """A NUL byte is refused by name, and passed in a file as it is."""
    done = process("exec", "--", "true", SENTRA_KMS_ENV="odd")
    assert done.returncode == 13
    assert b"NUL holds a NUL byte" in done.stderr
    assert b"planted" not in done.stderr
    done = process("exec", "--files", "--", "sh", "-c", 'cat "$NUL_FILE"', SENTRA_KMS_ENV="odd")
    assert (done.returncode, done.stdout) == (0, b"planted\x00s3cr3t")


def test_name_file_that_was_there_is_taken_away() -> None:
    """Both NAME and NAME_FILE would be an error of who reads them: only ours is passed."""
    done = process("exec", "--", "sh", "-c", "echo $FROM_DOCKER_FILE", FROM_DOCKER_FILE="/old")
    assert done.stdout == b"\n"
    show = "echo $FROM_DOCKER; cat $FROM_DOCKER_FILE"
    done = process("exec", "--files", "--", "sh", "-c", show, FROM_DOCKER="old")
    assert done.stdout == f"\n{OTHER}".encode()


def test_files_are_private_and_go_away() -> None:
    """Files are the user's alone, in a directory of this run alone, gone when it ends."""
    text = (
        "import os\n"
        "path = os.environ['FROM_ENV_FILE']\n"
        "print(oct(os.stat(path).st_mode), oct(os.stat(os.path.dirname(path)).st_mode))\n"
        "print(open(path).read(), 'FROM_ENV' in os.environ, path)\n"
    )
    done = process("exec", "--files", *script(text))
    modes, told = done.stdout.decode().splitlines()
    assert modes == "0o100600 0o40700"
    value, beside, path = told.split()
    assert (value, beside) == (SECRET, "False")
    assert Path(path).parent.parent == Path("run").resolve()
    assert list(Path("run").iterdir()) == []


@pytest.mark.parametrize("ending", ["exit 3", "kill -TERM $$"])
def test_files_go_away_however_it_ends(ending: str) -> None:
    """Also after a failure, a signal, and a command that cannot be started."""
    process("exec", "--files", "--", "sh", "-c", ending)
    process("exec", "--files", "--", "/no/such/command")
    assert list(Path("run").iterdir()) == []


@pytest.mark.parametrize("mode", MODES, ids=str)
def test_command_that_cannot_be_run(mode: list[str]) -> None:
    """127 and 126 say what they say in a shell."""
    done = process("exec", *mode, "--", "sentra-kms-no-such-command")
    assert done.returncode == 127
    assert b"sentra-kms-no-such-command: No such file" in done.stderr
    Path("plain").touch(0o644)
    assert process("exec", *mode, "--", "./plain").returncode == 126


def test_secret_that_cannot_be_had() -> None:
    """If a secret cannot be had nothing is started, and the exit code is that of the error."""
    Path("docker/one").unlink()
    done = process("exec", "--", "touch", "started")
    assert done.returncode == 4
    assert not Path("started").exists()
    done = process("exec", "--json", "--", "true")
    assert json.loads(done.stderr)["error"]["type"] == "SecretNotFound"


def test_names_that_are_not_declared() -> None:
    """An unknown --only, and an environment without secrets, are wrong configurations."""
    done = process("exec", "--only", "NO", "--", "true")
    assert done.returncode == 3
    assert b"has no NO; there are FROM_DOCKER, FROM_ENV" in done.stderr
    assert b"declares no secrets" in process("exec", "--env", "none", "--", "true").stderr


# --- masking -----------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_mask(stream: str) -> None:
    """Values are masked in both streams, as they are and in their usual forms."""
    text = (
        "import os, sys, base64, urllib.parse\n"
        "s, o = os.environ['FROM_ENV'], os.environ['FROM_DOCKER']\n"
        f"print('a', s, o, urllib.parse.quote(o, safe=''), base64.b64encode(s.encode()).decode(),"
        f" 'z', file=sys.{stream})\n"
    )
    done = process("exec", "--mask", *script(text))
    assert done.returncode == 0
    told, other = (done.stdout, done.stderr)[:: 1 if stream == "stdout" else -1]
    assert other == b""
    assert told.startswith(b"a *** *** *** ***")
    assert told.endswith(b" z\n")
    assert base64.b64encode(SECRET.encode())[:-4] not in told


def test_mask_of_parts() -> None:
    """What a value is made of is masked on its own, too."""
    text = "print('it is planted/p@ssword', 'of planted-user')"
    done = process("exec", "--env", "parts", "--mask", *script(text))
    assert done.returncode == 0
    assert b"planted" not in done.stdout + done.stderr
    assert done.stdout.startswith(b"it is ")


def test_signal_while_the_files_are_written_leaves_none(tmp_path: Path) -> None:
    """It comes to the command, and the files are taken away."""
    text = (
        "import os, signal, sys\n"
        "from sentra_kms.cli import child\n"
        "from sentra_kms.cli.run import parse, run\n"
        "fdopen = os.fdopen\n"
        "def interrupted(*given, **named):\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    return fdopen(*given, **named)\n"
        "child.os.fdopen = interrupted\n"
        "sys.exit(run(parse(sys.argv[1:])))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", text, "exec", "--files", "--", "sleep", "30"],
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == -signal.SIGTERM
    assert list((tmp_path / "run").iterdir()) == []


def test_mask_over_split_writes() -> None:
    """A value that is written in pieces, at every place of a split, is masked."""
    text = (
        "import os, sys, time\n"
        "s = os.environ['FROM_ENV'].encode()\n"
        "for cut in range(1, len(s)):\n"
        "    os.write(1, b'<' + s[:cut]); time.sleep(0.002); os.write(1, s[cut:] + b'>')\n"
    )
    done = process("exec", "--mask", *script(text))
    assert done.stdout == b"<***>" * (len(SECRET) - 1)


@pytest.mark.slow
def test_mask_of_much_output() -> None:
    """100 MB with the values at every offset of every chunk come through whole and masked."""
    text = (
        "import os\n"
        "s = os.environ['FROM_ENV'].encode()\n"
        "line = b'x' * 996 + s + b'\\n'\n"  # of a length that no power of two divides
        "block = line * 1000\n"
        "out = os.fdopen(1, 'wb', 0)\n"
        "for _ in range(100): out.write(block)\n"
    )
    done = process("exec", "--mask", *script(text))
    assert done.returncode == 0
    assert done.stdout == (b"x" * 996 + b"***\n") * 100_000


def test_mask_leaves_bytes_alone() -> None:
    """What is no text comes through as it is."""
    text = "import os; os.write(1, bytes(range(256)) * 300)"
    assert process("exec", "--mask", *script(text)).stdout == bytes(range(256)) * 300


def test_mask_of_a_short_value_is_told() -> None:
    """A value that is too short to be masked is named, and the rest is masked."""
    done = process(
        "exec", "--mask", "--only", "SHORT", "--only", "LINES", "--",
        "sh", "-c", 'echo "$SHORT|$LINES"', SENTRA_KMS_ENV="odd",
    )  # fmt: skip
    assert b"not masked, since shorter than 4 bytes: SHORT" in done.stderr
    assert done.stdout == b"abc|***\n"


def test_child_that_closes_its_output() -> None:
    """A command that closes its streams goes on, and is waited for."""
    text = "import os, sys, time; os.close(1); os.close(2); time.sleep(0.2); os._exit(5)"
    assert process("exec", "--mask", *script(text)).returncode == 5


def test_reader_that_goes_away() -> None:
    """When nobody reads any more the command is told, as it would be alone."""
    text = "import os\nwhile True: os.write(1, b'x' * 1000)"
    with subprocess.Popen(
        command("exec", "--mask", *script(text)),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=child_environment(),
    ) as child:
        assert child.stdout is not None
        child.stdout.read(10)
        child.stdout.close()
        assert child.wait(PATIENCE) in {1, -signal.SIGPIPE}


# --- the terminal ------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES, ids=str)
def test_terminal_is_passed_on(mode: list[str]) -> None:
    """A command that is started at a terminal has a terminal, of its size, and no doubled lines."""
    text = (
        "import os, sys; print(sys.stdout.isatty(), sys.stderr.isatty(), flush=True)\n"
        "print(os.get_terminal_size(1), flush=True)"
    )
    code, shown = on_terminal("exec", *mode, *script(text))
    assert code == 0
    lines = shown.splitlines()
    assert lines[0] == "True True"
    assert lines[1].startswith("os.terminal_size(")
    assert "\r" not in shown  # the ends of lines are made by one terminal, not by two


def test_mask_on_a_terminal() -> None:
    """Masked there, too; and what is typed reaches the command."""
    text = "import os; print('got', input('name? '), os.environ['FROM_ENV'])"
    code, shown = on_terminal("exec", "--mask", *script(text), typed=b"ann\n")
    assert code == 0
    assert "got ann ***" in shown
    assert SECRET not in shown


def test_interrupt_from_the_terminal_comes_once() -> None:
    """Ctrl-C reaches command and us alike: the command gets it once, not a second time from us."""
    text = (
        "import signal, sys, time\n"
        "got = []\n"
        "signal.signal(signal.SIGINT, lambda *_: got.append(1))\n"
        "print('ready', flush=True)\n"
        "end = time.monotonic() + 20\n"
        "while not got and time.monotonic() < end: time.sleep(0.01)\n"
        "time.sleep(0.5)\n"
        "print('interrupts', len(got), flush=True)\n"
    )
    child, master = pty.fork()
    if child == 0:
        os.execve(  # noqa: S606
            sys.executable, command("exec", "--files", *script(text)), child_environment()
        )
    shown = b""
    sent = False
    deadline = time.monotonic() + PATIENCE
    while re.search(rb"interrupts [0-9]", shown) is None and time.monotonic() < deadline:
        try:
            shown += os.read(master, 1000)
        except OSError:
            break
        if b"ready" in shown and not sent:
            os.write(master, b"\x03")
            sent = True
    os.waitpid(child, 0)
    os.close(master)
    assert b"interrupts 1" in shown


# --- how it is written -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("exec -- a b", light.ExecOptions(("a", "b"))),
        ("--env x --config c exec --mask -- a",
         light.ExecOptions(("a",), mask=True, config="c", environment="x")),
        ("exec --files --only=A --only B --env=y -- a --mask -- b",
         light.ExecOptions(("a", "--mask", "--", "b"), ("A", "B"), files=True, environment="y")),
        ("exec --json -- a", light.ExecOptions(("a",))),
        ("exec a", None),
        ("exec --", None),
        ("exec --help -- a", None),
        ("exec --only -- a", None),
        ("exec --env= -- a", None),
        ("exec b -- a", None),
        ("secret get exec -- a", None),
        ("tenant list", None),
    ],
)  # fmt: skip
def test_plain_arguments(arguments: str, expected: light.ExecOptions | None) -> None:
    """Plain arguments are understood without click; any others are left to it."""
    assert light.parse(arguments.split()) == expected


def test_click_understands_the_same() -> None:
    """What is left to click ends in the same way: help, complaints, and a command without `--`."""
    assert run("exec", "--help").exit_code == 0
    assert run("exec").exit_code == 2
    assert process("exec", "--nonsense", "--", "true").returncode == 2
    assert process("exec", "sh", "-c", "echo $FROM_ENV; exit 3").returncode == 3
    assert process("exec", "sh", "-c", "echo $FROM_ENV").stdout == f"{SECRET}\n".encode()


def test_light_way_needs_no_click() -> None:
    """The plain way imports neither click nor rich nor cryptography."""
    program = (
        "import sys\n"
        "before = set(sys.modules)\n"
        "from sentra_kms.cli import run\n"
        "options = run.parse(['exec', '--', 'true'])\n"
        "secrets = run._fetch(options)\n"
        "heavy = {'click', 'rich', 'cryptography', 'logging', 'asyncio', 'hashlib'}\n"
        "print(sorted((heavy & set(sys.modules)) - before), len(secrets))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, check=True, env=child_environment()
    )
    assert done.stdout == b"[] 2\n"
