"""`sentra-kms render`: a template file with secrets in it."""

from __future__ import annotations

import re
from collections.abc import Generator
from typing import NamedTuple, NoReturn

import click

from sentra_kms.cli.files import PRIVATE, STANDARD, read_input, replace_file
from sentra_kms.cli.lease import refuse_leased
from sentra_kms.cli.output import to_terminal, write, write_json
from sentra_kms.cli.session import Session, config_options
from sentra_kms.errors import MalformedInput
from sentra_kms.material import KeyMaterial, Secret

MAX_TEMPLATE = 1024 * 1024  # bytes
_PLACE = re.compile(rb"\\\{\{|\{\{(.*?)\}\}|\{\{", re.DOTALL)
_INSIDE = re.compile(r"\s*(\S+?)\s*(?:\|\s*([a-z0-9]+)\s*)?")
_FORMS = ("base64", "json", "url")


class _Place(NamedTuple):
    """A `{{ SECRET | form }}` and where it stands."""

    begin: int
    end: int
    secret: str
    form: str | None


@click.command("render")
@click.argument("template")
@click.option(
    "--out",
    "target",
    default=STANDARD,
    metavar="FILE|-",
    help="Output, written whole or not at all, mode 600.  [default: standard output]",
)
@config_options
@click.pass_obj
def render_template(session: Session, *, template: str, target: str) -> None:
    r"""Fill in a template file: {{ NAME }} stands for a secret's value.

    A reference may stand in the place of a name. {{ NAME | url }} quotes the value for a URL,
    {{ NAME | json }} as the inside of a JSON string, {{ NAME | base64 }} encodes it. Two braces
    that stand for themselves are written \{{. TEMPLATE may be - for standard input. If anything
    cannot be filled in, nothing is written.

    \b
    sentra-kms render app.ini.tmpl --out app.ini
    """
    if target == STANDARD and session.json:
        raise click.UsageError("--json tells of a file: add --out FILE.")
    if target == STANDARD and to_terminal():
        raise click.UsageError("Secrets are not for a terminal: add --out FILE.")
    source = read_input(template, MAX_TEMPLATE)
    places = _places(source, template)
    with session.open() as kms:
        known = set(kms.secrets.names())
        for place in places:
            if "://" not in place.secret and place.secret not in known:
                _refuse(template, source, place.begin, "there is no secret of this name", known)
        secrets = kms.secrets.get_many(place.secret for place in places)
    refuse_leased(secrets)
    filled = KeyMaterial(b"".join(_filled(source, places, secrets)))
    if target != STANDARD:
        replace_file(target, filled, PRIVATE)
        if session.json:
            write_json({"path": target, "secrets": sorted({place.secret for place in places})})
    else:
        write(filled.reveal())


def _places(source: bytes, template: str) -> list[_Place]:
    found: list[_Place] = []
    for match in _PLACE.finditer(source):
        if match[0] == rb"\{{":
            continue
        inside = (
            None if match[1] is None else _INSIDE.fullmatch(match[1].decode("utf-8", "replace"))
        )
        if inside is None:
            _refuse(template, source, match.start(), "write {{ NAME }} or {{ NAME | form }}")
        if inside[2] is not None and inside[2] not in _FORMS:
            _refuse(template, source, match.start(), f"a form is one of {', '.join(_FORMS)}")
        found.append(_Place(match.start(), match.end(), inside[1], inside[2]))
    return found


def _filled(source: bytes, places: list[_Place], secrets: dict[str, Secret]) -> Generator[bytes]:
    """Yield the text piece by piece: of what one of them raises no frame holds the others."""
    done = 0
    for place in places:
        yield source[done : place.begin].replace(rb"\{{", b"{{")
        yield _value(secrets[place.secret], place.form)
        done = place.end
    yield source[done:].replace(rb"\{{", b"{{")


def _value(secret: Secret, form: str | None) -> bytes:
    match form:
        case "base64":
            from base64 import b64encode

            return b64encode(secret.reveal_bytes())
        case "json":
            import json

            return json.dumps(secret.reveal())[1:-1].encode("ascii")
        case "url":
            from urllib.parse import quote

            return quote(secret.reveal_bytes(), safe="").encode("ascii")
        case _:
            return secret.reveal_bytes()


def _refuse(
    template: str, source: bytes, at: int, what: str, known: set[str] | None = None
) -> NoReturn:
    line = source.count(b"\n", 0, at) + 1
    column = at - source.rfind(b"\n", 0, at)
    there = "" if known is None else f"; there are {', '.join(sorted(known)) or 'none'}"
    raise MalformedInput(f"{template}: {what}{there} (line {line}, column {column})")
