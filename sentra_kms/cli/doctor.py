"""`sentra-kms doctor`: the effective configuration explained, and what is wrong with it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import click
import msgspec

from sentra_kms.cli.failure import ErrorsFound, warnings_held_back
from sentra_kms.cli.output import count, printable, render, to_terminal, write_json, write_row
from sentra_kms.cli.session import Session, acting, config_options
from sentra_kms.cli.show import table_of
from sentra_kms.doctor import MOST_RINGS, Diagnosis, diagnose
from sentra_kms.hooktypes import Finding

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

_DIGITS = 9
_TITLES = (("ok", "Fine", "green"), ("warning", "Warnings", "yellow"), ("error", "Errors", "red"))


def _rings(context: click.Context, option: click.Parameter, value: str) -> int | None:
    """Read a number of rings, or `all`, which is `None`."""
    if value == "all":
        return None
    if not (value.isascii() and value.isdecimal() and len(value) <= _DIGITS):
        raise click.BadParameter("write a number, or `all`")
    return int(value)


@click.command()
@click.option("--offline", is_flag=True, help="Fetch nothing: no secret, no KEK, no key ring.")
@click.option(
    "--rings",
    callback=_rings,
    default=str(MOST_RINGS),
    show_default=True,
    metavar="NUMBER|all",
    help="How many key rings are read, one after the other.",
)
@config_options
@click.pass_obj
def doctor(session: Session, *, offline: bool, rings: int | None) -> None:
    """Explain the configuration in force, check it, and say what to do.

    All environments are read and compared; the one that is chosen is tried: every backend, KEK and
    key directory, and the key rings, up to a number. Nothing is changed. Ends with code 18 if there
    is an error; warnings are none.
    """
    with acting(), warnings_held_back():
        diagnosis = diagnose(session.config, session.environment, offline=offline, rings=rings)
    if session.json:
        write_json({**msgspec.to_builtins(diagnosis), "level": diagnosis.level})
    elif to_terminal():
        render(*_screen(diagnosis))
    else:
        _rows(diagnosis)
    errors = [finding for finding in diagnosis.findings if finding.level == "error"]
    if errors:
        raise ErrorsFound(f"{count(len(errors), 'error')} found")


def _rows(diagnosis: Diagnosis) -> None:
    write_row("source", diagnosis.source, diagnosis.source_from)
    write_row("environment", diagnosis.environment, diagnosis.environment_from)
    for each in diagnosis.explained:
        write_row("setting", each.path, each.value, each.origin)
    for finding in diagnosis.findings:
        write_row("finding", finding.level, finding.subject, finding.message, finding.advice)
    for name, version, api in diagnosis.distributions:
        write_row("distribution", name, version, api)


def _screen(diagnosis: Diagnosis) -> Iterator[RenderableType]:
    yield (
        f"{printable(diagnosis.source)} ({diagnosis.source_from}), environment "
        f"{printable(diagnosis.environment)} ({diagnosis.environment_from})"
    )
    if diagnosis.explained:
        yield ""
        yield table_of(
            [
                ("Setting", [each.path for each in diagnosis.explained]),
                ("In force", [each.value for each in diagnosis.explained]),
                ("From", [each.origin for each in diagnosis.explained]),
            ]
        )
    # The worst comes last: it is what stays on the screen.
    for level, title, colour in _TITLES:
        found = [finding for finding in diagnosis.findings if finding.level == level]
        if found:
            yield from _section(title, colour, found)
    yield ""
    yield _conclusion(diagnosis)


def _section(title: str, colour: str, findings: list[Finding]) -> Iterator[RenderableType]:
    from rich.padding import Padding
    from rich.text import Text

    yield ""
    yield Text(title, style=f"bold {colour}")
    for finding in findings:
        yield Padding(_told(finding), (0, 0, 0, 2), expand=False)
        if finding.advice:
            yield Padding(
                Text(f"→ {printable(finding.advice)}", style=colour), (0, 0, 0, 4), expand=False
            )


def _told(finding: Finding) -> Text:
    from rich.text import Text

    message = Text(printable(finding.message))
    if finding.message.startswith(finding.subject) or (
        finding.subject.startswith("/") and finding.subject in finding.message
    ):
        return message  # which says what it is about
    return Text.assemble((f"{printable(finding.subject)}: ", "bold"), message)


def _conclusion(diagnosis: Diagnosis) -> str:
    levels = [finding.level for finding in diagnosis.findings]
    told = [count(levels.count(level), level) for level in ("error", "warning") if level in levels]
    if diagnosis.tried:
        looked = "Read and tried"
    elif diagnosis.offline:
        looked = "Read, and nothing fetched"
    else:
        looked = "Read, and not tried since it cannot be loaded"
    versions = ", ".join(
        f"{name} {version} (hooks {api})" for name, version, api in diagnosis.distributions
    )
    return f"{looked}: {' and '.join(told) or 'nothing to mend'}. {printable(versions)}"
