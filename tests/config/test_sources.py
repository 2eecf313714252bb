"""Where a configuration is found, which environment of it is meant, and how [shared] merges."""

from __future__ import annotations

import os
import re
import tomllib
from collections import OrderedDict, UserDict
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

import sentra_kms
from sentra_kms.config import read_settings
from sentra_kms.errors import ConfigurationError
from sentra_kms.settings import Duration
from tests.backends.hosts import in_unprivileged_child, open_directory
from tests.conftest import ConfigFactory
from tests.ground.leaks import locals_inside

MINIMAL = """
[production.backends.local]
type = "local"
directory = "keys"
master_keys = { k = "file:///nowhere/key" }
[production.keys]
wrap_with = ["local:k"]
store = "local"
[staging.backends.local]
type = "local"
[staging.cache]
key_ttl = "10s"
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in an empty directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


# --- where it is found -------------------------------------------------------------------------


def test_file_of_the_working_directory(place: Path) -> None:
    """Without an argument or a variable, `sentra-kms.toml` of the working directory is read."""
    (place / "sentra-kms.toml").write_text(MINIMAL)
    settings = read_settings(environment="production")
    assert settings.source == str(place / "sentra-kms.toml")
    assert settings.base == str(place)
    assert settings.environment == "production"


@pytest.mark.parametrize("kind", [str, Path])
def test_file_by_argument(place: Path, kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A path, as text or as a path object, is read whatever the variable and directory hold."""
    (place / "sentra-kms.toml").write_text("not read")
    monkeypatch.setenv("SENTRA_KMS_CONFIG", str(place / "sentra-kms.toml"))
    (place / "sub").mkdir()
    (place / "sub" / "other.toml").write_text(MINIMAL)
    settings = read_settings(kind("sub/other.toml"), "staging")
    assert settings.source == str(place / "sub" / "other.toml")
    assert settings.base == str(place / "sub")


def test_file_by_variable(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`SENTRA_KMS_CONFIG` comes before the working directory."""
    (place / "sentra-kms.toml").write_text("not read")
    (place / "other.toml").write_text(MINIMAL)
    monkeypatch.setenv("SENTRA_KMS_CONFIG", str(place / "other.toml"))
    assert read_settings(environment="staging").source == str(place / "other.toml")


def test_empty_variable_counts_as_absent(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty `SENTRA_KMS_CONFIG` names no file."""
    (place / "sentra-kms.toml").write_text(MINIMAL)
    monkeypatch.setenv("SENTRA_KMS_CONFIG", "")
    assert read_settings(environment="staging").source == str(place / "sentra-kms.toml")


def test_missing_file_says_how_to_get_one(place: Path) -> None:
    """The error names the path that was looked at and the ways to a configuration."""
    with pytest.raises(ConfigurationError) as caught:
        read_settings()
    for hint in (str(place / "sentra-kms.toml"), "sentra-kms init", "SENTRA_KMS_CONFIG"):
        assert hint in caught.value.message


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"\xff\xfe", "is not UTF-8 text"),
        (b'[prod]\nkey = "\xe9"', "is not UTF-8 text"),
        (b"[prod", "is not valid TOML"),
        (b"[prod]\nx = 1\nx = 2", "is not valid TOML"),
        (b"x = nothing", "is not valid TOML"),
        (b"\x00", "is not valid TOML"),
        (b"\xef\xbb\xbf[prod]\n", "begins with a byte order mark: save it as UTF-8 without one"),
    ],
)
def test_unreadable_content(place: Path, content: bytes, told: str) -> None:
    """A file that is no TOML is refused by its path, with the line where there is one."""
    path = place / "bad.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigurationError, match=told) as caught:
        read_settings(path, "prod")
    assert str(path) in caught.value.message
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None


def test_file_that_is_too_large(place: Path) -> None:
    """A file that no person wrote is not read into memory whole."""
    with open("large.toml", "wb") as file:
        file.truncate((16 << 20) + 1)
    with pytest.raises(ConfigurationError, match="is larger than 16 MiB") as caught:
        read_settings("large.toml", "prod")
    assert caught.value.__context__ is None


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_line_endings(place: Path, ending: str) -> None:
    """Both kinds of lines are read."""
    (place / "sentra-kms.toml").write_bytes(
        ending.join(["[prod.cache]", 'key_ttl = "7s"']).encode()
    )
    assert read_settings(None, "prod").cache.key_ttl == Duration(7)


@pytest.mark.parametrize("source", [None, "sentra-kms.toml", {"prod": {}}])
def test_working_directory_that_is_gone(place: Path, source: Any) -> None:
    """A working directory that was taken away is told, and is an error of ours."""
    gone = place / "gone"
    gone.mkdir()
    os.chdir(gone)
    gone.rmdir()
    with pytest.raises(ConfigurationError, match="the working directory cannot be told") as caught:
        read_settings(source, "prod")
    assert caught.value.__context__ is None


@pytest.mark.parametrize("by", ["argument", "variable", "directory", "mapping"])
def test_reload_in_another_directory(place: Path, by: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that goes elsewhere, as daemons do, goes on by the file and paths that it had."""
    (place / "sentra-kms.toml").write_text(MINIMAL)
    elsewhere = place / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "sentra-kms.toml").write_text("[production]\n")
    source: Any = {"argument": "sentra-kms.toml", "mapping": tomllib.loads(MINIMAL)}.get(by)
    if by == "variable":
        monkeypatch.setenv("SENTRA_KMS_CONFIG", "sentra-kms.toml")
    with sentra_kms.load(source, "production") as kms:
        before = kms._wiring
        monkeypatch.chdir(elsewhere)
        for _ in range(2):
            kms.reload()
            assert kms._wiring.settings.source == before.settings.source
            assert kms._wiring.settings.base == str(place)
            assert kms._wiring.bindings == before.bindings
        if by != "mapping":
            with pytest.raises(ConfigurationError, match="neither added nor taken away"):
                kms.reload("sentra-kms.toml")
            kms.reload("../sentra-kms.toml")
            monkeypatch.chdir(place)
            kms.reload()


def test_invalid_toml_names_the_line(place: Path) -> None:
    """A person finds the place."""
    (place / "bad.toml").write_text("[prod]\n\nkey = = 1\n")
    with pytest.raises(ConfigurationError, match="line 3"):
        read_settings(place / "bad.toml", "prod")


def test_invalid_toml_does_not_quote_a_secret(place: Path) -> None:
    """A secret on the line that cannot be parsed is not shown."""
    (place / "bad.toml").write_text("[prod]\nkey = planted-s3cr3t\n")
    with pytest.raises(ConfigurationError) as caught:
        read_settings(place / "bad.toml", "prod")
    error = caught.value
    assert "s3cr3t" not in f"{error} {error!r} {vars(error)!r}"
    assert "s3cr3t" not in locals_inside(error)
    assert error.__context__ is None


@pytest.mark.parametrize("name", [".", "missing/sentra-kms.toml"])
def test_what_is_no_file(place: Path, name: str) -> None:
    """A directory, or a path through a missing one, is an error of ours."""
    with pytest.raises(ConfigurationError) as caught:
        read_settings(place / name, "prod")
    assert str(place) in caught.value.message
    assert caught.value.__context__ is None


def test_unreadable_file() -> None:
    """A file that this user may not read is refused with the system's reason.

    In a child that gave up its privileges, since root may read everything.
    """
    with open_directory() as directory:
        path, readable = directory / "sentra-kms.toml", directory / "readable.toml"
        for each, mode in ((path, 0o000), (readable, 0o644)):
            each.write_text(MINIMAL)
            each.chmod(mode)

        def work() -> str:
            assert read_settings(readable, "production").environment == "production"
            try:
                read_settings(path, "production")
            except ConfigurationError as error:
                return error.message
            return "no error"

        told = in_unprivileged_child(work)
        assert told == f"{path} cannot be read: Permission denied"


# --- mappings ----------------------------------------------------------------------------------


def test_mapping(place: Path) -> None:
    """A mapping has the file's shape, and its relative paths start in the working directory."""
    settings = read_settings({"staging": {"cache": {"key_ttl": "1m"}}}, "staging")
    assert settings.base == str(place)
    assert float(settings.cache.key_ttl) == 60
    assert "mapping" in settings.source


@pytest.mark.parametrize("kind", [dict, OrderedDict, UserDict, MappingProxyType])
def test_mapping_of_any_type(kind: Any) -> None:
    """Any mapping is taken."""
    assert read_settings(kind({"staging": {}}), "staging").environment == "staging"


def test_mapping_is_not_changed(config: ConfigFactory) -> None:
    """Reading leaves the caller's mapping as it was, nested tables included."""
    mapping = config() | {"shared": {"cache": {"key_ttl": "1m"}}}
    before = repr(mapping)
    read_settings(mapping, "development")
    assert repr(mapping) == before


def test_mapping_may_be_reused_after_a_load(config: ConfigFactory) -> None:
    """Two loads of one mapping share nothing that either changes."""
    mapping = config()
    one = read_settings(mapping, "development")
    mapping["development"]["cache"] = {"key_ttl": "7s"}
    assert float(one.cache.key_ttl) == 300
    assert float(read_settings(mapping, "development").cache.key_ttl) == 7


# --- the environment ---------------------------------------------------------------------------


THREE: dict[str, Any] = {
    "dev": {"development": True},
    "staging": {},
    "prod": {},
}


def test_environment_by_argument(monkeypatch: pytest.MonkeyPatch) -> None:
    """The argument comes before the variable and the default."""
    monkeypatch.setenv("SENTRA_KMS_ENV", "prod")
    assert read_settings(THREE | {"default_environment": "prod"}, "staging").environment == (
        "staging"
    )


def test_environment_by_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    """`SENTRA_KMS_ENV` comes before the default, and may name a development environment."""
    monkeypatch.setenv("SENTRA_KMS_ENV", "dev")
    assert read_settings(THREE | {"default_environment": "prod"}).environment == "dev"


def test_environment_by_default() -> None:
    """Without both the default is taken."""
    assert read_settings(THREE | {"default_environment": "prod"}).environment == "prod"


def test_empty_variable_names_no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty `SENTRA_KMS_ENV` counts as absent."""
    monkeypatch.setenv("SENTRA_KMS_ENV", "")
    with pytest.raises(ConfigurationError, match="no environment is named"):
        read_settings(THREE)


@pytest.mark.parametrize("only", [THREE, {"dev": {"development": True}}, {"prod": {}}])
def test_no_environment_named(only: dict[str, Any]) -> None:
    """Nothing is guessed, not even when there is only one; the error lists what there is."""
    with pytest.raises(ConfigurationError) as caught:
        read_settings(only)
    for hint in (*only, "SENTRA_KMS_ENV", "environment=", "default_environment"):
        assert hint in caught.value.message


def test_no_environment_at_all() -> None:
    """An empty configuration lists none."""
    with pytest.raises(ConfigurationError, match="it has none"):
        read_settings({})
    with pytest.raises(ConfigurationError, match="no environment 'prod'; it has none"):
        read_settings({}, "prod")


@pytest.mark.parametrize("by", ["argument", "variable"])
def test_unknown_environment(by: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error lists the environments and the nearest one, and no default saves the day."""
    argument = None
    if by == "variable":
        monkeypatch.setenv("SENTRA_KMS_ENV", "stagging")
    else:
        argument = "stagging"
    with pytest.raises(
        ConfigurationError, match="no environment 'stagging'; it has dev, prod, staging"
    ) as caught:
        read_settings(THREE | {"default_environment": "prod"}, argument)
    assert "did you mean 'staging'?" in caught.value.message


@pytest.mark.parametrize("name", ["shared", "default_environment", "Prod"])
def test_what_is_no_environment_cannot_be_named(name: str) -> None:
    """[shared] is none, nor is the default's key; the case counts."""
    with pytest.raises(ConfigurationError, match="there is no environment"):
        read_settings(THREE | {"shared": {}, "default_environment": "prod"}, name)


@pytest.mark.parametrize("default", ["absent", "", 3, True, [], {"a": 1}, "shared"])
def test_default_environment_names_one_that_is_there(default: object) -> None:
    """A default that names nothing is an error even when it is not needed."""
    with pytest.raises(
        ConfigurationError, match="default_environment names one of dev, prod, staging"
    ):
        read_settings(THREE | {"shared": {}, "default_environment": default}, "prod")


@pytest.mark.parametrize("asked", [None, "prod"])
def test_default_environment_may_not_be_a_development_one(asked: str | None) -> None:
    """A process that forgot its variable must not make keys on its own disk."""
    with pytest.raises(ConfigurationError, match="may not name 'dev'"):
        read_settings(THREE | {"default_environment": "dev"}, asked)


@pytest.mark.parametrize("value", [True, False])
@pytest.mark.parametrize("asked", [None, "prod"])
def test_development_may_not_stand_in_shared(*, asked: str | None, value: bool) -> None:
    """No environment becomes a development one, or ceases to be one, by way of [shared]."""
    shared = {"shared": {"development": value}, "default_environment": "prod", "prod": {}}
    with pytest.raises(ConfigurationError, match=r"\[shared\]: 'development' stands in"):
        read_settings(shared, asked)


def test_only_the_chosen_environment_is_checked() -> None:
    """A fault elsewhere does not stop this environment."""
    broken = {"prod": {}, "dev": {"nonsense": 1, "backends": {"x": {"type": "nonsense"}}}}
    assert read_settings(broken, "prod").environment == "prod"
    with pytest.raises(ConfigurationError, match="nonsense"):
        read_settings(broken, "dev")


@pytest.mark.parametrize("value", [1, "text", True, ["a"]])
def test_top_has_tables_only(value: object) -> None:
    """A key at the top that is no table is unknown, and the error says what stands there."""
    with pytest.raises(ConfigurationError, match="unknown key 'wrap_with' at the top"):
        read_settings({"prod": {}, "wrap_with": value}, "prod")


def test_top_suggests_the_nearest() -> None:
    """A slip in the one key at the top is mended."""
    with pytest.raises(ConfigurationError, match="did you mean 'default_environment'"):
        read_settings({"prod": {}, "default_enviroment": "prod"}, "prod")


def test_shared_is_a_table() -> None:
    """[shared] that is no table is refused."""
    with pytest.raises(ConfigurationError, match=re.escape("[shared] is a table")):
        read_settings({"prod": {}, "shared": 1}, "prod")


# --- [shared] ----------------------------------------------------------------------------------


def test_shared_is_merged_key_by_key(config: ConfigFactory) -> None:
    """[shared] gives what an environment does not say; tables merge by key, at every depth."""
    mapping = config(cache={"key_ttl": "10s"})
    mapping["shared"] = {
        "cache": {"key_ttl": "20s", "ring_ttl": "30s"},
        "backends": {"local": {"timeout": "9s"}, "spare": {"type": "memory"}},
    }
    settings = read_settings(mapping, "development")
    assert [float(settings.cache.key_ttl), float(settings.cache.ring_ttl)] == [10, 30]
    assert settings.backends["local"].timeout == 9
    assert {"local", "spare"} <= set(settings.backends)


def test_shared_lists_are_replaced_whole(config: ConfigFactory) -> None:
    """A list of an environment stands alone: KEKs of [shared] do not slip in."""
    mapping = config()
    mapping["shared"] = {"keys": {"wrap_with": ["local:2025-01", "local:2026-11"]}}
    settings = read_settings(mapping, "development")
    assert settings.keys is not None
    assert settings.keys.wrap_with == ("local:2026-11",)


def test_shared_may_be_overridden_by_another_type(config: ConfigFactory) -> None:
    """What an environment says wins, also when it says something of another kind."""
    mapping = config()
    mapping["shared"] = {"backends": {"local": {"timeout": {"nonsense": 1}}}}
    mapping["development"]["backends"]["local"]["timeout"] = "3s"
    assert read_settings(mapping, "development").backends["local"].timeout == 3


def test_shared_is_checked_like_the_environment() -> None:
    """A fault that comes from [shared] is an error of the environment that it merges into."""
    with pytest.raises(ConfigurationError, match=r"unknown key 'kache'; did you mean 'cache'"):
        read_settings({"shared": {"kache": {}}, "prod": {}}, "prod")


def test_environments_do_not_mix() -> None:
    """One environment's settings are not seen in another."""
    mapping = {"prod": {}, "staging": {"cache": {"key_ttl": "1s"}}}
    assert float(read_settings(mapping, "prod").cache.key_ttl) == 300


def test_environment_variables_override_nothing(
    config: ConfigFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A configured directory stays, whatever the variable of its default says."""
    monkeypatch.setenv("ENCRYPTION_KEYS_DIR", str(tmp_path / "elsewhere"))
    with sentra_kms.load(config(), "development") as kms:
        kms.keys.create("acme")
    assert (tmp_path / "keys" / "acme.ring").exists()
    assert not (tmp_path / "elsewhere").exists()
