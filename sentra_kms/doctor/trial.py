"""The chosen environment, tried: every backend, KEK, ring authentication key and the store."""

from __future__ import annotations

import logging
import os
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager

import msgspec

from sentra_kms.doctor.ages import too_old
from sentra_kms.doctor.places import local_settings, references, ring_directory
from sentra_kms.doctor.rings import ring_findings
from sentra_kms.errors import KMSError
from sentra_kms.hooktypes import Finding
from sentra_kms.redaction import message_of
from sentra_kms.runtime import KMS
from sentra_kms.settings import AuditSettings, Settings

_LOGGER = "sentra_kms"


def tried(settings: Settings, known: Iterable[Finding], rings: int | None) -> list[Finding]:
    """Try an environment that can be bound; of errors that are `known`, tell none again.

    `rings` is how many key rings are read, `None` for all.
    """
    errors = {finding.subject for finding in known if finding.level == "error"}
    observers = tuple(name for name in settings.audit.observers if name not in errors)
    watched = msgspec.structs.replace(settings, audit=AuditSettings(observers))
    with _warnings() as warned:
        try:
            with KMS(watched) as kms:
                found = kms.examine()
                found += too_old(kms, settings)
                found += _of_rings(kms, settings, found, rings)
        except KMSError as error:
            advice = f"take it out of [{settings.environment}.audit] observers, or mend it"
            return [Finding("error", settings.environment, error.message, advice)]
    unused = tuple(_unused_directories(settings))
    kept = [
        finding
        for finding in [*found, *warned]
        if not (finding.level == "error" and finding.subject in errors)
        and not _is_inside(finding.subject, unused)
    ]
    return list(_advised(list(_told_once(kept, settings)), settings))


def _of_rings(
    kms: KMS, settings: Settings, found: list[Finding], limit: int | None
) -> Iterator[Finding]:
    """Look at the rings, if the store and what authenticates them are as they should be."""
    keys = settings.keys
    if keys is None:
        return
    errors = {finding.subject for finding in found if finding.level == "error"}
    if errors & {keys.store, *keys.authenticate_with}:
        return
    for finding in ring_findings(kms, settings, limit):
        # Of files that nobody may read their backend has told already, each by its name.
        told = "(AccessDenied)" in finding.message and any(os.sep in each for each in errors)
        if not told:
            yield finding


def _unused_directories(settings: Settings) -> Iterator[str]:
    """Yield ring directories of local backends whose KEKs are all that is used."""
    stores = (settings.keys.store, settings.keys.previous_store) if settings.keys else ()
    used: set[str] = set()
    unused: set[str] = set()
    for name in settings.backends:
        local = local_settings(settings, name)
        if local is not None:
            (used if name in stores else unused).add(ring_directory(settings, local)[0])
    yield from unused - used


def _is_inside(path: str, directories: tuple[str, ...]) -> bool:
    return any(path == each or path.startswith(each + os.sep) for each in directories)


def _told_once(findings: list[Finding], settings: Settings) -> Iterator[Finding]:
    """Drop an error that differs from one before only in its subject being that one's backend."""
    told: dict[str, set[str]] = {}
    for finding in findings:
        if finding.level == "error":
            before = told.setdefault(finding.message, set())
            about = finding.subject.partition(":")[0]
            if about == finding.subject and before - (settings.backends.keys() - {about}):
                continue
            before.add(about)
        yield finding


def _advised(findings: list[Finding], settings: Settings) -> Iterator[Finding]:
    """Say where the cause is configured, if whoever found it could not know that."""
    roots: dict[str, str] = {}
    for finding in findings:
        if finding.level == "error":
            roots.setdefault(finding.message, finding.subject)
            if finding.subject in settings.backends:  # nearer to the cause than what uses it
                roots[finding.message] = finding.subject
    for finding in findings:
        root = roots.get(finding.message)
        if finding.level != "error" or finding.advice or root is None:
            yield finding
        elif root == finding.subject:
            yield msgspec.structs.replace(finding, advice=_where(root, settings))
        else:
            advice = f"mend '{root}' first: this is the same failure"
            yield msgspec.structs.replace(finding, advice=advice)


def _where(subject: str, settings: Settings) -> str:
    name = settings.environment
    if subject in settings.secrets:
        return f"put it there, or correct [{name}.secrets] {subject}"
    places = dict.fromkeys(place for place, each in references(settings) if each == subject)
    if places:
        naming = "which name it" if len(places) > 1 else "which names it"
        return f"put it there, or correct {' and '.join(places)}, {naming}"
    backend, _, key = subject.partition(":")
    if backend not in settings.backends:
        return ""
    if not key:
        return f"see that [{name}.backends.{backend}] is right"
    local = local_settings(settings, backend)
    if local is not None and key in local.master_keys:
        return f"its master key is {local.master_keys[key]}, named in [{name}.backends.{backend}]"
    return f"see that [{name}.backends.{backend}] is right, and that its service has this key"


@contextmanager
def _warnings() -> Generator[list[Finding]]:
    """Collect what backends warn of while they are tried."""
    handler = _Collector()
    logger = logging.getLogger(_LOGGER)
    logger.addHandler(handler)
    try:
        yield handler.findings
    finally:
        logger.removeHandler(handler)


class _Collector(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.findings: list[Finding] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Make a finding of one record, about the backend or observer whose logger it is."""
        subject = record.name.removeprefix(f"{_LOGGER}.").removeprefix("backends.")
        self.findings.append(Finding("warning", subject, message_of(record)))
