"""Which engine is mounted where, as Vault tells it.

Asked before what would do harm in another engine, and before an answer that nothing is there is
believed, since other engines and empty ones give it in the same words. An engine may be mounted in
the place of another while a process runs, so that an answer is believed for `LIFE` and no longer.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

import msgspec
from hvac.utils import format_url

from sentra_kms import ConfigurationError, KMSError, NotFound, ServiceUnavailable
from sentra_kms_vault.call import Call
from sentra_kms_vault.documents import understood
from sentra_kms_vault.failures import Refused, ask, vendor_error

LIFE = 10.0
"""Seconds that an answer is believed."""
_KV = frozenset({"kv", "generic"})


class Mounted(msgspec.Struct, frozen=True):
    """An engine. `uuid` is its own: another engine at the same place has another."""

    type: str
    path: str
    options: Mapping[str, str] | None = None
    uuid: str = ""

    @property
    def place(self) -> str:
        """Where it is mounted, as settings write it."""
        return self.path.strip("/")

    @property
    def kv_version(self) -> int | None:
        """The version of a KV engine, `None` of others."""
        if self.type not in _KV:
            return None
        return 2 if (self.options or {}).get("version") == "2" else 1


class _Answer(msgspec.Struct, frozen=True):
    data: Mounted


class _Seen(NamedTuple):
    engine: Mounted
    until: float


class Mounts:
    """What is known of the mounts of one Vault. Safe from many threads.

    `clock` returns monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seen: dict[str, _Seen] = {}
        self._proved: dict[str, str] = {}

    def at(self, mount: str, call: Call, *, anew: bool = False) -> Mounted | None:
        """Return the engine that answers for a path below `mount`, which may be mounted above it.

        `None` if Vault shows this token none: it has no right below the mount, or nothing is there.
        With `anew` no earlier answer is believed. Raises `ServiceUnavailable` and its kinds, and
        `ConfigurationError` for an answer that no Vault gives; never `NotFound`.
        """
        now = self._clock()
        seen = self._seen.get(mount)
        if seen is not None and now < seen.until and not anew:
            return seen.engine
        engine = _look(mount, call)
        if engine is None:
            self._seen.pop(mount, None)
        else:
            self._seen[mount] = _Seen(engine, now + LIFE)
        return engine

    def is_the_proved_one(self, mount: str, engine: Mounted) -> bool:
        """Whether no other engine was found fit at this mount before; the first one is noted."""
        return self._proved.setdefault(mount, engine.uuid) == engine.uuid


def _look(mount: str, call: Call) -> Mounted | None:
    answer = ask(
        f"to tell what is mounted at '{mount}'",
        lambda: _answer(mount, call),
        missing=NotFound,
        special=lambda refusal: _no_vault(mount, refusal),
    )
    if answer is None:
        return None
    found = understood(answer, _Answer)
    if found is None:
        raise ServiceUnavailable(f"what Vault says of the mount '{mount}' is not understood")
    return found.data


def _answer(mount: str, call: Call) -> object:
    try:
        return call.get(format_url("/v1/sys/internal/ui/mounts/{mount}", mount=mount))
    except Refused as refusal:
        if refusal.status != 403:
            raise
    return None


def _no_vault(mount: str, refusal: Refused) -> KMSError | None:
    """Return the error of an answer that nothing is there, which would be believed of a secret."""
    if refusal.status not in {400, 404}:
        return None
    failure = ConfigurationError(
        f"what answers does not tell what is mounted at '{mount}': look at the address, at "
        "`namespace`, and at proxies"
    )
    failure.__cause__ = vendor_error(refusal)
    return failure
