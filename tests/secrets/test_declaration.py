"""`[ENV.secrets]`: what is declared, and what is refused at load."""

from __future__ import annotations

from typing import Any

import pytest

import sentra_kms
from sentra_kms.config import read_settings
from sentra_kms.errors import ConfigurationError, KMSError, UnsupportedOperation
from sentra_kms.secret_settings import SecretEntry, SecretSource
from sentra_kms.settings import Settings

PLANTED = "planted-s3cr3t-value"


def read(secrets: object, **tables: Any) -> Settings:
    """Read a development environment with these secrets."""
    return read_settings({"test": {"development": True, "secrets": secrets, **tables}}, "test")


def refusal(secrets: object, **tables: Any) -> str:
    """Return what the refusal of these secrets says, which shows no planted value."""
    with pytest.raises(KMSError) as caught:
        read(secrets, **tables)
    assert isinstance(caught.value, ConfigurationError)
    assert PLANTED not in f"{caught.value} {caught.value.__cause__} {caught.value.__context__}"
    return caught.value.message


def test_a_reference() -> None:
    """The short form is one reference."""
    (entry,) = read({"A": "ref+env://X#/a/b"}).secrets.values()
    (source,) = entry.parts.values()
    assert source.references == ("env://X#/a/b",)
    assert source.references[0].keys == ("a", "b")
    assert (entry.ttl, entry.max_age, entry.template) == (None, None, ())


def test_a_table() -> None:
    """A table has references in order, transforms, a time to live and an age limit."""
    secrets = {
        "A": {
            "from": ["docker://a", "file:///b"],
            "transform": ["base64", "json"],
            "ttl": "10m",
            "max_age": "90d",
        },
        "B": {"from": "env://B", "transform": "json"},
    }
    found = read(secrets).secrets
    assert found["A"].parts[""].references == ("docker://a", "file:///b")
    assert found["A"].parts[""].transforms == ("base64", "json")
    assert (found["A"].ttl, found["A"].max_age) == (600, 90 * 86400)
    assert found["B"].parts[""] == SecretSource(
        references=found["B"].parts[""].references, transforms=("json",)
    )


def test_a_template() -> None:
    """A template's other keys are its parts: a reference, several, or a table."""
    secrets = {
        "URL": {
            "template": "postgresql://{user}:{password}@db/app?{{x}}={host:raw}",
            "user": "env://U",
            "password": ["docker://p", "env://P"],
            "host": {"from": "env://H", "transform": "base64"},
            "ttl": "1m",
        }
    }
    entry = read(secrets).secrets["URL"]
    assert [(piece.text, piece.part, piece.raw) for piece in entry.template] == [
        ("postgresql://", "user", False),
        (":", "password", False),
        ("@db/app?{x}=", "host", True),
    ]
    assert entry.parts["password"].references == ("docker://p", "env://P")
    assert entry.parts["host"].transforms == ("base64",)


def test_backends_that_need_no_declaration_come_along() -> None:
    """What the references lead to is there; `env` in development only."""
    settings = read({"A": ["docker://a"][0], "B": "systemd://b", "C": "env://C"})
    assert set(settings.backends) == {"docker", "systemd", "env"}
    with pytest.raises(ConfigurationError, match="env:// is for development only"):
        read_settings({"prod": {"secrets": {"A": "env://A"}}}, "prod")


def test_no_secrets() -> None:
    """The table may be absent or empty."""
    assert read({}).secrets == {}
    assert read_settings({"test": {}}, "test").secrets == {}


@pytest.mark.parametrize(
    ("secrets", "told"),
    [
        ([], "[test.secrets]: this is a table"),
        ({"2ND": "env://X"}, "no digit first"),
        ({"A-B": "env://X"}, "letters, digits and underscores"),
        ({"": "env://X"}, "letters, digits and underscores"),
        ({"A" * 129: "env://X"}, "1 to 128"),
        ({PLANTED: "env://X"}, "[test.secrets]: a secret's name"),
        ({"A": 7}, "[test.secrets.A]: a secret is a reference, or a table"),
        ({"A": ["env://X"]}, "a secret is a reference, or a table"),
        ({"A": PLANTED}, "[test.secrets.A]: not a reference: write BACKEND://PATH"),
        ({"A": f"postgresql://u:{PLANTED}@h/d"}, "no backend 'postgresql'"),
        ({"A": f"env://{PLANTED} x"}, "(column 27)"),
        ({"A": "env://X#"}, "(column 8)"),
        ({"A": {}}, "missing required field `from`"),
        ({"A": {"from": []}}, "length >= 1"),
        ({"A": {"from": [f"env://X{n}" for n in range(17)]}}, "length <= 16"),
        ({"A": {"from": ["env://X", "env://X"]}}, "names a reference twice"),
        ({"A": {"from": ["env://X", PLANTED]}}, "at `from[1]`"),
        ({"A": {"fron": "env://X"}}, "unknown key 'fron'; did you mean 'from'?"),
        ({"A": {"from": "env://X", "tll": "1m"}}, "did you mean 'ttl'?"),
        ({"A": {"from": "env://X", "ttl": 60}}, 'written like "60s"'),
        ({"A": {"from": "env://X", "ttl": "0s"}}, "'ttl' is longer than no time"),
        ({"A": {"from": "env://X", "max_age": "0d"}}, "'max_age' is longer"),
        ({"A": {"from": "env://X", "transform": PLANTED}}, "'transform' is one of base64, json"),
        ({"A": {"from": "env://X", "transform": [7]}}, "Expected `str`"),
        ({"A": {"template": f"x://{PLANTED}@h"}}, "would be a secret in the configuration"),
        ({"A": {"template": 7}}, "Expected `str`"),
        ({"A": {"template": "{b}", "a": "env://X"}}, "a part is named that is not given"),
        ({"A": {"template": "{a}", "a": "env://X", "b": "env://X"}}, "does not use its part 'b'"),
        ({"A": {"template": "x{a", "a": "env://X"}}, "not closed"),
        ({"A": {"template": "x}{a}", "a": "env://X"}}, "closes nothing"),
        ({"A": {"template": "{a:quoted}", "a": "env://X"}}, "':raw'"),
        ({"A": {"template": "{a}", "a": 7}}, "part 'a': Expected `array`"),
        ({"A": {"template": "{a}", "a": PLANTED}}, "part 'a': not a reference"),
        ({"A": {"template": "{a}", "a": {"from": "env://X", "ttl": "1m"}}}, "unknown key 'ttl'"),
        ({"A": {"template": "{a}", "a": "env://X", "from": "env://X"}}, "'from' does not go with"),
        ({"A": {"template": "{a-b}", "a-b": "env://X"}}, "a part's name"),
        ({"A": {"template": f"{{{PLANTED}", "a": "env://X"}}, "(column 1)"),
        ({"A": "vault://x"}, "there is no backend 'vault'"),
    ],
    ids=str,
)
def test_refused_at_load(secrets: object, told: str) -> None:
    """A fault is found at load, with its place, and shows no value: it may be the secret."""
    assert told in refusal(secrets)


def test_template_names_the_column() -> None:
    """A part that is not given is found by its column."""
    told = refusal({"A": {"template": "ab{c}", "a": "env://X"}})
    assert "(column 3)" in told


def test_backend_without_secrets_is_refused_at_load() -> None:
    """A reference to a backend that fetches no secrets is found before it is needed."""
    table = {
        "development": True,
        "backends": {"rings": {"type": "local"}},
        "secrets": {"A": "rings://a"},
    }
    with pytest.raises(UnsupportedOperation, match="fetch_secret"):
        sentra_kms.load({"test": table}, "test")


def test_circle_of_references_is_named() -> None:
    """Backends whose credentials lead back to themselves are refused, and the way named."""
    backends = {
        "a": {"type": "local", "master_keys": {"k": "b://x"}},
        "b": {"type": "local", "master_keys": {"k": "a://x"}},
    }
    told = refusal({"A": "a://x"}, backends=backends)
    assert "circle: a -> b -> a" in told


def test_shared_secrets_are_merged() -> None:
    """`[shared.secrets]` holds in every environment, whose own entries replace its."""
    tables = {
        "shared": {"secrets": {"A": "file:///a", "B": "file:///b"}},
        "prod": {"secrets": {"B": "docker://b"}},
    }
    found = read_settings(tables, "prod").secrets
    assert isinstance(found["A"], SecretEntry)
    assert found["A"].parts[""].references == ("file:///a",)
    assert found["B"].parts[""].references == ("docker://b",)
