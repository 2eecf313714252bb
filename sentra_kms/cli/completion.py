"""`sentra-kms completion`."""

from __future__ import annotations

import click
from click.shell_completion import BashComplete, FishComplete, ZshComplete

from sentra_kms.cli.output import write_json, write_line
from sentra_kms.cli.session import Session, json_option

_VARIABLE = "_SENTRA_KMS_COMPLETE"  # the name that click looks for
_SHELLS = {"bash": BashComplete, "zsh": ZshComplete, "fish": FishComplete}


@click.command()
@click.argument("shell", type=click.Choice(list(_SHELLS)))
@json_option
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the script that completes commands in a shell.

    \b
    bash:  eval "$(sentra-kms completion bash)"      in ~/.bashrc
    zsh:   eval "$(sentra-kms completion zsh)"       in ~/.zshrc
    fish:  sentra-kms completion fish | source       in ~/.config/fish/config.fish
    """  # noqa: D301 - the escape is click's mark for lines to be kept
    root = context.find_root()
    script = _SHELLS[shell](root.command, {}, "sentra-kms", _VARIABLE).source().rstrip("\n")
    if context.ensure_object(Session).json:
        write_json({"shell": shell, "script": script})
    else:
        write_line(script)
