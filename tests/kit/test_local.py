"""The built-in file backend passes the suite that third parties' backends pass."""

# ruff: noqa: D102 - what is overridden says it

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import ClassVar

from sentra_kms.testing import (
    BackendConformance,
    BackendHarness,
    RingConformance,
    RingHistoryConformance,
    RingRaceConformance,
    WholeConformance,
)

NO_SERVICE = dict.fromkeys(
    ("answer_unknown", "cut", "lose_answer", "requests", "stall", "throttle"),
    "files on this machine, and no service",
)


class LocalHarness(BackendHarness):
    type = "local"
    absent: ClassVar[Mapping[str, str]] = {
        **NO_SERVICE,
        "disable_key": "a master key is configured or not",
        "rotate_key": "a master key has one version: its successor is another KEK",
        "schedule_key": "a master key is configured or not",
    }
    tenants = 1000

    def open(self) -> None:
        for name, byte in (("ONE", b"\x01"), ("TWO", b"\x02")):
            self.patch.setenv(f"MASTER_{name}", base64.b64encode(byte * 32).decode("ascii"))

    def settings(self) -> Mapping[str, object]:
        return {
            "directory": str(self.path / "keys"),
            "master_keys": {"one": "env://MASTER_ONE", "two": "env://MASTER_TWO"},
        }

    def ring_history(self, tenant: str) -> set[bytes]:
        return {
            path.read_bytes()
            for path in (self.path / "keys").iterdir()
            if f"{tenant}." in path.name
        }

    def kek(self) -> str:
        return "one"

    def second_kek(self) -> str:
        return "two"


class RingsHarness(BackendHarness):
    """Only a directory: no master key, so no keys part."""

    type = "local"
    absent = NO_SERVICE

    def settings(self) -> Mapping[str, object]:
        return {"directory": str(self.path / "keys")}


class TestLocal(BackendConformance):
    harness = LocalHarness


class TestLocalRings(
    RingConformance, RingHistoryConformance, RingRaceConformance, WholeConformance
):
    harness = RingsHarness
