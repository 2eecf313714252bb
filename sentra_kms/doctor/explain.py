"""Every setting that is in force, and where it comes from."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from typing import cast

import msgspec

from sentra_kms.config_file import ConfigFile, Table, is_table
from sentra_kms.doctor.places import local_settings, ring_directory
from sentra_kms.errors import MalformedInput
from sentra_kms.reference import Reference
from sentra_kms.settings import DEFAULT_POLICY, Duration, Policy, Settings

_ORDER = ("development", "backends", "keys", "policies", "secrets", "cache", "audit")
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_USER_INFO = re.compile(r"://[^/?#]*@")
_SECRET_NAME = re.compile(
    r"passw|passphrase|(^|[._-])pass$|pwd|token|secret|credential|private|signature"
    r"|(api|access|account|shared)[_-]?key",
    re.IGNORECASE,
)
_ASSIGNED = re.compile(
    r"\b((?:\w*passw\w*|pwd|\w*secret|\w*token|\w+key)\s*=)[^;&\s]+", re.IGNORECASE
)
_HIDDEN = "(not shown)"
_UNITS = ((86400, "d"), (3600, "h"), (60, "m"), (1, "s"))
Path = tuple[str, ...]


class Explained(msgspec.Struct, frozen=True):
    """One effective setting: dotted path below the environment, value in force, origin."""

    path: str
    value: str
    origin: str


def explain(document: ConfigFile, settings: Settings) -> Iterator[Explained]:
    """Yield the settings of an environment that was understood, related ones together."""
    rows = [
        *_written(document, settings),
        *_defaults(settings, document.merged(settings.environment)),
    ]
    for path, value, origin in sorted(rows, key=lambda row: _place(row[0])):
        yield Explained(".".join(map(_key, path)), value, origin)


def _written(document: ConfigFile, settings: Settings) -> Iterator[tuple[Path, str, str]]:
    name = settings.environment
    own = document.tables.get(name)
    for path, value in _leaves(document.merged(name)):
        origin = f"[{name}]" if _holds(own, path) else "[shared]"
        found = _directory(settings, path)
        if found is None:
            yield path, _shown(value, _called(path)), origin
        else:
            yield path, found[0], origin if found[0] == value else f"{origin}, as {value}"


def _defaults(settings: Settings, table: Table) -> Iterator[tuple[Path, str, str]]:
    """Yield what is in force although it is not written."""
    for path, value in _in_force(settings):
        if _holds(table, path):
            continue
        found = _directory(settings, path) or (_shown(value, _called(path)), _origin(path))
        yield path, *found


def _origin(path: Path) -> str:
    """Say where that comes from which nobody has written."""
    match path:
        case ("policies", _, "key_ttl"):
            return "as in cache"
        case ("policies", _, _):
            return "as in keys"
        case _:
            return "default"


def _directory(settings: Settings, path: Path) -> tuple[str, str] | None:
    """Return a key directory as it is in force and who says so, `None` for other settings."""
    match path:
        case ("backends", name, "directory"):
            local = local_settings(settings, name)
            return None if local is None else ring_directory(settings, local)
        case _:
            return None


def _in_force(settings: Settings) -> Iterator[tuple[Path, object]]:
    yield ("development",), settings.development
    for name, backend in settings.backends.items():
        yield ("backends", name, "type"), backend.type.name
        yield ("backends", name, "timeout"), Duration(backend.timeout)
        yield from _fields(("backends", name), backend.settings)
    if settings.keys is not None:
        for path, value in _fields(("keys",), settings.keys):
            if path[-1] == "min_wraps":  # absent it is all of them
                yield path, settings.policies[DEFAULT_POLICY].min_wraps
            else:
                yield path, value
    for policy in settings.policies.values():
        if policy.name != DEFAULT_POLICY:
            yield from _of_policy(policy)
    yield from _fields(("cache",), settings.cache)
    yield from _fields(("audit",), settings.audit)


def _of_policy(policy: Policy) -> Iterator[tuple[Path, object]]:
    above = ("policies", policy.name)
    rotate_after = policy.rotate_after
    yield (*above, "wrap_with"), policy.wrap_with
    yield (
        (*above, "unwrap_with"),
        [kek for kek in policy.unwrap_with if kek not in policy.wrap_with],
    )
    yield (*above, "min_wraps"), policy.min_wraps
    yield (*above, "rotate_after"), None if rotate_after is None else Duration(rotate_after)
    yield (*above, "key_ttl"), Duration(policy.key_ttl)


def _fields(above: Path, table: msgspec.Struct) -> Iterator[tuple[Path, object]]:
    for field in msgspec.structs.fields(table):
        yield (*above, field.encode_name), getattr(table, field.name)


def _place(path: Path) -> tuple[int, str]:
    """Where a row stands: tables in the order of the documentation, those with names together."""
    top = path[0]
    return _ORDER.index(top), path[1] if top in {"backends", "policies"} else ""


def _leaves(table: Table, above: Path = ()) -> Iterator[tuple[Path, object]]:
    for key, value in table.items():
        if is_table(value):
            yield from _leaves(value, (*above, key))
        else:
            yield (*above, key), value


def _holds(table: object, path: Path) -> bool:
    for key in path:
        if not is_table(table) or key not in table:
            return False
        table = table[key]
    return True


def _key(name: str) -> str:
    return name if _BARE_KEY.fullmatch(name) else '"' + name.replace('"', '\\"') + '"'


def _called(path: Path) -> str:
    """Return a setting's name; in a backend's table that is one thing, the thing's name, too."""
    if path[0] != "backends":
        return path[-1]
    return ".".join([*(each for each in path[2:-1] if not each.endswith("s")), path[-1]])


def _shown(value: object, name: str) -> str:
    """Write a value out, but not one that is a secret where a reference belongs."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Duration):
        return _duration(value)
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_shown(each, name) for each in cast("list[object]", value)) + "]"
    if is_table(value):
        return "{" + ", ".join(f"{_key(k)} = {_shown(v, k)}" for k, v in value.items()) + "}"
    if isinstance(value, str):
        return _text(value, name)
    return "not set" if value is None else str(value)


def _text(value: str, name: str) -> str:
    if _SECRET_NAME.search(name) and not _is_reference(value):
        return _HIDDEN
    return _ASSIGNED.sub(rf"\1{_HIDDEN}", _USER_INFO.sub(f"://{_HIDDEN}@", value))


def _is_reference(value: str) -> bool:
    with suppress(MalformedInput):
        Reference(value)
        return True
    return False


def _duration(seconds: float) -> str:
    for size, unit in _UNITS:
        if seconds >= size and seconds % size == 0:
            return f"{seconds / size:.0f}{unit}"
    return f"{seconds * 1000:g}ms" if seconds else "0s"
