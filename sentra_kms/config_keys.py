"""The tables `[ENV.keys]` and `[ENV.policies.NAME]`, checked against the backends."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, NoReturn, Protocol, TypeVar

import msgspec

from sentra_kms.config_file import Table, is_table
from sentra_kms.reference import TENANT_PLACE, KekName, Reference
from sentra_kms.settings import (
    DEFAULT_POLICY,
    AuthSource,
    BackendConfig,
    KeysSettings,
    Policy,
    PolicySettings,
)

_RING_AUTH_TYPES = frozenset({"local", "memory"})
_POLICY_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,119}"
_T = TypeVar("_T", bound=msgspec.Struct)

if TYPE_CHECKING:

    class Convert(Protocol):
        """Makes a record of a table; refuses what does not fit, naming the place."""

        def __call__(self, where: str, table: Table, kind: type[_T]) -> _T:
            """Convert."""
            ...

    class Refuse(Protocol):
        """Raises `ConfigurationError` about a place of the environment."""

        def __call__(self, where: str, what: str) -> NoReturn:
            """Refuse."""
            ...


class Checks(msgspec.Struct, frozen=True):
    """What the reader of an environment lends: how to convert, refuse, and know a backend."""

    subtable: Callable[[str], Table]
    convert: Convert
    refuse: Refuse
    known_backend: Callable[[str, str], None]


def read_keys(
    checks: Checks, backends: Mapping[str, BackendConfig], key_ttl: float
) -> tuple[KeysSettings, dict[str, Policy]]:
    """Return `[ENV.keys]`, with `authenticate_with` filled in, and all policies by name.

    `key_ttl` (seconds) is that of `[ENV.cache]`, which a policy inherits.
    """
    return _KeysReader(checks, backends).read(key_ttl)


class _KeysReader:
    def __init__(self, checks: Checks, backends: Mapping[str, BackendConfig]) -> None:
        self._checks = checks
        self._backends = backends

    def read(self, key_ttl: float) -> tuple[KeysSettings, dict[str, Policy]]:
        table = self._checks.subtable("keys")
        keys = self._checks.convert("keys", table, KeysSettings)
        own = PolicySettings(
            wrap_with=keys.wrap_with, unwrap_with=keys.unwrap_with, min_wraps=keys.min_wraps
        )
        self._check_keks("keys", own)
        self._checks.known_backend("keys.store", keys.store)
        if keys.previous_store is not None:
            self._checks.known_backend("keys.previous_store", keys.previous_store)
            if keys.previous_store == keys.store:
                self._checks.refuse("keys.previous_store", "this is store itself: leave it out")
        policies = {DEFAULT_POLICY: self._policy(DEFAULT_POLICY, "keys", own, keys, key_ttl)}
        for name, given in self._checks.subtable("policies").items():
            policies[name] = self._read_policy(name, given, keys, key_ttl)
        if "authenticate_with" in table:
            self._check_auth_sources(keys.authenticate_with)
            return keys, policies
        sources = self._default_auth(keys, policies)
        return msgspec.structs.replace(keys, authenticate_with=sources), policies

    def _read_policy(self, name: str, table: object, keys: KeysSettings, key_ttl: float) -> Policy:
        where = f"policies.{name}"
        if name == DEFAULT_POLICY:
            self._checks.refuse(where, "the default policy is what [keys] says: write it there")
        if re.fullmatch(_POLICY_NAME, name) is None:
            self._checks.refuse(
                where, "a policy's name is letters, digits, '.', '_' and '-', 120 at most"
            )
        if not is_table(table):
            self._checks.refuse(where, "a policy is a table")
        given = self._checks.convert(where, table, PolicySettings)
        self._check_keks(where, given)
        return self._policy(name, where, given, keys, key_ttl)

    def _policy(
        self, name: str, where: str, given: PolicySettings, keys: KeysSettings, key_ttl: float
    ) -> Policy:
        """Fill in what a policy omits."""
        wrap_with = given.wrap_with or keys.wrap_with
        min_wraps = given.min_wraps
        if min_wraps is None and keys.min_wraps is not None:
            min_wraps = min(keys.min_wraps, len(wrap_with))  # inherited, by one with fewer KEKs
        elif min_wraps is not None and min_wraps > len(wrap_with):
            self._checks.refuse(
                where, f"min_wraps is {min_wraps}, and wrap_with has {len(wrap_with)} KEKs"
            )
        own = keys.unwrap_with if given.unwrap_with is None else given.unwrap_with
        rotate_after = keys.rotate_after if given.rotate_after is None else given.rotate_after
        return Policy(
            name=name,
            wrap_with=wrap_with,
            unwrap_with=tuple(dict.fromkeys((*wrap_with, *own, *keys.unwrap_with))),
            min_wraps=len(wrap_with) if min_wraps is None else min_wraps,
            rotate_after=None if rotate_after is None else float(rotate_after),
            key_ttl=key_ttl if given.key_ttl is None else float(given.key_ttl),
        )

    def _check_keks(self, where: str, given: PolicySettings) -> None:
        for field, names in (("wrap_with", given.wrap_with), ("unwrap_with", given.unwrap_with)):
            for kek in names or ():
                self._checks.known_backend(f"{where}.{field}", kek.backend)
                if not {"{", "}"}.isdisjoint(kek.key.replace(TENANT_PLACE, "")):
                    self._checks.refuse(
                        f"{where}.{field}",
                        f"'{kek}' has braces: the only ones in a KEK's name are {TENANT_PLACE}",
                    )
            if len(set(names or ())) != len(names or ()):
                self._checks.refuse(f"{where}.{field}", "a KEK is named twice")

    def _check_auth_sources(self, sources: tuple[AuthSource, ...]) -> None:
        where = "keys.authenticate_with"
        if not sources:
            self._checks.refuse(where, "name at least one key; the first signs, any verifies")
        for source in sources:
            if isinstance(source.target, Reference):
                continue
            self._checks.known_backend(where, source.target.backend)
            kind = self._backends[source.target.backend].type.name
            if kind not in _RING_AUTH_TYPES:
                self._checks.refuse(
                    where,
                    f"'{source}' is a key of type '{kind}': only local and memory keys "
                    "authenticate rings, or a reference to base64 of 32 random bytes",
                )
            if TENANT_PLACE in source:
                self._checks.refuse(
                    where, f"'{source}' is another key for each tenant: name one for all rings"
                )

    def _default_auth(
        self, keys: KeysSettings, policies: Mapping[str, Policy]
    ) -> tuple[AuthSource, ...]:
        own = tuple(dict.fromkeys((*keys.wrap_with, *keys.unwrap_with)))
        for kek in (*own, *_all_keks(policies.values())):
            if self._backends[kek.backend].type.name not in _RING_AUTH_TYPES:
                self._need_auth(f"'{kek}' is neither a local nor a memory key")
        for kek in own:
            if TENANT_PLACE in kek:
                self._need_auth(f"'{kek}' is another KEK for each tenant")
        return tuple(AuthSource.of_kek(kek) for kek in own)

    def _need_auth(self, why: str) -> NoReturn:
        self._checks.refuse(
            "keys",
            f"authenticate_with is needed, since {why}: name a reference to base64 of 32 random "
            "bytes",
        )


def _all_keks(policies: Iterable[Policy]) -> Iterable[KekName]:
    for policy in policies:
        yield from policy.unwrap_with
