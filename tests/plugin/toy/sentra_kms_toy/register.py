"""What is registered; imports no cipher and no click."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sentra_kms import Reference
from sentra_kms.hookspecs import hookimpl
from sentra_kms.hooktypes import BackendSettings, BackendType

if TYPE_CHECKING:
    import click


class ToySettings(BackendSettings, frozen=True):
    """`keys` names the KEKs; without any there is no keys part, without `rings` no rings part."""

    token: Reference
    keys: tuple[str, ...] = ()
    rings: bool = True


@hookimpl
def backend_type() -> BackendType:
    """Register the type `toy`."""
    return BackendType(
        api=(1, 0),
        settings=ToySettings,
        create="sentra_kms_toy.backend:create",
        install="pip install sentra-kms-toy",
        summary="KEKs and key rings in memory",
    )


@hookimpl
def register_commands(cli: click.Group) -> None:
    """Add the group `toy`."""
    import click

    @click.group("toy")
    def toy() -> None:
        """Play."""

    @toy.command("hello")
    @click.argument("name")
    def hello(name: str) -> None:
        """Greet."""
        click.echo(f"hello {name}")

    cli.add_command(toy)
