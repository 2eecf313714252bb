"""Paths of an engine KV version 2 below one prefix, as one operation uses them."""

from __future__ import annotations

from typing import TypeVar

import msgspec
from hvac.api.secrets_engines import KvV2

from sentra_kms import ServiceUnavailable
from sentra_kms_vault.call import Call
from sentra_kms_vault.documents import understood
from sentra_kms_vault.failures import Refused, Unanswered
from sentra_kms_vault.kv_form import is_of, save_of
from sentra_kms_vault.ring_mount import RingMount

_T = TypeVar("_T")


class Superseded(Exception):  # noqa: N818 - what happened, for this package alone
    """The path has another version than the one that was to be written over."""


class Version(msgspec.Struct, frozen=True):
    """A version of a path. `fields` is `None` once it is deleted or destroyed."""

    number: int
    fields: dict[str, object] | None
    destroyed: bool


class _Stamp(msgspec.Struct, frozen=True):
    version: int
    destroyed: bool = False


class _Content(msgspec.Struct, frozen=True):
    metadata: _Stamp
    data: dict[str, object] | None = None


class _Read(msgspec.Struct, frozen=True):
    data: _Content


class _Written(msgspec.Struct, frozen=True):
    data: _Stamp


class _Names(msgspec.Struct, frozen=True):
    keys: list[str]


class _Listed(msgspec.Struct, frozen=True):
    data: _Names


class Fate(msgspec.Struct, frozen=True):
    """What became of an earlier version."""

    destroyed: bool = False


class Metadata(msgspec.Struct, frozen=True):
    """What KV tells of a path and of all its versions."""

    cas_required: bool = False
    delete_version_after: str = "0s"
    max_versions: int = 0
    versions: dict[int, Fate] = {}


class _Described(msgspec.Struct, frozen=True):
    data: Metadata


class KvPaths:
    """Every request is safe to repeat: a write knows itself by the name of its save.

    Raises `Refused`, `Unanswered` and the errors of a wrong mount; used inside of `failures.ask`.
    """

    def __init__(self, call: Call, mount: RingMount, prefix: str) -> None:
        self._call = call
        self._kv = KvV2(call)
        self._mount = mount
        self._prefix = prefix

    def read(self, name: str, version: int | None = None) -> Version | None:
        """Return the newest version, or the one that is named; `None` if there never was one."""
        try:
            answer = self._kv.read_secret_version(
                self._at(name), version, self._mount.mount, raise_on_deleted_version=True
            )
        except Refused as refusal:
            if not _nothing(refusal):
                raise
            answer = refusal.body  # of a version that was deleted: with metadata, without fields
            absent = "data" not in answer
        else:
            absent = False
        if absent:
            self._mount.prove(self._call)
            return None
        content = self._understand(answer, _Read).data
        return Version(content.metadata.version, content.data, content.metadata.destroyed)

    def write(self, name: str, fields: dict[str, object], over: int) -> int:
        """Write the version after `over`, 0 if the path is to be new; return its number.

        Raises `Superseded` if another version is the newest. When the request had to be sent
        again, an attempt whose answer was lost may be what made it so: then the version after
        `over` is looked at, and is this save's if it has its name. A request that is still under
        way when this returns can do no harm: it names `over`, too, and whoever read the path since
        saw a state before it or after it.
        """
        self._mount.prove(self._call)
        try:
            answer = self._kv.create_or_update_secret(
                self._at(name), fields, cas=over, mount_point=self._mount.mount
            )
        except Refused as refusal:
            if refusal.status != 400 or not refusal.says("did not match the current version"):
                raise
        else:
            return self._understand(answer, _Written).data.version
        if self._call.repeated:
            made = self.read(name, over + 1)
            if made is None or made.fields is None:
                raise Unanswered(
                    ServiceUnavailable,
                    "the answer was lost, and others have written since: whether it was done is "
                    "not known",
                    "answer lost",
                    sent=True,
                )
            if is_of(save_of(fields), made.fields):
                return made.number
        raise Superseded

    def names(self, folder: str = "") -> list[str]:
        """Return the names directly below the prefix, or below a folder there; folders end in /."""
        try:
            answer = self._kv.list_secrets(self._at(folder), self._mount.mount)
        except Refused as refusal:
            if not _nothing(refusal):
                raise
        else:
            return self._understand(answer, _Listed).data.keys
        self._mount.prove(self._call)
        return []

    def metadata(self, name: str) -> Metadata | None:
        """Return what is told of a path and its versions, `None` if there is none."""
        try:
            answer = self._kv.read_secret_metadata(self._at(name), self._mount.mount)
        except Refused as refusal:
            if not _nothing(refusal):
                raise
        else:
            return self._understand(answer, _Described).data
        self._mount.prove(self._call)
        return None

    def destroy(self, name: str, versions: list[int]) -> None:
        """Erase versions for good; those that are erased already stay so."""
        self._kv.destroy_secret_versions(self._at(name), versions, self._mount.mount)

    def configuration(self) -> Metadata:
        """Return what holds for all paths of the mount."""
        return self._understand(self._kv.read_configuration(self._mount.mount), _Described).data

    def shown(self, name: str) -> str:
        """Return a path as an operator names it."""
        return f"'{self._mount.mount}/{self._at(name)}'"

    def allows(self, seconds: float) -> bool:
        """Whether more time than that is left for the operation."""
        return self._call.deadline.allows(seconds)

    def _at(self, name: str) -> str:
        return f"{self._prefix}/{name}" if name else self._prefix

    def _understand(self, answer: dict[str, object], form: type[_T]) -> _T:
        found = understood(answer, form)
        if found is not None:
            return found
        self._mount.prove(self._call, anew=True)
        raise Unanswered(
            ServiceUnavailable,
            "its answer is none of an engine KV version 2: look at the address and at proxies",
            "ValidationError",
            sent=True,
        )


def _nothing(refusal: Refused) -> bool:
    """Whether a refusal says that nothing is at a path, and not that the engine is another."""
    return refusal.status == 404 and not refusal.texts
