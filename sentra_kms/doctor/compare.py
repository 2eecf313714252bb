"""What two environments share: a leak in one is then a leak in both."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping

from sentra_kms.doctor.master_keys import MasterKeys
from sentra_kms.doctor.places import keks, local_settings, references, ring_directory
from sentra_kms.hooktypes import Finding
from sentra_kms.reference import KekName, Reference
from sentra_kms.settings import Settings

_Identity = tuple[str, ...]
_HERE = {"docker", "env", "file", "systemd"}  # whose secrets belong to the machine or the process


def shared_by_configuration(readable: Mapping[str, Settings]) -> Iterator[Finding]:
    """Yield the references, KEKs and key directories that more than one environment uses."""
    users: defaultdict[_Identity, dict[str, str]] = defaultdict(dict)
    advice: dict[_Identity, str] = {}
    for name, settings in readable.items():
        for identity, subject, advice[identity] in _used(settings):
            users[identity].setdefault(name, subject)
    for identity, named in users.items():
        if len(named) > 1:
            yield Finding(
                "warning",
                " and ".join(dict.fromkeys(named.values())),
                f"is used by the environments {' and '.join(named)}",
                advice[identity],
            )


def shared_master_keys(readable: Mapping[str, Settings], chosen: str) -> Iterator[Finding]:
    """Read every local backend's master keys, and yield those that two environments have.

    What cannot be read here is no fault: another environment's secrets need not be in reach, and
    of the chosen one it is told elsewhere.
    """
    if len(readable) < 2:
        return
    users: defaultdict[str, dict[tuple[str, KekName], _Identity]] = defaultdict(dict)
    for name, settings in readable.items():
        with MasterKeys(settings) as found:
            for kek, reference in found.references():
                key_id = found.key_id(kek)
                if key_id is not None:
                    users[key_id][name, kek] = reference_identity(settings, reference)
            if found.unreadable and name != chosen:
                yield Finding(
                    "ok",
                    name,
                    "these master keys cannot be read here, so that they were not compared: "
                    + ", ".join(found.unreadable),
                )
    for key_id, named in users.items():
        environments = {name for name, _ in named}
        # One reference in both was told from the configuration alone.
        if len(environments) > 1 and len(set(named.values())) > 1:
            yield Finding(
                "warning",
                f"master key with id {key_id}",
                "is " + " and ".join(f"{kek} of {name}" for name, kek in named),
                "make one for each environment with `sentra-kms keygen`, and replace it in all "
                "but one",
            )


def reference_identity(settings: Settings, reference: Reference) -> _Identity:
    """Return what is equal for references to the same secret, whatever the backend is called."""
    rest = reference.partition("://")[2]
    return ("reference", *_service(settings, reference.backend), rest)


def _used(settings: Settings) -> Iterator[tuple[_Identity, str, str]]:
    """Yield what tells a thing apart, how it is called here, and what to do if it is shared."""
    for _, reference in references(settings):
        kind = settings.backends[reference.backend].type.name
        advice = "give each environment a secret of its own"
        if kind in _HERE:
            advice += "; it may have the same name only on machines of their own"
        yield reference_identity(settings, reference), reference, advice
    for _, kek in keks(settings):
        # Local ones are told apart by reference and by id, those in memory are never shared.
        if settings.backends[kek.backend].type.name not in {"local", "memory"}:
            identity = ("KEK", *_service(settings, kek.backend), kek.key)
            yield identity, kek, "give each environment a KEK of its own"
    stores = (settings.keys.store, settings.keys.previous_store) if settings.keys else ()
    for store in filter(None, stores):
        local = local_settings(settings, store)
        if local is not None:
            directory, _ = ring_directory(settings, local)
            advice = "give each environment a key directory of its own, at least on one machine"
            yield ("directory", directory), directory, advice


def _service(settings: Settings, backend: str) -> _Identity:
    found = settings.backends[backend]
    return found.type.name, repr(found.settings)
