"""What `sentra-kms doctor` tells: the effective configuration explained, and what is wrong."""

from __future__ import annotations

from sentra_kms.doctor.diagnosis import Diagnosis, diagnose
from sentra_kms.doctor.explain import Explained
from sentra_kms.doctor.installed import declared, why_unusable
from sentra_kms.doctor.rings import MOST_RINGS

__all__ = ["MOST_RINGS", "Diagnosis", "Explained", "declared", "diagnose", "why_unusable"]
