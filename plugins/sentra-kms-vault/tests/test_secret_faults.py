"""Secrets of KV on a real server: what goes wrong, and through `kms.secrets`."""

from __future__ import annotations

import itertools
import json
import threading
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

import pytest
import urllib3
from sentra_kms_vault.engines import Engine, Engines, Place
from sentra_kms_vault.mounts import Mounts

import sentra_kms
from sentra_kms import (
    AccessDenied,
    ConfigurationError,
    KMSError,
    MalformedInput,
    SecretNotFound,
    ServiceUnavailable,
)
from sentra_kms.hooktypes import SecretRequest, SecretValue
from sentra_kms.reference import Reference
from sentra_kms.runtime import KMS
from sentra_kms.testing import Bench
from sentra_kms.testing.faults import Garbage
from sentra_kms.testing.proxy import FaultProxy
from tests.servers.vault_server import KeptVault, Vault

pytestmark = pytest.mark.server

_NUMBERS = itertools.count()
_MOUNTS = {"secret": "kv-v2", "own-kv1": "kv-v1", "team/kv": "kv-v2"}


@pytest.fixture(scope="module", autouse=True)
def _mounts(vault: Vault) -> Iterator[None]:
    """Mount what these tests read."""
    vault.write("sys/mounts/own-kv1", type="kv", options={"version": "1"})
    vault.write("sys/mounts/team/kv", type="kv", options={"version": "2"})
    yield
    vault.delete("sys/mounts/own-kv1")
    vault.delete("sys/mounts/team/kv")


@pytest.fixture
def place() -> str:
    """Return a path of this test's own."""
    return f"own/{next(_NUMBERS)}"


@pytest.fixture
def bench(vault: Vault, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    """Return the backend as root, its mounts declared rightly."""
    monkeypatch.setenv("OWN_TOKEN", vault.token)
    bench = Bench("vault", _table(vault, _MOUNTS))
    yield bench
    bench.close()


def _table(vault: Vault, mounts: Mapping[str, str]) -> dict[str, Any]:
    return {
        "type": "vault",
        "address": vault.address,
        "auth": {"method": "token", "token": "env://OWN_TOKEN"},
        "timeout": "60s",  # so that a busy machine is no fault
        "mounts": dict(mounts),
    }


def _fetch(bench: Bench, reference: str) -> SecretValue:
    return bench.binding.fetch_secret(SecretRequest(Reference(reference)))


def _refused(kind: type[KMSError], bench: Bench, reference: str) -> str:
    with pytest.raises(kind) as caught:
        _fetch(bench, reference)
    assert type(caught.value) is kind
    return caught.value.message


def test_fields_come_as_one_json_object(vault: Vault, bench: Bench, place: str) -> None:
    """A document is its fields, whatever they are, and says which version and when it was made."""
    vault.write(f"secret/data/{place}", data={"t": "ä\n\x00", "o": {"a": [None, True, 1]}})
    found = _fetch(bench, f"vault://secret/{place}")
    assert found.data.reveal().decode() == '{"o":{"a":[null,true,1]},"t":"ä\\n\\u0000"}'
    assert found.version == "1"
    assert found.expires is None
    assert found.created is not None
    assert abs(datetime.now(UTC) - found.created) < timedelta(minutes=10)


def test_numbers_are_as_they_were_written(vault: Vault, bench: Bench, place: str) -> None:
    """Version 1 keeps the form of numbers, and so does what is read of it (2 itself does not)."""
    answer = urllib3.request(
        "POST",
        f"{vault.address}/v1/own-kv1/{place}",
        body=b'{"n":1.10,"big":12345678901234567890123}',
        headers={"X-Vault-Token": vault.token},
    )
    assert answer.status == 204
    found = _fetch(bench, f"vault://own-kv1/{place}")
    assert found.data.reveal() == b'{"big":12345678901234567890123,"n":1.10}'
    assert found.version is None


def test_read_is_one_request(vault: Vault, bench: Bench, place: str) -> None:
    """Vault's own audit log counts one request a read, from the second on: no look before it."""
    vault.write(f"secret/data/{place}", data={"a": "1"})
    vault.write(f"own-kv1/{place}", a="1")
    _fetch(bench, f"vault://secret/{place}")
    before = len(vault.requests())
    for _ in range(5):
        _fetch(bench, f"vault://secret/{place}")
        _fetch(bench, f"vault://own-kv1/{place}")
    assert len(vault.requests()) == before + 10
    assert len(vault.requests("secret/data/", place)) == 1 + 6


def test_deleted_and_destroyed_are_told_apart(vault: Vault, bench: Bench, place: str) -> None:
    """Both are not found; one can be brought back, and the message says which it is."""
    reference = f"vault://secret/{place}"
    assert "holds nothing there" in _refused(SecretNotFound, bench, reference)
    vault.write(f"secret/data/{place}", data={"a": "1"})
    vault.write(f"secret/data/{place}", data={"a": "2"})
    vault.delete(f"secret/data/{place}")
    told = _refused(SecretNotFound, bench, reference)
    assert "version 2 is deleted" in told
    assert "undelete" in told
    assert _fetch(bench, f"{reference}?version=1").data.reveal() == b'{"a":"1"}'
    vault.write(f"secret/destroy/{place}", versions=[2])
    assert "version 2 was destroyed" in _refused(SecretNotFound, bench, reference)
    assert "holds nothing there" in _refused(SecretNotFound, bench, f"{reference}?version=3")


def test_version_that_deletes_itself_expires(vault: Vault, bench: Bench, place: str) -> None:
    """What `delete_version_after` takes away is not used past that."""
    vault.write(f"secret/metadata/{place}", delete_version_after="1h")
    vault.write(f"secret/data/{place}", data={"a": "1"})
    found = _fetch(bench, f"vault://secret/{place}")
    assert found.expires is not None
    assert found.created is not None
    assert found.expires - found.created == timedelta(hours=1)


def test_longest_mount_holds(vault: Vault, bench: Bench, place: str) -> None:
    """A mount of several segments is found where it is declared."""
    vault.write(f"team/kv/data/{place}", data={"a": "1"})
    assert _fetch(bench, f"vault://team/kv/{place}").data.reveal() == b'{"a":"1"}'


def test_longest_of_several_mounts() -> None:
    """Of mounts that lie in one another the longest is meant; else KV version 2 is."""
    declared: dict[str, Engine] = {"a": "kv-v1", "a/b": "kv-v2", "a/b/c/d": "dynamic"}
    engines = Engines("vault", declared, Mounts())
    assert engines.place(Reference("vault://a/b/c/x")) == Place("a/b", "kv-v2", "c/x")
    assert engines.place(Reference("vault://a/bc/x")) == Place("a", "kv-v1", "bc/x")
    assert engines.place(Reference("vault://a/b/c/d")) == Place("a/b", "kv-v2", "c/d")
    assert engines.place(Reference("vault://b/a/b/x")) == Place("b", "kv-v2", "a/b/x")


def test_mount_that_is_not_there_is_not_not_found(bench: Bench) -> None:
    """A wrong mount is a wrong configuration: a chain of references must not go on from it."""
    assert "no engine is mounted" in _refused(ConfigurationError, bench, "vault://nowhere/x")


def test_undeclared_mount_of_several_segments(
    vault: Vault, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """What lies below a mount of several segments is not taken to be missing in another."""
    monkeypatch.setenv("OWN_TOKEN", vault.token)
    bench = Bench("vault", _table(vault, {}))
    assert "`mounts`" in _refused(ConfigurationError, bench, f"vault://team/kv/{place}")
    bench.close()


@pytest.mark.parametrize(
    ("mount", "wrong"),
    [("own-kv1", "kv-v2"), ("secret", "kv-v1"), ("secret", "dynamic"), ("transit", "kv-v2"),
     ("transit", "kv-v1"), ("secret/deeper", "kv-v2")],
)  # fmt: skip
def test_wrong_engine_is_not_not_found(
    vault: Vault, monkeypatch: pytest.MonkeyPatch, mount: str, wrong: str
) -> None:
    """An engine that is another than `mounts` says answers that nothing is there: not believed."""
    monkeypatch.setenv("OWN_TOKEN", vault.token)
    bench = Bench("vault", _table(vault, {mount: wrong}))
    with pytest.raises((ConfigurationError, MalformedInput), match="mounts"):
        _fetch(bench, f"vault://{mount}/no/such")
    findings = [each for each in bench.binding.check() if each.subject == f"vault://{mount}"]
    assert [each.level for each in findings] == ["error"]
    assert "mounts" in findings[0].message
    bench.close()


def test_engine_of_version_1_that_answers_in_the_place_of_2(
    vault: Vault, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A secret of version 1 that lies where version 2 would have it is not given out."""
    monkeypatch.setenv("OWN_TOKEN", vault.token)
    vault.write("own-kv1/data/x", data="planted")
    bench = Bench("vault", _table(vault, {"own-kv1": "kv-v2"}))
    told = _refused(ConfigurationError, bench, "vault://own-kv1/x")
    assert "is of type kv, version 1, and not KV version 2" in told
    bench.close()


def test_mount_is_verified_once(vault: Vault, bench: Bench, place: str) -> None:
    """What is not there costs a second request once for each mount, and then one."""
    looks = len(vault.requests("sys/internal/ui/mounts/secret"))
    for _ in range(4):
        _refused(SecretNotFound, bench, f"vault://secret/{place}")
    assert len(vault.requests("sys/internal/ui/mounts/secret")) == looks + 1


def test_check_names_what_is_mounted(bench: Bench) -> None:
    """`check` looks at each mount that is declared."""
    found = {each.subject: each for each in bench.binding.check()}
    assert found["vault://secret"].message == "is KV version 2"
    assert found["vault://own-kv1"].message == "is KV version 1"
    mounts = [each for each in found.values() if each.subject.startswith("vault://")]
    assert [each.level for each in mounts] == ["ok"] * len(_MOUNTS)


def test_check_of_a_mount_that_may_not_be_looked_at(
    vault: Vault, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A token without any right below a mount is warned of, with what to grant."""
    vault.policy("own-little", 'path "secret/data/own/*" { capabilities = ["read"] }')
    monkeypatch.setenv("OWN_TOKEN", vault.new_token("own-little"))
    bench = Bench("vault", _table(vault, {"own-kv1": "kv-v1", "secret": "kv-v2"}))
    found = {each.subject: each.level for each in bench.binding.check()}
    assert (found["vault://own-kv1"], found["vault://secret"]) == ("warning", "ok")
    bench.close()


@pytest.mark.parametrize(
    "path",
    ["secret", "secret/", "secret//x", "/secret/x", "secret/x/", "secret/%2fx", "secret/x%2f",
     "secret/own%2f%2fx"],
)  # fmt: skip
def test_paths_with_empty_segments(vault: Vault, bench: Bench, path: str) -> None:
    """Encoded or not, what has empty segments is refused before anything is asked."""
    before = len(vault.requests())
    assert "empty segments" in _refused(MalformedInput, bench, f"vault://{path}")
    assert len(vault.requests()) == before


@pytest.mark.parametrize(
    "path",
    ["secret/../sys/mounts", "secret/%2e%2e/x", "secret/x%2f..%2fy", "secret/./x", "..%2fx/y"],
)
def test_paths_that_escape(path: str) -> None:
    """What would leave its mount is no reference at all."""
    with pytest.raises(MalformedInput, match="segment"):
        Reference(f"vault://{path}")


@pytest.mark.parametrize(
    "name", ["%252e%252e", "..%252fy", "a%3Fversion=1", "a%23b", "ä%20b", "a+*"]
)
def test_odd_names_are_names(vault: Vault, bench: Bench, place: str, name: str) -> None:
    """Characters that mean something in a URL are a name's own: read where they were written."""
    reference = Reference(f"vault://secret/{place}/{name}")
    inside = reference.path.removeprefix("secret/")
    vault.write(f"secret/data/{quote(inside)}", data={"a": "1"})
    assert _fetch(bench, reference).data.reveal() == b'{"a":"1"}'


@pytest.mark.parametrize(
    ("reference", "told"),
    [("secret/x?version=0", "a number from 1"), ("secret/x?version=-1", "a number from 1"),
     ("secret/x?version=1%00", "a number from 1"), ("secret/x?version=01", "a number from 1"),
     ("secret/x?stage=x", "no option but 'version'"), ("own-kv1/x?version=1", "no options"),
     ("secret/x?version=1&list=true", "no option but 'version'")],
)  # fmt: skip
def test_options_that_are_not_known(vault: Vault, bench: Bench, reference: str, told: str) -> None:
    """Only version 2 has versions, from 1 on; nothing else gets into a request."""
    before = len(vault.requests())
    assert told in _refused(MalformedInput, bench, f"vault://{reference}")
    assert len(vault.requests()) == before


def test_huge_secrets_are_refused(vault: Vault, monkeypatch: pytest.MonkeyPatch) -> None:
    """More than 1 MiB is no secret, and more than 4 MiB is not even read."""
    place = f"own/{next(_NUMBERS)}"
    with _kms(vault, monkeypatch, {"A": f"vault://secret/{place}#a"}) as kms:
        vault.write(f"secret/data/{place}", data={"a": "x" * 2**20})
        with pytest.raises(MalformedInput, match="more than 1048576 bytes"):
            kms.secrets.get("A")
        vault.write(f"secret/data/{place}", data={"a": "x" * 5 * 2**20})
        with pytest.raises(ServiceUnavailable, match="more than 4194304 bytes"):
            kms.secrets.refresh("A")


def test_policy_removed_while_in_use(vault: Vault, monkeypatch: pytest.MonkeyPatch) -> None:
    """A denial is believed at the next look, and does not let a chain go on."""
    place = f"own/{next(_NUMBERS)}"
    for each in ("first", "second"):
        vault.write(f"secret/data/{place}/{each}", data={"a": each})
    vault.policy("own-removed", f'path "secret/data/{place}/*" {{ capabilities = ["read"] }}')
    token = vault.new_token("own-removed")
    chain = {"from": [f"vault://secret/{place}/first#a", f"vault://secret/{place}/second#a"]}
    with _kms(vault, monkeypatch, {"A": chain}, token) as kms:
        assert kms.secrets.get("A").reveal() == "first"
        vault.policy(
            "own-removed", f'path "secret/data/{place}/second" {{ capabilities = ["read"] }}'
        )
        with pytest.raises(AccessDenied, match="policies"):
            kms.secrets.refresh("A")


def test_fields_versions_and_rotation(vault: Vault, monkeypatch: pytest.MonkeyPatch) -> None:
    """Through `kms.secrets`: fields of one document are one request, and a rotation is seen."""
    place = f"own/{next(_NUMBERS)}"
    vault.write(f"secret/data/{place}", data={"user": "app", "password": "p@ss/1"})
    entries = {
        "URL": {
            "template": "postgresql://{user}:{password}@db/app",
            "user": f"vault://secret/{place}#user",
            "password": f"vault://secret/{place}#password",
        },
        "FIRST": f"vault://secret/{place}?version=1#password",
    }
    changed = threading.Event()
    with _kms(vault, monkeypatch, entries) as kms:
        assert kms.secrets.get("URL").reveal() == "postgresql://app:p%40ss%2F1@db/app"
        assert len(vault.requests("secret/data/", place)) == 1 + 1
        with kms.secrets.watch("URL", lambda _: changed.set(), interval=0.05):
            vault.write(f"secret/data/{place}", data={"user": "app", "password": "two"})
            assert changed.wait(60)
        new = kms.secrets.get("URL")
        assert (new.reveal(), new.version) == (
            "postgresql://app:two@db/app",
            "user=2,password=2",
        )
        assert kms.secrets.get("FIRST").reveal() == "p@ss/1"


def test_sealed_while_in_use(kept_vault: KeptVault, monkeypatch: pytest.MonkeyPatch) -> None:
    """While Vault is sealed, held values are used; unsealed, the new one is seen."""
    kept_vault.write("secret/data/app", data={"a": "before"})
    with _kms(kept_vault, monkeypatch, {"A": "vault://secret/app#a"}) as kms:
        assert kms.secrets.get("A").reveal() == "before"
        kept_vault.seal()
        kms.secrets.expire()  # its time to live is over
        assert kms.secrets.get("A").reveal() == "before"
        with pytest.raises(ServiceUnavailable, match="unseal it"):
            kms.secrets.refresh("A")
        with pytest.raises(ServiceUnavailable, match="unseal it"):
            kms.secrets.get("vault://secret/never-seen")
        assert kms.secrets.get("A").reveal() == "before"
        kept_vault.unseal()
        kept_vault.write("secret/data/app", data={"a": "after"})
        assert kms.secrets.refresh("A").reveal() == "after"


@pytest.mark.parametrize("mount", ["secret", "own-kv1"])
@pytest.mark.parametrize("body", [{}, {"status": "maintenance"}, {"data": None}], ids=str)
def test_answer_of_somebody_on_the_way_is_an_outage(
    vault: Vault, monkeypatch: pytest.MonkeyPatch, mount: str, body: object
) -> None:
    """What a proxy says in Vault's place ends no value, nor does it let a list go on.

    It is told from another engine, which is a wrong configuration, by a look at the mounts.
    """
    place = f"own/{next(_NUMBERS)}"
    path = f"secret/data/{place}" if mount == "secret" else f"own-kv1/{place}"
    vault.write(path, **({"data": {"a": "good"}} if mount == "secret" else {"a": "good"}))
    data = json.dumps(body).encode()
    garbage = Garbage(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(data) + data)
    monkeypatch.setenv("OWN_TOKEN", vault.token)
    with FaultProxy("127.0.0.1", vault.port) as proxy:
        environment = {
            "development": True,
            "backends": {"vault": {**_table(vault, _MOUNTS), "address": proxy.url}},
            "secrets": {"A": {"from": [f"vault://{mount}/{place}#a", "env://OWN_TOKEN"]}},
        }
        with sentra_kms.load({"own": environment}, "own") as kms:
            assert kms.secrets.get("A").reveal() == "good"
            for _ in range(2):
                proxy.always(garbage)
                with pytest.raises(ServiceUnavailable):
                    kms.secrets.refresh("A")
                assert kms.secrets.get("A").reveal() == "good"
                proxy.always(None)
                with pytest.raises(SecretNotFound):  # by which the mount is known the next time
                    kms.secrets.get(f"vault://{mount}/{place}/nothing")
            assert kms.secrets.refresh("A").reveal() == "good"


def _kms(
    vault: Vault,
    monkeypatch: pytest.MonkeyPatch,
    secrets: Mapping[str, object],
    token: str | None = None,
) -> KMS:
    monkeypatch.setenv("OWN_TOKEN", token or vault.token)
    environment = {
        "development": True,
        "backends": {"vault": _table(vault, {"secret": "kv-v2"})},
        "secrets": dict(secrets),
    }
    return sentra_kms.load({"own": environment}, "own")
