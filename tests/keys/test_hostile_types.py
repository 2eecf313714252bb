"""Inputs that lie about themselves: no bound is passed, no binding is bent, no stray error told."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from sentra_kms.errors import DecryptionFailed, MalformedInput
from sentra_kms.keys import message as message_format
from sentra_kms.runtime import KMS
from tests.keys.conftest import salt_of

TICK = 16 * 1024  # bytes that cost an epoch as much as one message
MIB = 1024 * 1024


class Liar(bytes):
    """Bytes that claim to be short, and to be plain bytes already."""

    def __bytes__(self) -> bytes:
        return self

    def __len__(self) -> int:
        return 0

    def __getitem__(self, _: Any) -> Any:
        return b"SK\x01\x01"

    def startswith(self, *_: Any) -> bool:
        """Claim any beginning."""
        return True


@pytest.mark.parametrize("many", [False, True], ids=["one", "batch"])
def test_bytes_that_claim_to_be_short_cost_their_epoch_what_they_are(
    memory_kms: KMS,
    monkeypatch: pytest.MonkeyPatch,
    many: bool,  # noqa: FBT001 - a case
) -> None:
    """A subclass of bytes that lies about its length passes no bound of a salt."""
    monkeypatch.setattr(message_format, "EPOCH_TICKS", 8)
    acme = memory_kms.keys.tenant("acme")
    liar = Liar(b"x" * 3 * TICK)
    messages = acme.encrypt_many([liar] * 12) if many else [acme.encrypt(liar) for _ in range(12)]
    assert max(Counter(map(salt_of, messages)).values()) == 2
    assert acme.decrypt_many(messages) == [b"x" * 3 * TICK] * 12


def test_bytes_that_claim_to_be_short_pass_no_bound_of_size(memory_kms: KMS) -> None:
    """Over 64 MiB they are refused, whatever they say."""
    liar = Liar(64 * MIB + 1)
    for attempt in (
        memory_kms.keys.encrypt,
        lambda name, data: memory_kms.keys.encrypt_many(name, [data]),
    ):
        with pytest.raises(MalformedInput, match="at most 67108864 bytes"):
            attempt("acme", liar)


def test_view_of_larger_items_is_measured_in_bytes(memory_kms: KMS) -> None:
    """The bound of 64 MiB is one of bytes, whatever a view counts."""
    view: Any = memoryview(bytes(64 * MIB + 8)).cast("d")
    assert len(view) < 64 * MIB
    with pytest.raises(MalformedInput, match="at most 67108864 bytes"):
        memory_kms.keys.encrypt("acme", view)


def test_message_is_what_it_holds_and_not_what_it_says(memory_kms: KMS) -> None:
    """A subclass of bytes opens as the bytes in it, or is refused as these are."""
    acme = memory_kms.keys.tenant("acme")
    message = acme.encrypt(b"x")
    for attempt in (acme.decrypt, lambda data: acme.decrypt_many([data])[0]):
        assert attempt(Liar(message)) == b"x"
        with pytest.raises(DecryptionFailed):
            attempt(Liar(message[:-1] + bytes([message[-1] ^ 1])))
        with pytest.raises(MalformedInput, match="has 96 to"):
            attempt(Liar(b"short"))
        with pytest.raises(MalformedInput, match="does not begin with 'SK'"):
            attempt(Liar(b"?" + message[1:]))


def test_message_that_shows_another_when_it_is_cut_opens_as_what_it_holds(memory_kms: KMS) -> None:
    """A subclass's own idea of its parts is not asked for, cold or warm."""
    acme = memory_kms.keys.tenant("acme")
    message, other = acme.encrypt(b"held"), acme.encrypt(b"shown")

    class Shows(bytes):
        def __getitem__(self, key: Any) -> Any:
            return other[key]

    for _ in range(2):
        assert acme.decrypt(Shows(message)) == b"held"
        assert acme.decrypt_many([other, Shows(message)]) == [b"shown", b"held"]


def test_released_view_is_malformed(memory_kms: KMS) -> None:
    """A memoryview that shows nothing any more is told as any other wrong input."""
    acme = memory_kms.keys.tenant("acme")
    view = memoryview(b"x")
    view.release()
    attempts: list[Callable[[], object]] = [
        lambda: acme.encrypt(view),
        lambda: acme.decrypt(view),
        lambda: acme.encrypt_many([view]),
        lambda: acme.decrypt_many([view]),
        lambda: asyncio.run(memory_kms.keys.aio.encrypt("acme", view)),
        lambda: asyncio.run(memory_kms.keys.aio.decrypt("acme", view)),
    ]
    for attempt in attempts:
        with pytest.raises(MalformedInput, match="released") as caught:
            attempt()
        assert caught.value.__cause__ is caught.value.__context__ is None


class Claims(list[Any]):
    """A list that claims to have so many items."""

    claimed = 0

    def __len__(self) -> int:
        return self.claimed


@pytest.mark.parametrize("real", [0, 1, 3])
def test_contexts_that_claim_to_be_as_many_as_the_items_are_counted(
    memory_kms: KMS, real: int
) -> None:
    """No context is left out and no item goes without one."""
    acme = memory_kms.keys.tenant("acme")
    messages = acme.encrypt_many([b"a", b"b"], [b"c"] * 2)
    contexts = Claims([b"c"] * real)
    contexts.claimed = 2
    with pytest.raises(MalformedInput, match="2 items need as many contexts"):
        acme.encrypt_many([b"a", b"b"], contexts)
    with pytest.raises(MalformedInput, match="2 items need as many contexts"):
        acme.decrypt_many(messages, contexts)


def test_contexts_are_taken_from_any_iterable_both_ways(memory_kms: KMS) -> None:
    """What decrypts in a batch encrypts in one."""
    acme = memory_kms.keys.tenant("acme")
    contexts = [b"c", {"n": "1"}, None]

    def drawn() -> Any:
        return iter(contexts)

    messages = acme.encrypt_many([b"a", b"b", b"c"], drawn())
    assert acme.decrypt_many(messages, drawn()) == [b"a", b"b", b"c"]


class Encodes(str):
    """Text that encodes to something else than its equal."""

    __slots__ = ()

    def encode(self, *_: Any) -> bytes:
        """Give other bytes."""
        return b"forged"


class Turning(dict[str, str]):
    """A dict that shows exact text at the first look at its keys, and other keys later."""

    looks = 0

    def __iter__(self) -> Iterator[str]:
        self.looks += 1
        return iter([key if self.looks == 1 else Encodes(key) for key in super().__iter__()])


def test_dict_that_shows_other_keys_at_a_second_look_bends_no_context(memory_kms: KMS) -> None:
    """Its keys are looked at once; nothing of them is remembered for those of others."""
    acme = memory_kms.keys.tenant("acme")
    name = "turning"  # of which nothing is remembered yet
    message = acme.encrypt(b"x", Turning({name: "1"}))
    assert acme.decrypt(message, {name: "1"}) == b"x"
    with pytest.raises(DecryptionFailed):
        acme.decrypt(message, {"forged": "1"})


def test_dict_that_shows_text_of_another_kind_is_refused(memory_kms: KMS) -> None:
    """And nothing is remembered of it."""

    class Shows(dict[str, str]):
        def __iter__(self) -> Iterator[str]:
            return iter([Encodes(key) for key in super().__iter__()])

        def keys(self) -> Any:
            return list(self)

    acme = memory_kms.keys.tenant("acme")
    with pytest.raises(MalformedInput, match="keys are str, not Encodes"):
        acme.encrypt(b"x", Shows({"shown": "1"}))
    assert acme.decrypt(acme.encrypt(b"x", {"shown": "1"}), {"shown": "1"}) == b"x"


class Reentrant(dict[str, str]):
    """A dict that has something done while its values are looked at."""

    act: Callable[[], object]

    def __iter__(self) -> Iterator[str]:
        self.act()
        return super().__iter__()

    def __getitem__(self, key: str) -> str:
        self.act()
        return super().__getitem__(key)


@pytest.mark.parametrize("many", [False, True], ids=["one", "batch"])
def test_context_that_rotates_forgets_and_seals_while_it_is_encoded(
    memory_kms: KMS,
    many: bool,  # noqa: FBT001 - a case
) -> None:
    """Code of the caller's in the middle of a call meets whole state, and leaves it so."""
    acme = memory_kms.keys.tenant("acme")
    sealed: list[bytes] = []

    def act() -> None:
        memory_kms.keys.rotate("acme")
        sealed.append(acme.encrypt(b"within"))
        memory_kms.keys._cache.clear()

    context = Reentrant({"a": "1", "b": "2", "c": "3"})
    context.act = act
    message = acme.encrypt_many([b"x"], [context])[0] if many else acme.encrypt(b"x", context)
    opened = acme.decrypt_many([message], [context])[0] if many else acme.decrypt(message, context)
    assert opened == b"x"
    assert sealed
    assert acme.decrypt_many(sealed) == [b"within"] * len(sealed)


@pytest.mark.parametrize("kind", [KeyError, LookupError, ValueError])
def test_error_of_the_callers_own_context_is_his(memory_kms: KMS, kind: type[Exception]) -> None:
    """What his mapping raises comes to him as it is, and is not taken for one of ours."""

    class Raises(dict[str, str]):
        def keys(self) -> Any:
            raise kind("his own")

        def __iter__(self) -> Iterator[str]:
            raise kind("his own")

    acme = memory_kms.keys.tenant("acme")
    message = acme.encrypt(b"x")
    hostile = Raises(a="1")
    attempts: list[Callable[[], object]] = [
        lambda: acme.encrypt(b"x", hostile),
        lambda: acme.decrypt(message, hostile),
        lambda: acme.encrypt_many([b"x"], [hostile]),
        lambda: acme.decrypt_many([message], [hostile]),
    ]
    for attempt in attempts:
        with pytest.raises(kind, match="his own"):
            attempt()
    assert acme.decrypt(message) == b"x"
