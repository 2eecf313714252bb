"""Docker secrets: `docker://NAME` is the file NAME in `/run/secrets`."""

from __future__ import annotations

from typing import Annotated

import msgspec

from sentra_kms.backends.secret_files import (
    WRITABLE_BY_OTHERS,
    ModeWarnings,
    check_plain,
    read_inside,
)
from sentra_kms.hookspecs import API_VERSION, PartHooks, SecretHooks, hookimpl
from sentra_kms.hooktypes import BackendSettings, BackendType, Host, SecretRequest, SecretValue

DEFAULT_DIRECTORY = "/run/secrets"


class DockerSettings(BackendSettings, frozen=True):
    """Where the secrets are mounted."""

    directory: Annotated[str, msgspec.Meta(pattern=r"\A[^\x00]+\Z")] = DEFAULT_DIRECTORY


@hookimpl
def backend_type() -> BackendType:
    """Register the type `docker`."""
    return BackendType(
        api=API_VERSION,
        settings=DockerSettings,
        create="sentra_kms.backends.docker:create",
        summary="secrets that Docker or Kubernetes mounts as files",
    )


def create(settings: DockerSettings, host: Host) -> object:
    """Make the secrets part."""
    return DockerSecrets(host, host.resolve(settings.directory))


class DockerSecrets(SecretHooks, PartHooks):
    """Files of one directory; Docker mounts them readable by all in the container."""

    def __init__(self, host: Host, directory: str) -> None:
        self._name = host.name
        self._directory = directory
        self._warn = ModeWarnings(host, WRITABLE_BY_OTHERS)

    @hookimpl
    def fetch_secret(self, request: SecretRequest, timeout: float) -> SecretValue:
        """Return the file's bytes as they are, and when they were written."""
        check_plain(request.reference, self._name)
        return read_inside(self._directory, request.reference.path, self._warn)
