"""What is registered; imports neither hvac nor an HTTP client."""

from __future__ import annotations

from sentra_kms.hookspecs import hookimpl
from sentra_kms.hooktypes import BackendType
from sentra_kms_vault.settings import VaultSettings


@hookimpl
def backend_type() -> BackendType:
    """Register the type `vault`."""
    return BackendType(
        api=(1, 0),
        settings=VaultSettings,
        create="sentra_kms_vault.backend:create",
        install="pip install sentra-kms-vault",
        summary="KEKs, secrets and key rings in HashiCorp Vault or OpenBao",
    )
