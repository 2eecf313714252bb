"""What a backend may not do, refused when it is bound and not at its first use.

pluggy lets all of this through: a method without its marker silently vanishes, an omitted
argument is silently dropped, a wrapper sees and replaces keys.
"""

from __future__ import annotations

import inspect
from abc import ABCMeta
from collections.abc import Mapping, Sequence
from types import (
    CoroutineType,
    FunctionType,
    GeneratorType,
    GetSetDescriptorType,
    MethodType,
    ModuleType,
)
from typing import cast

from sentra_kms.errors import PluginError
from sentra_kms.hookspecs import (
    PROJECT,
    BatchKeyHooks,
    BatchSecretHooks,
    KeyHooks,
    ObserverHooks,
    PartHooks,
    RingAuthHooks,
    RingHistoryHooks,
    RingHooks,
    SecretHooks,
)

PROTOCOLS: tuple[type, ...] = (
    KeyHooks,
    BatchKeyHooks,
    RingAuthHooks,
    SecretHooks,
    BatchSecretHooks,
    RingHooks,
    RingHistoryHooks,
    PartHooks,
)
"""What a backend's parts implement."""

_MARK = f"{PROJECT}_impl"
_SPEC_MARK = f"{PROJECT}_spec"
_NOT_PLAIN = (
    inspect.CO_VARARGS
    | inspect.CO_VARKEYWORDS
    | inspect.CO_GENERATOR
    | inspect.CO_COROUTINE
    | inspect.CO_ASYNC_GENERATOR
    | inspect.CO_ITERABLE_COROUTINE
)
_REFUSED_OPTIONS = ("hookwrapper", "wrapper", "tryfirst", "trylast", "specname")
_WHOLE: tuple[type, ...] = (KeyHooks, BatchKeyHooks, RingHooks)
"""Protocols whose operations come together: who can wrap must unwrap."""

_BASES = (
    ("wrap_keys", "wrap_key"),
    ("fetch_secrets", "fetch_secret"),
    ("purge_ring_history", "save_ring"),
)
"""Optional operations, and what each is an addition to."""


Specifications = Mapping[str, FunctionType]


def _specified(*protocols: type) -> Specifications:
    return {
        name: member
        for protocol in protocols
        for name, member in vars(protocol).items()
        if isinstance(member, FunctionType) and hasattr(member, _SPEC_MARK)
    }


SPECIFICATIONS = _specified(*PROTOCOLS)
"""Every operation's specification, by name."""

_OF_EVERY_PART = _specified(PartHooks)
_OBSERVERS = _specified(ObserverHooks)

_DEFERRED = (GeneratorType, CoroutineType)
_METACLASSES = frozenset({type, ABCMeta, type(PartHooks)})


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
    if len(set(map(id, parts))) < len(parts):
        raise PluginError(f"{who} was created with one part twice")
    for protocol in _WHOLE:
        lacking = _specified(protocol).keys() - owners
        if 0 < len(lacking) < len(_specified(protocol)):
            raise PluginError(
                f"{who} lacks {' and '.join(sorted(lacking))}: the operations of "
                f"{protocol.__name__} come together or not at all"
            )
    for optional, base in _BASES:
        if optional in owners and base not in owners:
            raise PluginError(f"{who}: {optional} needs {base} beside it")
    return frozenset(owners)


def hooks_of(operations: frozenset[str]) -> ModuleType:
    """Return the specifications of these operations, and of what every part has, for pluggy.

    It looks at every name of what it is given, and a Protocol has 30 more.
    """
    hooks = ModuleType("sentra_kms hooks")
    named = operations | _OF_EVERY_PART.keys()
    vars(hooks).update({name: SPECIFICATIONS[name] for name in SPECIFICATIONS if name in named})
    return hooks


def check_observer(name: str, observer: object) -> None:
    """Hold an observer to the same rules; raises `PluginError`."""
    _implemented(f"observer '{name}'", observer, _OBSERVERS)


def _implemented(who: str, part: object, specifications: Specifications) -> list[str]:
    if inspect.isclass(part):
        raise PluginError(f"{who}: {part.__name__} is a class: an instance is needed")
    if type(part) in _DEFERRED:
        raise PluginError(
            f"{who} was created by a {_name(part)}: create is a plain function that "
            "returns a part or a list of parts"
        )
    found: list[str] = []
    # Of the instance, not its class: pluggy takes hooks from instance attributes, too.
    for name, member in _members(part):
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


def _members(part: object) -> list[tuple[str, object]]:
    """Return what `inspect.getmembers_static` does, by one walk over the classes for all names.

    That walks anew for each of the 80 names that a part has, 1 ms of each start for every part.
    """
    classes = _plain_classes(type(part))
    if classes is None:
        return inspect.getmembers_static(part)
    members: dict[str, object] = {}
    for each in reversed(classes):
        members.update(vars(each))
    try:
        own: dict[str, object] = object.__getattribute__(part, "__dict__")
    except AttributeError:
        own = {}  # all of it is in slots
    for name, value in dict[str, object].items(own):  # not what a subclass makes of it
        members[name] = inspect.getattr_static(part, name) if name in members else value
    return [(name, members[name]) for name in sorted(set(dir(part))) if name in members]


def _plain_classes(kind: type) -> tuple[type, ...] | None:
    """Return a class with those it inherits from, `None` if one keeps attributes in its own way."""
    if type(kind) not in _METACLASSES:
        return None
    for each in kind.__mro__:
        place = vars(each).get("__dict__", each)
        if place is each:
            continue  # it adds none to what it inherits
        if type(place) is not GetSetDescriptorType or place.__objclass__ is not each:
            return None
    return kind.__mro__


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
    where: str, specification: FunctionType, part: object, name: str, member: object
) -> None:
    if not isinstance(member, FunctionType):
        raise PluginError(f"{where} is not a plain method")
    if _in_class(type(part), name) is not member:
        raise PluginError(f"{where} is set on the instance: define it in the class")
    wanted = _plain_parameters(specification)
    if vars(member).keys() <= {_MARK} and _plain_parameters(member) == wanted:
        return  # nothing but a mark is on it, so its code is all there is to know
    if any(_is_deferred(function) for function in (member, inspect.unwrap(member))):
        raise PluginError(f"{where} is async or a generator: hooks are plain synchronous functions")
    parameters = inspect.signature(member).parameters.values()
    if [parameter.name for parameter in parameters] != wanted or any(
        parameter.kind is not inspect.Parameter.POSITIONAL_OR_KEYWORD
        or parameter.default is not inspect.Parameter.empty
        for parameter in parameters
    ):
        raise PluginError(
            f"{where} must take exactly ({', '.join(wanted)}), all plain and without defaults"
        )


def _in_class(kind: type, name: str) -> object:
    """Return what `inspect.getattr_static` does, which asks each class for much more."""
    classes = _plain_classes(kind)
    if classes is None:
        return inspect.getattr_static(kind, name, None)
    return next((vars(each)[name] for each in classes if name in vars(each)), None)


def _plain_parameters(function: FunctionType) -> list[str]:
    """Return the parameters of a synchronous function that has only plain ones; else none."""
    code = function.__code__
    if code.co_flags & _NOT_PLAIN or code.co_posonlyargcount or code.co_kwonlyargcount:
        return []
    return [] if function.__defaults__ else list(code.co_varnames[: code.co_argcount])


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
