"""What stands in an environment's tables, and how what may not stand there is refused."""

from __future__ import annotations

import base64
import os
import re
import traceback
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import sentra_kms
from sentra_kms.backends import local
from sentra_kms.config import parse_duration, read_settings, references_in
from sentra_kms.errors import (
    ConfigurationError,
    KMSError,
    UnsupportedOperation,
)
from sentra_kms.hooktypes import BackendSettings
from sentra_kms.reference import Reference
from sentra_kms.settings import Settings
from tests.conftest import ConfigFactory
from tests.ground.leaks import locals_inside

PLANTED = "planted-s3cr3t-of-32-bytes-or-more"
AUTH_KEY = base64.b64encode(bytes(range(32))).decode("ascii")


def read(table: dict[str, Any], environment: str = "development") -> Settings:
    """Read a configuration of one environment."""
    return read_settings({environment: table}, environment)


def refusal(
    mapping: dict[str, Any],
    environment: str = "development",
    kind: type[KMSError] = ConfigurationError,
) -> str:
    """Return the message with which a configuration is refused; it names the source first."""
    with pytest.raises(kind) as caught:
        read_settings(mapping, environment)
    assert type(caught.value) is kind
    assert caught.value.message.startswith("the mapping passed to load(): [")
    return caught.value.message


# --- what is there without being said ----------------------------------------------------------


def test_defaults_of_an_empty_environment() -> None:
    """An empty table is an environment: no development, no keys, the documented cache."""
    settings = read({}, "prod")
    assert settings.development is False
    assert settings.keys is None
    cache = settings.cache
    assert [float(cache.key_ttl), float(cache.ring_ttl)] == [300, 60]
    assert cache.max_keys == 10_000


def test_keys_without_their_table_say_what_is_missing() -> None:
    """A configuration without keys loads; using them names the table to add."""
    kms = sentra_kms.load({"prod": {}}, "prod")
    with pytest.raises(ConfigurationError, match=re.escape("[prod.keys]")):
        _ = kms.keys


def test_undeclared_backends_are_there_when_a_reference_uses_them() -> None:
    """`file` everywhere and `env` in development need no declaration, and stay away unused."""
    assert read({"development": True}).backends == {}
    by_name = {"a": "file:///a", "b": "env://B"}
    table = {"backends": {"l": {"type": "local", "master_keys": by_name}}}
    settings = read({"development": True} | table)
    assert {name: each.type.name for name, each in settings.backends.items()} == {
        "l": "local",
        "file": "file",
        "env": "env",
    }
    assert settings.backends["file"].timeout == 5


def test_undeclared_backend_for_a_ring_key() -> None:
    """A reference that authenticates rings brings its backend, too."""
    assert "env" in read(memory(authenticate_with=["env://RING_KEY"])).backends
    assert "env" not in read(memory()).backends


def test_backends_that_need_no_declaration_may_be_declared() -> None:
    """A declaration of one sets its timeout."""
    settings = read({"backends": {"file": {"type": "file", "timeout": "1s"}}}, "prod")
    assert settings.backends["file"].timeout == 1


@pytest.mark.parametrize("name", ["env", "file"])
def test_name_of_an_undeclared_backend_is_reserved(name: str) -> None:
    """Another type under that name would change where references lead."""
    table = {"development": True, "backends": {name: {"type": "memory"}}}
    told = refusal({"development": table})
    assert f"[development.backends.{name}]" in told
    assert f"'{name}' belongs to the built-in backend" in told


# --- unknown keys ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("table", "place", "key", "nearest"),
    [
        ({"kees": {}}, "[development]", "kees", "keys"),
        ({"backend": {}}, "[development]", "backend", "backends"),
        ({"developement": True}, "[development]", "developement", "development"),
        ({"cache": {"key_tll": "1s"}}, "[development.cache]", "key_tll", "key_ttl"),
        ({"cache": {"ring-ttl": "1s"}}, "[development.cache]", "ring-ttl", "ring_ttl"),
        ({"cache": {"max_key": 1}}, "[development.cache]", "max_key", "max_keys"),
        (
            {"backends": {"l": {"type": "local", "dirctory": "x"}}},
            "[development.backends.l]",
            "dirctory",
            "directory",
        ),
        (
            {"backends": {"l": {"type": "local", "master_key": {}}}},
            "[development.backends.l]",
            "master_key",
            "master_keys",
        ),
        (
            {"keys": {"wrap-with": ["local:k"], "store": "local"}},
            "[development.keys]",
            "wrap-with",
            "wrap_with",
        ),
        (
            {"keys": {"authenticates_with": ["local:k"], "store": "local"}},
            "[development.keys]",
            "authenticates_with",
            "authenticate_with",
        ),
    ],
)
def test_unknown_key(table: dict[str, Any], place: str, key: str, nearest: str) -> None:
    """An unknown key is named with its table, and the nearest one that is known."""
    told = refusal({"development": {"development": True} | table})
    assert f"{place}: unknown key '{key}'; did you mean '{nearest}'?" in told


@pytest.mark.parametrize(
    "table",
    [
        {"zzz": 1},
        {"cache": {"zzz": 1}},
        {"keys": {"zzz": 1}},
        {"backends": {"l": {"type": "local", "zzz": 1}}},
        {"backends": {"env": {"type": "env", "zzz": 1}}},
        {"backends": {"file": {"type": "file", "zzz": "/x"}}},
        {"backends": {"m": {"type": "memory", "zzz": 1}}},
    ],
)
def test_unknown_key_that_is_like_no_other(table: dict[str, Any]) -> None:
    """A key that is like no other is refused without a guess."""
    told = refusal({"development": {"development": True} | table})
    assert "unknown key" in told
    assert "did you mean" not in told


def test_unknown_key_names_the_file(tmp_path: Path) -> None:
    """The error begins with the file's path."""
    path = tmp_path / "sentra-kms.toml"
    path.write_text('[prod.cache]\nkey_tll = "1s"\n')
    with pytest.raises(ConfigurationError, match="^" + re.escape(f"{path}: [prod.cache]: unknown")):
        read_settings(path, "prod")


# --- values of the wrong kind ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("table", "place", "what"),
    [
        ({"development": "yes"}, "[development]", "'development' is true or false"),
        ({"development": 1}, "[development]", "'development' is true or false"),
        ({"keys": []}, "[development.keys]", "this is a table"),
        ({"cache": "5m"}, "[development.cache]", "this is a table"),
        ({"backends": "local"}, "[development.backends]", "this is a table"),
        ({"backends": {"l": "local"}}, "[development.backends.l]", "a table with a 'type'"),
        ({"backends": {"l": {}}}, "[development.backends.l]", "a table with a 'type'"),
        ({"backends": {"l": {"type": 1}}}, "[development.backends.l]", "a table with a 'type'"),
        ({"cache": {"max_keys": 0}}, "[development.cache]", "max_keys"),
        ({"cache": {"max_keys": -1}}, "[development.cache]", "max_keys"),
        ({"cache": {"max_keys": "10"}}, "[development.cache]", "max_keys"),
        ({"cache": {"max_keys": True}}, "[development.cache]", "max_keys"),
        ({"cache": {"max_keys": 1.5}}, "[development.cache]", "max_keys"),
        (
            {"backends": {"l": {"type": "local", "directory": 5}}},
            "[development.backends.l]",
            "directory",
        ),
        (
            {"backends": {"l": {"type": "local", "master_keys": ["env://X"]}}},
            "[development.backends.l]",
            "master_keys",
        ),
        (
            {"backends": {"l": {"type": "local", "master_keys": {"k": 5}}}},
            "[development.backends.l]",
            "master_keys",
        ),
        ({"keys": {"store": "local"}}, "[development.keys]", "wrap_with"),
        ({"keys": {"wrap_with": ["local:k"]}}, "[development.keys]", "store"),
        ({"keys": {"wrap_with": "local:k", "store": "l"}}, "[development.keys]", "wrap_with"),
        ({"keys": {"wrap_with": [], "store": "l"}}, "[development.keys]", "wrap_with"),
        ({"keys": {"wrap_with": [1], "store": "l"}}, "[development.keys]", "wrap_with"),
        ({"keys": {"wrap_with": ["k"], "store": "l"}}, "[development.keys]", "BACKEND:KEY"),
        ({"keys": {"wrap_with": ["a:k"], "store": 1}}, "[development.keys]", "store"),
        (
            {"keys": {"wrap_with": [f"a:{n}" for n in range(17)], "store": "l"}},
            "[development.keys]",
            "wrap_with",
        ),
    ],
)
def test_wrong_kind(table: dict[str, Any], place: str, what: str) -> None:
    """A value of another kind is refused by table and key."""
    told = refusal({"development": {"development": True} | table})
    assert f"{place}: " in told
    assert what in told


@pytest.mark.parametrize("name", ["Local", "1st", "-x", "a_b", "a b", "", "é", "a:b", "a/b"])
def test_backend_name(name: str) -> None:
    """A backend's name is what stands before `:` and `://`."""
    told = refusal({"development": {"backends": {name: {"type": "memory"}}}})
    assert "a backend's name is a-z" in told


def test_unknown_type_lists_what_there_is() -> None:
    """An unknown type is refused with the built-in ones and the nearest."""
    told = refusal({"prod": {"backends": {"x": {"type": "locl"}}}}, "prod")
    assert "no backend type 'locl'" in told
    assert "env, file, local, memory" in told
    assert "did you mean 'local'?" in told


# --- durations ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0s", 0),
        ("500ms", 0.5),
        ("1s", 1),
        ("60s", 60),
        ("5m", 300),
        ("1h", 3600),
        ("30d", 2_592_000),
        ("007s", 7),
        ("999999999s", 999_999_999),
    ],
)
def test_duration(text: str, seconds: float) -> None:
    """A number and a unit."""
    assert parse_duration(text) == seconds
    assert read({"cache": {"key_ttl": text}}).cache.key_ttl == seconds


BAD_DURATIONS: list[object] = [
    "", "5", "s", "5 m", " 5m", "5m ", "5m\n", "5M", "5min", "5w", "1.5h", "-1s", "+1s", "1h30m",
    "1e3s", "٣s", "1_0s", "9999999999s", "ms", "5μs", 5, 5.0, True, None, ["5m"], {"m": 5},
]  # fmt: skip


@pytest.mark.parametrize("value", BAD_DURATIONS, ids=ascii)
def test_bad_duration(value: object) -> None:
    """Everything else is refused, numbers without a unit too, by the key that it stands under."""
    with pytest.raises(ValueError, match='like "60s"'):
        parse_duration(value)
    told = refusal({"development": {"cache": {"ring_ttl": value}}})
    assert "[development.cache]" in told
    assert "ring_ttl" in told


@given(st.text(alphabet="0123456789.+-msMhd wµ\n", max_size=8))
def test_duration_never_fails_otherwise(text: str) -> None:
    """Any text is either a duration of 0 seconds or more, or a `ValueError`."""
    try:
        assert parse_duration(text) >= 0
    except ValueError:
        assert re.fullmatch(r"[0-9]{1,9}(ms|s|m|h|d)", text) is None


def test_timeout_of_a_backend() -> None:
    """Every backend table takes a timeout; without one it is 5 seconds."""
    table = {
        "development": True,
        "backends": {
            "a": {"type": "memory", "timeout": "250ms"},
            "b": {"type": "memory"},
            "l": {"type": "local", "timeout": "1m"},
        },
    }
    backends = read(table).backends
    assert [backends[name].timeout for name in ("a", "b", "l")] == [0.25, 5, 60]


@pytest.mark.parametrize("value", [5, "5", "soon", "", [], {}])
def test_bad_timeout(value: object) -> None:
    """A timeout that is no duration is refused by its backend's table."""
    told = refusal({"development": {"backends": {"l": {"type": "local", "timeout": value}}}})
    assert "[development.backends.l]: timeout: a duration" in told


@pytest.mark.parametrize("value", ["61m", "1d", "999999999d"])
def test_timeout_that_no_timer_takes(value: str) -> None:
    """A timeout past an hour is refused; one of an hour is not."""
    table = {"type": "local", "timeout": value}
    told = refusal({"development": {"backends": {"l": table}}})
    assert "[development.backends.l]: timeout: an operation that takes more than 1h" in told
    hour = {"development": True, "backends": {"l": {**table, "timeout": "1h"}}}
    assert read(hour).backends["l"].timeout == 3600


# --- what is not built yet ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("table", "place", "named"),
    [
        ({"audit": {"required": True}}, "[development.audit]", "required"),
        ({"audit": {"path": "/var/log/audit"}}, "[development.audit]", "path"),
        ({"audit": {"wrap_with": "m:audit"}}, "[development.audit]", "wrap_with"),
    ],
)
def test_not_built_yet(table: dict[str, Any], place: str, named: str) -> None:
    """What this version does not do is refused by name, never ignored."""
    told = refusal({"development": {"development": True} | table}, kind=UnsupportedOperation)
    assert place in told
    assert named in told
    assert "not supported by this version" in told


def test_not_built_yet_from_shared() -> None:
    """[shared] may not bring it in either."""
    told = refusal(
        {"shared": {"audit": {"required": True}}, "prod": {}}, "prod", UnsupportedOperation
    )
    assert "[prod.audit]: required" in told


def test_backend_without_keys_part_is_refused_at_load(
    config: ConfigFactory,
) -> None:
    """A local backend without master keys has no KEKs: using it for one is refused at load."""
    mapping = config()
    mapping["development"]["backends"]["bare"] = {"type": "local"}
    mapping["development"]["keys"] |= {
        "wrap_with": ["bare:k"],
        "unwrap_with": [],
        "authenticate_with": ["local:2026-11"],
    }
    with pytest.raises(UnsupportedOperation, match="'bare' does not implement wrap_key") as caught:
        sentra_kms.load(mapping, "development")
    assert (caught.value.backend, caught.value.operation) == ("bare", "wrap_key")


def test_store_that_keeps_no_rings_is_refused_at_load(config: ConfigFactory) -> None:
    """A backend without rings cannot be the store."""
    mapping = config(keys={"store": "file"})
    mapping["development"]["backends"]["file"] = {"type": "file"}
    with pytest.raises(UnsupportedOperation, match="'file' does not implement save_ring"):
        sentra_kms.load(mapping, "development")


def test_authentication_by_what_holds_no_secrets_is_refused_at_load(config: ConfigFactory) -> None:
    """A reference into a backend that fetches no secrets is refused at load."""
    mapping = config(keys={"authenticate_with": ["local://ring_key"]})
    with pytest.raises(UnsupportedOperation, match="'local' does not implement fetch_secret"):
        sentra_kms.load(mapping, "development")


# --- for development only ----------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["env", "memory"])
@pytest.mark.parametrize("development", [False, None])
def test_type_for_development_only(kind: str, development: bool | None) -> None:  # noqa: FBT001
    """`env` and `memory` are refused elsewhere, said or unsaid."""
    table: dict[str, Any] = {"backends": {kind: {"type": kind}}}
    if development is not None:
        table["development"] = development
    told = refusal({"prod": table}, "prod")
    assert f"[prod.backends.{kind}]" in told
    assert "for development only" in told
    assert read(table | {"development": True}).backends[kind].name == kind


def test_master_key_in_the_environment_outside_development(config: ConfigFactory) -> None:
    """`env://` for a master key is refused by its table, with what to do instead."""
    mapping = config(environment="production", development=False)
    told = refusal(mapping, "production")
    assert "[production.backends.local]" in told
    assert "env:// is for development only" in told
    assert "file:///" in told


def test_ring_key_in_the_environment_outside_development(tmp_path: Path) -> None:
    """`env://` for the key that authenticates rings is refused as well."""
    table = {
        "backends": {"local": {"type": "local", "master_keys": {"k": f"file://{tmp_path}/k"}}},
        "keys": {
            "wrap_with": ["local:k"],
            "authenticate_with": ["env://RING_KEY"],
            "store": "local",
        },
    }
    told = refusal({"production": table}, "production")
    assert "[production.keys.authenticate_with]" in told
    assert "env:// is for development only" in told


def test_development_by_its_name_is_none() -> None:
    """An environment is one for development by its setting, never by its name."""
    assert read({}).development is False
    assert "for development only" in refusal(
        {"development": {"backends": {"m": {"type": "memory"}}}}
    )


# --- keys --------------------------------------------------------------------------------------


def memory(**keys: object) -> dict[str, Any]:
    """Return a table of keys on memory backends."""
    return {
        "development": True,
        "backends": {
            "m": {"type": "memory"},
            "l": {"type": "local", "master_keys": {}},
            "file": {"type": "file"},
        },
        "keys": {"wrap_with": ["m:k"], "store": "m"} | keys,
    }


@pytest.mark.parametrize(
    ("keys", "place"),
    [
        ({"wrap_with": ["n:k"]}, "keys.wrap_with"),
        ({"unwrap_with": ["n:k"]}, "keys.unwrap_with"),
        ({"store": "n"}, "keys.store"),
        ({"authenticate_with": ["n:k"]}, "keys.authenticate_with"),
        ({"authenticate_with": ["n://k"]}, "keys.authenticate_with"),
    ],
)
def test_backend_that_is_not_there(keys: dict[str, Any], place: str) -> None:
    """A name that no backend has is refused with the names that there are."""
    told = refusal({"development": memory(**keys)})
    assert f"[development.{place}]: there is no backend 'n'" in told
    assert "there are file, l, m" in told


def test_master_key_reference_to_a_backend_that_is_not_there() -> None:
    """A reference leads to a backend of this environment."""
    table = memory()
    table["backends"]["l"]["master_keys"] = {"k": "vault://secret#k"}
    told = refusal({"development": table})
    assert "[development.backends.l]: there is no backend 'vault'" in told


@pytest.mark.parametrize("field", ["wrap_with", "unwrap_with"])
def test_kek_named_twice(field: str) -> None:
    """A KEK that is named twice would count as two."""
    told = refusal({"development": memory(**{field: ["m:a", "m:b", "m:a"]})})
    assert f"[development.keys.{field}]: a KEK is named twice" in told


def test_wrap_with_takes_16() -> None:
    """As many as a version may have wraps."""
    settings = read(memory(wrap_with=[f"m:{n}" for n in range(16)]))
    assert settings.keys is not None
    assert len(settings.keys.wrap_with) == 16


def test_authenticate_with_is_all_keys_in_order_by_default() -> None:
    """Absent, it is wrap_with and then unwrap_with, each once, if all are local or memory."""
    settings = read(memory(wrap_with=["m:b", "m:a"], unwrap_with=["l:c", "m:a", "m:d"]))
    assert settings.keys is not None
    assert settings.keys.authenticate_with == ("m:b", "m:a", "l:c", "m:d")


@pytest.mark.parametrize("field", ["wrap_with", "unwrap_with"])
@pytest.mark.parametrize("kek", ["file:k"])
def test_authenticate_with_has_no_default_for_other_types(field: str, kek: str) -> None:
    """A KEK of another type makes it necessary to say what authenticates rings."""
    keys = {field: ["m:k", kek]}
    told = refusal({"development": memory(**keys)})
    assert "[development.keys]: authenticate_with is needed" in told
    assert f"'{kek}'" in told
    named = read(memory(**keys, authenticate_with=["m:k"])).keys
    assert named is not None
    assert named.authenticate_with == ("m:k",)


@pytest.mark.parametrize("source", ["env://RING_KEY", "file:///run/ring_key", "m:k", "l:k"])
def test_authenticate_with_takes(source: str) -> None:
    """A reference, or a key of a local or memory backend."""
    keys = read(memory(authenticate_with=[source])).keys
    assert keys is not None
    assert keys.authenticate_with == (source,)


@pytest.mark.parametrize("source", ["file:k"])
def test_authenticate_with_refuses_keys_of_other_types(source: str) -> None:
    """Whoever may encrypt with such a KEK could make rings with it."""
    told = refusal({"development": memory(authenticate_with=[source])})
    assert "[development.keys.authenticate_with]" in told
    assert "only local and memory keys" in told


@pytest.mark.parametrize("source", ["", "k", "m:", ":k", "m:// ", "://", 1, None])
def test_authenticate_with_refuses_what_is_neither(source: object) -> None:
    """What is neither a reference nor BACKEND:KEY is refused."""
    assert "authenticate_with" in refusal({"development": memory(authenticate_with=[source])})


def test_authenticate_with_may_not_be_empty() -> None:
    """Nothing would sign."""
    assert "[development.keys.authenticate_with]: name at least one" in refusal(
        {"development": memory(authenticate_with=[])}
    )


def ring_key_refusal(config: ConfigFactory, value: bytes, tmp_path: Path) -> ConfigurationError:
    """Return the error that a ring key of these bytes gives."""
    path = tmp_path / "ring_key"
    path.write_bytes(value)
    path.chmod(0o600)
    mapping = config(keys={"authenticate_with": [f"file://{path}"]})
    with sentra_kms.load(mapping, "development") as kms:
        with pytest.raises(ConfigurationError) as caught:
            kms.keys.create("acme")
        assert f"file://{path}" in caught.value.message
        return caught.value


@pytest.mark.parametrize("ending", ["", "\n", "\r\n"])
def test_ring_key_from_a_reference(config: ConfigFactory, ending: str, tmp_path: Path) -> None:
    """Base64 of 32 bytes authenticates rings, with one trailing newline or none."""
    path = tmp_path / "ring_key"
    path.write_bytes((AUTH_KEY + ending).encode())
    path.chmod(0o600)
    mapping = config(keys={"authenticate_with": [f"file://{path}"]})
    with sentra_kms.load(mapping, "development") as kms:
        assert kms.keys.create("acme").primary == 1
    with sentra_kms.load(mapping, "development") as kms:
        assert kms.keys.describe("acme").primary == 1


@pytest.mark.parametrize(
    "value",
    [
        b"",
        bytes(range(32)),
        AUTH_KEY.encode() + b"\n\n",
        AUTH_KEY.encode() + b"\r",
        AUTH_KEY.encode() + b" ",
        b"\n" + AUTH_KEY.encode(),
        AUTH_KEY.rstrip("=").encode(),
        base64.b64encode(bytes(31)),
        base64.b64encode(bytes(33)),
        base64.b64encode(bytes(64)),
        base64.urlsafe_b64encode(b"\xff" * 32),
        bytes(range(32)).hex().encode(),
        b"planted-secret-that-is-no-base64!",
    ],
    ids=range(13),
)
def test_ring_key_that_is_not_base64_of_32_bytes(
    config: ConfigFactory, value: bytes, tmp_path: Path
) -> None:
    """Anything else is refused by its reference."""
    error = ring_key_refusal(config, value, tmp_path)
    assert "standard base64 of exactly 32 bytes" in error.message


# --- directories -------------------------------------------------------------------------------


def directory_of(settings: dict[str, Any], base: str = "/base") -> str:
    """Return the path that the local backend asks its host to resolve."""
    asked: list[str] = []

    def resolve(path: str) -> str:
        asked.append(path)
        return os.path.join(base, path)

    host: Any = SimpleNamespace(resolve=resolve, development=True)
    local.create(local.LocalSettings(**settings), host)
    assert len(asked) == 1
    return asked[0]


def test_directory_as_configured(monkeypatch: pytest.MonkeyPatch) -> None:
    """A directory in the configuration comes before the variable."""
    monkeypatch.setenv("ENCRYPTION_KEYS_DIR", "/from/variable")
    assert directory_of({"directory": "keys"}) == "keys"


def test_directory_from_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    """`ENCRYPTION_KEYS_DIR` is the default."""
    monkeypatch.setenv("ENCRYPTION_KEYS_DIR", "/from/variable")
    assert directory_of({}) == "/from/variable"


@pytest.mark.parametrize("variable", [None, ""])
def test_directory_without_either(variable: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without both it is /app/keys; an empty variable counts as absent."""
    if variable is not None:
        monkeypatch.setenv("ENCRYPTION_KEYS_DIR", variable)
    assert directory_of({}) == "/app/keys"


def test_directory_starts_at_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relative directory is beside the configuration file, wherever the process works."""
    place, elsewhere = tmp_path / "etc", tmp_path / "elsewhere"
    place.mkdir()
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    monkeypatch.setenv("MASTER", AUTH_KEY)
    (place / "sentra-kms.toml").write_text(
        '[dev]\ndevelopment = true\n[dev.backends.local]\ntype = "local"\ndirectory = "keys"\n'
        'master_keys = { k = "env://MASTER" }\n'
        '[dev.keys]\nwrap_with = ["local:k"]\nstore = "local"\n'
    )
    with sentra_kms.load("../etc/sentra-kms.toml", "dev") as kms:
        kms.keys.create("acme")
    assert (place / "keys" / "acme.ring").exists()
    assert list(elsewhere.iterdir()) == []


def test_directory_of_a_mapping_starts_at_the_working_directory(
    config: ConfigFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is the directory at the time of the load, not of the first use."""
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    mapping = config()
    mapping["development"]["backends"]["local"]["directory"] = "rings"
    monkeypatch.chdir(tmp_path / "one")
    kms = sentra_kms.load(mapping, "development")
    monkeypatch.chdir(tmp_path / "two")
    kms.keys.create("acme")
    kms.close()
    assert (tmp_path / "one" / "rings" / "acme.ring").exists()
    assert list((tmp_path / "two").iterdir()) == []


# --- nothing is opened, nothing is shown -------------------------------------------------------


def test_load_opens_nothing(tmp_path: Path) -> None:
    """No directory is made and no master key read before the first use."""
    table = {
        "backends": {
            "local": {
                "type": "local",
                "directory": str(tmp_path / "keys"),
                "master_keys": {"k": "file:///nowhere/at/all"},
            }
        },
        "keys": {"wrap_with": ["local:k"], "store": "local"},
    }
    with sentra_kms.load({"prod": table}, "prod") as kms:
        kms.keys.tenant("acme")
        assert list(tmp_path.iterdir()) == []


def test_load_that_closes_twice(config: ConfigFactory) -> None:
    """Closing again does nothing; using it afterwards is an error of ours."""
    kms = sentra_kms.load(config(), "development")
    kms.keys.create("acme")
    kms.close()
    kms.close()
    with pytest.raises(KMSError):
        kms.keys.create("other")
    with pytest.raises(KMSError):
        kms.keys.encrypt("acme", b"x")


def test_repr_of_a_kms_says_the_environment_alone(config: ConfigFactory) -> None:
    """A KMS in a log shows nothing of its configuration."""
    with sentra_kms.load(config(), "development") as kms:
        assert repr(kms) == "KMS(environment='development')"


MISPLACED: list[tuple[str, dict[str, Any]]] = [
    (
        "master key",
        {"backends": {"l": {"type": "local", "master_keys": {"k": PLANTED}}}},
    ),
    (
        "master key with a colon",
        {"backends": {"l": {"type": "local", "master_keys": {"k": f"a:{PLANTED}"}}}},
    ),
    (
        "master key of a long text",
        {"backends": {"l": {"type": "local", "master_keys": {"k": PLANTED * 200}}}},
    ),
    (
        "master key that is a URL with a password",
        {
            "backends": {
                "l": {"type": "local", "master_keys": {"k": f"postgres://u:{PLANTED}@db/app"}}
            }
        },
    ),
    ("master keys as one text", {"backends": {"l": {"type": "local", "master_keys": PLANTED}}}),
    ("master keys as a list", {"backends": {"l": {"type": "local", "master_keys": [PLANTED]}}}),
    (
        "master key as a table",
        {"backends": {"l": {"type": "local", "master_keys": {"k": {"value": PLANTED}}}}},
    ),
    (
        "ring key",
        {
            "backends": {"m": {"type": "memory"}},
            "keys": {"wrap_with": ["m:k"], "store": "m", "authenticate_with": [PLANTED]},
        },
    ),
    (
        "ring key as a text instead of a list",
        {
            "backends": {"m": {"type": "memory"}},
            "keys": {"wrap_with": ["m:k"], "store": "m", "authenticate_with": PLANTED},
        },
    ),
    (
        "ring key in a list of lists",
        {
            "backends": {"m": {"type": "memory"}},
            "keys": {"wrap_with": ["m:k"], "store": "m", "authenticate_with": [[PLANTED]]},
        },
    ),
    (
        "ring key that is a URL with a password",
        {
            "backends": {"m": {"type": "memory"}},
            "keys": {
                "wrap_with": ["m:k"],
                "store": "m",
                "authenticate_with": [f"redis://:{PLANTED}@cache"],
            },
        },
    ),
    (
        "value under an unknown key",
        {"backends": {"l": {"type": "local", "master_key": PLANTED}}},
    ),
    ("timeout", {"backends": {"l": {"type": "local", "timeout": PLANTED}}}),
    ("cache", {"cache": {"key_ttl": PLANTED}}),
]


@pytest.mark.parametrize("table", [t for _, t in MISPLACED], ids=[name for name, _ in MISPLACED])
def test_misplaced_secret_is_not_quoted(table: dict[str, Any]) -> None:
    """A plain secret where a reference or another value belongs is not shown by the error."""
    with pytest.raises(ConfigurationError) as caught:
        read({"development": True} | table)
    error = caught.value
    shown = "".join(traceback.format_exception_only(error)) + repr(error) + repr(vars(error))
    assert "s3cr3t" not in shown
    assert error.__cause__ is None
    assert error.__context__ is None


@pytest.mark.parametrize(
    "line",
    [
        f'backends.l = {{ type = "local", master_keys = {{ k = "{PLANTED}" }} }}',
        f'backends.l = {{ type = "local", master_key = "{PLANTED}" }}',
        f'keys = {{ authenticate_with = ["{PLANTED}"], wrap_with = ["l:k"], store = "l" }}',
    ],
    ids=["master key", "unknown key", "ring key"],
)
def test_misplaced_secret_is_in_no_local_of_the_traceback(line: str, tmp_path: Path) -> None:
    """Whoever prints the traceback with locals sees a plain secret in none of its frames."""
    path = tmp_path / "sentra-kms.toml"
    path.write_text(f"[prod]\n{line}\n")
    del line
    with pytest.raises(ConfigurationError) as caught:
        sentra_kms.load(path, "prod")
    assert locals_inside(caught.value)
    assert "s3cr3t" not in locals_inside(caught.value)


@pytest.mark.parametrize("reference", ["env://NOT_SET", "env://EMPTY"])
def test_missing_master_key_is_named_by_its_reference(
    config: ConfigFactory, reference: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A master key that is not there is told by its variable, when it is first needed."""
    monkeypatch.setenv("EMPTY", "")
    mapping = config()
    mapping["development"]["backends"]["local"]["master_keys"] = {"2026-11": reference}
    mapping["development"]["keys"]["unwrap_with"] = []
    name = reference.removeprefix("env://")
    kms = sentra_kms.load(mapping, "development")
    with kms, pytest.raises(sentra_kms.SecretNotFound, match=name):
        kms.keys.create("acme")


def test_kek_that_the_local_backend_does_not_have(config: ConfigFactory) -> None:
    """A KEK without a master key is told with the names that there are."""
    kms = sentra_kms.load(config(keys={"wrap_with": ["local:typo"]}), "development")
    with kms, pytest.raises(sentra_kms.KeyNotFound, match=r"'typo' \(it has 2025-01, 2026-11\)"):
        kms.keys.create("acme")


@pytest.mark.parametrize(
    ("raw", "told"),
    [
        (b"planted-secret-of-31-bytes-here", "has 31 bytes, it needs 32"),
        (b"planted-secret-of-31-bytes-here\n", "has 31 bytes, it needs 32"),
        (b"planted pass-phrase that is long enough", "neither hex"),
        ("gepflanztes Geheimnis, das länger als 32 Zeichen ist".encode(), "neither hex"),
    ],
)
def test_refused_master_key_shows_in_no_frame(
    raw: bytes, told: str, config: ConfigFactory, tmp_path: Path
) -> None:
    """A refused master key is named, and none of its bytes are in any frame on the way."""
    path = tmp_path / "master"
    path.write_bytes(raw)
    path.chmod(0o600)
    mapping = config(
        environment="production",
        development=False,
        keys={"unwrap_with": []},
    )
    mapping["production"]["backends"]["local"]["master_keys"] = {"2026-11": f"file://{path}"}
    wanted = [
        repr(raw)[2:14],
        raw[:12].decode(),
        raw.hex()[:24],
        base64.b64encode(raw).decode()[:16],
    ]
    del raw
    kms = sentra_kms.load(mapping, "production")
    with kms, pytest.raises(ConfigurationError, match=told) as caught:
        kms.keys.create("acme")
    error = caught.value
    assert "local:2026-11" in error.message
    assert str(path) in error.message
    assert locals_inside(error)
    for form in wanted:
        assert form not in locals_inside(error)
        assert form not in f"{error} {error!r} {vars(error)!r}"


def test_refused_ring_key_shows_in_no_frame(config: ConfigFactory, tmp_path: Path) -> None:
    """A refused ring key shows none of its bytes in any frame on the way."""
    error = ring_key_refusal(config, b"planted-secret-that-is-no-base64!", tmp_path)
    assert locals_inside(error)
    for shown in (locals_inside(error), str(error), repr(vars(error))):
        assert "planted-secret" not in shown
        assert b"planted-secret".hex() not in shown
        assert base64.b64encode(b"planted-secret-").decode()[:16] not in shown


# --- references inside settings ----------------------------------------------------------------


def test_references_are_found_at_every_depth() -> None:
    """A reference in a list, a table or a record of a backend's settings is checked too."""

    class Auth(BackendSettings, frozen=True):
        token: Reference
        name: str = "plain://text"

    class Deep(BackendSettings, frozen=True):
        one: Reference
        several: tuple[Reference, ...]
        by_name: dict[str, Reference]
        auth: Auth
        missing: Reference | None = None

    settings = Deep(
        one=Reference("a://1"),
        several=(Reference("a://2"), Reference("a://3")),
        by_name={"x": Reference("a://4")},
        auth=Auth(token=Reference("a://5")),
    )
    assert sorted(references_in(settings)) == [f"a://{n}" for n in range(1, 6)]
    assert list(references_in(Auth(token=Reference("a://1")))) == ["a://1"]
