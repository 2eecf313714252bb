"""The independent reader is held to the vectors, and the vectors to their maker."""

from __future__ import annotations

import ast
import hashlib
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.hashes import SHA512
from cryptography.hazmat.primitives.kdf.hkdf import HKDF, HKDFExpand

from tests.reader import reader, writer
from tests.vectors import make_vectors
from tests.vectors.contexts import build
from tests.vectors.load import HERE, document, ids, vectors

READER = Path(reader.__file__)
SPEC = READER.parents[2] / "docs" / "spec"
RINGS = vectors("ring")
MESSAGES = vectors("message")
LOCAL = vectors("local")
WRAPS = vectors("wrap")
MASTERS = {
    kek: reader.MasterKey.read(bytes.fromhex(raw)) for kek, raw in RINGS["master_keys"].items()
}


def expect(error: str) -> Any:
    """Expect the reader's error of this name, and none of its subclasses."""
    return pytest.raises(getattr(reader, error))


# --- the reader, the writer and the vectors themselves ----------------------------------------


@pytest.mark.parametrize("module", [reader, writer], ids=["reader", "writer"])
def test_reader_shares_no_import_with_the_package(module: Any) -> None:
    """The reader uses the standard library and `cryptography` only, the writer the reader too."""
    allowed = sys.stdlib_module_names | {"cryptography"}
    if module is writer:
        allowed |= {"tests"}
    tree = ast.parse(Path(module.__file__).read_text())
    imported: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "a relative import could reach anything"
            imported.add((node.module or "").partition(".")[0])
    assert imported
    assert imported <= allowed
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    assert not names & {"__import__", "importlib", "eval", "exec"}


def test_vectors_are_what_their_maker_makes() -> None:
    """Making the vectors again gives the same bytes, and leaves no vector file unmade."""
    made = make_vectors.make()
    assert made == make_vectors.make()
    assert {path.name for path in HERE.glob("*.json")} == set(made)
    for name, data in made.items():
        assert (HERE / name).read_bytes() == data, f"{name} is stale: run make_vectors"


@pytest.mark.parametrize(
    "name", ["backup", "context", "derive", "local", "message", "receipt", "ring", "wrap"]
)
def test_vectors_say_what_they_show(name: str) -> None:
    """Each vector has an id of its own in its section and says in one line what it shows."""
    for section in vectors(name).values():
        if isinstance(section, list) and "id" in section[0]:
            names = [vector["id"] for vector in section]
            assert len(set(names)) == len(names)
            assert all(vector["shows"].strip() for vector in section)
            assert all("\n" not in vector["shows"] for vector in section)


# --- the ground -------------------------------------------------------------------------------


@pytest.mark.parametrize("vector", vectors("context")["valid"], ids=ids)
def test_context_is_encoded(vector: dict[str, Any]) -> None:
    """A valid context has exactly these canonical bytes."""
    encoded = reader.encode_context(build(vector["context"]))
    assert len(encoded) == vector["size"]
    if "encoded" in vector:
        assert encoded.hex() == vector["encoded"]
    else:
        assert hashlib.sha256(encoded).hexdigest() == vector["encoded_sha256"]


def test_contexts_are_distinct() -> None:
    """No two contexts of the vectors have the same bytes."""
    found = [v.get("encoded", v.get("encoded_sha256")) for v in vectors("context")["valid"]]
    assert len(set(found)) == len(found)


@pytest.mark.parametrize("vector", vectors("context")["invalid"], ids=ids)
def test_invalid_context_is_refused(vector: dict[str, Any]) -> None:
    """What is no context is refused."""
    with expect(vector["error"]):
        reader.encode_context(build(vector["context"]))


@pytest.mark.parametrize("vector", vectors("derive")["valid"], ids=ids)
def test_derive(vector: dict[str, Any]) -> None:
    """The rule gives the vector, and what `cryptography` gives for HKDF-Expand."""
    key, data = bytes.fromhex(vector["key"]), bytes.fromhex(vector["data"])
    out = reader.derive(key, vector["label"], data, vector["length"])
    assert out.hex() == vector["output"]
    info = b"sentra-kms/" + vector["label"].encode() + b"\x00" + data
    assert out == HKDFExpand(SHA512(), vector["length"], info).derive(key)


def test_every_label_has_a_vector() -> None:
    """The labels that the specification lists are those of the vectors."""
    page = (SPEC / "message.md").read_text("utf-8")
    listed = set(re.findall(r"^\| `([a-z/-]+/v1)` \| (?!reserved)", page, re.MULTILINE))
    assert listed == {vector["label"] for vector in vectors("derive")["valid"]}


# --- master keys and wraps --------------------------------------------------------------------


@pytest.mark.parametrize("vector", LOCAL["valid"], ids=ids)
def test_master_key_is_read(vector: dict[str, Any]) -> None:
    """A master key gives this PRK, key id and authentication key."""
    raw = bytes.fromhex(vector["raw"])
    used = reader.strip_newline(raw)
    master = reader.MasterKey.read(raw)
    assert used.hex() == vector["used"]
    assert master.prk.hex() == vector["prk"]
    assert master.prk == HKDF.extract(SHA512(), b"sentra-kms/local/v1", used)
    assert master.key_id == vector["key_id"]
    assert master.auth_key.hex() == vector["auth_key"]
    assert reader.auth_id(master.auth_key).hex() == vector["auth_id"]
    assert reader.allowed_outside_development(raw) is vector["outside_development"]


@pytest.mark.parametrize("vector", LOCAL["invalid"], ids=ids)
def test_short_master_key_is_refused(vector: dict[str, Any]) -> None:
    """A master key of fewer than 32 bytes is refused."""
    with expect(vector["error"]):
        reader.MasterKey.read(bytes.fromhex(vector["raw"]))


def unwrap_local(vector: dict[str, Any]) -> bytes:
    """Unwrap a vector of a local wrap."""
    prk = bytes.fromhex(vector["prk"])
    key_id = reader.derive(prk, "local/key-id/v1", b"", 8).hex()
    master = reader.MasterKey(prk, key_id, reader.derive(prk, "local/ring-auth/v1", b"", 32))
    context = reader.wrap_context(
        vector["tenant"], bytes.fromhex(vector["ring_id"]), vector["version"]
    )
    ciphertext = bytes.fromhex(vector["ciphertext"])
    return reader.unwrap_local(master, vector["key_id"], ciphertext, context)


@pytest.mark.parametrize("vector", LOCAL["wraps"], ids=ids)
def test_local_wrap_is_unwrapped(vector: dict[str, Any]) -> None:
    """A local wrap holds this key."""
    assert unwrap_local(vector).hex() == vector["key"]


@pytest.mark.parametrize("vector", LOCAL["invalid_wraps"], ids=ids)
def test_invalid_local_wrap_is_refused(vector: dict[str, Any]) -> None:
    """A local wrap that was edited, or belongs elsewhere, is refused."""
    with expect(vector["error"]):
        unwrap_local(vector)


@pytest.mark.parametrize("vector", WRAPS["contexts"], ids=ids)
def test_wrap_context(vector: dict[str, Any]) -> None:
    """A place has this wrap context, as bytes and as pairs."""
    place = vector["tenant"], bytes.fromhex(vector["ring_id"]), vector["version"]
    assert reader.wrap_context(*place).hex() == vector["canonical"]
    assert reader.wrap_context_pairs(*place) == vector["pairs"]


def unwrap_onetime(vector: dict[str, Any]) -> bytes:
    """Unwrap a vector of a one-time-key wrap."""
    return reader.unwrap_onetime(
        bytes.fromhex(vector["one_time_key"]),
        vector["kek_version_id"],
        bytes.fromhex(vector["ciphertext"]),
        bytes.fromhex(vector["wrap_context"]),
    )


@pytest.mark.parametrize("vector", WRAPS["onetime"], ids=ids)
def test_onetime_wrap_is_unwrapped(vector: dict[str, Any]) -> None:
    """A one-time-key wrap holds this key and this encrypted one-time key."""
    assert unwrap_onetime(vector).hex() == vector["key"]
    _, encrypted, _ = reader.split_onetime(bytes.fromhex(vector["ciphertext"]))
    assert encrypted.hex() == vector["encrypted_one_time_key"]


@pytest.mark.parametrize("vector", WRAPS["invalid_onetime"], ids=ids)
def test_invalid_onetime_wrap_is_refused(vector: dict[str, Any]) -> None:
    """A one-time-key wrap that was edited, or belongs elsewhere, is refused."""
    with expect(vector["error"]):
        unwrap_onetime(vector)


# --- key rings --------------------------------------------------------------------------------


def open_ring(vector: dict[str, Any]) -> reader.Ring:
    """Open a ring vector with the key that should authenticate it."""
    key = bytes.fromhex(RINGS["auth_keys"][vector["authenticated_by"]])
    return reader.open_ring(document(vector), vector["tenant"], [key])


@pytest.mark.parametrize("vector", RINGS["valid"], ids=ids)
def test_ring_is_opened(vector: dict[str, Any]) -> None:
    """A ring holds these fields, and each version that has a wrap holds this key."""
    ring, expected = open_ring(vector), vector["expect"]
    assert ring.tenant == vector["tenant"]
    assert ring.ring_id.hex() == expected["ring_id"]
    for field in ("sequence", "policy", "primary", "moved_to", "extensions"):
        assert getattr(ring, field) == expected[field]
    assert {str(number) for number in ring.versions} == set(expected["versions"])
    for number, version in ring.versions.items():
        wanted = expected["versions"][str(number)]
        assert version.number == number
        assert (version.state, version.origin) == (wanted["state"], wanted["origin"])
        assert version.request == wanted["request"]
        assert list(version.missing) == wanted["missing"]
        assert [wrap.kek for wrap in version.wraps] == wanted["keks"]
        if wanted["key"] is not None:
            assert reader.tenant_key(ring, number, MASTERS).hex() == wanted["key"]


def test_each_kek_of_a_ring_unwraps_it() -> None:
    """A version under two KEKs opens with either alone, and gives one key."""
    vector = next(v for v in RINGS["valid"] if v["id"] == "two-keks")
    ring = open_ring(vector)
    assert len(MASTERS) == 2
    keys = {reader.tenant_key(ring, 1, {kek: master}) for kek, master in MASTERS.items()}
    assert {key.hex() for key in keys} == {vector["expect"]["versions"]["1"]["key"]}


@pytest.mark.parametrize("vector", RINGS["invalid"], ids=ids)
def test_invalid_ring_is_refused(vector: dict[str, Any]) -> None:
    """An invalid ring is refused when it is opened, or when its key is unwrapped."""
    if vector["at"] == "open":
        with expect(vector["error"]):
            open_ring(vector)
        return
    ring = open_ring(vector)
    with expect(vector["error"]):
        reader.tenant_key(ring, 1, MASTERS)


@pytest.mark.parametrize("vector", RINGS["invalid"], ids=ids)
def test_invalid_payload_is_authentic(vector: dict[str, Any]) -> None:
    """A vector of an invalid payload has a right MAC: it is the payload's check that refuses."""
    key = bytes.fromhex(RINGS["auth_keys"][vector["authenticated_by"]])
    if vector["id"].startswith("document-"):
        with expect("RingRejected"):
            reader.authenticate(document(vector), vector["tenant"], [key])
    else:
        mac, _ = reader.authenticate(document(vector), vector["tenant"], [key])
        assert mac.hex().encode() == document(vector)[31:95]


def test_every_field_of_a_ring_has_an_invalid_vector() -> None:
    """Each field is tried absent and with wrong values."""
    names = [vector["id"] for vector in RINGS["invalid"]]
    fields = {
        "ring": "format tenant ring_id sequence policy primary moved_to versions extensions",
        "version": "version state created origin check request destroy_after missing wraps",
        "wrap": "kek key_id key_version ciphertext",
    }
    for place, listed in fields.items():
        for field in listed.split():
            found = [i for i in names if i.startswith(f"payload-{place}-{field}-")]
            assert f"payload-{place}-{field}-absent" in found
            assert len(found) >= 3


def test_every_edited_byte_of_a_ring_is_noticed() -> None:
    """No byte of a document can change."""
    vector = next(v for v in RINGS["valid"] if v["id"] == "one")
    good = document(vector)
    key = bytes.fromhex(RINGS["auth_keys"]["local:k1"])
    for at, byte in enumerate(good):
        edited = good[:at] + bytes([byte ^ 0x20]) + good[at + 1 :]
        with expect("RingRejected"):
            reader.open_ring(edited, vector["tenant"], [key])


def test_any_configured_key_verifies() -> None:
    """Of several authentication keys the one that the ring names is used; without it, none is."""
    own, first = (bytes.fromhex(RINGS["auth_keys"][name]) for name in ("own", "local:k1"))
    vector = next(v for v in RINGS["valid"] if v["id"] == "own-key")
    ring = reader.open_ring(document(vector), vector["tenant"], [first, own])
    assert ring.tenant == vector["tenant"]
    for keys in ([first], []):
        with expect("RingRejected"):
            reader.open_ring(document(vector), vector["tenant"], keys)


@pytest.mark.parametrize("size", [0, 31, 33, 64])
def test_authentication_keys_have_32_bytes(size: int) -> None:
    """A key of another size authenticates nothing, even a ring that it signed."""
    vector = next(v for v in RINGS["valid"] if v["id"] == "one")
    _, payload = reader.authenticate(document(vector), "acme", [MASTERS["local:k1"].auth_key])
    key = bytes(size)
    with expect("ConfigurationError"):
        reader.open_ring(writer.sign(key, "acme", payload), "acme", [key])


def test_an_older_ring_is_refused() -> None:
    """A sequence below the highest one seen is refused, and another ring of that sequence."""
    key = bytes.fromhex(RINGS["auth_keys"]["local:k1"])
    first, second = (next(v for v in RINGS["valid"] if v["id"] == name) for name in ("one", "two"))
    assert first["tenant"] == second["tenant"]
    old = reader.open_ring(document(first), "acme", [key])
    new = reader.open_ring(document(second), "acme", [key], seen=old)
    assert (old.sequence, new.sequence) == (1, 2)
    assert reader.open_ring(document(second), "acme", [key], seen=new) == new
    with expect("RingRejected"):
        reader.open_ring(document(first), "acme", [key], seen=new)
    _, payload = reader.authenticate(document(second), "acme", [key])
    other = writer.sign(key, "acme", payload.replace(b"T09:30:00Z", b"T09:30:01Z"))
    assert reader.open_ring(other, "acme", [key], seen=old).sequence == 2
    with expect("RingRejected"):
        reader.open_ring(other, "acme", [key], seen=new)


def test_file_names() -> None:
    """A tenant has this file name; names that differ only in case stay apart."""
    for vector in RINGS["file_names"]:
        assert reader.file_name(vector["tenant"]) == vector["file_name"]
    folded = {vector["file_name"].lower() for vector in RINGS["file_names"]}
    assert len(folded) == len(RINGS["file_names"])
    longest = max(len(vector["file_name"]) for vector in RINGS["file_names"])
    assert longest == 245
    assert all(
        vector["file_name"] == reader.file_name(vector["tenant"]) for vector in RINGS["valid"]
    )


@pytest.mark.parametrize("vector", RINGS["invalid_tenants"], ids=lambda v: v["shows"])
def test_invalid_tenants_are_refused(vector: dict[str, Any]) -> None:
    """What breaks the tenant rule has no file name and opens no ring."""
    with expect(vector["error"]):
        reader.file_name(vector["tenant"])
    with expect(vector["error"]):
        reader.open_ring(b"", vector["tenant"], [])


# --- messages ---------------------------------------------------------------------------------


def ring_of(vector: dict[str, Any]) -> reader.Ring:
    """Open the ring that a message vector names."""
    ring = MESSAGES["rings"][vector["ring"]]
    key = MASTERS["local:k1"].auth_key
    return reader.open_ring(ring["document"].encode(), ring["tenant"], [key])


@pytest.mark.parametrize("vector", MESSAGES["valid"], ids=ids)
def test_message_is_opened(vector: dict[str, Any]) -> None:
    """A message opens to this plaintext, by these intermediate values."""
    ring, message = ring_of(vector), bytes.fromhex(vector["message"])
    context = build(vector["context"])
    plaintext = reader.decrypt(ring, message, context, MASTERS)
    assert plaintext.hex() == vector["plaintext"]
    assert len(message) == len(plaintext) + 96
    assert reader.encode_context(context).hex() == vector["associated_data"]
    key = reader.tenant_key(ring, vector["version"], MASTERS)
    assert key.hex() == MESSAGES["rings"][vector["ring"]]["keys"][str(vector["version"])]
    subkey, commitment = reader.message_keys(key, ring.tenant, message[:36])
    assert subkey.hex() == vector["subkey"]
    assert commitment == message[36:68]


@pytest.mark.parametrize("vector", MESSAGES["invalid"], ids=ids)
def test_invalid_message_is_refused(vector: dict[str, Any]) -> None:
    """An invalid message is refused with exactly this error."""
    message = bytes.fromhex(vector["message"])
    with expect(vector["error"]):
        reader.decrypt(ring_of(vector), message, build(vector["context"]), MASTERS)


def test_every_length_and_byte_of_a_message_counts() -> None:
    """A message cut at any length, or with any one byte changed, is refused."""
    vector = MESSAGES["valid"][0]
    ring, context = ring_of(vector), build(vector["context"])
    message = bytes.fromhex(vector["message"])
    for size in range(len(message)):
        with expect("MalformedInput" if size < 96 else "DecryptionFailed"):
            reader.decrypt(ring, message[:size], context, MASTERS)
    for at in range(len(message)):
        edited = message[:at] + bytes([message[at] ^ 0x80]) + message[at + 1 :]
        error = "MalformedInput" if at < 4 else "DecryptionFailed"
        with expect("KeyNotFound" if 16 <= at < 20 else error):
            reader.decrypt(ring, edited, context, MASTERS)


def test_a_message_has_a_greatest_length() -> None:
    """64 MiB of plaintext pass the check of the form, one byte more does not."""
    longest = b"SK\x01\x01".ljust(96 + 64 * 1024 * 1024, b"\x00")
    reader.check_form(longest)
    with expect("MalformedInput"):
        reader.check_form(longest + b"\x00")


def test_every_valid_message_needs_its_context() -> None:
    """No message of the vectors opens under another vector's context."""
    contexts = [build(vector["context"]) for vector in MESSAGES["valid"]]
    for vector in MESSAGES["valid"]:
        own = vector["associated_data"]
        for context in contexts:
            if reader.encode_context(context).hex() != own:
                with expect("DecryptionFailed"):
                    message = bytes.fromhex(vector["message"])
                    reader.decrypt(ring_of(vector), message, context, MASTERS)


# --- the pages of the specification -----------------------------------------------------------


def blocks(page: str, kind: str) -> list[str]:
    """The fenced blocks of one kind on a page."""
    text = (SPEC / page).read_text("utf-8")
    return re.findall(rf"^```{kind}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", ["message.md", "ring.md", "backup.md", "receipt.md"])
def test_the_programs_on_the_page_work(page: str) -> None:
    """A program on a page needs nothing but the page, and its assertions hold."""
    found = blocks(page, "python")
    assert len(found) == 1
    assert "sentra_kms" not in found[0]
    assert found[0].count("assert ") >= 2
    exec(compile(found[0], page, "exec"), {"__name__": page})  # noqa: S102 - our own page


def test_the_worked_message_is_a_vector() -> None:
    """The hex of the worked example is the vector `row`, byte for byte."""
    vector = next(v for v in MESSAGES["valid"] if v["id"] == "row")
    page = "".join((SPEC / "message.md").read_text("utf-8").split())
    for field in ("subkey", "plaintext", "associated_data"):
        assert vector[field] in page
    assert vector["message"] in page
    assert MESSAGES["rings"]["acme"]["keys"]["2"] in page


def test_the_worked_ring_is_a_vector() -> None:
    """The document of the worked example is the vector `one`, byte for byte."""
    vector = next(v for v in RINGS["valid"] if v["id"] == "one")
    page = "".join((SPEC / "ring.md").read_text("utf-8").split())
    assert "".join(vector["document"].split()) in page
    assert MASTERS["local:k1"].prk.hex() in page
    assert vector["expect"]["versions"]["1"]["key"] in page
