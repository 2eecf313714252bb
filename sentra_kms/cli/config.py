"""`sentra-kms config`: about the configuration's form."""

from __future__ import annotations

import json

import click

from sentra_kms.cli.files import PUBLIC, replace_file
from sentra_kms.cli.output import printable, write_json, write_line
from sentra_kms.cli.session import Session, file_names, json_option
from sentra_kms.schema import config_schema


@click.group()
@json_option
def config() -> None:
    """The form of the configuration."""


@config.command()
@click.option(
    "--output",
    metavar="FILE",
    shell_complete=file_names,
    help="Write to a file, overwriting it, instead of standard output.",
)
@json_option
@click.pass_obj
def schema(session: Session, *, output: str | None) -> None:
    """Print the JSON Schema of the configuration.

    With it editors complete and check sentra-kms.toml. It has the settings of every backend type
    that is installed here, so make it anew after installing one.

    \b
    sentra-kms config schema --output sentra-kms.schema.json
    """  # noqa: D301
    document = config_schema()
    text = json.dumps(document, indent=2)
    if output is not None:
        replace_file(output, f"{text}\n".encode("ascii"), PUBLIC)
        if session.json:
            write_json({"path": output})
        else:
            write_line(f"Wrote {printable(output)}.")
    elif session.json:
        write_json(document)
    else:
        write_line(text)
