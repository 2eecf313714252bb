"""How long one salt serves, that nonces never repeat, and batches."""

from __future__ import annotations

import threading
from collections import Counter
from typing import Any

import pytest

from sentra_kms.errors import DecryptionFailed, MalformedInput, TenantNotFound
from sentra_kms.keys import message as message_format
from sentra_kms.keys.message import EPOCH_TICKS, TICK_BYTES, ticks
from sentra_kms.keys.tenant_keys import TenantKeys
from sentra_kms.runtime import KMS
from tests.keys.conftest import (
    WAIT,
    ManualClock,
    Site,
    Spy,
    in_fork,
    in_threads,
    nonce_of,
    salt_of,
    until,
    version_in,
)

BOUND = 2**16
TICK = 16 * 1024  # bytes that cost an epoch as much as one message


@pytest.fixture
def short_epochs(monkeypatch: pytest.MonkeyPatch) -> int:
    """Epochs of eight messages or 128 KiB instead of 2^16 or 1 GiB."""
    monkeypatch.setattr(message_format, "EPOCH_TICKS", 8)
    return 8


def test_one_salt_serves_2_to_the_16_messages(memory_kms: KMS) -> None:
    """The message after that begins a new epoch, under the same version."""
    acme = memory_kms.keys.tenant("acme")
    salts = Counter(salt_of(acme.encrypt(b"")) for _ in range(BOUND + 1))
    assert sorted(salts.values()) == [1, BOUND]


def test_bounds_of_the_real_epoch() -> None:
    """2^16 ticks of 16 KiB are the specified 2^16 messages and 1 GiB."""
    assert EPOCH_TICKS == BOUND
    assert EPOCH_TICKS * TICK_BYTES == 2**30
    assert ticks(0) == ticks(1) == ticks(TICK) == 1
    assert ticks(TICK + 1) == 2
    assert ticks(64 * 1024 * 1024) == 4096


@pytest.mark.parametrize("size", [1, TICK, TICK + 1, 3 * TICK, 5 * TICK, 8 * TICK])
def test_large_messages_use_an_epoch_up_by_their_bytes(
    memory_kms: KMS, short_epochs: int, size: int
) -> None:
    """No salt serves more bytes than its bound allows; each message comes back."""
    acme = memory_kms.keys.tenant("acme")
    messages = [acme.encrypt(bytes(size)) for _ in range(30)]
    salts = Counter(salt_of(message) for message in messages)
    allowed = short_epochs // -(-size // TICK)
    assert max(salts.values()) == allowed
    assert all(acme.decrypt(message) == bytes(size) for message in messages)


def test_mixed_sizes_keep_the_bound_of_bytes(memory_kms: KMS, short_epochs: int) -> None:
    """Small and large messages in turn draw on one budget."""
    acme = memory_kms.keys.tenant("acme")
    spent: Counter[bytes] = Counter()
    for index in range(60):
        size = (index * 7919) % (6 * TICK)
        message = acme.encrypt(bytes(size))
        spent[salt_of(message)] += max(1, -(-size // TICK))
    assert len(spent) > 5
    assert max(spent.values()) <= short_epochs


def test_message_larger_than_a_whole_epoch_gets_one_of_its_own(
    memory_kms: KMS, short_epochs: int
) -> None:
    """A message that alone passes the bound is sealed under a salt that serves no other."""
    acme = memory_kms.keys.tenant("acme")
    first, large, last = (acme.encrypt(bytes(size)) for size in (1, 9 * TICK, 1))
    assert len({salt_of(first), salt_of(large), salt_of(last)}) == 3
    assert acme.decrypt(large) == bytes(9 * TICK)


def test_other_buffers_cost_their_epoch_as_much(memory_kms: KMS, short_epochs: int) -> None:
    """A bytearray is counted as bytes are."""
    acme = memory_kms.keys.tenant("acme")
    buffer: Any = bytearray(b"x")
    salts = Counter(salt_of(acme.encrypt(buffer)) for _ in range(5 * short_epochs))
    assert max(salts.values()) <= short_epochs


def test_salt_lives_no_longer_than_its_key_is_cached(
    memory_kms: KMS, manual_clock: ManualClock
) -> None:
    """Reading the ring anew keeps the salt; when the cached key expires, it ends."""
    acme = memory_kms.keys.tenant("acme")
    first = salt_of(acme.encrypt(b"x"))
    manual_clock.advance(60)  # the ring's TTL
    assert salt_of(acme.encrypt(b"x")) == first
    manual_clock.advance(60)
    assert salt_of(acme.encrypt(b"x")) == first
    manual_clock.advance(180)  # 300 s in all, the key's TTL
    assert salt_of(acme.encrypt(b"x")) != first


def test_salt_does_not_live_on_with_a_key_that_is_fetched_anew(key_site: Site) -> None:
    """Nor where another handle takes it up in between: its own end is that of its first key."""
    kms = key_site.open(cache={"key_ttl": "300s", "ring_ttl": "1000s"})
    kms.keys.create("acme")
    acme = kms.keys.tenant("acme")
    first = salt_of(acme.encrypt(b"x"))
    key_site.clock.advance(250)
    assert salt_of(acme.encrypt(b"x")) == first  # this has the key fetched in the background
    assert key_site.later.run() == 1
    assert salt_of(TenantKeys(kms.keys._cache, "acme").encrypt(b"x")) == first
    key_site.clock.advance(50)
    assert salt_of(acme.encrypt(b"x")) != first


@pytest.mark.parametrize("then", ["nothing", "the ring is read anew", "another handle seals"])
def test_salt_begun_late_lets_its_key_live_no_longer(key_site: Site, then: str) -> None:
    """The key is asked for again when it is due, though its salt and its ring could go on."""
    kms = key_site.open(cache={"key_ttl": "300s", "ring_ttl": "1000s"})
    kms.keys.create("acme")
    acme, cache = kms.keys.tenant("acme"), kms.keys._cache
    key_site.clock.advance(200)
    salt = salt_of(acme.encrypt(b"x"))
    if then == "the ring is read anew":
        before = cache.entry("acme")
        assert cache.reload(before) is not before
    elif then == "another handle seals":
        assert salt_of(TenantKeys(cache, "acme").encrypt(b"x")) == salt
    unwraps = Spy(kms, "local", "unwrap_key")
    key_site.clock.advance(100)
    acme.encrypt(b"x")
    assert unwraps.count == 1


def test_salt_lives_no_longer_than_a_reload_allows(key_site: Site) -> None:
    """A shorter time for keys is a shorter one for what is in use already."""
    kms = key_site.open(cache={"key_ttl": "300s", "ring_ttl": "1000s"})
    kms.keys.create("acme")
    acme = kms.keys.tenant("acme")
    first = salt_of(acme.encrypt(b"x"))
    kms.reload(key_site.config(cache={"key_ttl": "60s", "ring_ttl": "1000s"}))
    key_site.clock.advance(50)
    acme.encrypt(b"x")  # this has the key fetched in the background
    assert key_site.later.run()
    key_site.clock.advance(10)
    assert salt_of(acme.encrypt(b"x")) != first


def test_rotation_ends_the_salt(memory_kms: KMS) -> None:
    """The first message after a rotation is under the new version and a new salt."""
    acme = memory_kms.keys.tenant("acme")
    before = acme.encrypt(b"x")
    memory_kms.keys.rotate("acme")
    after = acme.encrypt(b"x")
    assert (version_in(before), version_in(after)) == (1, 2)
    assert salt_of(before) != salt_of(after)


def test_tenants_and_processes_have_salts_of_their_own(key_site: Site) -> None:
    """No salt is shared between tenants, nor between two openings of one configuration."""
    one, two = key_site.open(), key_site.open()
    one.keys.create("acme")
    one.keys.create("other")
    messages = [kms.keys.encrypt(tenant, b"") for kms in (one, two) for tenant in ("acme", "other")]
    assert len({salt_of(message) for message in messages}) == 4


def test_forked_child_has_a_salt_and_nonces_of_its_own(memory_kms: KMS) -> None:
    """Parent and child never write on under one salt, and each opens what the other sealed."""
    acme = memory_kms.keys.tenant("acme")
    before = acme.encrypt(b"parent")
    size = len(before)

    def work() -> bytes:
        assert acme.decrypt(before) == b"parent"
        return b"".join(acme.encrypt(b"child!") for _ in range(50))

    children = [in_fork(work), in_fork(work)]
    messages = [
        answer[start : start + size] for answer in children for start in range(0, len(answer), size)
    ]
    assert len(messages) == 100
    after = [acme.encrypt(b"parent") for _ in range(50)]
    assert {salt_of(message) for message in after} == {salt_of(before)}
    assert len({salt_of(message) for message in [before, *messages]}) == 3
    assert len({nonce_of(message) for message in [before, *messages, *after]}) == 151
    assert {acme.decrypt(message) for message in messages} == {b"child!"}


def test_fork_while_other_threads_are_inside_does_not_hang_the_child(memory_kms: KMS) -> None:
    """A child works on although threads that it does not have were loading at the fork."""
    memory_kms.keys.create("slow")
    memory_kms.keys._cache.clear()
    entered, release = threading.Event(), threading.Event()
    loads = Spy(memory_kms, "memory", "load_ring")

    def hold() -> None:
        entered.set()
        release.wait(WAIT)

    loads.before = hold
    thread = threading.Thread(target=memory_kms.keys.encrypt, args=("slow", b"x"), daemon=True)
    thread.start()
    try:
        until(entered.is_set)

        def work() -> bytes:
            loads.before = None
            memory_kms.keys.rotate("slow")
            acme = memory_kms.keys.tenant("acme")
            assert acme.decrypt(acme.encrypt(b"x")) == b"x"
            return memory_kms.keys.encrypt("slow", b"child")

        # The child's rotation is its own: memory is not shared between processes.
        assert version_in(in_fork(work)) == 2
    finally:
        release.set()
        thread.join(WAIT)
    assert version_in(memory_kms.keys.encrypt("slow", b"x")) == 1


def test_nonces_of_20_000_messages_in_4_threads_are_different(memory_kms: KMS) -> None:
    """Threads that share one handle and one salt never draw a nonce twice."""
    acme = memory_kms.keys.tenant("acme")

    def work(_: int) -> list[bytes]:
        single = [acme.encrypt(b"") for _ in range(2500)]
        return [message[20:80] for message in single + acme.encrypt_many([b""] * 2500)]

    heads: list[Any] = in_threads(work, 4)
    drawn = [head[48:60] for part in heads for head in part]
    assert len(drawn) == 20_000
    assert len(set(drawn)) == 20_000


def test_threads_together_keep_the_bound_of_an_epoch(memory_kms: KMS, short_epochs: int) -> None:
    """However many threads write at once, no salt serves more messages than its bound."""
    acme = memory_kms.keys.tenant("acme")

    def work(index: int) -> list[bytes]:
        if index % 2:
            return acme.encrypt_many([b""] * 500)
        return [acme.encrypt(b"") for _ in range(500)]

    parts: list[Any] = in_threads(work, 8)
    salts = Counter(salt_of(message) for part in parts for message in part)
    assert sum(salts.values()) == 4000
    assert max(salts.values()) <= short_epochs


# --- batches ----------------------------------------------------------------------------------


def test_batch_gives_what_single_calls_give(memory_kms: KMS) -> None:
    """Batch and single messages are of one kind, in the order of their plaintexts."""
    keys = memory_kms.keys
    plains = [str(number).encode() * number for number in range(50)]
    contexts = [None, b"", {}, b"c", {"n": "1"}] * 10
    batch = keys.encrypt_many("acme", plains, contexts)
    singles = [
        keys.encrypt("acme", plain, context)
        for plain, context in zip(plains, contexts, strict=True)
    ]
    assert [len(message) for message in batch] == [len(message) for message in singles]
    assert keys.decrypt_many("acme", singles, contexts) == plains
    assert keys.decrypt_many("acme", batch, contexts) == plains
    for message, plain, context in zip(batch, plains, contexts, strict=True):
        assert keys.decrypt("acme", message, context) == plain


def test_batch_shares_the_epoch_and_no_nonce(memory_kms: KMS) -> None:
    """One salt for the batch and the calls around it; each message has a nonce of its own."""
    acme = memory_kms.keys.tenant("acme")
    messages = [acme.encrypt(b"x"), *acme.encrypt_many([b"x"] * 100), acme.encrypt(b"x")]
    assert len({salt_of(message) for message in messages}) == 1
    assert len({nonce_of(message) for message in messages}) == 102


def test_batch_crosses_the_end_of_an_epoch(memory_kms: KMS, short_epochs: int) -> None:
    """A batch longer than an epoch goes on under new salts, large messages included."""
    acme = memory_kms.keys.tenant("acme")
    acme.encrypt_many([b"x"] * 5)
    plains = [b"x"] * 20 + [bytes(2 * TICK)] * 3 + [b"y"] * 20
    messages = acme.encrypt_many(plains)
    spent: Counter[bytes] = Counter()
    for plain, message in zip(plains, messages, strict=True):
        spent[salt_of(message)] += max(1, -(-len(plain) // TICK))
    assert max(spent.values()) <= short_epochs
    assert len(spent) >= 6
    assert acme.decrypt_many(messages) == plains


def test_batch_crosses_a_rotation_when_it_is_decrypted(memory_kms: KMS) -> None:
    """Messages of several versions open in one batch."""
    keys = memory_kms.keys
    messages = keys.encrypt_many("acme", [b"1", b"2"])
    keys.rotate("acme")
    messages += keys.encrypt_many("acme", [b"3"])
    assert [version_in(message) for message in messages] == [1, 1, 2]
    assert keys.decrypt_many("acme", messages) == [b"1", b"2", b"3"]


def test_empty_batch_is_empty(memory_kms: KMS) -> None:
    """Nothing in, nothing out."""
    assert memory_kms.keys.encrypt_many("acme", []) == []
    assert memory_kms.keys.decrypt_many("acme", []) == []
    assert memory_kms.keys.encrypt_many("acme", [], []) == []
    assert memory_kms.keys.decrypt_many("acme", [], []) == []


@pytest.mark.parametrize("contexts", [[], [None], [None] * 3, [None] * 4])
def test_contexts_are_as_many_as_the_items(memory_kms: KMS, contexts: list[None]) -> None:
    """Fewer or more contexts than items are refused, so that none is paired wrongly."""
    keys = memory_kms.keys
    messages = keys.encrypt_many("acme", [b"a", b"b"])
    with pytest.raises(MalformedInput, match="2 items need as many contexts"):
        keys.encrypt_many("acme", [b"a", b"b"], contexts)
    with pytest.raises(MalformedInput, match="2 items need as many contexts"):
        keys.decrypt_many("acme", messages, contexts)


def test_batch_binds_each_context_to_its_item(memory_kms: KMS) -> None:
    """Two contexts swapped do not open."""
    keys = memory_kms.keys
    messages = keys.encrypt_many("acme", [b"a", b"b"], [{"n": "1"}, {"n": "2"}])
    assert keys.decrypt_many("acme", messages, [{"n": "1"}, {"n": "2"}]) == [b"a", b"b"]
    with pytest.raises(DecryptionFailed):
        keys.decrypt_many("acme", messages, [{"n": "2"}, {"n": "1"}])
    with pytest.raises(DecryptionFailed):
        keys.decrypt_many("acme", messages)


def test_batch_fails_as_a_whole(memory_kms: KMS) -> None:
    """One item that fails, wherever it stands, fails the call."""
    keys = memory_kms.keys
    messages = keys.encrypt_many("acme", [b"a", b"b", b"c"])
    for index in range(3):
        changed = list(messages)
        changed[index] = messages[index][:-1] + bytes([messages[index][-1] ^ 1])
        with pytest.raises(DecryptionFailed):
            keys.decrypt_many("acme", changed)
    with pytest.raises(MalformedInput):
        keys.decrypt_many("acme", [messages[0], b"short"])
    with pytest.raises(MalformedInput):
        keys.encrypt_many("acme", [b"a", b"b"], [None, {"n": "\ud800"}])
    with pytest.raises(TenantNotFound):
        keys.encrypt_many("nobody", [b"a"])
    with pytest.raises(TenantNotFound):
        keys.decrypt_many("nobody", messages)


def test_cold_batch_loads_and_unwraps_once(memory_kms: KMS) -> None:
    """A batch on a cold tenant costs what one message does."""
    memory_kms.keys._cache.clear()
    loads, unwraps = (Spy(memory_kms, "memory", name) for name in ("load_ring", "unwrap_key"))
    messages = memory_kms.keys.encrypt_many("acme", [b"x"] * 50)
    assert memory_kms.keys.decrypt_many("acme", messages) == [b"x"] * 50
    assert (loads.count, unwraps.count) == (1, 1)
