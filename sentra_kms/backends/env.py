"""Secrets from environment variables, for development only: `env://NAME`."""

from __future__ import annotations

import os

from sentra_kms.errors import MalformedInput, SecretNotFound
from sentra_kms.hookspecs import API_VERSION, PartHooks, SecretHooks, hookimpl
from sentra_kms.hooktypes import BackendSettings, BackendType, Host, SecretRequest, SecretValue
from sentra_kms.material import KeyMaterial


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
    return EnvSecrets()


class EnvSecrets(SecretHooks, PartHooks):
    """The variables of this process, as bytes."""

    @hookimpl
    def fetch_secret(self, request: SecretRequest, timeout: float) -> SecretValue:
        """Return the variable's value; an empty one counts as absent."""
        reference = request.reference
        if reference.options or reference.field is not None:
            raise MalformedInput(f"{reference}: an env:// reference takes no options and no field")
        name = reference.path
        if not os.environ.get(name):
            raise SecretNotFound(f"environment variable {name} is not set, or empty: set it")
        return SecretValue(KeyMaterial(os.environb[os.fsencode(name)]))
