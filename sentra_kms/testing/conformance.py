"""All checks in one class."""

from __future__ import annotations

from sentra_kms.testing.batches import BatchKeyConformance, BatchSecretConformance
from sentra_kms.testing.end_to_end import EndToEndConformance
from sentra_kms.testing.history import RingHistoryConformance
from sentra_kms.testing.keys import KeyConformance
from sentra_kms.testing.ring_races import RingRaceConformance
from sentra_kms.testing.rings import RingConformance
from sentra_kms.testing.secrets import SecretConformance
from sentra_kms.testing.whole import WholeConformance


class BackendConformance(
    KeyConformance,
    BatchKeyConformance,
    SecretConformance,
    BatchSecretConformance,
    RingConformance,
    RingRaceConformance,
    RingHistoryConformance,
    WholeConformance,
    EndToEndConformance,
):
    """Every check there is. Subclass it as `Test…` and give `harness`.

    Checks of a capability that the backend does not have as it is configured, and those that need
    an ability that its harness lacks, are skipped with a reason that names it: `pytest -rs`. A
    backend with one capability only may join that one's checks and `WholeConformance` instead,
    which fails when a capability is left unchecked.
    """
