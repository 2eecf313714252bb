"""The memory backend passes the suite that third parties' backends pass."""

# ruff: noqa: D102 - what is overridden says it

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from sentra_kms.testing import BackendConformance, BackendHarness, SecretSample


class MemoryHarness(BackendHarness):
    type = "memory"
    absent: ClassVar[Mapping[str, str]] = {
        "answer_unknown": "it calls no service",
        "disable_key": "its KEKs have no states",
        "lose_answer": "it calls no service",
        "rotate_key": "its KEKs have one version",
        "schedule_key": "its KEKs have no states",
        "share": "it is this process's memory",
        "stall": "it calls no service",
        "throttle": "it calls no service",
    }
    makes_keys = True
    tenants = 1000

    def kek(self) -> str:
        return "tenants"

    def second_kek(self) -> str:
        return "others"

    def settings(self) -> Mapping[str, object]:
        return {"secrets": {"kit/secret": "env://KIT_SECRET"}}

    def secret(self) -> SecretSample:
        self.patch.setenv("KIT_SECRET", "correct horse battery staple")
        return SecretSample("memory://kit/secret", b"correct horse battery staple")

    def change_secret(self, reference: str, data: bytes) -> None:
        self.patch.setenv("KIT_SECRET", data.decode("ascii"))


class TestMemory(BackendConformance):
    harness = MemoryHarness
