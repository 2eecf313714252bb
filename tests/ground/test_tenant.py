"""The one rule for tenant ids."""

from __future__ import annotations

import string
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sentra_kms.errors import MalformedInput
from sentra_kms.tenant import check_tenant, is_tenant

ALPHABET = string.ascii_letters + string.digits + "._-"

VALID = [
    "a",
    "A",
    "0",
    "acme",
    "ACME",
    "Acme-Corp_1.eu",
    "a..b",
    "a.",
    "a-",
    "a_",
    "9-lives",
    "x" * 120,
    "con",
    "acme.ring",
]
INVALID = [
    "",
    "/",
    "a/b",
    "/etc/passwd",
    "..",
    ".",
    "../acme",
    "acme/..",
    "\\",
    "a\\b",
    "\x00",
    "acme\x00",
    "ac\x00me",
    "acme\n",
    "acme\r\n",
    "\nacme",
    "acme\r",
    " acme",
    "acme ",
    "ac me",
    "\tacme",
    ".acme",
    "-acme",
    "_acme",
    "acmé",
    "аcme",  # noqa: RUF001 - a Cyrillic letter
    "ａcme",  # noqa: RUF001 - full width
    "acme²",
    "acme٣",
    "acme\u200b",
    "\u2028acme",
    "acme\ud800",
    "acme:1",
    "acme=",
    "acme%2e",
    "acme~",
    "acme*",
    "acme@b",
    "a,b",
    "x" * 121,
    "x" * 100_000,
    "." * 120,
]


@pytest.mark.parametrize("tenant", VALID)
def test_valid_id_is_returned(tenant: str) -> None:
    """A valid id is returned as it is."""
    assert check_tenant(tenant) == tenant
    assert is_tenant(tenant)


@pytest.mark.parametrize("tenant", INVALID, ids=lambda t: ascii(t[:20]))
def test_invalid_id_is_refused(tenant: str) -> None:
    """Everything else is refused, with what an id is made of."""
    with pytest.raises(MalformedInput, match="letters, digits") as caught:
        check_tenant(tenant)
    assert not is_tenant(tenant)
    assert caught.value.message.isascii()
    assert caught.value.message.isprintable()
    assert len(caught.value.message) < 400


class Text(str):
    __slots__ = ()


@pytest.mark.parametrize(
    "tenant", [b"acme", None, 1, True, ["acme"], Text("acme")], ids=lambda t: type(t).__name__
)
def test_what_is_no_str_is_refused(tenant: Any) -> None:
    """Bytes and subclasses of str, which could print or compare as they like, are refused."""
    with pytest.raises(MalformedInput, match=f"is a str, not {type(tenant).__name__}$"):
        check_tenant(tenant)


def test_case_makes_two_ids() -> None:
    """Ids that differ only in case are two ids."""
    assert check_tenant("Acme") != check_tenant("acme")


@given(st.text(alphabet=st.sampled_from(ALPHABET + "/\n\x00é ="), max_size=130))
def test_rule(tenant: str) -> None:
    """The rule is the one that is written down, and nothing else."""
    expected = (
        1 <= len(tenant) <= 120
        and set(tenant) <= set(ALPHABET)
        and tenant[0] in string.ascii_letters + string.digits
    )
    assert is_tenant(tenant) is expected
