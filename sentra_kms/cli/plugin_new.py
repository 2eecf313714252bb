"""`sentra-kms plugin new`: a distribution that brings a backend type, to begin from."""

from __future__ import annotations

import os
import re
import shlex
import shutil
from importlib.resources import files

import click

from sentra_kms.cli.files import PUBLIC, create_file
from sentra_kms.cli.output import printable, write_command, write_json, write_line
from sentra_kms.cli.session import Session, file_names, json_option
from sentra_kms.discovery import BUILT_IN, installed_types
from sentra_kms.errors import AlreadyExists, ConfigurationError, MalformedInput
from sentra_kms.hookspecs import API_VERSION
from sentra_kms.version import VERSION

_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_LONGEST = 40  # characters
_TEMPLATES = "plugin_files"
_FILES = {
    "pyproject.toml": "pyproject.toml.in",
    "README.md": "README.md.in",
    "CHANGELOG.md": "CHANGELOG.md.in",
    ".gitignore": "gitignore.in",
    ".github/workflows/ci.yml": "ci.yml.in",
    "@package@/__init__.py": "__init__.py.in",
    "@package@/py.typed": "py.typed.in",
    "@package@/register.py": "register.py.in",
    "@package@/backend.py": "backend.py.in",
    "@package@/errors.py": "errors.py.in",
    "@package@/client.py": "client.py.in",
    "tests/test_conformance.py": "test_conformance.py.in",
    "tests/test_errors.py": "test_errors.py.in",
}
"""Where each file goes, and what it is made of."""


@click.group()
@json_option
def plugin() -> None:
    """For those who write a backend.

    The types that are installed are listed by: sentra-kms backends. A configuration that uses
    one is tried by: sentra-kms doctor.
    """


@plugin.command("new")
@click.argument("name")
@click.option(
    "--directory",
    metavar="PATH",
    shell_complete=file_names,
    help="Where to write it, which must not exist yet. Absent: sentra-kms-NAME.",
)
@json_option
@click.pass_obj
def plugin_new(session: Session, *, name: str, directory: str | None) -> None:
    """Write a distribution that brings the backend type NAME.

    It builds, type-checks and passes the conformance suite as it is, over a service in memory.
    What is yours to write is marked REPLACE.

    \b
    sentra-kms plugin new acme
    """  # noqa: D301
    _check(name)
    place = directory or f"sentra-kms-{name}"
    written = _write(place, _texts(name))
    if session.json:
        write_json({"path": place, "type": name, "files": written})
        return
    write_line(f"Wrote {printable(place)}: a backend of type {name}, {len(written)} files.")
    write_line("Next:")
    write_command(f"cd {shlex.quote(place)}")
    write_command("python -m pip install -e '.[testing]'")
    write_command("python -m pytest")
    write_command("grep -rnI REPLACE .")


def _check(name: str) -> None:
    if len(name) > _LONGEST or _NAME.fullmatch(name) is None:
        raise MalformedInput(
            f"a plugin's name is at most {_LONGEST} lower-case letters and digits, begins with a "
            "letter, and may have single hyphens inside: e.g. acme or acme-cloud"
        )
    if name in BUILT_IN:
        raise ConfigurationError(f"'{name}' is a built-in backend type: choose another name")
    if name in installed_types():
        raise ConfigurationError(
            f"the backend type '{name}' is installed here already, and one type cannot be brought "
            "by two distributions: choose another name, or uninstall it"
        )


def _texts(name: str) -> dict[str, str]:
    """Return each file's text by its path."""
    major, minor = VERSION.split(".")[:2]
    words = name.split("-")
    values = {
        "@api@": str(API_VERSION),
        "@name@": name,
        "@Name@": " ".join(word.capitalize() for word in words),
        "@Class@": "".join(word.capitalize() for word in words),
        "@VARIABLE@": "_".join(words).upper(),
        "@package@": f"sentra_kms_{'_'.join(words)}",
        "@distribution@": f"sentra-kms-{name}",
        "@minor@": f"{major}.{minor}",
        "@next@": f"{major}.{int(minor) + 1}",
    }
    folder = files("sentra_kms.cli") / _TEMPLATES
    return {
        _filled(path, values): _filled((folder / source).read_text(encoding="utf-8"), values)
        for path, source in _FILES.items()
    }


def _filled(text: str, values: dict[str, str]) -> str:
    for mark, value in values.items():
        text = text.replace(mark, value)
    return text


def _write(place: str, texts: dict[str, str]) -> list[str]:
    """Write all files into a directory that is made now; leave none if that fails."""
    try:
        os.mkdir(place)
        exists = False
    except FileExistsError:
        exists = True
    if exists:
        raise AlreadyExists(
            f"{place} exists and was left as it is: name another place with --directory",
            subject=place,
        )
    try:
        for path, text in texts.items():
            target = os.path.join(place, path)
            os.makedirs(os.path.dirname(target), exist_ok=True)
            create_file(target, text.encode("utf-8"), PUBLIC)
    except BaseException:
        shutil.rmtree(place, ignore_errors=True)
        raise
    return sorted(texts)
