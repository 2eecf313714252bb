"""No salt serves beyond its bound, however the threads that share it fall."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from operator import length_hint
from typing import Any

import pytest

from sentra_kms.keys import message as messages_module
from sentra_kms.keys.held import Entry
from sentra_kms.keys.message import EPOCH_TICKS, OVERHEAD, Sealer
from sentra_kms.runtime import KMS
from tests.keys.conftest import in_threads, salt_of

BOUND = 8
TICK = 16 * 1024  # bytes that cost an epoch as much as one message


@pytest.fixture(autouse=True)
def _short_epochs(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Epochs of eight ticks instead of 2^16, and threads that switch as often as they can."""
    monkeypatch.setattr(messages_module, "EPOCH_TICKS", BOUND)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


def spent(messages: Iterable[bytes]) -> Counter[bytes]:
    """Return how many ticks each salt has served."""
    found: Counter[bytes] = Counter()
    for message in messages:
        found[salt_of(message)] += max(1, -(-(len(message) - OVERHEAD) // TICK))
    return found


def test_the_real_bound_is_2_to_the_16_ticks() -> None:
    """What these tests shorten is the specified bound."""
    assert EPOCH_TICKS == 2**16


@pytest.mark.parametrize("many", [False, True])
@pytest.mark.parametrize("theirs", [1, TICK + 1, 4 * TICK])
@pytest.mark.parametrize("own", [1, TICK + 1, 3 * TICK, 8 * TICK])
def test_new_epoch_is_not_used_up_before_its_maker_drew_from_it(
    memory_kms: KMS,
    monkeypatch: pytest.MonkeyPatch,
    own: int,
    theirs: int,
    many: bool,  # noqa: FBT001 - a case
) -> None:
    """Others write under an epoch as soon as it is there: its maker's message counts already."""
    acme = memory_kms.keys.tenant("acme")
    cache = memory_kms.keys._cache
    make: Any = cache.sealer
    others: list[bytes] = []

    def make_and_lose_the_processor(*arguments: Any, **options: Any) -> Any:
        sealer = make(*arguments, **options)
        if not others:
            others.append(b"")  # what follows makes epochs of its own
            others[:] = [acme.encrypt(bytes(theirs)) for _ in range(2 * BOUND)]
        return sealer

    monkeypatch.setattr(cache, "sealer", make_and_lose_the_processor)
    plains = [bytes(own), b"x", bytes(own)] if many else [bytes(own)]
    mine = acme.encrypt_many(plains) if many else [acme.encrypt(plains[0])]
    assert len(others) == 2 * BOUND
    assert max(spent(mine + others).values()) <= BOUND
    assert acme.decrypt_many(mine) == plains


@pytest.mark.parametrize("size", [1, TICK + 1, 3 * TICK, 7 * TICK])
def test_threads_with_large_messages_keep_the_bound(memory_kms: KMS, size: int) -> None:
    """Many threads that use epochs up within a message or two never share one too long."""
    acme = memory_kms.keys.tenant("acme")

    def work(index: int) -> list[bytes]:
        if index % 3 == 0:
            return acme.encrypt_many([bytes(size)] * 12)
        return [acme.encrypt(bytes(size)) for _ in range(12)]

    parts: list[Any] = in_threads(work, 12)
    found = spent(message for part in parts for message in part)
    assert sum(found.values()) == 144 * -(-size // TICK)
    assert max(found.values()) <= BOUND


def test_threads_with_messages_of_all_sizes_keep_the_bound(memory_kms: KMS) -> None:
    """Small messages, which take the short way, and large ones draw on one budget."""
    acme = memory_kms.keys.tenant("acme")

    def work(index: int) -> list[bytes]:
        return [acme.encrypt(bytes((index * 7919 + n * 104_729) % (8 * TICK))) for n in range(20)]

    parts: list[Any] = in_threads(work, 12)
    assert max(spent(message for part in parts for message in part).values()) <= BOUND


@pytest.mark.parametrize("size", [1, 5 * TICK, 8 * TICK])
def test_many_threads_that_need_a_new_epoch_at_once(memory_kms: KMS, size: int) -> None:
    """On a cold tenant, or after a rotation, each of them may make one; none is overdrawn."""
    acme = memory_kms.keys.tenant("acme")
    gathered: list[bytes] = []
    for _ in range(6):
        memory_kms.keys.rotate("acme")
        parts: list[Any] = in_threads(
            lambda _: [acme.encrypt(bytes(size)), acme.encrypt(bytes(size))], 16
        )
        gathered += [message for part in parts for message in part]
    assert max(spent(gathered).values()) <= BOUND


@pytest.mark.parametrize("cost", [1, 2, 3])
def test_message_of_any_size_is_sealed_by_the_epoch_at_hand(
    memory_kms: KMS, monkeypatch: pytest.MonkeyPatch, cost: int
) -> None:
    """A large one goes the same short way, and never past the bound."""
    acme = memory_kms.keys.tenant("acme")
    large = bytes((cost - 1) * TICK + 1)
    first = acme.encrypt(b"x")
    cache = memory_kms.keys._cache
    whole, asked = cache.sealer, list[int]()

    def noting(entry: Entry, number: int, cost: int, *, wait: bool = True) -> Sealer:
        asked.append(cost)
        return whole(entry, number, cost, wait=wait)

    monkeypatch.setattr(cache, "sealer", noting)
    assert salt_of(acme.encrypt(large)) == salt_of(first)
    assert not asked
    assert length_hint(cache.epochs["acme"].uses) == BOUND - 1 - cost
    assert cache.epochs["acme"].draw(BOUND - 2 * cost)  # what is left is a tick too few
    assert salt_of(acme.encrypt(large)) != salt_of(first)
    assert asked == [cost]
