"""Every hook.

An author subclasses the Protocols that apply and marks each method `@hookimpl`::

    from sentra_kms.hookspecs import KeyHooks, PartHooks, hookimpl


    class Keys(KeyHooks, PartHooks):
        @hookimpl
        def wrap_key(self, key, material, context, timeout): ...

Hooks are synchronous, run in the caller's thread and from many threads at once, and return no
generators. `timeout` is in seconds and is theirs to keep: retries fit inside it. What does not
exist is raised (`KeyNotFound`, `SecretNotFound`, `TenantNotFound`), never returned as `None`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from types import FunctionType, MethodType, ModuleType
from typing import TYPE_CHECKING, Protocol

from pluggy import HookimplMarker, HookimplOpts, HookspecMarker, HookspecOpts, PluginManager

from sentra_kms.context import WrapContext
from sentra_kms.errors import KMSError
from sentra_kms.events import Event
from sentra_kms.hooktypes import (
    BackendType,
    Finding,
    KeyDescription,
    Remainder,
    RingPage,
    SecretRequest,
    SecretValue,
    StoredRing,
    UnwrapRequest,
    WrappedKey,
    WrapRequest,
)
from sentra_kms.material import KeyMaterial

if TYPE_CHECKING:
    from click import Group

PROJECT = "sentra_kms"
API_VERSION = (1, 0)
BATCH_SIZE = 100  # requests that one call of a batch hook has at most

hookspec: HookspecMarker = HookspecMarker(PROJECT)
hookimpl: HookimplMarker = HookimplMarker(PROJECT)


_HOOKABLE = (FunctionType, MethodType, staticmethod, classmethod)  # what pluggy looks into


class HookManager(PluginManager):
    """A plugin manager for one set of hooks, which looks at no other names.

    `specifications` is a class or module. Most names of an object are no hooks, and each look
    costs a walk over its classes; names that are almost a hook's are refused by the guard. A
    module that registers passes no guard: there every function is looked at, since the mark of a
    hook may name another.
    """

    def __init__(self, specifications: type | ModuleType) -> None:
        super().__init__(PROJECT)
        members = vars(specifications).items()
        marks = {name: getattr(member, f"{PROJECT}_spec", None) for name, member in members}
        self._specified: dict[str, HookspecOpts] = {
            name: mark for name, mark in marks.items() if mark is not None
        }
        self.add_hookspecs(specifications)

    def parse_hookimpl_opts(self, plugin: object, name: str) -> HookimplOpts | None:
        """Return what marks an implementation."""
        if isinstance(plugin, ModuleType):
            looks = name not in vars(plugin) or isinstance(vars(plugin)[name], _HOOKABLE)
        else:
            looks = name in self._specified
        return super().parse_hookimpl_opts(plugin, name) if looks else None

    def parse_hookspec_opts(self, module_or_class: object, name: str) -> HookspecOpts | None:
        """Return what marks a specification."""
        return self._specified.get(name)


@hookspec(firstresult=True)
def backend_type() -> BackendType:  # type: ignore[empty-body]
    """Register a backend type; implemented by a module that imports no SDK.

    Example::

        @hookimpl
        def backend_type() -> BackendType:
            return BackendType(
                api=(1, 0),
                settings=LocalSettings,
                create="sentra_kms.backends.local:create",
                summary="KEKs from master keys, rings in files",
            )
    """


@hookspec
def register_commands(cli: Group) -> None:
    """Add commands to the command line; optional, implemented by the module of a backend type.

    `cli` is the `click.Group` of `sentra-kms`. Add one group named like the backend type; it is
    imported only when somebody asks for a command that the core does not have.

    Example::

        @hookimpl
        def register_commands(cli: click.Group) -> None:
            cli.add_command(oci_commands)
    """


class KeyHooks(Protocol):
    """Wrap and unwrap tenant keys under a KEK that never leaves its service."""

    @hookspec(firstresult=True)
    @abstractmethod
    def wrap_key(
        self, key: str, material: KeyMaterial, context: WrapContext, timeout: float
    ) -> WrappedKey:
        """Encrypt 32 bytes under `key`, bound to `context`.

        Raises `KeyNotFound` if the service has no such KEK, `KeyUnavailable` if it is disabled.

        Example::

            answer = client.encrypt(key, material.reveal(), associated_data=context.canonical)
            return WrappedKey(answer.ciphertext, answer.key_id, answer.version)
        """

    @hookspec(firstresult=True)
    @abstractmethod
    def unwrap_key(
        self, key: str, wrapped: WrappedKey, context: WrapContext, timeout: float
    ) -> KeyMaterial:
        """Decrypt what `wrap_key` made, under the same `key` and `context` only.

        Raises `DecryptionFailed` if the ciphertext or the context is not the one that was bound.

        Example::

            raw = client.decrypt(key, wrapped.ciphertext, associated_data=context.canonical)
            return KeyMaterial(raw)
        """

    @hookspec(firstresult=True)
    @abstractmethod
    def describe_key(self, key: str, timeout: float) -> KeyDescription:
        """Return the id and version that a wrap made now would record.

        Example::

            return KeyDescription(key_id=client.key_id(key), key_version=client.latest(key))
        """


class BatchKeyHooks(Protocol):
    """Optional, beside `KeyHooks`: many tenant keys under one KEK in one request."""

    @hookspec(firstresult=True)
    @abstractmethod
    def wrap_keys(
        self, key: str, requests: tuple[WrapRequest, ...], timeout: float
    ) -> Sequence[WrappedKey | KMSError]:
        """Wrap each of 1 to 100 tenant keys as `wrap_key` would; one end a request, in order.

        An end is an answer, or the error that `wrap_key` would raise for that request alone. Raises
        what holds for all of them.

        Example::

            answers = client.encrypt_many(key, [r.material.reveal() for r in requests])
            return [WrappedKey(a.ciphertext, a.key_id, a.version) for a in answers]
        """

    @hookspec(firstresult=True)
    @abstractmethod
    def unwrap_keys(
        self, key: str, requests: tuple[UnwrapRequest, ...], timeout: float
    ) -> Sequence[KeyMaterial | KMSError]:
        """Unwrap each of 1 to 100 wraps as `unwrap_key` would; one end a request, in order.

        Example::

            answers = client.decrypt_many(key, [r.wrapped.ciphertext for r in requests])
            return [
                DecryptionFailed("cannot be unwrapped") if a.failed else KeyMaterial(a.plaintext)
                for a in answers
            ]
        """


class RingAuthHooks(Protocol):
    """Only for the built-in `local` and `memory` types: a ring's MAC key from a KEK."""

    @hookspec(firstresult=True)
    @abstractmethod
    def ring_auth_key(self, key: str) -> KeyMaterial:
        """Return the 32-byte key that authenticates rings, derived from the KEK `key`.

        Example::

            return derive(prk, "local/ring-auth/v1", b"", 32)
        """


class SecretHooks(Protocol):
    """Fetch secrets."""

    @hookspec(firstresult=True)
    @abstractmethod
    def fetch_secret(self, request: SecretRequest, timeout: float) -> SecretValue:
        """Return the secret's bytes as the service holds them, with version and times.

        What has several fields is returned whole, as a JSON object: the core picks fields out of
        it. Options that the backend does not know are `MalformedInput`.

        Raises `SecretNotFound` if it does not exist; every other failure has its own error.

        Example::

            found = client.read(request.reference.path)
            return SecretValue(KeyMaterial(found.data), version=found.version)
        """


class BatchSecretHooks(Protocol):
    """Optional, beside `SecretHooks`: many secrets in one request."""

    @hookspec(firstresult=True)
    @abstractmethod
    def fetch_secrets(
        self, requests: tuple[SecretRequest, ...], timeout: float
    ) -> Sequence[SecretValue | KMSError]:
        """Fetch each of 1 to 100 secrets as `fetch_secret` would; one end a request, in order.

        An end is an answer, or the error that `fetch_secret` would raise for that request alone.
        Raises what holds for all of them.

        Example::

            found = client.read_many([r.reference.path for r in requests])
            return [
                SecretNotFound(f"nothing is at {request.reference}")
                if data is None
                else SecretValue(KeyMaterial(data))
                for request, data in zip(requests, found, strict=True)
            ]
        """


class RingHooks(Protocol):
    """Keep key rings: opaque bytes by tenant, changed by compare-and-set only."""

    @hookspec(firstresult=True)
    @abstractmethod
    def load_ring(self, tenant: str, timeout: float) -> StoredRing:
        """Return the tenant's document and its revision, read consistently.

        Raises `TenantNotFound`.

        Example::

            row = db.get(tenant)
            return StoredRing(document=row.document, revision=row.etag)
        """

    @hookspec(firstresult=True)
    @abstractmethod
    def save_ring(self, tenant: str, document: bytes, expected: str | None, timeout: float) -> str:
        """Store the document if the revision is still `expected`; return the new revision.

        `expected=None` creates only. Raises `Conflict` if somebody else saved first.

        Example::

            return db.put(tenant, document, if_match=expected)
        """

    @hookspec(firstresult=True)
    @abstractmethod
    def delete_ring(self, tenant: str, expected: str, timeout: float) -> None:
        """Delete the document if the revision is still `expected`.

        Raises `TenantNotFound` or `Conflict`.

        Example::

            db.delete(tenant, if_match=expected)
        """

    @hookspec(firstresult=True)
    @abstractmethod
    def list_rings(self, cursor: str | None, limit: int, timeout: float) -> RingPage:
        """Return at most `limit` tenants, from the start if `cursor` is `None`.

        Example::

            rows = db.scan(after=cursor, limit=limit)
            return RingPage(tuple(row.tenant for row in rows), rows.next_token)
        """


class RingHistoryHooks(Protocol):
    """Optional, beside `RingHooks`: for a store that keeps what a save or a delete replaced."""

    @hookspec(firstresult=True)
    @abstractmethod
    def purge_ring_history(self, tenant: str, timeout: float) -> list[Remainder]:
        """Erase every stored revision of the tenant's ring but the live one; say what remains.

        Where no ring is live, all of it is erased. Nothing to erase is no error.

        Example::

            for old in db.versions(tenant, live=False):
                db.erase(old)
            return [Remainder("backups of the database", until=db.last_backup_expires())]
        """


class PartHooks(Protocol):
    """What every part may answer; overriding is optional. All parts' answers are collected."""

    @hookspec
    def check(self, timeout: float) -> list[Finding]:
        """Look whether this part would work, and say what to do if not. Changes nothing.

        The doctor asks after it has described KEKs and fetched secrets.

        Example::

            return [Finding("warning", "tenant-keys", "is exportable", "make it non-exportable")]
        """
        return []

    @hookspec
    def close(self) -> None:
        """Let go of connections and keys. Called once.

        Example::

            self.client.close()
        """
        return


class ObserverHooks(Protocol):
    """See what happened. An observer's factory is named by an entry point of its own group."""

    @hookspec
    @abstractmethod
    def audit_event(self, event: Event) -> None:
        """Take one event. Called in a thread of the observer's own, in order, one at a time.

        What it raises is reported and changes nothing; what it takes too long for is dropped.

        Example::

            self.log.write(msgspec.json.encode(event))
        """
