"""What a ciphertext is bound to: the caller's context of a message, the place of a wrap.

Both encodings are injective: no two different contexts give the same bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import NoReturn

import msgspec

from sentra_kms.encoding import lp, u32
from sentra_kms.errors import MalformedInput

Context = Mapping[str, str] | bytes | None
"""Associated data of a message: a mapping of text to text, bytes, or nothing."""

MAX_CONTEXT = 64 * 1024  # bytes, encoded
RING_ID_SIZE = 12
MAX_VERSION = 2**32 - 1

_WRAP_LABEL = "sentra-kms/wrap/v1"


def encode_context(context: Context) -> bytes:
    r"""Return the canonical bytes of a message's context.

    `None` is empty; bytes are `0x01 ‖ bytes`; a mapping is `0x02 ‖ lp(key) ‖ lp(value) …` in the
    order of its keys' UTF-8 bytes. Keys and values are exact `str` without lone surrogates, and
    are not normalised. `None`, `b""` and `{}` are three different contexts. Raises
    `MalformedInput` for anything else and for more than 64 KiB encoded.

    >>> encode_context({"b": "2", "a": "1"}).hex()
    '020000000161000000013100000001620000000132'
    >>> encode_context(None), encode_context(b""), encode_context({})
    (b'', b'\x01', b'\x02')
    """
    if type(context) is dict:
        pairs: dict[str, str] = context  # pyright: ignore[reportUnknownVariableType]
        try:
            if len(pairs) != 3:
                return _encode_framed(pairs)
            # The same for three pairs without its loops, which cost as much again.
            one, two, three = pairs
            (a, heads_a), (b, heads_b), (c, heads_c) = _frames[one, two, three]
            a, b, c = pairs[a], pairs[b], pairs[c]
            if type(one) is type(two) is type(three) is type(a) is type(b) is type(c) is str:
                text = f"{heads_a[len(a)]}{a}{heads_b[len(b)]}{b}{heads_c[len(c)]}{c}"
                return text.encode("ascii")
        except (LookupError, ValueError):
            pass  # no frame for these keys, or a value that is long or not ASCII
    return _encode_any(context)  # pyright: ignore[reportUnknownArgumentType]


def _encode_framed(context: dict[str, str]) -> bytes:
    """Encode by a frame; raises `LookupError` or `ValueError` for what none fits."""
    keys = tuple(context)
    text = ""
    for key, heads in _frames[keys]:
        value = context[key]
        if type(value) is not str:
            raise LookupError
        text = f"{text}{heads[len(value)]}{value}"
    for key in keys:
        if type(key) is not str:
            raise LookupError
    return text.encode("ascii")


def _encode_any(context: Context) -> bytes:
    """Encode without frames; what no frame takes comes here, to be refused if need be."""
    if context is None:
        return b""
    if type(context) is bytes:
        if len(context) >= MAX_CONTEXT:
            _too_long()
        return b"\x01" + context
    if isinstance(context, Mapping):
        pairs = dict(context)  # one that stands still, whatever a subclass or a thread does
        encoded = _encode_mapping(pairs)
        _add_frame(tuple(pairs))
        return encoded
    raise MalformedInput(
        f"a context is a mapping of str to str, bytes or None, not {type(context).__name__}"
    )


def _encode_mapping(context: dict[str, str]) -> bytes:
    for key in context:
        if type(key) is not str:
            raise MalformedInput(f"a context's keys are str, not {type(key).__name__}")
    pieces = [b"\x02"]
    surrogate = False
    try:
        for key, prefix in _layout(tuple(context)):
            value = context[key]
            if type(value) is not str:
                raise MalformedInput(
                    f"a context's values are str, not {type(value).__name__} (key {key!a})"
                )
            raw = value.encode("utf-8")
            pieces += (prefix, len(raw).to_bytes(4, "big"), raw)
    except UnicodeEncodeError:
        surrogate = True  # raised below, since this error holds the text
    if surrogate:
        raise MalformedInput("a context's text holds a lone surrogate, which UTF-8 cannot encode")
    encoded = b"".join(pieces)
    if len(encoded) > MAX_CONTEXT:
        _too_long()
    return encoded


@lru_cache(maxsize=256)
def _layout(keys: tuple[str, ...]) -> tuple[tuple[str, bytes], ...]:
    """Sort and encode a set of keys once; programs use few sets of keys and many values."""
    return tuple((key, lp(key)) for key in sorted(keys, key=lambda key: key.encode("utf-8")))


# For a set of keys in the order of insertion: each key, in the canonical order, with what stands
# before its value for each length that the value may have. All of it is ASCII, so that one `encode`
# makes the context. Bounded to some 5 MB; what was met first stays, so that a
# program with more sets of keys does not make frames all the time.
_frames: dict[tuple[str, ...], tuple[tuple[str, tuple[str, ...]], ...]] = {}
_MAX_FRAMES = 64
_FRAME_PAIRS = 6
_FRAME_KEY = 32  # characters
_FRAME_VALUE = 127  # characters: the last length whose bytes are ASCII


def _add_frame(keys: tuple[str, ...]) -> None:
    if len(_frames) >= _MAX_FRAMES or keys in _frames or not 1 <= len(keys) <= _FRAME_PAIRS:
        return
    if not all(type(key) is str and key.isascii() and len(key) <= _FRAME_KEY for key in keys):
        return
    start = b"\x02"
    frame: list[tuple[str, tuple[str, ...]]] = []
    for key, prefix in _layout(keys):
        before = start + prefix
        lengths = range(_FRAME_VALUE + 1)
        frame.append((key, tuple((before + u32(size)).decode("ascii") for size in lengths)))
        start = b""
    _frames[keys] = tuple(frame)


def _too_long() -> NoReturn:
    raise MalformedInput(f"a context has at most {MAX_CONTEXT} bytes once encoded")


class WrapContext(msgspec.Struct, frozen=True):
    """What a wrapped tenant key is bound to: tenant, ring and version.

    `ring_id` is 12 bytes. A service that takes bytes as associated data gets `canonical`, one
    that takes pairs of text gets `pairs`.

    >>> where = WrapContext("acme", bytes(12), 1)
    >>> where.pairs["sentra-kms:tenant"], where.pairs["sentra-kms:version"]
    ('acme', '1')
    """

    tenant: str
    ring_id: bytes
    version: int

    def __post_init__(self) -> None:
        if len(self.ring_id) != RING_ID_SIZE or not 1 <= self.version <= MAX_VERSION:
            raise MalformedInput("a wrap context has a ring id of 12 bytes and a version from 1")

    @property
    def canonical(self) -> bytes:
        """`"sentra-kms/wrap/v1" ‖ 0x00 ‖ lp(tenant) ‖ ring_id ‖ u32be(version)`."""
        head = _WRAP_LABEL.encode("ascii") + b"\x00"
        return head + lp(self.tenant) + self.ring_id + u32(self.version)

    @property
    def pairs(self) -> dict[str, str]:
        """The same binding as pairs of text; the ring id in hex, the version in decimal."""
        return {
            "sentra-kms:format": _WRAP_LABEL,
            "sentra-kms:tenant": self.tenant,
            "sentra-kms:ring": self.ring_id.hex(),
            "sentra-kms:version": str(self.version),
        }
