"""Messages: their layout, and everything that must not open."""

from __future__ import annotations

import array
from collections.abc import Callable
from typing import Any

import pytest

from sentra_kms.context import Context
from sentra_kms.errors import (
    DecryptionFailed,
    KeyNotFound,
    KeyUnavailable,
    KMSError,
    MalformedInput,
    TenantNotFound,
    UnsupportedOperation,
)
from sentra_kms.runtime import KMS
from tests.keys.conftest import ManualClock, Site, Spy, salt_of, version_in, with_version

OVERHEAD = 96
LIMIT = 64 * 1024 * 1024
ROW = {"table": "users", "column": "ssn", "id": "42"}
Chill = Callable[[], None]


@pytest.fixture(params=["cold", "warm"])
def chill(request: pytest.FixtureRequest, memory_kms: KMS) -> Chill:
    """Run before each decryption: forgets every key in the cold case, nothing in the warm one."""
    if request.param == "cold":
        return memory_kms.keys.close

    def stay_warm() -> None:
        """Leave the cache as it is."""

    return stay_warm


def region(offset: int) -> type[KMSError]:
    """Return the error of a message that was changed at this offset only."""
    if offset < 4:
        return MalformedInput
    if 16 <= offset < 20:
        return KeyNotFound
    return DecryptionFailed


def refused(kms: KMS, message: bytes, context: Context = None) -> KMSError:
    """Return the error with which a message for acme is refused."""
    with pytest.raises(KMSError) as caught:
        kms.keys.decrypt("acme", message, context)
    return caught.value


def test_fresh_message_has_the_specified_layout(memory_kms: KMS) -> None:
    """Magic, format, suite, ring id, version and lengths stand where the specification says."""
    info = memory_kms.keys.describe("acme")
    message = memory_kms.keys.encrypt("acme", b"plaintext")
    assert message[0:4] == b"SK\x01\x01"
    assert message[4:16].hex() == info.ring_id
    assert message[16:20] == b"\x00\x00\x00\x01"
    assert len(message) == 20 + 16 + 32 + 12 + len(b"plaintext") + 16
    assert b"plaintext" not in message


@pytest.mark.parametrize("size", [0, 1, 15, 16, 16383, 16384, 16385, 1_000_003])
def test_every_size_comes_back(memory_kms: KMS, size: int) -> None:
    """A message is 96 bytes longer than its plaintext, also when that is empty or large."""
    plaintext = bytes(range(256)) * (size // 256) + bytes(size % 256)
    message = memory_kms.keys.encrypt("acme", plaintext, ROW)
    assert len(message) == size + OVERHEAD
    assert memory_kms.keys.decrypt("acme", message, ROW) == plaintext


def test_two_messages_of_one_plaintext_differ(memory_kms: KMS) -> None:
    """Nonces are drawn anew, so equal plaintexts are not seen to be equal."""
    acme = memory_kms.keys.tenant("acme")
    one, two = acme.encrypt(b"same"), acme.encrypt(b"same")
    assert one[68:80] != two[68:80]
    assert one[80:] != two[80:]


def test_manager_and_handle_are_one_face(memory_kms: KMS) -> None:
    """What one of them encrypts the other decrypts; the handle knows its tenant."""
    acme = memory_kms.keys.tenant("acme")
    assert acme.tenant == "acme"
    assert repr(acme) == "TenantKeys('acme')"
    assert memory_kms.keys.decrypt("acme", acme.encrypt(b"x", ROW), ROW) == b"x"
    assert acme.decrypt(memory_kms.keys.encrypt("acme", b"x", ROW), ROW) == b"x"


def test_largest_message_comes_back_and_one_byte_more_is_refused(memory_kms: KMS) -> None:
    """64 MiB is the bound of a message, inclusive."""
    largest = bytes(LIMIT)
    message = memory_kms.keys.encrypt("acme", largest)
    assert memory_kms.keys.decrypt("acme", message) == largest
    over = bytes(LIMIT + 1)
    with pytest.raises(MalformedInput, match="at most 67108864 bytes"):
        memory_kms.keys.encrypt("acme", over)
    with pytest.raises(MalformedInput, match="at most 67108864 bytes"):
        memory_kms.keys.encrypt_many("acme", [b"small", over])


def test_message_longer_than_any_is_malformed(memory_kms: KMS, chill: Chill) -> None:
    """A message over 64 MiB and 96 bytes is refused by its length, with a warm cache too."""
    message = memory_kms.keys.encrypt("acme", b"x")
    memory_kms.keys.decrypt("acme", message)
    chill()
    assert type(refused(memory_kms, message.ljust(LIMIT + OVERHEAD + 1, b"\0"))) is MalformedInput


@pytest.mark.parametrize("form", [bytearray, memoryview, lambda data: memoryview(bytearray(data))])
def test_other_buffers_are_taken(memory_kms: KMS, form: Callable[[bytes], Any]) -> None:
    """A bytearray or memoryview does for a plaintext and for a message, cold and warm."""
    acme = memory_kms.keys.tenant("acme")
    for _ in range(2):
        message = acme.encrypt(form(b"buffer"))
        assert type(message) is bytes
        opened = acme.decrypt(form(message))
        assert type(opened) is bytes
        assert opened == b"buffer"
        assert acme.decrypt_many([form(message)]) == [b"buffer"]
        assert acme.decrypt(acme.encrypt_many([form(b"buffer")])[0]) == b"buffer"


def test_memoryview_of_larger_items_and_steps_is_taken_as_its_bytes(memory_kms: KMS) -> None:
    """Views that are not plain runs of bytes give the bytes that they show."""
    acme = memory_kms.keys.tenant("acme")
    words: Any = memoryview(array.array("H", [1, 2, 3]))
    assert acme.decrypt(acme.encrypt(words)) == words.tobytes()
    every_other: Any = memoryview(b"a-b-c-")[::2]
    assert acme.decrypt(acme.encrypt(every_other)) == b"abc"


@pytest.mark.parametrize("wrong", ["text", None, 7, ["list"], {"a": "b"}])
def test_what_is_not_bytes_is_refused(memory_kms: KMS, wrong: Any) -> None:
    """Text and other types are MalformedInput wherever bytes belong, cold and warm."""
    acme = memory_kms.keys.tenant("acme")
    for _ in range(2):
        with pytest.raises(MalformedInput, match="is bytes, not"):
            acme.encrypt(wrong)
        with pytest.raises(MalformedInput, match="is bytes, not"):
            acme.decrypt(wrong)
        with pytest.raises(MalformedInput, match="is bytes, not"):
            acme.encrypt_many([b"x", wrong])
        with pytest.raises(MalformedInput, match="is bytes, not"):
            acme.decrypt_many([acme.encrypt(b"x"), wrong])


def test_truncated_at_every_length(memory_kms: KMS, chill: Chill) -> None:
    """A shorter message is malformed below 96 bytes, and does not open above."""
    message = memory_kms.keys.encrypt("acme", b"a plaintext of some bytes", ROW)
    memory_kms.keys.decrypt("acme", message, ROW)
    for length in range(len(message)):
        chill()
        expected = MalformedInput if length < OVERHEAD else DecryptionFailed
        assert type(refused(memory_kms, message[:length], ROW)) is expected, length
    assert memory_kms.keys.decrypt("acme", message, ROW) == b"a plaintext of some bytes"


def test_every_bit_flipped(memory_kms: KMS, manual_clock: ManualClock, chill: Chill) -> None:
    """No changed bit opens, and each field gives its error: with a warm cache as with a cold."""
    message = memory_kms.keys.encrypt("acme", b"plaintext", ROW)
    memory_kms.keys.decrypt("acme", message, ROW)
    for offset in range(len(message)):
        for bit in range(8):
            changed = bytearray(message)
            changed[offset] ^= 1 << bit
            chill()
            manual_clock.advance(0.01)
            error = refused(memory_kms, bytes(changed), ROW)
            assert type(error) is region(offset), (offset, bit)


@pytest.mark.parametrize("offset", [20, 35, 36, 67], ids=["salt", "salt", "commit", "commit"])
def test_edited_prefix_is_refused_by_a_reader_that_just_opened_it(
    memory_kms: KMS, offset: int
) -> None:
    """A reader that keeps the subkey of a salt looks at the whole prefix, commitment included."""
    acme = memory_kms.keys.tenant("acme")
    message = acme.encrypt(b"plaintext")
    assert acme.decrypt(message) == b"plaintext"
    changed = bytearray(message)
    changed[offset] ^= 0x80
    for _ in range(2):
        with pytest.raises(DecryptionFailed):
            acme.decrypt(bytes(changed))
        with pytest.raises(DecryptionFailed):
            acme.decrypt_many([message, bytes(changed)])  # also after one with the right prefix
        with pytest.raises(DecryptionFailed):
            acme.decrypt_many([bytes(changed), message])
        assert acme.decrypt(message) == b"plaintext"


@pytest.mark.parametrize("tail", [b"\0", b"\n", b"SK", bytes(16)])
def test_trailing_bytes_do_not_open(memory_kms: KMS, chill: Chill, tail: bytes) -> None:
    """Anything after the tag is refused."""
    message = memory_kms.keys.encrypt("acme", b"plaintext")
    memory_kms.keys.decrypt("acme", message)
    chill()
    assert type(refused(memory_kms, message + tail)) is DecryptionFailed


def test_leading_byte_is_malformed(memory_kms: KMS) -> None:
    """A shifted message does not begin with the magic."""
    message = memory_kms.keys.encrypt("acme", b"plaintext")
    assert "does not begin with 'SK'" in str(refused(memory_kms, b"\n" + message))


@pytest.mark.parametrize(
    ("head", "told"),
    [(b"SK\x00\x01", "format 0"), (b"SK\x02\x01", "format 2"), (b"SK\x01\x02", "suite 2")],
)
def test_unknown_format_and_suite_are_named(memory_kms: KMS, head: bytes, told: str) -> None:
    """A format or suite that this version does not read is named with the one that it reads."""
    message = memory_kms.keys.encrypt("acme", b"plaintext")
    error = refused(memory_kms, head + message[4:])
    assert type(error) is MalformedInput
    assert told in str(error)


def test_other_tenant_does_not_open_it(memory_kms: KMS, chill: Chill) -> None:
    """One tenant's message stays closed to another, whose ring is there and warm."""
    message = memory_kms.keys.encrypt("other", b"plaintext")
    memory_kms.keys.decrypt("other", message)
    memory_kms.keys.encrypt("acme", b"warm")
    chill()
    assert type(refused(memory_kms, message)) is DecryptionFailed


def test_other_rings_message_is_refused_before_its_version(memory_kms: KMS) -> None:
    """A foreign ring id costs no look at the store, whatever version the message names."""
    memory_kms.keys.encrypt("acme", b"warm")
    loads = Spy(memory_kms, "memory", "load_ring")
    foreign = memory_kms.keys.encrypt("other", b"x")
    for number in (0, 1, 2, 77, 2**32 - 1):
        assert type(refused(memory_kms, with_version(foreign, number))) is DecryptionFailed
    assert loads.count == 0


@pytest.mark.parametrize("unwritten", [0, 2, 3, 2**31, 2**32 - 1])
def test_version_that_never_was_is_named(memory_kms: KMS, unwritten: int) -> None:
    """A version that the right ring never had is KeyNotFound and told by number; 0 never is one."""
    message = with_version(memory_kms.keys.encrypt("acme", b"x"), unwritten)
    error = refused(memory_kms, message)
    assert type(error) is KeyNotFound
    assert f"version {unwritten} of tenant 'acme'" in str(error)


def test_unknown_versions_cost_one_look_at_the_store_a_second(
    memory_kms: KMS, manual_clock: ManualClock
) -> None:
    """However many messages name unknown versions, the ring is read once a second at most."""
    message = memory_kms.keys.encrypt("acme", b"x")
    loads = Spy(memory_kms, "memory", "load_ring")
    for second in range(1, 4):
        for number in range(2, 50):
            assert type(refused(memory_kms, with_version(message, number))) is KeyNotFound
            manual_clock.advance(0.01)
        assert loads.count <= second
        manual_clock.advance(0.6)
    assert loads.count >= 2


@pytest.mark.parametrize("state", ["disabled", "scheduled", "destroyed"])
def test_version_that_is_not_enabled_decrypts_nothing(key_site: Site, state: str) -> None:
    """Once the ring is read anew, kept keys and subkeys of such a version are of no use."""
    kms = key_site.open(cache={"ring_ttl": "60s", "key_ttl": "1d"})
    kms.keys.create("acme")
    old = kms.keys.encrypt("acme", b"old")
    kms.keys.rotate("acme")
    new = kms.keys.encrypt("acme", b"new")
    assert kms.keys.decrypt("acme", old) == b"old"
    key_site.set_state(1, state)
    key_site.clock.advance(60)
    for _ in range(2):
        error = refused(kms, old)
        assert type(error) is KeyUnavailable
        assert f"version 1 of tenant 'acme' is {state}" in str(error)
        assert kms.keys.decrypt("acme", new) == b"new"


@pytest.mark.parametrize("state", ["disabled", "scheduled", "destroyed"])
def test_batch_looks_at_the_time_that_its_keys_have(key_site: Site, state: str) -> None:
    """What was changed elsewhere is in force for batches within the ring's TTL, too."""
    kms = key_site.open(cache={"ring_ttl": "60s", "key_ttl": "1d"})
    kms.keys.create("acme")
    messages = kms.keys.encrypt_many("acme", [b"old"] * 300)
    kms.keys.rotate("acme")
    messages += kms.keys.encrypt_many("acme", [b"new"])
    assert kms.keys.decrypt_many("acme", messages) == [b"old"] * 300 + [b"new"]
    key_site.set_state(1, state)
    key_site.clock.advance(60)
    with pytest.raises(KeyUnavailable, match=f"version 1 of tenant 'acme' is {state}"):
        kms.keys.decrypt_many("acme", messages)
    with pytest.raises(KeyUnavailable, match=f"version 1 of tenant 'acme' is {state}"):
        kms.keys.decrypt_many("acme", messages[::-1])
    assert kms.keys.decrypt_many("acme", messages[300:]) == [b"new"]


def test_version_enabled_again_decrypts_again(key_site: Site) -> None:
    """Disabling is undone by enabling, within the ring's TTL."""
    kms = key_site.open()
    kms.keys.create("acme")
    old = kms.keys.encrypt("acme", b"old")
    kms.keys.rotate("acme")
    key_site.set_state(1, "disabled")
    key_site.clock.advance(60)
    assert type(refused(kms, old)) is KeyUnavailable
    key_site.set_state(1, "enabled")
    key_site.clock.advance(60)
    assert kms.keys.decrypt("acme", old) == b"old"


def test_imported_version_opens_no_message(key_site: Site) -> None:
    """A version of origin `imported` decrypts only its own older format."""
    kms = key_site.open()
    kms.keys.create("acme")
    message = kms.keys.encrypt("acme", b"x")
    kms.keys.rotate("acme")
    fields = key_site.payload()
    fields["versions"][0]["origin"] = "imported"
    key_site.forge(fields)
    assert type(refused(key_site.open(), message)) is DecryptionFailed


def test_ring_without_primary_still_decrypts_but_does_not_encrypt(key_site: Site) -> None:
    """Encrypting needs a primary version, and the error says to rotate."""
    kms = key_site.open()
    kms.keys.create("acme")
    message = kms.keys.encrypt("acme", b"x")
    key_site.forge({**key_site.payload(), "primary": None})
    reader = key_site.open()
    assert reader.keys.decrypt("acme", message) == b"x"
    with pytest.raises(KeyUnavailable, match=r"no primary key version: .*rotate"):
        reader.keys.encrypt("acme", b"x")
    assert reader.keys.rotate("acme").primary == 2
    assert version_in(reader.keys.encrypt("acme", b"x")) == 2


CONTEXTS: list[Context] = [
    None,
    b"",
    {},
    b"\x00",
    b"\x02",
    {"": ""},
    {"a": "b"},
    {"a": "b", "c": ""},
    {"b": "a"},
    {"é": "1"},
    {"e\u0301": "1"},
    b"\x00\x00\x00\x01a\x00\x00\x00\x01b",
]


def test_each_context_opens_its_own_message_only(memory_kms: KMS) -> None:
    """None, empty bytes, the empty mapping and all others are different, cold and warm."""
    for sealed in CONTEXTS:
        message = memory_kms.keys.encrypt("acme", b"x", sealed)
        for given in CONTEXTS:
            if given is sealed:
                assert memory_kms.keys.decrypt("acme", message, given) == b"x"
            else:
                assert type(refused(memory_kms, message, given)) is DecryptionFailed
                with pytest.raises(DecryptionFailed):
                    memory_kms.keys.decrypt_many("acme", [message] * 2, [sealed, given])


def test_order_of_a_mapping_does_not_matter(memory_kms: KMS) -> None:
    """A context is what the mapping says, not how it was built."""
    message = memory_kms.keys.encrypt("acme", b"x", ROW)
    assert memory_kms.keys.decrypt("acme", message, dict(reversed(ROW.items()))) == b"x"


BAD_CONTEXTS: dict[str, Any] = {
    "bytes over the bound": bytes(65 * 1024),
    "one byte over": bytes(64 * 1024),
    "mapping over the bound": {"k": "v" * 65 * 1024},
    "text": "context",
    "list": [("a", "b")],
    "number": 7,
    "bytearray": bytearray(b"x"),
    "key not text": {1: "a"},
    "bytes key": {b"a": "a"},
    "value not text": {"a": 1},
    "value None": {"a": None},
    "subclass of str": {"a": type("Text", (str,), {})("b")},
    "surrogate value": {"a": "\ud800"},
    "surrogate key": {"\udfff": "a"},
}


@pytest.mark.parametrize("context", BAD_CONTEXTS.values(), ids=BAD_CONTEXTS)
def test_bad_context_is_malformed_everywhere(memory_kms: KMS, context: Any) -> None:
    """What is no context is refused alike by all four operations, cold and warm."""
    keys = memory_kms.keys
    good = keys.encrypt("acme", b"x")
    for _ in range(2):
        with pytest.raises(MalformedInput):
            keys.encrypt("acme", b"x", context)
        with pytest.raises(MalformedInput):
            keys.decrypt("acme", good, context)
        with pytest.raises(MalformedInput):
            keys.encrypt_many("acme", [b"x", b"y"], [None, context])
        with pytest.raises(MalformedInput):
            keys.decrypt_many("acme", [good, good], [None, context])
        assert keys.decrypt("acme", good) == b"x"


@pytest.mark.parametrize("context", [bytes(64 * 1024 - 1), {"k": "v" * (64 * 1024 - 10)}])
def test_largest_context_is_taken(memory_kms: KMS, context: Context) -> None:
    """64 KiB once encoded is the bound, inclusive."""
    message = memory_kms.keys.encrypt("acme", b"x", context)
    assert memory_kms.keys.decrypt("acme", message, context) == b"x"


def test_refusal_tells_no_reason(memory_kms: KMS) -> None:
    """Tampering, wrong context, wrong commitment and another ring give one text and no cause."""
    message = memory_kms.keys.encrypt("acme", b"x", ROW)
    foreign = memory_kms.keys.encrypt("other", b"x", ROW)
    commitment = message[:40] + bytes([message[40] ^ 1]) + message[41:]
    errors = [
        refused(memory_kms, message[:-1] + bytes([message[-1] ^ 1]), ROW),
        refused(memory_kms, message, {**ROW, "id": "43"}),
        refused(memory_kms, commitment, ROW),
        refused(memory_kms, foreign, ROW),
    ]
    assert {type(error) for error in errors} == {DecryptionFailed}
    assert len({str(error) for error in errors}) == 1
    for error in errors:
        assert error.__cause__ is None
        assert error.__context__ is None
        assert error.subject == "acme"
        assert not error.retryable


def test_warm_messages_ask_nobody(memory_kms: KMS) -> None:
    """Under a cached key no backend is called, for any of the four operations."""
    acme = memory_kms.keys.tenant("acme")
    acme.decrypt(acme.encrypt(b"warm"))
    spies = [Spy(memory_kms, "memory", name) for name in ("load_ring", "unwrap_key", "save_ring")]
    for _ in range(100):
        assert acme.decrypt(acme.encrypt(b"x", ROW), ROW) == b"x"
    assert acme.decrypt_many(acme.encrypt_many([b"x"] * 100)) == [b"x"] * 100
    assert [spy.count for spy in spies] == [0, 0, 0]


def test_handle_looks_nothing_up_before_its_first_message(memory_kms: KMS) -> None:
    """A handle may be made before its tenant exists; each message says that there is none."""
    loads = Spy(memory_kms, "memory", "load_ring")
    late = memory_kms.keys.tenant("late")
    assert loads.count == 0
    with pytest.raises(TenantNotFound, match="'late' has no key ring: create it"):
        late.encrypt(b"x")
    memory_kms.keys.create("late")
    assert late.decrypt(late.encrypt(b"x")) == b"x"


def test_closed_kms_neither_encrypts_nor_decrypts(memory_kms: KMS) -> None:
    """Closing forgets every key, so that even a warm handle is refused; closing twice is fine."""
    acme = memory_kms.keys.tenant("acme")
    message = acme.encrypt(b"x")
    assert acme.decrypt(message) == b"x"
    memory_kms.close()
    memory_kms.close()
    uses: list[Callable[[], object]] = [lambda: acme.encrypt(b"x"), lambda: acme.decrypt(message)]
    for use in uses:
        with pytest.raises(UnsupportedOperation, match="closed"):
            use()


def test_readers_of_one_tenant_open_what_its_writers_seal(key_site: Site) -> None:
    """Another process with the same configuration opens the message; salts need not be shared."""
    writer, reader = key_site.open(), key_site.open()
    writer.keys.create("acme")
    message = writer.keys.encrypt("acme", b"x", ROW)
    assert reader.keys.decrypt("acme", message, ROW) == b"x"
    assert salt_of(reader.keys.encrypt("acme", b"x")) != salt_of(message)
