"""Where an environment keeps rings and reads secrets, as its settings say."""

from __future__ import annotations

import os
from collections.abc import Iterator
from enum import StrEnum

from sentra_kms.backends.local import DEFAULT_DIRECTORY, DIRECTORY_VARIABLE, LocalSettings
from sentra_kms.config import references_in
from sentra_kms.reference import KekName, Reference
from sentra_kms.settings import Settings


class DirectoryFrom(StrEnum):
    """Who says where a local backend's rings are."""

    CONFIGURATION = "configuration"
    VARIABLE = DIRECTORY_VARIABLE
    DEFAULT = "default"


def local_settings(settings: Settings, backend: str) -> LocalSettings | None:
    """Return the settings of a backend of the built-in type `local`, `None` for any other."""
    found = settings.backends.get(backend)
    own = found.settings if found is not None else None
    return own if isinstance(own, LocalSettings) else None


def ring_directory(settings: Settings, local: LocalSettings) -> tuple[str, DirectoryFrom]:
    """Return the directory that a local backend keeps rings in, absolute, and who says so."""
    variable = os.environ.get(DIRECTORY_VARIABLE)
    if local.directory:
        path, origin = local.directory, DirectoryFrom.CONFIGURATION
    elif variable:
        path, origin = variable, DirectoryFrom.VARIABLE
    else:
        path, origin = DEFAULT_DIRECTORY, DirectoryFrom.DEFAULT
    return os.path.abspath(os.path.join(settings.base, path)), origin


def references(settings: Settings) -> Iterator[tuple[str, Reference]]:
    """Yield every reference, after the table where it stands."""
    for name, backend in settings.backends.items():
        for reference in references_in(backend.settings):
            yield f"[{settings.environment}.backends.{name}]", reference
    for name, entry in settings.secrets.items():
        for reference in references_in(entry):
            yield f"[{settings.environment}.secrets] {name}", reference
    for source in settings.keys.authenticate_with if settings.keys else ():
        if isinstance(source.target, Reference):
            yield f"[{settings.environment}.keys]", source.target


def keks(settings: Settings) -> Iterator[tuple[str, KekName]]:
    """Yield every KEK that [keys] and the policies name, after the list that names it.

    A policy's lists have in them what it inherits, which comes first from [keys].
    """
    if settings.keys is None:
        return
    place = f"[{settings.environment}.keys]"
    for kek in settings.keys.wrap_with:
        yield f"{place} wrap_with", kek
    for kek in settings.keys.unwrap_with:
        yield f"{place} unwrap_with", kek
    for source in settings.keys.authenticate_with:
        if isinstance(source.target, KekName):
            yield f"{place} authenticate_with", source.target
    for policy in settings.policies.values():
        table = f"[{settings.environment}.policies.{policy.name}]"
        for kek in policy.unwrap_with:
            yield f"{table} {'wrap_with' if kek in policy.wrap_with else 'unwrap_with'}", kek
