"""From the settings to the parts."""

from __future__ import annotations

from sentra_kms.hooktypes import Host
from sentra_kms_vault.diagnosis import Diagnosis
from sentra_kms_vault.keys import Keys
from sentra_kms_vault.rings import Rings
from sentra_kms_vault.settings import VaultSettings
from sentra_kms_vault.vault import Vault


def create(settings: VaultSettings, host: Host) -> list[object]:
    """Make the parts that these settings enable. Nothing is asked before the first operation."""
    vault = Vault(settings, host)
    parts: list[object] = [Diagnosis(vault), Keys(vault, settings.transit)]
    if settings.rings is not None:
        parts.append(Rings(vault, settings.rings))
    return parts
