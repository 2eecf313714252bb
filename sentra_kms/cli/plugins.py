"""Commands that plugins bring: one, named like the backend type, looked up when it is asked for."""

from __future__ import annotations

import click

from sentra_kms import hookspecs
from sentra_kms.discovery import find_type, installed_types, registered_module
from sentra_kms.errors import KMSError, PluginError


def plugin_command(name: str, *, complain: bool) -> click.Command | None:
    """Return the command that the backend type `name` brings, `None` if there is none.

    Only that type's module is imported. Raises `PluginError` if its registration fails, and
    `ConfigurationError` if distributions cannot be looked through, unless nobody is to hear a
    complaint, as while a shell completes.
    """
    try:
        return _brought(name) if name in installed_types() else None
    except KMSError:
        if complain:
            raise
        return None


def _brought(name: str) -> click.Command | None:
    found = find_type(name)
    manager = hookspecs.HookManager(hookspecs)
    manager.register(registered_module(name))
    # Not the command line itself: a plugin may not replace what the core has.
    group = click.Group()
    failure: str | None = None
    try:
        manager.hook.register_commands(cli=group)
    except Exception as error:  # noqa: BLE001 - whatever a foreign module does
        failure = f"raised {type(error).__name__}"
    others = sorted(set(group.commands) - {name})
    if failure is None and others:
        failure = f"adds {', '.join(others)}, where it may add a group '{name}' only"
    if failure is not None:
        raise PluginError(
            f"register_commands of backend type '{name}' ({found.distribution} {found.version}) "
            f"{failure}: report it to its author"
        )
    return group.commands.get(name)
