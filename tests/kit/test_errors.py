"""`check_map` fails for what a backend does not map, and for what it maps wrongly."""

from __future__ import annotations

import errno

import pytest

from sentra_kms import AccessDenied, KMSError, PluginError, ServiceUnavailable, Throttled
from sentra_kms.testing.errors import check_map

_TABLE: dict[str, type[KMSError]] = {"Denied": AccessDenied, "SlowDown": Throttled}


def _told(
    table: dict[str, type[KMSError]], codes: list[str], ignored: tuple[str, ...] = ()
) -> list[str]:
    with pytest.raises(pytest.fail.Exception) as caught:
        check_map(table, codes, ignored=ignored)
    return [line.strip() for line in str(caught.value).splitlines()[1:]]


def test_whole_table_passes() -> None:
    """A table of all codes passes, and so does one that leaves out what it says it does."""
    check_map(_TABLE, ["SlowDown", "Denied"])
    check_map(_TABLE, iter(["SlowDown", "Denied", "Never"]), ignored=["Never"])


def test_codes_may_be_numbers() -> None:
    """Codes are whatever the vendor has."""
    check_map({errno.EACCES: AccessDenied, 503: ServiceUnavailable}, {errno.EACCES, 503})


def test_unmapped_codes_are_all_named() -> None:
    """Each code without an error is named, in one failure."""
    assert _told(_TABLE, ["Denied", "SlowDown", "New", "Newer"]) == [
        "'New' is not mapped",
        "'Newer' is not mapped",
    ]


def test_no_codes_prove_nothing() -> None:
    """A list that came out empty is told."""
    assert _told({}, []) == ["there are no codes: nothing is proved"]


def test_codes_that_the_vendor_lacks() -> None:
    """What is spelled wrongly, or gone, is told, mapped or ignored."""
    assert _told({**_TABLE, "Slowdown": Throttled}, list(_TABLE), ("Gone",)) == [
        "'Slowdown' is mapped, and is no code of the vendor's",
        "'Gone' is ignored, and is no code of the vendor's",
    ]


def test_ignored_and_mapped() -> None:
    """One code is not both."""
    assert _told(_TABLE, list(_TABLE), ("Denied",)) == ["'Denied' is ignored, and mapped"]


@pytest.mark.parametrize("kind", [KMSError, PluginError])
def test_errors_that_say_nothing(kind: type[KMSError]) -> None:
    """A code is mapped to an error that tells its caller something."""
    told = _told({**_TABLE, "Denied": kind}, list(_TABLE))
    assert told == [f"'Denied' is mapped to {kind.__name__}, which says nothing"]


def test_foreign_errors() -> None:
    """And to one of ours."""
    wrong: dict[str, type[KMSError]] = {**_TABLE, "Denied": OSError}  # type: ignore[dict-item]
    assert _told(wrong, list(_TABLE)) == [
        "'Denied' is mapped to <class 'OSError'>, which is no error of ours"
    ]
