"""Which secrets engine a reference leads to, and whether that engine is really mounted there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import msgspec

from sentra_kms import (
    ConfigurationError,
    KMSError,
    MalformedInput,
    SecretNotFound,
    ServiceUnavailable,
)
from sentra_kms.hooktypes import Finding
from sentra_kms.reference import Reference
from sentra_kms_vault.call import Call
from sentra_kms_vault.documents import understood
from sentra_kms_vault.failures import Refused, vendor_error
from sentra_kms_vault.mounts import Mounted, Mounts

Engine = Literal["kv-v2", "kv-v1", "dynamic"]
_NAMES = {
    "kv-v2": "KV version 2",
    "kv-v1": "KV version 1",
    "dynamic": "an engine that makes secrets on demand",
}
_NOT_DYNAMIC = frozenset({"kv", "generic", "cubbyhole", "system", "identity", "transit"})


class Place(msgspec.Struct, frozen=True):
    """Where a reference leads: a path inside a mount, and what the mount is taken to be."""

    mount: str
    engine: Engine
    path: str


class Engines:
    """The engines of the backend `name`, as its settings declare them."""

    def __init__(self, name: str, declared: Mapping[str, Engine], mounts: Mounts) -> None:
        self._name = name
        self._declared = dict(declared)
        self._mounts = mounts

    @property
    def makes_on_demand(self) -> bool:
        """Whether an engine of that kind is declared."""
        return "dynamic" in self._declared.values()

    def place(self, reference: Reference) -> Place:
        """Return where a reference leads: the longest mount that is declared, or KV version 2.

        Raises `MalformedInput` for a path that is no path in an engine.
        """
        segments = reference.path.split("/")
        if not all(segments) or len(segments) < 2:
            raise MalformedInput(
                f"{reference}: write {self._name}://MOUNT/PATH, without empty segments"
            )
        for length in range(len(segments) - 1, 0, -1):
            mount = "/".join(segments[:length])
            if mount in self._declared:
                return Place(mount, self._declared[mount], "/".join(segments[length:]))
        return Place(segments[0], "kv-v2", "/".join(segments[1:]))

    def verify(self, place: Place, subject: str, call: Call) -> None:
        """Raise `ConfigurationError` unless the engine is what it is taken to be.

        For an answer that nothing is there, which says nothing where another engine gave it. What
        may not be looked at is taken as it is declared.
        """
        found = self._mounts.at(place.mount, call)
        problem = None if found is None else _problem(place.mount, place.engine, found)
        if problem is not None:
            raise ConfigurationError(f"{subject}: {problem}")

    def check(self, call: Call) -> list[Finding]:
        """Return what is to be said of each declared mount."""
        return [self._about(mount, engine, call) for mount, engine in self._declared.items()]

    def _about(self, mount: str, engine: Engine, call: Call) -> Finding:
        subject = f"{self._name}://{mount}"
        try:
            found = self._mounts.at(mount, call, anew=True)
        except KMSError as error:
            return Finding("error", subject, error.message)
        if found is None:
            return Finding(
                "warning",
                subject,
                "cannot be looked at with this token",
                "let its policies grant something under this mount, or correct `mounts`",
            )
        problem = _problem(mount, engine, found)
        if problem is not None:
            return Finding("error", subject, problem)
        return Finding("ok", subject, f"is {_NAMES[engine]}")


def _problem(mount: str, engine: Engine, found: Mounted) -> str | None:
    """Return what is wrong with a mount, `None` if nothing is."""
    if found.place != mount:
        return (
            f"the engine is mounted at '{found.place}' and not at '{mount}': "
            "correct the backend's `mounts`"
        )
    if _fits(found, engine):
        return None
    version = found.kv_version
    return (
        f"the engine at '{mount}' is of type {found.type}"
        + (f", version {version}" if version else "")
        + f", and not {_NAMES[engine]}: correct the backend's `mounts`"
    )


def _fits(found: Mounted, engine: Engine) -> bool:
    if engine == "kv-v2":
        return found.kv_version == 2
    if engine == "kv-v1":
        return found.kv_version == 1 or found.type == "cubbyhole"
    return found.type not in _NOT_DYNAMIC


def explain(refusal: Refused, subject: str) -> KMSError | None:
    """Return the error of a refused read where more is known than its status, else `None`."""
    failure: KMSError | None = None
    if refusal.status == 404:
        failure = _not_there(refusal, subject)
    elif refusal.status == 400 and refusal.says("unknown role"):
        failure = SecretNotFound(f"{subject}: the engine has no such role: correct the reference")
    elif refusal.status == 400 and refusal.says("upgrading from non-versioned"):
        failure = ServiceUnavailable(f"{subject}: the engine is being upgraded: try again soon")
    if failure is not None:
        failure.__cause__ = vendor_error(refusal)
    return failure


def _not_there(refusal: Refused, subject: str) -> KMSError:
    if refusal.says("no handler for route"):
        return ConfigurationError(
            f"{subject}: no engine is mounted there: correct the path, or name the mount of more "
            "than one segment in the backend's `mounts`"
        )
    if refusal.says("unsupported path"):
        return MalformedInput(
            f"{subject}: the engine that is mounted there has no such path: correct the "
            "reference, or what `mounts` says of the engine"
        )
    warnings = refusal.body.get("warnings")
    if isinstance(warnings, list) and any("versioned K/V" in str(each) for each in warnings):
        return ConfigurationError(
            f"{subject}: the engine is KV version 2, and `mounts` says otherwise: correct it"
        )
    return _deleted(refusal, subject) or SecretNotFound(
        f"{subject}: Vault holds nothing there: write it, or correct the reference"
    )


class _State(msgspec.Struct, frozen=True):
    version: int
    destroyed: bool


class _GoneVersion(msgspec.Struct, frozen=True):
    metadata: _State


class _Gone(msgspec.Struct, frozen=True):
    data: _GoneVersion


def _deleted(refusal: Refused, subject: str) -> SecretNotFound | None:
    """Return how a version of KV version 2 went that is not there any more."""
    found = understood(refusal.body, _Gone)
    if found is None:
        return None
    state = found.data.metadata
    if state.destroyed:
        return SecretNotFound(
            f"{subject}: version {state.version} was destroyed, and cannot be brought back: "
            "write a new one"
        )
    return SecretNotFound(
        f"{subject}: version {state.version} is deleted: write a new one, or bring it back with "
        "`vault kv undelete`"
    )
