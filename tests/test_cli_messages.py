"""`encrypt` and `decrypt`: pipes, files, contexts, and everything that can be wrong with them."""

from __future__ import annotations

import base64
import os
import stat
import subprocess
from pathlib import Path

import pytest

from sentra_kms.cli import files, message
from sentra_kms.keys.message import MAX_PLAINTEXT, OVERHEAD
from tests.test_cli_support import (
    ENVIRONMENT,
    child_environment,
    command,
    error_of,
    process,
    run,
    run_json,
    write_config,
)

BINARY = bytes(range(256)) + b"\r\n\x1a\n\xff"
FAILED = "Error: the message does not open"


@pytest.fixture(autouse=True)
def _project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    write_config(tmp_path)
    run("tenant", "create", "acme")


def encrypted(plaintext: bytes = b"hello", *options: str) -> bytes:
    """Return a message of acme's."""
    result = run("encrypt", "acme", *options, stdin=plaintext)
    assert (result.exit_code, result.stderr) == (0, "")
    return result.stdout_bytes


@pytest.mark.parametrize("plaintext", [b"", b"hello", BINARY], ids=["empty", "text", "binary"])
def test_pipes_carry_any_bytes(plaintext: bytes) -> None:
    """Standard input to standard output, between processes, byte for byte."""
    sealed = process("encrypt", "acme", stdin=plaintext)
    assert (sealed.returncode, sealed.stderr) == (0, b"")
    assert len(sealed.stdout) == len(plaintext) + OVERHEAD
    opened = process("decrypt", "acme", stdin=sealed.stdout)
    assert (opened.returncode, opened.stdout, opened.stderr) == (0, plaintext, b"")


def test_files(tmp_path: Path) -> None:
    """`--in` and `--out` name files; what is written has mode 600, and nothing is printed."""
    (tmp_path / "plain").write_bytes(BINARY)
    before = os.umask(0)
    try:
        sealed = run("encrypt", "acme", "--in", "plain", "--out", "sealed")
        opened = run("decrypt", "acme", "--in", "sealed", "--out", "opened")
    finally:
        os.umask(before)
    assert (sealed.exit_code, sealed.output) == (0, "")
    assert (opened.exit_code, opened.output) == (0, "")
    assert (tmp_path / "opened").read_bytes() == BINARY
    for name in ("sealed", "opened"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600


def test_a_dash_is_standard_input_and_output() -> None:
    """`-` says the default."""
    sealed = run("encrypt", "acme", "--in", "-", "--out", "-", stdin=b"hello").stdout_bytes
    opened = run("decrypt", "acme", "--in", "-", "--out", "-", stdin=sealed)
    assert opened.stdout_bytes == b"hello"


def test_output_may_replace_input(tmp_path: Path) -> None:
    """A file can be encrypted in its place, since it was read whole before."""
    (tmp_path / "data").write_bytes(b"hello")
    assert run("encrypt", "acme", "--in", "data", "--out", "data").exit_code == 0
    assert b"hello" not in (tmp_path / "data").read_bytes()
    assert run("decrypt", "acme", "--in", "data").stdout_bytes == b"hello"


def test_base64() -> None:
    """`encrypt --base64` writes one line of text; `decrypt --base64` reads it however wrapped."""
    text = encrypted(BINARY, "--base64")
    assert text.endswith(b"\n")
    assert base64.b64decode(text[:-1], validate=True).startswith(b"SK")
    wrapped = b"\r\n".join(text[start : start + 64] for start in range(0, len(text), 64))
    for form in (text, text.strip(), wrapped):
        assert run("decrypt", "acme", "--base64", stdin=form).stdout_bytes == BINARY


def test_base64_in_a_file(tmp_path: Path) -> None:
    """`--out` takes the text form, too."""
    assert run("encrypt", "acme", "--base64", "--out", "text", stdin=b"hello").output == ""
    assert (tmp_path / "text").read_bytes().startswith(b"U0sB")
    assert run("decrypt", "acme", "--base64", "--in", "text").stdout_bytes == b"hello"


def test_what_is_not_base64() -> None:
    """A message that is not text as it says is malformed, and nothing is guessed."""
    assert run("decrypt", "acme", "--base64", stdin=encrypted()).exit_code == 13
    assert run("decrypt", "acme", "--base64", stdin=b"U0sB!").exit_code == 13


def test_base64_without_the_option_is_pointed_out() -> None:
    """Who forgets `--base64` is told so."""
    result = run("decrypt", "acme", stdin=encrypted(b"hello", "--base64"))
    assert result.exit_code == 13
    assert "add --base64" in result.stderr


def test_json() -> None:
    """Messages and plaintexts are base64 in JSON."""
    sealed = run_json("encrypt", "acme", stdin=BINARY)
    assert sealed["tenant"] == "acme"
    opened = run_json("decrypt", "acme", stdin=base64.b64decode(sealed["message"]))
    assert opened == {"tenant": "acme", "plaintext": base64.b64encode(BINARY).decode("ascii")}


def test_json_with_a_file(tmp_path: Path) -> None:
    """With `--out` the document says where the output went, and how large it is."""
    assert run_json("encrypt", "acme", "--out", "sealed", stdin=b"hello") == {
        "tenant": "acme",
        "path": "sealed",
        "size": 5 + OVERHEAD,
    }
    assert run_json("decrypt", "acme", "--in", "sealed", "--out", "opened") == {
        "tenant": "acme",
        "path": "opened",
        "size": 5,
    }
    assert (tmp_path / "opened").read_bytes() == b"hello"


def test_context() -> None:
    """The same pairs decrypt, in any order and with any text after the first equals sign."""
    options = ["--context", "table=users", "--context", "note=a=b c", "--context", "empty="]
    sealed = encrypted(b"hello", *options)
    again = ["--context", "empty=", "--context", "note=a=b c", "--context", "table=users"]
    assert run("decrypt", "acme", *again, stdin=sealed).stdout_bytes == b"hello"


@pytest.mark.parametrize(
    "options",
    [
        [],
        ["--context", "table=Users"],
        ["--context", "table=users", "--context", "id=1"],
        ["--context", "=users"],
    ],
)
def test_another_context(options: list[str]) -> None:
    """Without exactly the pairs of the encryption nothing is decrypted."""
    sealed = encrypted(b"hello", "--context", "table=users")
    result = run("decrypt", "acme", *options, stdin=sealed)
    assert (result.exit_code, result.stdout_bytes) == (8, b"")
    assert result.stderr.startswith(FAILED)


def test_context_is_what_the_python_api_takes() -> None:
    """The pairs are the mapping that a program gives."""
    import sentra_kms

    with sentra_kms.load() as kms:
        sealed = kms.keys.encrypt("acme", b"hello", {"table": "users", "id": "42"})
    options = ["--context", "id=42", "--context", "table=users"]
    assert run("decrypt", "acme", *options, stdin=sealed).stdout_bytes == b"hello"


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--context", "table"], "write KEY=VALUE"),
        (["--context", "a=1", "--context", "a=2"], "the key 'a' is given twice"),
        (["--context", "a=1", "--context", "a=1"], "the key 'a' is given twice"),
    ],
)
@pytest.mark.parametrize("name", ["encrypt", "decrypt"])
def test_contexts_that_make_no_sense(name: str, options: list[str], reason: str) -> None:
    """A context without a value, or one key twice, is wrong usage."""
    result = run(name, "acme", *options, stdin=b"hello")
    assert (result.exit_code, result.stdout) == (2, "")
    assert reason in result.stderr


def test_context_that_is_not_utf8() -> None:
    """An argument that is no text is malformed input, not a traceback."""
    done = subprocess.run(
        [os.fsencode(word) for word in command("encrypt", "acme", "--context")] + [b"a=\xff"],
        input=b"hello",
        capture_output=True,
        env=child_environment(PYTHONUTF8="1"),
        check=False,
    )
    assert (done.returncode, done.stdout) == (13, b"")
    assert b"surrogate" in done.stderr


def test_another_tenant_cannot_read() -> None:
    """A message of one tenant does not open for another."""
    run("tenant", "create", "globex")
    result = run("decrypt", "globex", stdin=encrypted())
    assert (result.exit_code, result.stdout) == (8, "")
    assert error_of(run("decrypt", "globex", "--json", stdin=encrypted()))["subject"] == "globex"


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda sealed: sealed[:-1] + bytes([sealed[-1] ^ 1]), 8),
        (lambda sealed: sealed[:-1], 8),
        (lambda sealed: sealed + b"\n", 8),
        (lambda sealed: b"XX" + sealed[2:], 13),
        (lambda sealed: sealed[:16] + b"\x00\x00\x00\x09" + sealed[20:], 4),
        (lambda sealed: sealed[:0], 13),
    ],
    ids=["flipped", "cut", "longer", "foreign", "unknown version", "empty"],
)
def test_a_failed_decryption_leaves_no_output(change: object, code: int, tmp_path: Path) -> None:
    """No output file comes of it, nothing is printed, and a file that was there is untouched."""
    assert callable(change)
    changed = change(encrypted())
    result = run("decrypt", "acme", "--out", "opened", stdin=changed)
    assert (result.exit_code, result.stdout) == (code, "")
    before = sorted(os.listdir(tmp_path))
    assert "opened" not in before
    (tmp_path / "opened").write_bytes(b"mine")
    assert run("decrypt", "acme", "--out", "opened", stdin=changed).exit_code == code
    assert (tmp_path / "opened").read_bytes() == b"mine"
    assert sorted(os.listdir(tmp_path)) == sorted([*before, "opened"])


def test_output_is_on_disk_before_it_gets_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file is written under another name in the directory, mode 600, synced, then renamed."""
    steps: list[tuple[str, bytes]] = []
    replace, sync = os.replace, os.fsync

    def watch_sync(file: int) -> None:
        if stat.S_ISREG(os.fstat(file).st_mode):
            steps.append(("sync", Path(f"/proc/self/fd/{file}").read_bytes()))
        else:
            steps.append(("sync directory", b""))
        sync(file)

    def watch_replace(source: str, target: str, *, src_dir_fd: int, dst_dir_fd: int) -> None:
        for folder in (src_dir_fd, dst_dir_fd):
            assert os.path.samestat(os.fstat(folder), tmp_path.stat())
        assert "/" not in source + target
        assert stat.S_IMODE(os.stat(source, dir_fd=src_dir_fd).st_mode) == 0o600
        steps.append(("rename", b""))
        replace(source, target, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)

    sealed = encrypted()
    monkeypatch.setattr(os, "fsync", watch_sync)
    monkeypatch.setattr(os, "replace", watch_replace)
    assert run("decrypt", "acme", "--out", "opened", stdin=sealed).exit_code == 0
    assert steps == [("sync", b"hello"), ("rename", b""), ("sync directory", b"")]


def test_a_failed_write_leaves_everything_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the disk does not take the output, the old file stays and the temporary one goes."""
    (tmp_path / "opened").write_bytes(b"mine")
    sealed = encrypted()
    before = sorted(os.listdir(tmp_path))

    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device", "temporary name")

    monkeypatch.setattr(os, "replace", fail)
    result = run("decrypt", "acme", "--out", "opened", stdin=sealed)
    assert result.exit_code == 16
    assert result.stderr == "Error: opened: No space left on device\n"
    assert sorted(os.listdir(tmp_path)) == before
    assert (tmp_path / "opened").read_bytes() == b"mine"


def test_output_is_not_written_through_a_link(tmp_path: Path) -> None:
    """A link stays a link, and the file that it leads to stays as it is."""
    (tmp_path / "real").write_bytes(b"mine")
    (tmp_path / "link").symlink_to("real")
    assert run("decrypt", "acme", "--out", "link", stdin=encrypted()).exit_code == 6
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_bytes() == b"mine"


def test_output_does_not_replace_a_pipe(tmp_path: Path) -> None:
    """What is no regular file, a device above all, is refused and stays what it is."""
    os.mkfifo(tmp_path / "pipe")
    result = run("decrypt", "acme", "--out", "pipe", stdin=encrypted())
    assert result.exit_code == 13
    assert "pipe is not a regular file" in result.stderr
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--in", "absent"], "absent: No such file or directory"),
        (["--in", "keys"], "keys: Is a directory"),
        (["--out", "keys"], "keys: Is a directory"),
        (["--out", "absent/file"], "absent/file: No such file or directory"),
    ],
)
def test_files_that_cannot_be_used(options: list[str], reason: str) -> None:
    """The error names the file as it was given, and the code is that of files."""
    result = run("encrypt", "acme", *options, stdin=b"hello")
    assert (result.exit_code, result.stderr) == (16, f"Error: {reason}\n")
    assert error_of(run("encrypt", "acme", *options, "--json", stdin=b"x"))["message"] == reason


def test_a_large_file_is_refused_unread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of more than 64 MiB is refused by its size, and no byte of it is read."""

    def fail(*_: object) -> bytes:
        raise AssertionError("it was read")

    with open(tmp_path / "large", "wb") as file:
        file.truncate(MAX_PLAINTEXT + 1)
    monkeypatch.setattr(files, "_bounded", fail)
    result = run("encrypt", "acme", "--in", "large")
    assert (result.exit_code, result.stdout) == (13, "")
    assert f"large has more than {MAX_PLAINTEXT} bytes" in result.stderr


def test_an_endless_input_is_refused() -> None:
    """Standard input without an end is read no further than the limit."""
    with open("/dev/zero", "rb") as endless:
        done = subprocess.run(
            command("encrypt", "acme"),
            stdin=endless,
            capture_output=True,
            env=child_environment(),
            check=False,
        )
    assert (done.returncode, done.stdout) == (13, b"")
    assert b"standard input has more than 67108864 bytes" in done.stderr


@pytest.mark.parametrize("size", [7, 8, 9])
def test_the_limit_is_exact(size: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As much as one message takes is read, from file or standard input, and no byte more."""
    monkeypatch.setattr(message, "MAX_PLAINTEXT", 8)
    (tmp_path / "plain").write_bytes(b"x" * size)
    code = 13 if size > 8 else 0
    assert run("encrypt", "acme", stdin=b"x" * size).exit_code == code
    assert run("encrypt", "acme", "--in", "plain").exit_code == code


def test_the_largest_message_is_decrypted(monkeypatch: pytest.MonkeyPatch) -> None:
    """A plaintext of the limit has a message beyond it, which `decrypt` takes, also as base64."""
    monkeypatch.setattr(message, "MAX_PLAINTEXT", 8)
    monkeypatch.setattr(message, "_MAX_MESSAGE", 8 + OVERHEAD)
    monkeypatch.setattr(message, "_MAX_BASE64", (8 + OVERHEAD) * 3 // 2)
    assert run("decrypt", "acme", stdin=encrypted(b"x" * 8)).stdout_bytes == b"x" * 8
    text = encrypted(b"x" * 8, "--base64")
    assert run("decrypt", "acme", "--base64", stdin=text).stdout_bytes == b"x" * 8
    assert run("decrypt", "acme", stdin=b"x" * (9 + OVERHEAD)).exit_code == 13


def test_old_versions_are_decrypted_after_a_rotation() -> None:
    """What was encrypted before a rotation opens after it."""
    sealed = encrypted()
    run("tenant", "rotate", "acme")
    assert encrypted()[:20] != sealed[:20]
    assert run("decrypt", "acme", stdin=sealed).stdout_bytes == b"hello"
