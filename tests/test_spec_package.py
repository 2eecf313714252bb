"""The package is held to the vectors of the formats, and the independent reader to its output."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

import sentra_kms
from sentra_kms import errors
from sentra_kms.context import WrapContext, encode_context
from sentra_kms.derive import derive
from sentra_kms.material import KeyMaterial
from sentra_kms.runtime import KMS
from tests.reader import reader, writer
from tests.vectors.contexts import build
from tests.vectors.load import document, ids, vectors

CONTEXTS = vectors("context")
LOCAL = vectors("local")
MESSAGES = vectors("message")
RINGS = vectors("ring")
RAW_MASTERS = {kek: bytes.fromhex(raw) for kek, raw in RINGS["master_keys"].items()}
MASTERS = {kek: reader.MasterKey.read(raw) for kek, raw in RAW_MASTERS.items()}

Load = Callable[..., KMS]


def expect(error: str) -> Any:
    """Expect the package's error of exactly this name."""
    return pytest.raises(getattr(errors, error), check=lambda found: type(found).__name__ == error)


def configure(
    patch: pytest.MonkeyPatch,
    directory: Path,
    raw_masters: Mapping[str, bytes],
    authenticated_by: str,
    wrap_with: list[str] | None = None,
) -> dict[str, Any]:
    """Return a configuration whose master keys come from environment variables."""
    names = {kek.partition(":")[2]: raw for kek, raw in raw_masters.items()}
    for name, raw in names.items():
        patch.setenv(f"MASTER_{name}", raw.decode("ascii"))
    keys: dict[str, Any] = {"wrap_with": wrap_with or list(raw_masters), "store": "local"}
    if authenticated_by == "own":
        patch.setenv("RING_KEY", writer.b64(bytes.fromhex(RINGS["auth_keys"]["own"])))
        keys["authenticate_with"] = ["env://RING_KEY"]
    return {
        "development": {
            "development": True,
            "backends": {
                "local": {
                    "type": "local",
                    "directory": str(directory),
                    "master_keys": {name: f"env://MASTER_{name}" for name in names},
                }
            },
            "keys": keys,
        }
    }


def put(directory: Path, tenant: str, content: bytes) -> None:
    """Put a ring's file where the local backend looks for it."""
    directory.mkdir(mode=0o700, exist_ok=True)
    path = directory / reader.file_name(tenant)
    path.write_bytes(content)
    path.chmod(0o600)


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Load]:
    """Load a KMS over a directory of its own that holds one ring, or none."""
    opened: list[KMS] = []

    def load(
        tenant: str | None = None,
        content: bytes = b"",
        *,
        masters: Mapping[str, bytes] = RAW_MASTERS,
        authenticated_by: str = "local:k1",
        wrap_with: list[str] | None = None,
    ) -> KMS:
        directory = tmp_path / "rings"
        if tenant is not None:
            put(directory, tenant, content)
        settings = configure(monkeypatch, directory, masters, authenticated_by, wrap_with)
        opened.append(sentra_kms.load(settings, environment="development"))
        return opened[-1]

    yield load
    for kms in opened:
        kms.close()


def read_back(directory: Path, tenant: str) -> reader.Ring:
    """Read with the reader the ring that the package stored."""
    content = (directory / reader.file_name(tenant)).read_bytes()
    return reader.open_ring(content, tenant, [MASTERS["local:k1"].auth_key])


# --- the ground -------------------------------------------------------------------------------


@pytest.mark.parametrize("vector", CONTEXTS["valid"], ids=ids)
def test_context_is_encoded(vector: dict[str, Any]) -> None:
    """A valid context has exactly these canonical bytes."""
    encoded = encode_context(build(vector["context"]))
    assert len(encoded) == vector["size"]
    if "encoded" in vector:
        assert encoded.hex() == vector["encoded"]
    else:
        assert hashlib.sha256(encoded).hexdigest() == vector["encoded_sha256"]


@pytest.mark.parametrize("vector", CONTEXTS["invalid"], ids=ids)
def test_invalid_context_is_refused(vector: dict[str, Any]) -> None:
    """What is no context is refused."""
    with expect(vector["error"]):
        encode_context(build(vector["context"]))


@pytest.mark.parametrize("vector", vectors("derive")["valid"], ids=ids)
def test_derive(vector: dict[str, Any]) -> None:
    """The derivation rule gives the vector."""
    key = KeyMaterial(bytes.fromhex(vector["key"]))
    out = derive(key, vector["label"], bytes.fromhex(vector["data"]), vector["length"])
    assert out.reveal().hex() == vector["output"]


@pytest.mark.parametrize("vector", vectors("wrap")["contexts"], ids=ids)
def test_wrap_context(vector: dict[str, Any]) -> None:
    """A place has this wrap context, as bytes and as pairs."""
    where = WrapContext(vector["tenant"], bytes.fromhex(vector["ring_id"]), vector["version"])
    assert where.canonical.hex() == vector["canonical"]
    assert where.pairs == vector["pairs"]


# --- messages ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def rings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], KMS]]:
    """Load a KMS over a directory that holds every ring of the message vectors."""
    directory = tmp_path_factory.mktemp("messages") / "rings"
    for ring in MESSAGES["rings"].values():
        put(directory, ring["tenant"], ring["document"].encode())
    opened: list[KMS] = []
    with pytest.MonkeyPatch.context() as patch:
        settings = configure(patch, directory, RAW_MASTERS, "local:k1")

        def load() -> KMS:
            opened.append(sentra_kms.load(settings, environment="development"))
            return opened[-1]

        yield load
        for kms in opened:
            kms.close()


@pytest.fixture(scope="module")
def warm(rings: Callable[[], KMS]) -> KMS:
    """A KMS that has opened every valid message already."""
    kms = rings()
    for vector in MESSAGES["valid"]:
        decrypt(kms, vector)
    return kms


def decrypt(kms: KMS, vector: dict[str, Any]) -> bytes:
    """Decrypt a vector's message as its ring's tenant."""
    tenant = MESSAGES["rings"][vector["ring"]]["tenant"]
    message = bytes.fromhex(vector["message"])
    return kms.keys.decrypt(tenant, message, context=build(vector["context"]))


@pytest.mark.parametrize("vector", MESSAGES["valid"], ids=ids)
def test_message_is_opened(vector: dict[str, Any], rings: Callable[[], KMS], warm: KMS) -> None:
    """A message opens to this plaintext, with a cold cache and with a warm one."""
    for kms in (rings(), warm):
        assert decrypt(kms, vector).hex() == vector["plaintext"]


@pytest.mark.parametrize("vector", MESSAGES["invalid"], ids=ids)
def test_invalid_message_is_refused(
    vector: dict[str, Any], rings: Callable[[], KMS], warm: KMS
) -> None:
    """An invalid message is refused with this error, with a cold cache and with a warm one."""
    for kms in (rings(), warm):
        with expect(vector["error"]):
            decrypt(kms, vector)


# --- key rings --------------------------------------------------------------------------------


@pytest.mark.parametrize("vector", RINGS["valid"], ids=ids)
def test_ring_is_described(vector: dict[str, Any], load: Load) -> None:
    """A ring of the vectors is accepted and holds these fields."""
    tenant, expected = vector["tenant"], vector["expect"]
    kms = load(tenant, document(vector), authenticated_by=vector["authenticated_by"])
    info = kms.keys.describe(tenant)
    assert list(kms.keys.tenants()) == [tenant]
    assert info.tenant == tenant
    assert info.ring_id == expected["ring_id"]
    for field in ("sequence", "policy", "primary"):
        assert getattr(info, field) == expected[field]
    assert {str(version.version) for version in info.versions} == set(expected["versions"])
    for version in info.versions:
        wanted = expected["versions"][str(version.version)]
        assert (version.state, version.origin) == (wanted["state"], wanted["origin"])
        assert version.request == wanted["request"]
        assert list(version.missing) == wanted["missing"]
        assert [wrap.kek for wrap in version.wraps] == wanted["keks"]


def _readable() -> list[dict[str, Any]]:
    return [
        vector
        for vector in RINGS["valid"]
        if vector["expect"]["moved_to"] is None and vector["expect"]["policy"] == "default"
    ]


@pytest.mark.parametrize("vector", _readable(), ids=ids)
def test_ring_is_used(vector: dict[str, Any], load: Load) -> None:
    """Each enabled, generated version of a ring opens what was sealed under its key."""
    tenant, expected = vector["tenant"], vector["expect"]
    kms = load(tenant, document(vector), authenticated_by=vector["authenticated_by"])
    ring_id = bytes.fromhex(expected["ring_id"])
    tried = 0
    for number, version in expected["versions"].items():
        if (version["state"], version["origin"]) != ("enabled", "generated"):
            continue
        tried += 1
        key = bytes.fromhex(version["key"])
        message = writer.seal(
            key, tenant, ring_id, int(number), os.urandom(16), os.urandom(12), b"sealed"
        )
        assert kms.keys.decrypt(tenant, message) == b"sealed"
    assert tried or expected["primary"] is None
    if expected["primary"] is None:
        with expect("KeyUnavailable"):
            kms.keys.encrypt(tenant, b"sealed")
    else:
        box = kms.keys.encrypt(tenant, b"sealed")
        assert int.from_bytes(box[16:20], "big") == expected["primary"]


@pytest.mark.parametrize("vector", RINGS["invalid"], ids=ids)
def test_invalid_ring_is_refused(vector: dict[str, Any], load: Load) -> None:
    """An invalid ring is refused, for describing, encrypting and rotating alike."""
    tenant = vector["tenant"]
    kms = load(tenant, document(vector), masters={"local:k1": RAW_MASTERS["local:k1"]})
    with expect(vector["error"]):
        kms.keys.encrypt(tenant, b"x")
    if vector["at"] == "open":
        with expect(vector["error"]):
            kms.keys.describe(tenant)
        with expect(vector["error"]):
            kms.keys.rotate(tenant)


def test_an_older_ring_is_refused(tmp_path: Path, load: Load) -> None:
    """A store that was rolled back under a running process is noticed."""
    first, second = (next(v for v in RINGS["valid"] if v["id"] == name) for name in ("one", "two"))
    kms = load("acme", document(second))
    assert kms.keys.describe("acme").sequence == 2
    put(tmp_path / "rings", "acme", document(first))
    with expect("RingRejected"):
        kms.keys.describe("acme")
    with expect("RingRejected"):
        kms.keys.rotate("acme")


@pytest.mark.parametrize("vector", RINGS["file_names"], ids=lambda v: v["file_name"][:20])
def test_file_name(vector: dict[str, Any], tmp_path: Path, load: Load) -> None:
    """A new ring's file has this name and mode 600, in a directory of mode 700."""
    load().keys.create(vector["tenant"])
    directory = tmp_path / "rings"
    name = vector["file_name"]
    assert {path.name for path in directory.iterdir()} - {f".{name[:-5]}.lock"} == {name}
    assert {stat.S_IMODE(path.stat().st_mode) for path in directory.iterdir()} == {0o600}
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700


@pytest.mark.parametrize("vector", RINGS["invalid_tenants"], ids=lambda v: v["shows"])
def test_invalid_tenants_are_refused(vector: dict[str, Any], load: Load) -> None:
    """What breaks the tenant rule is refused wherever it comes in."""
    keys, tenant = load().keys, vector["tenant"]
    for use in (keys.create, keys.rotate, keys.describe, keys.tenant):
        with expect(vector["error"]):
            use(tenant)
    with expect(vector["error"]):
        keys.decrypt(tenant, bytes.fromhex(MESSAGES["valid"][0]["message"]))


# --- master keys ------------------------------------------------------------------------------


def load_master(tmp_path: Path, raw: bytes, *, development: bool) -> KMS:
    """Load a KMS whose one master key is a file of these bytes."""
    path = tmp_path / "master"
    path.write_bytes(raw)
    path.chmod(0o600)
    table: dict[str, Any] = {
        "development": development,
        "backends": {
            "local": {
                "type": "local",
                "directory": str(tmp_path / "rings"),
                "master_keys": {"k1": f"file://{path}"},
            }
        },
        "keys": {"wrap_with": ["local:k1"], "store": "local"},
    }
    return sentra_kms.load({"tested": table}, environment="tested")


@pytest.mark.parametrize("vector", LOCAL["valid"], ids=ids)
def test_master_key_is_read(vector: dict[str, Any], tmp_path: Path) -> None:
    """A ring made with the vector's PRK, key id and authentication key opens with the raw key."""
    master = reader.MasterKey(
        bytes.fromhex(vector["prk"]), vector["key_id"], bytes.fromhex(vector["auth_key"])
    )
    ring_id, key = os.urandom(12), os.urandom(32)
    wrap = writer.wrap_local(master, key, "acme", ring_id, 1, os.urandom(16))
    record = writer.version_record(
        key, "acme", ring_id, 1, [writer.wrap_record("local:k1", master, wrap)]
    )
    payload = writer.to_json(writer.ring_payload("acme", ring_id, [record]))
    put(tmp_path / "rings", "acme", writer.sign(master.auth_key, "acme", payload))
    message = writer.seal(key, "acme", ring_id, 1, os.urandom(16), os.urandom(12), b"sealed")
    raw = bytes.fromhex(vector["raw"])
    with load_master(tmp_path, raw, development=True) as kms:
        assert kms.keys.decrypt("acme", message) == b"sealed"
    with load_master(tmp_path, raw, development=False) as kms:
        if vector["outside_development"]:
            assert kms.keys.decrypt("acme", message) == b"sealed"
        else:
            with expect("ConfigurationError"):
                kms.keys.decrypt("acme", message)


@pytest.mark.parametrize("vector", LOCAL["invalid"], ids=ids)
def test_short_master_key_is_refused(vector: dict[str, Any], tmp_path: Path) -> None:
    """A master key of fewer than 32 bytes makes no ring, in development neither."""
    raw = bytes.fromhex(vector["raw"])
    with load_master(tmp_path, raw, development=True) as kms, expect(vector["error"]):
        kms.keys.create("acme")


# --- the reader reads what the package writes -------------------------------------------------


@pytest.mark.parametrize("tenant", ["acme", "Acme", "T" * 120])
@pytest.mark.parametrize("plaintext", [b"", b"x", bytes(range(256)) * 5], ids=len)
def test_reader_opens_fresh_messages(
    tenant: str, plaintext: bytes, tmp_path: Path, load: Load
) -> None:
    """The reader opens the package's ring, and its messages of two versions under two KEKs."""
    kms = load()
    kms.keys.create(tenant)
    context = {"table": "users", "id": "42"}
    old = kms.keys.encrypt(tenant, plaintext, context=context)
    kms.keys.rotate(tenant, request_id="nightly")
    many = kms.keys.encrypt_many(tenant, [plaintext, plaintext], contexts=[context, context])
    ring = read_back(tmp_path / "rings", tenant)
    assert (ring.sequence, ring.primary, ring.policy) == (2, 2, "default")
    assert [version.request for version in ring.versions.values()] == [None, "nightly"]
    for version in ring.versions.values():
        assert [wrap.kek for wrap in version.wraps] == ["local:k1", "local:k2"]
    assert len({message[68:80] for message in (old, *many)}) == 3
    for kek, master in MASTERS.items():
        for message in (old, *many):
            assert reader.decrypt(ring, message, context, {kek: master}) == plaintext
            with pytest.raises(reader.DecryptionFailed):
                reader.decrypt(ring, message, None, MASTERS)


@pytest.mark.parametrize("vector", CONTEXTS["valid"], ids=ids)
def test_reader_opens_fresh_contexts(vector: dict[str, Any], tmp_path: Path, load: Load) -> None:
    """Each kind of context binds a message as the reader expects."""
    context = build(vector["context"])
    kms = load()
    kms.keys.create("acme")
    message = kms.keys.encrypt("acme", b"bound", context=context)
    ring = read_back(tmp_path / "rings", "acme")
    assert reader.decrypt(ring, message, context, MASTERS) == b"bound"
    with pytest.raises(reader.DecryptionFailed):
        reader.decrypt(ring, message, b"another", MASTERS)


def test_reader_opens_rewrapped_rings(tmp_path: Path, load: Load) -> None:
    """After a rewrap the reader opens the old messages with the new KEK alone."""
    kms = load(wrap_with=["local:k1"])
    kms.keys.create("acme")
    message = kms.keys.encrypt("acme", b"kept")
    kms.close()
    kms = load(wrap_with=["local:k1", "local:k2"])
    kms.keys.rewrap("acme")
    ring = read_back(tmp_path / "rings", "acme")
    assert ring.sequence == 2
    second = {"local:k2": MASTERS["local:k2"]}
    assert reader.decrypt(ring, message, None, second) == b"kept"


def test_package_keeps_what_it_does_not_know(tmp_path: Path, load: Load) -> None:
    """A save keeps the ring's extensions, name and value."""
    vector = next(v for v in RINGS["valid"] if v["id"] == "extension")
    kms = load(vector["tenant"], document(vector))
    kms.keys.rotate(vector["tenant"])
    ring = read_back(tmp_path / "rings", vector["tenant"])
    assert ring.sequence == vector["expect"]["sequence"] + 1
    assert ring.extensions == vector["expect"]["extensions"]


def test_a_full_ring_is_not_saved(tmp_path: Path, load: Load) -> None:
    """A change that would pass 256 KiB is refused, and the ring stays as it was, in use."""
    filler = {"x-filler": "x" * (reader.MAX_DOCUMENT - 1024)}
    key = os.urandom(32)
    master = MASTERS["local:k1"]
    wrap = writer.wrap_local(master, key, "acme", bytes(12), 1, os.urandom(16))
    record = writer.version_record(
        key, "acme", bytes(12), 1, [writer.wrap_record("local:k1", master, wrap)]
    )
    payload = writer.ring_payload("acme", bytes(12), [record]) | {"extensions": filler}
    content = writer.sign(master.auth_key, "acme", writer.to_json(payload))
    assert reader.MAX_DOCUMENT - 400 < len(content) <= reader.MAX_DOCUMENT
    kms = load("acme", content)
    with expect("RingRejected"):
        kms.keys.rotate("acme")
    assert (tmp_path / "rings" / "acme.ring").read_bytes() == content
    message = kms.keys.encrypt("acme", b"still")
    assert kms.keys.decrypt("acme", message) == b"still"
