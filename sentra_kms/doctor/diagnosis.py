"""The whole examination.

Every environment is read, bound and compared with the others; the chosen one is explained value by
value and, unless offline, tried: each backend is asked, each KEK described, each ring
authentication key read, and a bounded number of key rings looked at. Nothing is changed.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping

import msgspec

from sentra_kms.answers import LEVELS
from sentra_kms.config import read_environment
from sentra_kms.config_file import ENVIRONMENT_VARIABLE, FILE_VARIABLE, ConfigFile
from sentra_kms.discovery import CORE
from sentra_kms.doctor.compare import shared_by_configuration, shared_master_keys
from sentra_kms.doctor.explain import Explained, explain
from sentra_kms.doctor.installed import bound, not_installed
from sentra_kms.doctor.rings import MOST_RINGS
from sentra_kms.doctor.trial import tried
from sentra_kms.doctor.written import written
from sentra_kms.errors import ConfigurationError, KMSError
from sentra_kms.hookspecs import API_VERSION
from sentra_kms.hooktypes import Finding
from sentra_kms.settings import Settings
from sentra_kms.version import VERSION


class Diagnosis(msgspec.Struct, frozen=True):
    """All that the doctor found.

    `distributions` are name, version and hook API of core and plugins.
    `source_from` and `environment_from` say who named the configuration and the environment.
    `tried` is false if nothing was to be fetched, or the environment cannot be loaded.
    """

    source: str
    source_from: str
    environment: str
    environment_from: str
    offline: bool
    tried: bool
    explained: tuple[Explained, ...]
    findings: tuple[Finding, ...]
    distributions: tuple[tuple[str, str, str], ...]

    @property
    def level(self) -> str:
        """The worst level found: `ok`, `warning` or `error`."""
        return max((finding.level for finding in self.findings), key=LEVELS.index, default="ok")


def diagnose(
    source: str | os.PathLike[str] | Mapping[str, object] | None = None,
    environment: str | None = None,
    *,
    offline: bool = False,
    rings: int | None = MOST_RINGS,
) -> Diagnosis:
    """Examine a configuration; raises `ConfigurationError` only if no environment can be chosen.

    With `offline` nothing is fetched: no secret, no KEK, no ring. `rings` is how many key rings are
    read, `None` for all.
    """
    document = ConfigFile.read(source)
    findings: list[Finding] = []
    name = _choose(document, environment, findings)
    readable = _readable(document, name, findings)
    usable = set(readable)
    for other, settings in readable.items():
        findings += written(settings)
        for refusal in bound(settings, chosen=other == name):
            usable.discard(other)
            if not _is_told(refusal, findings):
                findings.append(refusal)
    findings += shared_by_configuration(readable)
    chosen = readable.get(name)
    if chosen is not None and name in usable and not offline:
        findings += tried(chosen, findings, rings)
    if not offline:
        findings += shared_master_keys(readable, name)
    return Diagnosis(
        source=document.source,
        source_from=_source_from(source),
        environment=name,
        environment_from=_environment_from(environment),
        offline=offline,
        tried=name in usable and not offline,
        # Only of a configuration that was understood: elsewhere a value may be a misplaced secret.
        explained=() if chosen is None else tuple(explain(document, chosen)),
        findings=tuple(dict.fromkeys(findings)),
        distributions=tuple(_distributions(readable.values())),
    )


def _choose(document: ConfigFile, asked: str | None, findings: list[Finding]) -> str:
    """Choose the environment; go on without a wrong default if the environment is named."""
    named = asked or os.environ.get(ENVIRONMENT_VARIABLE)
    try:
        return document.choose(asked)
    except ConfigurationError as error:
        if named is None or named not in document.environments():
            raise
        failure = error.message.removeprefix(f"{document.source}: ")
    if failure.startswith("default_environment"):  # else it is told of each environment
        findings.append(
            Finding(
                "error",
                "default_environment",
                failure,
                "name an environment that is not for development, or take the line out",
            )
        )
    return named


def _readable(document: ConfigFile, chosen: str, findings: list[Finding]) -> dict[str, Settings]:
    found: dict[str, Settings] = {}
    for name in sorted(document.environments(), key=lambda each: (each != chosen, each)):
        try:
            found[name] = read_environment(document, name)
        except KMSError as error:
            failure = error.message.removeprefix(f"{document.source}: ")
        else:
            continue
        if name != chosen and not_installed(document, name, failure):
            findings.append(
                Finding(
                    "warning",
                    name,
                    f"is not checked, since it cannot be used here: {failure}",
                    "run the doctor where it is used",
                )
            )
        else:
            findings.append(
                Finding("error", name, failure, f"mend [{name}] or [shared]; load() refuses it")
            )
    return found


def _is_told(refusal: Finding, findings: Iterable[Finding]) -> bool:
    """Whether an error that was found already is about what the refusal quotes."""
    return any(
        finding.level == "error" and f"'{finding.subject}'" in refusal.message
        for finding in findings
    )


def _source_from(source: object) -> str:
    if source is not None:
        return "argument"
    return FILE_VARIABLE if os.environ.get(FILE_VARIABLE) else "working directory"


def _environment_from(asked: str | None) -> str:
    if asked:
        return "argument"
    named = os.environ.get(ENVIRONMENT_VARIABLE)
    return ENVIRONMENT_VARIABLE if named else "default_environment"


def _distributions(readable: Iterable[Settings]) -> Iterator[tuple[str, str, str]]:
    found: set[tuple[str, str, tuple[int, int]]] = {(CORE, VERSION, API_VERSION)}
    for settings in readable:
        for backend in settings.backends.values():
            brought = backend.type
            found.add((brought.distribution, brought.version, brought.kind.api))
    for name, version, (major, minor) in sorted(found):
        yield name, version, f"{major}.{minor}"
