"""Files that commands write: through no link, whole or not at all, and nothing left by a signal."""

from __future__ import annotations

import os
import re
import signal
import stat
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest

from tests.crash.strace import need_strace
from tests.needs import need
from tests.test_cli_support import child_environment, command, error_of, run

PLANTED = "planted-s3cr3t-value"
OLD = "what was there"
NOBODY, OTHER = 65534, 65533
PATIENCE = 60.0
SIGNALS = ["TERM", "INT", "HUP", "QUIT", "USR1", "ALRM", "ABRT", "XCPU"]


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = '[test]\ndevelopment = true\n[test.secrets]\nA = "env://PLANTED_A"\n'
    Path("sentra-kms.toml").write_text(text, encoding="utf-8")
    monkeypatch.setenv("SENTRA_KMS_ENV", "test")
    monkeypatch.setenv("PLANTED_A", PLANTED)
    Path("t.tmpl").write_bytes(b"{{ A }}")
    Path("theirs").write_text(OLD, encoding="utf-8")


@pytest.fixture
def public(tmp_path: Path) -> Path:
    """Return a directory in which everybody may write, and remove what is their own, as /tmp."""
    path = tmp_path / "public"
    path.mkdir()
    path.chmod(0o1777)
    return path


def give(path: Path, user: int) -> None:
    """Give a link or file to another user."""
    need(os.geteuid() == 0, "the right to give files to another user, which root has")
    os.lchown(path, user, user)


def is_as_it_was(path: str) -> bool:
    """Whether a file still holds what was there."""
    return Path(path).read_text(encoding="utf-8") == OLD


@pytest.mark.parametrize("target", ["theirs", "nowhere"])
@pytest.mark.parametrize("owner", [None, NOBODY])
def test_link_is_not_written_through(public: Path, target: str, owner: int | None) -> None:
    """Whoever made it and wherever it leads: it is refused, and stays as it is."""
    out = public / "out"
    out.symlink_to(Path(target).absolute())
    if owner is not None:
        give(out, owner)
    result = run("render", "t.tmpl", "--out", str(out), "--json")
    assert result.exit_code == 6
    assert error_of(result)["type"] == "AccessDenied"
    assert "is a link" in error_of(result)["message"]
    assert out.is_symlink()
    assert is_as_it_was("theirs")
    assert not Path("nowhere").exists()
    assert sorted(path.name for path in public.iterdir()) == ["out"]


@pytest.mark.parametrize("below", [".", "deep/er"])
def test_planted_link_on_the_way_is_not_followed(public: Path, below: str) -> None:
    """Where everybody may write, another user's link to a directory is not gone through either."""
    (Path("private") / below).mkdir(parents=True)
    (Path("private") / below / "out").write_text(OLD, encoding="utf-8")
    (public / "app").symlink_to(Path("private").absolute())
    give(public / "app", NOBODY)
    out = public / "app" / below / "out"
    for path in (str(out), os.path.relpath(out), f"{public}/../public/app/{below}/out"):
        result = run("render", "t.tmpl", "--out", path)
        assert result.exit_code == 6, result.output
        assert "another user" in result.stderr
    assert (Path("private") / below / "out").read_text(encoding="utf-8") == OLD


@pytest.mark.parametrize("relative", [False, True])
def test_links_on_the_way_that_are_trusted(public: Path, relative: bool) -> None:  # noqa: FBT001
    """One's own links to directories are followed, and so are others' in a directory of theirs."""
    Path("real/deep").mkdir(parents=True)
    target = Path("../real") if relative else Path("real").absolute()
    (public / "mine").symlink_to(target)
    Path("releases").mkdir()
    Path("releases/current").symlink_to(target)
    if os.geteuid() == 0:
        give(Path("releases/current"), NOBODY)
    for number, way in enumerate(("public/mine/deep", "releases/current/../real/deep/.", "real")):
        assert run("render", "t.tmpl", "--out", f"{way}/out{number}").exit_code == 0
    assert Path("real/deep/out0").read_text() == PLANTED
    assert Path("real/deep/out1").read_text() == PLANTED
    assert Path("real/out2").read_text() == PLANTED


def test_links_in_a_circle() -> None:
    """They are an error of the file system, and none of ours."""
    Path("a").symlink_to("b")
    Path("b").symlink_to("a")
    result = run("render", "t.tmpl", "--out", "a/out")
    assert result.exit_code == 16
    assert result.stderr.startswith("Error: a/out: Too many levels of symbolic links")


def test_file_of_another_user_is_not_written_into(public: Path) -> None:
    """What another user put there is replaced by a file of one's own, which only oneself reads."""
    out = public / "out"
    out.write_text(OLD, encoding="utf-8")
    out.chmod(0o666)
    give(out, NOBODY)
    with out.open("rb") as theirs:
        assert run("render", "t.tmpl", "--out", str(out)).exit_code == 0
        assert theirs.read() == OLD.encode()
    status = out.stat()
    assert (status.st_uid, stat.S_IMODE(status.st_mode)) == (os.geteuid(), 0o600)
    assert out.read_text() == PLANTED


@pytest.mark.parametrize("path", ["pipe", "folder", "folder/", "missing/", ".", "..", ""])
def test_what_is_no_regular_file_is_refused(path: str) -> None:
    """A pipe, a directory and no name at all: told by the name that was given, and nothing made."""
    os.mkfifo("pipe")
    Path("folder").mkdir()
    before = sorted(os.listdir())
    result = run("render", "t.tmpl", "--out", path)
    assert result.exit_code in {13, 16}
    assert result.stderr.startswith(f"Error: {path}")
    assert sorted(os.listdir()) == before
    assert os.listdir("folder") == []


def test_any_name_that_fits() -> None:
    """A name as long as the file system takes it, in letters of four bytes."""
    name = "\N{KEY}" * 63
    assert run("render", "t.tmpl", "--out", name).exit_code == 0
    assert Path(name).read_text() == PLANTED


def test_directory_that_cannot_be_listed() -> None:
    """To write into a directory takes no right to read those above it."""
    need(os.geteuid() == 0, "the right to become another user, which root has")
    Path("above/drop").mkdir(parents=True)
    os.chown("above/drop", NOBODY, NOBODY)
    Path("above").chmod(0o711)
    program = (
        "import os\n"
        "from sentra_kms.cli.files import PRIVATE, replace_file\n"
        "folder = os.open('above', os.O_RDONLY)\n"
        "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "os.fchdir(folder)\n"
        "replace_file('drop/out', b'x', PRIVATE)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, env=child_environment())
    assert Path("above/drop/out").stat().st_uid == NOBODY


# --- signals -----------------------------------------------------------------------------------

PROGRAM = """
import os, signal, sys, threading
from sentra_kms.cli import files
from sentra_kms.cli.__main__ import main
def interrupted(call):
    def instead(*given, **named):
        os.kill(os.getpid(), signal.SIG{name})
        return call(*given, **named)
    return instead
if {thread}:
    threading.Thread(target=threading.Event().wait, daemon=True).start()
files.os.{call} = interrupted(os.{call})
sys.exit(main())
"""


@pytest.mark.no_cover
@pytest.mark.parametrize("name", SIGNALS)
@pytest.mark.parametrize("call", ["fdopen", "fchmod", "replace"])
def test_signal_while_a_file_is_written(name: str, call: str) -> None:
    """It ends the command as it would have, and leaves the old file or the new one, and no other.

    Also with another thread that does not know of it.
    """
    number = getattr(signal, f"SIG{name}")
    text = PROGRAM.format(name=name, call=call, thread=call == "fchmod")
    Path("out").write_text(OLD, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-c", text, "render", "t.tmpl", "--out", "out"],
        env=child_environment(), timeout=PATIENCE, capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode == (130 if name == "INT" else -number), done.stderr
    assert sorted(os.listdir()) == ["out", "sentra-kms.toml", "t.tmpl", "theirs"]
    assert Path("out").read_text() == (PLANTED if call == "replace" else OLD)


def test_signal_that_is_ignored_stays_ignored() -> None:
    """What `nohup` made this process ignore ends nothing."""
    text = PROGRAM.format(name="HUP", call="fchmod", thread=False)
    text = text.replace("sys.exit", "signal.signal(signal.SIGHUP, signal.SIG_IGN)\nsys.exit")
    done = subprocess.run(
        [sys.executable, "-c", text, "render", "t.tmpl", "--out", "out"],
        env=child_environment(), timeout=PATIENCE, check=False,
    )  # fmt: skip
    assert done.returncode == 0
    assert Path("out").read_text() == PLANTED


HANGING = """
import sys, time
from sentra_kms.cli import files
from sentra_kms.cli.__main__ import main
def hang(file):
    print("here", flush=True)
    time.sleep(600)
files.os.fsync = hang
sys.exit(main())
"""


@pytest.mark.parametrize("name", ["INT", "TERM"])
def test_write_that_hangs_can_be_ended(name: str) -> None:
    """By a signal that is sent again and again, as to a file system that does not answer."""
    Path("out").write_text(OLD, encoding="utf-8")
    with subprocess.Popen(
        [sys.executable, "-c", HANGING, "render", "t.tmpl", "--out", "out"],
        env=child_environment(), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    ) as child:  # fmt: skip
        assert child.stdout is not None
        assert child.stdout.readline() == b"here\n"
        ends = time.monotonic() + PATIENCE
        while child.poll() is None and time.monotonic() < ends:
            child.send_signal(getattr(signal, f"SIG{name}"))
            with suppress(subprocess.TimeoutExpired):
                child.wait(0.2)
        child.kill()
    # One more of them may meet it while it ends; a shell tells both as 130.
    assert child.returncode in ({130, -signal.SIGINT} if name == "INT" else {-signal.SIGTERM})
    assert sorted(os.listdir()) == ["out", "sentra-kms.toml", "t.tmpl", "theirs"]
    assert Path("out").read_text() == OLD


@pytest.mark.parametrize("name", SIGNALS)
def test_signal_while_a_new_file_is_written(name: str) -> None:
    """A file that may not exist yet is there whole, or not at all."""
    text = PROGRAM.format(name=name, call="fdopen", thread=False)
    done = subprocess.run(
        [sys.executable, "-c", text, "keygen", "--output", "out"],
        env=child_environment(), timeout=PATIENCE, capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode == (130 if name == "INT" else -getattr(signal, f"SIG{name}"))
    assert sorted(os.listdir()) == ["sentra-kms.toml", "t.tmpl", "theirs"]


_CALL = re.compile(r"^(?:\d+ +)?([a-z_0-9]+)\(.*")


def calls_at_the_end(log: Path) -> list[str]:
    """Return `NAME:when=N` of each call from the making of the temporary file on."""
    counted: Counter[str] = Counter()
    found: list[str] = []
    for line in log.read_text().splitlines():
        match = _CALL.match(line)
        if match is not None:
            counted[match[1]] += 1
            if found or ("O_EXCL" in line and ".tmp" in line):
                found.append(f"{match[1]}:when={counted[match[1]]}")
    return found


@pytest.mark.slow
@pytest.mark.no_cover
@pytest.mark.parametrize("name", ["KILL", "TERM"])
def test_signal_at_every_system_call(tmp_path: Path, name: str) -> None:
    """The file is the old or the new one, whole; and but for a kill nothing else is there."""
    need_strace()
    out = tmp_path / "place" / "out"
    out.parent.mkdir()
    words = command("render", "t.tmpl", "--out", str(out))
    files = "openat,write,fsync,fchmod,rename,renameat,renameat2,close"
    settings = {"PYTHONDONTWRITEBYTECODE": "1", "PYTHONHASHSEED": "0"}

    def traced(*options: str) -> int:
        out.write_text(OLD, encoding="utf-8")
        done = subprocess.run(
            ["strace", "-qq", "-e", f"trace={files}", *options, *words],
            env=child_environment(**settings), timeout=PATIENCE, check=False,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        return done.returncode

    assert traced("-o", "log") == 0
    calls = calls_at_the_end(Path("log"))
    assert len([call for call in calls if call.startswith(("write", "fsync", "rename"))]) >= 4
    ended = Counter[str]()
    for call in calls:
        call_name, _, when = call.partition(":")
        code = traced("-o", os.devnull, "-e", f"inject={call_name}:signal={name}:{when}")
        assert code == -getattr(signal, f"SIG{name}"), call
        told = out.read_text(encoding="utf-8")
        assert told in {OLD, PLANTED}, call
        ended[told] += 1
        left = sorted(path.name for path in out.parent.iterdir() if path != out)
        assert name == "KILL" or left == [], call
        for each in left:
            assert stat.S_IMODE((out.parent / each).stat().st_mode) == 0o600
            (out.parent / each).unlink()
    assert min(ended[OLD], ended[PLANTED]) > 0
