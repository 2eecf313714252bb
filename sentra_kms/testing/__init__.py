"""What proves a backend right: a pytest suite that it joins with one small harness class.

In a test module of the backend's distribution::

    from sentra_kms.testing import BackendConformance, BackendHarness


    class Harness(BackendHarness):
        type = "oci"

        def settings(self):
            return {"address": "http://127.0.0.1:8200"}

        def kek(self):
            return "tenants"


    class TestOci(BackendConformance):
        harness = Harness

And what an application's tests use: the fixture `sentra_kms_fake`, a `Fake`, which pytest finds by
itself where sentra_kms is installed.

Needs pytest, which the extra `testing` brings.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

try:
    import pytest
except ModuleNotFoundError as _error:
    if _error.name != "pytest":
        raise
    raise ModuleNotFoundError(
        'sentra_kms.testing needs pytest: pip install "sentra-kms[testing]"', name="pytest"
    ) from None

# So that a failed check shows what it compared; before the modules are imported.
pytest.register_assert_rewrite(
    "sentra_kms.testing.batches",
    "sentra_kms.testing.end_to_end",
    "sentra_kms.testing.history",
    "sentra_kms.testing.key_states",
    "sentra_kms.testing.keys",
    "sentra_kms.testing.lost_answers",
    "sentra_kms.testing.ring_races",
    "sentra_kms.testing.rings",
    "sentra_kms.testing.secret_forms",
    "sentra_kms.testing.secrets",
    "sentra_kms.testing.silence",
    "sentra_kms.testing.troubles",
    "sentra_kms.testing.user",
    "sentra_kms.testing.whole",
)

if TYPE_CHECKING:
    from sentra_kms.testing.batches import BatchKeyConformance, BatchSecretConformance
    from sentra_kms.testing.bench import Bench, ManualClock
    from sentra_kms.testing.conformance import BackendConformance
    from sentra_kms.testing.end_to_end import EndToEndConformance
    from sentra_kms.testing.fake import Fake
    from sentra_kms.testing.harness import BackendHarness, SecretSample
    from sentra_kms.testing.history import RingHistoryConformance
    from sentra_kms.testing.keys import KeyConformance
    from sentra_kms.testing.ring_races import RingRaceConformance
    from sentra_kms.testing.rings import RingConformance
    from sentra_kms.testing.secrets import SecretConformance
    from sentra_kms.testing.whole import WholeConformance

_LAZY = {
    "BackendConformance": "conformance",
    "BackendHarness": "harness",
    "BatchKeyConformance": "batches",
    "BatchSecretConformance": "batches",
    "Bench": "bench",
    "EndToEndConformance": "end_to_end",
    "Fake": "fake",
    "KeyConformance": "keys",
    "ManualClock": "bench",
    "RingConformance": "rings",
    "RingHistoryConformance": "history",
    "RingRaceConformance": "ring_races",
    "SecretConformance": "secrets",
    "SecretSample": "harness",
    "WholeConformance": "whole",
}
__all__ = [
    "BackendConformance",
    "BackendHarness",
    "BatchKeyConformance",
    "BatchSecretConformance",
    "Bench",
    "EndToEndConformance",
    "Fake",
    "KeyConformance",
    "ManualClock",
    "RingConformance",
    "RingHistoryConformance",
    "RingRaceConformance",
    "SecretConformance",
    "SecretSample",
    "WholeConformance",
]

if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        """Import the suite when it is used: any pytest loads the plugin that is beside it."""
        if name not in _LAZY:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib import import_module

        return getattr(import_module(f"{__name__}.{_LAZY[name]}"), name)
