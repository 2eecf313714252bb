"""The JSON Schema of the configuration: what it takes, `load` takes, and the other way round."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import msgspec
import pytest
from jsonschema import Draft202012Validator

from sentra_kms import ConfigurationError, KMSError, Reference
from sentra_kms.config import read_settings
from sentra_kms.discovery import FoundType, find_type
from sentra_kms.errors import MalformedInput
from sentra_kms.hooktypes import BackendSettings, BackendType
from sentra_kms.schema import config_schema
from tests.docs.test_toml_blocks import BLOCKS, Block

GOOD: dict[str, Any] = {
    "default_environment": "production",
    "shared": {"cache": {"key_ttl": "5m", "max_keys": 10}},
    "production": {
        "backends": {
            "local": {
                "type": "local",
                "directory": "keys",
                "timeout": "500ms",
                "master_keys": {"2026-11": "file:///run/secrets/k", "old": "file:///old"},
            },
            "file": {"type": "file", "timeout": "1s"},
        },
        "keys": {
            "wrap_with": ["local:2026-11"],
            "unwrap_with": ["local:old"],
            "authenticate_with": ["file:///run/secrets/ring_key", "local:2026-11"],
            "store": "local",
        },
        "cache": {"ring_ttl": "60s"},
        "audit": {"observers": []},
    },
}
LOCAL = ("production", "backends", "local")
BAD: dict[str, tuple[tuple[str, ...], object]] = {
    "a typo in a table's name": (("production", "key"), {}),
    "a typo at the top": (("default_enviroment",), "production"),
    "a typo in keys": (("production", "keys", "wrapwith"), ["local:2026-11"]),
    "a typo in the cache": (("production", "cache", "keyttl"), "5m"),
    "a typo in shared": (("shared", "cache", "keyttl"), "5m"),
    "a field that the backend does not have": ((*LOCAL, "address"), "https://here"),
    "a field of another type of backend": (
        ("production", "backends", "file", "master_keys"),
        {"x": "file:///x"},
    ),
    "a type that is not installed": ((*LOCAL, "type"), "loca"),
    "a backend's name in capitals": (("production", "backends", "Local"), {"type": "local"}),
    "a backend that is no table": (LOCAL, "local"),
    "a list that is a string": (("production", "keys", "wrap_with"), "local:2026-11"),
    "no KEK": (("production", "keys", "wrap_with"), []),
    "too many KEKs": (("production", "keys", "wrap_with"), [f"local:{n}" for n in range(17)]),
    "a KEK without a backend": (("production", "keys", "wrap_with"), ["2026-11"]),
    "nothing to authenticate with": (("production", "keys", "authenticate_with"), []),
    "a secret where a reference belongs": ((*LOCAL, "master_keys", "2026-11"), "hunter2"),
    "a number where text belongs": ((*LOCAL, "directory"), 7),
    "a duration without a unit": (("production", "cache", "key_ttl"), 300),
    "a duration with another unit": (("production", "cache", "key_ttl"), "5 minutes"),
    "a duration with a space": ((*LOCAL, "timeout"), "5 s"),
    "a negative duration": (("production", "cache", "ring_ttl"), "-5s"),
    "no room in the cache": (("production", "cache", "max_keys"), 0),
    "development for all": (("shared", "development"), True),
    "development as text": (("production", "development"), "true"),
    "what is not built yet": (("production", "audit", "required"), True),
    "observers that are a string": (("production", "audit", "observers"), "siem"),
}


@pytest.fixture(scope="module")
def validator() -> Draft202012Validator:
    """Return a validator of the schema with the built-in types."""
    return Draft202012Validator(config_schema())


def put(path: tuple[str, ...], value: object) -> dict[str, Any]:
    """Return the good configuration with one thing replaced or added."""
    tables: dict[str, Any] = copy.deepcopy(GOOD)
    below = tables
    for key in path[:-1]:
        below = below[key]
    below[path[-1]] = value
    return tables


def test_it_is_a_schema() -> None:
    """It is valid against the meta-schema of its dialect, and is JSON."""
    schema = config_schema()
    assert schema["$schema"] == Draft202012Validator.META_SCHEMA["$id"]
    Draft202012Validator.check_schema(schema)
    Draft202012Validator.check_schema(json.loads(json.dumps(schema)))


def test_references_inside_it_lead_somewhere() -> None:
    """Every `$ref` names a definition that is there."""
    schema = config_schema([find_type("local"), found("acme", Nested)])
    names = set(schema["$defs"])  # type: ignore[call-overload]
    used = {reference.removeprefix("#/$defs/") for reference in references(schema)}
    assert used >= {"backends", "keys", "backends.acme.Inner"}
    assert used == names


def test_a_good_configuration_is_accepted(validator: Draft202012Validator) -> None:
    """What the other tests start from has no fault, for the schema or for `load`."""
    assert list(validator.iter_errors(GOOD)) == []
    read_settings(GOOD)


@pytest.mark.parametrize("case", BAD)
def test_a_fault_is_rejected(case: str, validator: Draft202012Validator) -> None:
    """Each fault is one for the schema and one for `load`."""
    tables = put(*BAD[case])
    assert not validator.is_valid(tables)
    with pytest.raises(KMSError):
        read_settings(tables, "production")


def loading() -> Iterator[Any]:
    """Yield the blocks of the documentation, each with the environments that load."""
    for block in BLOCKS:
        names = (
            [] if block.fragment else [name for name in block.environments() if loads(block, name)]
        )
        if names:
            kept = {"shared", "default_environment", *names}
            tables = {key: value for key, value in block.tables.items() if key in kept}
            yield pytest.param(tables, id=f"{block.page}:{block.line}")


def loads(block: Block, environment: str) -> bool:
    """Whether `load` takes an environment of a block."""
    try:
        read_settings(block.tables, environment)
    except KMSError:
        return False
    return True


DOCUMENTED = list(loading())


@pytest.mark.parametrize("tables", DOCUMENTED)
def test_what_the_documentation_shows_is_accepted(
    tables: dict[str, Any], validator: Draft202012Validator
) -> None:
    """The schema rejects nothing that loads."""
    assert [error.message for error in validator.iter_errors(tables)] == []


def test_the_documentation_shows_something() -> None:
    """The test above goes over several pages."""
    pages = {str(parameter.id).partition(":")[0] for parameter in DOCUMENTED}
    assert pages >= {"README.md", "docs/configuration.md", "docs/operations.md"}


class Inner(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A table inside a backend's table."""

    method: str


class Nested(BackendSettings, frozen=True):
    """Settings with a table of their own and a credential."""

    auth: Inner
    token: Reference | None = None
    retries: int = 3


class Region(str):
    """A type of a plugin's own, made from text."""

    __slots__ = ()

    def __new__(cls, text: str) -> Self:
        """Check `text`."""
        if text != "eu":
            raise MalformedInput("only eu")
        return super().__new__(cls, text)


class Regional(BackendSettings, frozen=True):
    """Settings of that type."""

    region: Region


def found(name: str, settings: type[BackendSettings]) -> FoundType:
    """Return a type as a distribution would bring it."""
    kind = BackendType(api=(1, 0), settings=settings, create="a:b", summary=f"All about {name}")
    return FoundType(name, kind, f"sentra-kms-{name}", "1.0")


def accepts(types: list[FoundType], **backend: object) -> bool:
    """Whether a configuration with one backend is accepted."""
    validator = Draft202012Validator(config_schema(types))
    return bool(validator.is_valid({"prod": {"backends": {"it": backend}}}))


def test_settings_of_plugins_are_in_it() -> None:
    """Each installed type brings its fields, with a reference where a credential belongs."""
    types = [find_type("local"), found("acme", Nested)]
    assert accepts(types, type="acme", auth={"method": "x"}, token="vault://a/b", timeout="1s")
    assert accepts(types, type="local", directory="keys")
    assert not accepts(types, type="acme", auth={"method": "x"}, token="hunter2")
    assert not accepts(types, type="acme", auth={"method": "x", "methd": "y"})
    assert not accepts(types, type="acme", retries="three")
    assert not accepts(types, type="acme", directory="keys")


def test_two_plugins_may_name_their_tables_alike() -> None:
    """A nested type of one does not become that of the other."""
    other = type(
        "Inner", (msgspec.Struct,), {"__annotations__": {"role": str}}, forbid_unknown_fields=True
    )
    settings = type(
        "OtherSettings", (BackendSettings,), {"__annotations__": {"auth": other}}, frozen=True
    )
    types = [found("acme", Nested), found("bolt", settings)]
    assert accepts(types, type="acme", auth={"method": "x"})
    assert accepts(types, type="bolt", auth={"role": "x"})
    assert not accepts(types, type="acme", auth={"role": "x"})
    assert not accepts(types, type="bolt", auth={"method": "x"})


def test_a_type_of_a_plugins_own_is_text() -> None:
    """As in the configuration, it is written as text."""
    assert accepts([found("acme", Regional)], type="acme", region="eu")
    assert not accepts([found("acme", Regional)], type="acme", region=1)


def test_what_stands_in_shared_may_be_missing(validator: Draft202012Validator) -> None:
    """A table may be completed by [shared], so none of its keys is demanded of it alone."""
    tables = {
        "shared": {"backends": {"local": {"type": "local"}}, "keys": {"store": "local"}},
        "prod": {
            "backends": {"local": {"master_keys": {"k": "file:///k"}}},
            "keys": {"wrap_with": ["local:k"]},
        },
    }
    assert validator.is_valid(tables)
    read_settings(tables, "prod")


def test_a_type_that_cannot_be_registered_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """An unusable plugin is no silent gap in the schema."""
    monkeypatch.setattr("sentra_kms.schema.installed_types", lambda: ["no-such-type"])
    with pytest.raises(ConfigurationError, match="no-such-type"):
        config_schema()


def test_the_page_says_how_to_make_it() -> None:
    """The configuration's page has the command and the editor's line."""
    page = (Path(__file__).parent.parent / "docs" / "configuration.md").read_text(encoding="utf-8")
    assert "sentra-kms config schema --output sentra-kms.schema.json" in page
    assert "#:schema ./sentra-kms.schema.json" in page


def references(schema: object) -> Iterator[str]:
    """Yield every `$ref` of a schema."""
    if isinstance(schema, dict):
        for key, value in schema.items():
            if key == "$ref":
                yield value
            else:
                yield from references(value)
    elif isinstance(schema, list):
        for value in schema:
            yield from references(value)


@pytest.mark.parametrize(
    ("entry", "right"),
    [
        ("docker://a", True),
        ("ref+docker://a#/b/c", True),
        ({"from": "docker://a"}, True),
        ({"from": ["docker://a", "file:///b"], "ttl": "1m", "max_age": "90d"}, True),
        ({"from": "docker://a", "transform": "base64"}, True),
        ({"from": "docker://a", "transform": ["base64", "json"]}, True),
        ({"template": "{a}", "a": "docker://a"}, True),
        ({"template": "{a}{b}", "a": ["docker://a"], "b": {"from": "docker://b"}}, True),
        ({"template": "{a}", "a": "docker://a", "ttl": "1m"}, True),
        ("not a reference", False),
        (7, False),
        ([], False),
        ({}, False),
        ({"from": []}, False),
        ({"from": "docker://a", "tll": "1m"}, False),
        ({"from": "docker://a", "ttl": 60}, False),
        ({"from": "docker://a", "transform": "rot13"}, False),
        ({"template": "{a}", "a": 7}, False),
        ({"template": "{a}", "a": "docker://a", "from": "docker://b"}, False),
        ({"template": "{a}", "a": {"from": "docker://a", "ttl": "1m"}}, False),
    ],
    ids=str,
)  # fmt: skip
def test_a_secret(validator: Draft202012Validator, entry: object, right: bool) -> None:  # noqa: FBT001
    """The schema and `load` agree on how a secret is written."""
    tables = {"production": {"secrets": {"A": entry}}}
    assert validator.is_valid(tables) is right
    try:
        read_settings(tables, "production")
    except KMSError:
        loaded = False
    else:
        loaded = True
    assert loaded is right
