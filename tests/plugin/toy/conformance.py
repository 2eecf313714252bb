"""The toy proves itself, in an environment where it is installed: `pytest conformance.py`."""

# ruff: noqa: D102 - what is overridden says it

from __future__ import annotations

from typing import ClassVar

from sentra_kms.testing import (
    BackendConformance,
    BackendHarness,
    RingConformance,
    RingHistoryConformance,
    RingRaceConformance,
    WholeConformance,
)


class RingsHarness(BackendHarness):
    type = "toy"
    tenants = 1000
    absent: ClassVar = {"share": "its rings are in the memory of one process"}

    def open(self) -> None:
        self.patch.setenv("TOY_TOKEN", "open-sesame-and-stay-open")

    def settings(self) -> dict[str, object]:
        return {"token": "env://TOY_TOKEN"}


class Harness(RingsHarness):
    def settings(self) -> dict[str, object]:
        return {"token": "env://TOY_TOKEN", "keys": ["tenants", "others"]}

    def kek(self) -> str:
        return "tenants"

    def second_kek(self) -> str:
        return "others"


class TestToy(BackendConformance):
    harness = Harness


class TestRings(RingConformance, RingRaceConformance, RingHistoryConformance, WholeConformance):
    harness = RingsHarness
