"""One configuration's backends, bound, and the plan of keys over them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping
from contextlib import suppress
from functools import partial

from sentra_kms.binding import Binding
from sentra_kms.config import references_in
from sentra_kms.encoding import secret_base64
from sentra_kms.errors import (
    ConfigurationError,
    KMSError,
    MalformedInput,
    UnsupportedOperation,
    afresh,
)
from sentra_kms.events import Event
from sentra_kms.keys.changes import Plan
from sentra_kms.keys.document import Authenticator, AuthKey
from sentra_kms.keys.outages import Outages
from sentra_kms.keys.seen import Seen
from sentra_kms.keys.store import RingStore
from sentra_kms.keys.wrapping import Wrapping
from sentra_kms.material import KeyMaterial
from sentra_kms.reference import KekName, Reference
from sentra_kms.settings import (
    DEFAULT_POLICY,
    AuthSource,
    BackendConfig,
    KeysSettings,
    Policy,
    Settings,
)
from sentra_kms.sources import backend_config, bind

_AUTH_KEY_SIZE = 32


class Ground:
    """What outlives a configuration that is read anew: what was seen, and backends' states."""

    def __init__(
        self,
        *,
        clock: Callable[[], float],
        now: Callable[[], float],
        emit: Callable[[Event], None] | None,
        states: dict[str, MutableMapping[str, object]] | None = None,
    ) -> None:
        self.clock = clock
        self.emit = emit
        self.seen: Seen = Seen()
        self.outages: Outages = Outages(now)
        self.states: dict[str, MutableMapping[str, object]] = {} if states is None else states


class Wiring:
    """Backends by name, and `plan`, `None` without a table `[ENV.keys]`.

    Takes over from `before` what is configured as it was there. Opens no connection and reads no
    secret. Raises `UnsupportedOperation` where a backend cannot do what the configuration needs.
    """

    def __init__(self, settings: Settings, ground: Ground, before: Wiring | None = None) -> None:
        self.settings = settings
        self._ground = ground
        self._closed = False
        self.bindings: dict[str, Binding] = {}
        try:
            self.plan: Plan | None = self._wired(before)
        except BaseException:
            self.close(before)  # what was bound for it; nobody else will
            raise

    def _wired(self, before: Wiring | None) -> Plan | None:
        settings = self.settings
        for name in settings.backends:
            self.bindings[name] = self._kept(name, before) or self._bind(settings.backends[name])
        for name, backend in settings.backends.items():
            for reference in references_in(backend.settings):
                self.bindings[reference.backend].require(
                    "fetch_secret",
                    f"[{settings.environment}.backends.{name}] refers to {reference}",
                )
        for name, entry in settings.secrets.items():
            for reference in references_in(entry):
                self.bindings[reference.backend].require(
                    "fetch_secret",
                    f"[{settings.environment}.secrets] {name} refers to {reference}",
                )
        return None if settings.keys is None else self._plan(settings.keys)

    def close(self, keep: Wiring | None = None) -> list[KMSError]:
        """Close every backend that `keep` does not use too; return what failed."""
        self._closed = True
        kept = set(map(id, keep.bindings.values())) if keep is not None else set[int]()
        failures = [
            _closed(binding) for binding in list(self.bindings.values()) if id(binding) not in kept
        ]
        return [failure for failure in failures if failure is not None]

    def secret(self, reference: Reference) -> KeyMaterial:
        """Fetch what a reference names."""
        from sentra_kms.secrets.fetch import fetch_value  # for whom there are secrets

        return fetch_value(self.bound, reference)

    def bound(self, name: str) -> Binding:
        """Return a backend in use; one that needs no declaration is bound when it is asked for."""
        found = self.bindings.get(name)
        if found is not None:
            return found
        if self._closed:
            raise UnsupportedOperation("this KMS is closed: load() again")
        # Of two threads that bind one at once, both use the first.
        made = self._bind(backend_config(self.settings, name))
        return self.bindings.setdefault(name, made)

    def auth_key(self, source: AuthSource) -> AuthKey:
        """Fetch or derive a ring authentication key."""
        target = source.target
        if isinstance(target, Reference):
            return AuthKey(str(target), _decode_auth_key(self.secret(target), target))
        binding = self.bindings[target.backend]
        key_id = binding.describe_key(target.key).key_id
        return AuthKey(f"{target}, master key id {key_id}", binding.ring_auth_key(target.key))

    def _kept(self, name: str, before: Wiring | None) -> Binding | None:
        """Return the binding of an earlier wiring if nothing that it depends on has changed."""
        if before is None or not _is_same(name, self.settings, before.settings):
            return None
        return before.bindings[name]

    def _bind(self, backend: BackendConfig) -> Binding:
        ground = self._ground
        return bind(
            self.settings,
            backend,
            clock=ground.clock,
            secret=self.secret,
            state=ground.states.setdefault(backend.name, {}),
            emit=ground.emit,
        )

    def _plan(self, keys: KeysSettings) -> Plan:
        place = self._table("keys")
        policies = self.settings.policies
        for policy in policies.values():  # the default one first, which is what `place` says
            table = place if policy.name == DEFAULT_POLICY else self._table("policies", policy.name)
            for kek in policy.unwrap_with:
                self.bindings[kek.backend].require("wrap_key", f"{table} names the KEK '{kek}'")
        for store in filter(None, (keys.store, keys.previous_store)):
            self.bindings[store].require("save_ring", f"{place} keeps rings in '{store}'")
        for source in keys.authenticate_with:
            operation = "fetch_secret" if isinstance(source.target, Reference) else "ring_auth_key"
            self.bindings[source.target.backend].require(
                operation, f"{place} authenticates rings with '{source}'"
            )
        authenticator = Authenticator(
            [partial(self.auth_key, source) for source in keys.authenticate_with]
        )
        previous = None if keys.previous_store is None else self.bindings[keys.previous_store]
        return Plan(
            RingStore(self.bindings[keys.store], authenticator, self._ground.seen, previous),
            {name: self._wrapping(policy) for name, policy in policies.items()},
        )

    def _table(self, *path: str) -> str:
        return f"[{'.'.join((self.settings.environment, *path))}]"

    def _wrapping(self, policy: Policy) -> Wrapping:
        return Wrapping(self.bindings, policy, self._ground.outages)


def wrapping_keks(policies: Mapping[str, Policy]) -> list[KekName]:
    """Return every KEK that wraps or unwraps under some policy, each once."""
    return list(dict.fromkeys(kek for each in policies.values() for kek in each.unwrap_with))


def _is_same(name: str, settings: Settings, before: Settings) -> bool:
    """Whether a backend is configured as before, and so is all that its references lead to."""
    return name in before.backends and _is_alike(
        name, settings, before, lambda new, old: new == old
    )


def is_same_source(name: str, settings: Settings, before: Settings) -> bool:
    """Whether a backend, declared or not, gives the secrets that it gave before.

    It does with another timeout, which says nothing of where they are.
    """
    return _is_alike(
        name,
        settings,
        before,
        lambda new, old: (new.type, new.settings) == (old.type, old.settings),
    )


def _is_alike(
    name: str,
    settings: Settings,
    before: Settings,
    are_alike: Callable[[BackendConfig, BackendConfig], bool],
) -> bool:
    where = (settings.base, settings.environment, settings.development)
    if where != (before.base, before.environment, before.development):
        return False
    try:
        new, old = backend_config(settings, name), backend_config(before, name)
    except KMSError:  # there is none of this name any more, or was none
        return False
    return are_alike(new, old) and all(
        _is_alike(other, settings, before, are_alike)
        for other in {reference.backend for reference in references_in(new.settings)}
    )


def _closed(binding: Binding) -> KMSError | None:
    try:
        binding.close()
    except KMSError as error:
        return afresh(error)
    return None


def _decode_auth_key(text: KeyMaterial, reference: Reference) -> KeyMaterial:
    raw: KeyMaterial | None = None
    with suppress(MalformedInput):
        raw = secret_base64(_without_newline(text))
    if raw is None or len(raw.reveal()) != _AUTH_KEY_SIZE:
        raise ConfigurationError(
            f"{reference} authenticates rings: it must hold standard base64 of exactly "
            f"{_AUTH_KEY_SIZE} bytes: make it with `sentra-kms keygen`"
        )
    return raw


def _without_newline(text: KeyMaterial) -> KeyMaterial:
    ending = b"\r\n" if text.reveal().endswith(b"\r\n") else b"\n"
    return KeyMaterial(text.reveal().removesuffix(ending))
