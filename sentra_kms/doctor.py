"""What `sentra-kms doctor` tells: the effective configuration explained, and what is wrong.

Every environment is read; the chosen one is explained value by value and, unless offline, tried:
each backend is asked, each KEK described, each ring authentication key read. Nothing is changed.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from typing import cast

import msgspec

from sentra_kms.config import read_environment, references_in
from sentra_kms.config_file import ConfigFile, Table, is_table
from sentra_kms.discovery import CORE
from sentra_kms.errors import KMSError
from sentra_kms.hooktypes import Finding
from sentra_kms.reference import KekName, Reference
from sentra_kms.runtime import KMS
from sentra_kms.settings import Settings
from sentra_kms.version import VERSION

_LEVELS = ("ok", "warning", "error")


class Explained(msgspec.Struct, frozen=True):
    """One effective setting: dotted path below the environment, value as written, origin."""

    path: str
    value: str
    origin: str


class Diagnosis(msgspec.Struct, frozen=True):
    """All that the doctor found. `distributions` are name and version of core and plugins."""

    source: str
    environment: str
    offline: bool
    explained: tuple[Explained, ...]
    findings: tuple[Finding, ...]
    distributions: tuple[tuple[str, str], ...]

    @property
    def level(self) -> str:
        """The worst level found: `ok`, `warning` or `error`."""
        return max((finding.level for finding in self.findings), key=_LEVELS.index, default="ok")


def diagnose(
    source: str | os.PathLike[str] | Mapping[str, object] | None = None,
    environment: str | None = None,
    *,
    offline: bool = False,
) -> Diagnosis:
    """Examine a configuration; raises `ConfigurationError` only if no environment can be chosen.

    With `offline` nothing is fetched: no secret, no KEK, no ring.
    """
    document = ConfigFile.read(source)
    name = document.choose(environment)
    readable: dict[str, Settings] = {}
    findings: list[Finding] = []
    for other in sorted(document.environments()):
        try:
            readable[other] = read_environment(document, other)
        except KMSError as error:
            findings.append(Finding("error", other, error.message))
    findings += _across(readable)
    settings = readable.get(name)
    explained: tuple[Explained, ...] = ()
    if settings is not None:
        # Only of a configuration that was understood: elsewhere a value may be a misplaced secret.
        explained = tuple(_explain(document, settings))
        findings += _within(settings)
        findings += () if offline else _tried(settings)
    return Diagnosis(
        source=document.source,
        environment=name,
        offline=offline,
        explained=explained,
        findings=tuple(findings),
        distributions=tuple(_distributions(readable.values())),
    )


def _explain(document: ConfigFile, settings: Settings) -> Iterator[Explained]:
    name = settings.environment
    own, table = document.tables.get(name), document.merged(name)
    for path, value in _leaves(table):
        origin = f"[{name}]" if _holds(own, path) else "[shared]"
        yield Explained(".".join(path), _shown(value), origin)
    for path, value in _defaults(settings):
        if not _holds(table, path):
            yield Explained(".".join(path), value, "default")


def _defaults(settings: Settings) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yield what is in force although it is not written."""
    yield ("development",), _shown(settings.development)
    for field in settings.cache.__struct_fields__:
        value = getattr(settings.cache, field)
        yield ("cache", field), f"{value:g} s" if isinstance(value, float) else _shown(value)
    for name, backend in settings.backends.items():
        yield ("backends", name, "type"), backend.type.name
        yield ("backends", name, "timeout"), f"{backend.timeout:g} s"
        for field in backend.settings.__struct_fields__:
            yield ("backends", name, field), _shown(getattr(backend.settings, field))
    if settings.keys is not None:
        for field in settings.keys.__struct_fields__:
            yield ("keys", field), _shown(getattr(settings.keys, field))


def _leaves(table: Table, above: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], object]]:
    for key, value in table.items():
        if is_table(value):
            yield from _leaves(value, (*above, key))
        else:
            yield (*above, key), value


def _holds(table: object, path: tuple[str, ...]) -> bool:
    for key in path:
        if not is_table(table) or key not in table:
            return False
        table = table[key]
    return True


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_shown(each) for each in cast("list[object]", value)) + "]"
    if is_table(value):
        return "{" + ", ".join(f"{key} = {_shown(each)}" for key, each in value.items()) + "}"
    return "not set" if value is None else str(value)


def _across(readable: Mapping[str, Settings]) -> Iterator[Finding]:
    """Warn of what two environments share: a leak in one is then a leak in both."""
    users: dict[str, list[str]] = {}
    for name, settings in readable.items():
        for shared in sorted({*_references(settings), *_service_keks(settings)}):
            users.setdefault(shared, []).append(name)
    for shared, names in users.items():
        if len(names) > 1:
            yield Finding(
                "warning",
                shared,
                f"is used by the environments {' and '.join(names)}",
                "give each environment its own",
            )


def _references(settings: Settings) -> Iterator[Reference]:
    for backend in settings.backends.values():
        yield from references_in(backend.settings)
    for source in settings.keys.authenticate_with if settings.keys else ():
        if isinstance(source.target, Reference):
            yield source.target


def _service_keks(settings: Settings) -> Iterator[str]:
    """Yield KEKs with what tells their service apart; local ones are told apart by reference."""
    for kek in _keks(settings):
        backend = settings.backends[kek.backend]
        if backend.type.name not in {"local", "memory"}:
            yield f"{kek} of {backend.settings!r}"


def _keks(settings: Settings) -> Iterator[KekName]:
    if settings.keys is not None:
        yield from dict.fromkeys((*settings.keys.wrap_with, *settings.keys.unwrap_with))


def _within(settings: Settings) -> Iterator[Finding]:
    if settings.keys is None:
        yield Finding(
            "warning",
            settings.environment,
            "has no table [keys], so kms.keys is not there",
            f"add [{settings.environment}.keys] to keep tenants' keys",
        )
    if not settings.development:
        for reference in _references(settings):
            if reference.backend == "file":
                yield Finding(
                    "warning",
                    reference,
                    "is a file outside any declared directory",
                    "see that only this service's user can read it",
                )


def _tried(settings: Settings) -> Iterator[Finding]:
    try:
        kms = KMS(settings)
    except KMSError as error:
        yield Finding("error", settings.environment, error.message)
        return
    with kms:
        yield from kms.examine()


def _distributions(readable: Iterable[Settings]) -> Iterator[tuple[str, str]]:
    found: dict[str, str] = {CORE: VERSION}
    for settings in readable:
        for backend in settings.backends.values():
            found[backend.type.distribution] = backend.type.version
    yield from sorted(found.items())
