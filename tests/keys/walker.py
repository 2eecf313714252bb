"""A process that uses and changes tenants' keys at random; run by `test_soak.py`.

Every message that it was given back is written to the log before it is used: tenant, message and
plaintext, one line in one write. It ends with 0, or with 3 after telling what should not have been.
"""

from __future__ import annotations

import base64
import json
import os
import random
import sys
import threading
import time
import traceback
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from sentra_kms.config import read_settings
from sentra_kms.errors import (
    Conflict,
    KeyNotFound,
    KeyUnavailable,
    ServiceUnavailable,
    UnsupportedOperation,
)
from sentra_kms.events import actor
from sentra_kms.runtime import KMS

MOST_VERSIONS = 250  # a tenant; a ring has room for some more
KEPT = 300  # messages that a process reads again
HANG = 0.5  # seconds
HEDGE = 0.1


class Clocks:
    """A wall clock that jumps both ways, and a monotonic one that jumps ahead."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self._wall = self._ahead = 0.0

    def jump(self) -> None:
        """Jump."""
        self._wall += self._chance.uniform(-86400.0, 86400.0)
        self._ahead += self._chance.uniform(0.0, 400.0)

    def wall(self) -> float:
        """Return seconds since 1970, somewhen."""
        return time.time() + self._wall

    def monotonic(self) -> float:
        """Return seconds."""
        return time.monotonic() + self._ahead


class Weather:
    """What backends do to who asks them: work, fail, fail now and then, hang, or lose answers."""

    MOODS = ("well", "well", "well", "down", "flaky", "hangs", "loses")

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self._moods: dict[str, str] = {}

    def change(self) -> None:
        """Give each backend another mood."""
        for name in self._moods:
            self._moods[name] = self._chance.choice(self.MOODS)

    def clear_up(self) -> None:
        """Let every backend work."""
        self._moods = dict.fromkeys(self._moods, "well")

    def come_over(self, kms: KMS) -> None:
        """Stand before every operation of every backend."""
        for name, binding in kms._wiring.bindings.items():
            self._moods[name] = "well"
            for operation in binding.operations & {
                "wrap_key",
                "unwrap_key",
                "describe_key",
                "load_ring",
                "save_ring",
                "delete_ring",
            }:
                setattr(binding, operation, self._stormy(name, getattr(binding, operation)))

    def _stormy(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            mood = self._moods[name]
            down = ServiceUnavailable(f"{name} is out of order", backend=name)
            if mood == "down" or (mood == "flaky" and self._chance.random() < 0.1):
                raise down
            if mood == "hangs":
                time.sleep(self._chance.uniform(0.0, HANG))
            answer = real(*arguments)
            if mood == "loses" and self._chance.random() < 0.3:
                raise down
            return answer

        return call


def _stack_of(thread: threading.Thread) -> str:
    """Say where a thread is now, by files and lines."""
    frame = sys._current_frames().get(thread.ident or 0)
    return "".join(traceback.format_stack(frame)) if frame else "nowhere"


class Walker:
    """Threads that do one thing after the other until the time is over."""

    def __init__(self, task: dict[str, Any]) -> None:
        self._task = task
        self._chance = random.Random(task["seed"])
        self._clocks = Clocks(self._chance)
        self._weather = Weather(self._chance) if task["stormy"] else None
        config = task["config"]
        stormy = task["stormy"]
        self.kms = KMS(
            read_settings(config, "test"),
            source=config,
            clock=self._clocks.wall if stormy else time.time,
            now=self._clocks.monotonic if stormy else time.monotonic,
        )
        for wrapping in self.kms.keys._rings.plan.policies.values():
            wrapping._hedge_after = HEDGE
        if self._weather is not None:
            self._weather.come_over(self.kms)
        self._log = os.open(task["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self._kept: list[tuple[str, bytes, bytes]] = []
        self._end = time.monotonic() + task["seconds"]
        self.wrong: list[str] = []
        self.counts: dict[str, int] = {}

    def walk(self) -> None:
        """Let all threads walk, and the weather and the clocks change."""
        threads = [
            threading.Thread(target=self._run, args=(self._chance.getrandbits(64),), daemon=True)
            for _ in range(self._task["threads"])
        ]
        for thread in threads:
            thread.start()
        while time.monotonic() < self._end and not self.wrong:
            time.sleep(self._chance.uniform(0.02, 0.2))
            if self._weather is not None:
                self._weather.change()
                self._clocks.jump()
        if self._weather is not None:
            self._weather.clear_up()  # else what is under way takes minutes: each call may hang
        for thread in threads:
            thread.join(60)
            if thread.is_alive():
                self.wrong.append(f"a thread hangs:\n{_stack_of(thread)}")
        self.kms.close()

    def _run(self, seed: int) -> None:
        chance = random.Random(seed)
        names, weights = zip(*self._task["operations"].items(), strict=True)
        while time.monotonic() < self._end and not self.wrong:
            (name,) = chance.choices(names, weights)
            tenant = chance.choice(self._task["tenants"])
            try:
                with actor(f"user:{seed}"):
                    getattr(self, name)(chance, tenant)
                outcome = "done"
            except (ServiceUnavailable, KeyUnavailable, Conflict) as error:
                outcome = type(error).__name__
            except UnsupportedOperation as error:
                outcome = "primary"
                if "rotate first" not in error.message:
                    self.wrong.append(f"{name} of {tenant}: {error!r}")
            except KeyNotFound as error:
                outcome = "unknown"
                # Of a version that another process has just made: it may be asked again.
                if not error.retryable and "has no version" not in error.message:
                    self.wrong.append(f"{name} of {tenant}: {error!r}")
            except BaseException as error:
                self.wrong.append(f"{name} of {tenant}: {type(error).__name__}: {error}")
                raise
            key = f"{name} {outcome}"
            self.counts[key] = self.counts.get(key, 0) + 1

    def encrypt(self, chance: random.Random, tenant: str) -> None:
        """Encrypt, acknowledge, and read again."""
        plain = chance.randbytes(chance.choice((0, 16, 100)))
        message = self.kms.keys.encrypt(tenant, plain, context=tenant.encode())
        texts = (tenant.encode(), base64.b64encode(message), base64.b64encode(plain))
        os.write(self._log, b"\t".join(texts) + b"\n")
        if len(self._kept) >= KEPT:
            self._kept[chance.randrange(KEPT)] = (tenant, message, plain)
        else:
            self._kept.append((tenant, message, plain))
        self._read(tenant, message, plain)

    def decrypt(self, chance: random.Random, tenant: str) -> None:
        """Read a message of before, of any version."""
        if self._kept:
            self._read(*chance.choice(self._kept))

    def _read(self, tenant: str, message: bytes, plain: bytes) -> None:
        if self.kms.keys.decrypt(tenant, message, context=tenant.encode()) != plain:
            self.wrong.append(f"a message of {tenant} opened to something else")

    def rotate(self, chance: random.Random, tenant: str) -> None:
        """Rotate, twice with one request."""
        if len(self.kms.keys.describe(tenant).versions) >= MOST_VERSIONS:
            return
        request = f"r-{chance.getrandbits(64)}"
        self.kms.keys.rotate(tenant, request_id=request)
        ring = self.kms.keys.rotate(tenant, request_id=request)
        if sum(version.request == request for version in ring.versions) != 1:
            self.wrong.append(f"one request made several versions of {tenant}")

    def _any_version(self, chance: random.Random, tenant: str) -> int:
        return chance.choice(self.kms.keys.describe(tenant).versions).version

    def disable(self, chance: random.Random, tenant: str) -> None:
        """Disable a version."""
        self.kms.keys.disable(tenant, self._any_version(chance, tenant))

    def enable(self, chance: random.Random, tenant: str) -> None:
        """Enable a version."""
        self.kms.keys.enable(tenant, self._any_version(chance, tenant))

    def rewrap(self, chance: random.Random, tenant: str) -> None:
        """Rewrap."""
        self.kms.keys.rewrap(tenant)

    def set_policy(self, chance: random.Random, tenant: str) -> None:
        """Put a tenant under another policy."""
        self.kms.keys.set_policy(tenant, chance.choice(("default", "gold", "each")))

    def schedule(self, chance: random.Random, tenant: str) -> None:
        """Schedule a destruction, mostly never due, and mostly take it back."""
        number = self._any_version(chance, tenant)
        days = 0 if chance.random() < 0.1 else 3650
        self.kms.keys.schedule_destroy(tenant, number, after=timedelta(days=days))
        if chance.random() < 0.7:
            self.kms.keys.cancel_destroy(tenant, number)

    def destroy_due(self, chance: random.Random, tenant: str) -> None:
        """Destroy what is due."""
        for name, error in self.kms.keys.destroy_due().failed.items():
            if not isinstance(error, (ServiceUnavailable, Conflict)):
                self.wrong.append(f"destroy_due of {name}: {error!r}")

    def move(self, chance: random.Random, tenant: str) -> None:
        """Move to the new store."""
        self.kms.keys.move(tenant)

    def reload(self, chance: random.Random, tenant: str) -> None:
        """Read the configuration again."""
        self.kms.reload()

    def warm(self, chance: random.Random, tenant: str) -> None:
        """Warm a few, look at the health, and list."""
        for error in self.kms.warm(self._task["tenants"][:3]).values():
            if not isinstance(error, (ServiceUnavailable, KeyUnavailable)):
                self.wrong.append(f"warm: {error!r}")
        if not self.kms.health().live:
            self.wrong.append("not live")
        missing = set(self._task["tenants"]) - set(self.kms.keys.tenants())
        if missing:
            self.wrong.append(f"the stores do not list {sorted(missing)}")


def main() -> int:
    """Walk; return the exit code."""
    walker = Walker(json.loads(sys.argv[1]))
    os.write(1, b"walking\n")
    walker.walk()
    for wrong in walker.wrong:
        sys.stderr.write(f"WRONG: {wrong}\n")
    os.write(1, json.dumps(walker.counts).encode() + b"\n")
    return 3 if walker.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
