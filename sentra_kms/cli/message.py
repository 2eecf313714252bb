"""`sentra-kms encrypt` and `sentra-kms decrypt`: one message."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable
from typing import TypeVar

import click

from sentra_kms.cli.files import PRIVATE, STANDARD, read_input, replace_file
from sentra_kms.cli.output import to_terminal, write, write_json
from sentra_kms.cli.session import Session, config_options, file_names
from sentra_kms.encoding import strict_base64
from sentra_kms.errors import MalformedInput
from sentra_kms.keys.message import MAGIC, MAX_PLAINTEXT, OVERHEAD

_Command = TypeVar("_Command", bound=Callable[..., object])

_MAX_MESSAGE = MAX_PLAINTEXT + OVERHEAD
_MAX_BASE64 = _MAX_MESSAGE * 3 // 2  # with room for line ends
_WHITE_SPACE = b" \t\r\n"
_BASE64_MAGIC = b64encode(MAGIC)[:5]  # what the first 4 bytes leave open comes after


def _pairs(
    context: click.Context, option: click.Parameter, value: tuple[str, ...]
) -> dict[str, str] | None:
    found: dict[str, str] = {}
    for pair in value:
        key, equals, text = pair.partition("=")
        if not equals:
            raise click.BadParameter("write KEY=VALUE")
        if key in found:
            raise click.BadParameter(f"the key {key!a} is given twice")
        found[key] = text
    return found or None


def _message_options(command: _Command) -> _Command:
    for option in (
        config_options,
        click.option(
            "--context",
            "pairs",
            multiple=True,
            metavar="KEY=VALUE",
            callback=_pairs,
            help="What the message is bound to; repeatable. Not stored: decrypting needs the same.",
        ),
        click.option(
            "--out",
            "target",
            default=STANDARD,
            metavar="FILE|-",
            shell_complete=file_names,
            help="Output, written whole or not at all, mode 600.  [default: standard output]",
        ),
        click.option(
            "--in",
            "source",
            default=STANDARD,
            metavar="FILE|-",
            shell_complete=file_names,
            help="Input, at most 64 MiB.  [default: standard input]",
        ),
        click.argument("tenant"),
    ):
        command = option(command)
    return command


@click.command()
@_message_options
@click.option("--base64", is_flag=True, help="Write the message as base64 text.")
@click.pass_obj
def encrypt(
    session: Session,
    *,
    tenant: str,
    source: str,
    target: str,
    pairs: dict[str, str] | None,
    base64: bool,
) -> None:
    """Encrypt one message under a tenant's primary key version.

    \b
    sentra-kms encrypt acme --in report.pdf --out report.pdf.enc --context file=report.pdf
    echo secret | sentra-kms encrypt acme --base64
    """  # noqa: D301
    if target == STANDARD and not base64 and not session.json and to_terminal():
        raise click.UsageError("Ciphertext is not for a terminal: add --base64 or --out FILE.")
    with session.open() as kms:
        message = kms.keys.encrypt(tenant, read_input(source, MAX_PLAINTEXT), pairs)
    text = b64encode(message)
    if target != STANDARD:
        _save(session, tenant, target, text + b"\n" if base64 else message)
    elif session.json:
        write_json({"tenant": tenant, "message": text.decode("ascii")})
    else:
        write(text + b"\n" if base64 else message)


@click.command()
@_message_options
@click.option("--base64", is_flag=True, help="Read the message as base64 text.")
@click.pass_obj
def decrypt(
    session: Session,
    *,
    tenant: str,
    source: str,
    target: str,
    pairs: dict[str, str] | None,
    base64: bool,
) -> None:
    """Decrypt one message of a tenant.

    \b
    sentra-kms decrypt acme --in report.pdf.enc --out report.pdf --context file=report.pdf
    """  # noqa: D301
    with session.open() as kms:
        message = read_input(source, _MAX_BASE64 if base64 else _MAX_MESSAGE)
        if base64:
            message = strict_base64(message.translate(None, _WHITE_SPACE))
        elif message.startswith(_BASE64_MAGIC):
            raise MalformedInput("the message is base64 text: add --base64", subject=tenant)
        plaintext = kms.keys.decrypt(tenant, message, pairs)
    if target != STANDARD:
        _save(session, tenant, target, plaintext)
    elif session.json:
        write_json({"tenant": tenant, "plaintext": b64encode(plaintext).decode("ascii")})
    elif to_terminal() and not _is_text(plaintext):
        raise click.UsageError(
            "What was decrypted is no plain text, which could steer the terminal: add --out FILE."
        )
    else:
        write(plaintext)


def _save(session: Session, tenant: str, target: str, data: bytes) -> None:
    replace_file(target, data, PRIVATE)
    if session.json:
        write_json({"tenant": tenant, "path": target, "size": len(data)})


def _is_text(data: bytes) -> bool:
    try:
        return all(c.isprintable() or c in "\n\t\r" for c in data.decode("utf-8"))
    except UnicodeDecodeError:
        return False
