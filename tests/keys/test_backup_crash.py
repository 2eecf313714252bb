"""Killed at any point, a backup is whole or not there, and a restore can be run again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from sentra_kms.runtime import KMS
from tests.keys.conftest import ROOT, WAIT, Site

TENANTS = [f"t{number}" for number in range(4)]

# Kills the process before its n-th call of the operating system within a module.
KILL_AT = """
import importlib, json, os, signal, sys
import sentra_kms
config, point, module, operation, path = map(json.loads, sys.argv[1:])
module = importlib.import_module(module)
kms = sentra_kms.load(config, environment="test")
calls = []

class Doomed:
    def __getattr__(self, name):
        real = getattr(os, name)
        if name not in {"fchmod", "fdopen", "write", "fsync", "rename", "open", "link", "unlink"}:
            return real
        def call(*arguments, **options):
            calls.append(name)
            if len(calls) == point:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*arguments, **options)
        return call

module.os = Doomed()
if hasattr(module, "place_of"):
    sys.modules[module.place_of.__module__].os = module.os
if operation == "backup":
    kms.keys.backup(path)
else:
    kms.keys.restore(path, force=True)
print(json.dumps(calls))
"""


@pytest.fixture
def kms(key_site: Site) -> KMS:
    """A KMS over real files with some tenants."""
    kms = key_site.open()
    for tenant in TENANTS:
        kms.keys.create(tenant)
    return kms


def killed(site: Site, point: int, module: str, operation: str, path: Path) -> list[str] | None:
    """Run an operation in a process that is killed at a point; what it called if it was not."""
    arguments = (site.config(), point, f"sentra_kms.{module}", operation, str(path))
    done = subprocess.run(
        [sys.executable, "-c", KILL_AT, *(json.dumps(value) for value in arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": ROOT},
        timeout=WAIT,
        check=False,
    )
    if done.returncode == -signal.SIGKILL:
        return None
    assert done.returncode == 0, done.stderr
    calls: list[str] = json.loads(done.stdout)
    return calls


def test_a_backup_that_was_killed_is_not_there(key_site: Site, kms: KMS, tmp_path: Path) -> None:
    """Until it gets its name there is nothing there, and from then on the whole file."""
    calls = killed(key_site, 0, "keys.private_file", "backup", tmp_path / "whole")
    assert calls is not None
    named = calls.index("link")
    assert calls.index("fsync") < named < calls.index("unlink") < len(calls) - 1  # the directory's
    for point in range(1, len(calls) + 1):
        path = tmp_path / f"backup-{point}"
        assert killed(key_site, point, "keys.private_file", "backup", path) is None
        assert path.exists() == (point > named + 1)
        if path.exists():
            assert len(kms.keys.restore(path, dry_run=True).tenants) == len(TENANTS)


def test_a_restore_that_was_killed_is_run_again(key_site: Site, kms: KMS, tmp_path: Path) -> None:
    """Wherever it stopped, each ring is the old one or the new one, and the next run ends it."""
    path = tmp_path / "backup"
    messages = {tenant: kms.keys.encrypt(tenant, b"kept") for tenant in TENANTS}
    kms.keys.backup(path)
    for tenant in TENANTS:
        kms.keys.rotate(tenant)
    stopped_after: set[int] = set()
    for point in (9, 12, 14, 20, 24, 30):
        for tenant in TENANTS:
            if len(kms.keys.describe(tenant).versions) == 1:
                kms.keys.rotate(tenant)
        assert killed(key_site, point, "backends.ring_files", "restore", path) is None, point
        fresh = key_site.open()
        lengths = [len(fresh.keys.describe(tenant).versions) for tenant in TENANTS]
        assert lengths == sorted(lengths)  # 1 is restored: the first ones, in their order
        stopped_after.add(lengths.count(1))
        report = fresh.keys.restore(path, force=True)
        assert not report.failed
        actions = [each.action for each in report.tenants]
        assert actions == ["unchanged" if length == 1 else "force" for length in lengths]
        for tenant, message in messages.items():
            assert kms.keys.describe(tenant) == fresh.keys.describe(tenant)
            assert fresh.keys.decrypt(tenant, message) == b"kept"
    assert len(stopped_after) > 1
