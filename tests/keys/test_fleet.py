"""Processes that create, rotate, rewrap and write the same tenants at once, under two KEKs.

Half of the fleet wraps under one KEK and half under the other, so that each rewrap finds something
to do and undoes what the others did. In the end each process opens what all of them sealed.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import threading
from collections import Counter
from typing import Any

import pytest

from tests.keys.conftest import ROOT, WAIT, Site
from tests.soak import scale, seed

TENANTS = ["acme", "Acme", "other"]
AUTH = ("local:m1", "local:m2")

WORK = """
import base64, json, random, sys
import sentra_kms

config, acts, rounds, tenants, seed, first = map(json.loads, sys.argv[1:])
kms = sentra_kms.load(config, environment="test")
chance = random.Random(seed)

def opens(tenant, box, plain):
    return kms.keys.decrypt(tenant, base64.b64decode(box), plain.encode()) == plain.encode()

print("ready", flush=True)
sys.stdin.readline()
made, rotated, asked, rings, floors = [], [], [], {}, {}
for step in range(rounds):
    tenant = chance.choice(tenants)
    act = chance.choice(acts)
    if tenant not in rings:
        rings[tenant] = kms.keys.create(tenant, exist_ok=True).ring_id
    if act == "rotate":
        floors[tenant] = kms.keys.rotate(tenant).primary
        rotated.append(tenant)
    elif act == "request":
        kms.keys.rotate(tenant, request_id=f"r-{step}")
        asked.append([tenant, f"r-{step}"])
    elif act == "rewrap":
        kms.keys.rewrap(tenant)
    plain = f"{tenant} {first} {step}"
    box = kms.keys.encrypt(tenant, plain.encode(), context=plain.encode())
    # Who rotated writes under its own version, or a newer one, from then on.
    assert int.from_bytes(box[16:20], "big") >= floors.get(tenant, 1)
    made.append([tenant, base64.b64encode(box).decode(), plain])
    earlier = chance.choice(made)
    assert opens(*earlier), earlier
print(json.dumps([made, rotated, asked, rings]), flush=True)
everything = json.loads(sys.stdin.readline())
assert all(opens(*each) for each in everything)
print(len(everything), flush=True)
"""


class Fleet:
    """Processes that work at once, then each open what all of them made."""

    def __init__(self, site: Site, acts: list[list[str]], rounds: int) -> None:
        chance = seed()
        configs = [
            site.config("local:m1", unwrap_with=("local:m2",), authenticate_with=AUTH),
            site.config("local:m2", unwrap_with=("local:m1",), authenticate_with=AUTH[::-1]),
        ]
        self._processes = [
            self._start(configs[number % 2], each, rounds, TENANTS, chance + number, number)
            for number, each in enumerate(acts)
        ]

    def _start(self, *arguments: object) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", WORK, *(json.dumps(value) for value in arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": ROOT},
        )

    def run(self) -> list[Any]:
        """Return what each process did, after all of them opened all messages."""
        bound = threading.Timer(scale(ci=120, soak=1800), self._kill)
        bound.start()
        try:
            for process in self._processes:
                assert self._hear(process) == "ready"
            for process in self._processes:
                self._tell(process, "go")
            done = [json.loads(self._hear(process)) for process in self._processes]
            everything = [each for made, *_ in done for each in made]
            for process in self._processes:
                self._tell(process, json.dumps(everything))
            for process in self._processes:
                assert self._hear(process) == str(len(everything))
                assert process.wait(WAIT) == 0
        finally:
            bound.cancel()
            self._kill()
            for process in self._processes:
                process.communicate()
        return done

    def _kill(self) -> None:
        for process in self._processes:
            process.kill()

    def _tell(self, process: subprocess.Popen[str], line: str) -> None:
        assert process.stdin is not None
        process.stdin.write(line + "\n")
        process.stdin.flush()

    def _hear(self, process: subprocess.Popen[str]) -> str:
        assert process.stdout is not None
        line = process.stdout.readline().strip()
        assert line, process.communicate()[1]
        return line


EVERYTHING = ["rotate", "request", "rewrap", "write"]
FLEETS = {
    "all do everything": [EVERYTHING] * 6,
    "rotations against rewraps": [["rotate"]] * 4 + [["rewrap"]] * 4,
    "the same requests from 8": [["request"]] * 8,
}


@pytest.mark.soak
@pytest.mark.parametrize("acts", FLEETS.values(), ids=FLEETS)
def test_fleet_loses_no_version_no_wrap_and_no_message(
    key_site: Site, acts: list[list[str]]
) -> None:
    """One ring a tenant, each version counted once, and every message opens, also with one KEK."""
    done = Fleet(key_site, acts, rounds=scale(ci=12, soak=120)).run()
    rings = {(tenant, ring_id) for *_, found in done for tenant, ring_id in found.items()}
    assert len(rings) == len({tenant for tenant, _ in rings})
    rotations = Counter(tenant for _, rotated, *_ in done for tenant in rotated)
    requests = {tuple(each) for *_, asked, _ in done for each in asked}
    messages = [each for made, *_ in done for each in made]

    last = key_site.open("local:m2", unwrap_with=("local:m1",), authenticate_with=AUTH[::-1])
    for tenant, ring_id in rings:
        info = last.keys.describe(tenant)
        numbers = [version.version for version in info.versions]
        asked = [version.request for version in info.versions if version.request]
        assert info.ring_id == ring_id
        assert sorted(asked) == sorted(request for name, request in requests if name == tenant)
        assert numbers == list(range(1, 2 + rotations[tenant] + len(asked)))
        info = last.keys.rewrap(tenant)
        assert {wrap.kek for version in info.versions for wrap in version.wraps} == {"local:m2"}
    (key_site.home / "m1.secret").unlink()
    alone = key_site.open("local:m2")
    for tenant, box, plain in messages:
        assert alone.keys.decrypt(tenant, base64.b64decode(box), plain.encode()) == plain.encode()
    assert not (key_site.home / "m1.secret").exists()
