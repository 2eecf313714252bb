"""The records that pass through hooks, and what a backend is given to start from."""

from __future__ import annotations

from collections.abc import Callable, MutableMapping
from datetime import datetime
from typing import TYPE_CHECKING, Literal

import msgspec

from sentra_kms.context import WrapContext
from sentra_kms.material import KeyMaterial
from sentra_kms.reference import Reference

if TYPE_CHECKING:
    import logging


class WrappedKey(msgspec.Struct, frozen=True):
    """A tenant key under a KEK.

    `key_id` names the KEK as the service knows it (full and versioned where the service has such
    names), so that what was wrapped can be told apart for ever; `key_version` is the service's
    name of the KEK's version, `None` where there is none.
    """

    ciphertext: bytes
    key_id: str
    key_version: str | None


class KeyDescription(msgspec.Struct, frozen=True):
    """The KEK as a wrap made now would record it."""

    key_id: str
    key_version: str | None


class WrapRequest(msgspec.Struct, frozen=True):
    """One tenant key of a batch to be wrapped, and what the wrap is bound to."""

    material: KeyMaterial
    context: WrapContext


class UnwrapRequest(msgspec.Struct, frozen=True):
    """One wrap of a batch to be undone, and what it was bound to."""

    wrapped: WrappedKey
    context: WrapContext


class SecretRequest(msgspec.Struct, frozen=True):
    """Which secret to fetch. `reference.backend` is the name of the backend that is asked.

    A field is never asked for: the core fetches the whole document once and picks fields out of it.
    """

    reference: Reference


class SecretValue(msgspec.Struct, frozen=True):
    """A fetched secret.

    `expires` is an aware datetime, `None` if it does not expire; `created` is when this version of
    it was made, also aware, `None` where the service does not tell. `leased` says that it is given
    back, and ends, when the backend is closed.
    """

    data: KeyMaterial
    version: str | None = None
    expires: datetime | None = None
    created: datetime | None = None
    leased: bool = False


class StoredRing(msgspec.Struct, frozen=True):
    """A key ring as a store keeps it: opaque bytes and a compare-and-set token."""

    document: bytes
    revision: str


class RingPage(msgspec.Struct, frozen=True):
    """Some tenants in the store's order; `cursor` gets the next page, `None` after the last."""

    tenants: tuple[str, ...]
    cursor: str | None


class Remainder(msgspec.Struct, frozen=True):
    """Earlier revisions of a key ring that a store still holds after they were purged.

    `place` says where, in words for an operator; `until` is an aware datetime from which on they
    are gone, `None` if they stay until somebody takes them away.
    """

    place: str
    until: datetime | None


class Finding(msgspec.Struct, frozen=True):
    """Something that an operator should know, with what to do about it."""

    level: Literal["ok", "warning", "error"]
    subject: str
    message: str
    advice: str = ""


class BackendSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Base of a backend type's settings: one table `[ENV.backends.NAME]` of the configuration.

    A credential's field has type `Reference`; the core resolves it when the backend asks.
    """


class BackendType(msgspec.Struct, frozen=True, kw_only=True):
    """What a backend module registers: its settings and how to make its parts.

    `api` is the version of the hook interface that it was written for. `create` is the import
    path `package.module:function` of a callable that takes the settings and a `Host` and returns
    a part or a list of parts; it is imported only when the configuration names the type.
    """

    api: tuple[int, int]
    settings: type[BackendSettings]
    create: str
    summary: str
    install: str = ""
    development_only: bool = False


class Host(msgspec.Struct, frozen=True, kw_only=True):
    """What the core lends to one configured backend.

    `clock` returns seconds since the epoch. `secret` asks the source of a reference each time it is
    called, and nothing is kept, so that a rotated credential is picked up: call it at each login.
    It gives the bytes as the source holds them, with the newline that a file may end in. `resolve`
    makes a path of the configuration absolute. `state` outlives the parts: they are made anew in a
    forked child.
    """

    name: str
    environment: str
    development: bool
    clock: Callable[[], float]
    secret: Callable[[Reference], KeyMaterial]
    resolve: Callable[[str], str]
    state: MutableMapping[str, object]

    @property
    def logger(self) -> logging.Logger:
        """This backend's logger. Never give it a key, a secret or a vendor's answer."""
        import logging  # 4 ms that a process without warnings need not pay

        return logging.getLogger(f"sentra_kms.backends.{self.name}")
