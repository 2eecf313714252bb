"""From the name of a backend type to its registration. Only types that are named are imported."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

import pluggy

from sentra_kms import hookspecs
from sentra_kms.errors import ConfigurationError, PluginError
from sentra_kms.hooktypes import BackendSettings, BackendType, Host

BUILT_IN = {
    "env": "sentra_kms.backends.env",
    "file": "sentra_kms.backends.file",
    "local": "sentra_kms.backends.local",
    "memory": "sentra_kms.backends.memory",
}
"""The reserved type names and their modules."""

UNDECLARED = ("env", "file")
"""Types that are there under their own names without being declared."""

Create = Callable[[BackendSettings, Host], object]


def find_type(name: str) -> BackendType:
    """Return what the type `name` registers; raises `ConfigurationError` if there is none."""
    module = BUILT_IN.get(name)
    if module is None:
        known = ", ".join(sorted(BUILT_IN))
        raise ConfigurationError(f"no backend type '{name}' is installed; built in are {known}")
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    manager.register(import_module(module))
    registered: object = manager.hook.backend_type()
    if not isinstance(registered, BackendType):
        raise PluginError(f"module {module} of backend type '{name}' registers no backend type")
    return registered


def find_create(kind: BackendType) -> Create:
    """Import and return the function that makes a backend's parts."""
    module, _, function = kind.create.partition(":")
    create: Create = getattr(import_module(module), function)
    return create
