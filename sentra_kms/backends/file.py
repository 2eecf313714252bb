"""Secrets from files: `file:///ABSOLUTE/PATH`."""

from __future__ import annotations

import errno
import os
import stat

from sentra_kms.errors import (
    AccessDenied,
    KMSError,
    MalformedInput,
    SecretNotFound,
    ServiceUnavailable,
    VendorError,
)
from sentra_kms.hookspecs import API_VERSION, PartHooks, SecretHooks, hookimpl
from sentra_kms.hooktypes import BackendSettings, BackendType, Host, SecretRequest, SecretValue
from sentra_kms.material import KeyMaterial

MAX_SECRET = 1024 * 1024  # bytes
_OPEN_TO_OTHERS = stat.S_IWGRP | stat.S_IRWXO


class FileSettings(BackendSettings, frozen=True):
    """Nothing to set."""


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
    return FileSecrets(host)


class FileSecrets(SecretHooks, PartHooks):
    """Regular files, read whole. Symlinks are followed, since mounted secrets are made of them."""

    def __init__(self, host: Host) -> None:
        self._host = host

    @hookimpl
    def fetch_secret(self, request: SecretRequest, timeout: float) -> SecretValue:
        """Return the file's bytes as they are."""
        reference = request.reference
        if reference.options or reference.field is not None:
            raise MalformedInput(f"{reference}: a file:// reference takes no options and no field")
        if not reference.path.startswith("/"):
            raise MalformedInput(f"{reference}: write file:///ABSOLUTE/PATH, with three slashes")
        try:
            return SecretValue(self._read(reference.path))
        except OSError as error:
            failure = _translate(error, reference.path)
            cause = VendorError(type(error).__name__, code=errno.errorcode.get(error.errno or 0))
        raise failure from cause

    def _read(self, path: str) -> KeyMaterial:
        file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            status = os.fstat(file)
            if not stat.S_ISREG(status.st_mode):
                raise AccessDenied(f"{path} is not a regular file")
            if status.st_size > MAX_SECRET:
                raise MalformedInput(f"{path} is larger than {MAX_SECRET} bytes: not a secret")
            if status.st_mode & _OPEN_TO_OTHERS:
                self._host.logger.warning(
                    "%s has mode %o and is open to other users: chmod 600 it",
                    path,
                    stat.S_IMODE(status.st_mode),
                )
            return _read_whole(file, path)
        finally:
            os.close(file)


def _read_whole(file: int, path: str) -> KeyMaterial:
    data = KeyMaterial(b"")
    while True:
        size = len(data.reveal())
        data = KeyMaterial(data.reveal() + os.read(file, MAX_SECRET + 1 - size))
        if len(data.reveal()) > MAX_SECRET:
            raise MalformedInput(f"{path} is larger than {MAX_SECRET} bytes: not a secret")
        if len(data.reveal()) == size:
            return data


def _translate(error: OSError, path: str) -> KMSError:
    if error.errno in {errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG}:
        return SecretNotFound(f"{path} does not exist: put the secret there, or correct the path")
    if error.errno in {errno.EACCES, errno.EPERM, errno.ELOOP}:
        return AccessDenied(f"the operating system denies access to {path}: check owner and mode")
    return ServiceUnavailable(f"{path} cannot be read now: {os.strerror(error.errno or 0)}")
