"""`sentra-kms exec`: a command run with the declared secrets."""

from __future__ import annotations

import sys

import click

from sentra_kms.cli.run import NAME, ExecOptions, run
from sentra_kms.cli.session import Session, config_options


@click.command(NAME, context_settings={"allow_interspersed_args": False})
@click.option(
    "--only", multiple=True, metavar="NAME", help="This secret only; repeatable.  [default: all]"
)
@click.option("--mask", is_flag=True, help="Mask the secrets' values in what the command writes.")
@click.option(
    "--files",
    is_flag=True,
    help="Pass NAME_FILE, the path of a private file, instead of NAME with the value.",
)
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@config_options
@click.pass_obj
def exec_command(
    session: Session, *, command: tuple[str, ...], only: tuple[str, ...], mask: bool, files: bool
) -> None:
    """Run a command with the secrets of the configuration in its environment.

    The command takes the place of this process: its signals, terminal and exit code are its own.
    With --mask or --files, or where a secret is leased, this process stays with it, and passes them
    on. No value is ever an argument. Code 127 says that the command was not found, 126 that it
    could not be run; if a secret cannot be had the command is not started.

    \b
    sentra-kms exec -- ./manage.py runserver
    sentra-kms exec --only DATABASE_URL --files --mask -- pg_dump

    What is in a process's environment can be read by every process of the same user, and is
    inherited by what it starts; a private file is read by who has its path, and is gone when the
    command ends. The environment is the weaker of the two.
    """  # noqa: D301
    sys.exit(run(ExecOptions(command, only, mask, files, session.config, session.environment)))
