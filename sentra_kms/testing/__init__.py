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

Needs pytest, which the extra `testing` brings.
"""

from __future__ import annotations

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

from sentra_kms.testing.batches import (  # noqa: E402
    BatchKeyConformance,
    BatchSecretConformance,
)
from sentra_kms.testing.bench import Bench, ManualClock  # noqa: E402
from sentra_kms.testing.conformance import BackendConformance  # noqa: E402
from sentra_kms.testing.end_to_end import EndToEndConformance  # noqa: E402
from sentra_kms.testing.harness import BackendHarness, SecretSample  # noqa: E402
from sentra_kms.testing.history import RingHistoryConformance  # noqa: E402
from sentra_kms.testing.keys import KeyConformance  # noqa: E402
from sentra_kms.testing.ring_races import RingRaceConformance  # noqa: E402
from sentra_kms.testing.rings import RingConformance  # noqa: E402
from sentra_kms.testing.secrets import SecretConformance  # noqa: E402
from sentra_kms.testing.whole import WholeConformance  # noqa: E402

__all__ = [
    "BackendConformance",
    "BackendHarness",
    "BatchKeyConformance",
    "BatchSecretConformance",
    "Bench",
    "EndToEndConformance",
    "KeyConformance",
    "ManualClock",
    "RingConformance",
    "RingHistoryConformance",
    "RingRaceConformance",
    "SecretConformance",
    "SecretSample",
    "WholeConformance",
]
