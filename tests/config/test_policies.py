"""The tables `[ENV.policies.NAME]`, and what `[ENV.keys]` says beside the KEKs."""

from __future__ import annotations

from typing import Any

import pytest

from sentra_kms.config import read_settings
from sentra_kms.errors import ConfigurationError, KMSError
from sentra_kms.reference import KekName
from sentra_kms.runtime import KMS
from sentra_kms.settings import Policy

REFERENCE = "file:///run/ring_key"


def settings_of(
    keys: dict[str, Any], policies: dict[str, Any] | None = None, **tables: Any
) -> dict[str, Policy]:
    """Return the policies of a development environment with two memory backends."""
    table: dict[str, Any] = {
        "development": True,
        "backends": {"m": {"type": "memory"}, "n": {"type": "memory"}},
        "keys": {"wrap_with": ["m:k"], "store": "m"} | keys,
        **tables,
    }
    if policies is not None:
        table["policies"] = policies
    return read_settings({"env": table}, "env").policies


def refusal(keys: dict[str, Any], policies: dict[str, Any] | None = None) -> str:
    """Return why a configuration is refused."""
    with pytest.raises(KMSError) as caught:
        settings_of(keys, policies)
    assert type(caught.value) is ConfigurationError
    return caught.value.message


def test_keys_are_the_default_policy() -> None:
    """Without a table of policies there is one, that of [keys], with all KEKs needed."""
    (only,) = settings_of({"wrap_with": ["m:a", "n:b"], "unwrap_with": ["m:old"]}).values()
    assert (only.name, only.wrap_with, only.min_wraps) == ("default", ("m:a", "n:b"), 2)
    assert only.unwrap_with == ("m:a", "n:b", "m:old")
    assert (only.rotate_after, only.key_ttl) == (None, 300.0)


def test_policy_inherits_what_it_omits() -> None:
    """KEKs, min_wraps, rotate_after and key_ttl come from [keys] and [cache]."""
    keys = {
        "wrap_with": ["m:a", "n:b"],
        "unwrap_with": ["m:old"],
        "min_wraps": 1,
        "rotate_after": "365d",
    }
    gold = settings_of(keys, {"gold": {}}, cache={"key_ttl": "1m"})["gold"]
    assert gold == Policy(
        name="gold",
        wrap_with=(KekName("m:a"), KekName("n:b")),
        unwrap_with=(KekName("m:a"), KekName("n:b"), KekName("m:old")),
        min_wraps=1,
        rotate_after=365 * 86400.0,
        key_ttl=60.0,
    )


def test_policy_says_otherwise() -> None:
    """Each of its keys stands over that of [keys]; [keys].unwrap_with is always allowed too."""
    policies = {
        "gold": {
            "wrap_with": ["n:g1", "n:g2"],
            "unwrap_with": ["n:g0"],
            "min_wraps": 2,
            "rotate_after": "90d",
            "key_ttl": "0s",
        }
    }
    gold = settings_of({"unwrap_with": ["m:old"], "min_wraps": 1}, policies)["gold"]
    assert gold.wrap_with == ("n:g1", "n:g2")
    assert gold.unwrap_with == ("n:g1", "n:g2", "n:g0", "m:old")
    assert (gold.min_wraps, gold.rotate_after, gold.key_ttl) == (2, 90 * 86400.0, 0.0)


def test_inherited_min_wraps_never_asks_for_more_keks_than_there_are() -> None:
    """Two of three for [keys], and a policy with one KEK needs that one."""
    keys = {"wrap_with": ["m:a", "m:b", "m:c"], "min_wraps": 2}
    assert settings_of(keys, {"own": {"wrap_with": ["n:x"]}})["own"].min_wraps == 1


@pytest.mark.parametrize(
    ("keys", "policies", "told"),
    [
        ({"min_wraps": 2}, None, "[env.keys]: min_wraps is 2, and wrap_with has 1 KEKs"),
        ({"min_wraps": 0}, None, "min_wraps"),
        ({}, {"gold": {"min_wraps": 3}}, "[env.policies.gold]: min_wraps is 3"),
        ({}, {"default": {}}, "the default policy is what [keys] says"),
        ({}, {"no/name": {}}, "a policy's name is letters"),
        ({}, {"gold": "x"}, "a policy is a table"),
        ({}, {"gold": {"wrap_wiht": ["m:k"]}}, "unknown key 'wrap_wiht'; did you mean 'wrap_with'"),
        ({}, {"gold": {"store": "m"}}, "unknown key 'store'"),
        (
            {},
            {"gold": {"wrap_with": ["o:k"]}},
            "[env.policies.gold.wrap_with]: there is no",
        ),
        ({}, {"gold": {"wrap_with": ["m:k", "m:k"]}}, "a KEK is named twice"),
        ({}, {"gold": {"wrap_with": []}}, "wrap_with"),
        ({}, {"gold": {"unwrap_with": ["m:{t}"]}}, "the only ones in a KEK's name are {tenant}"),
        ({"wrap_with": ["m:{tenant"]}, None, "the only ones in a KEK's name are {tenant}"),
        (
            {"wrap_with": ["m:t-{tenant}"]},
            None,
            "authenticate_with is needed, since",
        ),
        (
            {"authenticate_with": ["m:t-{tenant}"]},
            None,
            "'m:t-{tenant}' is another key for each tenant",
        ),
        ({}, {"gold": {"key_ttl": 30}}, "a duration is written like"),
        ({"rotate_after": "never"}, None, "a duration is written like"),
        ({"previous_store": "gone"}, None, "[env.keys.previous_store]: there is no backend 'gone'"),
        ({"previous_store": "m"}, None, "this is store itself"),
    ],
)
def test_bad_policies_are_refused_by_place(
    keys: dict[str, Any], policies: dict[str, Any] | None, told: str
) -> None:
    """The error names the table and what is wrong there."""
    assert told in refusal(keys, policies)


def test_policies_without_keys_are_refused() -> None:
    """They are for keys, and there are none."""
    with pytest.raises(ConfigurationError, match=r"add \[env.keys\]"):
        read_settings({"env": {"policies": {"gold": {}}}}, "env")


def test_kek_of_its_own_for_each_tenant() -> None:
    """`{tenant}` in a KEK's name stands for the tenant's id, in [keys] and in policies."""
    keys = {"wrap_with": ["m:t-{tenant}"], "authenticate_with": [REFERENCE]}
    found = settings_of(keys, {"gold": {"wrap_with": ["n:{tenant}/{tenant}"]}})
    assert [kek.of("Acme.x") for kek in found["default"].wrap_with] == ["m:t-Acme.x"]
    assert [kek.of("a") for kek in found["gold"].wrap_with] == ["n:a/a"]
    assert [kek.of("a") for kek in found["gold"].unwrap_with] == ["n:a/a"]


def test_policy_with_a_foreign_kek_needs_authenticate_with(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only local and memory keys authenticate rings by themselves, also where a policy asks."""
    table = {
        "development": True,
        "backends": {"m": {"type": "memory"}, "s": {"type": "file"}},
        "keys": {"wrap_with": ["m:k"], "store": "m"},
        "policies": {"gold": {"wrap_with": ["s:k"]}},
    }
    with pytest.raises(ConfigurationError, match="since 's:k' is neither a local nor a memory key"):
        read_settings({"env": table}, "env")


@pytest.mark.parametrize("key", ["e:///run/x", "https://eu.example/keys/k", "//k"])
def test_kek_whose_name_looks_like_a_reference_is_one_and_authenticates(key: str) -> None:
    """A KEK from `wrap_with` or `unwrap_with` is never taken for a reference to a secret."""
    table = {
        "development": True,
        "backends": {"m": {"type": "memory"}},
        "keys": {"wrap_with": ["m:k"], "unwrap_with": [f"m:{key}"], "store": "m"},
    }
    settings = read_settings({"env": table}, "env")
    assert settings.keys is not None
    assert [source.target for source in settings.keys.authenticate_with] == ["m:k", f"m:{key}"]
    assert all(isinstance(each.target, KekName) for each in settings.keys.authenticate_with)
    table["keys"] = {"wrap_with": [f"m:{key}"], "store": "m"}
    with KMS(read_settings({"env": table}, "env")) as kms:
        kms.keys.create("acme")
        message = kms.keys.encrypt("acme", b"x")
        assert kms.keys.decrypt("acme", message) == b"x"


def test_policy_that_names_a_backend_without_keks_is_told_by_its_table() -> None:
    """Who mends it looks there, and not at [keys]."""
    table = {
        "development": True,
        "backends": {"m": {"type": "memory"}, "l": {"type": "local", "directory": "rings"}},
        "keys": {"wrap_with": ["m:k"], "store": "m"},
        "policies": {"gold": {"wrap_with": ["l:k"]}},
    }
    with pytest.raises(KMSError, match=r"\[env\.policies\.gold\] names the KEK 'l:k'"):
        KMS(read_settings({"env": table}, "env"))
