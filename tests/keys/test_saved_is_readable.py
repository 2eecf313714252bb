"""Nothing is saved that no reader would accept, whatever a backend answers."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from sentra_kms.backends.master_key import MasterKey
from sentra_kms.config import read_settings
from sentra_kms.context import WrapContext
from sentra_kms.errors import ConfigurationError, KMSError, PluginError, RingRejected
from sentra_kms.hooktypes import KeyDescription, RingPage, StoredRing, WrappedKey
from sentra_kms.keys.ring import Ring
from sentra_kms.material import KeyMaterial
from sentra_kms.runtime import KMS
from tests.binding.fakes import WHERE, Keys, Rings, answer, bind
from tests.keys.conftest import Site, Spy, memory_config

TWO = ("local:m1", "spare:m2")

WRONG: list[dict[str, object]] = [
    {"key_version": ""},
    {"key_version": "\ud800"},
    {"key_id": ""},
    {"key_id": "\ud800"},
    {"key_id": "arn:\udcff:key"},
    {"ciphertext": b""},
]


@pytest.fixture(params=WRONG, ids=ascii)
def wrong(request: pytest.FixtureRequest) -> dict[str, object]:
    """What a backend may not answer, by the name of its field."""
    found: dict[str, object] = request.param
    return found


@pytest.fixture
def made(key_site: Site) -> tuple[KMS, bytes]:
    """A KMS over two KEKs with the tenant acme, and a message of it."""
    kms = key_site.open(*TWO)
    kms.keys.create("acme")
    return kms, kms.keys.encrypt("acme", b"all of the tenant's data")


def misbehave(site: Site, monkeypatch: pytest.MonkeyPatch, wrong: dict[str, object]) -> None:
    """Let the master key `m2`, and no other, answer wrongly from now on."""
    whose = MasterKey(KeyMaterial(site.secret("m2"))).key_id
    wrap, describe = MasterKey.wrap, MasterKey.describe

    def wrap_wrongly(self: MasterKey, material: KeyMaterial, context: WrapContext) -> WrappedKey:
        answer = wrap(self, material, context)
        return msgspec.structs.replace(answer, **wrong) if self.key_id == whose else answer

    def describe_wrongly(self: MasterKey) -> KeyDescription:
        answer = describe(self)
        fields = {name: value for name, value in wrong.items() if name != "ciphertext"}
        return msgspec.structs.replace(answer, **fields) if self.key_id == whose else answer

    monkeypatch.setattr(MasterKey, "wrap", wrap_wrongly)
    monkeypatch.setattr(MasterKey, "describe", describe_wrongly)


def test_wrong_wrap_is_refused_and_the_old_ring_stays(
    key_site: Site,
    made: tuple[KMS, bytes],
    wrong: dict[str, object],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A rotation fails as the backend's fault; the tenant's messages open, there and elsewhere."""
    kms, message = made
    before = key_site.document()
    with monkeypatch.context() as patched:
        misbehave(key_site, patched, wrong)
        with pytest.raises(PluginError, match=next(iter(wrong))) as caught:
            kms.keys.rotate("acme")
        assert caught.value.backend == "spare"
    assert key_site.document() == before
    for reader in (kms, key_site.open(*TWO)):
        assert reader.keys.decrypt("acme", message) == b"all of the tenant's data"
    assert key_site.open(*TWO).keys.rotate("acme").primary == 2


def test_wrong_wrap_makes_no_tenant(
    key_site: Site, wrong: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tenant whose first key was wrapped wrongly does not come to be."""
    kms = key_site.open(*TWO)
    misbehave(key_site, monkeypatch, wrong)
    with pytest.raises(PluginError):
        kms.keys.create("acme")
    assert not key_site.path("acme").exists()


def test_wrong_answers_end_a_rewrap(
    key_site: Site, wrong: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A KEK that is added by rewrap must answer rightly, else the ring stays as it was."""
    first = key_site.open("local:m1")
    first.keys.create("acme")
    message = first.keys.encrypt("acme", b"x")
    before = key_site.document()
    kms = key_site.open(*TWO, authenticate_with=("local:m1",))
    misbehave(key_site, monkeypatch, wrong)
    with pytest.raises(PluginError):
        kms.keys.rewrap("acme")
    assert key_site.document() == before
    assert key_site.open("local:m1").keys.decrypt("acme", message) == b"x"


@pytest.mark.parametrize(
    ("operation", "wrong_answer"),
    [
        ("wrap_key", WrappedKey(b"", "id", None)),
        ("wrap_key", WrappedKey(b"w", "", None)),
        ("wrap_key", WrappedKey(b"w", "\ud800", None)),
        ("wrap_key", WrappedKey(b"w", "id", "")),
        ("wrap_key", WrappedKey(b"w", "id", "\ud800")),
        ("describe_key", KeyDescription("", None)),
        ("describe_key", KeyDescription("\ud800", None)),
        ("describe_key", KeyDescription("id", "")),
        ("load_ring", StoredRing(b"ring", "")),
        ("list_rings", RingPage((), "")),
    ],
)
def test_empty_and_unwritable_text_of_an_answer_is_refused(
    operation: str, wrong_answer: object
) -> None:
    """`None` says that there is none; an empty text, or one that UTF-8 lacks, says nothing."""

    def act(asked: str, arguments: dict[str, Any]) -> Any:
        return wrong_answer if asked == operation else answer(asked, arguments)

    binding = bind(lambda: [Keys(act), Rings(act)])
    calls: dict[str, Any] = {
        "wrap_key": lambda: binding.wrap_key("k", KeyMaterial(bytes(32)), WHERE),
        "describe_key": lambda: binding.describe_key("k"),
        "load_ring": lambda: binding.load_ring("acme"),
        "list_rings": lambda: binding.list_rings(None, 10),
    }
    with pytest.raises(PluginError) as caught:
        calls[operation]()
    assert (caught.value.backend, caught.value.operation) == ("fake", operation)


# --- what the core itself would save ----------------------------------------------------------


def unreadable(ring: Ring) -> dict[str, Ring]:
    """Return rings that one rule or another forbids, each above the stored one."""
    (version,) = ring.versions
    (wrap,) = version.wraps

    def changed(**fields: object) -> Ring:
        found: Ring = msgspec.structs.replace(ring, sequence=ring.sequence + 1, **fields)
        return found

    def with_wrap(**fields: object) -> Ring:
        again = msgspec.structs.replace(wrap, **fields)
        return changed(versions=(msgspec.structs.replace(version, wraps=(again,)),))

    def with_fields(**fields: object) -> Ring:
        return changed(versions=(msgspec.structs.replace(version, **fields),))

    return {
        "policy": changed(policy=""),
        "moved_to": changed(moved_to="No Backend"),
        "kek": with_wrap(kek="no kek"),
        "key_id": with_wrap(key_id=""),
        "surrogate": with_wrap(key_id="\ud800"),
        "ciphertext": with_wrap(ciphertext=b""),
        "key_version": with_wrap(key_version=""),
        "created": with_fields(created="yesterday"),
        "request": with_fields(request=""),
        "unwritable request": with_fields(request="\udcff"),
        "number": with_fields(version=0),
    }


@pytest.mark.parametrize(
    "rule",
    [
        "policy",
        "moved_to",
        "kek",
        "key_id",
        "surrogate",
        "ciphertext",
        "key_version",
        "created",
        "request",
        "unwritable request",
        "number",
    ],
)
def test_ring_that_no_reader_accepts_is_not_saved(key_site: Site, rule: str) -> None:
    """The store refuses it before it asks the backend, and the stored ring goes on."""
    kms = key_site.open()
    kms.keys.create("acme")
    loaded = kms.keys._rings.store.load("acme")
    saves = Spy(kms, "local", "save_ring")
    with pytest.raises(RingRejected):
        kms.keys._rings.store.save(unreadable(loaded.ring)[rule], loaded)
    assert saves.count == 0
    assert kms.keys.rotate("acme").primary == 2


# --- names of KEKs ----------------------------------------------------------------------------


@pytest.mark.parametrize("field", ["wrap_with", "unwrap_with", "authenticate_with"])
@pytest.mark.parametrize("bad", ["\n", "\x00", "\x1f", "\t", "\x7f", "\r", "\ud800"])
@pytest.mark.parametrize("place", ["{}", "x{}", "{}x"])
def test_kek_name_that_cannot_be_printed_is_refused_at_load(
    field: str, bad: str, place: str
) -> None:
    """No ring can come to name a KEK whose name breaks lines, logs or JSON."""
    config = memory_config()
    config["test"]["keys"][field] = ["memory:" + place.format(bad)]
    with pytest.raises(ConfigurationError) as caught:
        read_settings(config, "test")
    assert field in caught.value.message
    assert bad not in caught.value.message


@pytest.mark.parametrize(
    "name", ["memory:a b", "memory:alias/tenants", "memory:arn:aws:kms:1", "memory:clé-ключ-🔑"]
)
def test_kek_name_that_can_be_printed_is_kept_and_read_again(name: str) -> None:
    """Spaces, slashes, colons and letters of any script are names."""
    config = memory_config()
    config["test"]["keys"]["wrap_with"] = [name]
    with KMS(read_settings(config, "test")) as kms:
        kms.keys.create("acme")
        message = kms.keys.encrypt("acme", b"x")
        kms.keys._cache.clear()
        assert kms.keys.decrypt("acme", message) == b"x"
        assert kms.keys.describe("acme").versions[0].wraps[0].kek == name


@pytest.mark.parametrize("request_id", ["\n", "\x00", "clé", "🔑" * 256])
def test_request_id_of_any_text_is_readable_again(key_site: Site, request_id: str) -> None:
    """What rotate takes as a request id comes back from the store."""
    kms = key_site.open()
    kms.keys.create("acme")
    kms.keys.rotate("acme", request_id=request_id)
    assert key_site.open().keys.describe("acme").versions[1].request == request_id
    with pytest.raises(KMSError):
        kms.keys.rotate("acme", request_id="\ud800")
    assert key_site.open().keys.describe("acme").sequence == 2
