"""Secrets of KV version 2 and 1, and secrets that an engine makes on demand."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import TypeVar

import msgspec
from hvac.api.secrets_engines import KvV1, KvV2

from sentra_kms import MalformedInput, SecretNotFound, ServiceUnavailable
from sentra_kms.hookspecs import PartHooks, SecretHooks, hookimpl
from sentra_kms.hooktypes import Finding, SecretRequest, SecretValue
from sentra_kms.reference import Reference
from sentra_kms_vault.call import Call
from sentra_kms_vault.documents import document_of, pick, understood
from sentra_kms_vault.engines import Engine, Engines, Place, explain
from sentra_kms_vault.failures import ask
from sentra_kms_vault.leases import Leases
from sentra_kms_vault.vault import Vault

_VERSION = re.compile("[1-9][0-9]{0,17}")
_T = TypeVar("_T")


class _Metadata(msgspec.Struct, frozen=True):
    version: int
    created_time: datetime
    deletion_time: str = ""


class _Version(msgspec.Struct, frozen=True):
    data: dict[str, object]
    metadata: _Metadata

    def __repr__(self) -> str:
        return "_Version(redacted)"


class _KvV2Answer(msgspec.Struct, frozen=True):
    data: _Version


class _KvV1Answer(msgspec.Struct, frozen=True):
    data: dict[str, object]

    def __repr__(self) -> str:
        return "_KvV1Answer(redacted)"


class Secrets(SecretHooks, PartHooks):
    """A secret is its fields, as a JSON object. Leases of what was made on demand are kept."""

    def __init__(self, vault: Vault, mounts: Mapping[str, Engine]) -> None:
        self._vault = vault
        self._engines = Engines(vault.name, mounts, vault.mounts)
        self._leases = Leases(vault)

    @hookimpl
    def fetch_secret(self, request: SecretRequest, timeout: float) -> SecretValue:
        """Read a secret; or have one made on demand, and keep its lease."""
        reference = request.reference
        place = self._engines.place(reference)
        version = _version(reference, place)
        call = self._vault.call(timeout)
        missing = ""
        try:
            found = self._fetch(place, version, str(reference.document), call)
        except SecretNotFound as error:
            missing = error.message
        else:
            return found if reference.field is None else pick(found, reference)
        # An answer that nothing is there says nothing if another engine gave it.
        self._engines.verify(place, str(reference.document), call)
        raise SecretNotFound(missing)

    @hookimpl
    def check(self, timeout: float) -> list[Finding]:
        """Compare the mounts that are declared with those that there are, and look at leases."""
        call = self._vault.call(timeout)
        return self._engines.check(call) + (
            self._leases.check(call) if self._engines.makes_on_demand else []
        )

    @hookimpl
    def close(self) -> None:
        """Give the leases back."""
        self._leases.close()

    def _fetch(self, place: Place, version: int | None, subject: str, call: Call) -> SecretValue:
        if place.engine == "dynamic":
            return self._leases.fetch(place, subject, call.deadline)
        if place.engine == "kv-v1":
            answer = self._read(subject, lambda: KvV1(call).read_secret(place.path, place.mount))
            return SecretValue(
                document_of(self._form(answer, _KvV1Answer, place, subject, call).data)
            )
        answer = self._read(
            subject,
            lambda: KvV2(call).read_secret_version(
                place.path, version, place.mount, raise_on_deleted_version=True
            ),
        )
        found = self._form(answer, _KvV2Answer, place, subject, call).data
        return SecretValue(
            document_of(found.data),
            version=str(found.metadata.version),
            expires=_deletes_itself(found.metadata),
            created=found.metadata.created_time,
        )

    def _read(self, subject: str, read: Callable[[], object]) -> object:
        return ask(
            f"to read {subject}",
            read,
            missing=SecretNotFound,
            special=lambda refusal: explain(refusal, subject),
        )

    def _form(self, answer: object, kind: type[_T], place: Place, subject: str, call: Call) -> _T:
        """Return what was read if it has the form that the engine gives it.

        Else another engine gave it, which is a `ConfigurationError`, or somebody on the way.
        """
        found = understood(answer, kind)
        if found is not None:
            return found
        self._engines.verify(place, subject, call)
        raise ServiceUnavailable(
            f"{subject}: what answered does not answer as {place.engine} does: look at the address "
            "and at proxies"
        )


def _version(reference: Reference, place: Place) -> int | None:
    """Return the version that is asked for; raises `MalformedInput` for any other option."""
    options = dict(reference.options)
    version = options.pop("version", None) if place.engine == "kv-v2" else None
    if options:
        known = "no option but 'version'" if place.engine == "kv-v2" else "no options"
        raise MalformedInput(f"{reference}: secrets of '{place.mount}' have {known}")
    if version is None:
        return None
    if _VERSION.fullmatch(version) is None:  # 0 would be the newest
        raise MalformedInput(f"{reference}: a version is a number from 1")
    return int(version)


def _deletes_itself(metadata: _Metadata) -> datetime | None:
    """Return when a version goes by itself, by its `delete_version_after`."""
    return understood(metadata.deletion_time, datetime) if metadata.deletion_time else None
