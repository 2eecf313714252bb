"""The doctor: each fault is told with what to do, nothing else is, and nothing is changed."""

from __future__ import annotations

import json
import logging
import os
import sys
from base64 import b64encode
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

import sentra_kms
from sentra_kms import ConfigurationError
from sentra_kms.backends import file, file_system
from sentra_kms.backends.env import EnvSecrets
from sentra_kms.backends.ring_files import RingFiles
from sentra_kms.doctor import Diagnosis, diagnose
from sentra_kms.hooktypes import Finding
from tests.ground.leaks import shows
from tests.plugin.distributions import install

SECRET = "AbCd0123-planted-s3cr3t-hunter2-hunter2-XyZ"
PHRASE = "correct horse battery staple, and a little more of it"
RING_BOUND = 256 * 1024


class House:
    """A production environment without a fault, with one tenant, and ways to break it."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root = root
        self.patch = monkeypatch
        self.keys = root / "keys"
        self.secrets = root / "secrets"
        self.secrets.mkdir()
        monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(self.secrets))
        monkeypatch.setenv("SENTRA_KMS_ENV", "production")
        self.secret("master", b64encode(os.urandom(32)))
        self.tables: dict[str, Any] = {"production": self.environment("master")}
        with sentra_kms.load(self.tables) as kms:
            kms.keys.create("acme")

    def secret(self, name: str, data: bytes) -> Path:
        """Write a secret's file."""
        file = self.secrets / name
        file.write_bytes(data)
        file.chmod(0o600)
        return file

    def environment(self, secret: str, directory: str = "keys") -> dict[str, Any]:
        """Return an environment with one master key."""
        return {
            "backends": {
                "local": {
                    "type": "local",
                    "directory": str(self.root / directory),
                    "master_keys": {"k": f"file://{self.secrets / secret}"},
                }
            },
            "keys": {"wrap_with": ["local:k"], "store": "local"},
        }

    @property
    def production(self) -> dict[str, Any]:
        """The environment that is diagnosed."""
        table: dict[str, Any] = self.tables["production"]
        return table

    @property
    def local(self) -> dict[str, Any]:
        """Its backend."""
        table: dict[str, Any] = self.production["backends"]["local"]
        return table

    def diagnose(self, *, offline: bool = False) -> Diagnosis:
        """Diagnose it, and hold the doctor to what it always promises."""
        before = snapshot(self.root)
        found = diagnose(self.tables, offline=offline)
        assert snapshot(self.root) == before
        for each in found.findings:
            assert each.level == "ok" or each.advice or ": " in each.message, each
        assert len(set(found.findings)) == len(found.findings)
        return found


def snapshot(root: Path) -> dict[str, object]:
    """Return everything that could be seen to change below a directory."""
    found: dict[str, object] = {}
    for path in [root, *root.rglob("*")]:
        status = path.lstat()
        content = path.read_bytes() if path.is_file() and not path.is_symlink() else b""
        found[str(path)] = (status.st_mode, status.st_size, status.st_mtime_ns, content)
    return found


def bad(found: Diagnosis) -> list[Finding]:
    """Return what is not fine."""
    return [each for each in found.findings if each.level != "ok"]


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> House:
    """Return an environment without a fault."""
    return House(tmp_path, monkeypatch)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return a directory where distributions can be installed for this test."""
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # doctor itself changes no file
    before = set(sys.modules)
    yield site
    for name in set(sys.modules) - before:
        if name.startswith("acme"):
            del sys.modules[name]


# --- a good one --------------------------------------------------------------------------------


@pytest.mark.parametrize("offline", [False, True])
def test_nothing_to_mend(house: House, *, offline: bool) -> None:
    """Without a fault nothing is worse than fine; only online is anything tried."""
    found = house.diagnose(offline=offline)
    assert bad(found) == []
    assert found.level == "ok"
    assert (found.offline, found.tried) == (offline, not offline)
    told = [each.message for each in found.findings]
    assert any("wraps and unwraps" in each for each in told) is not offline
    assert any("authenticates rings" in each for each in told) is not offline
    assert "keeps key rings" in told or offline


def test_distributions(house: House) -> None:
    """The version of the core is told, and of which hooks."""
    assert house.diagnose().distributions == (("sentra-kms", sentra_kms.__version__, "1.0"),)


# --- one fault each ----------------------------------------------------------------------------

Mend = Callable[[], object]


def foreign_file(house: House) -> Mend:
    """A file of somebody else lies among the rings."""
    file = house.keys / "notes.txt"
    file.touch()
    return file.unlink


def foreign_directory(house: House) -> Mend:
    """A directory does."""
    directory = house.keys / "lost+found"
    directory.mkdir()
    return directory.rmdir


def left_behind(house: House) -> Mend:
    """A writer was killed."""
    file = house.keys / ".acme.ab12cd34.tmp"
    file.touch(0o600)
    return file.unlink


def open_ring(house: House) -> Mend:
    """Others may read a ring."""
    file = house.keys / "acme.ring"
    file.chmod(0o644)
    return lambda: file.chmod(0o600)


def linked_ring(house: House) -> Mend:
    """A ring is a symlink."""
    link = house.keys / "globex.ring"
    link.symlink_to(house.keys / "acme.ring")
    return link.unlink


def full_ring(house: House) -> Mend:
    """A ring has reached three quarters of its bound."""
    file = house.keys / "big.ring"
    with sentra_kms.load(house.tables) as kms:
        kms.keys.create("big")
        while file.stat().st_size < RING_BOUND * 3 // 4:
            request = f"{file.stat().st_size} {chr(0x1F600) * 240}"
            kms.keys.rotate("big", request_id=request)
    return file.unlink


def open_directory(house: House) -> Mend:
    """Others may look into the key directory."""
    house.keys.chmod(0o755)
    return lambda: house.keys.chmod(0o700)


def no_directory(house: House) -> Mend:
    """The key directory is not there."""
    house.keys.rename(house.root / "elsewhere")
    return lambda: (house.root / "elsewhere").rename(house.keys)


def network_directory(house: House) -> Mend:
    """The key directory is on a network file system."""
    kind = file_system._kind_of
    house.patch.setattr(file_system, "_kind_of", lambda *_: "nfs4")
    return lambda: house.patch.setattr(file_system, "_kind_of", kind)


def open_secret(house: House) -> Mend:
    """Others may read the master key."""
    file = house.secrets / "master"
    file.chmod(0o644)
    return lambda: file.chmod(0o600)


def no_secret(house: House) -> Mend:
    """The master key's file is not there."""
    file = house.secrets / "master"
    file.rename(house.root / "master")
    return lambda: (house.root / "master").rename(file)


def pass_phrase(house: House) -> Mend:
    """The master key is a pass-phrase."""
    key = (house.secrets / "master").read_bytes()
    house.secret("master", PHRASE.encode())
    return lambda: house.secret("master", key)


def short_ring_key(house: House) -> Mend:
    """The ring authentication key is not base64 of 32 bytes."""
    house.secret("ring_key", SECRET.encode())
    house.production["keys"]["authenticate_with"] = [f"file://{house.secrets}/ring_key"]
    return lambda: house.production["keys"].pop("authenticate_with")


def unknown_master_key(house: House) -> Mend:
    """A KEK is named that its backend has no master key for."""
    house.production["keys"]["unwrap_with"] = ["local:older"]
    return lambda: house.production["keys"].update(unwrap_with=[])


def no_master_keys(house: House) -> Mend:
    """The backend that should wrap has no master keys at all."""
    keys = house.local.pop("master_keys")
    return lambda: house.local.update(master_keys=keys)


def loose_file(house: House) -> Mend:
    """A secret's file lies outside the directories for secrets."""
    house.patch.delenv("CREDENTIALS_DIRECTORY")
    return lambda: house.patch.setenv("CREDENTIALS_DIRECTORY", str(house.secrets))


def no_keys_table(house: House) -> Mend:
    """There is nothing to keep tenants' keys with."""
    keys = house.production.pop("keys")
    return lambda: house.production.update(keys=keys)


def no_observer(house: House) -> Mend:
    """An observer is named that nothing brings."""
    house.production["audit"] = {"observers": ["siem"]}
    return lambda: house.production.pop("audit")


def development_by_default(house: House) -> Mend:
    """A process that names no environment would land in development."""
    house.secret("dev", b64encode(os.urandom(32)))
    house.tables["default_environment"] = "development"
    house.tables["development"] = house.environment("dev", "dev-keys") | {"development": True}
    return lambda: house.tables.update(default_environment="production")


def second(house: House, file: str = "other", directory: str = "other-keys") -> dict[str, Any]:
    """Add an environment, which is as good as the first."""
    if not (house.secrets / file).exists():
        house.secret(file, b64encode(os.urandom(32)))
    table = house.environment(file, directory)
    house.tables["staging"] = table
    return table


def broken_elsewhere(house: House) -> Mend:
    """Another environment would be refused."""
    table = second(house)
    table["keyz"] = {}
    return lambda: table.pop("keyz")


def not_installed_elsewhere(house: House) -> Mend:
    """Another environment names a type that is not installed here."""
    table = second(house)
    table["backends"]["away"] = {"type": "oci-elsewhere"}
    return lambda: table["backends"].pop("away")


def unknown_master_key_elsewhere(house: House) -> Mend:
    """In another environment a KEK is named that has no master key."""
    table = second(house)
    table["keys"]["unwrap_with"] = ["local:older"]
    return lambda: table["keys"].pop("unwrap_with")


def shared_reference(house: House) -> Mend:
    """Two environments read one secret."""
    second(house, "master")
    return lambda: second(house)


def shared_directory(house: House) -> Mend:
    """Two environments keep rings in one directory."""
    second(house, directory="keys")
    return lambda: second(house)


def shared_master_key(house: House) -> Mend:
    """Two environments have one master key, in files of their own."""
    house.secret("other", (house.secrets / "master").read_bytes())
    second(house)
    return lambda: house.secret("other", b64encode(os.urandom(32)))


FAULTS: dict[Callable[[House], Mend], tuple[str, str, str, bool]] = {
    foreign_file: ("warning", "notes.txt", "is no key ring and is never read", False),
    foreign_directory: ("warning", "lost+found", "is no key ring", False),
    left_behind: ("warning", ".acme.ab12cd34.tmp", "left behind", False),
    open_ring: ("error", "acme.ring", "mode 644", False),
    linked_ring: ("error", "globex.ring", "not a regular file", False),
    full_ring: ("warning", "big.ring", "75 % full", False),
    open_directory: ("error", "keys", "mode 755", False),
    no_directory: ("warning", "keys", "does not exist yet", False),
    network_directory: ("error", "keys", "network file system (nfs4)", False),
    open_secret: ("warning", "file", "master has mode 644", False),
    no_secret: ("error", "local:k", "master does not exist", False),
    pass_phrase: ("error", "local:k", "neither hex", False),
    short_ring_key: ("error", "ring_key", "base64 of exactly 32 bytes", False),
    unknown_master_key: ("error", "local:older", "has no master key 'older' (it has k)", True),
    no_master_keys: ("error", "local:k", "has no master key 'k' (it has none)", True),
    loose_file: ("warning", "secrets/master", "outside the directories for secrets", True),
    no_keys_table: ("warning", "production", "no table [keys]", True),
    no_observer: ("error", "siem", "no such observer is installed", True),
    development_by_default: ("error", "default_environment", "may not name 'development'", True),
    broken_elsewhere: ("error", "staging", "unknown key 'keyz'; did you mean 'keys'?", True),
    not_installed_elsewhere: ("warning", "staging", "no backend type 'oci-elsewhere'", True),
    unknown_master_key_elsewhere: ("error", "local:older", "[staging.keys] unwrap_with", True),
    shared_reference: ("warning", "secrets/master", "production and staging", True),
    shared_directory: ("warning", "keys", "production and staging", True),
    shared_master_key: ("warning", "master key with id", "local:k of staging", False),
}
"""What is found: level, end or beginning of the subject, a part of the message, offline too."""


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_a_fault(house: House, fault: Callable[[House], Mend]) -> None:
    """It is told once, and nothing else is; it is gone once it is mended."""
    level, subject, message, _ = FAULTS[fault]
    mend = fault(house)
    found = house.diagnose()
    [told] = bad(found)
    assert (told.level, found.level) == (level, level)
    assert told.subject.endswith(subject) or told.subject.startswith(subject)
    assert message in told.message
    mend()
    assert bad(house.diagnose()) == []


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_a_fault_offline(house: House, fault: Callable[[House], Mend]) -> None:
    """What the configuration shows by itself is told offline, too; the rest is not looked at."""
    level, _, message, offline = FAULTS[fault]
    mend = fault(house)
    told = bad(house.diagnose(offline=True))
    assert [(each.level, message in each.message) for each in told] == [(level, True)] * offline
    mend()
    assert bad(house.diagnose(offline=True)) == []


def test_every_fault_of_the_list_is_tested() -> None:
    """No fault above was forgotten in the table."""
    faults = {
        each
        for each in globals().values()
        if callable(each) and getattr(each, "__annotations__", {}).get("return") == "Mend"
    }
    assert faults == set(FAULTS)


def test_what_load_refuses_is_an_error(house: House) -> None:
    """If the chosen environment cannot be loaded, the doctor says so as `load` does."""
    house.production["keys"]["store"] = "lokal"
    with pytest.raises(ConfigurationError) as refused:
        sentra_kms.load(house.tables)
    found = house.diagnose()
    [told] = bad(found)
    assert told.message in refused.value.message
    assert told.level == "error"
    assert (found.tried, found.explained) == (False, ())


def test_a_fault_of_shared_is_told_of_each_environment(house: House) -> None:
    """It stops the doctor from nothing else, not even with a default environment."""
    second(house)
    house.tables["shared"] = {"development": True}
    house.tables["default_environment"] = "production"
    found = house.diagnose()
    assert [(each.level, each.subject) for each in bad(found)] == [
        ("error", "production"),
        ("error", "staging"),
    ]
    assert "'development' stands in the environment" in found.findings[0].message


def test_what_a_backend_cannot_do_is_an_error(house: House) -> None:
    """A store that keeps no rings is refused when it is bound, offline as well."""
    house.production["keys"]["store"] = "file"
    house.production["backends"]["file"] = {"type": "file"}
    for offline in (False, True):
        [told] = bad(house.diagnose(offline=offline))
        assert (told.level, told.subject) == ("error", "production")
        assert "save_ring" in told.message


def test_two_keks_of_one_missing_secret_are_both_told(house: House) -> None:
    """Each KEK that cannot be used is named."""
    house.local["master_keys"]["j"] = house.local["master_keys"]["k"]
    house.production["keys"]["unwrap_with"] = ["local:j"]
    no_secret(house)
    assert [each.subject for each in bad(house.diagnose())] == ["local:k", "local:j"]


def test_the_directory_of_a_backend_that_keeps_no_rings(house: House) -> None:
    """A backend that is there for its KEKs only needs no key directory."""
    house.secret("more", b64encode(os.urandom(32)))
    house.production["backends"]["older"] = {
        "type": "local",
        "directory": str(house.root / "absent"),
        "master_keys": {"k": f"file://{house.secrets}/more"},
    }
    house.production["keys"]["unwrap_with"] = ["older:k"]
    assert bad(house.diagnose()) == []


def test_memory(house: House) -> None:
    """A backend in memory has nothing to mend."""
    table = {"memory": {"type": "memory"}}
    keys = {"wrap_with": ["memory:k"], "store": "memory"}
    tables = {"test": {"development": True, "backends": table, "keys": keys}}
    assert bad(diagnose(tables, "test")) == []


# --- other environments ------------------------------------------------------------------------


def test_secrets_of_another_environment_need_not_be_in_reach(house: House) -> None:
    """Master keys that cannot be read here are not compared, which is no fault."""
    second(house)
    (house.secrets / "other").unlink()
    found = house.diagnose()
    assert bad(found) == []
    [told] = [each for each in found.findings if each.subject == "staging"]
    assert "were not compared: local:k" in told.message


def test_one_reference_is_not_told_twice(house: House) -> None:
    """That one secret has one fingerprint needs no finding of its own."""
    second(house, "master")
    assert len(bad(house.diagnose())) == 1


def test_a_master_key_under_two_names_of_one_environment(house: House) -> None:
    """Only what two environments share is told."""
    house.secret("copy", (house.secrets / "master").read_bytes())
    house.local["master_keys"]["j"] = f"file://{house.secrets}/copy"
    second(house)
    assert bad(house.diagnose()) == []


def test_backends_of_another_name(house: House) -> None:
    """A secret is the same whatever the backend is called through which it is read."""
    table = second(house)
    table["backends"]["disk"] = {"type": "file"}
    table["backends"]["local"]["master_keys"]["k"] = f"disk://{house.secrets}/master"
    [told] = bad(house.diagnose(offline=True))
    assert told.subject == f"file://{house.secrets}/master and disk://{house.secrets}/master"


# --- offline -----------------------------------------------------------------------------------


def test_offline_fetches_nothing(house: House) -> None:
    """No secret is read and no directory opened: what would do so is not called."""
    second(house)
    called: list[str] = []

    def watch(kind: object, name: str) -> None:
        def refuse(*_: object, **__: object) -> None:
            called.append(name)
            raise AssertionError(name)

        house.patch.setattr(kind, name, refuse)

    watch(file, "read_anywhere")
    watch(EnvSecrets, "fetch_secret")
    watch(RingFiles, "_open_directory")
    assert house.diagnose(offline=True).level == "ok"
    assert called == []
    assert house.diagnose().level == "error"
    assert {"read_anywhere", "_open_directory"} <= set(called)


def test_offline_leaves_a_pipe_alone(house: House) -> None:
    """A secret that can be read only once is still there afterwards."""
    pipe = house.secrets / "master"
    pipe.unlink()
    os.mkfifo(pipe, 0o600)
    held = os.open(pipe, os.O_RDWR | os.O_NONBLOCK)
    try:
        os.write(held, b"once")
        assert diagnose(house.tables, offline=True).level == "ok"
        assert os.read(held, 10) == b"once"
    finally:
        os.close(held)


def test_nothing_is_made(house: House) -> None:
    """A key directory that is not there is not made by looking."""
    house.local["directory"] = str(house.root / "absent")
    house.diagnose()
    assert not (house.root / "absent").exists()


# --- what is shown -----------------------------------------------------------------------------


def shown(found: Diagnosis) -> dict[str, tuple[str, str]]:
    """Return value and origin by path."""
    assert len({each.path for each in found.explained}) == len(found.explained)
    return {each.path: (each.value, each.origin) for each in found.explained}


def test_every_value_and_where_it_comes_from(house: House) -> None:
    """The environment's own, those of [shared], and defaults."""
    house.tables["shared"] = {"cache": {"key_ttl": "90s", "ring_ttl": "1m"}}
    house.production["cache"] = {"ring_ttl": "10s"}
    house.local["timeout"] = "2s"
    assert shown(house.diagnose()) == {
        "development": ("false", "default"),
        "backends.file.type": ("file", "default"),
        "backends.file.directory": ("not set", "default"),
        "backends.file.timeout": ("5s", "default"),
        "backends.local.type": ("local", "[production]"),
        "backends.local.directory": (str(house.keys), "[production]"),
        "backends.local.master_keys.k": (f"file://{house.secrets}/master", "[production]"),
        "backends.local.timeout": ("2s", "[production]"),
        "keys.wrap_with": ("[local:k]", "[production]"),
        "keys.unwrap_with": ("[]", "default"),
        "keys.authenticate_with": ("[local:k]", "default"),
        "keys.store": ("local", "[production]"),
        "keys.previous_store": ("not set", "default"),
        "keys.min_wraps": ("1", "default"),
        "keys.rotate_after": ("not set", "default"),
        "cache.key_ttl": ("90s", "[shared]"),
        "cache.ring_ttl": ("10s", "[production]"),
        "cache.max_stale": ("1h", "default"),
        "cache.max_keys": ("10000", "default"),
        "audit.observers": ("[]", "default"),
    }


def test_where_the_key_directory_comes_from(house: House, tmp_path: Path) -> None:
    """Absolute, with what is written; else by ENCRYPTION_KEYS_DIR; else by default."""
    house.patch.chdir(tmp_path)
    path = "backends.local.directory"
    house.local["directory"] = "keys"
    assert shown(house.diagnose())[path] == (str(tmp_path / "keys"), "[production], as keys")
    del house.local["directory"]
    house.patch.setenv("ENCRYPTION_KEYS_DIR", str(house.keys))
    found = house.diagnose()
    assert shown(found)[path] == (str(house.keys), "ENCRYPTION_KEYS_DIR")
    assert bad(found) == []
    house.patch.delenv("ENCRYPTION_KEYS_DIR")
    assert shown(diagnose(house.tables, offline=True))[path] == ("/app/keys", "default")


def test_who_chose(house: House, tmp_path: Path) -> None:
    """The file and the environment are told with who named them."""
    tables = {"default_environment": "a", "a": {}, "b": {}}
    text = 'default_environment = "a"\n[a]\n[b]\n'
    file = tmp_path / "sentra-kms.toml"
    file.write_text(text)
    house.patch.chdir(tmp_path)
    house.patch.delenv("SENTRA_KMS_ENV")

    def chosen(*arguments: Any) -> tuple[str, str, str]:
        found = diagnose(*arguments, offline=True)
        return found.source_from, found.environment, found.environment_from

    assert chosen() == ("working directory", "a", "default_environment")
    assert chosen(file, "b") == ("argument", "b", "argument")
    assert chosen(tables) == ("argument", "a", "default_environment")
    house.patch.setenv("SENTRA_KMS_ENV", "b")
    house.patch.setenv("SENTRA_KMS_CONFIG", str(file))
    assert chosen() == ("SENTRA_KMS_CONFIG", "b", "SENTRA_KMS_ENV")


def test_no_environment_is_an_error_to_the_caller(house: House) -> None:
    """Without an environment there is nothing to explain."""
    house.patch.delenv("SENTRA_KMS_ENV")
    with pytest.raises(ConfigurationError, match="no environment is named"):
        diagnose(house.tables)
    with pytest.raises(ConfigurationError, match="no environment 'x'"):
        diagnose(house.tables, "x")


def test_odd_names_stay_apart(house: House) -> None:
    """A key with a dot is quoted, as in the file."""
    house.local["master_keys"] = {"a.b": house.local["master_keys"]["k"]}
    house.production["keys"]["wrap_with"] = ["local:a.b"]
    assert 'backends.local.master_keys."a.b"' in shown(house.diagnose(offline=True))


# --- secrets -----------------------------------------------------------------------------------


def planted(house: House, place: str) -> None:
    """Put a secret where a reference or a name belongs."""
    match place:
        case "a master key":
            house.local["master_keys"]["k"] = SECRET
        case "a master key beside a good one":
            house.local["master_keys"]["j"] = SECRET
        case "an authentication key":
            house.production["keys"]["authenticate_with"] = [SECRET]
        case "a KEK":
            house.production["keys"]["wrap_with"] = [SECRET]
        case "a duration":
            house.local["timeout"] = SECRET
        case "an unknown key":
            house.local["password"] = SECRET
        case "another environment":
            second(house)["backends"]["local"]["master_keys"]["k"] = SECRET
        case _:
            house.tables["shared"] = {"keys": {"authenticate_with": [SECRET]}}


@pytest.mark.parametrize("offline", [False, True])
@pytest.mark.parametrize(
    "place",
    [
        "a master key",
        "a master key beside a good one",
        "an authentication key",
        "a KEK",
        "a duration",
        "an unknown key",
        "another environment",
        "shared",
    ],
)
def test_a_misplaced_secret_is_shown_nowhere(house: House, place: str, *, offline: bool) -> None:
    """It is refused, and stands in no finding and no explanation."""
    planted(house, place)
    found = house.diagnose(offline=offline)
    assert found.level == "error"
    assert not shows(json.dumps(msgspec.to_builtins(found)) + repr(found), SECRET.encode())


def test_a_secret_that_is_read_is_shown_nowhere(house: House) -> None:
    """Nor is one that stands where it belongs and is refused there."""
    pass_phrase(house)
    found = house.diagnose()
    assert found.level == "error"
    assert not shows(repr(found), PHRASE.encode())


# --- plugins -----------------------------------------------------------------------------------

REGISTER = """
from sentra_kms.hookspecs import hookimpl
from sentra_kms.hooktypes import BackendSettings, BackendType


class Settings(BackendSettings, frozen=True):
    address: str = ""
    password: str = ""
    token_path: str = ""
    pwd: str = ""
    access_key: str = ""
    dsn: str = ""
    token: dict[str, str] = {}
    auth: dict[str, str] = {}


@hookimpl
def backend_type():
    return BackendType(
        api=(1, 0), settings=Settings, create="acme_backend:create",
        install="pip install acme-sdk", summary="Acme",
    )
"""
BACKEND = """
from sentra_kms.hookspecs import PartHooks, hookimpl
from sentra_kms.hooktypes import Finding


class Part(PartHooks):
    def __init__(self, host):
        self.host = host

    @hookimpl
    def check(self, timeout):
        self.host.logger.warning("an old protocol is spoken: upgrade Acme")
        return [Finding("warning", "acme", "is slow", "buy a faster one")]


def create(settings, host):
    return Part(host)
"""


def bring(house: House, site: Path, backend: str = BACKEND, **settings: object) -> None:
    """Install a distribution of the type `acme`, and configure a backend of it."""
    install(
        site,
        "sentra-kms-acme",
        version="2.5",
        backends={"acme": "acme_register"},
        modules={"acme_register": REGISTER, "acme_backend": backend},
    )
    house.production["backends"]["acme"] = {"type": "acme", **settings}


def test_what_a_plugin_finds_and_warns_of(house: House, site: Path) -> None:
    """Its findings are told, and so is what it logs as a warning; offline it is not asked."""
    bring(house, site)
    found = house.diagnose()
    assert {(each.subject, each.message) for each in bad(found)} == {
        ("acme", "is slow"),
        ("acme", "an old protocol is spoken: upgrade Acme"),
    }
    assert ("sentra-kms-acme", "2.5", "1.0") in found.distributions
    assert bad(house.diagnose(offline=True)) == []


@pytest.mark.parametrize("offline", [False, True])
def test_a_missing_sdk(house: House, site: Path, *, offline: bool) -> None:
    """In the chosen environment it is an error with what to install, in others a warning."""
    bring(house, site, "import acme_sdk\n")
    [told] = bad(house.diagnose(offline=offline))
    assert (told.level, told.subject) == ("error", "backends.acme")
    assert "pip install acme-sdk" in told.message
    table = second(house)
    table["backends"]["acme"] = house.production["backends"].pop("acme")
    [told] = bad(house.diagnose(offline=offline))
    assert (told.level, told.subject) == ("warning", "staging.backends.acme")


def test_a_warning_that_cannot_be_told(house: House, site: Path) -> None:
    """A log call whose arguments do not fit raises nothing in the backend; it tells what it can."""
    house.patch.setattr(logging.getLogger("sentra_kms"), "propagate", False)  # pytest would raise
    text = "an old protocol is spoken: upgrade Acme"
    bring(house, site, BACKEND.replace(f'"{text}"', f'"{text} %s %s", "{SECRET}"'))
    found = house.diagnose()
    assert {(each.subject, each.message) for each in bad(found)} == {
        ("acme", "is slow"),
        ("acme", f"{text} %s %s (its arguments do not fit it, and are not shown)"),
    }


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"pwd": SECRET}, {"pwd": "(not shown)"}),
        ({"access_key": SECRET}, {"access_key": "(not shown)"}),
        ({"token": {"value": SECRET}}, {"token.value": "(not shown)"}),
        (
            {"auth": {"user": "app", "pass": SECRET}},
            {"auth.user": "app", "auth.pass": "(not shown)"},
        ),
        (
            {"dsn": f"host=db user=app password={SECRET} port=1"},
            {"dsn": "host=db user=app password=(not shown) port=1"},
        ),
        ({"dsn": f"h?AccountKey={SECRET};x=1"}, {"dsn": "h?AccountKey=(not shown);x=1"}),
    ],
)
def test_a_plugins_plain_secret_in_whatever_form(
    house: House, site: Path, settings: dict[str, Any], told: dict[str, str]
) -> None:
    """It is hidden also below a table called like a secret, and in a text of several settings."""
    bring(house, site, **settings)
    found = house.diagnose(offline=True)
    assert not shows(repr(found), SECRET.encode())
    assert {name: shown(found)[f"backends.acme.{name}"][0] for name in told} == told


def test_a_plugins_plain_secret_is_not_shown(house: House, site: Path) -> None:
    """What is called like a secret is hidden unless it is a reference, and so is who logs in."""
    bring(
        house,
        site,
        address=f"https://user:{SECRET}@acme.example/x",
        password=SECRET,
        token_path="file:///run/secrets/token",
    )
    found = house.diagnose()
    assert not shows(repr(found), SECRET.encode())
    told = shown(found)
    assert told["backends.acme.address"][0] == "https://(not shown)@acme.example/x"
    assert told["backends.acme.password"][0] == "(not shown)"
    assert told["backends.acme.token_path"][0] == "file:///run/secrets/token"


REFUSING = """
from sentra_kms import AuthenticationFailed
from sentra_kms.hookspecs import PartHooks, SecretHooks, hookimpl


class Secrets(SecretHooks, PartHooks):
    @hookimpl
    def fetch_secret(self, request, timeout):
        raise AuthenticationFailed("the token is not accepted: renew it")

    @hookimpl
    def check(self, timeout):
        raise AuthenticationFailed("the token is not accepted: renew it")


def create(settings, host):
    return Secrets()
"""


def test_one_cause_is_mended_once(house: House, site: Path) -> None:
    """Where one failure shows at many places, all but the first say where it is mended."""
    bring(house, site, REFUSING)
    house.production["backends"]["local"]["master_keys"] = {"k": "acme://master"}
    house.production["keys"]["authenticate_with"] = ["acme://ring-key"]
    told = {each.subject: each.advice for each in bad(house.diagnose()) if each.level == "error"}
    assert told.pop("acme") == "see that [production.backends.acme] is right"
    assert told.keys() == {"local:k", "acme://ring-key"}
    assert set(told.values()) == {"mend 'acme' first: this is the same failure"}


def test_a_store_that_keeps_no_rings(house: House, site: Path) -> None:
    """What to do is told without knowing what hooks are."""
    bring(house, site, REFUSING)
    house.production["keys"]["store"] = "acme"
    [told] = bad(house.diagnose())
    assert "[production.keys] keeps rings in 'acme', but backend 'acme' does not" in told.message
    assert "name another backend, or give 'acme' the settings that enable it" in told.message


def test_a_secret_that_is_named_in_two_places(house: House) -> None:
    """Both are told: either may be the wrong one."""
    file = house.root / "short"
    file.write_text("short")
    file.chmod(0o600)
    house.production["backends"]["local"]["master_keys"]["other"] = f"file://{file}"
    house.production["keys"]["authenticate_with"] = [f"file://{file}"]
    told = next(each for each in bad(house.diagnose()) if "authenticates rings" in each.message)
    assert "correct [production.backends.local] and [production.keys]" in told.advice


KEYS = """
from sentra_kms import KeyNotFound
from sentra_kms.hookspecs import KeyHooks, PartHooks, hookimpl


class Keys(KeyHooks, PartHooks):
    @hookimpl
    def wrap_key(self, key, material, context, timeout):
        raise KeyNotFound("there is no such key")

    @hookimpl
    def unwrap_key(self, key, wrapped, context, timeout):
        raise KeyNotFound("there is no such key")

    @hookimpl
    def describe_key(self, key, timeout):
        raise KeyNotFound("there is no such key")


def create(settings, host):
    return Keys()
"""


def test_a_kek_that_its_service_does_not_have(house: House, site: Path) -> None:
    """It is told where that service is configured."""
    bring(house, site, KEYS)
    house.production["keys"]["wrap_with"] = ["local:k", "acme:tenants"]
    house.production["keys"]["authenticate_with"] = ["local:k"]
    told, wraps = bad(house.diagnose())
    assert (told.level, told.subject, told.message) == (
        "error",
        "acme:tenants",
        "there is no such key",
    )
    assert "[production.backends.acme]" in told.advice
    assert (wraps.level, wraps.subject) == ("warning", "acme:tenants")
    assert "does not wrap every version of tenant acme" in wraps.message


def test_a_kek_of_two_environments(house: House, site: Path) -> None:
    """One key of one service is shared whatever the backend is called; others are not."""
    bring(house, site, KEYS, address="eu")
    table = second(house)
    table["backends"]["acme-eu"] = {"type": "acme", "address": "eu"}
    for each, kek in ((house.production, "acme:tenants"), (table, "acme-eu:tenants")):
        each["keys"] |= {"wrap_with": [kek], "unwrap_with": ["local:k"]}
        each["keys"]["authenticate_with"] = ["local:k"]
    [told] = bad(house.diagnose(offline=True))
    assert (told.level, told.subject) == ("warning", "acme:tenants and acme-eu:tenants")
    table["backends"]["acme-eu"]["address"] = "us"
    assert bad(house.diagnose(offline=True)) == []
    table["backends"]["acme-eu"]["address"] = "eu"
    table["keys"]["wrap_with"] = ["acme-eu:others"]
    assert bad(house.diagnose(offline=True)) == []
    table["policies"] = {"gold": {"wrap_with": ["acme-eu:tenants"]}}
    [told] = bad(house.diagnose(offline=True))
    assert (told.level, told.subject) == ("warning", "acme:tenants and acme-eu:tenants")


OBSERVER = """
from sentra_kms.hookspecs import ObserverHooks, hookimpl


class Audit(ObserverHooks):
    def __init__(self):
        self.write("")

    @hookimpl
    def audit_event(self, event):
        self.write(event.operation)

    def write(self, text):
        with open({path!r}, "a") as file:
            file.write(text)


create = Audit
"""


def test_observers_see_what_is_tried(house: House, site: Path) -> None:
    """Online they are told as of any use of keys; offline they are not even made."""
    log = site / "audit.log"
    install(
        site,
        "acme-audit",
        observers={"acme": "acme_audit:create"},
        modules={"acme_audit": OBSERVER.format(path=str(log))},
    )
    house.production["audit"] = {"observers": ["acme"]}
    assert diagnose(house.tables, offline=True).level == "ok"
    assert not log.exists()
    assert diagnose(house.tables).level == "ok"
    assert "describe_key" in log.read_text()


def test_an_observer_that_cannot_be_made(house: House, site: Path) -> None:
    """It is an error, with what to do."""
    install(
        site,
        "acme-audit",
        observers={"acme": "acme_audit:create"},
        modules={"acme_audit": "def create():\n    raise RuntimeError('x')\n"},
    )
    house.production["audit"] = {"observers": ["acme"]}
    [told] = bad(house.diagnose())
    assert told.level == "error"
    assert "could not be made: RuntimeError" in told.message
