"""Whether a process can serve: what its backends answer, asked without decrypting anything."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import msgspec

from sentra_kms.errors import KMSError, TenantNotFound
from sentra_kms.reference import TENANT_PLACE, KekName
from sentra_kms.settings import DEFAULT_POLICY
from sentra_kms.together import together
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

    `live`: it is not closed. `ready`: it can serve, since the stores of key rings answer and at
    least one KEK of `[ENV.keys]` does, or what is in memory may go on for now. A KEK of another
    policy makes no process unready: a customer who takes theirs back would take everybody's
    service along. `backends`: all that keys and key rings are asked of, and what fails there.
    """

    live: bool
    ready: bool
    backends: tuple[BackendHealth, ...]


class Examined(NamedTuple):
    """What the backends answered, and whether that is enough to serve from."""

    backends: tuple[BackendHealth, ...]
    suffices: bool


def examine(wiring: Wiring) -> Examined:
    """Ask the stores for a ring, and each KEK to describe itself."""
    keys = wiring.settings.keys
    if keys is None:
        return Examined((), suffices=True)
    named = wrapping_keks(wiring.settings.policies)
    stores = [name for name in (keys.store, keys.previous_store) if name]
    # Where each tenant has another KEK there is none to ask; its backend is named all the same.
    keks = [kek for kek in named if TENANT_PLACE not in kek]
    questions = [partial(_ask_store, wiring, name) for name in stores]
    questions += [partial(_ask_kek, wiring, kek) for kek in keks]
    # At once, for a probe has no time to wait for one backend after the other to run out of its.
    answers = together(lambda ask: ask(), questions)
    problems: dict[str, list[str]] = {kek.backend: [] for kek in named}
    for asked in answers:
        told = problems.setdefault(asked.backend, [])
        if asked.problem is not None and asked.problem not in told:
            told.append(asked.problem)
    failed = {asked.kek for asked in answers if asked.problem is not None}
    ours = wiring.settings.policies[DEFAULT_POLICY].wrap_with
    return Examined(
        tuple(
            BackendHealth(name, not found, tuple(found)) for name, found in sorted(problems.items())
        ),
        suffices=None not in failed and not failed.issuperset(ours),
    )


class _Asked(NamedTuple):
    """One question: to which backend, about which KEK (`None`: a ring), and what is wrong."""

    backend: str
    kek: str | None
    problem: str | None


def _ask_store(wiring: Wiring, name: str) -> _Asked:
    try:
        wiring.bindings[name].load_ring(_PROBE)
    except TenantNotFound:
        pass
    except KMSError as error:
        return _Asked(name, None, error.message)
    return _Asked(name, None, None)


def _ask_kek(wiring: Wiring, kek: KekName) -> _Asked:
    try:
        wiring.bindings[kek.backend].describe_key(kek.key)
    except KMSError as error:
        return _Asked(kek.backend, kek, f"{kek}: {error.message}")
    return _Asked(kek.backend, kek, None)
