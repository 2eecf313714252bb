"""References to secrets and names of KEKs."""

from __future__ import annotations

import copy
import pickle
import re
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from sentra_kms.errors import MalformedInput
from sentra_kms.reference import MAX_REFERENCE, KekName, Reference

PLANTED = "planted-s3cr3t-value"


@pytest.mark.parametrize(
    ("text", "backend", "path", "options", "field"),
    [
        ("env://NAME", "env", "NAME", (), None),
        ("file:///etc/key", "file", "/etc/key", (), None),
        ("vault://secret/platform#db", "vault", "secret/platform", (), "db"),
        ("vault://a?version=3", "vault", "a", (("version", "3"),), None),
        ("vault://a?b=1&a=2#f", "vault", "a", (("b", "1"), ("a", "2")), "f"),
        ("vault-eu.x+1://a", "vault-eu.x+1", "a", (), None),
        ("a://b", "a", "b", (), None),
        ("aws://arn:aws:secretsmanager:eu:1:secret:x", "aws",
         "arn:aws:secretsmanager:eu:1:secret:x", (), None),
        ("a://b://c", "a", "b://c", (), None),
        ("a://b//c/", "a", "b//c/", (), None),
        ("a://b...c/..d/e..", "a", "b...c/..d/e..", (), None),
        ("a://ü/ß", "a", "ü/ß", (), None),
        ("a://b@c", "a", "b@c", (), None),
        # percent-encoding, after the parts were told apart
        ("a://b%20c", "a", "b c", (), None),
        ("a://b%23c", "a", "b#c", (), None),
        ("a://b%3Fc?d=e", "a", "b?c", (("d", "e"),), None),
        ("a://b%3fc", "a", "b?c", (), None),
        ("a://b%2Fc", "a", "b/c", (), None),
        ("a://b%25c", "a", "b%c", (), None),
        ("a://b%2525", "a", "b%25", (), None),
        ("a://%C3%BC#%C3%9F", "a", "ü", (), "ß"),
        ("a://b+c", "a", "b+c", (), None),
        ("a://b?x%3Dy=p%26q", "a", "b", (("x=y", "p&q"),), None),
        ("a://b?c=d=e", "a", "b", (("c", "d=e"),), None),
        ("a://b?c=", "a", "b", (("c", ""),), None),
        ("a://b#c#d", "a", "b", (), "c#d"),
        ("a://b#c?d=e", "a", "b", (), "c?d=e"),
        ("a://b#/c/d", "a", "b", (), "/c/d"),
    ],
)  # fmt: skip
def test_parts(
    text: str, backend: str, path: str, options: tuple[tuple[str, str], ...], field: str | None
) -> None:
    """A reference has these parts, and as text is what was written."""
    reference = Reference(text)
    assert reference == text
    assert (reference.backend, reference.path) == (backend, path)
    assert (reference.options, reference.field) == (options, field)


BAD = [
    "",
    PLANTED,
    "://",
    "://x",
    "env:",
    "env:/",
    "env:/x",
    "env:" + PLANTED,
    "env://",
    "env://#f",
    "env://?a=b",
    "Env://x",
    "1env://x",
    "-env://x",
    "e_nv://x",
    "é://x",
    "env ://x",
    " env://x",
    "env://x ",
    "env://a b",
    "env://a\tb",
    "env://a\nb",
    "env://x\n",
    "env://a\x00b",
    "env://a\x7fb",
    "env\n://x",
    "env://x#",
    "env://x?",
    "env://x?a",
    "env://x?=b",
    "env://x?a=b&",
    "env://x?&a=b",
    "env://x?a=b&a=c",
    "env://x?a=b&%61=c",
    "env://%",
    "env://%2",
    "env://%zz",
    "env://a%2g",
    "env://x#%",
    "env://x?a=%",
    "env://x?%=a",
    "env://%ff",
    "env://%C3",
    "env://%ED%A0%80",
    "env://x#%ff",
    "env://.",
    "env://..",
    "env://a/../b",
    "env://a/./b",
    "env://../a",
    "env://a/..",
    "env://%2e%2e/a",
    "env://a%2F..%2Fb",
    "env://a/%2E",
    "file:///../etc",
    "env://a%00b",
    "x" * 5000 + "://a",
]


@pytest.mark.parametrize("text", BAD, ids=lambda text: ascii(text[:24]))
def test_bad_reference_is_refused(text: str) -> None:
    """What is not exactly of the form is refused."""
    with pytest.raises(MalformedInput):
        Reference(text)


def test_length_is_bounded() -> None:
    """A reference has at most 4,096 characters."""
    fits = "a://" + "x" * (MAX_REFERENCE - 4)
    assert len(Reference(fits)) == MAX_REFERENCE == 4096
    with pytest.raises(MalformedInput, match="at most 4096"):
        Reference(fits + "x")


@pytest.mark.parametrize(
    "value", [None, 1, b"env://x", ["env://x"]], ids=lambda v: type(v).__name__
)
def test_what_is_no_text_is_refused(value: Any) -> None:
    """Only text is a reference."""
    with pytest.raises(MalformedInput, match=f"is text, not {type(value).__name__}"):
        Reference(value)


@pytest.mark.parametrize(
    "text",
    [
        PLANTED,
        f"env:{PLANTED}",
        f"{PLANTED}://x y",
        f"UPPER{PLANTED}://x",
        f"env://{PLANTED} x",
        f"env://{PLANTED}\n",
        f"env://{PLANTED}%",
        f"env://{PLANTED}%ff",
        f"env://{PLANTED}/..",
        f"env://{PLANTED}%00",
        f"env://x?{PLANTED}",
        f"env://x?{PLANTED}=1&{PLANTED}=2",
        f"env://x?a={PLANTED}&",
        f"env://{PLANTED}#",
        f"env://x#{PLANTED}%",
        PLANTED * 500,
    ],
    ids=range(16),
)
def test_refusal_does_not_quote_the_text(text: str) -> None:
    """People put a secret where a reference belongs: the error shows none of it."""
    with pytest.raises(MalformedInput) as caught:
        Reference(text)
    error = caught.value
    assert PLANTED not in f"{error} {error!r} {error.args!r} {vars(error)!r}"
    assert PLANTED.upper() not in str(error).upper()
    assert error.__cause__ is None
    assert error.__suppress_context__ or error.__context__ is None


def test_refusal_names_the_column_of_what_is_unsafe() -> None:
    """A space or a control character is found by its column."""
    with pytest.raises(MalformedInput, match="column 8"):
        Reference("env://a b")


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_reference_is_pickled_with_its_parts(protocol: int) -> None:
    """A reference holds no secret and crosses processes."""
    reference = Reference("vault://a?version=3#f")
    back = pickle.loads(pickle.dumps(reference, protocol))  # noqa: S301 - made here
    assert type(back) is Reference
    assert back == reference
    assert vars(back) == vars(reference)
    assert vars(copy.deepcopy(reference)) == vars(reference)


# --- names of KEKs -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "backend", "key"),
    [
        ("local:2026-11", "local", "2026-11"),
        ("aws-eu:alias/tenants", "aws-eu", "alias/tenants"),
        ("aws:arn:aws:kms:eu:1:key/x", "aws", "arn:aws:kms:eu:1:key/x"),
        ("a:b", "a", "b"),
        ("a: b ", "a", " b "),
        ("vault:tenant-{tenant}", "vault", "tenant-{tenant}"),
    ],
)
def test_kek_name(text: str, backend: str, key: str) -> None:
    """The backend ends at the first colon; all else is the key's own name."""
    name = KekName(text)
    assert name == text
    assert (name.backend, name.key) == (backend, key)


@pytest.mark.parametrize(
    "text",
    ["", ":", "a", "a:", ":b", "A:b", "1a:b", "a b:c", "é:b", "a\n:b", f"{PLANTED}", f"{PLANTED}:"],
)
def test_bad_kek_name_is_refused_without_being_quoted(text: str) -> None:
    """What is not BACKEND:KEY is refused, and may have been a secret."""
    with pytest.raises(MalformedInput, match="BACKEND:KEY") as caught:
        KekName(text)
    assert PLANTED not in str(caught.value)


@pytest.mark.parametrize("part", ["{}", "x?a={}", "x#{}"])
def test_refusal_keeps_no_error_of_a_codec(part: str) -> None:
    """A codec's error holds the text that it could not read; ours does not hold that error."""
    with pytest.raises(MalformedInput) as caught:
        Reference("env://" + part.format(f"{PLANTED}%ff"))
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None


# --- prefix, pointers, columns -----------------------------------------------------------------


@pytest.mark.parametrize("rest", ["vault://a/b?version=3#/c", "env://X", "r://x", "ref://x"])
def test_prefix_of_vals_is_taken_off(rest: str) -> None:
    """`ref+` may stand before a reference, which is then the same one."""
    with_prefix = Reference("ref+" + rest)
    assert with_prefix == rest
    assert vars(with_prefix) == vars(Reference(rest))


@pytest.mark.parametrize(
    ("field", "keys"),
    [
        ("db_url", ("db_url",)),
        ("a/b", ("a/b",)),
        ("a~b", ("a~b",)),
        ("/db/password", ("db", "password")),
        ("/", ("",)),
        ("//", ("", "")),
        ("/a~1b/m~0n/~01", ("a/b", "m~n", "~1")),
        ("/%C3%BC/a%2Fb", ("ü", "a", "b")),
        ("/list/0", ("list", "0")),
    ],
)
def test_field_is_a_key_or_a_json_pointer(field: str, keys: tuple[str, ...]) -> None:
    """A field is one top-level key, or the way that a JSON pointer goes."""
    assert Reference(f"a://b#{field}").keys == keys
    assert Reference("a://b").keys == ()


def test_document_is_the_reference_without_its_field() -> None:
    """What is fetched is named by all of the reference but the field."""
    assert Reference("ref+a://b?version=3#f").document == "a://b?version=3"
    plain = Reference("a://b?version=3")
    assert plain.document is plain


@pytest.mark.parametrize(
    ("text", "column"),
    [
        ("", 1),
        (PLANTED, 1),
        ("ref+", 5),
        ("://x", 1),
        ("Env://x", 1),
        ("e_nv://x", 2),
        ("env ://x", 4),
        ("ref+e_nv://x", 6),
        ("env://", 7),
        ("env://a b", 8),
        ("ref+env://a b", 12),
        ("env://ab%zz", 9),
        ("env://a%ff", 8),
        ("env://a/b/../c", 11),
        ("env://a/%2e", 9),
        ("env://a/x%2F..%2Fb", 9),
        ("env://a%00b", 7),
        ("env://x?", 9),
        ("env://x?a", 9),
        ("env://x?a=b&", 13),
        ("env://x?a=b&a=c", 13),
        ("env://x?a=b%", 12),
        ("env://x?%=a", 9),
        ("env://x#", 8),
        ("env://x?a=b#", 12),
        ("env://x#a%", 10),
        ("env://x#/a~b", 9),
        ("env://x#/a~2", 9),
        ("env://x#/a~", 9),
        ("x://" + "a" * MAX_REFERENCE, MAX_REFERENCE + 1),
    ],
    ids=lambda value: ascii(value)[:24],
)
def test_refusal_names_the_column(text: str, column: int) -> None:
    """Every malformed reference is refused with the column of what is wrong."""
    with pytest.raises(MalformedInput, match=rf"\(column {column}\)$"):
        Reference(text)


_NAMES = st.from_regex(r"[a-z][a-z0-9.-]{0,8}", fullmatch=True)
_TEXTS = st.text(min_size=1, max_size=20)


@given(
    backend=_NAMES,
    path=st.lists(_TEXTS.filter(lambda each: each not in {".", ".."}), min_size=1, max_size=4),
    options=st.dictionaries(_TEXTS, st.text(max_size=20), max_size=3),
    keys=st.lists(st.text(max_size=12), max_size=4),
)
def test_whatever_is_percent_encoded_comes_back(
    backend: str, path: list[str], options: dict[str, str], keys: list[str]
) -> None:
    """Parts that are percent-encoded are read back as they were, whatever characters they have."""
    assume(all("\x00" not in segment and "/" not in segment for segment in path))
    text = f"{backend}://" + "/".join(quote(segment, safe="") for segment in path)
    if options:
        text += "?" + "&".join(
            f"{quote(k, safe='')}={quote(v, safe='')}" for k, v in options.items()
        )
    if keys:
        pointer = "".join("/" + key.replace("~", "~0").replace("/", "~1") for key in keys)
        text += "#" + quote(pointer, safe="/~")
    reference = Reference(text)
    assert (reference.backend, reference.path) == (backend, "/".join(path))
    assert (reference.options, reference.keys) == (tuple(options.items()), tuple(keys))
    assert Reference("ref+" + text) == reference
    assert Reference(str(reference)) == reference


@given(
    st.one_of(
        st.text(max_size=60),
        st.text(alphabet="ab:/?#%&=~.+0f \x00é", max_size=40),
        st.text(alphabet="ab/?#%&=~.+0f", max_size=40).map(lambda rest: f"a://{rest}"),
    )
)
def test_any_text_is_a_reference_or_refused(text: str) -> None:
    """Nothing but our own error comes of any text; what is a reference has no path escape."""
    try:
        Reference(text)
    except MalformedInput as error:
        told = error.message
    else:
        told = ""
    if told:
        assert re.search(r"\(column [0-9]+\)$", told)
        return
    reference = Reference(text)
    assert not {".", ".."} & set(reference.path.split("/"))
    assert "\x00" not in reference.path
    assert Reference(str(reference)) == reference
    assert reference.document.field is None
