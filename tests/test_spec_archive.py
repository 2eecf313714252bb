"""Backups and receipts: the package and the independent reader are held to the same vectors."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from sentra_kms import errors
from sentra_kms.keys.backup_file import Record, read_records, write_records
from sentra_kms.keys.document import Authenticator, AuthKey
from sentra_kms.keys.receipt import verify_receipt
from sentra_kms.material import KeyMaterial
from tests.reader import reader
from tests.vectors.backups import joined
from tests.vectors.load import ids, vectors

BACKUPS = vectors("backup")
RECEIPTS = vectors("receipt")
SPEC = Path(__file__).parent.parent / "docs" / "spec"
KEYS = [bytes.fromhex(key) for key in BACKUPS["auth_keys"].values()]


def authenticator(keys: list[bytes] = KEYS) -> Authenticator:
    """An authenticator of raw keys."""
    made = [AuthKey(f"key {number}", KeyMaterial(key)) for number, key in enumerate(keys)]
    return Authenticator([lambda key=key: key for key in made])  # type: ignore[misc]


def expect(error: str, *, of_reader: bool = False) -> Any:
    """Expect the error of exactly this name."""
    if of_reader:
        return pytest.raises(getattr(reader, error))
    return pytest.raises(getattr(errors, error), check=lambda found: type(found).__name__ == error)


def read(data: bytes, keys: list[bytes] = KEYS) -> list[Record]:
    """Read a whole backup."""
    return list(read_records(io.BytesIO(data), authenticator(keys)))


# --- backups ----------------------------------------------------------------------------------


@pytest.mark.parametrize("vector", BACKUPS["valid"], ids=ids)
def test_backup_is_read(vector: dict[str, Any]) -> None:
    """A valid backup has these tenants at these sequences, for package and reader alike."""
    data = joined(vector["file"])
    records = read(data)
    others = reader.open_backup(data, KEYS)
    assert [record.ring.tenant for record in records] == vector["tenants"]
    assert [record.ring.sequence for record in records] == vector["sequences"]
    assert {record.time for record in records} == {vector["time"]}
    assert {record.backup_id.hex() for record in records} == {vector["backup_id"]}
    assert [other.document for other in others] == [record.document for record in records]
    assert [other.ring.tenant for other in others] == vector["tenants"]


@pytest.mark.parametrize("vector", BACKUPS["invalid"], ids=ids)
def test_invalid_backup_is_refused(vector: dict[str, Any]) -> None:
    """An invalid backup is refused with this error, by package and reader alike."""
    data = joined(vector["file"])
    with expect(vector["error"], of_reader=True):
        reader.open_backup(data, KEYS)
    with expect(vector["error"]):
        read(data)


WRITABLE = [vector for vector in BACKUPS["valid"] if vector["id"] != "two-keys"]  # by two writers


@pytest.mark.parametrize("vector", WRITABLE, ids=ids)
def test_backup_is_written(vector: dict[str, Any]) -> None:
    """The package writes the bytes of a vector from what is in it."""
    data = joined(vector["file"])
    key = KEYS[1] if vector["id"] == "own-key" else KEYS[0]
    documents = [(record.ring.tenant, record.document) for record in read(data)]
    stream = io.BytesIO()
    made = AuthKey("", KeyMaterial(key))
    backup_id = bytes.fromhex(vector["backup_id"])
    assert write_records(stream, made, backup_id, vector["time"], documents) == len(documents)
    assert stream.getvalue() == data


def test_a_backup_of_nothing_is_no_file() -> None:
    """Without a ring nothing is written, since nothing could be verified of it."""
    stream = io.BytesIO()
    assert write_records(stream, AuthKey("", KeyMaterial(KEYS[0])), bytes(16), 0, []) == 0
    assert stream.getvalue() == b""


def three() -> bytes:
    """A backup of three tenants."""
    return joined(next(v for v in BACKUPS["valid"] if v["id"] == "case")["file"])


@pytest.mark.parametrize("mask", [0x01, 0x80])
def test_every_edited_byte_of_a_backup_is_refused(mask: int) -> None:
    """One changed byte anywhere, and the file is refused by an error of ours."""
    data = three()
    for offset in range(len(data)):
        changed = bytearray(data)
        changed[offset] ^= mask
        with pytest.raises((errors.MalformedInput, errors.RingRejected)):
            read(bytes(changed))


def test_a_backup_cut_at_any_place_is_refused() -> None:
    """Also between two records, where each that is left is whole."""
    data = three()
    for length in range(len(data)):
        with pytest.raises(errors.MalformedInput):
            read(data[:length])


def test_nothing_is_read_of_a_length_out_of_bounds() -> None:
    """A length of gigabytes is refused before so much is asked for."""
    asked: list[int] = []

    class Counting(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            asked.append(size or 0)
            return super().read(size)

    for name in ("tenant-length", "ring-length"):
        vector = next(v for v in BACKUPS["invalid"] if v["id"] == name)
        with pytest.raises(errors.MalformedInput, match="4294967295 bytes"):
            list(read_records(Counting(joined(vector["file"])), authenticator()))
    assert 0 < max(asked) <= 120


def test_an_unknown_key_is_named_with_those_that_are_configured() -> None:
    """The error has both ids, and says what to add where."""
    vector = next(v for v in BACKUPS["invalid"] if v["id"] == "auth-id")
    data = joined(vector["file"])
    with pytest.raises(errors.RingRejected) as caught:
        read(data)
    assert data[33:41].hex() in caught.value.message
    for key in KEYS:
        assert reader.auth_id(key).hex() in caught.value.message
    assert "authenticate_with" in caught.value.message
    assert "the backup's record of 'acme'" in caught.value.message


def test_memory_is_for_one_record() -> None:
    """Records are yielded one by one, each before the next is read."""
    data = three()
    stream = io.BytesIO(data)
    records = read_records(stream, authenticator())
    next(records)
    assert stream.tell() < len(data) / 2


# --- receipts ---------------------------------------------------------------------------------


@pytest.mark.parametrize("vector", RECEIPTS["valid"], ids=ids)
def test_receipt_is_read(vector: dict[str, Any]) -> None:
    """A valid receipt says these things, for package and reader alike."""
    data = joined(vector["file"])
    found = verify_receipt(authenticator(), data)
    assert json.loads(msgspec.json.encode(found)) == vector["fields"]
    assert reader.open_receipt(data, KEYS) == vector["fields"]


@pytest.mark.parametrize("vector", RECEIPTS["invalid"], ids=ids)
def test_invalid_receipt_is_refused(vector: dict[str, Any]) -> None:
    """An invalid receipt is refused with this error, by package and reader alike."""
    data = joined(vector["file"])
    with expect(vector["error"], of_reader=True):
        reader.open_receipt(data, KEYS)
    with expect(vector["error"]):
        verify_receipt(authenticator(), data)


@pytest.mark.parametrize("mask", [0x01, 0x20, 0x80])
def test_every_edited_byte_of_a_receipt_is_refused(mask: int) -> None:
    """One changed byte anywhere, and it proves nothing."""
    data = joined(RECEIPTS["valid"][0]["file"])
    for offset in range(len(data)):
        changed = bytearray(data)
        changed[offset] ^= mask
        with pytest.raises((errors.MalformedInput, errors.RingRejected)):
            verify_receipt(authenticator(), bytes(changed))


def test_a_receipt_cut_or_grown_is_refused() -> None:
    """Cut at any place, or with something after it."""
    data = joined(RECEIPTS["valid"][0]["file"])
    for changed in (*(data[:length] for length in range(len(data))), data + b"\n", b"\n" + data):
        with pytest.raises(errors.MalformedInput, match="not one line and 32 bytes"):
            verify_receipt(authenticator(), changed)


def test_the_key_of_a_receipt_is_named() -> None:
    """A receipt of a key that is not configured says which, and which are."""
    data = joined(RECEIPTS["valid"][0]["file"])
    with pytest.raises(errors.RingRejected) as caught:
        verify_receipt(authenticator(KEYS[1:]), data)
    for key in KEYS:
        assert reader.auth_id(key).hex() in caught.value.message
    assert "the receipt of 'acme'" in caught.value.message


# --- the pages --------------------------------------------------------------------------------


def page(name: str) -> str:
    """A page without white space."""
    return "".join((SPEC / name).read_text("utf-8").split())


def test_the_worked_backup_is_a_vector() -> None:
    """The hex of the worked example is the vector `one`, but for its document."""
    vector = next(v for v in BACKUPS["valid"] if v["id"] == "one")
    data = joined(vector["file"])
    text = (SPEC / "backup.md").read_text("utf-8")
    shown = text[text.index("534b42 01 ") : text.index("MAC key  ")]
    columns = [line.split("  ", 1)[0].replace(" ", "") for line in shown.splitlines()]
    assert "".join(columns).split("…") == [data[:53].hex(), data[-32:].hex()]
    assert int.from_bytes(data[49:53], "big") == 616 == len(data) - 85
    assert mac_key("backup-mac/v1") in text


def test_the_worked_receipt_is_a_vector() -> None:
    """Line and MAC of the worked example are the vector `shred`."""
    data = joined(next(v for v in RECEIPTS["valid"] if v["id"] == "shred")["file"])
    assert "".join(data[:-32].decode().split()) in page("receipt.md")
    assert data[-32:].hex() in page("receipt.md")
    assert mac_key("receipt-mac/v1") in page("receipt.md")


def mac_key(label: str) -> str:
    """The MAC key of acme under the first key, in hex."""
    return reader.derive(KEYS[0], label, reader.lp(b"acme"), 32).hex()
