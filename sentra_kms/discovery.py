"""From the name of a backend type to its registration, through entry points.

Built-in types need no scan, and only types that a configuration names are imported.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, cast

import msgspec
from pluggy import PluginValidationError

from sentra_kms import hookspecs
from sentra_kms.errors import ConfigurationError, KMSError, PluginError
from sentra_kms.hooktypes import BackendSettings, BackendType, Host
from sentra_kms.version import VERSION

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint, EntryPoints
    from types import ModuleType

BACKEND_GROUP = "sentra_kms.backends"
OBSERVER_GROUP = "sentra_kms.observers"
CORE = "sentra-kms"

BUILT_IN = {
    "docker": "sentra_kms.backends.docker",
    "env": "sentra_kms.backends.env",
    "file": "sentra_kms.backends.file",
    "local": "sentra_kms.backends.local",
    "memory": "sentra_kms.backends.memory",
    "systemd": "sentra_kms.backends.systemd",
}
"""The built-in types and their modules."""

RESERVED = frozenset(BUILT_IN)
"""Type names that no distribution may claim."""

UNDECLARED = ("docker", "env", "file", "systemd")
"""Types that are there under their own names without being declared."""

_OF_THE_CORE = frozenset({"type", "timeout"})
"""What each table of a backend has that is no setting of its type's own."""

_OTHER_VERSION = (
    f"imports what sentra-kms {VERSION} does not have: install a version of it that was made for "
    "this one, or the sentra-kms that it was made for"
)

Create = Callable[[BackendSettings, Host], object]


class FoundType(msgspec.Struct, frozen=True):
    """A backend type with the distribution that brings it and that one's version."""

    name: str
    kind: BackendType
    distribution: str
    version: str


def find_type(name: str) -> FoundType:
    """Return what the type `name` registers.

    Raises `ConfigurationError` if no distribution brings it or two do, and `PluginError` if the
    one that does breaks the rules of registration; both say which distributions and what to do.
    """
    if name in BUILT_IN:
        return _built_in(name)
    entries = scan(BACKEND_GROUP)
    entry = _only(name, entries.get(name, []), entries)
    distribution, version = distribution_of(entry)
    return FoundType(name, _registered(entry.value, name, distribution), distribution, version)


@cache
def _built_in(name: str) -> FoundType:
    return FoundType(name, _registered(BUILT_IN[name], name, CORE), CORE, VERSION)


def installed_types() -> list[str]:
    """Return the names of all types, built in and brought by distributions, sorted."""
    return sorted({*BUILT_IN, *scan(BACKEND_GROUP)})


def registered_module(name: str) -> ModuleType:
    """Import and return the module that registers the type `name`."""
    if name in BUILT_IN:
        return import_module(BUILT_IN[name])
    entries = scan(BACKEND_GROUP)
    return import_module(_only(name, entries.get(name, []), entries).value)


def find_create(found: FoundType) -> Create:
    """Import and return the function that makes a backend's parts.

    This is where a plugin's SDK is imported; raises `ConfigurationError` if it is missing, with
    what to install.
    """
    module, _, function = found.kind.create.partition(":")
    who = f"backend type '{found.name}' of {found.distribution} {found.version}"
    failure: KMSError
    try:
        imported = import_module(module)
        create: object = getattr(imported, function, None)
    except ImportError as error:
        failure = _lacking(error, who, found.kind.install)
    except Exception as error:  # noqa: BLE001 - an import runs foreign code
        failure = PluginError(f"{who} failed to import {module}: {type(error).__name__}")
    else:
        if callable(create):
            return cast("Create", create)
        failure = PluginError(
            f"{who} names {found.kind.create} to create it, which "
            + ("does not exist" if create is None else f"is {type(create).__name__}: no function")
        )
    raise failure


def _lacking(error: ImportError, who: str, install: str) -> KMSError:
    """Return an error about what an import lacks: a module, or something in one that is there."""
    if _is_ours(error.name):
        return PluginError(f"{who} cannot be used: it {_OTHER_VERSION}")
    missing = f"module {error.name}" if error.name else "a module"
    if type(error) is ImportError and error.name:
        missing = f"what it imports from {error.name}"
    return ConfigurationError(
        f"{who} cannot be used: {missing} is missing"
        + (f"; install it with: {install}" if install else "")
    )


def _is_ours(module: object) -> bool:
    return isinstance(module, str) and module.partition(".")[0] == "sentra_kms"


def scan(group: str) -> dict[str, list[EntryPoint]]:
    """Return a group's entry points by name; imports none of them."""
    from importlib.metadata import entry_points  # some 60 ms, which built-in types do not pay

    entries: EntryPoints | None = None
    with suppress(Exception):  # a file that is wrong in one distribution fails all
        entries = entry_points(group=group)
    if entries is None:
        raise ConfigurationError(
            f"the entry points of {_unreadable()} cannot be read: install it anew, or uninstall it"
        )
    found: dict[str, list[EntryPoint]] = {}
    for entry in entries:
        same = found.setdefault(entry.name, [])
        # One distribution can be found twice, over two entries of sys.path that are one place.
        if (entry.value, *distribution_of(entry)) not in [
            (other.value, *distribution_of(other)) for other in same
        ]:
            same.append(entry)
    return found


def _unreadable() -> str:
    from importlib.metadata import distributions

    for each in distributions():
        try:
            _ = each.entry_points
        except Exception:  # noqa: BLE001 - whatever is wrong with it
            with suppress(Exception):
                return f"{each.metadata['Name'] or 'a distribution'} in {each.locate_file('')}"
    return "an installed distribution"


def distribution_of(entry: EntryPoint) -> tuple[str, str]:
    """Return name and version of the distribution that brings an entry point."""
    with suppress(Exception):  # of one that is half uninstalled there is nothing to read
        found: list[object] = [entry.dist.name, entry.dist.version] if entry.dist else []
        name, version = (each for each in found if isinstance(each, str))
        return name, version
    return "an unknown distribution", "?"


def _only(name: str, entries: list[EntryPoint], known: dict[str, list[EntryPoint]]) -> EntryPoint:
    for reserved in RESERVED.intersection(known):
        raise PluginError(
            f"{_tell(known[reserved])} claims the built-in backend type '{reserved}': uninstall it"
        )
    if len(entries) > 1:
        raise ConfigurationError(
            f"the backend type '{name}' is brought by {_tell(entries)}: uninstall all but one"
        )
    if not entries:
        brought = [f"{other} ({_tell(found)})" for other, found in sorted(known.items())]
        raise ConfigurationError(
            f"no backend type '{name}' is installed; there are {', '.join(sorted(BUILT_IN))} "
            f"(built in){''.join(', ' + each for each in brought)}: install the distribution that "
            "brings it into this environment"
        )
    return entries[0]


def _tell(entries: list[EntryPoint]) -> str:
    return " and ".join(sorted("{} {}".format(*distribution_of(entry)) for entry in entries))


def _registered(module: str, name: str, distribution: str) -> BackendType:
    """Import a module and ask it for its type; hold the answer to the rules."""
    where = f"module {module} of {distribution}, which should register backend type '{name}',"
    imported = _import(module, where)
    manager = hookspecs.HookManager(hookspecs)
    answers: list[object] = []
    failure: str | None = None
    try:
        manager.register(imported)
        hooks = [each.function for each in manager.hook.backend_type.get_hookimpls()]
        if len(hooks) == 1:  # else it is told how many there are
            manager.check_pending()
        answers = [hook() for hook in hooks]
    except PluginValidationError:
        failure = (
            f"{where} marks a hook that is not as specified: those of a module are backend_type() "
            "and register_commands(cli)"
        )
    except Exception as error:  # noqa: BLE001 - whatever a foreign module does at registration
        failure = f"{where} raised {type(error).__name__}"
    for answer in answers:
        if inspect.iscoroutine(answer):
            answer.close()  # it is refused below, and would warn that nobody awaited it
    if failure is None and len(answers) != 1:
        failure = f"{where} has {len(answers)} hooks backend_type: it needs one"
    if failure is not None:
        raise PluginError(failure)
    return _checked(answers[0], where)


def _import(module: str, where: str) -> ModuleType:
    if not _is_module_path(module):
        raise PluginError(
            f"{where} is no module: the entry point's value is the path of one, without ':'"
        )
    failure: str
    try:
        return import_module(module)
    except Exception as error:  # noqa: BLE001 - an import runs foreign code
        failure = f"{where} failed to import: {type(error).__name__}"
        missing = error.name if isinstance(error, ImportError) else None
        if missing is not None and f"{module}.".startswith(f"{missing}."):
            failure += ": it is not there: install the distribution anew"
        elif _is_ours(missing):
            failure += f" ({missing}): it {_OTHER_VERSION}"
        elif missing is not None:
            failure += f" ({missing}): it may import no SDK"
    raise PluginError(failure)


def _checked(answer: object, where: str) -> BackendType:
    if type(answer) is not BackendType:
        raise PluginError(f"{where} registers {type(answer).__name__}, not one BackendType")
    api = _numbers(answer.api)
    if api is None:
        raise PluginError(f"{where} has no api of two numbers, such as (1, 0)")
    major, minor = api
    if major != hookspecs.API_VERSION[0] or minor > hookspecs.API_VERSION[1]:
        ours = "{}.{}".format(*hookspecs.API_VERSION)
        raise PluginError(
            f"{where} is written for hook API {major}.{minor}, this sentra-kms has {ours}: "
            + ("upgrade sentra-kms" if (major, minor) > hookspecs.API_VERSION else "upgrade it")
        )
    if not _is_settings(answer.settings):
        raise PluginError(f"{where} has settings that are no subclass of BackendSettings")
    taken = _OF_THE_CORE.intersection(answer.settings.__struct_encode_fields__)
    if taken:
        raise PluginError(
            f"{where} has settings with a field '{min(taken)}', which the core reads for every "
            "backend: name it otherwise"
        )
    if not _is_import_path(answer.create):
        raise PluginError(f"{where} names create as {answer.create!r}, not 'package.module:name'")
    for name, kind in (("summary", str), ("install", str), ("development_only", bool)):
        given = getattr(answer, name)
        if type(given) is not kind:
            raise PluginError(f"{where} gives {name} as {type(given).__name__}")
    return answer


def _is_import_path(create: object) -> bool:
    module, _, function = create.partition(":") if type(create) is str else ("", "", "")
    return _is_module_path(module) and function.isidentifier()


def _is_module_path(module: str) -> bool:
    return all(name.isidentifier() for name in module.split("."))


def _numbers(api: object) -> tuple[int, int] | None:
    try:
        return msgspec.convert(api, tuple[int, int])
    except msgspec.ValidationError:
        return None


def _is_settings(settings: object) -> bool:
    return isinstance(settings, type) and issubclass(settings, BackendSettings)
