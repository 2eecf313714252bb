"""Secrets from files: `file:///ABSOLUTE/PATH`, or `NAME://PATH` inside a declared directory."""

from __future__ import annotations

from typing import Annotated

import msgspec

from sentra_kms.backends.secret_files import (
    MAX_SECRET,
    OPEN_TO_OTHERS,
    ModeWarnings,
    check_plain,
    read_anywhere,
    read_inside,
)
from sentra_kms.errors import MalformedInput
from sentra_kms.hookspecs import API_VERSION, PartHooks, SecretHooks, hookimpl
from sentra_kms.hooktypes import BackendSettings, BackendType, Host, SecretRequest, SecretValue

__all__ = ["MAX_SECRET", "FileSecrets", "FileSettings", "backend_type", "create"]


class FileSettings(BackendSettings, frozen=True):
    """With a `directory`, only what is inside it is read, by relative paths."""

    directory: Annotated[str, msgspec.Meta(pattern=r"\A[^\x00]+\Z")] | None = None


@hookimpl
def backend_type() -> BackendType:
    """Register the type `file`."""
    return BackendType(
        api=API_VERSION,
        settings=FileSettings,
        create="sentra_kms.backends.file:create",
        summary="secrets from files",
    )


def create(settings: FileSettings, host: Host) -> object:
    """Make the secrets part."""
    directory = None if settings.directory is None else host.resolve(settings.directory)
    return FileSecrets(host, directory)


class FileSecrets(SecretHooks, PartHooks):
    """Regular files, read whole. Symlinks are followed, since mounted secrets are made of them."""

    def __init__(self, host: Host, directory: str | None) -> None:
        self._name = host.name
        self._directory = directory
        self._warn = ModeWarnings(host, OPEN_TO_OTHERS)

    @hookimpl
    def fetch_secret(self, request: SecretRequest, timeout: float) -> SecretValue:
        """Return the file's bytes as they are, and when they were written."""
        reference = request.reference
        check_plain(reference, self._name)
        if self._directory is not None:
            return read_inside(self._directory, reference.path, self._warn)
        if not reference.path.startswith("/"):
            raise MalformedInput(
                f"{reference}: write {self._name}:///ABSOLUTE/PATH, with three slashes"
            )
        return read_anywhere(reference.path, self._warn)
