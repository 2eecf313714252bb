"""A checked configuration as records: what `config` makes and `runtime` builds from."""

# Without `from __future__ import annotations`: msgspec would compile and evaluate each of them
# anew, a millisecond of each start.

from typing import TYPE_CHECKING, Annotated, Self

import msgspec
from msgspec import Meta

from sentra_kms.discovery import FoundType
from sentra_kms.hooktypes import BackendSettings
from sentra_kms.reference import KekName, Reference

if TYPE_CHECKING:
    from sentra_kms.secret_settings import SecretEntry

DEFAULT_TIMEOUT = 5.0  # seconds
DEFAULT_POLICY = "default"
"""The policy of a tenant that was given none; `[ENV.keys]` says what it is."""


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

    @classmethod
    def of_kek(cls, kek: KekName) -> Self:
        """Return a KEK as a source, whatever its key is called: `BACKEND:…://…` is one, too."""
        self = super().__new__(cls, kek)
        self.target = kek
        return self


class CacheSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The table `[ENV.cache]`; times in seconds."""

    key_ttl: Annotated[
        Duration,
        Meta(
            description="An unwrapped key lives this long (jittered).",
            extra_json_schema={"default": "5m"},
        ),
    ] = msgspec.field(default_factory=lambda: Duration(300))
    ring_ttl: Annotated[
        Duration,
        Meta(
            description="A change made elsewhere is in force within this.",
            extra_json_schema={"default": "60s"},
        ),
    ] = msgspec.field(default_factory=lambda: Duration(60))
    max_stale: Annotated[
        Duration,
        Meta(
            description="Outage: go on with what was read and unwrapped this long ago, then fail.",
            extra_json_schema={"default": "1h"},
        ),
    ] = msgspec.field(default_factory=lambda: Duration(3600))
    max_keys: Annotated[int, Meta(ge=1, description="Tenant keys held in memory.")] = 10_000


class KeysSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The table `[ENV.keys]`, with `authenticate_with` filled in where it is absent."""

    wrap_with: Annotated[
        tuple[KekName, ...],
        Meta(
            min_length=1,
            max_length=16,
            description="The KEKs BACKEND:KEY that wrap each tenant key; any one unwraps.",
        ),
    ]
    unwrap_with: Annotated[
        tuple[KekName, ...], Meta(description="Older KEKs that may still unwrap.")
    ] = ()
    authenticate_with: Annotated[
        tuple[AuthSource, ...],
        Meta(
            description="What authenticates key rings: references to base64 of 32 bytes, or local "
            "KEKs. The first signs, any verifies."
        ),
    ] = ()
    store: Annotated[str, Meta(description="The backend that keeps the key rings.")]
    previous_store: Annotated[
        str | None,
        Meta(description="While migrating: key rings that are not in store yet are here."),
    ] = None
    min_wraps: (
        Annotated[
            int,
            Meta(ge=1, description="How many KEKs of wrap_with must wrap; absent: all of them."),
        ]
        | None
    ) = None
    rotate_after: Annotated[
        Duration | None,
        Meta(description="When a tenant's primary key version is due for rotation."),
    ] = None


class PolicySettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One table `[ENV.policies.NAME]`; what it omits is that of `[ENV.keys]` and `[ENV.cache]`."""

    wrap_with: (
        Annotated[
            tuple[KekName, ...],
            Meta(
                min_length=1,
                max_length=16,
                description="The KEKs BACKEND:KEY that wrap the keys of its tenants.",
            ),
        ]
        | None
    ) = None
    unwrap_with: Annotated[
        tuple[KekName, ...] | None, Meta(description="Older KEKs that may still unwrap them.")
    ] = None
    min_wraps: (
        Annotated[int, Meta(ge=1, description="How many KEKs of wrap_with must wrap.")] | None
    ) = None
    rotate_after: Annotated[
        Duration | None, Meta(description="When a primary key version is due for rotation.")
    ] = None
    key_ttl: Annotated[
        Duration | None,
        Meta(description="An unwrapped key lives this long; 0s asks the KMS every time."),
    ] = None


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """A policy with nothing omitted; times in seconds.

    `unwrap_with` has all KEKs that may unwrap, those of `wrap_with` first.
    """

    name: str
    wrap_with: tuple[KekName, ...]
    unwrap_with: tuple[KekName, ...]
    min_wraps: int
    rotate_after: float | None
    key_ttl: float


class AuditSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The table `[ENV.audit]`: names of observers, entry points of `sentra_kms.observers`."""

    observers: Annotated[
        tuple[str, ...], Meta(description="Installed observers that see every event.")
    ] = ()


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
    policies: dict[str, Policy]
    secrets: "dict[str, SecretEntry]" = {}  # text, so that who has no secrets need not import it
