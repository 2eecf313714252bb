"""Whether a backend maps every error code that its vendor has."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable, Mapping
from typing import TypeVar

import pytest

from sentra_kms.errors import KMSError, PluginError

_C = TypeVar("_C", bound=Hashable)


def check_map(
    table: Mapping[_C, type[KMSError]], codes: Iterable[_C], *, ignored: Collection[_C] = ()
) -> None:
    """Fail unless `table` maps each of the vendor's `codes` to an error of ours.

    Take `codes` from the vendor's library and not from your head: its service model, enumeration
    or constants. A release that brings a new code then fails this test, and not a user.
    `ignored` are codes that cannot reach the backend, each for a reason that you wrote beside it.
    Also told are codes that the vendor does not have (any more), and errors that say nothing:
    `KMSError` itself, and `PluginError`, which is for faults of backends.

    >>> from sentra_kms import AccessDenied, Throttled
    >>> check_map({"Denied": AccessDenied, "SlowDown": Throttled}, ["Denied", "SlowDown"])
    """
    known = set(codes)
    faults: list[str] = []
    if not known:
        faults.append("there are no codes: nothing is proved")
    faults += [f"{code!r} is not mapped" for code in _sorted(known - set(table) - set(ignored))]
    for code in _sorted(set(table)):
        kind: object = table[code]
        if code not in known:
            faults.append(f"{code!r} is mapped, and is no code of the vendor's")
        if not (isinstance(kind, type) and issubclass(kind, KMSError)):
            faults.append(f"{code!r} is mapped to {kind!r}, which is no error of ours")
        elif kind in {KMSError, PluginError}:
            faults.append(f"{code!r} is mapped to {kind.__name__}, which says nothing")
    for code in _sorted(set(ignored)):
        if code in table:
            faults.append(f"{code!r} is ignored, and mapped")
        if code not in known:
            faults.append(f"{code!r} is ignored, and is no code of the vendor's")
    if faults:
        pytest.fail("the table of errors is not right:\n  " + "\n  ".join(faults), pytrace=False)


def _sorted(codes: set[_C]) -> list[_C]:
    return sorted(codes, key=repr)
