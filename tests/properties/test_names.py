"""Properties of what is written as text: references, KEKs, tenants and files, durations."""

from __future__ import annotations

import string
from urllib.parse import quote

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from sentra_kms.backends.ring_files import file_name, tenant_of
from sentra_kms.config import parse_duration
from sentra_kms.errors import MalformedInput
from sentra_kms.reference import MAX_REFERENCE, KekName, Reference
from tests.fuzz import load_target
from tests.properties.strategies import ANY_CHARACTERS, BACKENDS, TENANTS, filled

pytestmark = pytest.mark.soak

PLANTED = "planted-s3cr3t-value"
ANY_TEXT = st.text(ANY_CHARACTERS)
ALIKE = st.text(alphabet="aB=.\x00\n :/?#&%2eEfF é\ud800", max_size=20)


def encoded(text: str) -> str:
    """Percent-encode everything that a reference may encode."""
    return quote(text, safe="")


@st.composite
def references(draw: st.DrawFn) -> tuple[str, str, str, tuple[tuple[str, str], ...], str | None]:
    """A reference as text, and its parts."""
    backend = draw(BACKENDS)
    path = draw(filled(20))
    assume("\x00" not in path and not {".", ".."} & set(path.split("/")))
    options = draw(st.dictionaries(filled(6), st.one_of(st.just(""), filled(6)), max_size=3))
    field = draw(st.one_of(st.none(), filled(8)))
    text = f"{backend}://{encoded(path)}"
    if options:
        text += "?" + "&".join(f"{encoded(k)}={encoded(v)}" for k, v in options.items())
    if field is not None:
        text += "#" + encoded(field)
    return text, backend, path, tuple(options.items()), field


@given(references())
def test_reference_has_the_parts_that_it_was_written_of(
    made: tuple[str, str, str, tuple[tuple[str, str], ...], str | None],
) -> None:
    """Every backend, path, option and field can be written, and comes back."""
    text, backend, path, options, field = made
    found = Reference(text)
    assert str(found) == text
    assert (found.backend, found.path, found.options, found.field) == (
        backend, path, options, field,
    )  # fmt: skip
    assert Reference(str(found)) == found


@pytest.mark.parametrize("kind", [Reference, KekName])
@pytest.mark.parametrize("head", ["", "env://", "env:", "x", "env://a?b=", "env://%"])
@given(before=st.one_of(ANY_TEXT, ALIKE), after=st.one_of(ANY_TEXT, ALIKE))
def test_any_text_is_taken_or_refused_without_being_quoted(
    kind: type[Reference | KekName], head: str, before: str, after: str
) -> None:
    """No other error than `MalformedInput`, and nothing of a secret in it or behind it."""
    text = head + before + PLANTED + after
    try:
        found = kind(text)
    except MalformedInput as error:
        shown = f"{error} {error!r} {error.args!r} {vars(error)!r}"
        assert PLANTED not in shown
        assert error.__cause__ is error.__context__ is None
    else:
        assert str(found) == text
        assert len(text) <= MAX_REFERENCE or kind is KekName


@pytest.mark.parametrize("name", ["reference", "kek_name", "duration", "tenant_file"])
@given(text=st.one_of(ANY_TEXT, ALIKE, TENANTS))
def test_any_text_passes_the_fuzzers_judgement(name: str, text: str) -> None:
    """What the fuzzers hold of their inputs holds of every text."""
    load_target(name)(text.encode("utf-8", "surrogatepass"))
    load_target(name)(text.encode("utf-8", "backslashreplace"))


@given(BACKENDS, filled())
def test_kek_name_is_its_backend_and_its_key(backend: str, key: str) -> None:
    """The first colon parts them; control characters make no name."""
    if any(char < " " or char == "\x7f" for char in key):
        with pytest.raises(MalformedInput):
            KekName(f"{backend}:{key}")
    else:
        name = KekName(f"{backend}:{key}")
        assert (name.backend, name.key) == (backend, key)


@given(TENANTS, TENANTS)
def test_files_of_two_tenants_are_two_on_a_disk_that_folds_case(one: str, other: str) -> None:
    """Each tenant has one file name, which is its own whether or not the disk knows case."""
    for tenant in (one, one.swapcase(), one.lower(), one.upper()):
        name = file_name(tenant)
        assert tenant_of(f"{name}.ring") == tenant
        assert (name.casefold() == file_name(other).casefold()) == (tenant == other)
        assert (name.casefold() == file_name(one).casefold()) == (tenant == one)


@given(st.text(alphabet=string.ascii_letters + string.digits + "=._-ßıſK", max_size=30))  # noqa: RUF001
def test_name_on_a_disk_is_one_tenants_or_nobodys(name: str) -> None:
    """Whatever files lie in the directory, none is taken for a ring but under its own name."""
    for file in (name, f"{name}.ring"):
        tenant = tenant_of(file)
        assert tenant is None or f"{file_name(tenant)}.ring" == file


@given(st.integers(0, 999_999_999), st.sampled_from(["ms", "s", "m", "h", "d"]))
def test_duration_is_its_number_of_its_unit(number: int, unit: str) -> None:
    """To the millisecond, whatever the unit."""
    size = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}[unit]
    seconds = parse_duration(f"{number}{unit}")
    assert round(seconds * 1000) == number * size
    assert parse_duration(f"{number:09}{unit}") == seconds
    with pytest.raises(ValueError, match="a duration is written like"):
        parse_duration(f"{number:010}{unit}")
