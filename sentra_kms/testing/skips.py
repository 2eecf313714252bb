"""What a run did not prove, in pytest's summary, so that no skip goes by unseen."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import cast

import pytest

LACKS_ABILITY = "the harness lacks the ability"
LACKS_PART = "no part that implements"
LIVE_PROFILE = "left out of the live profile"
DECLARED = "declared absent:"
NO_FORK = "this system does not fork"
"""What a skip's reason says."""

_NAME = "sentra-kms-conformance"
_REASON = re.compile(
    rf"{LACKS_ABILITY} \S+|\S+ has {LACKS_PART} \S+|{DECLARED} [^\n]+|{LIVE_PROFILE}|{NO_FORK}"
)


def tell_skips(config: pytest.Config) -> None:
    """List at the end of this run what its conformance checks left out; asked again, only once."""
    if not config.pluginmanager.has_plugin(_NAME):
        config.pluginmanager.register(_Summary(), _NAME)


def summary(skips: Iterable[tuple[str, str]]) -> list[str]:
    """Return a line for each class of checks and reason, from pairs of test id and reason.

    >>> summary([("test_x.py::TestAcme::test_denied", f"{LACKS_ABILITY} deny()")])
    ['TestAcme: the harness lacks the ability deny(): test_denied']
    """
    left_out: dict[tuple[str, str], dict[str, None]] = {}
    for test, reason in skips:
        found = _REASON.search(reason)
        if found is None:
            continue
        *_, owner, name = test.split("::") if "::" in test else ("", test)
        left_out.setdefault((owner, found[0]), {})[name.partition("[")[0]] = None
    return [
        f"{owner}: {reason}: {', '.join(checks)}"
        for (owner, reason), checks in sorted(left_out.items())
    ]


class _Summary:
    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Write the section, if something was left out."""
        skipped = terminalreporter.getreports("skipped")
        lines = summary((report.nodeid, _reason(report.longrepr)) for report in skipped)
        if lines:
            terminalreporter.write_sep("=", "conformance: not proved")
            for line in lines:
                terminalreporter.write_line(line)


def _reason(told: object) -> str:
    # Of a skip pytest keeps path, line and reason.
    return str(cast("tuple[object, ...]", told)[2] if isinstance(told, tuple) else told)
