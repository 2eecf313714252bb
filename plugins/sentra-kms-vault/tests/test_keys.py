"""KEKs in transit, beyond what the kit asks, on a real server."""

from __future__ import annotations

import base64
import re
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
from sentra_kms_vault.settings import VaultSettings
from sentra_kms_vault.transit import Engine
from sentra_kms_vault.vault import Vault as VaultClient

from sentra_kms import (
    AccessDenied,
    ConfigurationError,
    DecryptionFailed,
    KeyMaterial,
    KeyNotFound,
    KeyUnavailable,
    KMSError,
    MalformedInput,
    ServiceUnavailable,
)
from sentra_kms.context import WrapContext
from sentra_kms.doctor import diagnose
from sentra_kms.hooktypes import Finding, Host, UnwrapRequest, WrappedKey, WrapRequest
from sentra_kms.testing import Bench
from sentra_kms.testing.proxy import FaultProxy
from tests.servers.scripted import Scripted, http
from tests.servers.vault_server import Vault, VaultError

pytestmark = pytest.mark.server

_PLACE = WrapContext("acme", bytes(range(12)), 1)
_KEY = KeyMaterial(bytes(range(32)))


class _Site:
    """A transit engine of one test's own, and a backend that uses it as root."""

    def __init__(self, vault: Vault, mount: str) -> None:
        self.vault = vault
        self.mount = mount
        self.bench = self.open()
        self.binding = self.bench.binding

    def table(self) -> dict[str, object]:
        return {
            "type": "vault",
            "address": self.vault.address,
            "auth": {"method": "token", "token": "env://KEYS_TOKEN"},
            "timeout": "60s",  # so that a busy machine is no fault
            "transit": self.mount,
        }

    def open(self, **settings: object) -> Bench:
        return Bench("vault", {**self.table(), **settings})

    def make(self, key: str, **options: object) -> str:
        self.vault.write(f"{self.mount}/keys/{key}", **{"type": "aes256-gcm96", **options})
        return key

    def requests(self, what: str) -> int:
        return len(self.vault.requests(f"{self.mount}/{what}"))


@pytest.fixture
def site(vault: Vault, monkeypatch: pytest.MonkeyPatch) -> Iterator[_Site]:
    """Mount an engine."""
    mount = f"keys-{uuid.uuid4().hex[:12]}"
    vault.write(f"sys/mounts/{mount}", type="transit")
    monkeypatch.setenv("KEYS_TOKEN", vault.token)
    site = _Site(vault, mount)
    yield site
    site.bench.close()
    vault.delete(f"sys/mounts/{mount}")


def _found(bench: Bench) -> list[Finding]:
    """Return what the part of KEKs found, and not what is said of the server and the token."""
    return [
        each
        for each in bench.binding.check()
        if each.subject != "vault" or "transit" in each.message + each.advice
    ]


def _hooks(site: _Site, key: str, wrapped: WrappedKey) -> list[Callable[[], object]]:
    """Return a call of each hook; those of batches raise their one end."""
    bound = site.binding

    def only(ends: list[object]) -> object:
        (end,) = ends
        if isinstance(end, KMSError):
            raise end
        return end

    return [
        lambda: bound.wrap_key(key, _KEY, _PLACE),
        lambda: bound.unwrap_key(key, wrapped, _PLACE),
        lambda: bound.describe_key(key),
        lambda: only([*bound.wrap_keys(key, [WrapRequest(_KEY, _PLACE)])]),
        lambda: only([*bound.unwrap_keys(key, [UnwrapRequest(wrapped, _PLACE)])]),
    ]


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"type": "rsa-2048"}, "rsa-2048"),
        ({"type": "ed25519"}, "ed25519"),
        ({"type": "ecdsa-p256"}, "ecdsa-p256"),
        ({"type": "hmac", "key_size": 32}, "hmac"),
        ({"derived": True, "convergent_encryption": True}, "convergent"),
    ],
)
def test_key_that_can_be_no_kek(site: _Site, options: dict[str, object], why: str) -> None:
    """A key that cannot bind a context, or encrypts alike to alike, is refused and told why."""
    site.make("unfit", **options)
    wrapped = site.binding.wrap_key(site.make("fit"), _KEY, _PLACE)
    wrap, unwrap, describe, wrap_many, unwrap_many = _hooks(site, "unfit", wrapped)
    before = site.requests("encrypt/unfit")
    for call in (wrap, describe, wrap_many):
        with pytest.raises(ConfigurationError, match=why) as caught:
            call()
        assert "make one" in caught.value.message.lower()
    assert site.requests("encrypt/unfit") == before == 0
    kind = DecryptionFailed if why == "convergent" else ConfigurationError
    for call in (unwrap, unwrap_many):
        with pytest.raises((kind, MalformedInput)):
            call()


@pytest.mark.parametrize("kind", ["aes128-gcm96", "aes256-gcm96", "chacha20-poly1305"])
@pytest.mark.parametrize("derived", [False, True])
def test_every_aead_type(site: _Site, kind: str, derived: bool) -> None:  # noqa: FBT001
    """Each AEAD type is a KEK, derived or not, and one unwrap is one request."""
    key = site.make("kek", type=kind, derived=derived)
    wrapped = site.binding.wrap_key(key, _KEY, _PLACE)
    before = site.requests("")
    assert site.binding.unwrap_key(key, wrapped, _PLACE) == _KEY
    assert site.requests("") == before + 1


def test_wrap_records_mount_name_and_version(site: _Site) -> None:
    """A wrap records where its KEK is, and which version of it wrapped."""
    key = site.make("kek")
    site.vault.write(f"{site.mount}/keys/{key}/rotate")
    wrapped = site.binding.wrap_key(key, _KEY, _PLACE)
    assert (wrapped.key_id, wrapped.key_version) == (f"{site.mount}/keys/kek", "2")
    found = site.binding.describe_key(key)
    assert (found.key_id, found.key_version) == (f"{site.mount}/keys/kek", "2")
    assert wrapped.ciphertext.startswith(b"vault:v2:")


def test_namespace_is_sent_and_recorded(site: _Site) -> None:
    """A namespace goes with every request, and into the id of the KEK."""
    key = site.make("kek")
    with FaultProxy("127.0.0.1", site.vault.port) as proxy:
        bench = site.open(address=proxy.url, namespace="team/one")
        assert bench.binding.wrap_key(key, _KEY, _PLACE).key_id == (
            f"team/one/{site.mount}/keys/kek"
        )
        bench.close()
        assert len(proxy.requests()) == 4
        assert all(b"X-Vault-Namespace: team/one\r\n" in each for each in proxy.requests())


def test_mount_of_several_segments(site: _Site) -> None:
    """An engine may be mounted deeper."""
    deep = f"{site.mount}-a/b"
    site.vault.write(f"sys/mounts/{deep}", type="transit")
    site.vault.write(f"{deep}/keys/kek", type="aes256-gcm96")
    bench = site.open(transit=deep)
    wrapped = bench.binding.wrap_key("kek", _KEY, _PLACE)
    assert wrapped.key_id == f"{deep}/keys/kek"
    assert bench.binding.unwrap_key("kek", wrapped, _PLACE) == _KEY
    bench.close()
    site.vault.delete(f"sys/mounts/{deep}")


def test_no_key_is_ever_made(site: _Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mistyped KEK is not made, also by a token that may, and at the last moment."""
    monkeypatch.setenv("VAULT_TOKEN", site.vault.token)
    host = Host(
        name="vault",
        environment="test",
        development=True,
        clock=lambda: 0.0,
        secret=lambda _: KeyMaterial(b""),
        resolve=str,
        state={},
    )
    settings = msgspec.convert(
        {
            "address": site.vault.address,
            "auth": {"method": "token"},
        },
        VaultSettings,
    )
    client = VaultClient(settings, host)
    engine = Engine(client, site.mount)  # which encrypts without looking first
    with pytest.raises(KeyNotFound):
        engine.encrypt("mistyped", [(_KEY, _PLACE)], client.call(5.0))
    client.close()
    for call in (
        lambda: site.binding.wrap_key("mistyped", _KEY, _PLACE),
        lambda: site.binding.describe_key("mistyped"),
    ):
        with pytest.raises(KeyNotFound, match="none is ever made"):
            call()
    with pytest.raises(VaultError, match="404"):
        site.vault.read(f"{site.mount}/keys/mistyped")


_NO_KEYS = [
    "", " ", ".", "..", "../x", "a/b", "a//b", "%2e%2e", "%2e%2e/x", "a..b", ".a", "a.", "-a", "a-",
    "a\n", "a\x00", "a b", "a?list=true", "a#b", "ä", "a\\b", "a:b", "*", "kek/rotate",
]  # fmt: skip


@pytest.mark.parametrize("key", _NO_KEYS, ids=ascii)
def test_key_names_that_escape(site: _Site, key: str) -> None:
    """A name that transit cannot have is `KeyNotFound`, and nothing is asked."""
    wrapped = site.binding.wrap_key(site.make("kek"), _KEY, _PLACE)
    before = len(site.vault.requests())
    for call in _hooks(site, key, wrapped):
        with pytest.raises(KeyNotFound):
            call()
    assert len(site.vault.requests()) == before


@pytest.mark.parametrize("tenant", ["../x", "a/b", "%2e%2e", "a//b", "a\n", "x" * 4000])
@pytest.mark.parametrize("derived", [False, True])
def test_tenant_names_that_escape(site: _Site, tenant: str, derived: bool) -> None:  # noqa: FBT001
    """A tenant is bound as it is called, and is no part of a path."""
    key = site.make("kek", derived=derived)
    place = WrapContext(tenant, _PLACE.ring_id, 1)
    wrapped = site.binding.wrap_key(key, _KEY, place)
    assert site.binding.unwrap_key(key, wrapped, place) == _KEY
    for other in (tenant.rpartition("/")[2], f"{tenant}/", tenant.lower() + "."):
        if other != tenant:
            with pytest.raises(DecryptionFailed):
                site.binding.unwrap_key(key, wrapped, WrapContext(other, _PLACE.ring_id, 1))


def _loose(ciphertext: bytes) -> list[bytes]:
    """Return what Vault takes for the same ciphertext, or might."""
    body = ciphertext.removeprefix(b"vault:v1:")
    return [
        b"vault:v0:" + body,
        b"vault:v01:" + body,
        b"vault:v+1:" + body,
        b"vault:v1:" + body[:-1],
        b"vault:v1:" + body + b"AA",  # what AA== is, without its padding
        b"vault:v1:" + body + b"AB==",  # bits of the last letter that nothing reads
        b"vault:v1:" + body[:8] + b"\n" + body[8:],
        b"vault:v1: " + body,
        b"VAULT:v1:" + body,
        b"bao:v1:" + body,
        ciphertext + b"\n",
        "vault:v\uff11:".encode() + body,
        b"vault:v" + b"9" * 30 + b":" + body,
        b"vault:v1:",
    ]


def test_ciphertext_in_one_form_only(site: _Site) -> None:
    """What is not exactly as Vault wrote it is refused here: Vault would take some of it."""
    key = site.make("kek", type="aes256-gcm96")
    wrapped = site.binding.wrap_key(key, _KEY, _PLACE)
    loose = _loose(wrapped.ciphertext)
    asked = {"associated_data": base64.b64encode(_PLACE.canonical).decode()}
    taken = site.vault.write(f"{site.mount}/decrypt/{key}", ciphertext=loose[0].decode(), **asked)
    assert taken["data"]["plaintext"], "Vault is strict now"
    before = site.requests("decrypt")
    for each in loose:
        with pytest.raises(DecryptionFailed):
            site.binding.unwrap_key(key, WrappedKey(each, "k", "1"), _PLACE)
    assert site.requests("decrypt") == before


def test_one_message_for_whatever_does_not_open(site: _Site) -> None:
    """Tampered, another context, another KEK and a version that never was are told alike."""
    key = site.make("kek")
    wrapped = site.binding.wrap_key(key, _KEY, _PLACE)
    elsewhere = site.binding.wrap_key(site.make("other"), _KEY, _PLACE)
    body = base64.b64decode(wrapped.ciphertext.rpartition(b":")[2])
    changed = base64.b64encode(body[:-1] + bytes([body[-1] ^ 1]))
    told: set[str] = set()
    for ciphertext, place in (
        (b"vault:v1:" + changed, _PLACE),
        (b"vault:v9" + wrapped.ciphertext[8:], _PLACE),
        (b"vault:v1:AAAA", _PLACE),
        (b"nothing", _PLACE),
        (wrapped.ciphertext, WrapContext("globex", _PLACE.ring_id, 1)),
        (elsewhere.ciphertext, _PLACE),
    ):
        record = WrappedKey(ciphertext, wrapped.key_id, wrapped.key_version)
        with pytest.raises(DecryptionFailed) as caught:
            site.binding.unwrap_key(key, record, place)
        told.add(caught.value.message)
        (end,) = site.binding.unwrap_keys(key, [UnwrapRequest(record, place)])
        assert isinstance(end, DecryptionFailed)
        told.add(end.message)
    assert len(told) == 1


def test_version_that_may_not_decrypt_any_more(site: _Site) -> None:
    """Below min_decryption_version a wrap is `KeyUnavailable`, and lowering that mends it."""
    key = site.make("kek")
    wrapped = site.binding.wrap_key(key, _KEY, _PLACE)
    config = f"{site.mount}/keys/{key}/config"
    site.vault.write(f"{site.mount}/keys/{key}/rotate")
    later = site.binding.wrap_key(key, _KEY, _PLACE)
    site.vault.write(config, min_decryption_version=2)
    with pytest.raises(KeyUnavailable, match="min_decryption_version: lower it"):
        site.binding.unwrap_key(key, wrapped, _PLACE)
    ends = site.binding.unwrap_keys(
        key, [UnwrapRequest(wrapped, _PLACE), UnwrapRequest(later, _PLACE)]
    )
    assert type(ends[0]) is KeyUnavailable
    assert ends[1] == _KEY
    site.vault.write(config, min_decryption_version=1)
    assert site.binding.unwrap_key(key, wrapped, _PLACE) == _KEY
    site.vault.write(config, min_decryption_version=2, min_encryption_version=2)
    site.vault.write(f"{site.mount}/keys/{key}/trim", min_available_version=2)
    with pytest.raises(KeyUnavailable, match="trimmed"):
        site.binding.unwrap_key(key, wrapped, _PLACE)


def test_deleted_key(site: _Site) -> None:
    """A key that was deleted is `KeyNotFound` from every hook; made anew it opens nothing old."""
    wrapped = site.binding.wrap_key(site.make("kek"), _KEY, _PLACE)
    site.vault.write(f"{site.mount}/keys/kek/config", deletion_allowed=True)
    site.vault.delete(f"{site.mount}/keys/kek")
    for call in _hooks(site, "kek", wrapped):
        with pytest.raises(KeyNotFound):
            call()
    site.make("kek")
    with pytest.raises(DecryptionFailed):
        site.binding.unwrap_key("kek", wrapped, _PLACE)


@pytest.mark.parametrize("engine", ["nothing", "kv-1", "kv-2", "cubbyhole", "below"])
def test_wrong_mount(site: _Site, engine: str) -> None:
    """Where no transit engine is, that is said, and no tenant key is left in another one."""
    wrapped = site.binding.wrap_key(site.make("kek"), _KEY, _PLACE)
    others = {"cubbyhole": "cubbyhole", "below": f"{site.mount}/below"}
    mount = others.get(engine, f"{site.mount}-wrong")
    if engine.startswith("kv"):
        site.vault.write(f"sys/mounts/{mount}", type="kv", options={"version": engine[-1]})
    bench = site.open(transit=mount)
    wrong = _Site.__new__(_Site)
    wrong.binding = bench.binding
    for call in _hooks(wrong, "kek", wrapped):
        with pytest.raises(ConfigurationError, match="`transit`"):
            call()
    assert [each["operation"] for each in site.vault.requests(f"{mount}/encrypt")] == []
    findings = _found(bench)
    assert findings[0].level == ("warning" if engine == "nothing" else "error")
    assert "transit" in findings[0].message + findings[0].advice
    bench.close()
    if engine.startswith("kv"):
        site.vault.delete(f"sys/mounts/{mount}")


def test_secret_that_looks_like_a_key(site: _Site) -> None:
    """A secret in the form of a key's description does not lead a tenant key into its engine."""
    mount = f"{site.mount}-kv"
    site.vault.write(f"sys/mounts/{mount}", type="kv", options={"version": "1"})
    described = {"type": "aes256-gcm96", "latest_version": 1}
    site.vault.ask("POST", f"{mount}/keys/kek", described)
    bench = site.open(transit=mount)
    with pytest.raises(ConfigurationError, match="no transit engine"):
        bench.binding.wrap_key("kek", _KEY, _PLACE)
    assert site.vault.list(mount) == ["keys/"]
    bench.close()
    site.vault.delete(f"sys/mounts/{mount}")


def test_batch_is_one_request(site: _Site) -> None:
    """100 keys are wrapped by two requests and unwrapped by one."""
    key = site.make("kek", derived=True)
    asked = [WrapRequest(_KEY, WrapContext(f"t{number}", bytes(12), 1)) for number in range(100)]
    before = site.requests("")
    wraps = [each for each in site.binding.wrap_keys(key, asked) if isinstance(each, WrappedKey)]
    assert site.requests("") == before + 2
    undone = [UnwrapRequest(wrap, each.context) for wrap, each in zip(wraps, asked, strict=True)]
    assert site.binding.unwrap_keys(key, undone) == [_KEY] * 100
    assert site.requests("") == before + 3


@pytest.mark.parametrize("option", ["exportable", "allow_plaintext_backup"])
def test_key_that_can_leave_is_warned_of(
    site: _Site, option: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A KEK that can be taken out of Vault is warned of once, and found by `check`."""
    key = site.make("kek", **{option: True})
    for _ in range(2):
        site.binding.describe_key(key)
    assert [each.levelname for each in caplog.records] == ["WARNING"]
    assert "vault:kek" in caplog.text
    (finding,) = [each for each in site.binding.check() if each.subject == "vault:kek"]
    assert finding.level == "warning"
    assert finding.advice


def test_check(site: _Site) -> None:
    """`check` tells of the mount, of the keys that were in use, and changes nothing."""
    site.binding.describe_key(site.make("kek", derived=True))
    before = site.vault.list(f"{site.mount}/keys")
    told = {each.subject: each for each in _found(site.bench)}
    assert {each.level for each in told.values()} == {"ok"}
    assert told["vault:kek"].message == (
        "aes256-gcm96, derived, version 1, unwraps from version 1 on"
    )
    assert site.mount in told["vault"].message
    assert site.vault.list(f"{site.mount}/keys") == before


def test_doctor_shows_the_state_of_a_kek(site: _Site, tmp_path: Path) -> None:
    """Its type, its newest version and the first that unwraps; and a key that can be taken out."""
    site.make("tenants")
    site.make("leaky", exportable=True)
    site.vault.write(f"{site.mount}/keys/tenants/rotate")
    site.vault.write(f"{site.mount}/keys/tenants/config", min_decryption_version=2)
    master = tmp_path / "master"
    master.touch(0o600)
    master.write_bytes(bytes(range(32)))
    local = {
        "type": "local",
        "directory": str(tmp_path / "rings"),
        "master_keys": {"auth": f"file://{master}"},
    }
    keys = {
        "wrap_with": ["vault:tenants", "vault:leaky"],
        "authenticate_with": ["local:auth"],
        "store": "local",
    }
    backends = {"vault": site.table(), "local": local}
    found = diagnose(
        {"try": {"development": True, "backends": backends, "keys": keys}}, "try"
    ).findings
    state = "aes256-gcm96, version 2, unwraps from version 2 on"
    assert Finding("ok", "vault:tenants", state) in found
    leaky = [each for each in found if (each.level, each.subject) == ("warning", "vault:leaky")]
    assert "exportable" in leaky[0].message


def test_check_without_rights(site: _Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A token without any right in the engine is found by `check`."""
    monkeypatch.setenv("KEYS_TOKEN", site.vault.new_token("default"))
    bench = site.open()
    (finding,) = _found(bench)
    assert (finding.level, finding.subject) == ("warning", "vault")
    bench.close()


def _policies(mount: str, key: str) -> list[str]:
    """Return the policies of the README's section on KEKs, for this mount and key."""
    readme = (Path(__file__).parents[1] / "README.md").read_text()
    section = readme.partition("## KEKs in transit\n")[2].partition("\n## ")[0]
    found = re.findall(r"```hcl\n(.*?)```", section, re.DOTALL)
    return [each.replace("transit/", f"{mount}/").replace("tenant-keys", key) for each in found]


def test_policies_of_the_readme(site: _Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """The documented policies suffice for what they are for, and for nothing more."""
    key = site.make("kek")
    other = site.make("other")
    wrapped = site.binding.wrap_key(key, _KEY, _PLACE)
    of_other = site.binding.wrap_key(other, _KEY, _PLACE)
    runtime, rotator = _policies(site.mount, key)
    for rules, may_wrap in ((runtime, False), (rotator, True)):
        site.vault.policy(site.mount, rules)
        token = site.vault.new_token(site.mount)
        monkeypatch.setenv("KEYS_TOKEN", token)
        bench = site.open()
        assert bench.binding.unwrap_key(key, wrapped, _PLACE) == _KEY
        assert [each.level for each in _found(bench)] == ["ok"]
        with pytest.raises(AccessDenied):
            bench.binding.unwrap_key(other, of_other, _PLACE)
        if may_wrap:
            bench.binding.wrap_key(key, _KEY, _PLACE)
        else:
            with pytest.raises(AccessDenied):
                bench.binding.wrap_key(key, _KEY, _PLACE)
        for method, path in (
            ("POST", f"keys/{key}/rotate"),
            ("POST", f"keys/{key}/config"),
            ("DELETE", f"keys/{key}"),
            ("POST", "keys/made"),
            ("POST", "encrypt/made"),
            ("POST", f"rewrap/{key}"),
            ("POST", f"datakey/plaintext/{key}"),
            ("GET", f"export/encryption-key/{key}"),
            ("LIST", "keys"),
            *(() if may_wrap else (("POST", f"encrypt/{key}"), ("GET", f"keys/{key}"))),
        ):
            with pytest.raises(VaultError, match="403"):
                site.vault.ask(method, f"{site.mount}/{path}", {}, token=token)
        bench.close()


_PLANTED = "planted-5ecret-text"
_NONSENSE: dict[str, object] = {
    "no data": {"request_id": "x"},
    "no results": {"data": {}},
    "too few": {"data": {"batch_results": []}},
    "too many": {"data": {"batch_results": [{"plaintext": _PLANTED}] * 2}},
    "not base64": {"data": {"batch_results": [{"plaintext": _PLANTED + "!"}]}},
    "no text": {"data": {"batch_results": [{"plaintext": 7}]}},
    "a list": {"data": [_PLANTED]},
    "nothing": {"data": None},
}


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Scripted, Bench]]:
    """Return a server that answers as told, and a backend with it."""
    monkeypatch.setenv("KEYS_TOKEN", "planted-token")

    def look_up(head: str) -> bytes:
        assert "auth/token/lookup-self" in head, head
        return http(200, {"data": {"ttl": 0}})

    with Scripted(look_up) as server:
        table = {
            "type": "vault",
            "address": server.url,
            "auth": {"method": "token", "token": "env://KEYS_TOKEN"},
        }
        bench = Bench("vault", table)
        yield server, bench
        bench.close()


_CANONICAL = WrappedKey(b"vault:v1:" + base64.b64encode(bytes(60)), "k", "1")
_LOOKED_UP = http(200, {"data": {"ttl": 0}})


@pytest.mark.parametrize("what", _NONSENSE)
def test_answer_that_is_none_of_transit(scripted: tuple[Scripted, Bench], what: str) -> None:
    """An answer of another form is `ServiceUnavailable`, and nothing of it is shown."""
    server, bench = scripted
    server.answers += [_LOOKED_UP, http(200, _NONSENSE[what])]
    with pytest.raises(ServiceUnavailable, match="is no transit engine") as caught:
        bench.binding.unwrap_key("kek", _CANONICAL, _PLACE)
    assert _PLANTED not in repr((caught.value.args, caught.value.__cause__))


def test_text_of_vault_is_not_shown(scripted: tuple[Scripted, Bench]) -> None:
    """What Vault says of a refusal may repeat what it was given, and goes no further."""
    server, bench = scripted
    item = {"plaintext": "", "error": _PLANTED}
    batch = {"data": {"batch_results": [item]}}
    server.answers += [_LOOKED_UP, http(400, batch), http(400, {"errors": [_PLANTED]})]
    for _ in range(2):
        with pytest.raises(MalformedInput) as caught:
            bench.binding.unwrap_key("kek", _CANONICAL, _PLACE)
        assert _PLANTED not in repr((caught.value.args, caught.value.__cause__))


def test_batch_that_failed_within_vault(scripted: tuple[Scripted, Bench]) -> None:
    """Of a batch that Vault answers with 500 each item has its own end all the same."""
    server, bench = scripted
    good = {"plaintext": base64.b64encode(_KEY.reveal()).decode()}
    results = [good, {"error": "storage"}, {"error": "cipher: message authentication failed"}]
    server.answers += [_LOOKED_UP, *[http(500, {"data": {"batch_results": results}})] * 4]
    ends = bench.binding.unwrap_keys("kek", [UnwrapRequest(_CANONICAL, _PLACE)] * 3)
    assert ends[0] == _KEY
    assert [type(end) for end in ends[1:]] == [ServiceUnavailable, DecryptionFailed]


def test_wrap_that_is_none(scripted: tuple[Scripted, Bench]) -> None:
    """A ciphertext that could not be unwrapped again is not stored."""
    server, bench = scripted
    key = {"data": {"type": "aes256-gcm96", "latest_version": 1}}
    for ciphertext in ("", "vault:v0:AAAA", "vault:v1:!", _PLANTED):
        results = {"data": {"batch_results": [{"ciphertext": ciphertext}]}}
        server.answers += [*([] if server.requests else [_LOOKED_UP]), http(200, key)]
        server.answers.append(http(200, results))
        with pytest.raises(ServiceUnavailable):
            bench.binding.wrap_key("kek", _KEY, _PLACE)
