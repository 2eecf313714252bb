"""Tampered messages, rings and wraps by the ten thousand, or by the million: none open."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable

import pytest

from sentra_kms.backends.master_key import MasterKey
from sentra_kms.context import Context, WrapContext, encode_context
from sentra_kms.errors import (
    DecryptionFailed,
    KeyNotFound,
    MalformedInput,
    RingRejected,
)
from sentra_kms.hooktypes import Remainder, RingPage, StoredRing, WrappedKey
from sentra_kms.keys.document import Authenticator
from sentra_kms.keys.store import RingStore
from sentra_kms.material import KeyMaterial
from sentra_kms.runtime import KMS
from tests.keys.conftest import Site
from tests.soak import scale, seed

FIELDS = (4, 16, 20, 36, 68, 80)  # where the fields of a message end
CONTEXTS: list[Context] = [
    None,
    b"",
    {},
    b"\x02",
    {"a": "b"},
    {"a": "b", "c": ""},
    {"table": "users", "id": "42"},
]
Tamper = Callable[[random.Random, bytes, bytes], bytes]


def flipped(chance: random.Random, whole: bytes, other: bytes) -> bytes:
    """One to three bits."""
    changed = bytearray(whole)
    for _ in range(chance.randint(1, 3)):
        changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
    return bytes(changed)


def overwritten(chance: random.Random, whole: bytes, other: bytes) -> bytes:
    """Some bytes by random ones, zeros, or what stands in the other at that place."""
    place, size = chance.randrange(len(whole)), chance.choice((1, 1, 2, 4, 16, 32))
    new = chance.choice((chance.randbytes(size), bytes(size), other[place : place + size]))
    return whole[:place] + new + whole[place + len(new) :]


def swapped(chance: random.Random, whole: bytes, other: bytes) -> bytes:
    """Two runs of bytes for each other."""
    size = chance.choice((1, 2, 12, 16))
    one, two = sorted(chance.sample(range(len(whole) - size), 2))
    if two < one + size:
        return whole[:one] + whole[one : two + 1][::-1] + whole[two + 1 :]
    middle = whole[one + size : two]
    return (
        whole[:one]
        + whole[two : two + size]
        + middle
        + whole[one : one + size]
        + (whole[two + size :])
    )


def cut(chance: random.Random, whole: bytes, other: bytes) -> bytes:
    """Shortened: at its end, its beginning, or within."""
    one, two = sorted(chance.sample(range(len(whole) + 1), 2))
    return chance.choice((whole[:one], whole[:two], whole[two:], whole[:one] + whole[two:]))


def lengthened(chance: random.Random, whole: bytes, other: bytes) -> bytes:
    """Lengthened: at its end, its beginning, or within, by anything or by a part of the other."""
    new = chance.choice((chance.randbytes(chance.randint(1, 40)), b"\x00", b" ", b"\n", other))
    place = chance.choice((0, len(whole), chance.randrange(len(whole))))
    return whole[:place] + new + whole[place:]


def spliced(chance: random.Random, whole: bytes, other: bytes) -> bytes:
    """The beginning of one and the end of the other, joined where a field ends, or anywhere."""
    place = chance.choice((*FIELDS, len(whole) - 16, chance.randrange(1, len(whole))))
    return whole[:place] + other[place:]


def exchanged(chance: random.Random, whole: bytes, other: bytes) -> bytes:
    """One field of the other in its place."""
    start, end = chance.choice(tuple(zip((0, *FIELDS), (*FIELDS, len(whole)), strict=True)))
    return whole[:start] + other[start:end] + whole[end:]


TAMPERS: list[Tamper] = [flipped, overwritten, swapped, cut, lengthened, spliced, exchanged]


def another_context(chance: random.Random, context: Context) -> Context:
    """A context that is another one, and often looks alike."""
    if isinstance(context, bytes):
        return chance.choice((None, {}, context + b"\x00", b"\x01" + context, context[:-1] or b"-"))
    if not context:
        return chance.choice((b"", b"\x02", b"\x01", {"": ""}, {} if context is None else None))
    pairs = dict(context)
    key = chance.choice(list(pairs))
    match chance.randrange(6):
        case 0:
            del pairs[key]
        case 1:
            pairs[key] += chance.choice(("\x00", " ", "b"))
        case 2:
            pairs[key + "x"] = pairs.pop(key)
        case 3:
            pairs["extra"] = ""
        case 4:
            whole = key + pairs.pop(key) + "-"
            pairs[whole[:-1]] = whole[-1:]
        case _:
            return encode_context(pairs)
    return pairs


@pytest.mark.slow
@pytest.mark.soak
def test_no_tampered_message_opens(memory_kms: KMS) -> None:
    """Bits, bytes, lengths, splices of two valid messages, tenants, contexts: warm and cold."""
    chance = random.Random(seed())
    keys = memory_kms.keys
    valid: dict[tuple[str, bytes, bytes], bytes] = {}
    made: list[tuple[str, bytes, Context]] = []
    for version in (1, 2):
        for tenant in ("acme", "other"):
            for size in (0, 1, 16, 40, 300):
                for context in CONTEXTS:
                    plaintext = chance.randbytes(size)
                    message = keys.encrypt(tenant, plaintext, context)
                    made.append((tenant, message, context))
                    valid[tenant, message, encode_context(context)] = plaintext
            if version == 1:
                keys.rotate(tenant)
    refused: Counter[str] = Counter()
    answers: Counter[str] = Counter()
    for number in range(scale(ci=60_000, soak=1_200_000)):
        if number % 500 == 0:
            keys._cache.clear()  # cold again
            tenant, message, context = made[number // 500 % len(made)]
            opened = keys.decrypt(tenant, message, context)
            assert opened == valid[tenant, message, encode_context(context)]
        tenant, message, context = chance.choice(made)
        keys.decrypt(tenant, message, context)  # its prefix is warm
        kind = chance.randrange(len(TAMPERS) + 2)
        if kind < len(TAMPERS):
            tamper = TAMPERS[kind]
            name = tamper.__name__
            message = tamper(chance, message, chance.choice(made)[1])
        elif kind == len(TAMPERS):
            name, context = "context", another_context(chance, context)
        else:
            name, tenant = "tenant", "other" if tenant == "acme" else "acme"
            if chance.randrange(2):
                ring_id = keys._cache.entry(tenant).ring_id
                message = message[:4] + ring_id + message[16:]
        if (tenant, message, encode_context(context)) in valid:
            continue
        with pytest.raises((DecryptionFailed, MalformedInput, KeyNotFound)) as caught:
            keys.decrypt(tenant, message, context)
        refused[name] += 1
        answers[caught.type.__name__] += 1
    print(f"{refused.total()} tampered messages refused: {dict(refused)}, {dict(answers)}")  # noqa: T201
    assert len(refused) == len(TAMPERS) + 2
    assert min(refused.values()) > scale(ci=60_000, soak=1_200_000) / 40


class Shelf:
    """A store whose writer puts in what he likes."""

    name = "shelf"
    operations: frozenset[str] = frozenset()
    document = b""

    def load_ring(self, tenant: str) -> StoredRing:
        """Return what lies there, whoever is asked for."""
        return StoredRing(self.document, "1")

    def save_ring(self, tenant: str, document: bytes, expected: str | None) -> str:
        """Nothing is saved here."""
        raise NotImplementedError

    def delete_ring(self, tenant: str, expected: str) -> None:
        """Nothing is deleted here."""
        raise NotImplementedError

    def list_rings(self, cursor: str | None, limit: int) -> RingPage:
        """Nothing is listed here."""
        raise NotImplementedError

    def purge_ring_history(self, tenant: str) -> tuple[Remainder, ...]:
        """Nothing is purged here."""
        raise NotImplementedError


def reworded(chance: random.Random, whole: bytes, other: bytes) -> bytes:
    """White space, case or another state that means something, in a document."""
    old, new = chance.choice(
        (
            (b'":', b'": '),
            (b"}", b"}\n"),
            (b" ", b"  "),
            (b"\n", b"\r\n"),
            (b"a", b"A"),
            (b'"primary":', b'"primary":1,"primary":'),
            (b'"enabled"', b'"disabled"'),
            (b'"version":1', b'"version":2'),
            (b'"sequence":', b'"sequence":1'),
            (b"sentra-ring 1", b"sentra-ring 2"),
        )
    )
    return whole.replace(old, new, chance.randint(1, 3))


def remarked(chance: random.Random, whole: bytes, other: bytes) -> bytes:
    """Auth id or MAC of the other document, or a MAC that somebody made up."""
    mac = chance.choice((other[31:95], chance.randbytes(32).hex().encode(), bytes(64), b"0" * 64))
    return chance.choice((whole[:31] + mac + whole[95:], whole[:96] + other[96:]))


RING_TAMPERS: list[Tamper] = [*TAMPERS, reworded, remarked]


@pytest.mark.slow
@pytest.mark.soak
def test_no_tampered_ring_is_taken(key_site: Site) -> None:
    """Whoever writes the store can put in a ring of the tenant that was saved, and no other."""
    chance = random.Random(seed())
    kms = key_site.open()
    made: list[tuple[str, bytes]] = []
    for tenant in ("acme", "Acme", "acme2"):
        kms.keys.create(tenant)
        for _ in range(3):
            made.append((tenant, key_site.document(tenant)))
            kms.keys.rotate(tenant)
    valid = set(made)
    shelf = Shelf()
    store = RingStore(shelf, Authenticator([key_site.auth_key]))
    refused: Counter[str] = Counter()
    for _ in range(scale(ci=25_000, soak=1_200_000)):
        tenant, document = chance.choice(made)
        kind = chance.randrange(len(RING_TAMPERS) + 1)
        if kind < len(RING_TAMPERS):
            tamper = RING_TAMPERS[kind]
            name = tamper.__name__
            document = tamper(chance, document, chance.choice(made)[1])
        else:
            name, tenant = "tenant", chance.choice(("acme", "Acme", "acme2", "acme3"))
        if (tenant, document) in valid:
            continue
        shelf.document = document
        with pytest.raises(RingRejected):
            store.load(tenant)
        refused[name] += 1
    print(f"{refused.total()} tampered rings refused: {dict(refused)}")  # noqa: T201
    assert len(refused) == len(RING_TAMPERS) + 1
    for tenant, document in made:
        shelf.document = document
        reader = RingStore(shelf, Authenticator([key_site.auth_key]))
        assert reader.load(tenant).ring.tenant == tenant


@pytest.mark.soak
def test_no_tampered_wrap_is_unwrapped() -> None:
    """A wrap opens as it was made, under its key and at its place, and else not at all."""
    chance = random.Random(seed())
    keks = [MasterKey(KeyMaterial(bytes([number]) * 32)) for number in (1, 2)]
    places = [
        WrapContext(tenant, ring_id, version)
        for tenant in ("a", "acme")
        for ring_id in (bytes(12), b"acme" * 3)
        for version in (1, 2)
    ]
    made = [
        (kek, where, kek.wrap(KeyMaterial(chance.randbytes(32)), where).ciphertext)
        for kek in keks
        for where in places
    ]
    valid = {(kek.key_id, where.canonical, blob) for kek, where, blob in made}
    refused: Counter[str] = Counter()
    for _ in range(scale(ci=10_000, soak=600_000)):
        kek, where, blob = chance.choice(made)
        kind = chance.randrange(len(TAMPERS) + 2)
        if kind < len(TAMPERS):
            tamper = TAMPERS[kind]
            name = tamper.__name__
            # Fields of a wrap end elsewhere: after the magic and after the salt.
            blob = tamper(chance, blob, chance.choice(made)[2])
        elif kind == len(TAMPERS):
            name, where = "place", chance.choice(places)
        else:
            name, kek = "key", chance.choice(keks)
        if (kek.key_id, where.canonical, blob) in valid:
            continue
        with pytest.raises(DecryptionFailed):
            kek.unwrap("local:k", WrappedKey(blob, kek.key_id, None), where)
        refused[name] += 1
    print(f"{refused.total()} tampered wraps refused: {dict(refused)}")  # noqa: T201
    assert len(refused) == len(TAMPERS) + 2
