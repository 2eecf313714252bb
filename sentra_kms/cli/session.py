"""What the global options say, and the options themselves."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import TypeVar

import click
from click.shell_completion import CompletionItem

import sentra_kms
from sentra_kms.cli.run import login
from sentra_kms.config_file import ConfigFile
from sentra_kms.errors import KMSError
from sentra_kms.runtime import KMS

_Command = TypeVar("_Command", bound=Callable[..., object])


class Session:
    """The global options of one run: which configuration, which environment, JSON or text."""

    def __init__(self, *, json: bool) -> None:
        self.json = json
        self.config: str | None = None
        self.environment: str | None = None

    @contextmanager
    def open(self) -> Generator[KMS]:
        """Load the configuration that was named, and act as whoever runs this process."""
        with acting(), sentra_kms.load(self.config, self.environment) as kms:
            yield kms


def acting() -> AbstractContextManager[None]:
    """Act as whoever runs this process."""
    return sentra_kms.actor(f"cli:{login()}")


def wants_json(arguments: Sequence[str]) -> bool:
    """Whether `--json` stands among the arguments.

    Looked for before click parses them, so that its own complaints are JSON, too.
    """
    options = arguments[: arguments.index("--")] if "--" in arguments else arguments
    return "--json" in options


def file_names(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Let the shell complete the name of a file."""
    return [CompletionItem(incomplete, type="file")]


def _environments(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    try:
        names = ConfigFile.read(context.ensure_object(Session).config).environments()
    except KMSError:  # who is typing is not told; the command will say it
        return []
    return [CompletionItem(name) for name in names if name.startswith(incomplete)]


def json_option(command: _Command) -> _Command:
    """Add `--json`, whose effect is in `wants_json`."""
    return click.option(
        "--json", "_json", is_flag=True, expose_value=False, help="Print JSON, errors too."
    )(command)


def config_options(command: _Command) -> _Command:
    """Add `--config`, `--env` and `--json`, to be given before or after a subcommand's name."""
    for option in (
        json_option,
        click.option(
            "--env",
            metavar="NAME",
            expose_value=False,
            callback=_keep_environment,
            shell_complete=_environments,
            help="Environment in it.  [default: SENTRA_KMS_ENV, then default_environment]",
        ),
        click.option(
            "--config",
            metavar="PATH",
            expose_value=False,
            callback=_keep_config,
            shell_complete=file_names,
            help="Configuration file.  [default: SENTRA_KMS_CONFIG, then ./sentra-kms.toml]",
        ),
    ):
        command = option(command)
    return command


def _keep_config(context: click.Context, option: click.Parameter, value: str | None) -> None:
    if value is not None:
        context.ensure_object(Session).config = _not_empty(value)


def _keep_environment(context: click.Context, option: click.Parameter, value: str | None) -> None:
    if value is not None:
        context.ensure_object(Session).environment = _not_empty(value)


def _not_empty(value: str) -> str:
    # An empty variable in a script must not mean "whatever the default is".
    if not value:
        raise click.BadParameter("may not be empty")
    return value
