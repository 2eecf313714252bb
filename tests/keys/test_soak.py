"""Random walks of several processes over the same tenants: no message is lost."""

from __future__ import annotations

import base64
import json
import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sentra_kms.config import read_settings
from sentra_kms.errors import KeyUnavailable
from sentra_kms.runtime import KMS
from tests.keys.conftest import ROOT, Site
from tests.soak import scale, seed

WALKER = Path(__file__).with_name("walker.py")
MINUTE = 60.0


class Walk:
    """Processes that walk, and what became of them."""

    def __init__(self, home: Path, **task: Any) -> None:
        self.home = home
        self.task = task
        self.running: list[subprocess.Popen[str]] = []
        self.counts: Counter[str] = Counter()
        self.logs = 0

    def begin(self, seed_of_it: int, seconds: float) -> None:
        """Start one more."""
        self.logs += 1
        task = {
            **self.task,
            "seed": seed_of_it,
            "seconds": seconds,
            "log": str(self.home / f"{self.logs}.log"),
        }
        errors = (self.home / f"{self.logs}.err").open("w")
        with errors:
            self.running.append(
                subprocess.Popen(
                    [sys.executable, str(WALKER), json.dumps(task)],
                    stdout=subprocess.PIPE,
                    stderr=errors,
                    text=True,
                    env={**os.environ, "PYTHONPATH": ROOT},
                )
            )

    def kill(self, index: int) -> None:
        """Kill one, wherever it is."""
        process = self.running.pop(index)
        process.kill()
        process.communicate(timeout=MINUTE)
        assert process.returncode in {-9, 0}, self.errors()

    def join(self) -> None:
        """Let all come to their end."""
        while self.running:
            process = self.running.pop()
            output, _ = process.communicate(timeout=3 * MINUTE)
            assert process.returncode == 0, self.errors()
            self.counts.update(json.loads(output.splitlines()[-1]))
        assert self.errors() == ""

    def errors(self) -> str:
        """Return what went wrong, of all."""
        return "".join(path.read_text() for path in sorted(self.home.glob("*.err")))

    def messages(self) -> Iterator[tuple[str, bytes, bytes]]:
        """Yield every message that was acknowledged: tenant, message, plaintext."""
        for path in sorted(self.home.glob("*.log")):
            for line in path.read_bytes().splitlines(keepends=True):
                if line.endswith(b"\n"):
                    tenant, message, plain = line.rstrip(b"\n").split(b"\t")
                    yield tenant.decode(), base64.b64decode(message), base64.b64decode(plain)

    def stop(self) -> None:
        """End what is left after a failure."""
        for process in self.running:
            process.kill()
            process.communicate()


def account(kms: KMS, walk: Walk) -> Counter[str]:
    """See that every message opens, or that its version says why not; return how many of each.

    Those that are disabled or scheduled are enabled, and open then.
    """
    keys = kms.keys
    rings = {tenant: keys.describe(tenant) for tenant in keys.tenants()}
    found: Counter[str] = Counter()
    closed: list[tuple[str, bytes, bytes]] = []
    for tenant, message, plain in walk.messages():
        number = int.from_bytes(message[16:20], "big")
        (version,) = [each for each in rings[tenant].versions if each.version == number]
        found[version.state] += 1
        if version.state == "enabled":
            assert keys.decrypt(tenant, message, context=tenant.encode()) == plain
            continue
        with pytest.raises(KeyUnavailable):
            keys.decrypt(tenant, message, context=tenant.encode())
        if version.state != "destroyed":
            closed.append((tenant, message, plain))
    for tenant, ring in rings.items():
        for version in ring.versions:
            if version.state == "scheduled":
                keys.cancel_destroy(tenant, version.version)
            if version.state in {"scheduled", "disabled"}:
                keys.enable(tenant, version.version)
    for tenant, message, plain in closed:
        assert keys.decrypt(tenant, message, context=tenant.encode()) == plain
    return found


def tell(walk: Walk, found: Counter[str]) -> None:
    """Print the figures."""
    print(f"messages {dict(found)}, of {sum(found.values())}")  # noqa: T201
    print("operations", dict(sorted(walk.counts.items())))  # noqa: T201


@pytest.mark.slow
@pytest.mark.soak
def test_two_processes_that_rotate_disable_and_rewrap_lose_nothing(key_site: Site) -> None:
    """At random, on one tenant, with keys that are held for a moment only."""
    config = key_site.config(
        "local:m1",
        cache={"ring_ttl": "200ms", "key_ttl": "300ms", "max_stale": "1s"},
    )
    config["test"]["policies"] = {"gold": {}, "each": {"key_ttl": "0s"}}
    KMS(read_settings(config, "test")).keys.create("acme")
    walk = Walk(
        key_site.home,
        config=config,
        tenants=["acme"],
        threads=2,
        stormy=False,
        operations={
            "encrypt": 20,
            "decrypt": 20,
            "rotate": 2,
            "disable": 4,
            "enable": 4,
            "rewrap": 1,
        },
    )
    base = seed()
    try:
        for number in range(2):
            walk.begin(base + number, scale(ci=6, soak=60))
        walk.join()
    finally:
        walk.stop()
    found = account(KMS(read_settings(config, "test")), walk)
    tell(walk, found)
    assert found["enabled"] > 0
    assert not any(key.endswith("ServiceUnavailable") for key in walk.counts)


@pytest.mark.slow
@pytest.mark.soak
def test_processes_that_are_killed_in_bad_weather_lose_nothing(key_site: Site) -> None:
    """Four of sixteen threads each; backends that fail, hang and lose answers; clocks that jump."""
    base = seed()
    chance = random.Random(base)
    masters = {name: key_site.reference(name) for name in ("m1", "m2")}
    local = {"type": "local", "timeout": "2s"}
    config: dict[str, Any] = {
        "test": {
            "development": True,
            "backends": {
                "auth": {
                    **local,
                    "directory": str(key_site.home / "unused"),
                    "master_keys": masters,
                },
                "old": {**local, "directory": str(key_site.home / "old"), "master_keys": masters},
                "new": {**local, "directory": str(key_site.home / "new"), "master_keys": masters},
            },
            "keys": {
                "wrap_with": ["old:m1", "new:m2"],
                "min_wraps": 1,
                "authenticate_with": ["auth:m1"],
                "store": "old",
            },
            "policies": {
                "gold": {"wrap_with": ["new:m1"], "unwrap_with": ["old:m1"], "key_ttl": "1s"},
                "each": {"key_ttl": "0s"},
            },
            "cache": {"ring_ttl": "500ms", "key_ttl": "2s", "max_stale": "30s", "max_keys": 5},
        }
    }
    tenants = [f"t{number}" for number in range(8)]
    with KMS(read_settings(config, "test")) as kms:
        for tenant in tenants:
            kms.keys.create(tenant)
    config["test"]["keys"].update(store="new", previous_store="old")
    walk = Walk(
        key_site.home,
        config=config,
        tenants=tenants,
        threads=16,
        stormy=True,
        operations={
            "encrypt": 200,
            "decrypt": 200,
            "rotate": 8,
            "disable": 12,
            "enable": 16,
            "rewrap": 4,
            "set_policy": 4,
            "schedule": 2,
            "destroy_due": 1,
            "move": 1,
            "reload": 1,
            "warm": 2,
        },
    )
    end = time.monotonic() + scale(ci=60, soak=600)
    kills = 0
    try:
        while time.monotonic() < end:
            while len(walk.running) < 4:
                walk.begin(chance.getrandbits(32), max(1.0, end - time.monotonic()))
            time.sleep(chance.uniform(0.5, 3.0))
            if time.monotonic() < end - 2.0:
                walk.kill(chance.randrange(4))
                kills += 1
        walk.join()
    finally:
        walk.stop()
    config["test"]["cache"] = {}  # what it takes to read so many is not in question now
    config["test"]["policies"]["each"] = {}
    with KMS(read_settings(config, "test")) as kms:
        found = account(kms, walk)
        print(f"{kills} processes killed")  # noqa: T201
        tell(walk, found)
        assert kills > 0
        assert found["enabled"] > 0
        assert sorted(kms.keys.tenants()) == tenants
        for tenant in tenants:
            kms.keys.move(tenant)
            assert kms.keys.decrypt(tenant, kms.keys.encrypt(tenant, b"x")) == b"x"
