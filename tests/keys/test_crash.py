"""Killed at any point, a save leaves the old ring or the new one, and loses no version."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time

import pytest

from tests.keys.conftest import ROOT, WAIT, Site

KILLS = 20

ROTATE_FOR_EVER = """
import json, os, sys
import sentra_kms
config = json.loads(sys.argv[1])
kms = sentra_kms.load(config, environment="test")
while True:
    number = kms.keys.rotate("acme").primary
    os.write(1, f"{number}\\n".encode())
"""

# Kills the process before or after its n-th call of the operating system within a save.
KILL_AT = """
import json, os, signal, sys
import sentra_kms
from sentra_kms.backends import ring_files
config, point, when, half = map(json.loads, sys.argv[1:])
kms = sentra_kms.load(config, environment="test")
kms.keys.rotate("acme")  # everything that a rotation needs is imported now
calls = []

class Doomed:
    def __getattr__(self, name):
        real = getattr(os, name)
        if name not in {"open", "fchmod", "write", "fsync", "rename", "replace", "close", "link"}:
            return real
        def call(*arguments, **options):
            calls.append(name)
            doomed = len(calls) == point
            if doomed and half and name == "write":
                arguments = (arguments[0], bytes(arguments[1])[: len(arguments[1]) // 2])
            if doomed and when == "before":
                os.kill(os.getpid(), signal.SIGKILL)
            answer = real(*arguments, **options)
            if doomed:
                os.kill(os.getpid(), signal.SIGKILL)
            return answer
        return call

ring_files.os = Doomed()
kms.keys.rotate("acme")
print(json.dumps(calls))
"""


def run(script: str, *arguments: object) -> subprocess.Popen[str]:
    """Start a script in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-c", script, *(json.dumps(value) for value in arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": ROOT},
    )


def check_whole(site: Site, message: bytes, at_least: int) -> int:
    """Assert that acme's ring is whole, opens, and has every version to `at_least`."""
    kms = site.open()
    info = kms.keys.describe("acme")
    numbers = [version.version for version in info.versions]
    assert numbers == list(range(1, len(numbers) + 1))
    assert info.primary == info.sequence == len(numbers) >= at_least
    assert kms.keys.decrypt("acme", message) == b"from the start"
    assert kms.keys.decrypt("acme", kms.keys.encrypt("acme", b"x")) == b"x"
    assert list(kms.keys.tenants()) == ["acme"]
    return len(numbers)


def test_killed_while_rotating_loses_no_version_that_was_acknowledged(key_site: Site) -> None:
    """SIGKILL at random points: each time a whole ring, and no version that was reported gone."""
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")  # noqa: T201 - shown if the test fails
    chance = random.Random(seed)
    kms = key_site.open()
    kms.keys.create("acme")
    message = kms.keys.encrypt("acme", b"from the start")
    config = key_site.config()
    have = 1
    for _ in range(KILLS):
        child = run(ROTATE_FOR_EVER, config)
        assert child.stdout is not None
        # The first acknowledgement says that it is at work; from there on, any moment will do.
        acknowledged = [child.stdout.readline()]
        assert acknowledged[0], child.communicate()[1]
        time.sleep(chance.uniform(0, 0.02))
        child.kill()
        # Not by communicate(), which reads past what readline() has taken into its buffer.
        acknowledged += child.stdout.readlines()
        errors = child.communicate(timeout=WAIT)[1]
        assert errors == ""
        numbers = [int(line) for line in acknowledged if line.endswith("\n")]
        assert numbers == list(range(have + 1, have + 1 + len(numbers)))
        have = check_whole(key_site, message, numbers[-1])
        assert have <= numbers[-1] + 1
    assert key_site.open().keys.rotate("acme").primary == have + 1


def points(site: Site) -> list[str]:
    """Return the calls of the operating system that one save makes, in their order."""
    child = run(KILL_AT, site.config(), 0, "before", 0)
    output, errors = child.communicate(timeout=WAIT)
    assert child.returncode == 0, errors
    calls: list[str] = json.loads(output)
    return calls


def test_killed_at_every_system_call_of_a_save(key_site: Site) -> None:
    """Before and after each call, and in the middle of the write: the old ring or the new one."""
    kms = key_site.open()
    kms.keys.create("acme")
    message = kms.keys.encrypt("acme", b"from the start")
    config = key_site.config()
    calls = points(key_site)
    assert {"open", "write", "fsync", "rename"} <= set(calls)
    dooms = [
        (point, when, half)
        for point, name in enumerate(calls, 1)
        if name in {"fchmod", "write", "fsync", "rename"}
        for when, half in (("before", False), ("after", False), ("after", True))
        if name == "write" or not half
    ]
    moved: list[tuple[int, str, bool]] = []
    have = check_whole(key_site, message, 2)
    for doom in dooms:
        child = run(KILL_AT, config, *doom)
        child.communicate(timeout=WAIT)
        assert child.returncode == -9, doom
        # One rotation went through before the one that was killed.
        now = check_whole(key_site, message, have + 1)
        assert now - have in {1, 2}, doom
        if now - have == 2:
            moved.append(doom)
        have = now
    # The new ring is there from the rename on, and not before.
    rename = calls.index("rename") + 1
    assert moved == [
        doom for doom in dooms if doom[0] > rename or (doom[0] == rename and doom[1] == "after")
    ]


def test_what_a_killed_save_leaves_is_in_nobodys_way(key_site: Site) -> None:
    """Its temporary file is no ring, keeps mode 600, and the next save passes it by."""
    kms = key_site.open()
    kms.keys.create("acme")
    message = kms.keys.encrypt("acme", b"from the start")
    calls = points(key_site)
    child = run(KILL_AT, key_site.config(), calls.index("write") + 1, "after", 1)
    child.communicate(timeout=WAIT)
    left = [path for path in key_site.directory.iterdir() if path.name.endswith(".tmp")]
    assert len(left) == 1
    assert left[0].stat().st_mode & 0o777 == 0o600
    check_whole(key_site, message, 2)
    key_site.open().keys.rotate("acme")
    check_whole(key_site, message, 3)


@pytest.mark.parametrize("signal_name", ["SIGINT", "SIGTERM"])
def test_interrupted_process_leaves_a_whole_ring(key_site: Site, signal_name: str) -> None:
    """Ctrl-C and an orderly end leave no more behind than a kill does."""
    import signal

    kms = key_site.open()
    kms.keys.create("acme")
    message = kms.keys.encrypt("acme", b"from the start")
    child = run(ROTATE_FOR_EVER, key_site.config())
    assert child.stdout is not None
    assert child.stdout.readline()
    child.send_signal(getattr(signal, signal_name))
    rest, _ = child.communicate(timeout=WAIT)
    numbers = [int(line) for line in rest.splitlines()]
    check_whole(key_site, message, max(numbers, default=2))
