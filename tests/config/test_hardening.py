"""Configurations that are hostile or mistaken: refused as such, and nothing of them is shown."""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import sentra_kms
from sentra_kms import config
from sentra_kms.config import read_settings
from sentra_kms.errors import (
    ConfigurationError,
    KMSError,
    MalformedInput,
    UnsupportedOperation,
)
from tests.conftest import ConfigFactory
from tests.ground.leaks import chain, locals_inside, shows

PLANTED = "planted-s3cr3t-of-32-bytes-or-more"
PACKAGE = os.path.dirname(sentra_kms.__file__)

TABLES = f"""
[production.backends.local]
type = "local"
master_keys = {{ "k" = "{PLANTED}" }}
[production.keys]
wrap_with = ["local:k"]
store = "local"
[laptop]
development = true
"""


def write(path: Path, text: str) -> Path:
    """Write a configuration file."""
    path.write_text(text)
    return path


def refused(source: object, environment: str | None = "production") -> KMSError:
    """Return the error with which `load` refuses a configuration."""
    given: Any = source
    with pytest.raises(KMSError) as caught:
        sentra_kms.load(given, environment)
    return caught.value


# --- a misplaced secret -----------------------------------------------------------------------


def shown_inside(error: BaseException) -> str:
    """Return the locals of the package's own frames, as a traceback printer captures them."""
    told: list[str] = []
    for each in chain(error):
        whole = traceback.TracebackException.from_exception(each, capture_locals=True)
        told += [
            f"{frame.name}: {frame.locals}"
            for frame in whole.stack
            if frame.filename.startswith(PACKAGE + os.sep)
        ]
    return "\n".join(told)


@pytest.mark.parametrize(
    ("head", "environment"),
    [
        ("", None),
        ("", "prodction"),
        ("", "shared"),
        ('default_environment = "prodction"', "production"),
        ('default_environment = "prodction"', None),
        ('default_environment = "laptop"', None),
        ('default_environment = "laptop"', "production"),
        ("default_environment = 7", "production"),
        (f'token = "{PLANTED}"', "production"),
        (f'token = "{PLANTED}"', None),
        (f'shared = "{PLANTED}"', "production"),
        (f'shared = {{ development = true, token = "{PLANTED}" }}', "production"),
        (f'default_environment = "{PLANTED}"\ntoken = ', "production"),
        ("", "production"),
    ],
)
def test_refused_file_shows_none_of_its_values(
    tmp_path: Path, head: str, environment: str | None
) -> None:
    """Whatever it is refused for, its values are in no local of the traceback."""
    path = write(tmp_path / "sentra-kms.toml", f"{head}\n{TABLES}")
    with pytest.raises(ConfigurationError) as caught:
        sentra_kms.load(path, environment)
    error = caught.value
    assert error.message.startswith(str(path))
    inside = shown_inside(error)
    assert "read_settings: " in inside
    for output in (inside, locals_inside(error), f"{error} {error!r} {vars(error)!r}"):
        assert not shows(output, PLANTED.encode())


# --- configurations that no person wrote ------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "a = " + "[" * 100_000,
        "a = " + "{ a = " * 100_000,
        "a = " + "[" * 5_000 + "]" * 5_000,
        "[production]\ndevelopment = " + "9" * 5000,
        "[production.cache]\nmax_keys = " + "9" * 5000,
        "[production]\ndevelopment = 0x" + "f" * 5000,
        "[production.cache]\nmax_keys = inf",
        "[production]\ndevelopment = 9999-99-99",
        '[production.backends.local]\ntype = "local"\nmaster_keys = '
        + "{ a = " * 300
        + "1"
        + " }" * 300,
        "[production" + ".a" * 20_000 + "]",
        "\x00",
    ],
    ids=[
        "arrays",
        "tables",
        "closed arrays",
        "digits",
        "digits of a number",
        "hex digits",
        "infinity",
        "no date",
        "deep master keys",
        "dotted",
        "NUL",
    ],
)
def test_file_that_no_person_wrote_is_refused(tmp_path: Path, text: str) -> None:
    """Nesting and numbers without measure are an error of the configuration, not of Python."""
    error = refused(write(tmp_path / "sentra-kms.toml", text))
    assert isinstance(error, ConfigurationError)
    assert "sentra-kms.toml" in error.message
    assert error.__context__ is None
    assert len(error.message) < 4096


def nested(depth: int) -> dict[str, Any]:
    """Return a table so many tables deep."""
    top: dict[str, Any] = {}
    below = top
    for _ in range(depth):
        below["a"] = {}
        below = below["a"]
    return top


def cyclic() -> dict[str, Any]:
    """Return a table that contains itself."""
    table: dict[str, Any] = {"development": True}
    table["again"] = table
    return table


def cyclic_list() -> list[Any]:
    """Return a list that contains itself."""
    found: list[Any] = []
    found.append(found)
    return found


def deep_list(depth: int) -> list[Any]:
    """Return a list so many lists deep."""
    found: list[Any] = []
    for _ in range(depth):
        found = [found]
    return found


@pytest.mark.parametrize(
    "make",
    [
        lambda: {"production": nested(100)},
        lambda: {"production": nested(500)},
        lambda: {"production": nested(900)},
        lambda: {"production": nested(10_000)},
        lambda: {"shared": nested(10_000), "production": {}},
        lambda: {"shared": nested(400), "production": nested(400)},
        lambda: {"other": nested(10_000), "production": {}},
        lambda: {"production": cyclic()},
        lambda: {"shared": cyclic(), "production": {}},
        lambda: {"production": {"backends": cyclic()}},
        lambda: {"production": {"cache": cyclic()}},
        lambda: {"production": {"keys": {"wrap_with": cyclic_list(), "store": "l"}}},
        lambda: {"production": {"cache": {"max_keys": deep_list(10_000)}}},
        lambda: {
            "production": {
                "backends": {"l": {"type": "local", "master_keys": nested(300)}},
            }
        },
    ],
    ids=[
        "100",
        "500",
        "900",
        "10,000",
        "shared 10,000",
        "merged 400",
        "another environment",
        "itself",
        "shared itself",
        "backends itself",
        "cache itself",
        "a list of itself",
        "a deep list",
        "deep master keys",
    ],
)
def test_mapping_that_no_person_wrote_is_refused(make: Callable[[], dict[str, Any]]) -> None:
    """Nested without measure, or containing itself: refused as a configuration."""
    error = refused(make())
    assert isinstance(error, (ConfigurationError, MalformedInput))
    assert error.__context__ is None
    assert len(error.message) < 4096


@pytest.mark.parametrize(
    ("mapping", "place"),
    [
        ({1: {}}, "at the top"),
        ({"production": {}, None: {}}, "at the top"),
        ({"production": {b"keys": {}}}, "[production]"),
        ({"production": {"backends": {1: {"type": "local"}}}}, "[production.backends]"),
        ({"shared": {"cache": {("a", "b"): "5m"}}, "production": {}}, "[shared.cache]"),
        ({"production": {"keys": {"wrap_with": [{2026: "a"}]}}}, "[production.keys.wrap_with]"),
    ],
)
def test_key_of_a_mapping_that_is_no_text_is_refused(mapping: Any, place: str) -> None:
    """YAML, for one, makes numbers of keys that are written without quotes."""
    error = refused(mapping)
    assert isinstance(error, ConfigurationError)
    assert place in error.message
    assert "text" in error.message
    assert error.__context__ is None


@pytest.mark.parametrize(
    "mapping",
    [
        {"prod\ud800": {}},
        {"production": {"\ud800": 1}},
        {"production": {"backends": {"l": {"type": "local", "directory": "\udcff"}}}},
        {"production": {"cache": {"key_ttl": "\ud800"}}},
        {"production": {"cache": {"max_keys": "\ud800"}}},
        {"production": {"keys": {"wrap_with": ["local:\ud800"], "store": "local"}}},
        {"default_environment": "\ud800", "production": {}},
    ],
)
def test_mapping_with_half_a_character_is_refused(mapping: Any) -> None:
    """JSON can hold a lone surrogate, which no file of ours can; the error can be printed."""
    error = refused(mapping)
    assert isinstance(error, ConfigurationError)
    assert "lone surrogate" in error.message
    assert error.message.encode("utf-8")
    assert error.__context__ is None


@pytest.mark.parametrize("environment", [5, 0, b"production", ["production"], True, object()])
def test_environment_that_is_no_text_is_refused(environment: Any) -> None:
    """Neither guessed at nor taken for absent: the error says what was passed in."""
    error = refused({"production": {}, "default_environment": "production"}, environment)
    assert isinstance(error, MalformedInput)
    assert type(environment).__name__ in error.message
    assert error.__context__ is None


@pytest.mark.parametrize("source", [123, 1.5, b"sentra-kms.toml", ["a"], object(), True, (), set()])
def test_source_that_is_no_path_and_no_mapping_is_refused(source: object) -> None:
    """The error says what was passed in and what could be."""
    error = refused(source)
    assert isinstance(error, (ConfigurationError, MalformedInput))
    assert error.__context__ is None


@pytest.mark.parametrize("name", ["a\x00b", "\x00", "sentra\x00-kms.toml"])
@pytest.mark.parametrize("kind", [str, Path])
def test_path_with_a_nul_is_refused(name: str, kind: Callable[[str], object]) -> None:
    """A path that no file can have is refused like one that no file has."""
    error = refused(kind(name))
    assert isinstance(error, (ConfigurationError, MalformedInput))
    assert "\x00" not in error.message


def test_path_with_a_surrogate_is_refused() -> None:
    """A name that the file system's encoding lacks is none of a file."""
    assert isinstance(refused("\ud800.toml"), (ConfigurationError, MalformedInput))


# --- names and places that are taken ----------------------------------------------------------


@pytest.mark.parametrize("name", ["docker", "systemd", "env", "file"])
@pytest.mark.parametrize("kind", ["local", "memory"])
def test_name_of_a_built_in_source_is_not_free_for_another_type(name: str, kind: str) -> None:
    """A reference `docker://…` must never come to mean some other backend."""
    table = {"development": True, "backends": {name: {"type": kind}}}
    error = refused({"laptop": table}, "laptop")
    assert type(error) is ConfigurationError
    assert f"'{name}'" in error.message
    assert f"backends.{name}" in error.message


@pytest.mark.parametrize("name", ["env", "file"])
def test_built_in_source_may_be_declared_under_its_own_name(name: str) -> None:
    """Declaring what is there anyway changes nothing."""
    table = {"development": True, "backends": {name: {"type": name}}}
    with sentra_kms.load({"laptop": table}, "laptop") as kms:
        assert kms.environment == "laptop"


@pytest.mark.parametrize("name", ["file", "secrets"])
@pytest.mark.parametrize("directory", ["", 7, "a\x00b"])
def test_bad_directory_of_a_file_backend_is_refused(name: str, directory: object) -> None:
    """A directory is text that can be a path."""
    table = {"backends": {name: {"type": "file", "directory": directory}}}
    error = refused({"production": table})
    assert type(error) is ConfigurationError
    assert "directory" in error.message
    assert f"backends.{name}" in error.message


def test_backend_name_that_reads_as_the_prefix_is_refused() -> None:
    """A reference `ref+x://…` is one to `x`: no backend may be called so."""
    error = refused({"production": {"backends": {"ref+x": {"type": "file"}}}})
    assert "'ref+'" in error.message


@pytest.mark.parametrize("reference", ["memory://k", "rings://k"])
@pytest.mark.parametrize("kind", ["memory", "local"])
def test_reference_to_what_keeps_no_secrets_is_refused_at_load(
    config: ConfigFactory, reference: str, kind: str, tmp_path: Path
) -> None:
    """A master key in a backend that fetches none is found before anything needs it."""
    mapping = config()
    backends = mapping["development"]["backends"]
    name = reference.partition("://")[0]
    backends[name] = {"type": kind}
    backends["local"]["master_keys"]["2026-11"] = reference
    error = refused(mapping, "development")
    assert type(error) is UnsupportedOperation
    for told in (reference, "fetch_secret", "backends.local"):
        assert told in error.message
    assert error.backend == name
    assert not (tmp_path / "keys").exists()


@pytest.mark.parametrize(
    ("ways", "circle"),
    [
        ({"a": "a"}, "a -> a"),
        ({"a": "b", "b": "a"}, "a -> b -> a"),
        ({"a": "b", "b": "c", "c": "a"}, "a -> b -> c -> a"),
        ({"a": "b", "b": "c", "c": "b"}, "a -> b -> c -> b"),
    ],
)
def test_references_in_a_circle_are_named(ways: dict[str, str], circle: str) -> None:
    """A backend whose credentials are kept in itself could never log in, over however many."""
    backends = {
        name: {"type": "local", "master_keys": {"k": f"{kept_in}://k"}}
        for name, kept_in in ways.items()
    }
    error = refused({"production": {"backends": backends}})
    assert type(error) is ConfigurationError
    assert f"in a circle: {circle}" in error.message
    assert "[production.backends.a]" in error.message


def chained(count: int, keys: int = 1) -> dict[str, Any]:
    """Return backends in a row, each with the master keys of the one before."""
    backends: dict[str, Any] = {
        f"b{number}": {
            "type": "local",
            "master_keys": {f"k{key}": f"b{number + 1}://k" for key in range(keys)},
        }
        for number in range(count)
    }
    return {"production": {"backends": {**backends, f"b{count}": {"type": "local"}}}}


@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("count", [17, 2000])
def test_references_without_end_are_refused(count: int, *, backwards: bool) -> None:
    """Nobody keeps credentials behind so many others, and no stack holds the way."""
    tables = chained(count)
    backends = tables["production"]["backends"]
    names = sorted(backends, key=lambda name: int(name[1:]), reverse=backwards)
    tables["production"]["backends"] = {name: backends[name] for name in names}
    error = refused(tables)
    assert type(error) is ConfigurationError
    assert "its references lead over more than 16 backends" in error.message


def test_many_ways_to_one_backend_are_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where each has many keys in the next, the ways are many more than what is to be looked at."""
    looks: list[object] = []

    def counted(settings: Any) -> Iterator[Any]:
        looks.append(settings)
        return iter(found(settings))

    found = config.references_in
    monkeypatch.setattr(config, "references_in", counted)
    read_settings(chained(6, keys=8), "production")
    assert len(looks) < 100


@pytest.mark.parametrize("value", [True, False, "yes"])
@pytest.mark.parametrize("environment", ["production", "laptop"])
@pytest.mark.parametrize("form", ["mapping", "file"])
def test_development_is_never_shared(
    tmp_path: Path, value: object, environment: str, form: str
) -> None:
    """No environment becomes one of development by what another part of the file says."""
    tables = {
        "shared": {"development": value},
        "production": {},
        "laptop": {"development": True},
    }
    source: object = tables
    if form == "file":
        written = f'"{value}"' if isinstance(value, str) else str(value).lower()
        source = write(
            tmp_path / "sentra-kms.toml",
            f"[shared]\ndevelopment = {written}\n[production]\n[laptop]\ndevelopment = true\n",
        )
    error = refused(source, environment)
    assert type(error) is ConfigurationError
    assert "[shared]" in error.message
    assert "'development'" in error.message
