"""Secrets from environment variables, for development only: `env://NAME`.

Where `NAME` is not set, the file that `NAME_FILE` names is read, as Docker's images do it.
"""

from __future__ import annotations

import os

from sentra_kms.backends.secret_files import (
    OPEN_TO_OTHERS,
    ModeWarnings,
    check_plain,
    read_anywhere,
)
from sentra_kms.errors import ConfigurationError, SecretNotFound
from sentra_kms.hookspecs import API_VERSION, PartHooks, SecretHooks, hookimpl
from sentra_kms.hooktypes import BackendSettings, BackendType, Host, SecretRequest, SecretValue
from sentra_kms.material import KeyMaterial

FILE_SUFFIX = "_FILE"


class EnvSettings(BackendSettings, frozen=True):
    """Nothing to set."""


@hookimpl
def backend_type() -> BackendType:
    """Register the type `env`."""
    return BackendType(
        api=API_VERSION,
        settings=EnvSettings,
        create="sentra_kms.backends.env:create",
        summary="secrets from environment variables, in development",
        development_only=True,
    )


def create(settings: EnvSettings, host: Host) -> object:
    """Make the secrets part."""
    return EnvSecrets(host)


class EnvSecrets(SecretHooks, PartHooks):
    """The variables of this process, as bytes."""

    def __init__(self, host: Host) -> None:
        self._name = host.name
        self._warn = ModeWarnings(host, OPEN_TO_OTHERS)

    @hookimpl
    def fetch_secret(self, request: SecretRequest, timeout: float) -> SecretValue:
        """Return the variable's value, or its file's; an empty variable counts as absent."""
        check_plain(request.reference, self._name)
        name = request.reference.path
        path = os.environ.get(name + FILE_SUFFIX)
        if not os.environ.get(name):
            if path:
                return self._file(name, path)
            raise SecretNotFound(
                f"environment variable {name} is not set, or empty: set it, or {name}{FILE_SUFFIX}"
            )
        if path:
            raise ConfigurationError(
                f"both {name} and {name}{FILE_SUFFIX} are set, and could differ: unset one"
            )
        return SecretValue(KeyMaterial(os.environb[os.fsencode(name)]))

    def _file(self, name: str, path: str) -> SecretValue:
        if not os.path.isabs(path):
            raise ConfigurationError(f"{name}{FILE_SUFFIX} names a file by its absolute path")
        return read_anywhere(path, self._warn)
