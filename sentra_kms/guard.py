"""What a backend may not do, refused when it is bound and not at its first use.

pluggy lets all of this through: a method without its marker silently vanishes, an omitted
argument is silently dropped, a wrapper sees and replaces keys.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from types import FunctionType, MethodType
from typing import cast

from sentra_kms.errors import PluginError
from sentra_kms.hookspecs import (
    PROJECT,
    KeyHooks,
    ObserverHooks,
    PartHooks,
    RingAuthHooks,
    RingHooks,
    SecretHooks,
)

PROTOCOLS: tuple[type, ...] = (KeyHooks, RingAuthHooks, SecretHooks, RingHooks, PartHooks)
"""What a backend's parts implement."""

_MARK = f"{PROJECT}_impl"
_SPEC_MARK = f"{PROJECT}_spec"
_REFUSED_OPTIONS = ("hookwrapper", "wrapper", "tryfirst", "trylast", "specname")
_PAIRS = (("wrap_key", "unwrap_key"), ("load_ring", "save_ring"))


Specifications = Mapping[str, Callable[..., object]]


def _specified(*protocols: type) -> Specifications:
    return {
        name: member
        for protocol in protocols
        for name, member in vars(protocol).items()
        if hasattr(member, _SPEC_MARK)
    }


SPECIFICATIONS = _specified(*PROTOCOLS)
"""Every operation's specification, by name."""

SPECIFIED: type = type("Specified", (), dict(SPECIFICATIONS))
"""The same as one namespace: pluggy looks at each name of each, which takes a binding's half."""

_OBSERVERS = _specified(ObserverHooks)


def check_parts(backend: str, parts: Sequence[object]) -> frozenset[str]:
    """Return the operations that the parts implement; `PluginError` names the first fault."""
    who = f"backend '{backend}'"
    if not parts:
        raise PluginError(f"{who} was created without a part")
    owners: dict[str, object] = {}
    for part in parts:
        for name in _implemented(who, part, SPECIFICATIONS):
            if name in owners and _first_result(name):
                raise PluginError(
                    f"{who}: both {_name(owners[name])} and {_name(part)} implement {name}: one "
                    "part must answer"
                )
            owners[name] = part
    for one, other in _PAIRS:
        if (one in owners) != (other in owners):
            raise PluginError(f"{who}: {one} and {other} come together or not at all")
    return frozenset(owners)


def check_observer(name: str, observer: object) -> None:
    """Hold an observer to the same rules; raises `PluginError`."""
    _implemented(f"observer '{name}'", observer, _OBSERVERS)


def _implemented(who: str, part: object, specifications: Specifications) -> list[str]:
    if inspect.isclass(part):
        raise PluginError(f"{who}: {part.__name__} is a class: an instance is needed")
    found: list[str] = []
    # Of the instance, not its class: pluggy takes hooks from instance attributes, too.
    for name, member in inspect.getmembers_static(part):
        function = _function_of(member)
        where = f"{who}: {_name(part)}.{name}"
        options = None if function is None else _options(function, _MARK)
        if options is not None:
            _check_options(where, name, options, specifications)
            if name in specifications:
                _check_shape(where, specifications[name], part, name, member)
                found.append(name)
        elif name in specifications and (function is None or not hasattr(function, _SPEC_MARK)):
            raise PluginError(f"{where} has a hook's name but is not marked @hookimpl")
    if not found:
        raise PluginError(f"{who}: {_name(part)} implements no hook: it is no part")
    return found


def _function_of(member: object) -> FunctionType | None:
    """Return the function behind a method; anything else is not even looked into.

    A proxy that invents attributes would otherwise seem to carry every mark.
    """
    function: object = member
    if isinstance(member, (staticmethod, classmethod, MethodType)):
        function = cast("MethodType", member).__func__  # of all three alike
    return function if isinstance(function, FunctionType) else None


def _check_options(
    where: str, name: str, options: Mapping[str, object], specifications: Specifications
) -> None:
    for option in _REFUSED_OPTIONS:
        if options.get(option):
            raise PluginError(f"{where} is marked {option}: a hook here is a plain @hookimpl")
    if name in specifications:
        return
    from difflib import get_close_matches  # only for an error

    close = get_close_matches(name, specifications, n=1)
    if not options.get("optionalhook") or close:
        hint = f"; did you mean {close[0]}?" if close else ""
        raise PluginError(f"{where} implements no known hook{hint}")


def _check_shape(
    where: str, specification: Callable[..., object], part: object, name: str, member: object
) -> None:
    if not isinstance(member, FunctionType):
        raise PluginError(f"{where} is not a plain method")
    if inspect.getattr_static(type(part), name, None) is not member:
        raise PluginError(f"{where} is set on the instance: define it in the class")
    if any(_is_deferred(function) for function in (member, inspect.unwrap(member))):
        raise PluginError(f"{where} is async or a generator: hooks are plain synchronous functions")
    wanted = list(inspect.signature(specification).parameters)
    parameters = inspect.signature(member).parameters.values()
    if [parameter.name for parameter in parameters] != wanted or any(
        parameter.kind is not inspect.Parameter.POSITIONAL_OR_KEYWORD
        or parameter.default is not inspect.Parameter.empty
        for parameter in parameters
    ):
        raise PluginError(
            f"{where} must take exactly ({', '.join(wanted)}), all plain and without defaults"
        )


def _is_deferred(function: object) -> bool:
    return (
        inspect.iscoroutinefunction(function)
        or inspect.isgeneratorfunction(function)
        or inspect.isasyncgenfunction(function)
    )


def _first_result(name: str) -> bool:
    options = _options(SPECIFICATIONS[name], _SPEC_MARK)
    return options is not None and bool(options.get("firstresult"))


def _options(member: object, mark: str) -> Mapping[str, object] | None:
    """Return what pluggy's marker left on a method."""
    found: Mapping[str, object] | None = getattr(member, mark, None)
    return found if isinstance(found, dict) else None


def _name(part: object) -> str:
    return type(part).__name__
