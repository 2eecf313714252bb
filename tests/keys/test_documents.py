"""Stored rings: every edit is refused, before a KEK is asked, and says what to do."""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from sentra_kms.backends.master_key import MasterKey
from sentra_kms.errors import (
    ConfigurationError,
    RingRejected,
    SecretNotFound,
    ServiceUnavailable,
)
from sentra_kms.keys.document import Authenticator, AuthKey
from sentra_kms.keys.ring import Wrap, decode, encode, first_ring, new_version
from sentra_kms.material import KeyMaterial
from sentra_kms.runtime import KMS
from tests.keys.conftest import WAIT, Crew, Site, Spy, until
from tests.keys.test_cache import waiting_in_a_flight

BOUND = 256 * 1024
ROOM = 1024  # bytes that a new version leaves
HEADER = 96  # bytes before the payload


@pytest.fixture
def made(key_site: Site) -> KMS:
    """A KMS over real files that holds a ring of two versions."""
    kms = key_site.open()
    kms.keys.create("acme")
    kms.keys.rotate("acme")
    return kms


def refused(kms: KMS, tenant: str = "acme") -> str:
    """Return the text with which a tenant's stored ring is refused."""
    with pytest.raises(RingRejected) as caught:
        kms.keys.describe(tenant)
    assert caught.value.subject == tenant
    assert not caught.value.retryable
    return str(caught.value)


@pytest.mark.parametrize("mask", [0x01, 0x20, 0x80])
def test_every_edited_byte_is_refused(key_site: Site, made: KMS, mask: int) -> None:
    """Header or payload, one changed byte anywhere and the ring is not used."""
    document = key_site.document()
    for offset in range(len(document)):
        changed = bytearray(document)
        changed[offset] ^= mask
        key_site.put(bytes(changed))
        assert "'acme' was refused" in refused(made), offset
    key_site.put(document)
    assert made.keys.describe("acme").primary == 2


def test_truncated_at_every_length(key_site: Site, made: KMS) -> None:
    """A ring that was cut, down to an empty file, is refused."""
    document = key_site.document()
    for length in range(len(document)):
        key_site.put(document[:length])
        assert "'acme' was refused" in refused(made), length
    key_site.put(document)
    assert made.keys.describe("acme").primary == 2


@pytest.mark.parametrize(
    "edit",
    [
        lambda document: document + b"\n",
        lambda document: document + b" ",
        lambda document: document + b"\0",
        lambda document: b" " + document,
        lambda document: b"\xef\xbb\xbf" + document,
        lambda document: document.replace(b'"format":1', b'"format": 1'),
        lambda document: document.replace(b"\n", b"\r\n", 1),
        lambda document: document.replace(b"sentra-ring 1 ", b"sentra-ring 1  ", 1),
        lambda document: document[:HEADER].upper() + document[HEADER:],
        lambda document: document + document,
    ],
)
def test_white_space_and_case_count(
    key_site: Site, made: KMS, edit: Callable[[bytes], bytes]
) -> None:
    """The stored bytes are authenticated, not their meaning: an editor's touch is refused."""
    document = key_site.document()
    changed = edit(document)
    assert changed != document
    key_site.put(changed)
    refused(made)


@pytest.mark.parametrize("reader", ["cold", "warm"])
def test_nothing_is_done_with_a_ring_that_is_refused(
    key_site: Site, made: KMS, reader: str
) -> None:
    """No operation uses, mends or overwrites it, and no KEK is asked for it."""
    message = made.keys.encrypt("acme", b"x")
    document = key_site.document()
    changed = document.replace(b'"primary":2', b'"primary":1')
    assert changed != document
    key_site.put(changed)
    kms = key_site.open() if reader == "cold" else made
    key_site.clock.advance(60)
    spies = [Spy(kms, "local", name) for name in ("wrap_key", "unwrap_key", "save_ring")]
    uses: list[Callable[[], object]] = [
        lambda: kms.keys.encrypt("acme", b"x"),
        lambda: kms.keys.decrypt("acme", message),
        lambda: kms.keys.encrypt_many("acme", [b"x"]),
        lambda: kms.keys.rotate("acme"),
        lambda: kms.keys.rotate("acme", request_id="r"),
        lambda: kms.keys.rewrap("acme"),
        lambda: kms.keys.describe("acme"),
        lambda: kms.keys.create("acme", exist_ok=True),
    ]
    for use in uses:
        with pytest.raises(RingRejected, match="its MAC is wrong"):
            use()
    assert [spy.count for spy in spies[1:]] == [0, 0]
    assert key_site.document() == changed
    key_site.put(document)
    assert kms.keys.decrypt("acme", message) == b"x"


def test_another_tenants_ring_copied_in_is_refused(key_site: Site, made: KMS) -> None:
    """The MAC belongs to the tenant that is asked for; the original stays good."""
    made.keys.create("victim")
    key_site.put(key_site.document("acme"), "victim")
    assert "another tenant's" in refused(made, "victim")
    assert "another tenant's" in refused(key_site.open(), "victim")
    assert made.keys.describe("acme").primary == 2


def test_signed_ring_that_names_another_tenant_is_refused(key_site: Site, made: KMS) -> None:
    """A right MAC for one tenant over a payload of another does not help either."""
    made.keys.create("victim")
    payload = key_site.document("acme")[HEADER:]
    key_site.put(key_site.sign(payload, "victim"), "victim")
    assert "ring of another tenant" in refused(key_site.open(), "victim")


@pytest.mark.parametrize("number", [0, 2, 10, 999999999])
def test_unknown_header_format_says_to_upgrade(key_site: Site, made: KMS, number: int) -> None:
    """A ring of another header format is told from a damaged one."""
    document = key_site.document()
    key_site.put(document.replace(b"sentra-ring 1 ", f"sentra-ring {number} ".encode(), 1))
    text = refused(made)
    assert f"its format is {number}, this version reads 1" in text
    assert "upgrade" in text


@pytest.mark.parametrize("number", [0, 2, 99])
def test_unknown_payload_format_is_told_though_its_fields_are_new(
    key_site: Site, made: KMS, number: int
) -> None:
    """An authentic payload of another format is refused for that, not for the fields it has."""
    payload = {**key_site.payload(), "format": number, "sequence": 3, "news": True}
    key_site.put(key_site.sign(json.dumps(payload).encode()))
    assert "format is not 1" in refused(made)


@pytest.mark.parametrize("space", [b"", b" "])
@pytest.mark.parametrize("value", [b'"\xdc"', b'{"\xff": 1}', b'"\xed\xa0\x80"', b'"\\ud800"'])
def test_extension_that_is_no_text_is_refused(
    key_site: Site, made: KMS, value: bytes, space: bytes
) -> None:
    """A payload is UTF-8 to its end, although nobody reads what its extensions hold."""
    payload = key_site.document().partition(b"\n")[2]
    changed = payload.replace(b'"extensions":{}', b'"extensions":{"x-n":' + space + value + b"}")
    key_site.put(key_site.sign(changed))
    with pytest.raises(RingRejected, match="is not valid") as caught:
        made.keys.describe("acme")
    assert caught.value.__context__ is None


@pytest.mark.parametrize("space", [b"", b" "])
@pytest.mark.parametrize("value", [b"1e999", b"-1e999", b"9" * 400, b"1" * 5000, b"1.0", b"-0"])
def test_extension_may_hold_any_number(
    key_site: Site, made: KMS, value: bytes, space: bytes
) -> None:
    """A number that no type of ours could hold is kept as it is, with white space around or not."""
    payload = key_site.document().partition(b"\n")[2].replace(b'"sequence":2', b'"sequence":3')
    changed = payload.replace(b'"extensions":{}', b'"extensions":{"x-n":' + space + value + b"}")
    key_site.put(key_site.sign(changed))
    assert made.keys.rotate("acme").primary == 3
    assert b'"extensions":{"x-n":' + value + b"}" in key_site.document()


def test_files_that_are_no_ring_are_refused(key_site: Site, made: KMS) -> None:
    """Text, JSON alone, and binary files under a ring's name are told apart from rings."""
    payload = key_site.document()[HEADER:]
    for content in (b"", b"notes\n", payload, bytes(range(256)), b"sentra-ring"):
        key_site.put(content)
        assert "does not begin like a ring" in refused(made)


def test_ring_authenticated_by_another_master_key_names_both(key_site: Site, made: KMS) -> None:
    """The ring's auth id, the configured one, its KEK and that master key's id are in the text."""
    theirs = key_site.document()[14:30].decode()
    other = key_site.open("local:m2")
    text = refused(other)
    mine = key_site.auth_key("m2").auth_id
    key_id = MasterKey(KeyMaterial(key_site.secret("m2"))).key_id
    assert theirs != mine
    for told in (theirs, mine, "local:m2", f"master key id {key_id}", "another master key?"):
        assert told in text
    assert "authenticate_with" in text


def test_ring_names_every_configured_authentication_key(key_site: Site, made: KMS) -> None:
    """With several keys configured all of them are told, references by their text."""
    reference = key_site.reference("auth")
    text = refused(key_site.open("local:m2", authenticate_with=(reference, "local:m2")))
    secret = KeyMaterial(base64.b64decode(key_site.secret("auth")))
    for told in (
        reference,
        AuthKey("", secret).auth_id,
        "local:m2",
        key_site.auth_key("m2").auth_id,
    ):
        assert told in text
    assert key_site.secret("auth").decode() not in text


# --- bounds -----------------------------------------------------------------------------------


def with_wraps(fields: dict[str, Any], count: int) -> dict[str, Any]:
    """Return a ring whose second version has `count` wraps, the first of them the real one."""
    version = fields["versions"][1]
    (real,) = version["wraps"]
    version["wraps"] = [{**real, "kek": f"local:k{n}" if n else real["kek"]} for n in range(count)]
    return fields


def test_seventeen_wraps_are_refused_and_sixteen_are_not(key_site: Site, made: KMS) -> None:
    """Somebody with the authentication key cannot make us ask KEKs without end."""
    key_site.forge(with_wraps(key_site.payload(), 16))
    assert len(made.keys.describe("acme").versions[1].wraps) == 16
    fields = key_site.payload()
    wraps = fields["versions"][1]["wraps"]
    wraps.append({**wraps[0], "kek": "local:k16"})
    key_site.forge(fields)
    assert "17 wraps" in refused(key_site.open())


def test_seventeen_keks_are_refused_by_the_configuration(key_site: Site) -> None:
    """The bound holds for what we would write, too."""
    with pytest.raises(ConfigurationError, match="wrap_with"):
        key_site.open(*(f"local:k{number}" for number in range(17)))
    kms = key_site.open(*(f"local:k{number}" for number in range(16)))
    assert len(kms.keys.create("acme").versions[0].wraps) == 16


def padded(site: Site, size: int) -> None:
    """Store acme's ring with an extension that makes its document `size` bytes long."""
    fields = {**site.payload(), "extensions": {"x-pad": ""}}
    site.forge(fields)
    fields["extensions"]["x-pad"] = "." * (size - len(site.document()))
    site.forge(fields)
    assert len(site.document()) == size


def test_full_ring_is_left_as_it_is_and_stays_usable(key_site: Site, made: KMS) -> None:
    """A version too many is refused unwritten; messages go on, old and new."""
    message = made.keys.encrypt("acme", b"x")
    padded(key_site, BOUND)
    before = key_site.document()
    kms = key_site.open()
    uses: list[Callable[[], object]] = [
        lambda: kms.keys.rotate("acme"),
        lambda: kms.keys.rotate("acme", request_id="r"),
        lambda: key_site.open("local:m1", "local:m2").keys.rewrap("acme"),
    ]
    for use in uses:
        with pytest.raises(RingRejected, match="full") as caught:
            use()
        assert "was not saved" in str(caught.value)
        assert caught.value.subject == "acme"
    assert key_site.document() == before
    assert [path.name for path in key_site.directory.iterdir() if path.suffix == ".tmp"] == []
    assert kms.keys.decrypt("acme", message) == b"x"
    assert kms.keys.decrypt("acme", kms.keys.encrypt("acme", b"y")) == b"y"
    assert kms.keys.describe("acme").primary == 2


def test_full_is_exact_to_the_byte(key_site: Site, made: KMS) -> None:
    """A rotation whose document leaves just 1 KiB of its 256 is saved."""
    padded(key_site, 200_000)
    before = len(key_site.document())
    key_site.open().keys.rotate("acme")
    grown = len(key_site.document()) - before
    padded(key_site, BOUND - ROOM - grown)
    assert key_site.open().keys.rotate("acme").primary == 4
    assert len(key_site.document()) == BOUND - ROOM
    padded(key_site, BOUND - ROOM - grown + 1)
    with pytest.raises(RingRejected, match="full"):
        key_site.open().keys.rotate("acme")


def test_versions_of_a_full_ring_change_their_states(key_site: Site, made: KMS) -> None:
    """There is room for that, by which there comes to be room for new versions again."""
    kms = key_site.open()
    for _ in range(3):
        kms.keys.rotate("acme")
    padded(key_site, BOUND - ROOM)
    with pytest.raises(RingRejected, match=r"full.*Destroy versions that nothing needs"):
        kms.keys.rotate("acme")
    kms.keys.disable("acme", 1)
    for number in (1, 2, 3, 4):
        kms.keys.schedule_destroy("acme", number, after=timedelta(0))
    kms.keys._clock = lambda: time.time() + 10
    assert [each.versions for each in kms.keys.destroy_due().destroyed] == [(1, 2, 3, 4)]
    assert kms.keys.rotate("acme").primary == 6


def test_nothing_is_saved_past_the_bound(key_site: Site, made: KMS) -> None:
    """Not even what takes up the room that is left for it."""
    kms = key_site.open()
    padded(key_site, BOUND - 1)
    before = key_site.document()
    with pytest.raises(RingRejected, match=f"full.*{BOUND} bytes"):
        kms.keys.schedule_destroy("acme", 1, after=timedelta(0))
    assert key_site.document() == before


@pytest.mark.parametrize("over", [1, 1024 * 1024])
def test_stored_ring_over_the_bound_is_refused(key_site: Site, made: KMS, over: int) -> None:
    """A larger file, rightly signed, is not read as a ring."""
    padded(key_site, BOUND)
    payload = key_site.document()[HEADER:] + b" " * over
    key_site.put(key_site.sign(payload))
    with pytest.raises(RingRejected, match=r"larger than any ring \(262144 bytes\)"):
        key_site.open().keys.describe("acme")


def test_bound_holds_for_any_store(key_site: Site) -> None:
    """What a store without a bound of its own returns is refused by its size, before its MAC."""
    authenticator = Authenticator([key_site.auth_key])
    most = key_site.sign(b" " * (BOUND - HEADER))
    assert len(most) == BOUND
    assert authenticator.verify("acme", most) == most[HEADER:]
    with pytest.raises(RingRejected, match="larger than any ring"):
        authenticator.verify("acme", key_site.sign(b" " * (BOUND - HEADER + 1)))


@pytest.mark.no_cover
def test_rotating_until_full_loses_no_version(memory_kms: KMS) -> None:
    """Under one local KEK a ring holds some 690 versions, and the first still opens then."""
    message = memory_kms.keys.encrypt("acme", b"x")

    def rotate_until_full() -> None:
        for _ in range(1000):
            memory_kms.keys.rotate("acme")

    with pytest.raises(RingRejected, match="full"):
        rotate_until_full()
    info = memory_kms.keys.describe("acme")
    assert 650 <= len(info.versions) <= 730
    assert info.primary == len(info.versions)
    assert memory_kms.keys.decrypt("acme", message) == b"x"
    assert memory_kms.keys.decrypt("acme", memory_kms.keys.encrypt("acme", b"y")) == b"y"


# --- signed by a writer that is not ours -----------------------------------------------------

EXTENSIONS = {
    "number beyond a double": b"1e999",
    "integer of 5,000 digits": b"9" * 5000,
    "tiny fraction": b"1e-999",
    "200 levels": b"[" * 200 + b"]" * 200,
    "a name twice": b'{"a":1,"a":2}',
    "white space": b'{ "a" :\t[ 1 ,\n2 ] }',
}


@pytest.mark.parametrize("spaced", [False, True], ids=["as we write", "spaced"])
@pytest.mark.parametrize("value", EXTENSIONS.values(), ids=EXTENSIONS)
def test_any_json_in_an_extension_is_kept_as_it_is(
    key_site: Site,
    made: KMS,
    value: bytes,
    spaced: bool,  # noqa: FBT001 - a case
) -> None:
    """What a later version wrote is not looked into, whatever Python could make of it."""
    put_extension(key_site, value, spaced=spaced)
    kms = key_site.open()
    assert kms.keys.rotate("acme").primary == 3
    assert b'"extensions":{"x-later":' + value + b"}" in key_site.document()
    assert key_site.open().keys.describe("acme").primary == 3


@pytest.mark.parametrize("spaced", [False, True], ids=["as we write", "spaced"])
@pytest.mark.parametrize("value", [b'"\xff"', b'"\xed\xa0\x80"', b'"\\ud800"', b"[" * 5000, b"NaN"])
def test_extension_that_is_no_json_is_refused(
    key_site: Site,
    made: KMS,
    value: bytes,
    spaced: bool,  # noqa: FBT001 - a case
) -> None:
    """Not in UTF-8, or nested without end: one of our errors, and nothing is saved."""
    put_extension(key_site, value, spaced=spaced)
    before = key_site.document()
    assert "not valid" in refused(key_site.open())
    with pytest.raises(RingRejected):
        key_site.open().keys.rotate("acme")
    assert key_site.document() == before


def put_extension(site: Site, value: bytes, *, spaced: bool) -> None:
    """Store acme's ring, rightly signed and one save on, with this in an extension."""
    fields = site.payload()
    fields |= {"sequence": fields["sequence"] + 1, "extensions": {"x-later": 0}}
    payload = json.dumps(fields, separators=(", ", ": ") if spaced else (",", ":")).encode()
    site.put(site.sign(payload.replace(b"0}}", value + b"}}")))


# --- rollback ---------------------------------------------------------------------------------


def test_rolled_back_store_is_refused_by_a_process_that_saw_more(key_site: Site, made: KMS) -> None:
    """An older ring, rightly signed, is refused once this process has seen a newer one."""
    old = key_site.document()
    message = made.keys.encrypt("acme", b"x")
    made.keys.rotate("acme")
    key_site.put(old)
    assert "sequence 2" in refused(made)
    assert "rolled back" in refused(made)
    uses: list[Callable[[], object]] = [
        lambda: made.keys.rotate("acme"),
        lambda: made.keys.rewrap("acme"),
        lambda: made.keys.create("acme", exist_ok=True),
    ]
    for use in uses:
        with pytest.raises(RingRejected, match="rolled back"):
            use()
    assert key_site.document() == old
    key_site.clock.advance(60)
    with pytest.raises(RingRejected, match="rolled back"):
        made.keys.decrypt("acme", message)


def test_rollback_is_found_by_a_reader_that_only_read(key_site: Site, made: KMS) -> None:
    """Not only saves count: what was read is remembered too."""
    old = key_site.document()
    made.keys.rotate("acme")
    reader = key_site.open()
    assert reader.keys.describe("acme").sequence == 3
    key_site.put(old)
    assert "has seen 3" in refused(reader)


def test_another_ring_of_the_same_sequence_is_refused(key_site: Site, made: KMS) -> None:
    """Two histories that split, as after a restore, are told apart at equal sequence."""
    start = key_site.document()
    watcher = key_site.open()
    made.keys.rotate("acme")
    assert watcher.keys.describe("acme").sequence == 3
    key_site.put(start)
    key_site.open().keys.rotate("acme")
    text = refused(watcher)
    assert "sequence 3" in text
    assert "another 3" in text


def test_same_ring_read_again_is_no_rollback(key_site: Site, made: KMS) -> None:
    """Reading, saving and reading what was saved raise nothing."""
    for _ in range(3):
        assert made.keys.describe("acme") == made.keys.describe("acme")
        made.keys.rotate("acme")
    assert made.keys.describe("acme").sequence == 5


def test_rollback_is_counted_per_tenant(key_site: Site, made: KMS) -> None:
    """A tenant with a short history is not held to another's."""
    for _ in range(3):
        made.keys.rotate("acme")
    assert made.keys.create("other").sequence == 1
    assert made.keys.describe("other").sequence == 1


# --- authenticate_with ------------------------------------------------------------------------


def test_rings_authenticated_by_a_key_of_their_own(key_site: Site) -> None:
    """With a reference configured, the master key's own authentication key is of no use."""
    auth = (key_site.reference("auth"),)
    kms = key_site.open(authenticate_with=auth)
    kms.keys.create("acme")
    secret = KeyMaterial(base64.b64decode(key_site.secret("auth")))
    assert key_site.document()[14:30].decode() == AuthKey("", secret).auth_id
    assert key_site.open(authenticate_with=auth).keys.describe("acme").primary == 1
    assert "authenticated by a key with id" in refused(key_site.open())
    key_site.forge(key_site.payload())  # whoever has the KEK only
    assert "authenticated by a key with id" in refused(kms)


def test_first_key_signs_and_any_verifies(key_site: Site) -> None:
    """A ring of any configured key is read; what is saved carries the first one's id."""
    one, two = key_site.reference("a1"), key_site.reference("a2")
    key_site.open(authenticate_with=(one,)).keys.create("acme")
    first = key_site.document()[14:30]
    both = key_site.open(authenticate_with=(two, one))
    assert both.keys.describe("acme").primary == 1
    assert key_site.document()[14:30] == first
    both.keys.rotate("acme")
    second = key_site.document()[14:30]
    assert second != first
    assert key_site.open(authenticate_with=(one, two)).keys.describe("acme").primary == 2
    assert key_site.open(authenticate_with=(two,)).keys.describe("acme").primary == 2
    refused(key_site.open(authenticate_with=(one,)))


def test_rewrap_signs_anew_after_the_authentication_key_changed(key_site: Site) -> None:
    """Though no wrap changes, the ring is saved once under the first key; then not again."""
    one, two = key_site.reference("a1"), key_site.reference("a2")
    old = key_site.open(authenticate_with=(one,))
    old.keys.create("acme")
    message = old.keys.encrypt("acme", b"x")
    wraps = key_site.payload()["versions"]
    between = key_site.open(authenticate_with=(two, one))
    assert between.keys.rewrap("acme").sequence == 2
    assert key_site.payload()["versions"] == wraps
    assert between.keys.rewrap("acme").sequence == 2
    (key_site.home / "a1.secret").unlink()
    new = key_site.open(authenticate_with=(two,))
    assert new.keys.decrypt("acme", message) == b"x"
    with pytest.raises(RingRejected):
        old.keys.describe("acme")


def test_key_that_cannot_be_fetched_does_not_count_as_another_key(key_site: Site) -> None:
    """If the missing key may be the right one, its own error is told and not a foreign ring."""
    one, two = key_site.reference("a1"), key_site.reference("a2")
    key_site.open(authenticate_with=(two,)).keys.create("acme")
    (key_site.home / "a2.secret").unlink()
    with pytest.raises(SecretNotFound, match="a2"):
        key_site.open(authenticate_with=(one, two)).keys.describe("acme")


def test_missing_later_key_does_not_stop_what_the_first_verifies(key_site: Site) -> None:
    """Keys are fetched in order and only as far as needed."""
    one, two = key_site.reference("a1"), key_site.reference("a2")
    (key_site.home / "a2.secret").unlink()
    kms = key_site.open(authenticate_with=(one, two))
    kms.keys.create("acme")
    assert kms.keys.rotate("acme").primary == 2


def test_signing_key_out_of_reach_does_not_stop_readers(key_site: Site) -> None:
    """What another key signed is read and used; only what must be signed waits for the first."""
    one, two = key_site.reference("a1"), key_site.reference("a2")
    writer = key_site.open(authenticate_with=(one,))
    writer.keys.create("acme")
    writer.keys.create("other")
    message = writer.keys.encrypt("acme", b"x")
    (key_site.home / "a2.secret").unlink()
    kms = key_site.open(authenticate_with=(two, one))
    fetches = Spy(kms, "file", "fetch_secret")
    assert kms.keys.decrypt("acme", message) == b"x"
    assert kms.keys.decrypt("acme", kms.keys.encrypt("acme", b"y")) == b"y"
    assert kms.keys.describe("acme").primary == 1
    for change in (kms.keys.rotate, kms.keys.rewrap):
        with pytest.raises(SecretNotFound, match="a2"):
            change("acme")
    # A key that is at hand and fits is taken at once: nobody waits for the other again.
    before = fetches.count
    assert kms.keys.describe("acme") == writer.keys.describe("acme")
    kms.keys.encrypt("other", b"x")
    assert [call[0].reference for call in fetches.calls[before:]] == []


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"short",
        base64.b64encode(bytes(31)),
        base64.b64encode(bytes(33)),
        base64.urlsafe_b64encode(b"\xff" * 32),
        base64.b64encode(bytes(32)).rstrip(b"="),
        base64.b64encode(bytes(32)) + b"\n\n",
        b" " + base64.b64encode(bytes(32)),
        b"00" * 32,
        bytes(32),
    ],
)
def test_authentication_key_that_is_not_base64_of_32_bytes(key_site: Site, content: bytes) -> None:
    """It is refused, saying what it must be and not what it is; nothing is made."""
    reference = key_site.reference("auth")
    (key_site.home / "auth.secret").write_bytes(content)
    kms = key_site.open(authenticate_with=(reference,))
    with pytest.raises(ConfigurationError, match="standard base64 of exactly 32 bytes") as caught:
        kms.keys.create("acme")
    assert reference in str(caught.value)
    if content:
        assert content.decode("latin-1") not in str(caught.value)
    assert not key_site.directory.exists()


@pytest.mark.parametrize("ending", [b"\n", b"\r\n"])
def test_one_trailing_newline_of_an_authentication_key_is_dropped(
    key_site: Site, ending: bytes
) -> None:
    """A key saved by an editor is the key without the newline."""
    auth = (key_site.reference("auth"),)
    key_site.open(authenticate_with=auth).keys.create("acme")
    path = key_site.home / "auth.secret"
    path.write_bytes(path.read_bytes() + ending)
    assert key_site.open(authenticate_with=auth).keys.describe("acme").primary == 1


SPACING = {"written by us": b"", "with white space": b" "}


def extended(site: Site, value: bytes, space: bytes) -> bytes:
    """Store acme's ring, rightly signed, with an extension of these bytes; return its payload."""
    fields = {**site.payload(), "sequence": site.payload()["sequence"] + 1}
    text = json.dumps(fields, separators=(",", ":")).encode("ascii")
    assert text.count(b'"extensions":{}') == 1
    payload = text.replace(b'"extensions":{}', b'"extensions":' + space + b'{"x-a":' + value + b"}")
    site.put(site.sign(payload))
    return payload


@pytest.mark.parametrize("space", SPACING.values(), ids=SPACING)
@pytest.mark.parametrize(
    "value",
    [b'"\xe9"', b'"\xed\xa0\x80"', b'{"\xff":1}', rb'"\ud800"', rb'{"\udc00":1}', b'"\x01"', b"01"],
    ids=ascii,
)
def test_value_of_an_extension_that_is_no_json_is_refused(
    key_site: Site, made: KMS, value: bytes, space: bytes
) -> None:
    """Bytes that no reader of JSON takes are RingRejected, however the payload is spaced."""
    extended(key_site, value, space)
    assert "stored ring of 'acme' is not valid" in refused(made)
    with pytest.raises(RingRejected):
        made.keys.rotate("acme")


@pytest.mark.parametrize("space", SPACING.values(), ids=SPACING)
@pytest.mark.parametrize("value", [b"1e999", b"-1E-999", b"1.50", b"9" * 400, b'{"a":1,"a":2}'])
def test_extension_is_kept_as_it_was_written(
    key_site: Site, made: KMS, value: bytes, space: bytes
) -> None:
    """Numbers that no machine holds are JSON: they are neither refused nor changed by a save."""
    extended(key_site, value, space)
    assert made.keys.rotate("acme").primary == 3
    assert b'"extensions":{"x-a":' + value + b"}" in key_site.document()


# --- authentication keys that are out of reach ------------------------------------------------


def test_key_out_of_reach_is_asked_for_once_by_all_who_wait() -> None:
    """Readers of many rings wait for one attempt together, and not for one after the other."""
    release = threading.Event()
    asked: list[int] = []

    def fetch() -> AuthKey:
        asked.append(1)
        assert release.wait(WAIT)
        raise ServiceUnavailable("no answer")

    authenticator = Authenticator([fetch])
    document = f"sentra-ring 1 {'0' * 16} {'0' * 64}\n{{}}".encode("ascii")
    crew = Crew(lambda index: authenticator.verify(f"t{index}", document), 10)
    until(lambda: waiting_in_a_flight(crew.threads) == 9 or len(asked) > 1)
    release.set()
    outcomes = crew.join()
    assert {type(outcome) for outcome in outcomes} == {ServiceUnavailable}
    assert len(asked) == 1


def test_keys_are_forgotten_while_one_is_fetched() -> None:
    """Who closes from a signal handler, in the thread that fetches, does not wait for itself."""
    material = KeyMaterial(bytes(32))

    def fetch() -> AuthKey:
        crew = Crew(lambda _: authenticator.clear(), 1)  # as a handler would, were it one thread
        assert crew.join() == [None]
        return AuthKey("key", material)

    authenticator = Authenticator([fetch])
    assert authenticator.signer().label == "key"
    assert not authenticator._keys


# --- what the types of a ring do not hold


def _payload(place: str, value: object) -> bytes:
    """Return a good ring's payload with one field, of it or its version, replaced."""
    wraps = (Wrap("local:k", "id", None, b"wrap"),)
    version = new_version(1, 0.0, bytes(32), wraps, None)
    fields = json.loads(encode(first_ring("acme", bytes(12), "default", version)))
    holder = fields
    *way, last = place.split(".")
    for step in way:
        holder = holder[int(step)] if step.isdigit() else holder[step]
    holder[last] = value
    return json.dumps(fields).encode()


@pytest.mark.parametrize("kek", ["local:k", "a:b:c", "vault-eu+1.x: ", "a:\n"])
def test_names_of_keks_and_backends_are_read(kek: str) -> None:
    """Whatever stands behind the first colon names the key."""
    assert decode(_payload("versions.0.wraps.0.kek", kek), "acme").versions[0].wraps[0].kek == kek
    assert decode(_payload("versions.0.missing", [kek]), "acme").versions[0].missing == (kek,)
    assert (
        decode(_payload("moved_to", kek.split(":", maxsplit=1)[0]), "acme").moved_to
        == kek.split(":", maxsplit=1)[0]
    )


@pytest.mark.parametrize("kek", ["", "local", "local:", ":k", "Local:k", "2:k", "lo cal:k", "ß:k"])
def test_what_is_no_kek_is_refused(kek: str) -> None:
    """In a wrap and among those missing alike."""
    for place, value in (("versions.0.wraps.0.kek", kek), ("versions.0.missing", [kek])):
        with pytest.raises(RingRejected, match="names a KEK that is not written BACKEND:KEY"):
            decode(_payload(place, value), "acme")


@pytest.mark.parametrize("name", ["", "Local", "local:k", "-a", "a\n", "a/b"])
def test_mark_of_a_move_names_a_backend(name: str) -> None:
    """A name that no backend can have is refused."""
    with pytest.raises(RingRejected, match="no backend's name"):
        decode(_payload("moved_to", name), "acme")


@pytest.mark.parametrize(
    "time",
    [
        "2024-01-01T00:00:00+00:00",
        "2024-01-01T00:00:00",
        "2024-01-01T00:00:00.5Z",
        "2024-01-01T00:00:00.123456Z",
        "2024-01-01 00:00:00Z",
        "2024-01-01t00:00:00Z",
        "2024-01-01T00:00:00z",
        "2024-01-01T00:00Z",
        "20240101T000000Z",
        "2024-W01-1T00:00:00Z",
        "2024-02-30T00:00:00Z",
        "2024-01-01T24:00:00Z",
        "2024-01-01T00:00:60Z",
        "2024-01-01T00:00:00ZZ",
        "2024-01-01T00:00:00Z\n",
        "",
    ],
)
def test_time_written_in_any_other_way_is_refused(time: str) -> None:
    """RFC 3339 to the second, in UTC with a Z, and nothing else that Python reads."""
    with pytest.raises(RingRejected, match="a time that is no date and time, ending in Z"):
        decode(_payload("versions.0.created", time), "acme")


def test_header_whose_mac_is_of_another_length_is_none(key_site: Site, made: KMS) -> None:
    """Two fields of wrong lengths that add up to a right header are no header."""
    document = key_site.document()
    shifted = document[:29] + b" " + document[29:30] + document[31:]
    assert len(shifted) == len(document)
    key_site.put(shifted)
    assert "does not begin like a ring" in refused(key_site.open())
