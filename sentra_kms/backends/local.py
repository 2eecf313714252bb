"""The built-in file backend: KEKs from named master keys, rings in one directory."""

# Without `from __future__ import annotations`: msgspec would compile and evaluate those of the
# settings anew, half a millisecond of each start.

import os
from typing import Annotated

import msgspec

from sentra_kms.backends.master_key import MasterKey, read_master_key
from sentra_kms.backends.ring_files import RingFiles
from sentra_kms.context import WrapContext
from sentra_kms.errors import KeyNotFound, KMSError
from sentra_kms.forks import RLock, tell_after_fork
from sentra_kms.hookspecs import API_VERSION, KeyHooks, PartHooks, RingAuthHooks, hookimpl
from sentra_kms.hooktypes import (
    BackendSettings,
    BackendType,
    Finding,
    Host,
    KeyDescription,
    WrappedKey,
)
from sentra_kms.material import KeyMaterial
from sentra_kms.reference import Reference

DIRECTORY_VARIABLE = "ENCRYPTION_KEYS_DIR"
DEFAULT_DIRECTORY = "/app/keys"


class LocalSettings(BackendSettings, frozen=True):
    """`directory` holds the rings; `master_keys` names a reference for each KEK."""

    directory: Annotated[str, msgspec.Meta(pattern=r"\A[^\x00]+\Z")] | None = None
    master_keys: dict[str, Reference] = {}  # noqa: RUF012 - msgspec gives each its own


@hookimpl
def backend_type() -> BackendType:
    """Register the type `local`."""
    return BackendType(
        api=API_VERSION,
        settings=LocalSettings,
        create="sentra_kms.backends.local:create",
        summary="KEKs from named master keys, key rings in files of one directory",
    )


def create(settings: LocalSettings, host: Host) -> list[object]:
    """Make the parts; opens no file and reads no master key yet."""
    directory = settings.directory or os.environ.get(DIRECTORY_VARIABLE) or DEFAULT_DIRECTORY
    rings = RingFiles(host.resolve(directory), network_allowed=host.development)
    return [LocalKeys(settings, host), rings] if settings.master_keys else [rings]


class LocalKeys(KeyHooks, RingAuthHooks, PartHooks):
    """KEKs derived from master keys, each read through its reference at its first use."""

    def __init__(self, settings: LocalSettings, host: Host) -> None:
        self._references = settings.master_keys
        self._host = host
        self._keys: dict[str, MasterKey] = {}
        self._closed = False
        self.after_fork()
        tell_after_fork(self)

    def after_fork(self) -> None:
        """Start anew: who held one of the locks stayed in the parent."""
        # One for each, so that the source of one key, if it hangs, holds up no other.
        self._locks = {name: RLock() for name in self._references}

    @hookimpl
    def wrap_key(
        self, key: str, material: KeyMaterial, context: WrapContext, timeout: float
    ) -> WrappedKey:
        """Wrap under the master key named `key`."""
        return self._key(key).wrap(material, context)

    @hookimpl
    def unwrap_key(
        self, key: str, wrapped: WrappedKey, context: WrapContext, timeout: float
    ) -> KeyMaterial:
        """Unwrap under the master key named `key`."""
        return self._key(key).unwrap(f"{self._host.name}:{key}", wrapped, context)

    @hookimpl
    def describe_key(self, key: str, timeout: float) -> KeyDescription:
        """Return the master key's id."""
        return self._key(key).describe()

    @hookimpl
    def ring_auth_key(self, key: str) -> KeyMaterial:
        """Return the ring authentication key derived from the master key named `key`."""
        return self._key(key).ring_auth_key()

    @hookimpl
    def check(self, timeout: float) -> list[Finding]:
        """Read every master key and name its id."""
        return [self._check_key(name) for name in self._references]

    def _check_key(self, name: str) -> Finding:
        subject = f"{self._host.name}:{name}"
        try:
            key = self._key(name)
        except KMSError as error:
            return Finding("error", subject, error.message)
        return Finding("ok", subject, f"master key with id {key.key_id}")

    @hookimpl
    def close(self) -> None:
        """Forget the keys, also one that is being read."""
        self._closed = True
        self._keys.clear()

    def _key(self, name: str) -> MasterKey:
        found = self._keys.get(name)
        if found is not None:
            return found
        reference = self._reference(name)
        with self._locks[name]:
            found = self._keys.get(name) or self._read(name, reference)
            if not self._closed:
                self._keys[name] = found
            return found

    def _reference(self, name: str) -> Reference:
        reference = self._references.get(name)
        if reference is None:
            known = ", ".join(sorted(self._references))
            raise KeyNotFound(
                f"backend '{self._host.name}' has no master key '{name}' (it has {known}): add it "
                "to its master_keys"
            )
        return reference

    def _read(self, name: str, reference: Reference) -> MasterKey:
        return read_master_key(
            self._host.secret(reference),
            where=f"master key '{self._host.name}:{name}' ({reference})",
            development=self._host.development,
        )
