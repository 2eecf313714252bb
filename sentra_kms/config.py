"""`sentra-kms.toml` and the environment's name, read and checked into `Settings`."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, NoReturn, TypeVar, cast

import msgspec

from sentra_kms.config_file import ConfigFile, Table, is_table, listed, nearest
from sentra_kms.config_keys import Checks, read_keys
from sentra_kms.discovery import UNDECLARED, find_type, installed_types
from sentra_kms.errors import (
    ConfigurationError,
    KMSError,
    MalformedInput,
    PluginError,
    UnsupportedOperation,
    afresh,
)
from sentra_kms.reference import PREFIX, Reference, is_backend_name
from sentra_kms.settings import (
    DEFAULT_TIMEOUT,
    AuditSettings,
    BackendConfig,
    CacheSettings,
    Duration,
    KeysSettings,
    Policy,
    Settings,
)

if TYPE_CHECKING:
    from sentra_kms.secret_settings import SecretEntry

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
DURATION_PATTERN = "([0-9]{1,9})(ms|s|m|h|d)"
"""How a duration is written, as a regular expression."""

_LONGEST = 3600.0  # seconds: timers and sockets take no timeout without bound
_MOST_LINKS = 16  # backends in a row, each with the credentials of the one before
_TABLES = ("development", "backends", "keys", "policies", "secrets", "cache", "audit")
_NOT_BUILT = {"audit": frozenset({"required", "path", "wrap_with"})}
_T = TypeVar("_T", bound=msgspec.Struct)


def read_settings(
    source: str | os.PathLike[str] | Mapping[str, object] | None = None,
    environment: str | None = None,
    *,
    base: str | None = None,
) -> Settings:
    """Read a configuration and check `[shared]` and one environment of it.

    `source` is a path, a mapping of the file's shape, or `None`: the file that
    `SENTRA_KMS_CONFIG` names, else `sentra-kms.toml` in the working directory. The environment is
    the argument, `SENTRA_KMS_ENV`, or the file's `default_environment`. `base` is where relative
    paths of a mapping start, by default the working directory. Raises
    `ConfigurationError` naming file, table and key, and `UnsupportedOperation` for what this
    version does not do yet. Opens no connection and fetches no secret.
    """
    document = ConfigFile.read(source, base)
    return read_environment(document, choose_environment(document, environment))


def choose_environment(document: ConfigFile, asked: str | None) -> str:
    """Return the name of the environment that is meant; raises as `read_settings` does."""
    try:
        return document.choose(asked)
    except KMSError as error:
        failure = afresh(error)
    # Anew, since the frames below hold the file's values, and a misplaced secret may be one.
    raise failure


def read_environment(document: ConfigFile, name: str) -> Settings:
    """Check one environment of a configuration; raises as `read_settings` does."""
    try:
        return _Reader(document, name, document.merged(name)).read()
    except KMSError as error:
        failure = afresh(error)
    raise failure  # anew, as above


class _Reader:
    """Checks one environment's table, piece by piece."""

    def __init__(self, document: ConfigFile, name: str, table: Table) -> None:
        self._document = document
        self._name = name
        self._table = table
        self._declared: dict[str, BackendConfig] = {}

    def read(self) -> Settings:
        self._check_keys("", self._table, _TABLES)
        development = self._table.get("development", False)
        if not isinstance(development, bool):
            self._refuse("", "'development' is true or false")
        backends = self._declared = self._backends(development=development)
        cache = self._convert("cache", self._subtable("cache"), CacheSettings)
        keys, policies = self._keys(backends, cache)
        secrets = self._secrets()
        self._reach_references(backends, keys, secrets, development=development)
        return Settings(
            source=self._document.source,
            base=self._document.base,
            environment=self._name,
            development=development,
            backends=backends,
            cache=cache,
            audit=self._convert("audit", self._subtable("audit"), AuditSettings),
            keys=keys,
            policies=policies,
            secrets=secrets,
        )

    def _secrets(self) -> dict[str, SecretEntry]:
        found: dict[str, SecretEntry] = {}
        if "secrets" not in self._table:
            return found
        from sentra_kms.secrets.declaration import is_secret_name, parse_secret

        for name, value in self._subtable("secrets").items():
            try:
                found[name] = parse_secret(name, value, _from_text)
            except MalformedInput as error:
                failure = error.message
            else:
                continue
            self._refuse(f"secrets.{name}" if is_secret_name(name) else "secrets", failure)
        return found

    def _backends(self, *, development: bool) -> dict[str, BackendConfig]:
        found = {
            name: self._backend(name, table) for name, table in self._subtable("backends").items()
        }
        for name, backend in found.items():
            if backend.type.kind.development_only and not development:
                self._refuse(
                    f"backends.{name}",
                    f"type '{backend.type.name}' is for development only, and [{self._name}] is "
                    "not a development environment",
                )
        return found

    def _backend(self, name: str, table: object) -> BackendConfig:
        where = f"backends.{name}"
        if not is_backend_name(name):
            self._refuse(where, "a backend's name is a-z, then a-z, 0-9, '+', '.' or '-'")
        if name.startswith(PREFIX):
            self._refuse(where, f"a backend's name may not begin with '{PREFIX}'")
        kind = table.get("type") if is_table(table) else None
        if not is_table(table) or not isinstance(kind, str):
            self._refuse(where, "a backend is a table with a 'type'")
        own = {key: value for key, value in table.items() if key not in {"type", "timeout"}}
        timeout = table.get("timeout")
        if name in UNDECLARED and kind != name:
            self._refuse(where, f"the name '{name}' belongs to the built-in backend of that type")
        try:
            found = find_type(kind)
        except ConfigurationError as error:
            known = installed_types()
            self._refuse(where, error.message + ("" if kind in known else nearest(kind, known)))
        return BackendConfig(
            name=name,
            type=found,
            settings=self._convert(where, own, found.kind.settings),
            timeout=DEFAULT_TIMEOUT if timeout is None else self._duration(where, timeout),
        )

    def _keys(
        self, backends: dict[str, BackendConfig], cache: CacheSettings
    ) -> tuple[KeysSettings | None, dict[str, Policy]]:
        if "keys" not in self._table:
            if "policies" in self._table:
                self._refuse("policies", f"policies are for keys: add [{self._name}.keys]")
            return None, {}
        checks = Checks(self._subtable, self._convert, self._refuse, self._check_backend)
        return read_keys(checks, backends, float(cache.key_ttl))

    def _reach_references(
        self,
        backends: dict[str, BackendConfig],
        keys: KeysSettings | None,
        secrets: dict[str, SecretEntry],
        *,
        development: bool,
    ) -> None:
        """Check where references lead; add the undeclared backends that they use."""
        found = [
            (f"backends.{name}", reference)
            for name, backend in backends.items()
            for reference in references_in(backend.settings)
        ]
        found += [
            ("keys.authenticate_with", source.target)
            for source in (keys.authenticate_with if keys else ())
            if isinstance(source.target, Reference)
        ]
        found += [
            (f"secrets.{name}", reference)
            for name, entry in secrets.items()
            for reference in references_in(entry)
        ]
        for where, reference in found:
            name = reference.backend
            if name in UNDECLARED and name not in backends:
                if find_type(name).kind.development_only and not development:
                    self._refuse(
                        where,
                        f"{name}:// is for development only, and [{self._name}] is not a "
                        "development environment: keep the secret in a file (file:///…) or a "
                        "secret service",
                    )
                backends[name] = self._backend(name, {"type": name})
            self._check_backend(where, name)
        lengths: dict[str, int] = {}
        for name in backends:
            self._measure((name,), backends, lengths)

    def _measure(
        self, way: tuple[str, ...], backends: dict[str, BackendConfig], lengths: dict[str, int]
    ) -> int:
        """Return over how many others a backend's credentials come; refuse a circle, and too many.

        Each backend is looked at once, however many ways lead to it.
        """
        name = way[-1]
        if name in lengths:
            return lengths[name]
        length = 0
        for other in dict.fromkeys(each.backend for each in references_in(backends[name].settings)):
            if other in way:
                self._refuse(
                    f"backends.{way[0]}",
                    f"its references go in a circle: {' -> '.join((*way, other))}",
                )
            further = _MOST_LINKS
            if len(way) <= _MOST_LINKS:
                further = self._measure((*way, other), backends, lengths)
            length = max(length, 1 + further)
            if length > _MOST_LINKS:
                self._refuse(
                    f"backends.{name}", f"its references lead over more than {_MOST_LINKS} backends"
                )
        lengths[name] = length
        return length

    def _check_backend(self, where: str, name: str) -> None:
        if name in self._declared:
            return
        declared = sorted(self._declared)
        self._refuse(
            where,
            f"there is no backend '{name}' in [{self._name}.backends]; there are {listed(declared)}"
            + nearest(name, declared),
        )

    def _subtable(self, name: str) -> Table:
        table = self._table.get(name, {})
        if not is_table(table):
            self._refuse(name, "this is a table")
        return table

    def _convert(self, where: str, table: Table, kind: type[_T]) -> _T:
        self._check_keys(where, table, kind.__struct_encode_fields__)
        if not table:
            with suppress(Exception):  # what is missing, or raises, is told below
                return kind()
        broken = ""
        try:
            return msgspec.convert(table, kind, dec_hook=_from_text)
        except msgspec.ValidationError as error:
            failure = _without_value(str(error))
        except KMSError as error:  # of settings that check themselves
            failure = error.message
        except TypeError:
            failure, broken = None, "declares a field whose type cannot be"
        except Exception as error:  # noqa: BLE001 - settings and their types may be a plugin's
            failure, broken = None, f"raised {type(error).__name__} when they were read"
        if failure is not None:
            self._refuse(where, failure)
        raise PluginError(
            f"{self._document.source}: {self._place(where)}: {kind.__module__}.{kind.__name__} "
            f"{broken}: its author has to mend it"
        )

    def _check_keys(self, where: str, table: Table, known: Iterable[str]) -> None:
        known = list(known)
        for key in table:
            if key in known:
                continue
            if key in _NOT_BUILT.get(where, ()):
                self._not_built(where, key)
            self._refuse(where, f"unknown key '{key}'" + nearest(key, known))

    def _duration(self, where: str, value: object) -> float:
        try:
            seconds = float(parse_duration(value))
        except ValueError as error:
            failure = f"timeout: {error}"
        else:
            if 0 < seconds <= _LONGEST:
                return seconds
            failure = (
                "timeout: an operation that takes more than 1h is none that is waited for"
                if seconds
                else "timeout: an operation needs more time than none"
            )
        self._refuse(where, failure)

    def _refuse(self, where: str, what: str) -> NoReturn:
        raise ConfigurationError(f"{self._document.source}: {self._place(where)}: {what}")

    def _not_built(self, where: str, what: str) -> NoReturn:
        raise UnsupportedOperation(
            f"{self._document.source}: {self._place(where)}: {what} is not supported by this "
            "version of sentra_kms: leave it out"
        )

    def _place(self, where: str) -> str:
        return f"[{self._name}.{where}]" if where else f"[{self._name}]"


def _without_value(told: str) -> str:
    """Return what msgspec says is wrong, without the value that it may quote."""
    told = told.replace("`$.", "`").replace("Object missing", "missing")
    quoted = r"\A(Invalid (?:enum )?value) .*?(?=( - at `[^`]*`)?\Z)"
    return re.sub(quoted, r"\1", told, flags=re.DOTALL)


def references_in(settings: msgspec.Struct) -> Iterable[Reference]:
    """Yield every reference in a backend's settings, also inside lists and tables."""
    pending: list[object] = [getattr(settings, name) for name in settings.__struct_fields__]
    while pending:
        value = pending.pop()
        if isinstance(value, Reference):
            yield value
        elif isinstance(value, Mapping):
            pending.extend(cast("Mapping[object, object]", value).values())
        elif isinstance(value, (list, tuple)):
            pending.extend(cast("Iterable[object]", value))
        elif isinstance(value, msgspec.Struct):
            pending.extend(getattr(value, name) for name in value.__struct_fields__)


def parse_duration(value: object) -> Duration:
    """Return the seconds of `"500ms"`, `"60s"`, `"5m"`, `"1h"` or `"30d"`; raises `ValueError`.

    >>> parse_duration("5m")
    300.0
    """
    found = re.fullmatch(DURATION_PATTERN, value) if isinstance(value, str) else None
    if found is None:
        raise ValueError('a duration is written like "60s", "5m", "1h" or "30d"')
    return Duration(int(found[1]) * _UNITS[found[2]])


def _from_text(kind: type, value: object) -> object:
    # msgspec turns these errors into its own with the place, and quotes no value.
    if kind is Duration:
        return parse_duration(value)
    if not isinstance(value, str):
        raise TypeError(f"text is needed here, not {type(value).__name__}")
    try:
        return kind(value)
    except MalformedInput as error:
        failure = error.message
    raise ValueError(failure)
