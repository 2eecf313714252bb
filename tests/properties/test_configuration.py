"""Properties of configurations: anything is settings or an error of ours, quoting no value."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import sentra_kms
from sentra_kms.config import read_settings
from sentra_kms.errors import ConfigurationError, KMSError, MalformedInput, UnsupportedOperation
from sentra_kms.settings import Settings
from tests.ground.leaks import shows
from tests.properties.strategies import filled, places

pytestmark = pytest.mark.soak

PLANTED = "planted-s3cr3t-of-32-bytes-or-more"
REFUSALS = (ConfigurationError, UnsupportedOperation, MalformedInput)
KNOWN = [
    "development", "backends", "keys", "cache", "audit", "secrets", "policies", "shared",
    "default_environment", "production", "type", "timeout", "directory", "master_keys", "wrap_with",
    "unwrap_with", "authenticate_with", "store", "min_wraps", "key_ttl", "ring_ttl", "max_keys",
    "max_stale", "observers", "required", "local", "memory", "file", "env", "docker", "a",
]  # fmt: skip
NAMES = st.one_of(st.sampled_from(KNOWN), st.text(max_size=6))
LIKELY = st.sampled_from(
    ["local", "memory", "file", "env", "docker", "vault", "production", "5m", "0s", "1e3s",
     "local:a", "memory:k", "vault:t-{tenant}", "env://A", "file:///run/a", "docker://a", "a://b?c",
     "keys", "/tmp/keys", "", "\x00", "\ud800", "x" * 5000]
)  # fmt: skip
SCALARS: st.SearchStrategy[Any] = st.one_of(
    LIKELY,
    st.none(),
    st.booleans(),
    st.integers(-1, 3),
    st.integers(),
    st.floats(),
    st.text(max_size=8),
    st.binary(max_size=4),
    st.just(datetime(2026, 1, 1, tzinfo=UTC)),
    st.builds(object),
)
VALUES: st.SearchStrategy[Any] = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(NAMES, inner, max_size=4)
    ),
    max_leaves=8,
)  # fmt: skip
KEKS = st.sampled_from(["a", "b", "2026-11"])


@st.composite
def valid(draw: st.DrawFn) -> dict[str, Any]:
    """A configuration of one environment that keeps every rule."""
    development = draw(st.booleans())
    kind = draw(st.sampled_from(["local", "memory"])) if development else "local"
    name = draw(st.sampled_from(["keys-1", kind]))
    references = ["file:///run/a", "file:///run/%20b?x=1#f"]
    references += ["env://MASTER", "env://M#f"] if development else []
    backend: dict[str, Any] = {"type": kind}
    keks = draw(st.lists(KEKS, min_size=1, max_size=3, unique=True))
    if kind == "local":
        backend["master_keys"] = {kek: draw(st.sampled_from(references)) for kek in keks}
        if draw(st.booleans()):
            backend["directory"] = draw(st.sampled_from(["keys", "/run/keys", "a b/ü"]))
    if draw(st.booleans()):
        backend["timeout"] = draw(st.sampled_from(["1ms", "5s", "2m", "1h"]))
    table: dict[str, Any] = {"backends": {name: backend}}
    first = draw(st.integers(1, len(keks)))
    named = [f"{name}:{kek}" for kek in keks]
    table["keys"] = {"wrap_with": named[:first], "store": name}
    if named[first:]:
        table["keys"]["unwrap_with"] = named[first:]
    if draw(st.booleans()):
        sources = st.sampled_from([*named, *references])
        table["keys"]["authenticate_with"] = draw(st.lists(sources, min_size=1, max_size=3))
    if development or draw(st.booleans()):
        table["development"] = development
    if draw(st.booleans()):
        table["cache"] = {
            "key_ttl": draw(st.sampled_from(["0s", "500ms", "5m", "30d"])),
            "max_keys": draw(st.integers(1, 10**6)),
        }
    if draw(st.booleans()):
        table["audit"] = {"observers": []}
    return {"production": table, **({"shared": {}} if draw(st.booleans()) else {})}


def read(source: Any, environment: str | None = "production") -> Settings | str:
    """Return settings, or the text of a refusal that is one of ours and refers to no other."""
    failure: KMSError | None = None
    try:
        return read_settings(source, environment)
    except REFUSALS as error:
        failure = error
    assert failure.__cause__ is failure.__context__ is None
    assert len(failure.message) < 20_000
    return failure.message


@given(valid())
def test_valid_configuration_loads(source: dict[str, Any]) -> None:
    """Every one that keeps the rules is read, opens without a connection, and says what it said."""
    settings = read_settings(source, "production")
    table = source["production"]
    assert settings.development is table.get("development", False)
    assert settings.keys is not None
    assert list(settings.keys.wrap_with) == table["keys"]["wrap_with"]
    assert settings.keys.authenticate_with
    assert settings.cache.max_keys == table.get("cache", {}).get("max_keys", 10_000)
    assert set(table["backends"]) <= set(settings.backends) <= {*table["backends"], "env", "file"}
    with sentra_kms.load(source, "production") as kms:
        assert repr(kms) == "KMS(environment='production')"


@given(st.dictionaries(NAMES, VALUES, max_size=4), st.sampled_from([None, "production", "a", ""]))
@example({"a": {}, 1: {}}, None)
@example({1: 2}, None)
@example({"production": {None: 1}}, "production")
@example({"production": {"keys": {1: "a"}}}, "production")
@example({"production": {"backends": {1: {"type": "local"}}}}, "production")
def test_any_mapping_is_settings_or_refused(source: dict[Any, Any], asked: str | None) -> None:
    """Whatever a program passes, the error is one of ours."""
    read(source, asked)


@given(st.data(), valid())
def test_changed_configuration_is_settings_or_refused(
    data: st.DataObject, source: dict[str, Any]
) -> None:
    """The same of a valid one after a change anywhere in it."""
    holder, key = data.draw(st.sampled_from(list(places(source))))
    if data.draw(st.booleans()):
        holder[data.draw(NAMES) if isinstance(holder, dict) else key] = data.draw(VALUES)
    else:
        del holder[key]
    read(source)


# What names something is told by its name; a secret is misplaced where a value belongs.
NAMING = {"type", "store", "wrap_with", "unwrap_with", "observers", "default_environment"}


@given(st.data(), valid(), filled(6), filled(6))
def test_misplaced_secret_is_never_quoted(
    data: st.DataObject, source: dict[str, Any], before: str, after: str
) -> None:
    """A secret in the place of any value, or under any name that is not known, is not shown."""
    spots = [
        (holder, key)
        for holder, key in places(source)
        if key not in NAMING and not (isinstance(key, int) and names_something(source, holder))
    ]
    holder, key = data.draw(st.sampled_from(spots))
    secret = data.draw(
        st.sampled_from(
            [PLANTED, f"env:{PLANTED}", f"{PLANTED} x", f"redis://:{PLANTED}@cache", [PLANTED],
             f"{before}{PLANTED}{after}", {"value": PLANTED}, PLANTED.encode()]
        )
    )  # fmt: skip
    if isinstance(holder, dict) and data.draw(st.booleans()):
        key = data.draw(st.sampled_from(["password", "key", "token"]))
    holder[key] = secret
    told = read(source)
    if isinstance(told, str):
        assert not shows(told, PLANTED.encode())


def names_something(source: Any, wanted: Any) -> bool:
    """Whether a list stands under a key that names things."""
    return any(holder[key] is wanted and key in NAMING for holder, key in places(source))


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file that is written anew for each example."""
    return tmp_path_factory.mktemp("configuration") / "sentra-kms.toml"


FRAGMENTS = st.lists(
    st.one_of(
        st.sampled_from(
            ["[production]", "[production.keys]", "[[production.backends]]", "[shared.cache]",
             'backends.a.type = "local"', 'keys.store = "a"', 'wrap_with = ["a:k"]',
             'default_environment = "production"', "development = true", 'max_keys = "',
             "a = 1979-05-27T07:32:00Z", "a = inf", 'key_ttl = "5m"', '"" = {}', "a.b.c = [{}]",
             "'''", '"""', "=", "{", "]", "# x", "\r", "\x00", "\ufeff", "\\u0000", "9" * 400]
        ),
        st.text(max_size=10),
    ),
    max_size=8,
)  # fmt: skip


@given(FRAGMENTS)
def test_any_text_in_a_file_is_settings_or_refused(path: Path, lines: list[str]) -> None:
    """TOML or not, the error is one of ours and names the file."""
    path.write_bytes("\n".join(lines).encode("utf-8", "surrogatepass"))
    told = read(path)
    assert isinstance(told, Settings) or told.startswith(os.fspath(path))
