"""The key directory: what is made on the way to it lasts, and what cannot be one is refused."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import sentra_kms
from sentra_kms.backends.ring_files import RingFiles
from sentra_kms.errors import ConfigurationError, KMSError
from tests.conftest import ConfigFactory
from tests.keys.conftest import in_threads

SOON = 60.0  # seconds that no lock is held for
Flushed = list[tuple[str, list[str]]]


@pytest.fixture
def flushed(monkeypatch: pytest.MonkeyPatch) -> Flushed:
    """Each directory that was flushed, in order, with the names that it held then."""
    found: Flushed = []
    fsync = os.fsync

    def spy(descriptor: int) -> None:
        path = os.readlink(f"/proc/self/fd/{descriptor}")
        if os.path.isdir(path):
            found.append((path, os.listdir(path)))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", spy)
    return found


def is_flushed(flushed: Flushed, parent: Path, name: str) -> bool:
    """Whether a directory was flushed when it held a name."""
    return any(path == str(parent) and name in names for path, names in flushed)


@pytest.mark.parametrize("there", [0, 1, 2, 3, 4])
@pytest.mark.parametrize("ending", ["", "/", "/."])
def test_every_new_entry_on_the_way_reaches_the_disk(
    tmp_path: Path, flushed: Flushed, there: int, ending: str
) -> None:
    """After a power failure the ring is there only if every directory above it is."""
    steps = ["a", "b", "c", "d", "keys"]
    tmp_path.joinpath(*steps[:there]).mkdir(parents=True, exist_ok=True)
    directory = tmp_path.joinpath(*steps)
    rings = RingFiles(str(directory) + ending, network_allowed=True)
    rings.save_ring("acme", b"1", None, SOON)
    for depth in range(there, len(steps)):
        parent = tmp_path.joinpath(*steps[:depth])
        assert is_flushed(flushed, parent, steps[depth]), f"{steps[depth]} in {parent}"
    assert is_flushed(flushed, directory, "acme.ring")
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert rings.load_ring("acme", SOON).document == b"1"


def test_upper_entries_reach_the_disk_before_lower_ones(tmp_path: Path, flushed: Flushed) -> None:
    """At no instant does an entry last whose way might not."""
    directory = tmp_path / "a" / "b" / "keys"
    RingFiles(str(directory), network_allowed=True).save_ring("acme", b"1", None, SOON)
    order = [path for path, _ in flushed]
    wanted = [str(tmp_path), str(tmp_path / "a"), str(tmp_path / "a" / "b"), str(directory)]
    assert [order.index(path) for path in wanted] == sorted(order.index(path) for path in wanted)


def test_directory_that_is_there_costs_no_more(tmp_path: Path, flushed: Flushed) -> None:
    """Only what is made is flushed: a second save touches the key directory alone."""
    directory = tmp_path / "a" / "keys"
    rings = RingFiles(str(directory), network_allowed=True)
    rings.save_ring("acme", b"1", None, SOON)
    flushed.clear()
    rings.save_ring("other", b"1", None, SOON)
    assert {path for path, _ in flushed} == {str(directory)}


def test_threads_that_make_the_same_directories_at_once(tmp_path: Path) -> None:
    """Who finds that another one made a step goes on from there."""
    for attempt in range(10):
        directory = tmp_path / str(attempt) / "a" / "b" / "keys"

        def save(index: int, directory: Path = directory) -> str:
            rings = RingFiles(str(directory), network_allowed=True)
            return rings.save_ring(f"tenant-{index}", b"1", None, SOON)

        in_threads(save, 8)
        assert len(list(directory.glob("*.ring"))) == 8


def put_file(path: Path) -> None:
    """Put a file where a directory belongs."""
    path.write_text("")


def put_dangling_symlink(path: Path) -> None:
    """Put a symlink to nowhere where a directory belongs."""
    path.symlink_to(path.parent / "nowhere")


@pytest.mark.parametrize("block", [put_file, put_dangling_symlink])
@pytest.mark.parametrize("below", ["keys", "b/keys", "b/c/keys"])
def test_way_that_is_blocked_is_told(
    tmp_path: Path, block: Callable[[Path], None], below: str
) -> None:
    """A file or a broken symlink on the way is an error of ours, and stays as it is."""
    block(tmp_path / "a")
    rings = RingFiles(str(tmp_path / "a" / below), network_allowed=True)
    with pytest.raises(KMSError):
        rings.save_ring("acme", b"1", None, SOON)
    assert os.listdir(tmp_path) == ["a"]


@pytest.mark.parametrize("directory", ["", "\x00", "keys\x00", "/tmp/\x00/keys", 7, True, ["keys"]])
def test_what_cannot_be_a_directory_is_refused_at_load(
    config: ConfigFactory, directory: object
) -> None:
    """An empty name would silently mean the default, and one with NUL fail at the first use."""
    mapping: dict[str, Any] = config()
    mapping["development"]["backends"]["local"]["directory"] = directory
    with pytest.raises(ConfigurationError) as caught:
        sentra_kms.load(mapping, "development")
    assert "backends.local" in caught.value.message
    assert "directory" in caught.value.message
    assert "\x00" not in caught.value.message
