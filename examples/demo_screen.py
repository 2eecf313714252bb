"""What the demo shows, and the rule that it shows no claim that it has not checked."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

_LABEL = 22  # columns
_VALUE = 33
_LINE = 80


class ClaimBrokenError(Exception):
    """Something that the demo was about to claim is not so."""


class Screen:
    """Plain text, with colours where a person reads it and rich is installed."""

    def __init__(self) -> None:
        if hasattr(sys.stdout, "reconfigure"):
            sys.stdout.reconfigure(errors="replace")  # a terminal may lack the tick
        self._steps = 0
        self._console = _console()

    def heading(self, text: str, style: str = "bold") -> None:
        """Show a heading."""
        self._show(f"\n{text}", style)

    def step(self, text: str, note: str) -> None:
        """Begin the next numbered step, with a line on what it is about."""
        self._steps += 1
        self.heading(f"{self._steps}. {text}", "bold cyan")
        self._show(f"   {note}", "italic")

    def line(self, label: str, text: str) -> None:
        """Show a fact that was measured or read."""
        self._show(f"   {label:<{_LABEL}}  {text}", "")

    def advice(self, label: str, text: str) -> None:
        """Show something to do or to read, and what for."""
        self._show(f"   {label:<40}  {text}", "")

    def quote(self, text: str) -> None:
        """Show what a file holds."""
        for line in text.splitlines():
            self._show(f"     {line}", "dim")

    def said(self, error: Exception) -> None:
        """Show what the library said."""
        self.quote("\n".join(textwrap.wrap(f"{type(error).__name__}: {error}", _LINE - 5)))

    def row(self, label: str, before: str, after: str) -> None:
        """Show a value as it was and as it is, long ones by their ends."""
        if len(after) > _VALUE:
            after = f"{after[:10]}…{after[-8:]} {len(after)} chars"
        self._show(f"   {label:<12} {before:<{_VALUE}} {after}", "")

    def failure(self, text: str) -> None:
        """Show why the demo ends here."""
        self._show(f"   ✗ {text}", "bold red")

    def claim(self, text: str, holds: bool) -> None:  # noqa: FBT001 - reads as a sentence
        """Show a claim if it holds; raise `ClaimBrokenError` if it does not.

        Not `assert`, which `python -O` takes out.
        """
        if not holds:
            raise ClaimBrokenError(text)
        self._show(f"   ✓ {text}", "green")

    def refusal(self, text: str, kind: type[Exception], attempt: Callable[[], object]) -> Exception:
        """Claim that `attempt` is refused with exactly `kind`; return the error."""
        claim = f"{text}: {kind.__name__}"
        try:
            attempt()
        except Exception as error:
            if type(error) is not kind:  # any other error breaks the claim as well
                raise ClaimBrokenError(f"{claim} (it was {type(error).__name__})") from error
            self.claim(claim, holds=True)
            return error
        raise ClaimBrokenError(f"{claim} (it was accepted)")

    def _show(self, text: str, style: str) -> None:
        if self._console is None:
            print(text)
        else:
            self._console.print(text, style=style, markup=False, highlight=False, soft_wrap=True)


def _console() -> Console | None:
    if not sys.stdout.isatty():
        return None
    try:
        from rich.console import Console
    except ImportError:
        return None
    return Console()
