"""The canonical context and the wrap context: exact bytes, one encoding for one context."""

from __future__ import annotations

import re
import unicodedata
from collections import ChainMap, OrderedDict, UserDict, defaultdict
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from types import MappingProxyType
from typing import Any

import msgspec
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from sentra_kms import context as context_module
from sentra_kms.context import MAX_CONTEXT, Context, WrapContext, encode_context
from sentra_kms.errors import MalformedInput
from tests.reader import reader

# Small alphabets, so that texts are often equal, empty, or each other's prefix; and the bytes
# that the encoding itself is made of.
TEXTS = st.text(alphabet=st.sampled_from("\x00\x01\x02ab=&;\"'{}:,ü\U0001f512"), max_size=4)
MAPPINGS = st.dictionaries(TEXTS, TEXTS, max_size=4)
CONTEXTS = st.one_of(st.none(), st.binary(max_size=12), MAPPINGS)


class Text(str):
    __slots__ = ()


def decode(encoded: bytes) -> Context:
    """Undo the encoding, as its specification says."""
    if not encoded:
        return None
    kind, rest = encoded[0], encoded[1:]
    if kind == 1:
        return rest
    assert kind == 2
    pieces: list[str] = []
    while rest:
        size = int.from_bytes(rest[:4], "big")
        piece, rest = rest[4 : 4 + size], rest[4 + size :]
        assert len(piece) == size
        pieces.append(piece.decode("utf-8"))
    assert len(pieces) % 2 == 0
    keys = pieces[::2]
    assert keys == sorted(keys, key=lambda key: key.encode("utf-8"))
    assert len(set(keys)) == len(keys)
    return dict(zip(keys, pieces[1::2], strict=True))


@pytest.mark.parametrize(
    ("context", "encoded"),
    [
        (None, ""),
        (b"", "01"),
        ({}, "02"),
        (b"\x00", "0100"),
        (b"abc", "01616263"),
        (b"\x02", "0102"),
        ({"": ""}, "020000000000000000"),
        ({"a": "1"}, "0200000001610000000131"),
        ({"a": ""}, "02000000016100000000"),
        ({"": "a"}, "02000000000000000161"),
        (
            {"b": "2", "a": "1"},
            "020000000161000000013100000001620000000132",
        ),
        ({"ü": "ß"}, "0200000002c3bc00000002c39f"),
        ({"k": "\x00"}, "02000000016b0000000100"),
        ({"k": "\U0001f512"}, "02000000016b00000004f09f9492"),
    ],
)
def test_exact_encoding(context: Context, encoded: str) -> None:
    """A context has exactly these bytes."""
    assert encode_context(context).hex() == encoded


def test_keys_are_sorted_by_their_utf8_bytes() -> None:
    """The order is that of the UTF-8 bytes, where a prefix comes first, not the order written.

    UTF-16 would put U+1F512 before U+FFFD, and UTF-8 does not.
    """
    keys = ["\U0001f512", "\ufffd", "é", "z", "Z", "aa", "a", ""]
    encoded = encode_context(dict.fromkeys(keys, ""))
    decoded = decode(encoded)
    assert isinstance(decoded, dict)
    assert list(decoded) == ["", "Z", "a", "aa", "z", "é", "\ufffd", "\U0001f512"]


@given(st.permutations(["", "a", "ab", "b", "ü", "\U0001f512"]))
def test_order_of_insertion_does_not_matter(keys: list[str]) -> None:
    """One set of pairs is one context, in whatever order it was written."""
    pairs = {key: f"value of {key}" for key in keys}
    assert encode_context(pairs) == encode_context(dict(sorted(pairs.items())))


@given(CONTEXTS)
def test_encoding_can_be_undone(context: Context) -> None:
    """The context can be read back from the bytes, so no two contexts share them."""
    assert decode(encode_context(context)) == context


@given(CONTEXTS, CONTEXTS)
@example(None, b"")
@example(None, {})
@example(b"", {})
@example(b"\x02", {})
@example({"a": "b"}, {"b": "a"})
def test_different_contexts_have_different_bytes(one: Context, other: Context) -> None:
    """Two different contexts never have one encoding."""
    assume(type(one) is not type(other) or one != other)
    assert encode_context(one) != encode_context(other)


@given(TEXTS, TEXTS, st.integers(0, 4))
def test_moving_text_over_the_border_changes_the_bytes(key: str, value: str, cut: int) -> None:
    """Text moved from a value into its key, or from one pair to the next, is another context."""
    whole = key + value
    moved = {whole[:cut]: whole[cut:]}
    assert (encode_context({key: value}) == encode_context(moved)) == ({key: value} == moved)


@given(MAPPINGS)
def test_bytes_that_look_like_a_mapping_are_not_one(context: dict[str, str]) -> None:
    """Passing a mapping's encoding as bytes gives other bytes."""
    encoded = encode_context(context)
    assert encode_context(encoded) != encoded
    assert encode_context(encoded[1:]) != encoded


def test_nothing_is_normalised() -> None:
    """Composed and decomposed text, and what only looks alike, stay different."""
    composed = "é"
    decomposed = unicodedata.normalize("NFD", composed)
    assert composed != decomposed
    looks = [composed, decomposed, "e", "É", "е", "ｅ", "e\u200b", "e "]  # noqa: RUF001
    assert len({encode_context({"k": look}) for look in looks}) == len(looks)
    assert len({encode_context({look: "v"}) for look in looks}) == len(looks)
    both = decode(encode_context({composed: "1", decomposed: "2"}))
    assert both == {composed: "1", decomposed: "2"}


# --- frames: what is remembered of sets of keys --------------------------------------------------

# Few keys, so that most sets of them were met before; values around the bounds of a frame.
FRAMED_KEYS = st.sampled_from(["a", "ab", "b", "id", "table", "Z", "k" * 32, "k" * 33, "ü", ""])
FRAMED_VALUES = st.one_of(
    TEXTS,
    st.integers(120, 135).map("x".__mul__),
    st.integers(120, 135).map("ü".__mul__),
    st.text(max_size=40),
)
FRAMED = st.dictionaries(FRAMED_KEYS, FRAMED_VALUES, max_size=8)


def make_room() -> None:
    """Forget some frames if they are so many that no more would be made."""
    if len(context_module._frames) > 60:
        context_module._frames.clear()


@given(FRAMED)
@example({"b": "", "a": "x" * 127, "id": "x" * 128})
@example({"table": "users", "column": "ssn", "id": "42"})
def test_frames_change_no_byte(pairs: dict[str, str]) -> None:
    """With a frame or without, at the first look and the next, in any order: one encoding.

    It is the one that a reader made from the specification alone gives.
    """
    make_room()
    expected = reader.encode_context(pairs)
    assert context_module._encode_mapping(pairs) == expected
    for _ in range(2):
        assert encode_context(pairs) == expected
        assert encode_context(dict(reversed(pairs.items()))) == expected


@given(FRAMED, st.data())
def test_frames_let_nothing_through(pairs: dict[str, str], data: st.DataObject) -> None:
    """A key or value that is not exact text is refused after its likes were taken, too."""
    assume(pairs)
    make_room()
    encode_context(pairs)
    where = data.draw(st.sampled_from(list(pairs)))
    stranger: Any = data.draw(st.sampled_from([Text(pairs[where]), 1, None, b"x", "\ud800"]))
    with pytest.raises(MalformedInput):
        encode_context({**pairs, where: stranger})
    renamed: dict[Any, str] = {(Text(key) if key == where else key): pairs[key] for key in pairs}
    with pytest.raises(MalformedInput, match="keys are str, not Text"):
        encode_context(renamed)


@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_every_place_of_a_frame_takes_exact_text_only(size: int) -> None:
    """A subclass of text is refused as each key and as each value, however often."""
    make_room()
    pairs: dict[Any, Any] = {f"frame-{number}": str(number) for number in range(size)}
    for _ in range(2):
        assert encode_context(pairs) == reader.encode_context(pairs)
        assert tuple(pairs) in context_module._frames
        for where, value in pairs.items():
            with pytest.raises(MalformedInput, match="values are str, not Text"):
                encode_context({**pairs, where: Text(value)})
            with pytest.raises(MalformedInput, match="keys are str, not Text"):
                encode_context({(Text(key) if key == where else key): "v" for key in pairs})


def test_frames_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many sets of keys a program meets, few are remembered; all are encoded."""
    monkeypatch.setattr(context_module, "_frames", {})
    for number in range(500):
        pairs = {f"key-{number}": "v", "a": "1", "b": "2"}
        for _ in range(2):
            assert encode_context(pairs) == reader.encode_context(pairs)
    assert 1 <= len(context_module._frames) <= 64


@pytest.mark.parametrize(
    "pairs",
    [{}, {"k" * 33: "v"}, {"ü": "v"}, dict.fromkeys("abcdefg", "v")],
    ids=["none", "long", "not ASCII", "many"],
)
def test_frames_are_small(pairs: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """No frame is made for long keys, for many, or for what is not ASCII."""
    monkeypatch.setattr(context_module, "_frames", {})
    assert encode_context(pairs) == reader.encode_context(pairs)
    assert not context_module._frames


def test_frames_are_made_by_many_threads_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads that meet sets of keys for the first time encode each as it is."""
    monkeypatch.setattr(context_module, "_frames", {})

    def work(index: int) -> None:
        for number in range(200):
            pairs = {f"key-{number % 40}": str(index), "a": "1", "z": str(number)}
            assert encode_context(pairs) == reader.encode_context(pairs)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    assert len(context_module._frames) == 40


# --- what is refused ---------------------------------------------------------------------------


class Buffer(bytes):
    __slots__ = ()


@pytest.mark.parametrize(
    "context",
    [
        "text",
        Text("text"),
        bytearray(b"x"),
        memoryview(b"x"),
        Buffer(b"x"),
        1,
        0,
        True,
        False,
        1.5,
        [],
        [("a", "b")],
        (),
        {("a", "b")},
        object(),
        dict,
    ],
    ids=lambda context: type(context).__name__,
)
def test_what_is_no_context_is_refused(context: Any) -> None:
    """Only None, exact bytes and mappings are contexts, however close something comes."""
    with pytest.raises(MalformedInput, match=f"bytes or None, not {type(context).__name__}$"):
        encode_context(context)


STRANGERS = [None, b"a", 1, 1.0, True, ("a",), Text("a"), object()]


@pytest.mark.parametrize("value", [*STRANGERS, [], {}], ids=lambda v: type(v).__name__)
def test_value_that_is_no_str_is_refused(value: Any) -> None:
    """A value is an exact str; the error says which key's value is not."""
    with pytest.raises(MalformedInput, match=rf"str, not {type(value).__name__} \(key 'k\\xfc'\)"):
        encode_context({"a": "fine", "kü": value})


@pytest.mark.parametrize("key", STRANGERS, ids=lambda k: type(k).__name__)
def test_key_that_is_no_str_is_refused(key: Any) -> None:
    """A key is an exact str."""
    with pytest.raises(MalformedInput, match=f"keys are str, not {type(key).__name__}$"):
        encode_context({key: "v"})


def test_key_that_is_no_str_is_refused_after_its_equal() -> None:
    """A str subclass that equals a key seen before is refused all the same."""
    assert encode_context({"seen-before": "v"})
    with pytest.raises(MalformedInput, match="keys are str, not Text"):
        encode_context({Text("seen-before"): "v"})


@pytest.mark.parametrize(
    "surrogate", [chr(0xD800), chr(0xDFFF), chr(0xDC80), "a\ud800b", "\udc00\ud800"]
)
@pytest.mark.parametrize("place", ["key", "value"])
def test_lone_surrogate_is_refused(surrogate: str, place: str) -> None:
    """What UTF-8 cannot encode is refused, in a key as in a value, each time."""
    context = {surrogate: "v"} if place == "key" else {"k": surrogate}
    for _ in range(2):
        with pytest.raises(MalformedInput, match="lone surrogate"):
            encode_context(context)


@pytest.mark.parametrize("size", [MAX_CONTEXT - 1, MAX_CONTEXT, MAX_CONTEXT + 1])
def test_bound_for_bytes(size: int) -> None:
    """Exactly 64 KiB once encoded is the most, the leading byte counted."""
    assert MAX_CONTEXT == 65536
    context = b"x" * (size - 1)
    if size > MAX_CONTEXT:
        with pytest.raises(MalformedInput, match="at most 65536 bytes"):
            encode_context(context)
    else:
        assert len(encode_context(context)) == size


@pytest.mark.parametrize("size", [MAX_CONTEXT - 1, MAX_CONTEXT, MAX_CONTEXT + 1])
@pytest.mark.parametrize("long", ["key", "value"])
def test_bound_for_mappings(size: int, long: str) -> None:
    """Exactly 64 KiB once encoded is the most, lengths and the leading byte counted."""
    text = "x" * (size - 1 - 4 - 4)
    context = {text: ""} if long == "key" else {"": text}
    if size > MAX_CONTEXT:
        with pytest.raises(MalformedInput, match="at most 65536 bytes"):
            encode_context(context)
    else:
        assert len(encode_context(context)) == size


def test_bound_counts_bytes_and_not_characters() -> None:
    """Text of two bytes a character reaches the bound at half the length."""
    with pytest.raises(MalformedInput, match="at most"):
        encode_context({"k": "ü" * (MAX_CONTEXT // 2)})


@pytest.mark.parametrize("pairs", [5041, 5042])
def test_bound_for_many_pairs(pairs: int) -> None:
    """Many short pairs are bounded by their sum: 13 bytes each here."""
    context = {f"{number:05}": "" for number in range(pairs)}
    if 1 + 13 * pairs > MAX_CONTEXT:
        with pytest.raises(MalformedInput, match="at most"):
            encode_context(context)
    else:
        assert len(encode_context(context)) == 1 + 13 * pairs


# --- mappings that are no dict -----------------------------------------------------------------


class Pairs(Mapping[str, str]):
    """A mapping of a class of its own."""

    def __init__(self, pairs: dict[str, str]) -> None:
        self._pairs = pairs

    def __getitem__(self, key: str) -> str:
        return self._pairs[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._pairs)

    def __len__(self) -> int:
        return len(self._pairs)


@pytest.mark.parametrize(
    "kind",
    [
        OrderedDict,
        UserDict,
        MappingProxyType,
        ChainMap,
        Pairs,
        lambda pairs: defaultdict(str, pairs),
    ],
)
def test_any_mapping_is_taken(kind: Any) -> None:
    """Every mapping gives the bytes that a dict of the same pairs gives."""
    for pairs in ({}, {"b": "2", "a": "1"}):
        assert encode_context(kind(pairs)) == encode_context(pairs)


@pytest.mark.parametrize("bad", [{"k": 1}, {1: "v"}, {"k": "\ud800"}, {"k": "x" * MAX_CONTEXT}])
def test_any_mapping_is_checked(bad: Any) -> None:
    """What a dict may not hold, no other mapping may hold either."""
    with pytest.raises(MalformedInput):
        encode_context(Pairs(bad))


def test_mapping_is_read_once() -> None:
    """A mapping that gives another value at each look is encoded as one of them, whole."""

    class Counting(Pairs):
        looks = 0

        def __getitem__(self, key: str) -> str:
            self.looks += 1
            return f"look {self.looks}"

    assert encode_context(Counting({"k": ""})) == encode_context({"k": "look 1"})


def test_defaultdict_is_not_changed() -> None:
    """Encoding leaves the caller's mapping as it was."""
    context: defaultdict[str, str] = defaultdict(str, a="1")
    encode_context(context)
    assert context == {"a": "1"}


# --- wrap context ------------------------------------------------------------------------------


RING_ID = bytes(range(12))


@pytest.mark.parametrize(
    ("tenant", "version", "encoded"),
    [
        ("acme", 1, "0000000461636d65000102030405060708090a0b00000001"),
        ("a", 2**32 - 1, "0000000161000102030405060708090a0bffffffff"),
        ("x" * 120, 258, "00000078" + "78" * 120 + "000102030405060708090a0b00000102"),
    ],
)
def test_wrap_context_canonical(tenant: str, version: int, encoded: str) -> None:
    """Label, NUL, length-prefixed tenant, ring id, version: exactly these bytes."""
    label = b"sentra-kms/wrap/v1\x00".hex()
    assert WrapContext(tenant, RING_ID, version).canonical.hex() == label + encoded


def test_wrap_context_pairs() -> None:
    """The pairs say the same: ring id in lower-case hex, version in decimal."""
    assert WrapContext("Acme", bytes(range(244, 256)), 4294967295).pairs == {
        "sentra-kms:format": "sentra-kms/wrap/v1",
        "sentra-kms:tenant": "Acme",
        "sentra-kms:ring": "f4f5f6f7f8f9fafbfcfdfeff",
        "sentra-kms:version": "4294967295",
    }


WRAPS = st.builds(
    WrapContext,
    st.from_regex(r"[ab0][ab0._-]{0,3}", fullmatch=True),
    st.binary(min_size=12, max_size=12),
    st.integers(1, 2**32 - 1),
)


@given(WRAPS, WRAPS)
def test_wrap_contexts_differ(one: WrapContext, other: WrapContext) -> None:
    """Both forms are different for different places, and equal for one."""
    assert (one.canonical == other.canonical) == (one == other)
    assert (one.pairs == other.pairs) == (one == other)


@pytest.mark.parametrize("size", [0, 11, 13])
def test_wrap_context_has_a_ring_id_of_12_bytes(size: int) -> None:
    """Another size would move the border to the version."""
    with pytest.raises(MalformedInput, match="12 bytes"):
        WrapContext("acme", bytes(size), 1)


@pytest.mark.parametrize("version", [0, -1, 2**32])
def test_wrap_context_has_a_version_from_1(version: int) -> None:
    """Versions are from 1 to what four bytes hold."""
    with pytest.raises(MalformedInput, match="version from 1"):
        WrapContext("acme", RING_ID, version)


def test_wrap_context_is_frozen() -> None:
    """A wrap context cannot be changed on its way to a backend."""
    where = WrapContext("acme", RING_ID, 1)
    with pytest.raises(AttributeError):
        where.tenant = "other"  # type: ignore[misc]
    with pytest.raises(MalformedInput):
        msgspec.structs.replace(where, version=0)


def test_wrap_context_refusal_has_no_stray_text() -> None:
    """The refusal is one line of plain text."""
    with pytest.raises(MalformedInput) as caught:
        WrapContext("acme", b"", 1)
    assert re.fullmatch(r"[ -~]+", caught.value.message)
