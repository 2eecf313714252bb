"""Properties of the canonical context: two encoders give one encoding, of anything."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sentra_kms.context import Context, encode_context
from sentra_kms.errors import MalformedInput
from tests.properties.strategies import ANY_CHARACTERS, CONTEXTS, TEXTS
from tests.reader import reader

pytestmark = pytest.mark.soak

ANY_TEXT = st.text(ANY_CHARACTERS, max_size=5)
ANYTHING: st.SearchStrategy[Any] = st.one_of(
    CONTEXTS,
    st.dictionaries(ANY_TEXT, ANY_TEXT, max_size=3),
    st.dictionaries(
        st.one_of(TEXTS, st.integers(), st.binary(max_size=2), st.none(), st.tuples(TEXTS)),
        st.one_of(TEXTS, st.integers(), st.binary(max_size=2), st.none(), st.lists(TEXTS)),
        max_size=3,
    ),
    st.integers(),
    st.floats(),
    ANY_TEXT,
    st.lists(st.tuples(TEXTS, TEXTS), max_size=3),
    st.binary(max_size=3).map(bytearray),
    st.integers(2**16 - 3, 2**16 + 1).map(bytes),
    st.integers(2**16 - 20, 2**16).map(lambda size: {"k": "ü" * (size // 2)}),
)


@given(ANYTHING)
@example({"k": "\ud800"})
@example({"\udfff": "v"})
def test_both_encode_alike_or_refuse_alike(context: Any) -> None:
    """Whatever is passed as a context, the independent reader makes the same of it."""
    try:
        theirs = reader.encode_context(context)
    except reader.MalformedInput:
        theirs = None
    if theirs is not None:
        assert encode_context(context) == theirs
        return
    with pytest.raises(MalformedInput) as caught:
        encode_context(context)
    assert caught.value.__cause__ is caught.value.__context__ is None


@given(st.lists(CONTEXTS, max_size=40))
def test_as_many_encodings_as_contexts(contexts: list[Context]) -> None:
    """Among many contexts, those that are equal have one encoding and no others do."""
    distinct = {
        (type(context).__name__, frozenset(context.items()))
        if isinstance(context, dict)
        else (type(context).__name__, context)
        for context in contexts
    }
    assert len({encode_context(context) for context in contexts}) == len(distinct)


@given(st.dictionaries(TEXTS, TEXTS, max_size=8))
def test_pairs_stand_in_the_order_of_their_utf_8_bytes(pairs: dict[str, str]) -> None:
    """However they were put in."""
    turned = dict(reversed(pairs.items()))
    encoded = encode_context(pairs)
    assert encode_context(turned) == encoded
    keys = sorted(key.encode("utf-8") for key in pairs)
    expected = b"\x02" + b"".join(
        reader.lp(key) + reader.lp(pairs[key.decode("utf-8")].encode("utf-8")) for key in keys
    )
    assert encoded == expected
