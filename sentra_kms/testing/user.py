"""Everything that a backend implements, used well."""

# ruff: noqa: S101 - what goes wrong here fails a check

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from sentra_kms.binding import Binding
from sentra_kms.errors import KMSError
from sentra_kms.hooktypes import SecretRequest, SecretValue, UnwrapRequest, WrapRequest
from sentra_kms.material import KeyMaterial
from sentra_kms.reference import Reference
from sentra_kms.secrets.transforms import pick_field
from sentra_kms.testing.base import PLACE, must
from sentra_kms.testing.harness import BackendHarness

READS = (
    "unwrap_key",
    "describe_key",
    "unwrap_keys",
    "fetch_secret",
    "fetch_secrets",
    "load_ring",
    "list_rings",
)
"""Operations that can be done again and again."""


def request_for(reference: str) -> SecretRequest:
    """Return what the core asks a backend for: a whole document, and never a field of it."""
    return SecretRequest(Reference(reference).document)


def picked(found: SecretValue, reference: str) -> bytes:
    """Return what the core makes of a document for a reference: its field, if it names one."""
    named = Reference(reference)
    return (pick_field(found.data, named) if named.keys else found.data).reveal()


class User:
    """Uses everything that a backend implements. Made in one thread, used from any."""

    def __init__(self, bound: Binding, subject: BackendHarness) -> None:
        self._bound = bound
        self._kek = must(subject.kek) if "wrap_key" in bound.operations else None
        self._secret = must(subject.secret) if "fetch_secret" in bound.operations else None

    def use(self, number: int) -> None:
        """Fail unless all goes well; `number` tells this use from others."""
        bound = self._bound
        if self._kek is not None:
            material = KeyMaterial(os.urandom(32))
            wrapped = bound.wrap_key(self._kek, material, PLACE)
            assert bound.unwrap_key(self._kek, wrapped, PLACE) == material
        if self._secret is not None:
            _, separator, rest = self._secret.reference.partition("://")
            found = bound.fetch_secret(request_for(f"{bound.name}{separator}{rest}"))
            assert picked(found, self._secret.reference) == self._secret.data
        if "save_ring" in bound.operations:
            tenant = f"tenant-{number}"
            revision = bound.save_ring(tenant, tenant.encode(), None)
            bound.save_ring(tenant, tenant.encode() * 2, revision)
            assert bound.load_ring(tenant).document == tenant.encode() * 2


def useful_calls(
    bound: Binding, subject: BackendHarness, through: Binding | None = None
) -> dict[str, Callable[[], object]]:
    """Return a call of each operation that would go well, what it needs being made now.

    The calls go through the binding `through`, if there is one, and what they need through `bound`.
    """
    through = through or bound
    calls: dict[str, Callable[[], object]] = {}
    if "wrap_key" in bound.operations:
        kek, material = must(subject.kek), KeyMaterial(os.urandom(32))
        wrapped = bound.wrap_key(kek, material, PLACE)
        calls["wrap_key"] = lambda: through.wrap_key(kek, material, PLACE)
        calls["unwrap_key"] = lambda: through.unwrap_key(kek, wrapped, PLACE)
        calls["describe_key"] = lambda: through.describe_key(kek)
        if "wrap_keys" in bound.operations:
            wraps = [WrapRequest(material, PLACE)] * 2
            unwraps = [UnwrapRequest(wrapped, PLACE)] * 2
            calls["wrap_keys"] = lambda: _all_of(through.wrap_keys(kek, wraps))
            calls["unwrap_keys"] = lambda: _all_of(through.unwrap_keys(kek, unwraps))
    if "fetch_secret" in bound.operations:
        request = request_for(must(subject.secret).reference)
        calls["fetch_secret"] = lambda: through.fetch_secret(request)
        if "fetch_secrets" in bound.operations:
            calls["fetch_secrets"] = lambda: _all_of(through.fetch_secrets([request] * 2))
    if "save_ring" in bound.operations:
        revision = bound.save_ring("acme", b"one", None)
        calls["load_ring"] = lambda: through.load_ring("acme")
        calls["save_ring"] = lambda: through.save_ring("acme", b"two", revision)
        calls["create_ring"] = lambda: through.save_ring("globex", b"one", None)
        calls["list_rings"] = lambda: through.list_rings(None, 10)
        if "purge_ring_history" in bound.operations:
            calls["purge_ring_history"] = lambda: through.purge_ring_history("acme")
        calls["delete_ring"] = lambda: through.delete_ring("acme", revision)
    return calls


def _all_of(ends: Sequence[object]) -> Sequence[object]:
    """Return the ends of a batch, or raise the error that is one: here each ends as all do.

    Errors of which one is the kind of all others are alike, as the `Timeout` of the last request of
    a batch whose time the outage took.
    """
    errors = [end for end in ends if isinstance(end, KMSError)]
    if not errors:
        return ends
    for error in errors:
        if all(isinstance(end, type(error)) for end in ends):
            raise error
    raise AssertionError("the requests of a batch end in several ways")
