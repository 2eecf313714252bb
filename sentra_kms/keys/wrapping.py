"""Wrapping a tenant key under the KEKs of its policy, unwrapping it with any."""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Protocol

import msgspec

from sentra_kms.context import WrapContext
from sentra_kms.encoding import same_bytes
from sentra_kms.errors import (
    AccessDenied,
    AuthenticationFailed,
    KeyNotFound,
    KeyUnavailable,
    KMSError,
    RingRejected,
    ServiceUnavailable,
    afresh,
)
from sentra_kms.hooktypes import KeyDescription, WrappedKey
from sentra_kms.keys.hedge import HEDGE_AFTER, first_answer
from sentra_kms.keys.outages import Outages
from sentra_kms.keys.ring import Version, Wrap, check_value
from sentra_kms.material import KeyMaterial
from sentra_kms.reference import KekName
from sentra_kms.settings import Policy

_DOES_NOT_WORK = (
    ServiceUnavailable,
    AccessDenied,
    AuthenticationFailed,
    KeyNotFound,
    KeyUnavailable,
)
"""What `min_wraps` lets a KEK fail with: its state, not a fault of ours or of its plugin."""

if TYPE_CHECKING:

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


class Wrapped(msgspec.Struct, frozen=True):
    """The wraps of one version, and the KEKs of the policy that did not wrap it."""

    wraps: tuple[Wrap, ...]
    missing: tuple[str, ...]


class Wrapping:
    """The KEKs of one policy: those of `wrap_with` wrap, any that it names unwraps."""

    def __init__(
        self,
        services: Mapping[str, KeyService],
        policy: Policy,
        outages: Outages,
        *,
        hedge_after: float = HEDGE_AFTER,
    ) -> None:
        self.policy = policy
        self._services = services
        self._outages = outages
        self._hedge_after = hedge_after

    def wrap(self, material: KeyMaterial, where: WrapContext) -> Wrapped:
        """Wrap under every KEK of the policy; fails if fewer than its `min_wraps` can."""
        return self.complete({}, material, where)

    def unwrap(self, version: Version, where: WrapContext) -> KeyMaterial:
        """Return a version's key from the first KEK that gives the right one.

        Only KEKs that the configuration names are asked, in its order, whatever the ring says;
        those that failed a moment ago come last, and the next is asked as well when one takes
        long. Every answer is held against the version's check value. Raises `KeyNotFound` if no
        configured KEK wraps the version, else what the KEKs raised, all in one message.
        """
        return self.unwrap_by(version, where)[0]

    def unwrap_by(self, version: Version, where: WrapContext) -> tuple[KeyMaterial, KekName]:
        """Return what `unwrap` does, and the KEK that gave it."""
        usable = self._usable(version, where.tenant)
        if not usable:
            raise KeyNotFound(
                f"version {version.version} of the ring of '{where.tenant}' is wrapped under "
                f"{', '.join(wrap.kek for wrap in version.wraps) or 'no KEK'}, and policy "
                f"'{self.policy.name}' allows {', '.join(self.policy.unwrap_with)}: add the KEK "
                "to unwrap_with",
                subject=where.tenant,
            )
        usable = self._in_turn(usable)
        asks = [partial(self._unwrap_one, kek, wrap, version, where) for kek, wrap in usable]
        answer, failures = first_answer(
            asks,
            hedge_after=self._hedge_after,
            dawdles=lambda index: self._outages.failed(usable[index][0]),
        )
        if answer is None:
            raise _joined("no KEK could unwrap", failures)
        return answer

    def is_out_of_reach(self, version: Version, tenant: str) -> bool:
        """Whether every KEK that could unwrap the version failed a moment ago."""
        return all(self._outages.is_known(kek) for kek, _ in self._usable(version, tenant))

    def renewal(self, tenant: str, unwrap_by: Wrapping | None = None) -> Renewal:
        """Return what wraps a ring's versions under the KEKs as they are now.

        `unwrap_by` is the policy that wrapped them, if it was another.
        """
        return Renewal(self, unwrap_by or self, tenant)

    def keks(self, tenant: str) -> tuple[KekName, ...]:
        """Return the tenant's KEKs that wrap."""
        return tuple(kek.of(tenant) for kek in self.policy.wrap_with)

    def describe(self, kek: KekName) -> KeyDescription:
        """Say what a wrap under `kek` made now would record."""
        return self._services[kek.backend].describe_key(kek.key)

    def complete(
        self, kept: Mapping[str, Wrap], material: KeyMaterial, where: WrapContext
    ) -> Wrapped:
        """Wrap under the policy's KEKs that are not in `kept`, as `wrap` does."""
        wraps: list[Wrap] = []
        failures: dict[str, KMSError] = {}
        keks = self.keks(where.tenant)
        for kek in keks:
            try:
                wraps.append(kept.get(kek) or self._wrap_one(kek, material, where))
            except _DOES_NOT_WORK as error:
                failures[str(kek)] = error
            if len(keks) - len(failures) < self.policy.min_wraps:
                raise _joined("too few KEKs could wrap", list(failures.values()))
        return Wrapped(tuple(wraps), tuple(failures))

    def _usable(self, version: Version, tenant: str) -> list[tuple[KekName, Wrap]]:
        wraps = {wrap.kek: wrap for wrap in version.wraps}
        named = dict.fromkeys(kek.of(tenant) for kek in self.policy.unwrap_with)
        return [(kek, wraps[kek]) for kek in named if kek in wraps]

    def _in_turn(self, usable: list[tuple[KekName, Wrap]]) -> list[tuple[KekName, Wrap]]:
        """Return those who failed a moment ago last, else as they are.

        Who comes first may be a probe; no other is, since it may not be asked at all.
        """
        for index, each in enumerate(usable):
            if not self._outages.should_wait(each[0]):
                rest = usable[:index] + usable[index + 1 :]
                return [each, *sorted(rest, key=lambda one: self._outages.is_known(one[0]))]
        return usable

    def _wrap_one(self, kek: KekName, material: KeyMaterial, where: WrapContext) -> Wrap:
        wrapped = self._services[kek.backend].wrap_key(kek.key, material, where)
        return Wrap(str(kek), wrapped.key_id, wrapped.key_version, wrapped.ciphertext)

    def opens(self, kek: KekName, wrap: Wrap, version: Version, where: WrapContext) -> bool:
        """Whether a wrap opens to the version's key."""
        try:
            self._unwrap_one(kek, wrap, version, where)
        except KMSError:
            return False
        return True

    def refuse_unopened(
        self, wraps: tuple[Wrap, ...], version: Version, where: WrapContext
    ) -> None:
        """Raise what the KEKs raise if none of them opens what it has just wrapped."""
        failures: list[KMSError] = []
        for wrap in wraps:
            try:
                self._unwrap_one(KekName(wrap.kek), wrap, version, where)
            except KMSError as error:
                failures.append(afresh(error))
            else:
                return
        raise _joined(
            f"nothing was changed, since no KEK opens what it has just wrapped of '{where.tenant}'",
            failures,
            always=True,
        )

    def _unwrap_one(
        self, kek: KekName, wrap: Wrap, version: Version, where: WrapContext
    ) -> tuple[KeyMaterial, KekName]:
        wrapped = WrappedKey(wrap.ciphertext, wrap.key_id, wrap.key_version)
        begun = time.monotonic()
        try:
            material = self._services[kek.backend].unwrap_key(kek.key, wrapped, where)
        except ServiceUnavailable:
            self._outages.failed(kek)
            raise
        if time.monotonic() - begun < self._hedge_after:
            self._outages.worked(kek)  # who answers later than that is better asked last
        if not same_bytes(check_value(material, where), version.check):
            raise RingRejected(
                f"'{kek}' unwrapped a key that is not version {where.version} of the ring of "
                f"'{where.tenant}': its check value differs",
                backend=kek.backend,
                subject=where.tenant,
            )
        return material, kek


class Renewal:
    """One ring's versions wrapped anew; each KEK is asked once for what it would record."""

    def __init__(self, wrapping: Wrapping, unwrap_by: Wrapping, tenant: str) -> None:
        self._wrapping = wrapping
        self._unwrap_by = unwrap_by
        self._keks = wrapping.keks(tenant)
        self._now: dict[str, KeyDescription | None] = {}

    def renew(self, version: Version, where: WrapContext) -> Version:
        """Return the version wrapped under the policy's KEKs as they are now, and no other.

        A wrap that was made by the current version of its KEK is kept; if another one goes, only
        if it opens too: no version is left with wraps of which nobody has seen one open, also of
        those made now. An older one whose KEK does not work now is kept as well, if `min_wraps`
        allows that.
        """
        if not version.wraps:
            return version
        wraps = {wrap.kek: wrap for wrap in version.wraps if wrap.kek in self._keks}
        kept = {kek: wrap for kek, wrap in wraps.items() if self._is_current(wrap)}
        if len(kept) == len(self._keks) == len(version.wraps):
            return msgspec.structs.replace(version, missing=()) if version.missing else version
        material, opened = self._unwrap_by.unwrap_by(version, where)
        for kek in self._keks:
            unseen = kek in kept and kek != opened
            if unseen and not self._wrapping.opens(kek, kept[kek], version, where):
                del kept[kek]
        made = self._wrapping.complete(kept, material, where)
        older = tuple(wraps[kek] for kek in made.missing if kek in wraps)
        if not kept and opened not in {wrap.kek for wrap in older}:
            self._wrapping.refuse_unopened(made.wraps, version, where)
        return msgspec.structs.replace(
            version,
            wraps=made.wraps + older,
            missing=tuple(kek for kek in made.missing if kek not in wraps),
        )

    def _is_current(self, wrap: Wrap) -> bool:
        if wrap.kek not in self._now:
            self._now[wrap.kek] = self._described(KekName(wrap.kek))
        now = self._now[wrap.kek]
        return now is not None and (now.key_id, now.key_version) == (wrap.key_id, wrap.key_version)

    def _described(self, kek: KekName) -> KeyDescription | None:
        try:
            return self._wrapping.describe(kek)
        except _DOES_NOT_WORK:
            if self._wrapping.policy.min_wraps == len(self._keks):
                raise
            return None


def _joined(what: str, failures: list[KMSError], *, always: bool = False) -> KMSError:
    """Return one error for several KEKs: of the kind most worth a retry, telling all."""
    chosen = next((failure for failure in failures if failure.retryable), failures[0])
    joined = afresh(chosen)
    if always or len(failures) > 1:
        told = "; ".join(
            f"[{failure.subject or failure.backend}] {failure.message}" for failure in failures
        )
        joined.args = (f"{what}: {told}",)
    return joined
