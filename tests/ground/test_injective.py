"""Moving text over a border never gives the same bytes: of contexts, wraps and derivations."""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import combinations_with_replacement, pairwise
from typing import Any

import pytest

from sentra_kms.backends import master_key
from sentra_kms.backends.master_key import MasterKey
from sentra_kms.context import Context, WrapContext, encode_context
from sentra_kms.keys import document, ring
from sentra_kms.keys import message as message_format
from sentra_kms.keys.document import AuthKey
from sentra_kms.material import KeyMaterial
from tests.reader import reader
from tests.soak import scale, seed

# What could pass for a border: NUL, the kinds and lengths of the encoding itself, punctuation.
CONTEXT_TEXT = "\x00\x01\x02\x03\x04ab=&:/,;\"'{}|ü\U0001f512"
TENANT_TEXT = b"abcABC019._-"
LENGTH = 10  # characters that are cut at every place into keys and values
STREAM = 60  # bytes that are cut into tenant, ring id, version and salt


def cuts(text: str, pieces: int) -> Iterator[list[str]]:
    """Yield every way to cut a text into so many pieces, empty ones among them."""
    for places in combinations_with_replacement(range(len(text) + 1), pieces - 1):
        yield [text[start:end] for start, end in pairwise((0, *places, len(text)))]


def contexts_of(text: str) -> Iterator[Context]:
    """Yield each mapping whose sorted keys and values run together to `text`, and its bytes."""
    yield text.encode("utf-8")
    for pieces in (2, 4, 6):
        for cut in cuts(text, pieces):
            keys = [key.encode("utf-8") for key in cut[::2]]
            if all(one < next_ for one, next_ in pairwise(keys)):
                yield dict(zip(cut[::2], cut[1::2], strict=True))


@pytest.mark.soak
def test_contexts_that_run_together_to_one_text_have_different_bytes() -> None:
    """However a text is cut into pairs, and whether it is bytes: no two encodings are equal.

    The independent reader makes the same bytes of each.
    """
    chance = random.Random(seed())
    texts = {"".join(chance.choices(CONTEXT_TEXT, k=LENGTH)) for _ in range(scale(60, 1_000))}
    encoded: set[bytes] = set()
    contexts = pairs = 0
    for text in texts:
        of_text = list(contexts_of(text))
        for context in of_text:
            found = encode_context(context)
            assert found == reader.encode_context(context)
            encoded.add(found)
        contexts += len(of_text)
        pairs += len(of_text) * (len(of_text) - 1) // 2
    print(f"{contexts} contexts, {pairs} pairs of one text")  # noqa: T201 - the figure
    assert len(encoded) == contexts
    assert pairs >= 1_000_000


def places(stream: bytes) -> Iterator[tuple[str, bytes, int, bytes]]:
    """Yield tenant, ring id, version and salt that run together to the stream's beginning."""
    for border in range(1, STREAM - 32):
        version = int.from_bytes(stream[border + 12 : border + 16], "big")
        yield (
            stream[:border].decode("ascii"),
            stream[border : border + 12],
            version,
            stream[border + 16 : border + 32],
        )


def streams(chance: random.Random) -> Iterator[bytes]:
    """Yield runs of bytes that tenants may have; after some of them come lengths of tenants."""
    for number in range(scale(700, 10_000)):
        stream = bytes(chance.choices(TENANT_TEXT, k=STREAM))
        if number % 3 == 0:
            size = chance.randrange(1, 9)
            stream = stream[:size] + size.to_bytes(4, "big") + stream[: STREAM - size - 4]
        # A tenant begins with a letter or digit.
        yield b"a" + stream[1:]


@pytest.mark.soak
def test_wrap_contexts_that_run_together_differ() -> None:
    """Tenant, ring id and version moved against each other give another binding, in both forms."""
    chance = random.Random(seed())
    distinct = {place[:3] for stream in streams(chance) for place in places(stream)}
    canonical: set[bytes] = set()
    pairs: set[tuple[tuple[str, str], ...]] = set()
    for tenant, ring_id, version in distinct:
        where = WrapContext(tenant, ring_id, version)
        assert where.canonical == reader.wrap_context(tenant, ring_id, version)
        canonical.add(where.canonical)
        pairs.add(tuple(where.pairs.items()))
    print(f"{len(distinct)} wrap contexts")  # noqa: T201
    assert len(canonical) == len(pairs) == len(distinct)


@pytest.mark.soak
def test_no_two_derivations_have_one_input(monkeypatch: pytest.MonkeyPatch) -> None:
    """Message keys, check values, ring MACs and wraps of any tenants never derive from one input.

    The input is taken where the package hands it to the one derivation rule, label included.
    """
    chance = random.Random(seed())
    found: set[bytes] = set()
    drawn: list[bytes] = []

    def record(key: KeyMaterial, label: str, data: bytes, length: int) -> KeyMaterial:
        drawn.append(label.encode("ascii") + b"\x00" + data)
        return KeyMaterial(bytes(length))

    modules: list[Any] = [message_format, ring, document, master_key]
    auth = AuthKey("a", KeyMaterial(bytes(32)))
    kek = MasterKey(KeyMaterial(bytes(32)))
    key = KeyMaterial(bytes(32))
    for module in modules:
        monkeypatch.setattr(module, "derive", record)
    distinct = {place for stream in streams(chance) for place in places(stream)}
    tenants = {tenant for tenant, *_ in distinct}
    for tenant in tenants:
        auth.mac(tenant, b"")
    for tenant, ring_id, version, salt in distinct:
        where = WrapContext(tenant, ring_id, version)
        header = b"SK\x01\x01" + ring_id + reader.u32(version)
        named = reader.lp(tenant.encode("ascii"))
        message_format._derive(key, tenant, header, salt)
        ring.check_value(key, where)
        kek._one_time(salt, where)
        assert drawn[-3:] == [
            b"message/v1\x00" + named + header + salt,
            b"key-check/v1\x00" + named + ring_id + reader.u32(version),
            b"local/wrap/v1\x00" + salt + reader.lp(reader.wrap_context(tenant, ring_id, version)),
        ]
    of_versions = {place[:3] for place in distinct}
    found.update(drawn)
    print(f"{len(found)} derivation inputs")  # noqa: T201
    assert len(found) == len(tenants) + 2 * len(distinct) + len(of_versions)
