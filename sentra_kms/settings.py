"""A checked configuration as records: what `config` makes and `runtime` builds from."""

from __future__ import annotations

from typing import Annotated, Self

import msgspec

from sentra_kms.discovery import FoundType
from sentra_kms.hooktypes import BackendSettings
from sentra_kms.reference import KekName, Reference

DEFAULT_TIMEOUT = 5.0  # seconds


class Duration(float):
    """Seconds, written in the configuration as `"500ms"`, `"60s"`, `"5m"`, `"1h"` or `"30d"`."""


class AuthSource(str):  # noqa: SLOT000 - what it names is kept beside the text
    """Where a ring authentication key comes from: `BACKEND:KEY`, or a reference (has `://`).

    `target` is the parsed one of the two.
    """

    target: KekName | Reference

    def __new__(cls, text: str) -> Self:
        """Check `text`."""
        self = super().__new__(cls, text)
        self.target = Reference(text) if "://" in text else KekName(text)
        return self


class CacheSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The table `[ENV.cache]`; times in seconds."""

    key_ttl: Duration = Duration(300)
    ring_ttl: Duration = Duration(60)
    max_keys: Annotated[int, msgspec.Meta(ge=1)] = 10_000


class KeysSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The table `[ENV.keys]`, with `authenticate_with` filled in where it is absent."""

    wrap_with: Annotated[tuple[KekName, ...], msgspec.Meta(min_length=1, max_length=16)]
    unwrap_with: tuple[KekName, ...] = ()
    authenticate_with: tuple[AuthSource, ...] = ()
    store: str


class AuditSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The table `[ENV.audit]`: names of observers, entry points of `sentra_kms.observers`."""

    observers: tuple[str, ...] = ()


class BackendConfig(msgspec.Struct, frozen=True):
    """One configured backend: its name, type, settings, and timeout in seconds."""

    name: str
    type: FoundType
    settings: BackendSettings
    timeout: float


class Settings(msgspec.Struct, frozen=True):
    """One environment of a configuration, checked. `base` is where relative paths start."""

    source: str
    base: str
    environment: str
    development: bool
    backends: dict[str, BackendConfig]
    cache: CacheSettings
    audit: AuditSettings
    keys: KeysSettings | None
