"""What the properties are tried on: tenants, contexts, rings, and changes of bytes and of JSON."""

from __future__ import annotations

import copy
import json
import string
from collections.abc import Iterator
from typing import Any

import msgspec
from hypothesis import strategies as st

from sentra_kms.context import Context
from sentra_kms.keys.ring import Ring, State, Version, Wrap

TENANTS = st.builds(
    str.__add__,
    st.sampled_from(string.ascii_letters + string.digits),
    st.text(alphabet=string.ascii_letters + string.digits + "._-", max_size=119),
)
BACKENDS = st.builds(
    str.__add__,
    st.sampled_from(string.ascii_lowercase),
    st.text(alphabet=string.ascii_lowercase + string.digits + "+.-", max_size=8),
)

STATES: list[State] = ["enabled", "enabled", "disabled", "scheduled", "destroyed"]

# Short and often alike, with what the encodings themselves are made of.
TEXTS = st.one_of(
    st.text(alphabet=st.sampled_from("\x00\x01\x02ab=&:\"'{}\\,ü\U0001f512"), max_size=5),
    st.text(max_size=20),
)
# One character in some is a lone surrogate, which among all characters are too few to be drawn.
ANY_CHARACTERS = st.one_of(st.characters(), st.characters(), st.characters(categories=["Cs"]))
CONTEXTS: st.SearchStrategy[Context] = st.one_of(
    st.none(), st.binary(max_size=20), st.dictionaries(TEXTS, TEXTS, max_size=5)
)

JSON = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(2**65), 2**65),
        st.sampled_from([0, 1, 2, 2**32 - 1, 2**32, 2**63 - 1, 2**63, 2**64, -1, 1.0, 1.5, 1e300]),
        st.text(max_size=6),
        st.sampled_from(
            ["", "enabled", "destroyed", "scheduled", "generated", "imported", "default", "local:a",
             "2026-01-01T00:00:00Z", "2026-02-30T00:00:00Z", "AA==", "AB==", "AAAA", "A" * 16,
             "A" * 43 + "=", "acme", "local"]
        ),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=5,
)  # fmt: skip


def filled(maximum: int = 12) -> st.SearchStrategy[str]:
    """Text of at least one character, without surrogates."""
    return st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=maximum)


@st.composite
def times(draw: st.DrawFn) -> str:
    """A time as a ring writes it."""
    when = draw(st.datetimes())
    return when.replace(microsecond=0).isoformat() + "Z"


@st.composite
def keks(draw: st.DrawFn) -> str:
    """A KEK's name as a ring may hold it."""
    return f"{draw(BACKENDS)}:{draw(filled())}"


@st.composite
def versions(draw: st.DrawFn, number: int) -> Version:
    """A version of this number that keeps every rule."""
    state: State = draw(st.sampled_from(STATES))
    scheduled = {"scheduled": times(), "destroyed": st.one_of(st.none(), times())}
    most = draw(st.sampled_from([1, 1, 2, 2, 16]))
    names = draw(st.lists(keks(), min_size=1, max_size=most, unique=True))
    wraps = tuple(
        Wrap(
            kek,
            draw(filled()),
            draw(st.one_of(st.none(), filled())),
            draw(st.binary(min_size=1, max_size=70)),
        )
        for kek in names
    )
    return Version(
        version=number,
        state=state,
        created=draw(times()),
        origin=draw(st.sampled_from(["generated", "generated", "imported"])),
        check=draw(st.binary(min_size=32, max_size=32)),
        request=draw(st.one_of(st.none(), filled(256))),
        destroy_after=draw(scheduled.get(state, st.none())),
        missing=tuple(draw(st.lists(keks(), max_size=2))),
        wraps=() if state == "destroyed" else wraps,
    )


@st.composite
def rings(draw: st.DrawFn) -> Ring:
    """A ring that keeps every rule, whether or not this version of the package writes such."""
    numbers = draw(
        st.one_of(
            st.integers(1, 3).map(lambda last: list(range(1, last + 1))),
            st.lists(st.integers(1, 2**32 - 1), min_size=1, max_size=3, unique=True).map(sorted),
        )
    )
    held = tuple(draw(versions(number)) for number in numbers)
    usable = [v.version for v in held if (v.state, v.origin) == ("enabled", "generated")]
    extensions = draw(st.dictionaries(filled(6).map(lambda name: f"x-{name}"), JSON, max_size=2))
    return Ring(
        format=1,
        tenant=draw(TENANTS),
        ring_id=draw(st.binary(min_size=12, max_size=12)),
        sequence=draw(st.one_of(st.integers(1, 9), st.integers(1, 2**63 - 1))),
        policy=draw(st.one_of(st.just("default"), filled())),
        primary=draw(st.sampled_from([None, *usable])),
        moved_to=draw(st.one_of(st.none(), BACKENDS)),
        versions=held,
        extensions={
            name: msgspec.Raw(json.dumps(value).encode("ascii"))
            for name, value in extensions.items()
        },
    )


@st.composite
def edited(draw: st.DrawFn, whole: bytes) -> bytes:
    """The bytes after an edit that changes them."""
    kind = draw(st.sampled_from(["flip", "set", "cut", "drop", "add", "insert", "swap", "repeat"]))
    place = draw(st.integers(0, len(whole) - 1))
    end = draw(st.integers(place + 1, min(len(whole), place + 40)))
    new = draw(st.binary(min_size=1, max_size=40))
    changed = {
        "flip": whole[:place]
        + bytes([whole[place] ^ 1 << draw(st.integers(0, 7))])
        + whole[place + 1 :],
        "set": whole[:place] + new + whole[place + len(new) :],
        "cut": whole[:place],
        "drop": whole[:place] + whole[end:],
        "add": whole + new,
        "insert": whole[:place] + new + whole[place:],
        "swap": whole[:place] + whole[place:end][::-1] + whole[end:],
        "repeat": whole[:end] + whole[place:],
    }[kind]
    return whole + b"\x00" if changed == whole else changed


@st.composite
def changed_json(draw: st.DrawFn, value: dict[str, Any]) -> object:
    """A JSON value after one to three changes anywhere in it: replaced, removed, added, moved."""
    top: dict[str, Any] = {"": copy.deepcopy(value)}
    for _ in range(draw(st.integers(1, 3))):
        spots: list[tuple[Any, Any]] = list(places(top))
        holder, key = spots[draw(st.integers(0, len(spots) - 1))]
        match draw(st.sampled_from(["replace", "replace", "remove", "add", "twice", "swap"])):
            case "remove" if holder is not top:
                del holder[key]
            case "add":
                inner = holder[key]
                if isinstance(inner, dict):
                    name = draw(st.sampled_from(["x-a", "note", "version", "kek", "x-"]))
                    inner[name] = draw(JSON)
                elif isinstance(inner, list):
                    inner.insert(draw(st.integers(0, len(inner))), draw(JSON))
                else:
                    holder[key] = draw(JSON)
            case "twice" if isinstance(holder, list):
                holder.append(copy.deepcopy(holder[key]))
            case "swap" if isinstance(holder, list):
                holder.reverse()
            case _:
                holder[key] = draw(JSON)
    return top[""]


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yield every place in a value of tables and lists, as its holder and its key there."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in list(pairs):
        yield value, key
        if isinstance(inner, (dict, list)):
            yield from places(inner)


@st.composite
def written(draw: st.DrawFn, value: object) -> bytes:
    """A JSON value's bytes in one of the ways to write it."""
    return json.dumps(
        value,
        ensure_ascii=draw(st.booleans()),
        sort_keys=draw(st.booleans()),
        separators=draw(st.sampled_from([(",", ":"), (", ", ": "), (" ,\n", "\t:")])),
        indent=draw(st.sampled_from([None, 1])),
    ).encode("utf-8", "surrogatepass")
