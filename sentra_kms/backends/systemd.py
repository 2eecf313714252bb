"""Credentials of a systemd unit: `systemd://ID` is the file ID in `$CREDENTIALS_DIRECTORY`."""

from __future__ import annotations

import os

from sentra_kms.backends.secret_files import (
    OPEN_TO_OTHERS,
    ModeWarnings,
    check_plain,
    read_inside,
)
from sentra_kms.errors import AccessDenied, SecretNotFound
from sentra_kms.hookspecs import API_VERSION, PartHooks, SecretHooks, hookimpl
from sentra_kms.hooktypes import BackendSettings, BackendType, Host, SecretRequest, SecretValue

DIRECTORY_VARIABLE = "CREDENTIALS_DIRECTORY"


class SystemdSettings(BackendSettings, frozen=True):
    """Nothing to set: systemd says where the credentials are."""


@hookimpl
def backend_type() -> BackendType:
    """Register the type `systemd`."""
    return BackendType(
        api=API_VERSION,
        settings=SystemdSettings,
        create="sentra_kms.backends.systemd:create",
        summary="credentials that systemd passes to a unit",
    )


def create(settings: SystemdSettings, host: Host) -> object:
    """Make the secrets part."""
    return SystemdSecrets(host)


class SystemdSecrets(SecretHooks, PartHooks):
    """Files of the directory that systemd made for this unit."""

    def __init__(self, host: Host) -> None:
        self._name = host.name
        self._warn = ModeWarnings(host, OPEN_TO_OTHERS)

    @hookimpl
    def fetch_secret(self, request: SecretRequest, timeout: float) -> SecretValue:
        """Return the credential's bytes as they are, and when they were written."""
        check_plain(request.reference, self._name)
        directory = os.environ.get(DIRECTORY_VARIABLE)
        if not directory:
            raise SecretNotFound(
                f"{DIRECTORY_VARIABLE} is not set: give the unit LoadCredential= or "
                "LoadCredentialEncrypted=, or run under systemd"
            )
        if not os.path.isabs(directory):
            raise AccessDenied(f"{DIRECTORY_VARIABLE} is not an absolute path, as systemd sets it")
        return read_inside(directory, request.reference.path, self._warn)
