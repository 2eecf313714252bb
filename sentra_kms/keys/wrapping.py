"""Wrapping a tenant key under every KEK of the configuration, unwrapping it with any."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import msgspec
from cryptography.hazmat.primitives.constant_time import bytes_eq

from sentra_kms.context import WrapContext
from sentra_kms.errors import KeyNotFound, KMSError, RingRejected, afresh
from sentra_kms.hooktypes import KeyDescription, WrappedKey
from sentra_kms.keys.ring import Version, Wrap, check_value
from sentra_kms.material import KeyMaterial
from sentra_kms.reference import KekName


class KeyService(Protocol):
    """What wrapping needs of a bound backend."""

    def wrap_key(self, key: str, material: KeyMaterial, context: WrapContext) -> WrappedKey:
        """Wrap."""
        ...

    def unwrap_key(self, key: str, wrapped: WrappedKey, context: WrapContext) -> KeyMaterial:
        """Unwrap; 32 bytes."""
        ...

    def describe_key(self, key: str) -> KeyDescription:
        """Say what a wrap made now would record."""
        ...


class Wrapping:
    """The KEKs of a configuration: all of `wrap_with` wrap, any of both lists unwraps."""

    def __init__(
        self,
        services: Mapping[str, KeyService],
        wrap_with: Sequence[KekName],
        unwrap_with: Sequence[KekName],
    ) -> None:
        self._services = services
        self._wrap_with = tuple(wrap_with)
        self._unwrap_with = tuple(dict.fromkeys((*wrap_with, *unwrap_with)))

    def wrap(self, material: KeyMaterial, where: WrapContext) -> tuple[Wrap, ...]:
        """Wrap under every KEK of `wrap_with`; fails if one fails."""
        return tuple(self._wrap_one(kek, material, where) for kek in self._wrap_with)

    def unwrap(self, version: Version, where: WrapContext) -> KeyMaterial:
        """Return a version's key from the first KEK that gives the right one.

        Only KEKs that the configuration names are asked, in its order, whatever the ring says.
        Every answer is held against the version's check value. Raises `KeyNotFound` if no
        configured KEK wraps the version, else what the KEKs raised, all in one message.
        """
        wraps = {wrap.kek: wrap for wrap in version.wraps}
        failures: list[KMSError] = []
        for kek in self._unwrap_with:
            if kek not in wraps:
                continue
            try:
                return self._unwrap_one(kek, wraps[kek], version, where)
            except KMSError as error:
                failures.append(error)
        if not failures:
            raise KeyNotFound(
                f"version {version.version} of the ring of '{where.tenant}' is wrapped under "
                f"{', '.join(wraps) or 'no KEK'}, and the configuration allows "
                f"{', '.join(self._unwrap_with)}: add the KEK to unwrap_with",
                subject=where.tenant,
            )
        raise _joined(failures)

    def renew(self, version: Version, where: WrapContext) -> Version:
        """Return the version wrapped under the KEKs of `wrap_with` as they are now, and no other.

        A wrap that was made by the current version of its KEK is kept.
        """
        if not version.wraps:
            return version
        kept = {wrap.kek: wrap for wrap in version.wraps if self._is_current(wrap)}
        if set(kept) == set(self._wrap_with) and len(kept) == len(version.wraps):
            return msgspec.structs.replace(version, missing=()) if version.missing else version
        material = self.unwrap(version, where)
        wraps = tuple(
            kept.get(kek) or self._wrap_one(kek, material, where) for kek in self._wrap_with
        )
        return msgspec.structs.replace(version, wraps=wraps, missing=())

    def _is_current(self, wrap: Wrap) -> bool:
        for kek in self._wrap_with:
            if kek == wrap.kek:
                now = self._services[kek.backend].describe_key(kek.key)
                return (now.key_id, now.key_version) == (wrap.key_id, wrap.key_version)
        return False

    def _wrap_one(self, kek: KekName, material: KeyMaterial, where: WrapContext) -> Wrap:
        wrapped = self._services[kek.backend].wrap_key(kek.key, material, where)
        return Wrap(str(kek), wrapped.key_id, wrapped.key_version, wrapped.ciphertext)

    def _unwrap_one(
        self, kek: KekName, wrap: Wrap, version: Version, where: WrapContext
    ) -> KeyMaterial:
        wrapped = WrappedKey(wrap.ciphertext, wrap.key_id, wrap.key_version)
        material = self._services[kek.backend].unwrap_key(kek.key, wrapped, where)
        if not bytes_eq(check_value(material, where), version.check):
            raise RingRejected(
                f"'{kek}' unwrapped a key that is not version {where.version} of the ring of "
                f"'{where.tenant}': its check value differs",
                backend=kek.backend,
                subject=where.tenant,
            )
        return material


def _joined(failures: list[KMSError]) -> KMSError:
    """Return one error for several KEKs: of the kind most worth a retry, telling all."""
    chosen = next((failure for failure in failures if failure.retryable), failures[0])
    joined = afresh(chosen)
    if len(failures) > 1:
        told = "; ".join(
            f"[{failure.subject or failure.backend}] {failure.message}" for failure in failures
        )
        joined.args = (f"no KEK could unwrap: {told}",)
    return joined
