"""Each thing that a backend may not do is refused when it is bound, and accepted once mended."""

from __future__ import annotations

import functools
import gc
import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pluggy
import pytest

from sentra_kms.errors import PluginError
from sentra_kms.guard import PROTOCOLS, SPECIFICATIONS, _members, check_parts
from sentra_kms.hookspecs import (
    PROJECT,
    BatchKeyHooks,
    BatchSecretHooks,
    KeyHooks,
    PartHooks,
    RingHistoryHooks,
    RingHooks,
    SecretHooks,
    hookimpl,
)
from sentra_kms.hooktypes import KeyDescription
from tests.binding.batches import BatchKeys, BatchSecrets, HistoryRings
from tests.binding.fakes import ANSWERS, Checked, Keys, Rings, Secrets, bind

DESCRIPTION = KeyDescription("id", None)


def part(**members: Any) -> object:
    """Return a part that has these methods and is otherwise a good keys part."""
    return type("Part", (Keys,), members)()


def marked(**options: Any) -> Any:
    """Return the marker with options, as a plugin's author would call it."""
    return hookimpl(**options)


def describe(self: object, key: str, timeout: float) -> KeyDescription:
    """Answer as `describe_key` should; unmarked."""
    return DESCRIPTION


def fresh() -> Callable[..., Any]:
    """Return `describe` as a function of its own, to be marked or not."""

    def describe_key(self: object, key: str, timeout: float) -> KeyDescription:
        return DESCRIPTION

    return describe_key


GOOD = part(describe_key=hookimpl(fresh()))


class Closes(PartHooks):
    """A part of which there may be many in one backend."""

    @hookimpl
    def close(self) -> None:
        """Do nothing."""


async def _async(self: object, key: str, timeout: float) -> KeyDescription:  # noqa: ASYNC109
    return DESCRIPTION


def _generator() -> Callable[..., Any]:
    """Return a generator function of its own, since a marker stays on the function."""

    def describe_key(self: object, key: str, timeout: float) -> Any:
        yield DESCRIPTION

    return describe_key


async def _async_generator(self: object, key: str, timeout: float) -> Any:  # noqa: ASYNC109
    yield DESCRIPTION


def _omits_timeout(self: object, key: str) -> KeyDescription:
    return DESCRIPTION


def _defaulted(self: object, key: str, timeout: float = 5.0) -> KeyDescription:
    return DESCRIPTION


def _none_of_them(self: object) -> KeyDescription:
    return DESCRIPTION


def _extra(self: object, key: str, timeout: float, more: int) -> KeyDescription:
    return DESCRIPTION


def _extra_defaulted(self: object, key: str, timeout: float, more: int = 1) -> KeyDescription:
    return DESCRIPTION


def _renamed(self: object, name: str, timeout: float) -> KeyDescription:
    return DESCRIPTION


def _swapped(self: object, timeout: float, key: str) -> KeyDescription:
    return DESCRIPTION


def _keyword_only(self: object, key: str, *, timeout: float) -> KeyDescription:
    return DESCRIPTION


def _positional_only(self: object, key: str, timeout: float, /) -> KeyDescription:
    return DESCRIPTION


def _stars(self: object, *args: Any, **kwargs: Any) -> KeyDescription:
    return DESCRIPTION


def _more_stars(self: object, key: str, timeout: float, **kwargs: Any) -> KeyDescription:
    return DESCRIPTION


def _other_self(this: object, key: str, timeout: float) -> KeyDescription:
    return DESCRIPTION


def _loosely(function: Callable[..., Any]) -> Callable[..., Any]:
    """Decorate without saying so, as authors do."""

    def around(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return around


def _kindly(function: Callable[..., Any]) -> Callable[..., Any]:
    """Decorate as one should."""

    @functools.wraps(function)
    def around(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return around


def _into_async(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    async def around(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return around


def _told_otherwise(**told: Any) -> Callable[..., Any]:
    """Return a function whose code is a good hook's and which says that it is something else."""
    function = fresh()
    vars(function).update(told)
    return function


def _instance_with(member: Any) -> object:
    made = Keys()
    made.fetch_secret = member  # type: ignore[attr-defined]
    return made


def _fetches() -> Callable[..., Any]:
    def fetch_secret(self: object, request: object, timeout: float) -> Any:
        return None

    return fetch_secret


def _without_timeout(self: object, key: str, requests: object) -> Any:
    return []


def _yielding(self: object, requests: object, timeout: float) -> Any:
    yield from ()


def _unmarked(self: object, requests: object, timeout: float) -> Any:
    return []


def plain_batch() -> object:
    """Return a part with batches alone, and no base beside them."""
    hooks = {name: getattr(BatchKeys, name) for name in ("wrap_keys", "unwrap_keys")}
    return type("Plain", (), hooks)()


_OTHER_SIGNATURE = inspect.Signature([inspect.Parameter("self", inspect.Parameter.VAR_POSITIONAL)])
FAULTS: dict[str, tuple[Any, str]] = {
    "a hook on the instance in its own shape": (
        _instance_with(hookimpl(_fetches())),
        "fetch_secret is set on the instance",
    ),
    "a plain function around an async one": (
        part(describe_key=hookimpl(_told_otherwise(__wrapped__=_async))),
        "is async or a generator",
    ),
    "a plain function with another signature": (
        part(describe_key=hookimpl(_told_otherwise(__signature__=_OTHER_SIGNATURE))),
        "must take exactly",
    ),
    "a class": (Keys, "Keys is a class"),
    "a class in a list": ([Keys], "Keys is a class"),
    "no part": ([], "without a part"),
    "an unmarked hook": (part(describe_key=fresh()), "describe_key has a hook's name"),
    "an unmarked hook that no part has otherwise": (
        part(fetch_secret=fresh()),
        "fetch_secret has a hook's name",
    ),
    "an attribute with a hook's name": (part(describe_key=None), "describe_key has a hook's name"),
    "a property with a hook's name": (
        part(describe_key=property(id)),
        "describe_key has a hook's name",
    ),
    "an instance's attribute with a hook's name": (
        _instance_with(fresh()),
        "fetch_secret has a hook's name",
    ),
    "a hook marked for another project": (
        part(describe_key=pluggy.HookimplMarker("other")(fresh())),
        "describe_key has a hook's name",
    ),
    "a hook wrapper": (part(describe_key=marked(wrapper=True)(_generator())), "marked wrapper"),
    "an old hook wrapper": (
        part(describe_key=marked(hookwrapper=True)(_generator())),
        "marked hookwrapper",
    ),
    "a wrapper under another name": (
        part(watch=marked(wrapper=True, specname="unwrap_key")(_generator())),
        "marked wrapper",
    ),
    "specname": (part(other=marked(specname="wrap_key")(fresh())), "marked specname"),
    "specname on a hook": (
        part(describe_key=marked(specname="describe_key")(fresh())),
        "marked specname",
    ),
    "tryfirst": (part(describe_key=marked(tryfirst=True)(fresh())), "marked tryfirst"),
    "trylast": (part(describe_key=marked(trylast=True)(fresh())), "marked trylast"),
    "an unknown hook": (part(reticulate=hookimpl(fresh())), "implements no known hook$"),
    "a slip in a hook's name": (
        part(wrap_keyy=hookimpl(fresh())),
        "no known hook; did you mean wrap_key",
    ),
    "an optional slip": (
        part(descibe_key=marked(optionalhook=True)(fresh())),
        "did you mean describe_key",
    ),
    "an optional slip with a plural": (
        part(load_rings=marked(optionalhook=True)(fresh())),
        "did you mean load_ring",
    ),
    "async": (part(describe_key=hookimpl(_async)), "async or a generator"),
    "a generator": (part(describe_key=hookimpl(_generator())), "async or a generator"),
    "an async generator": (part(describe_key=hookimpl(_async_generator)), "async or a generator"),
    "async around a hook": (
        part(describe_key=_into_async(hookimpl(fresh()))),
        "async or a generator",
    ),
    "async around a function": (
        part(describe_key=hookimpl(_into_async(fresh()))),
        "async or a generator",
    ),
    "a function that hands on to an async one": (
        part(describe_key=_kindly(hookimpl(_async))),
        "async or a generator",
    ),
    "an omitted argument": (part(describe_key=hookimpl(_omits_timeout)), "must take exactly"),
    "all arguments omitted": (part(describe_key=hookimpl(_none_of_them)), "must take exactly"),
    "a defaulted argument": (part(describe_key=hookimpl(_defaulted)), "without defaults"),
    "another argument": (part(describe_key=hookimpl(_extra)), "must take exactly"),
    "another defaulted argument": (
        part(describe_key=hookimpl(_extra_defaulted)),
        "must take exactly",
    ),
    "a renamed argument": (part(describe_key=hookimpl(_renamed)), "must take exactly"),
    "swapped arguments": (part(describe_key=hookimpl(_swapped)), "must take exactly"),
    "a keyword-only argument": (part(describe_key=hookimpl(_keyword_only)), "must take exactly"),
    "positional-only arguments": (
        part(describe_key=hookimpl(_positional_only)),
        "must take exactly",
    ),
    "any arguments": (part(describe_key=hookimpl(_stars)), "must take exactly"),
    "any further arguments": (part(describe_key=hookimpl(_more_stars)), "must take exactly"),
    "a decorator that hides the arguments": (
        part(describe_key=hookimpl(_loosely(fresh()))),
        "must take exactly",
    ),
    "a static method": (
        part(describe_key=staticmethod(hookimpl(fresh()))),
        "Part.describe_key",
    ),
    "a class method": (part(describe_key=classmethod(hookimpl(fresh()))), "Part.describe_key"),
    "a partial": (
        part(describe_key=functools.partial(hookimpl(fresh()), None)),
        "describe_key has a hook's name",
    ),
    "two answers to one question": ([Keys(), Keys()], "both Keys and Keys implement"),
    "two answers from two classes": (
        [Keys(), part()],
        "both Keys and Part implement",
    ),
    "the same part twice": ([GOOD] * 2, "implement"),
    "one part twice, which may stand beside others": (
        [GOOD, *[Closes()] * 2],
        "one part twice",
    ),
    "a generator in the place of parts": (
        (each for each in [GOOD]),
        "created by a generator: create is a plain function",
    ),
    "two answers to a batch": (
        [BatchKeys(), plain_batch()],
        "both BatchKeys and Plain implement unwrap_keys",
    ),
    "a batch without the timeout": (
        type("Part", (BatchKeys,), {"wrap_keys": hookimpl(_without_timeout)})(),
        "must take exactly",
    ),
    "a batch by a generator": (
        type("Part", (BatchSecrets,), {"fetch_secrets": hookimpl(_yielding)})(),
        "async or a generator",
    ),
    "a batch that is not marked": (
        type("Part", (BatchSecrets,), {"fetch_secrets": _unmarked})(),
        "fetch_secrets has a hook's name",
    ),
}


@pytest.mark.parametrize(("made", "told"), FAULTS.values(), ids=FAULTS)
def test_fault_is_refused(made: object, told: str) -> None:
    """The fault is refused when the backend is bound, by the backend's name."""
    with pytest.raises(PluginError, match=told) as caught:
        bind(lambda: made)
    assert caught.value.message.startswith("backend 'fake'")


@pytest.mark.parametrize("name", sorted(FAULTS.keys() - {"no part"}))
def test_fault_is_found_among_good_parts(name: str) -> None:
    """A fault does not hide behind parts that are well."""
    made = FAULTS[name][0]
    parts = [Rings(), *(made if isinstance(made, list) else [made])]
    with pytest.raises(PluginError):
        bind(lambda: parts)


def good(member: Any) -> object:
    """Return a part whose `describe_key` is the member."""
    return part(describe_key=member)


MENDED: dict[str, Any] = {
    "one part": GOOD,
    "one part in a list": [GOOD],
    "a part of each kind": [Keys(), Rings(), Secrets(), Checked("c")],
    "a part of each kind, with all that is optional": [
        BatchKeys(),
        BatchSecrets(),
        HistoryRings(),
        Checked("c"),
    ],
    "an unmarked method of another name": part(helper=fresh()),
    "an attribute of another name": part(describe=None),
    "a property of another name": part(describe=property(id)),
    "a method inherited unchanged": part(),
    "a hook without options": good(hookimpl(fresh())),
    "a hook with options that are off": good(
        marked(wrapper=False, tryfirst=False, trylast=False, specname=None)(fresh())
    ),
    "an optional hook that the core has": good(marked(optionalhook=True)(fresh())),
    "an optional hook of a later version": part(reticulate=marked(optionalhook=True)(fresh())),
    "a decorated hook": good(_kindly(hookimpl(fresh()))),
    "a hook over a decorator": good(hookimpl(_kindly(fresh()))),
    "a hook between decorators": good(_kindly(hookimpl(_kindly(fresh())))),
    "a function defined elsewhere": good(hookimpl(functools.wraps(describe)(fresh()))),
    "two parts that both check": [Checked("a"), Checked("b")],
    "a part that inherits from a good one": type("Below", (Keys,), {})(),
    "an attribute of another kind on the class": part(client=object()),
}


@pytest.mark.parametrize("made", MENDED.values(), ids=MENDED)
def test_same_backend_without_the_fault_is_bound(made: object) -> None:
    """What comes closest to each fault without having it is accepted."""
    assert bind(lambda: made).operations


def keys_lacking(*names: str) -> object:
    """Return a keys part of no Protocol, without these hooks."""
    hooks = {name: hook for name, hook in hooks_of(Keys).items() if name not in names}
    return plain(Keys, hooks)()


PAIRED: dict[str, tuple[Any, Any]] = {
    "a class instead of an instance": (Keys, Keys()),
    "an unmarked method with a hook's name": (
        part(describe_key=fresh()),
        part(describe_key=hookimpl(fresh())),
    ),
    "a hook wrapper": (
        part(describe_key=marked(wrapper=True)(_generator())),
        part(describe_key=marked(wrapper=False)(fresh())),
    ),
    "specname": (
        part(tell=marked(specname="describe_key")(fresh())),
        part(tell=fresh()),
    ),
    "tryfirst": (
        part(describe_key=marked(tryfirst=True)(fresh())),
        part(describe_key=marked(tryfirst=False)(fresh())),
    ),
    "trylast": (
        part(describe_key=marked(trylast=True)(fresh())),
        part(describe_key=marked(trylast=False)(fresh())),
    ),
    "an optionalhook close to a known name": (
        part(descibe_key=marked(optionalhook=True)(fresh())),
        part(describe_key=marked(optionalhook=True)(fresh())),
    ),
    "an async function": (
        part(describe_key=hookimpl(_async)),
        part(describe_key=hookimpl(fresh())),
    ),
    "a generator function": (
        part(describe_key=hookimpl(_generator())),
        part(describe_key=hookimpl(fresh())),
    ),
    "anything but plain parameters": (
        part(describe_key=hookimpl(_keyword_only)),
        part(describe_key=hookimpl(fresh())),
    ),
    "a critical argument omitted": (
        part(describe_key=hookimpl(_omits_timeout)),
        part(describe_key=hookimpl(fresh())),
    ),
    "a critical argument defaulted": (
        part(describe_key=hookimpl(_defaulted)),
        part(describe_key=hookimpl(fresh())),
    ),
    "wrap without unwrap": (lambda: keys_lacking("unwrap_key"), keys_lacking),
    "two implementations of a firstresult operation": ([Keys(), Keys()], [Keys()]),
}
"""Each refusal that the design names, and the same backend with the fault removed."""


@pytest.mark.parametrize("fault", PAIRED)
def test_fault_is_refused_and_its_removal_accepted(fault: str) -> None:
    """The fault, and nothing else about the backend, is what is refused; then it answers."""
    faulty, mended = (
        each() if each.__class__.__name__ == "function" else each for each in PAIRED[fault]
    )
    with pytest.raises(PluginError):
        bind(lambda: faulty)
    assert bind(lambda: mended).describe_key("k").key_id == "id"


@pytest.mark.parametrize("name", ["a decorated hook", "a hook over a decorator"])
def test_decorated_hook_answers(name: str) -> None:
    """What was accepted is also asked."""
    assert bind(lambda: MENDED[name]).describe_key("k") is DESCRIPTION


WHOLE: dict[str, tuple[type, type]] = {
    "KeyHooks": (KeyHooks, Keys),
    "BatchKeyHooks": (BatchKeyHooks, BatchKeys),
    "RingHooks": (RingHooks, Rings),
}
"""Protocols whose operations come together, and a part that has them all."""


def hooks_of(kind: type) -> dict[str, Any]:
    """Return every hook that a part of the kind implements, by name."""
    return {
        name: value
        for each in reversed(kind.__mro__)
        for name, value in vars(each).items()
        if hasattr(value, f"{PROJECT}_impl")
    }


def plain(kind: type, hooks: dict[str, Any]) -> type:
    """Return a class that derives from no Protocol, as authors without type checkers write it."""
    return type("Plain", (), hooks | {"__init__": kind.__init__})  # type: ignore[misc]


@pytest.mark.parametrize(
    ("name", "lacks"),
    [
        (name, lacks)
        for name, (protocol, _) in WHOLE.items()
        for lacks, member in vars(protocol).items()
        if hasattr(member, f"{PROJECT}_spec")
    ],
)
def test_half_of_what_comes_together_is_refused(name: str, lacks: str) -> None:
    """Who can wrap must unwrap and describe, who can load must save, delete and list."""
    kind = WHOLE[name][1]
    hooks = hooks_of(kind)
    half = {each: value for each, value in hooks.items() if each != lacks}
    assert half.keys() | {lacks} == hooks.keys()
    with pytest.raises(PluginError, match=f"lacks {lacks}: .* {name} come together") as caught:
        bind(plain(kind, half))
    assert caught.value.message.startswith("backend 'fake'")
    assert hooks.keys() <= bind(plain(kind, hooks)).operations


@pytest.mark.parametrize(
    ("kind", "optional", "base"),
    [
        (BatchKeys, BatchKeyHooks, KeyHooks),
        (BatchSecrets, BatchSecretHooks, SecretHooks),
        (HistoryRings, RingHistoryHooks, RingHooks),
    ],
)
def test_optional_hook_needs_what_it_adds_to(kind: type, optional: type, base: type) -> None:
    """A batch of what cannot be done alone is refused, and so is a history of no rings."""
    hooks = hooks_of(kind)
    alone = {name: value for name, value in hooks.items() if name in vars(optional)}
    assert alone
    with pytest.raises(PluginError, match=r"(needs|lacks) ") as caught:
        bind(plain(kind, alone))
    assert caught.value.message.startswith("backend 'fake'")
    rest = plain(kind, {name: value for name, value in hooks.items() if name in vars(base)})
    beside = plain(kind, alone)
    assert hooks.keys() <= bind(lambda: [rest(), beside()]).operations


def test_parts_may_share_a_pair() -> None:
    """The two halves may be in two parts of one backend."""
    members = {n: v for n, v in vars(Keys).items() if hasattr(v, f"{PROJECT}_impl")}
    init = {"__init__": Keys.__init__}
    wraps = type("Wraps", (), {"wrap_key": members.pop("wrap_key")} | init)()
    rest = type("Rest", (), members | init)()
    assert {"wrap_key", "unwrap_key"} <= bind(lambda: [wraps, rest]).operations


class Inventive:
    """A client that has whatever attribute it is asked for, as remote proxies do."""

    def __getattr__(self, name: str) -> Any:
        return Inventive()

    def __call__(self, *args: object, **kwargs: object) -> Any:
        """Answer with another of its kind."""
        return Inventive()


def test_client_that_invents_attributes_is_no_hook() -> None:
    """A part may keep a client whose every attribute seems to exist."""
    made = Keys()
    made.client = Inventive()  # type: ignore[attr-defined]
    assert bind(lambda: made).operations


class Unwilling:
    """A client that raises for every attribute but those of a plain object."""

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(f"not connected: {name}")

    def __call__(self) -> None:
        """Do nothing."""


def test_client_that_raises_for_attributes_is_left_alone() -> None:
    """A part may keep a client that cannot be asked for attributes yet."""
    made = Keys()
    made.client = Unwilling()  # type: ignore[attr-defined]
    assert bind(lambda: made).operations


def test_property_is_not_evaluated() -> None:
    """Looking at a part runs none of its code."""

    def explode(self: object) -> Any:
        raise AssertionError("the guard ran a property")

    assert bind(lambda: part(client=property(explode))).operations


class Shadowed:
    """Data descriptors win over the instance's own attributes, all else loses."""

    def __init__(self) -> None:
        names = ("ruled", "method", "constant", "callable", "new")
        vars(self).update(dict.fromkeys(names, "own"))

    ruled = property(id)
    method = fresh()
    constant = 3
    callable = Inventive()


class Slotted:
    """Keeps one attribute in a slot, and has none beside."""

    __slots__ = ("client", "never_set")
    constant = 3

    def __init__(self) -> None:
        self.client = Inventive()


class HalfSlotted(Slotted):
    """Keeps others beside the slots that it inherits."""

    def __init__(self) -> None:
        super().__init__()
        vars(self)["client"] = "hidden by the slot"
        self.beside = 1


class Abstract(ABC):
    """A base that demands a method."""

    @abstractmethod
    def method(self) -> None:
        """Do something."""


class Concrete(Abstract):
    """Has it."""

    def method(self) -> None:
        """Do nothing."""


class Listing:
    """Tells names of its own choice, also twice and of what is not there."""

    kept = 1
    hidden = 2

    def __dir__(self) -> list[str]:
        return ["kept", "absent", "kept"]


class Proxy(Inventive):
    """Has whatever is asked for, and some things of its own."""

    method = fresh()

    def __init__(self) -> None:
        self.client = Inventive()


class Overheard(dict[str, Any]):
    """A dictionary that notices who asks it."""

    def items(self, *args: object) -> Any:
        """Fail."""
        raise AssertionError("the guard asked a dictionary of the part's")

    get = values = __getitem__ = items


class WithOverheard:
    """An instance whose attributes are in such a dictionary."""

    def __init__(self) -> None:
        self.__dict__ = Overheard(own=1, method="own")

    method = fresh()


class Inquisitive:
    """Would run code for each attribute."""

    own = 1

    def __getattribute__(self, name: str) -> Any:
        if name in {"__class__", "__dir__", "__dict__"}:
            return object.__getattribute__(self, name)
        raise AssertionError(f"the guard asked for {name}")


def _explode(self: object, *args: object) -> Any:
    raise AssertionError("the guard ran code of the part's")


def odd_parts() -> dict[str, object]:
    """Return instances of classes that keep attributes in their own way.

    Made in here, since whoever looks for doctests in a module's classes stumbles over them.
    """
    meta = type("Meta", (type,), {"above": 1, "__getattr__": _explode})
    hiding = type("Hiding", (type,), {"__dict__": {"invented": 1}})
    shorten = {"__mro__": property(lambda cls: (cls,))}
    shortening = type("Shortening", (type(Keys),), shorten)
    another = type("Another", (), {})
    return {
        "another dictionary": type("Odd", (), {"__dict__": {"invented": 1}, "own": 1})(),
        "no dictionary": type("Odd", (), {"__dict__": None, "own": 1})(),
        "a computed dictionary": type("Odd", (), {"__dict__": property(_explode), "own": 1})(),
        "the dictionary of another class": type(
            "Odd", (), {"__dict__": vars(another)["__dict__"]}
        )(),
        "a slot for the dictionary": type("Odd", (), {"__slots__": ("__dict__",)})(),
        "a metaclass that raises": meta("Odd", (), {"own": 1})(),
        "a metaclass that shortens": shortening("Odd", (Keys,), {"own": 1})(),
        "a metaclass that hides": hiding("Odd", (), {"own": 1})(),
    }


def _module() -> ModuleType:
    made = ModuleType("made")
    vars(made).update(describe_key=fresh(), client=Inventive())
    return made


MEMBERS: dict[str, Callable[[], object]] = {
    each.__name__: each
    for each in (
        Keys, BatchKeys, Rings, HistoryRings, Secrets, Shadowed, Slotted, HalfSlotted, Concrete,
        Listing, Proxy, WithOverheard, Inquisitive, Inventive, Unwilling, object, dict, ValueError,
        property, _module,
    )
}  # fmt: skip
MEMBERS |= {
    "a part of many members": part,
    "a hook on the instance": lambda: _instance_with(hookimpl(fresh())),
    "a class-level callable": type("Held", (), {"client": Inventive()}),
    "a partial": lambda: functools.partial(fresh()),
    "a function": fresh,
    "a bound method": lambda: GOOD.describe_key,  # type: ignore[attr-defined]
}


ODD = odd_parts()


@pytest.mark.parametrize("name", [*MEMBERS, *ODD])
def test_members_are_those_of_a_look_for_each(name: str) -> None:
    """One walk over all names finds what a static look for each of them finds."""
    made = ODD[name] if name in ODD else MEMBERS[name]()
    found, expected = _looked(_members, made), _looked(inspect.getmembers_static, made)
    assert [each for each, _ in found] == [each for each, _ in expected]
    for (each, one), (_, other) in zip(found, expected, strict=True):
        # A slot's or a dictionary's descriptor is one object; nothing is bound or computed.
        assert one is other, each


def _looked(look: Callable[[object], list[tuple[str, object]]], made: object) -> list[Any]:
    try:
        return look(made)
    except (AssertionError, AttributeError, TypeError) as error:
        return [(type(error).__name__, None)]  # asking for the names has run code already


@pytest.mark.parametrize("made", [None, 3, "part", {}, (), object(), (Keys(),), iter([Keys()])],
                         ids=lambda made: type(made).__name__)  # fmt: skip
def test_what_is_no_part_is_refused(made: object) -> None:
    """`create` returns a part or a list of parts: what implements nothing would vanish silently."""
    with pytest.raises(PluginError):
        bind(lambda: made)


@pytest.mark.parametrize("look", ["__dir__", "__getattribute__", "__eq__"])
def test_part_that_cannot_be_looked_at(look: str) -> None:
    """What a part raises when it is listed, read or compared does not get past the boundary."""

    def odd(*_: object) -> Any:
        raise RuntimeError("planted")

    made = [type("Odd", (Keys,), {look: odd, "__hash__": object.__hash__})(), Closes()]
    told = "a part raised RuntimeError when it was looked at"
    with pytest.raises(PluginError, match=told) as caught:
        bind(lambda: made)
    assert caught.value.__context__ is None
    assert "planted" not in caught.value.message


def test_parts_may_have_one_name() -> None:
    """What parts call themselves is their own affair."""
    named = [Keys(), Closes()]
    for each in named:
        vars(each)["__name__"] = "part"
    assert bind(lambda: named).describe_key("k") == ANSWERS["describe_key"]


def test_coroutine_in_the_place_of_parts(recwarn: pytest.WarningsRecorder) -> None:
    """A `create` that is async is told so, and nothing is left for Python to warn of."""

    async def make() -> object:
        return GOOD

    with pytest.raises(PluginError, match="created by a coroutine: create is a plain function"):
        bind(make)
    gc.collect()
    assert [str(each.message) for each in recwarn] == []


def test_operations_are_those_of_the_parts() -> None:
    """What is bound is what the parts implement, and no more."""
    assert check_parts("b", [Keys()]) == {"wrap_key", "unwrap_key", "describe_key"}
    assert check_parts("b", [Rings(), Secrets()]) == {
        "load_ring",
        "save_ring",
        "delete_ring",
        "list_rings",
        "fetch_secret",
    }
    assert check_parts("b", [Checked("c")]) == {"check", "close"}


def test_every_hook_is_specified_once() -> None:
    """No name stands in two Protocols, where one specification would hide the other."""
    names = [
        name
        for protocol in PROTOCOLS
        for name, member in vars(protocol).items()
        if hasattr(member, f"{PROJECT}_spec")
    ]
    assert len(names) == len(set(names)) == len(SPECIFICATIONS)
    assert set(ANSWERS) <= set(SPECIFICATIONS)


@pytest.mark.parametrize("name", sorted(SPECIFICATIONS))
def test_every_hook_is_documented_with_an_example(name: str) -> None:
    """An author finds what a hook does and how it might be written."""
    documentation = SPECIFICATIONS[name].__doc__
    assert documentation is not None
    assert "Example::" in documentation
