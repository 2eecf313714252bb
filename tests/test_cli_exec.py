"""`sentra-kms exec`: real commands with secrets in their environment or in private files."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Generator
from contextlib import contextmanager
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
[alike]
development = true
[alike.secrets]
PAIR = "file://{path}/short"
PAIR_FILE = "file://{path}/database#user"
[none]
"""
MODES = [[], ["--mask"], ["--files"], ["--mask", "--files"]]
PATIENCE = 60.0


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


_BESIDE_A_THREAD = """
import os, sys, threading
from sentra_kms.cli import child
from sentra_kms.cli.run import ExecOptions
start = child._start
def started(*given):
    number = start(*given)
    os.waitid(os.P_PID, number, os.WEXITED | os.WNOWAIT)
    return number
child._start = started
threading.Thread(target=threading.Event().wait, daemon=True).start()
sys.exit(child.run_child(ExecOptions(("sh", "-c", "exit 7")), {}, (), lambda: None))
"""
"""Runs a command that has ended before it is waited for, beside a thread without a mask."""


def test_end_of_a_command_is_seen_beside_threads() -> None:
    """Also if a backend's thread takes the signal that tells of it."""
    done = subprocess.run(
        [sys.executable, "-c", _BESIDE_A_THREAD],
        env=child_environment(),
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 7


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


@pytest.mark.parametrize("mode", [["--mask"], ["--files"]], ids=str)
def test_signals_reach_the_command_past_a_thread(mode: list[str]) -> None:
    """A thread that a backend or observer left behind takes none of them, nor ends all by one."""
    numbers = [signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGUSR1, signal.SIGRTMIN + 3]
    text = (
        "import signal, sys\n"
        "signal.alarm(30)\n"
        f"for number in {[int(each) for each in numbers]}:\n"
        "    signal.signal(number, lambda n, _: print('got', n, flush=True))\n"
        "print('ready', flush=True)\n"
        "while True: signal.pause()\n"
    )
    around = (
        "import sys, threading\n"
        "from sentra_kms.cli.run import main\n"
        "threading.Thread(target=threading.Event().wait, daemon=True).start()\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", around, "exec", *mode, *script(text)],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, env=child_environment(),
    ) as child:  # fmt: skip
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
        for number in [*numbers, *numbers]:
            child.send_signal(number)
            assert child.stdout.readline() == f"got {int(number)}\n".encode()
        (shell,) = children_of(child.pid)
        os.kill(shell, signal.SIGKILL)
        assert child.wait(PATIENCE) == -signal.SIGKILL
    assert list(Path("run").iterdir()) == []


def children_of(process: int) -> list[int]:
    """Return the children of a process."""
    tasks = Path(f"/proc/{process}/task").iterdir()
    return [int(pid) for task in tasks for pid in (task / "children").read_text().split()]


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


def test_names_that_end_alike() -> None:
    """A secret whose name is that of another's file is passed beside it, in any order."""
    show = 'echo "$PAIR|$PAIR_FILE"'
    for order in (["PAIR", "PAIR_FILE"], ["PAIR_FILE", "PAIR"]):
        only = [word for name in order for word in ("--only", name)]
        done = process("exec", "--env", "alike", *only, "--", "sh", "-c", show)
        assert done.stdout == b"abc|planted-user\n"
        show_files = 'cat "$PAIR_FILE" "$PAIR_FILE_FILE"'
        done = process("exec", "--env", "alike", *only, "--files", "--", "sh", "-c", show_files)
        assert done.stdout == b"abcplanted-user"


def test_value_that_is_too_long_for_a_variable() -> None:
    """What the system refuses for its length is told with what to do, and passed in a file."""
    Path("docker/one").write_bytes(b"x" * 300_000)
    done = process("exec", "--", "true")
    assert done.returncode == 126
    assert b"use --files" in done.stderr
    done = process("exec", "--files", "--", "sh", "-c", 'wc -c < "$FROM_DOCKER_FILE"')
    assert (done.returncode, done.stdout.strip()) == (0, b"300000")


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


@pytest.mark.parametrize("beside", ["", "threading.Thread(target=wait, daemon=True).start()\n"])
def test_signal_while_the_files_are_written_leaves_none(tmp_path: Path, beside: str) -> None:
    """It comes to the command, and the files are taken away: also past another thread."""
    text = (
        "import os, signal, sys, threading\n"
        "wait = threading.Event().wait\n"
        f"{beside}"
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


@pytest.mark.parametrize("mode", [["--mask"], ["--files"]], ids=str)
def test_abort_reaches_the_command(mode: list[str]) -> None:
    """A service manager that lost patience ends the command, and no file stays behind."""
    with subprocess.Popen(
        command("exec", *mode, "--", "sh", "-c", "echo ready; exec sleep 60"),
        stdout=subprocess.PIPE,
        env=child_environment(),
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
        (command_id,) = children_of(child.pid)
        child.send_signal(signal.SIGABRT)
        assert child.wait(PATIENCE) == -signal.SIGABRT
    with pytest.raises(ProcessLookupError):
        os.kill(command_id, 0)
    assert list(Path("run").iterdir()) == []


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


def test_mask_leaves_the_end_of_a_line() -> None:
    """The newline that ends a source's file is no part of the value, and is not masked."""
    done = process("exec", "--mask", "--", "sh", "-c", 'echo "$FROM_DOCKER"; echo next')
    assert done.stdout == b"***\nnext\n"


@pytest.mark.parametrize("streams", [(1,), (2,), (0, 1), (0, 2), (1, 2), (0, 1, 2)], ids=str)
def test_streams_that_are_closed_from_the_start(streams: tuple[int, ...]) -> None:
    """They are closed to the command, too, and what is open is masked."""
    text = (
        "import os\n"
        "def is_open(n):\n"
        "    try: os.fstat(n)\n"
        "    except OSError: return False\n"
        "    return True\n"
        "told = [n for n in range(3) if is_open(n)]\n"
        "for n in told:\n"
        "    if n: os.write(n, os.environ['FROM_ENV'].encode())\n"
        "open('told', 'w').write(str(told))\n"
        "os._exit(7)\n"
    )
    done = subprocess.run(
        ["sh", "-c", 'exec "$@"' + "".join(f" {number}>&-" for number in streams), "sh",
         *command("exec", "--mask", *script(text))],
        capture_output=True, check=False, env=child_environment(), timeout=PATIENCE,
    )  # fmt: skip
    assert done.returncode == 7
    assert Path("told").read_text() == str([n for n in range(3) if n not in streams])
    assert done.stdout == (b"" if 1 in streams else b"***")
    assert done.stderr == (b"" if 2 in streams else b"***")


@pytest.mark.parametrize("mode", MODES, ids=str)
def test_what_cannot_be_told(mode: list[str]) -> None:
    """Without a standard error the exit codes are the same."""
    for words, code in ((["no-such-command"], 127), (["true"], 0)):
        done = subprocess.run(
            ["sh", "-c", 'exec "$@" 2>&-', "sh",
             *command("exec", *mode, "--env", "odd", "--only", "SHORT", "--", *words)],
            capture_output=True, check=False, env=child_environment(),
        )  # fmt: skip
        assert done.returncode == code


def test_output_that_cannot_be_written_is_told() -> None:
    """A full disk is not taken for a reader that went away: the output is not whole."""
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            command("exec", "--mask", "--", "sh", "-c", "echo one"),
            stdout=full, stderr=subprocess.PIPE, check=False, env=child_environment(),
        )  # fmt: skip
    assert (done.returncode, done.stderr) == (
        16, b"Error: standard output: No space left on device\n",
    )  # fmt: skip


def test_output_that_does_not_block() -> None:
    """A pipe that somebody made non-blocking, and reads slowly, gets all."""
    inner, outer = os.pipe()
    os.set_blocking(outer, False)
    with subprocess.Popen(
        command("exec", "--mask", "--", "head", "-c", "1000000", "/dev/zero"),
        stdout=outer,
        env=child_environment(),
    ) as child:
        os.close(outer)
        time.sleep(0.2)  # the pipe is full by then, or the test shows less
        with os.fdopen(inner, "rb") as stream:
            assert len(stream.read()) == 1_000_000
        assert child.wait(PATIENCE) == 0


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_signal_while_something_left_running_has_the_output(name: str) -> None:
    """The command has ended, its files are gone; who still writes is waited for, until a signal."""
    text = (
        "import os, subprocess\n"
        "print('ready', os.environ['FROM_ENV_FILE'], flush=True)\n"
        "subprocess.Popen(['sleep', '60'], start_new_session=True)\n"
    )
    with subprocess.Popen(
        command("exec", "--mask", "--files", *script(text)),
        stdout=subprocess.PIPE,
        env=child_environment(),
    ) as child:
        assert child.stdout is not None
        path = Path(child.stdout.readline().split()[1].decode())
        deadline = time.monotonic() + PATIENCE
        while path.parent.exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        assert not path.parent.exists()
        assert child.poll() is None
        child.send_signal(getattr(signal, name))
        assert child.wait(PATIENCE) == -getattr(signal, name)


@pytest.mark.parametrize("mode", [["--mask"], ["--files"]], ids=str)
def test_every_signal_is_passed_on(mode: list[str]) -> None:
    """Also those that few send: real-time ones, and the change of a window's size."""
    numbers = [signal.SIGWINCH, signal.SIGVTALRM, signal.SIGXCPU, signal.SIGRTMIN + 3]
    text = (
        "import signal, sys\n"
        "signal.alarm(60)\n"  # then nothing more is read below
        f"numbers = {[int(each) for each in numbers]}\n"
        "for number in numbers:\n"
        "    signal.signal(number, lambda n, _: print('got', n, flush=True))\n"
        "print('ready', flush=True)\n"
        "while True: signal.pause()\n"
    )
    with subprocess.Popen(
        command("exec", *mode, *script(text)), stdout=subprocess.PIPE, env=child_environment()
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
        for number in numbers:
            child.send_signal(number)
            assert child.stdout.readline() == f"got {int(number)}\n".encode()
        child.terminate()


@pytest.mark.parametrize("mode", MODES, ids=str)
def test_alarm_that_was_set_before(mode: list[str]) -> None:
    """A timer that outlives `exec` in the process that set it ends the command."""
    text = "import os, signal, sys; signal.alarm(3); os.execv(sys.argv[1], sys.argv[1:])"
    done = subprocess.run(
        [sys.executable, "-c", text, *command("exec", *mode, "--", "sleep", "60")],
        check=False, env=child_environment(), timeout=PATIENCE,
    )  # fmt: skip
    assert done.returncode == -signal.SIGALRM


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
        "end = time.monotonic() + 60\n"
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


@pytest.mark.parametrize("mode", [["--mask"], ["--files"]], ids=str)
def test_window_of_another_size(mode: list[str]) -> None:
    """When the terminal's size changes the command is told, and finds the new size."""
    text = (
        "import os, signal\n"
        "def resized(*_):\n"
        "    print(os.get_terminal_size(1), flush=True)\n"
        "    open('resized', 'w').close()\n"
        "signal.signal(signal.SIGWINCH, resized)\n"
        "print('ready', flush=True)\n"
        "while True: signal.pause()\n"
    )
    with at_terminal("exec", *mode, *script(text)) as (child, master):
        read_until(master, b"ready")
        os.kill(child, signal.SIGSTOP)  # so that the command hears of it before this process
        fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", 33, 77, 0, 0))
        deadline = time.monotonic() + PATIENCE
        while not Path("resized").exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        os.kill(child, signal.SIGCONT)
        read_until(master, b"columns=77, lines=33")
        os.kill(child, signal.SIGTERM)


def test_terminal_that_hangs_up_ends_the_command() -> None:
    """Also where this process is the leader of the session, who alone is told by the kernel."""
    words = ["--", "sh", "-c", "echo pid=$$.; exec sleep 60"]
    with at_terminal("exec", "--files", *words) as (_, master):
        found = re.search(rb"pid=([0-9]+)\.", read_until(master, b"."))
        assert found is not None
    # Leaving has closed the terminal; the command and this process have ended.
    with pytest.raises(ProcessLookupError):
        os.kill(int(found[1]), 0)
    assert list(Path("run").iterdir()) == []


def test_command_that_stops_itself_stops_the_job() -> None:
    """A shell sees its job stopped, as it would see the command, and may go on with both."""
    text = (
        "import os, signal\n"
        "print('stopping', flush=True)\n"
        "os.kill(os.getpid(), signal.SIGSTOP)\n"
        "print('going on', flush=True)\n"
    )
    shell = (
        "import os, signal, sys\n"
        "signal.signal(signal.SIGTTOU, signal.SIG_IGN)\n"
        "job = os.fork()\n"
        "if job == 0:\n"
        "    os.setpgid(0, 0)\n"
        "    os.tcsetpgrp(0, os.getpid())\n"
        "    signal.signal(signal.SIGTTOU, signal.SIG_DFL)\n"
        "    os.execv(sys.argv[1], sys.argv[1:])\n"
        "_, status = os.waitpid(job, os.WUNTRACED)\n"
        "print('stopped', os.WIFSTOPPED(status), flush=True)\n"
        "os.kill(-job, signal.SIGCONT)\n"
        "_, status = os.waitpid(job, 0)\n"
        "print('code', os.waitstatus_to_exitcode(status), flush=True)\n"
    )
    words = [sys.executable, "-c", shell, *command("exec", "--files", *script(text))]
    with at_terminal_words(words) as (_, master):
        shown = read_until(master, b"code 0")
    assert [b"stopped True" in shown, b"going on" in shown] == [True, True]


@contextmanager
def at_terminal(*arguments: str) -> Generator[tuple[int, int]]:
    """Run the command line as the leader of a session at a terminal; see it end."""
    with at_terminal_words(command(*arguments)) as found:
        yield found


@contextmanager
def at_terminal_words(words: list[str]) -> Generator[tuple[int, int]]:
    """Run a program as the leader of a session at a terminal; close that, and see it end."""
    child, master = pty.fork()
    if child == 0:
        os.execve(words[0], words, child_environment())  # noqa: S606
    try:
        yield child, master
    finally:
        os.close(master)
        deadline = time.monotonic() + PATIENCE
        while os.waitpid(child, os.WNOHANG)[0] == 0:
            if time.monotonic() > deadline:
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
                pytest.fail("it did not end")
            time.sleep(0.01)


def read_until(master: int, wanted: bytes) -> bytes:
    """Read what is shown until something wanted is there."""
    shown = b""
    while wanted not in shown:
        assert select.select([master], [], [], PATIENCE)[0], shown
        try:
            shown += os.read(master, 1000)
        except OSError:
            pytest.fail(f"ended with {shown!r}")
    return shown


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
        "import contextlib, sys\n"
        "before = set(sys.modules)\n"
        "from sentra_kms.cli import run\n"
        "options = run.parse(['exec', '--', 'true'])\n"
        "secrets = run._fetch(options, contextlib.ExitStack())\n"
        "heavy = {'click', 'rich', 'cryptography', 'logging', 'asyncio', 'hashlib'}\n"
        "print(sorted((heavy & set(sys.modules)) - before), len(secrets))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, check=True, env=child_environment()
    )
    assert done.stdout == b"[] 2\n"
