"""The root command: global options, all commands, and the one place where failures end."""

from __future__ import annotations

import sys
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Any

import click

from sentra_kms import __version__
from sentra_kms.cli import exits
from sentra_kms.cli.backends import backends
from sentra_kms.cli.completion import completion
from sentra_kms.cli.config import config
from sentra_kms.cli.doctor import doctor
from sentra_kms.cli.exec import exec_command
from sentra_kms.cli.failure import report, warnings_on_stderr
from sentra_kms.cli.health import health
from sentra_kms.cli.init import init
from sentra_kms.cli.keygen import keygen
from sentra_kms.cli.message import decrypt, encrypt
from sentra_kms.cli.plugin_new import plugin
from sentra_kms.cli.plugins import plugin_command
from sentra_kms.cli.render import render_template
from sentra_kms.cli.secret import secret
from sentra_kms.cli.session import Session, config_options, wants_json
from sentra_kms.cli.tenant import tenant

NAME = "sentra-kms"


class Root(click.Group):
    """A group that reports every failure itself, so that it ends the same way for every command."""

    def main(  # noqa: D102 - click's
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,  # noqa: FBT001, FBT002
        **extra: Any,  # noqa: ANN401
    ) -> Any:  # noqa: ANN401
        arguments = list(sys.argv[1:] if args is None else args)
        json = wants_json(arguments)
        with warnings_on_stderr(json=json):
            try:
                result: object = super().main(
                    arguments,
                    NAME,
                    complete_var,
                    standalone_mode=False,
                    obj=Session(json=json),
                    **extra,
                )
            except click.Abort:
                sys.exit(exits.INTERRUPTED)
            except Exception as error:  # noqa: BLE001 - a traceback is for nobody here
                sys.exit(report(error, json=json))
        # What comes back is the code of click's own --help and --version, else nothing.
        sys.exit(result if isinstance(result, int) else exits.OK)

    def make_context(self, *args: Any, **extra: Any) -> click.Context:  # noqa: ANN401, D102
        with _quiet_when_unread():
            return super().make_context(*args, **extra)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: D102
        found = super().get_command(ctx, cmd_name)
        if found is not None:
            return found
        # Only now are distributions looked through: what the core has must not wait for that.
        return plugin_command(cmd_name, complain=not ctx.resilient_parsing)

    def invoke(self, ctx: click.Context) -> object:  # noqa: D102
        with _quiet_when_unread():
            return super().invoke(ctx)


@contextmanager
def _quiet_when_unread() -> Generator[None]:
    """End without a word when the reader of the output went away; click would exit with 1."""
    try:
        yield
    except BrokenPipeError:
        unread = True
    else:
        unread = False
    if unread:
        raise click.exceptions.Exit(exits.BROKEN_PIPE)


@click.group(
    NAME,
    cls=Root,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=exits.help_text(),
)
@click.version_option(__version__, message="%(prog)s %(version)s")
@config_options
def app() -> None:
    """Each tenant's data under that tenant's own key, and secrets by reference.

    Begin with `sentra-kms init`. `--config`, `--env` and `--json` may stand before or after a
    command. Plugins may bring commands of their own, each under the name of its backend type.
    SENTRA_KMS_DEBUG=1 shows the traceback of an unexpected error.
    """


for _command in (
    init,
    keygen,
    config,
    backends,
    doctor,
    health,
    tenant,
    encrypt,
    decrypt,
    secret,
    exec_command,
    render_template,
    completion,
    plugin,
):
    app.add_command(_command)
