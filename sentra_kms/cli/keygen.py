"""`sentra-kms keygen`: a new master key."""

from __future__ import annotations

import os
from base64 import b64encode

import click

from sentra_kms.cli.files import PRIVATE, create_file
from sentra_kms.cli.output import hint, to_terminal, write, write_json
from sentra_kms.cli.session import Session, file_names, json_option
from sentra_kms.material import KeyMaterial

_SIZE = 32
_KEEP_IT = """\
Keep this key in a secret service or a file of mode 600, and a copy in a safe place:
whoever has it can open every key ring, and without it nobody can."""


@click.command()
@click.option("--raw", is_flag=True, help="The 32 bytes themselves instead of base64.")
@click.option(
    "--output",
    metavar="FILE",
    shell_complete=file_names,
    help="Write to a new file of mode 600 instead of standard output.",
)
@json_option
@click.pass_obj
def keygen(session: Session, *, raw: bool, output: str | None) -> None:
    """Make a master key: 32 random bytes, printed as base64.

    \b
    sentra-kms keygen --output encryption_master_key
    """  # noqa: D301
    if raw and output is None and session.json:
        raise click.UsageError("--raw bytes are no JSON: add --output FILE, or leave out --raw.")
    if raw and output is None and to_terminal():
        raise click.UsageError(
            "Raw bytes are not for a terminal: add --output FILE, or leave out --raw."
        )
    key = KeyMaterial(os.urandom(_SIZE))
    text = KeyMaterial(b64encode(key.reveal()))
    data = key if raw else KeyMaterial(text.reveal() + b"\n")
    if output is not None:
        create_file(output, data, PRIVATE)
        hint(f"Wrote {output}, mode 600.")
        if session.json:
            write_json({"path": output})
    elif session.json:
        write(KeyMaterial(b'{"key":"' + text.reveal() + b'"}\n'))
    else:
        write(data)
    hint(_KEEP_IT)
