"""From the settings to the parts."""

from __future__ import annotations

from sentra_kms.hooktypes import Host
from sentra_kms_vault.diagnosis import Diagnosis
from sentra_kms_vault.keys import Keys
from sentra_kms_vault.rings import Rings
from sentra_kms_vault.secrets import Secrets
from sentra_kms_vault.settings import VaultSettings
from sentra_kms_vault.vault import Vault


def create(settings: VaultSettings, host: Host) -> list[object]:
    """Make the parts that these settings enable. Nothing is asked before the first operation."""
    vault = Vault(settings, host)
    # What is first is closed last: the connections go when nothing has a last word to say.
    parts: list[object] = [
        Diagnosis(vault),
        Keys(vault, settings.transit),
        Secrets(vault, settings.mounts),
    ]
    if settings.rings is not None:
        parts.append(Rings(vault, settings.rings))
    return parts
