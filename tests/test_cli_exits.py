"""Exit codes: one for each kind of failure, the same in table, help and documentation."""

from __future__ import annotations

import re

import pytest

import sentra_kms
from sentra_kms import errors
from sentra_kms.cli import exits
from tests.test_cli_support import ROOT, error_of, run


def _tree(kind: type[errors.KMSError]) -> list[type[errors.KMSError]]:
    below = [each for each in kind.__subclasses__() if each.__module__ == errors.__name__]
    return [kind, *(deeper for each in below for deeper in _tree(each))]


ALL_ERRORS = _tree(errors.KMSError)


def test_the_walk_finds_the_whole_tree() -> None:
    """Every error that the package exports is in the list that the other tests go over."""
    exported = {
        value
        for name in sentra_kms.__all__
        if isinstance(value := getattr(sentra_kms, name), type)
        and issubclass(value, errors.KMSError)
    }
    assert exported == set(ALL_ERRORS)


@pytest.mark.parametrize("kind", ALL_ERRORS, ids=lambda kind: kind.__name__)
def test_every_error_ends_with_its_code(
    kind: type[errors.KMSError], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A command that raises an error ends with the code of the table and the error's message."""

    def fail(*_: object) -> None:
        raise kind("it did not work", backend="vault", operation="load_ring", subject="acme")

    monkeypatch.setattr(sentra_kms, "load", fail)
    result = run("tenant", "list")
    assert result.exit_code == exits.code_of(kind(""))
    assert result.stdout == ""
    assert result.stderr.splitlines()[0] == "Error: it did not work"
    assert error_of(run("tenant", "list", "--json")) == {
        "type": kind.__name__,
        "message": "it did not work",
        "backend": "vault",
        "operation": "load_ring",
        "subject": "acme",
        "retryable": kind.default_retryable,
    }


def test_codes_are_distinct() -> None:
    """No two rows share a code, and no error but the base class counts as unexpected."""
    codes = [row.code for row in exits.TABLE]
    assert len(set(codes)) == len(codes)
    assert codes == sorted(codes)
    unexpected = [kind for kind in ALL_ERRORS if exits.code_of(kind("")) == exits.UNEXPECTED]
    assert unexpected == [errors.KMSError]


def test_kinds_share_a_code_only_where_the_table_says_so() -> None:
    """The classes right below the root have a code each; refusals of access share one."""
    below = {kind: exits.code_of(kind("")) for kind in errors.KMSError.__subclasses__()}
    denied = {errors.AccessDenied, errors.AuthenticationFailed}
    alone = [code for kind, code in below.items() if kind not in denied]
    assert len(set(alone)) == len(alone)
    assert {below[kind] for kind in denied} == {6}


def test_help_shows_the_table() -> None:
    """`--help` lists every code with its meaning."""
    shown = run("--help").stdout
    for row in exits.TABLE:
        assert re.search(rf"^ +{row.code}  {re.escape(row.meaning)}$", shown, re.MULTILINE)


def test_documentation_shows_the_table() -> None:
    """The table on the page is the one in the code, row by row."""
    page = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d+) \| (.+?) \| (.*?) ?\|$", page, re.MULTILINE)
    expected = [
        (str(row.code), row.meaning, ", ".join(f"`{kind.__name__}`" for kind in row.errors))
        for row in exits.TABLE
    ]
    assert rows == expected
