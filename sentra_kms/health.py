"""Whether a process can serve: what its backends answer, asked without decrypting anything."""

from __future__ import annotations

import msgspec

from sentra_kms.errors import KMSError, TenantNotFound
from sentra_kms.reference import TENANT_PLACE
from sentra_kms.wiring import Wiring, wrapping_keks

_PROBE = "sentra-kms-health"
"""A tenant whose ring is asked for; that there is none is as good an answer as one."""


class BackendHealth(msgspec.Struct, frozen=True):
    """Whether a backend answers; `problems` says what does not work, one text each."""

    name: str
    ok: bool
    problems: tuple[str, ...]


class Health(msgspec.Struct, frozen=True):
    """A process's health.

    `live`: it is not closed. `ready`: it can serve, since every backend answers or what is in
    memory may go on for now. `backends`: those that keys and key rings are asked of.
    """

    live: bool
    ready: bool
    backends: tuple[BackendHealth, ...]


def examine(wiring: Wiring) -> tuple[BackendHealth, ...]:
    """Ask the stores for a ring, and each KEK to describe itself."""
    problems: dict[str, list[str]] = {}
    keys = wiring.settings.keys
    if keys is None:
        return ()
    for store in filter(None, (keys.store, keys.previous_store)):
        found = problems.setdefault(store, [])
        try:
            wiring.bindings[store].load_ring(_PROBE)
        except TenantNotFound:
            pass
        except KMSError as error:
            found.append(error.message)
    for kek in wrapping_keks(wiring.settings.policies):
        found = problems.setdefault(kek.backend, [])
        if TENANT_PLACE in kek:
            continue  # each tenant has another
        try:
            wiring.bindings[kek.backend].describe_key(kek.key)
        except KMSError as error:
            found.append(f"{kek}: {error.message}")
    return tuple(
        BackendHealth(name, not found, tuple(dict.fromkeys(found)))
        for name, found in sorted(problems.items())
    )
