"""The memory backend passes the suite that third parties' backends pass."""

# ruff: noqa: D102 - what is overridden says it

from __future__ import annotations

from sentra_kms.testing import BackendConformance, BackendHarness


class MemoryHarness(BackendHarness):
    type = "memory"
    makes_keys = True
    tenants = 1000

    def kek(self) -> str:
        return "tenants"

    def second_kek(self) -> str:
        return "others"


class TestMemory(BackendConformance):
    harness = MemoryHarness
