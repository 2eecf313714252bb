"""`sentra-kms init`: a first configuration."""

from __future__ import annotations

import os
import shlex
from datetime import UTC, datetime

import click

from sentra_kms.cli.files import PUBLIC, create_file, replace_file
from sentra_kms.cli.output import printable, write_command, write_json, write_line
from sentra_kms.cli.session import Session, file_names, json_option
from sentra_kms.cli.template import SCHEMA_NAME, config_text
from sentra_kms.config_file import FILE_NAME
from sentra_kms.errors import AlreadyExists


@click.command()
@click.argument("path", default=FILE_NAME, shell_complete=file_names)
@click.option("--force", is_flag=True, help="Overwrite a file that is there.")
@json_option
@click.pass_obj
def init(session: Session, *, path: str, force: bool) -> None:
    """Write a first configuration, with comments.

    It has a development and a production environment, both on the built-in local backend. PATH is a
    file, or a directory for a file sentra-kms.toml in it.
    """
    if os.path.isdir(path):
        path = os.path.join(path, FILE_NAME)
    data = config_text(datetime.now(UTC).date()).encode("utf-8")
    if force:
        replace_file(path, data, PUBLIC)
    else:
        _create(path, data)
    if session.json:
        write_json({"path": path, "environments": ["development", "production"]})
        return
    write_line(f"Wrote {printable(path)}: environments development and production.")
    write_line("")
    _advise(path)


def _create(path: str, data: bytes) -> None:
    try:
        create_file(path, data, PUBLIC)
    except AlreadyExists:
        exists = True
    else:
        exists = False
    if exists:
        raise AlreadyExists(
            f"{path} exists and was left as it is: name another path, or overwrite it with --force",
            subject=path,
        )


def _development(path: str) -> list[str]:
    named = [] if path == FILE_NAME else [f"export SENTRA_KMS_CONFIG={shlex.quote(path)}"]
    return [
        *named,
        "export SENTRA_KMS_ENV=development",
        'export ENCRYPTION_MASTER_KEY="$(sentra-kms keygen)"',
        "sentra-kms tenant create acme",
        "echo hello | sentra-kms encrypt acme --base64",
    ]


def _production() -> list[str]:
    return [
        "sentra-kms keygen --output encryption_master_key",
        "export SENTRA_KMS_ENV=production",
        "sentra-kms doctor",
    ]


def _schema(path: str) -> str:
    return os.path.join(os.path.dirname(path), SCHEMA_NAME)


def _advise(path: str) -> None:
    write_line("For your editor, the schema that the file names:")
    write_command(f"sentra-kms config schema --output {shlex.quote(_schema(path))}")
    write_line("")
    write_line("Next, on your machine:")
    for text in _development(path):
        write_command(text)
    write_line("")
    write_line("On the server, with the key mounted as /run/secrets/encryption_master_key and a")
    write_line("volume of mode 700 at /app/keys:")
    for text in _production():
        write_command(text)
