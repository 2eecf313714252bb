"""Every hook has a section of the author's pages, an example, and a test that names it."""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sentra_kms import hookspecs
from sentra_kms.hookspecs import PROJECT

TESTS = Path(__file__).parent
PAGE = TESTS.parent / "docs" / "plugins" / "hooks.md"
_SPECIFIED = f"{PROJECT}_spec"
_EXAMPLE = "Example::\n\n"


def _hooks() -> Iterator[tuple[str, Callable[..., object]]]:
    for name, member in vars(hookspecs).items():
        if hasattr(member, _SPECIFIED):
            yield name, member
        elif inspect.isclass(member) and member.__module__ == hookspecs.__name__:
            yield from (
                (hook, function)
                for hook, function in vars(member).items()
                if hasattr(function, _SPECIFIED)
            )


HOOKS = dict(_hooks())


def _section(hook: str) -> str:
    """Return the text under the hook's heading, up to the next heading."""
    found = re.search(
        rf"^### {hook}$(.*?)(?=^##|\Z)", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )
    return found[1] if found else ""


def _named_by_tests() -> set[str]:
    """Return every name, attribute and text of a word that stands in a test, and not in prose."""
    found: set[str] = set()
    for path in TESTS.rglob("test_*.py"):
        if path == Path(__file__):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            match node:
                case ast.Attribute(attr=name) | ast.Name(id=name) | ast.Constant(value=str(name)):
                    found.add(name)
                case ast.FunctionDef(name=name):
                    found |= {hook for hook in HOOKS if hook in name}
                case _:
                    pass
    return found


NAMED = _named_by_tests()


def test_hooks_are_found() -> None:
    """The specifications of all kinds are read: of modules, parts and observers."""
    assert {"backend_type", "register_commands", "wrap_key", "check", "audit_event"} <= set(HOOKS)
    assert len(HOOKS) >= 14


@pytest.mark.parametrize("hook", HOOKS)
def test_hook_has_a_section(hook: str) -> None:
    """A hook has a section with its signature, what it raises or why not, and an example."""
    section = _section(hook)
    parameters = [name for name in inspect.signature(HOOKS[hook]).parameters if name != "self"]
    heading = section.strip().splitlines()[0] if section.strip() else ""
    assert re.fullmatch(rf"`{hook}\(.*\) -> .+`", heading)
    assert re.findall(r"(\w+): ", heading.partition(" -> ")[0]) == parameters
    example = section.partition("```python")[2]
    assert f"def {hook}(" in example
    assert "@hookimpl" in example


@pytest.mark.parametrize("hook", HOOKS)
def test_hook_has_an_example(hook: str) -> None:
    """A hook's specification ends in an example that is Python."""
    told = inspect.getdoc(HOOKS[hook]) or ""
    assert _EXAMPLE in told
    ast.parse(_runnable(textwrap.dedent(told.partition(_EXAMPLE)[2])))


def _runnable(example: str) -> str:
    """Put an example that is a method's body into a function."""
    return "def example():\n" + textwrap.indent(example, "    ")


@pytest.mark.parametrize("hook", HOOKS)
def test_hook_is_tested(hook: str) -> None:
    """A test names the hook."""
    assert hook in NAMED


@pytest.mark.parametrize(
    "heading", re.findall(r"^### (\w+)$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
)
def test_section_has_a_hook(heading: str) -> None:
    """A section is of a hook that there is."""
    assert heading in HOOKS
