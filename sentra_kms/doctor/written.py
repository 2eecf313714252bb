"""What one environment's settings show by themselves, without asking anybody."""

from __future__ import annotations

import os
from collections.abc import Iterator

from sentra_kms.backends.docker import DockerSettings
from sentra_kms.backends.file import FileSettings
from sentra_kms.discovery import OBSERVER_GROUP, scan
from sentra_kms.doctor.places import keks, local_settings, references
from sentra_kms.hooktypes import Finding
from sentra_kms.reference import TENANT_PLACE, KekName
from sentra_kms.settings import Settings

_SECRETS_DIRECTORY = "/run/secrets"
_CREDENTIALS_VARIABLE = "CREDENTIALS_DIRECTORY"


def written(settings: Settings) -> Iterator[Finding]:
    """Yield what is wrong or doubtful with an environment as it is written."""
    name = settings.environment
    if settings.keys is None and not settings.secrets:
        yield Finding(
            "warning",
            name,
            "has no table [keys] and no secrets, so kms.keys is not there",
            f"add [{name}.keys] to keep tenants' keys, or [{name}.secrets]",
        )
    yield from _missing_master_keys(settings)
    if not settings.development:
        yield from _loose_files(settings)
    yield from _missing_observers(settings)


def _missing_master_keys(settings: Settings) -> Iterator[Finding]:
    name = settings.environment
    lists: dict[KekName, list[str]] = {}
    for field, kek in keks(settings):
        lists.setdefault(kek, []).append(field)
    for kek, fields in lists.items():
        local = local_settings(settings, kek.backend)
        if TENANT_PLACE in kek:
            continue  # each tenant has another
        if local is not None and kek.key not in local.master_keys:
            known = ", ".join(sorted(local.master_keys)) or "none"
            yield Finding(
                "error",
                kek,
                f"is named in {fields[0]}, but backend '{kek.backend}' has no "
                f"master key '{kek.key}' (it has {known})",
                f"add it to [{name}.backends.{kek.backend}.master_keys], or take it out of "
                + fields[0],
            )


def _loose_files(settings: Settings) -> Iterator[Finding]:
    declared = [_SECRETS_DIRECTORY, *_declared(settings)]
    mounted = os.environ.get(_CREDENTIALS_VARIABLE)
    if mounted:
        declared.append(os.path.abspath(mounted))
    for place, reference in references(settings):
        own = settings.backends[reference.backend].settings
        if not isinstance(own, FileSettings) or own.directory is not None:
            continue
        if not any(reference.path.startswith(f"{each}/") for each in declared):
            yield Finding(
                "warning",
                reference,
                f"is named in {place}, and is a file outside the directories for secrets "
                f"({' and '.join(declared)})",
                "mount it there, or keep it in a secret service; else see that only the "
                "application's user can read it and that it is in no image and no backup",
            )


def _declared(settings: Settings) -> Iterator[str]:
    """Yield the directories that backends of this environment read secrets from."""
    for backend in settings.backends.values():
        own = backend.settings
        if isinstance(own, (DockerSettings, FileSettings)) and own.directory is not None:
            path = os.path.abspath(os.path.join(settings.base, own.directory))
            if path != _SECRETS_DIRECTORY:
                yield path


def _missing_observers(settings: Settings) -> Iterator[Finding]:
    if not settings.audit.observers:
        return
    known = scan(OBSERVER_GROUP)
    for name in settings.audit.observers:
        if name not in known:
            yield Finding(
                "error",
                name,
                f"is named in [{settings.environment}.audit] observers, and no such observer is "
                f"installed; there are: {', '.join(sorted(known)) or 'none'}",
                "install the distribution that brings it, or take it out of observers",
            )
