"""Secrets inside one directory: `docker`, `systemd`, and `file` with a directory."""

from __future__ import annotations

import errno
import logging
import os
import socket
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from sentra_kms.backends import docker, file, secret_files, systemd
from sentra_kms.errors import (
    AccessDenied,
    KMSError,
    MalformedInput,
    SecretNotFound,
    ServiceUnavailable,
)
from sentra_kms.hooktypes import SecretRequest
from sentra_kms.reference import Reference
from tests.backends.hosts import fetch, make_host

Make = Callable[[Path], Any]


def _docker(directory: Path) -> Any:
    return docker.create(docker.DockerSettings(directory=str(directory)), make_host("docker"))


def _systemd(directory: Path) -> Any:
    os.environ[systemd.DIRECTORY_VARIABLE] = str(directory)
    return systemd.create(systemd.SystemdSettings(), make_host("systemd"))


def _file(directory: Path) -> Any:
    return file.create(file.FileSettings(directory=str(directory)), make_host("file"))


@pytest.fixture(params=[_docker, _systemd, _file], ids=["docker", "systemd", "file"])
def make(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Make:
    """Return what makes a part over a directory, of each type."""
    monkeypatch.setenv(systemd.DIRECTORY_VARIABLE, "/nonexistent")
    made: Make = request.param
    return made


@pytest.fixture
def mount(tmp_path: Path) -> Path:
    """Return a directory of secrets with a neighbour that holds others."""
    (tmp_path / "outside").mkdir()
    put(tmp_path / "outside" / "other", b"not for you")
    inside = tmp_path / "secrets"
    inside.mkdir()
    return inside


def put(path: Path, data: bytes, mode: int = 0o600) -> Path:
    """Write a file of this mode."""
    path.write_bytes(data)
    path.chmod(mode)
    return path


def kubernetes(mount: Path, name: str, data: bytes, stamp: str) -> None:
    """Put a new set of secrets in place as a kubelet does: by renaming one link."""
    folder = mount / f"..{stamp}"
    folder.mkdir()
    put(folder / name, data)
    (mount / "..data_tmp").symlink_to(folder.name)
    before = os.readlink(mount / "..data") if (mount / "..data").is_symlink() else None
    (mount / "..data_tmp").rename(mount / "..data")
    if before is not None:
        (mount / before / name).unlink()
        (mount / before).rmdir()
    if not (mount / name).is_symlink():
        (mount / name).symlink_to(f"..data/{name}")


def test_file_inside(make: Make, mount: Path) -> None:
    """A file is read as it is, also in a subdirectory, and tells when it was written."""
    put(mount / "one", b"first\n")
    (mount / "deep" / "er").mkdir(parents=True)
    put(mount / "deep" / "er" / "two", b"second")
    os.utime(mount / "one", (1_700_000_000, 1_700_000_000))
    part = make(mount)
    assert fetch(part, "x://one") == b"first\n"
    assert fetch(part, "x://deep/er/two") == b"second"
    assert fetch(part, "x://deep//er/two") == b"second"
    assert fetch(part, "x://one?newline=keep") == b"first\n"
    answer = part.fetch_secret(SecretRequest(Reference("x://one")), 5.0)
    assert answer.created == datetime.fromtimestamp(1_700_000_000, UTC)
    assert answer.version is None


@pytest.mark.parametrize("reference", ["x:///etc/passwd", "x:////etc/passwd", "x://%2Fetc/passwd"])
def test_path_from_the_root_is_refused(make: Make, mount: Path, reference: str) -> None:
    """A path that begins at the root is no path inside the directory."""
    with pytest.raises(MalformedInput, match="inside it"):
        fetch(make(mount), reference)


@pytest.mark.parametrize("tail", ["#field", "?version=1", "?newline=drop", "?newline=keep&a=b"])
def test_no_options_and_no_field(make: Make, mount: Path, tail: str) -> None:
    """What a file does not have is refused, not ignored."""
    put(mount / "one", b"first")
    with pytest.raises(MalformedInput, match="no options and no field"):
        fetch(make(mount), f"x://one{tail}")


@pytest.mark.parametrize("missing", ["nothing", "nothing/at/all", "one/two", "n" * 300])
def test_missing_file(make: Make, mount: Path, missing: str) -> None:
    """What is not there is not found, and lets a chain go on."""
    put(mount / "one", b"first")
    with pytest.raises(SecretNotFound, match="does not exist"):
        fetch(make(mount), f"x://{missing}")


def test_missing_directory(make: Make, mount: Path) -> None:
    """Neither is what would be in a directory that is not there."""
    with pytest.raises(SecretNotFound):
        fetch(make(mount / "nowhere"), "x://one")


def test_directory_is_no_secret(make: Make, mount: Path) -> None:
    """A directory, a pipe and a device are refused, and not waited for."""
    (mount / "folder").mkdir()
    os.mkfifo(mount / "pipe")
    part = make(mount)
    for name in ("folder", "pipe", "folder/"):
        with pytest.raises(AccessDenied, match="not a regular file"):
            fetch(part, f"x://{name}")


def test_socket_is_no_secret(make: Make, mount: Path) -> None:
    """A socket is refused for good, and not taken for a source that is away for a while."""
    with socket.socket(socket.AF_UNIX) as listening:
        descriptor = os.open(
            mount, os.O_RDONLY
        )  # a socket's path is short, and a test's may not be
        listening.bind(f"/proc/self/fd/{descriptor}/s")
        os.close(descriptor)
        with pytest.raises(AccessDenied, match="not a regular file"):
            fetch(make(mount), "x://s")


def test_year_that_is_no_date(make: Make, mount: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file whose time is beyond every calendar is read; it does not tell when it was written."""
    put(mount / "one", b"first")
    os.utime(mount / "one", (2.0**40, 2.0**40))
    if os.stat(mount / "one").st_mtime < 2.0**40:  # this file system has no such year
        monkeypatch.setattr(os, "fstat", _far_future(os.fstat))
    answer = make(mount).fetch_secret(SecretRequest(Reference("x://one")), 5.0)
    assert answer.data.reveal() == b"first"
    assert answer.created is None


def _far_future(fstat: Callable[[int], os.stat_result]) -> Callable[[int], os.stat_result]:
    def found(file: int) -> os.stat_result:
        fields = list(fstat(file))
        fields[8] = 2**40  # st_mtime
        return os.stat_result(fields)

    return found


def test_link_inside_is_followed(make: Make, mount: Path) -> None:
    """A relative link that stays inside is followed, also over '..' and to a directory."""
    (mount / "a").mkdir()
    (mount / "b").mkdir()
    put(mount / "a" / "real", b"here")
    (mount / "plain").symlink_to("a/real")
    (mount / "b" / "up").symlink_to("../a/./real")
    (mount / "folder").symlink_to("a")
    (mount / "twice").symlink_to("plain")
    part = make(mount)
    for name in ("plain", "b/up", "folder/real", "twice"):
        assert fetch(part, f"x://{name}") == b"here"


def test_link_that_leads_out_is_refused(make: Make, mount: Path) -> None:
    """No link leads out of the directory, neither absolute nor relative nor over another."""
    (mount / "a").mkdir()
    (mount / "relative").symlink_to("../outside/other")
    (mount / "absolute").symlink_to(mount.parent / "outside" / "other")
    (mount / "folder").symlink_to("../outside")
    (mount / "a" / "deep").symlink_to("../../outside/other")
    (mount / "over").symlink_to("a/deep")
    (mount / "back").symlink_to(f"../{mount.name}/one")
    put(mount / "one", b"first")
    part = make(mount)
    for name in ("relative", "absolute", "folder/other", "a/deep", "over", "back"):
        with pytest.raises(AccessDenied, match="leads out of") as caught:
            fetch(part, f"x://{name}")
        assert "not for you" not in str(caught.value)


def test_circle_of_links_is_refused(make: Make, mount: Path) -> None:
    """Links that lead to each other end."""
    (mount / "one").symlink_to("two")
    (mount / "two").symlink_to("one")
    with pytest.raises(AccessDenied):
        fetch(make(mount), "x://one")


def test_directory_itself_may_be_a_link(make: Make, mount: Path) -> None:
    """Where the directory is reached over a link, as /var/run often is, it is the directory."""
    put(mount / "one", b"first")
    (mount.parent / "link").symlink_to(mount)
    assert fetch(make(mount.parent / "link"), "x://one") == b"first"


def test_kubernetes_swap_is_seen(make: Make, mount: Path) -> None:
    """A mounted secret that a kubelet renews by its `..data` link is seen at the next read."""
    kubernetes(mount, "password", b"one", "2026_01")
    part = make(mount)
    assert fetch(part, "x://password") == b"one"
    kubernetes(mount, "password", b"two", "2026_02")
    assert fetch(part, "x://password") == b"two"


def test_kubernetes_swap_under_readers(make: Make, mount: Path) -> None:
    """While the link is renewed over and over, each read gives one of the whole values."""
    kubernetes(mount, "password", b"value-0", "0")
    part = make(mount)
    stop = threading.Event()
    seen: set[bytes] = set()
    failures: list[Exception] = []

    def read() -> None:
        while not stop.is_set():
            try:
                seen.add(fetch(part, "x://password"))
            except Exception as error:  # noqa: BLE001 - judged below
                failures.append(error)
                return

    thread = threading.Thread(target=read)
    thread.start()
    for number in range(1, 400):
        kubernetes(mount, "password", b"value-%d" % number, str(number))
    stop.set()
    thread.join(60)
    assert not failures
    assert seen <= {b"value-%d" % number for number in range(400)}


def test_missing_behind_a_link_is_not_found(make: Make, mount: Path) -> None:
    """A link to nothing that nobody is renewing is not found, and not tried for ever."""
    (mount / "dangling").symlink_to("..data/nothing")
    with pytest.raises(SecretNotFound):
        fetch(make(mount), "x://dangling")


def test_file_behind_links_that_are_swapped_all_the_time_is_not_missing(
    make: Make, mount: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No walk got to its end: that is told as a passing trouble, and lets no list go on."""
    kubernetes(mount, "password", b"value", "0")
    part = make(mount)
    renewals = iter(range(1, 1000))
    find = os.readlink

    def swapped(path: str, **options: int) -> str:
        found = find(path, **options)
        if path == "..data":
            kubernetes(mount, "password", b"value", str(next(renewals)))
        return found

    monkeypatch.setattr(os, "readlink", swapped)
    with pytest.raises(ServiceUnavailable, match="cannot be read now"):
        fetch(part, "x://password")
    assert next(renewals) < 200


def test_links_that_never_stand_still_end(
    make: Make, mount: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A link that says something else at each look is given up."""
    looks = iter(range(1000))
    monkeypatch.setattr(os, "readlink", lambda *_, **__: f"{next(looks)}/x/y")
    with pytest.raises(KMSError):
        fetch(make(mount), "x://one")
    assert next(looks) < 100


def test_largest_secret(make: Make, mount: Path) -> None:
    """One byte over 1 MiB is refused."""
    put(mount / "huge", bytes(secret_files.MAX_SECRET + 1))
    with pytest.raises(MalformedInput, match="larger than 1048576"):
        fetch(make(mount), "x://huge")


def test_disk_error_is_retryable(make: Make, mount: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An input/output error is retryable, and told in the system's words."""
    put(mount / "one", b"first")

    def read(descriptor: int, size: int) -> bytes:
        raise OSError(errno.EIO, "planted")

    part = make(mount)
    monkeypatch.setattr(os, "read", read)
    with pytest.raises(ServiceUnavailable, match="cannot be read now"):
        fetch(part, "x://one")


@pytest.mark.parametrize(
    ("mode", "warned_by"),
    [
        (0o600, set()),
        (0o400, set()),
        (0o440, set()),
        (0o444, {"systemd", "file"}),
        (0o660, {"docker", "systemd", "file"}),
        (0o602, {"docker", "systemd", "file"}),
    ],
)
def test_mode_is_warned_of_once(
    make: Make,
    mount: Path,
    mode: int,
    warned_by: set[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A file that is open to others is warned of once; that Docker's are readable is its way."""
    put(mount / "one", b"planted-secret", mode)
    part = make(mount)
    with caplog.at_level(logging.DEBUG):
        fetch(part, "x://one")
        fetch(part, "x://one")
    kind = type(part).__name__.removesuffix("Secrets").lower()
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == (kind in warned_by)
    assert all(str(mount / "one") in text and f"{mode:o}" in text for text in told)
    assert "planted" not in caplog.text


def test_no_descriptor_stays_open(make: Make, mount: Path) -> None:
    """Neither a good read nor a refused one leaves a file or directory open."""
    (mount / "a").mkdir()
    put(mount / "a" / "one", b"first")
    (mount / "out").symlink_to("../outside/other")
    part = make(mount)
    before = len(os.listdir("/proc/self/fd"))
    fetch(part, "x://a/one")
    for name in ("out", "a", "nothing", "a/one/more"):
        with pytest.raises(KMSError):
            fetch(part, f"x://{name}")
    assert len(os.listdir("/proc/self/fd")) == before


def test_not_under_systemd(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the variable there are no credentials, and a chain goes on."""
    monkeypatch.delenv(systemd.DIRECTORY_VARIABLE, raising=False)
    part = systemd.create(systemd.SystemdSettings(), make_host("systemd"))
    with pytest.raises(SecretNotFound, match="LoadCredential="):
        fetch(part, "systemd://one")


def test_relative_credentials_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Systemd sets an absolute path; anything else is not from systemd."""
    monkeypatch.setenv(systemd.DIRECTORY_VARIABLE, "credentials")
    part = systemd.create(systemd.SystemdSettings(), make_host("systemd"))
    with pytest.raises(AccessDenied, match="absolute"):
        fetch(part, "systemd://one")


def test_docker_reads_run_secrets() -> None:
    """Docker's own directory is the default."""
    assert docker.DockerSettings().directory == "/run/secrets"
