"""`file:///ABSOLUTE/PATH`: secrets from files."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

from sentra_kms.backends import file
from sentra_kms.errors import (
    AccessDenied,
    KMSError,
    MalformedInput,
    SecretNotFound,
    ServiceUnavailable,
    VendorError,
)
from tests.backends.hosts import fetch, in_unprivileged_child, make_host, open_directory

SECRETS = file.create(file.FileSettings(), make_host("file"))


def secret_file(directory: Path, data: bytes = b"secret", mode: int = 0o600) -> Path:
    """Write a file that only its owner may read, unless said otherwise."""
    path = directory / "secret"
    path.write_bytes(data)
    path.chmod(mode)
    return path


def test_type_is_for_everywhere() -> None:
    """The type is allowed in production."""
    assert file.backend_type().development_only is False


@pytest.mark.parametrize(
    "data", [b"", b"x", b"x\n", b"\r\n", b"\xff\x00\n", b"x" * 70_000], ids=lambda d: f"{len(d)}"
)
def test_content_as_it_is(data: bytes, tmp_path: Path) -> None:
    """The file's bytes come as they are; no newline is dropped."""
    assert fetch(SECRETS, f"file://{secret_file(tmp_path, data)}") == data


def test_content_is_read_each_time(tmp_path: Path) -> None:
    """A file that was replaced is seen."""
    path = secret_file(tmp_path, b"one")
    assert fetch(SECRETS, f"file://{path}") == b"one"
    (tmp_path / "new").write_bytes(b"two")
    (tmp_path / "new").chmod(0o600)
    (tmp_path / "new").rename(path)
    assert fetch(SECRETS, f"file://{path}") == b"two"


def test_largest_secret(tmp_path: Path) -> None:
    """1 MiB is the most, and one byte more is refused before it is read."""
    assert file.MAX_SECRET == 2**20
    path = secret_file(tmp_path, bytes(file.MAX_SECRET))
    assert len(fetch(SECRETS, f"file://{path}")) == file.MAX_SECRET
    path.write_bytes(bytes(file.MAX_SECRET + 1))
    with pytest.raises(MalformedInput, match="larger than 1048576"):
        fetch(SECRETS, f"file://{path}")


@pytest.mark.skipif(not os.path.exists("/proc/self/environ"), reason="needs /proc")
def test_file_that_says_it_is_empty() -> None:
    """A file whose size is not known beforehand is read to its end."""
    assert os.stat("/proc/self/status").st_size == 0
    assert b"Pid:" in fetch(SECRETS, "file:///proc/self/status")


@pytest.mark.skipif(not os.path.exists("/dev/zero"), reason="needs /dev")
def test_device_is_refused() -> None:
    """A device would never end."""
    with pytest.raises(AccessDenied, match="/dev/zero is not a regular file"):
        fetch(SECRETS, "file:///dev/zero")


def test_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    """A named pipe without a writer does not hold up the caller."""
    os.mkfifo(tmp_path / "pipe", 0o600)
    with pytest.raises(AccessDenied, match="not a regular file"):
        fetch(SECRETS, f"file://{tmp_path}/pipe")


def test_directory_is_refused(tmp_path: Path) -> None:
    """A directory holds no secret."""
    with pytest.raises(AccessDenied, match="not a regular file"):
        fetch(SECRETS, f"file://{tmp_path}")


def test_symlink_is_followed(tmp_path: Path) -> None:
    """Orchestrators mount secrets as symlinks, and change them under the reader."""
    path = secret_file(tmp_path)
    (tmp_path / "link").symlink_to(path)
    assert fetch(SECRETS, f"file://{tmp_path}/link") == b"secret"


def test_loop_of_symlinks(tmp_path: Path) -> None:
    """A loop is denied."""
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(AccessDenied) as caught:
        fetch(SECRETS, f"file://{tmp_path}/loop")
    assert isinstance(caught.value.__cause__, VendorError)
    assert caught.value.__cause__.code == "ELOOP"


@pytest.mark.parametrize("tail", ["missing", "missing/secret", "secret/below"])
def test_missing_file(tail: str, tmp_path: Path) -> None:
    """A file, or a directory on the way, that is not there is told by its path."""
    secret_file(tmp_path)
    with pytest.raises(SecretNotFound, match=f"{tmp_path}/{tail} does not exist") as caught:
        fetch(SECRETS, f"file://{tmp_path}/{tail}")
    assert caught.value.retryable is False


def test_system_error_arrives_as_text_only(tmp_path: Path) -> None:
    """The operating system's exception stays behind; its name and code are kept."""
    with pytest.raises(SecretNotFound) as caught:
        fetch(SECRETS, f"file://{tmp_path}/missing")
    cause = caught.value.__cause__
    assert isinstance(cause, VendorError)
    assert (cause.type, cause.code, cause.message) == ("FileNotFoundError", "ENOENT", "")
    assert caught.value.__context__ is None
    assert cause.__context__ is None


def test_error_that_may_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An input/output error is retryable, and told in the system's words."""

    def read(descriptor: int, size: int) -> bytes:
        raise OSError(5, "planted")

    path = secret_file(tmp_path)
    monkeypatch.setattr(os, "read", read)
    with pytest.raises(ServiceUnavailable, match="cannot be read now") as caught:
        fetch(SECRETS, f"file://{path}")
    monkeypatch.undo()
    assert caught.value.retryable is True
    assert isinstance(caught.value.__cause__, VendorError)
    assert caught.value.__cause__.code == "EIO"


def test_no_descriptor_stays_open(tmp_path: Path) -> None:
    """Neither a good read nor a refused one leaves a file open."""
    path = secret_file(tmp_path)
    before = os.listdir("/proc/self/fd") if os.path.exists("/proc/self/fd") else None
    fetch(SECRETS, f"file://{path}")
    for refused in (tmp_path, tmp_path / "missing"):
        with pytest.raises(KMSError):
            fetch(SECRETS, f"file://{refused}")
    if before is None:
        pytest.skip("needs /proc")
    assert len(os.listdir("/proc/self/fd")) == len(before)


@pytest.mark.parametrize(
    "reference", ["file://relative", "file://relative/path", "file://localhost/etc/x"]
)
def test_relative_path_is_refused(reference: str) -> None:
    """Without a directory there is nothing that a path could be relative to."""
    with pytest.raises(MalformedInput, match="three slashes"):
        fetch(SECRETS, reference)


@pytest.mark.parametrize("tail", ["#field", "?version=1"])
def test_no_options_and_no_field(tail: str, tmp_path: Path) -> None:
    """What a file does not have is refused, not ignored."""
    path = secret_file(tmp_path)
    with pytest.raises(MalformedInput, match="no options and no field"):
        fetch(SECRETS, f"file://{path}{tail}")


def test_path_is_percent_decoded(tmp_path: Path) -> None:
    """A path with a space is reachable."""
    secret_file(tmp_path).rename(tmp_path / "a secret#1")
    assert fetch(SECRETS, f"file://{tmp_path}/a%20secret%231") == b"secret"


@pytest.mark.parametrize(
    ("mode", "warned"),
    [(0o600, False), (0o400, False), (0o640, False), (0o660, True), (0o604, True), (0o666, True),
     (0o601, True), (0o620, True)],
)  # fmt: skip
def test_mode_that_is_open_to_others_is_warned_of(
    mode: int,
    warned: bool,  # noqa: FBT001
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A file that others may read, or the group write, is read with a warning that names it."""
    path = secret_file(tmp_path, b"planted-secret", mode)
    with caplog.at_level(logging.DEBUG):
        assert fetch(SECRETS, f"file://{path}") == b"planted-secret"
    told = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(told) == warned
    if warned:
        assert str(path) in told[0]
        assert f"{mode:o}" in told[0]
    assert "planted" not in caplog.text


def test_file_of_another_user_is_denied() -> None:
    """A file that this user may not read is denied, in a child that gave up its privileges."""
    with open_directory() as directory:
        path = secret_file(directory, b"planted-secret", 0o000)
        readable = directory / "readable"
        readable.write_bytes(b"fine")
        readable.chmod(0o644)

        def work() -> str:
            assert fetch(SECRETS, f"file://{readable}") == b"fine"
            try:
                fetch(SECRETS, f"file://{path}")
            except AccessDenied as error:
                return f"{error} / {error.__cause__}"
            return "no error"

        assert in_unprivileged_child(work) == (
            f"the operating system denies access to {path}: check owner and mode "
            "/ PermissionError EACCES"
        )
