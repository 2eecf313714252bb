"""What the crash tests share: orders to the nursery, and a ledger of what must outlive a crash."""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from sentra_kms.errors import TenantNotFound
from sentra_kms.keys.info import RingInfo
from sentra_kms.runtime import KMS
from tests.crash.nursery import HANG, TEXT
from tests.keys.conftest import ROOT, ManualClock, Site

KEKS = ("local:m1", "local:m2")
AT_ONCE = "1ms"  # a writer that meets a lock gives up after one more try


class Step(NamedTuple):
    """An operation on a tenant, by the KMS of the order's `which`-th configuration."""

    operation: str
    tenant: str
    which: int = 0


@dataclass
class Outcome:
    """What a child told of each step before its end, and its exit code."""

    told: list[dict[str, Any]] = field(default_factory=list)
    status: int = 0


class Nursery:
    """The process that forks the children; see `tests/crash/nursery.py`."""

    def __init__(self) -> None:
        # Coverage in the children would add system calls of its own.
        environment = {k: v for k, v in os.environ.items() if not k.startswith("COVERAGE_")}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.crash.nursery"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=ROOT,
            env=environment,
        )
        self._heard = b""
        assert self._hear() == {"ready": True}

    def start(self, configs: Sequence[dict[str, Any]], steps: Sequence[Step]) -> int:
        """Fork a child that waits for `go`; return its pid."""
        self._say(json.dumps({"configs": configs, "steps": steps}))
        pid: int = self._hear()["pid"]
        self._child = pid
        return pid

    def go(self) -> None:
        """Let the child begin."""
        self._say("go")

    def next(self) -> dict[str, Any]:
        """Wait until the child has told of its next step, and return that."""
        return self._hear()

    def outcome(self, *, kill_after_error: bool = False) -> Outcome:
        """Wait for the child's end, which its first error may be."""
        found = Outcome()
        while True:
            heard = self._hear()
            if "status" in heard:
                found.status = heard["status"]
                return found
            found.told.append(heard)
            if kill_after_error and "error" in heard:
                os.kill(self._child, signal.SIGKILL)

    def close(self) -> None:
        """End it, and the child that it may still have."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.kill()
        self._process.wait()
        self._process.stdout.close()

    def _say(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line.encode("utf-8") + b"\n")
        self._process.stdin.flush()

    def _hear(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        pipe = self._process.stdout.fileno()
        while b"\n" not in self._heard:
            ready, _, _ = select.select([pipe], [], [], 2 * HANG)
            assert ready, "the nursery hangs"
            more = os.read(pipe, 1 << 16)
            assert more, "the nursery died"
            self._heard += more
        line, _, self._heard = self._heard.partition(b"\n")
        heard: dict[str, Any] = json.loads(line)
        return heard


@dataclass
class Known:
    """What a tenant's ring must still hold."""

    sequence: int
    versions: int
    messages: list[bytes] = field(default_factory=list)


def text_of(tenant: str) -> bytes:
    """Return what a tenant's messages say."""
    return TEXT + tenant.encode("ascii")


class Ledger:
    """A site, and everything in it that was acknowledged."""

    def __init__(self, home: Path, keys: str = "keys") -> None:
        home.mkdir(parents=True, exist_ok=True)
        self.site = Site(home, ManualClock())
        self.site.directory = home / keys
        self.known: dict[str, Known] = {}
        self._keys = keys
        self.configs = [
            self.site.config(first, unwrap_with=(second,), development=False)
            for first, second in (KEKS, KEKS[::-1])
        ]

    def copy(self, home: Path) -> Ledger:
        """Return the same in another directory."""
        shutil.copytree(self.site.home, home)
        copied = Ledger(home, self._keys)
        for tenant, known in self.known.items():
            copied.known[tenant] = Known(known.sequence, known.versions, list(known.messages))
        return copied

    def open(self, which: int = 0) -> KMS:
        """Open a KMS, as the `which`-th configuration has it, that waits for no lock."""
        wrap, unwrap = (KEKS, KEKS[::-1])[which]
        return self.site.open(wrap, unwrap_with=(unwrap,), development=False, timeout=AT_ONCE)

    def note(self, tenant: str, sequence: int, versions: int, message: bytes) -> None:
        """Keep what was acknowledged."""
        known = self.known.setdefault(tenant, Known(0, 0))
        assert sequence >= known.sequence
        known.sequence, known.versions = sequence, versions
        known.messages.append(message)

    def take(self, steps: Sequence[Step], outcome: Outcome) -> Step | None:
        """Note what a child acknowledged; return the step that it was at, `None` if done."""
        for step, told in zip(steps, outcome.told, strict=False):
            if "error" not in told:
                message = base64.b64decode(told["message"])
                self.note(step.tenant, told["sequence"], told["versions"], message)
        done = len(outcome.told)
        return steps[done] if done < len(steps) else None

    def write(self, kms: KMS, step: Step) -> None:
        """Do a step here and now, which must work at the first try."""
        info: RingInfo = getattr(kms.keys, step.operation)(step.tenant)
        message = kms.keys.encrypt(step.tenant, text_of(step.tenant))
        self.note(step.tenant, info.sequence, len(info.versions), message)

    def write_again(self, kms: KMS, pending: Step) -> None:
        """Change the ring that a child was at, as whoever comes next would."""
        made = pending.operation == "create" and pending.tenant in self.known
        self.write(kms, pending._replace(operation="rotate") if made else pending)

    def check(self, kms: KMS, pending: Step | None = None) -> bool:
        """Assert that all is there and opens; return whether `pending` took effect.

        Only the ring of `pending` may be one save further than what is known.
        """
        took_effect = False
        if pending is not None and pending.tenant not in self.known:
            took_effect = self._took_effect_as_create(kms, pending.tenant)
        for tenant, known in self.known.items():
            info = kms.keys.describe(tenant)
            numbers = [version.version for version in info.versions]
            assert numbers == list(range(1, len(numbers) + 1))
            assert info.primary == len(numbers)
            assert all(len(version.wraps) == 1 for version in info.versions)
            found = (info.sequence, len(numbers))
            if found != (known.sequence, known.versions):
                assert pending is not None
                assert pending.tenant == tenant
                made = 1 if pending.operation == "rotate" else 0
                assert found == (known.sequence + 1, known.versions + made)
                known.sequence, known.versions = found
                took_effect = True
            handle, text = kms.keys.tenant(tenant), text_of(tenant)
            assert {handle.decrypt(message) for message in known.messages} <= {text}
            assert handle.decrypt(handle.encrypt(text)) == text
        assert list(kms.keys.tenants()) == sorted(self.known)
        assert not [
            found for found in kms._wiring.bindings["local"].check() if found.level == "error"
        ]
        return took_effect

    def _took_effect_as_create(self, kms: KMS, tenant: str) -> bool:
        try:
            info = kms.keys.describe(tenant)
        except TenantNotFound:
            return False
        assert (info.sequence, len(info.versions)) == (1, 1)
        self.known[tenant] = Known(1, 1)
        return True

    def left(self) -> list[str]:
        """Return the names in the key directory that are no rings and no locks."""
        if not self.site.directory.exists():
            return []
        names = sorted(os.listdir(self.site.directory))
        return [name for name in names if not name.endswith((".ring", ".lock"))]
