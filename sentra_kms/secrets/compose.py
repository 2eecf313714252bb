"""A secret's value from the documents that its entry names."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import NamedTuple

import msgspec

from sentra_kms.errors import KMSError, MalformedInput, SecretNotFound, afresh
from sentra_kms.hooktypes import SecretValue
from sentra_kms.material import KeyMaterial, Secret
from sentra_kms.reference import Reference
from sentra_kms.secret_settings import SecretEntry, SecretSource
from sentra_kms.secrets.documents import DEFAULT_TTL, Documents, Held
from sentra_kms.secrets.fetch import LOCAL, Bound
from sentra_kms.secrets.template import render
from sentra_kms.secrets.transforms import apply, drop_newline, pick_field


class Snapshot:
    """Each document as it was when it was first asked for, and no other state of it.

    So what is composed of one document, or returned together, is of one state. With `renew` each
    source is asked now; `known` is what was asked for already, and how it failed.
    """

    def __init__(
        self,
        documents: Documents,
        *,
        renew: bool = False,
        known: Mapping[Reference, Held | KMSError] | None = None,
    ) -> None:
        self.asked: dict[Reference, Held] = {}  # for one value
        self._seen: dict[Reference, Held] = {}
        self._known = known or {}
        self._get: Callable[[Reference], Held] = documents.renew if renew else documents.get

    def get(self, document: Reference) -> Held:
        """Return a document, or that it was not found; raises any other error of its source."""
        found = self._seen.get(document)
        if found is None:
            found = self._seen[document] = self._asked(document)
        self.asked[document] = found
        return found

    def _asked(self, document: Reference) -> Held:
        known = self._known.get(document)
        if isinstance(known, Held):
            return known
        try:
            if known is not None:
                raise afresh(known)
            return self._get(document)
        except SecretNotFound as error:
            return Held(None, afresh(error), float("-inf"), float("-inf"))


class Composed(msgspec.Struct, frozen=True):
    """A value, and when the oldest of what it is made of was made, as far as that is known.

    `parts` are what a template was filled with, each of them as secret as the whole.
    """

    secret: Secret
    created: datetime | None
    parts: tuple[Secret, ...] = ()


class Attempt(NamedTuple):
    """What `compose` returned or raised, and every document that it looked at for it."""

    end: Composed | KMSError
    seen: Mapping[Reference, Held]


def attempt(subject: str, entry: SecretEntry, snapshot: Snapshot, bound: Bound) -> Attempt:
    """Compose a value."""
    snapshot.asked = {}
    try:
        end: Composed | KMSError = compose(subject, entry, snapshot, bound)
    except KMSError as error:
        end = afresh(error)
    return Attempt(end, snapshot.asked)


class _Part(msgspec.Struct, frozen=True):
    value: KeyMaterial
    found: SecretValue


def compose(subject: str, entry: SecretEntry, snapshot: Snapshot, bound: Bound) -> Composed:
    """Return the value of the secret `subject`.

    Raises `SecretNotFound` if no reference of one of its sources is found, `MalformedInput` if a
    value is empty or not of the form that was declared, and what the sources raise.
    """
    parts = {
        name: _first(f"{subject}, part '{name}'" if name else subject, source, snapshot, bound)
        for name, source in entry.parts.items()
    }
    expiries = [part.found.expires for part in parts.values() if part.found.expires is not None]
    expires = min(expiries) if expiries else None
    made = [part.found.created for part in parts.values() if part.found.created is not None]
    created = min(made) if made else None
    leased = any(part.found.leased for part in parts.values())
    if not entry.template:
        only = parts[""]
        version = only.found.version
        secret = Secret(only.value.reveal(), version=version, expires=expires, leased=leased)
        return Composed(secret, created)
    versions = [
        f"{name}={part.found.version}"
        for name, part in parts.items()
        if part.found.version is not None
    ]
    secret = Secret(
        render(entry.template, {name: part.value for name, part in parts.items()}).reveal(),
        version=",".join(versions) or None,
        expires=expires,
        leased=leased,
    )
    return Composed(secret, created, tuple(Secret(part.value.reveal()) for part in parts.values()))


def _first(subject: str, source: SecretSource, snapshot: Snapshot, bound: Bound) -> _Part:
    """Return the value under the first reference that is found; only *not found* goes on."""
    missing: list[SecretNotFound] = []
    for reference in source.references:
        found = snapshot.get(reference.document)
        if found.value is None:
            missing.append(_not_found(found, reference))
            continue
        try:
            value = _of_reference(found.value.data, reference, bound)
        except SecretNotFound as error:
            missing.append(SecretNotFound(error.message))
            continue
        value = apply(source.transforms, value, subject)
        if not value.reveal():
            raise MalformedInput(
                f"{subject}: {reference} is empty, which no secret is: set it, or take it away",
                subject=str(reference),
            )
        return _Part(value, found.value)
    if len(missing) == 1:
        raise _named(missing[0], source.references[0])
    told = "; ".join(error.message for error in missing)
    raise SecretNotFound(f"{subject}: none of its {len(missing)} references is found: {told}")


def _not_found(found: Held, reference: Reference) -> SecretNotFound:
    if isinstance(found.failure, SecretNotFound):
        return SecretNotFound(found.failure.message, backend=found.failure.backend)
    return SecretNotFound(f"{reference} is not there", backend=reference.backend)


def _named(error: SecretNotFound, reference: Reference) -> SecretNotFound:
    error.subject = str(reference)
    error.backend = reference.backend
    return error


def _of_reference(document: KeyMaterial, reference: Reference, bound: Bound) -> KeyMaterial:
    if reference.keys:
        return pick_field(document, reference)
    # People write these with editors and shells, which end them with a newline.
    if bound(reference.backend).kind in LOCAL and ("newline", "keep") not in reference.options:
        return drop_newline(document)
    return document


def same(one: Secret, other: Secret) -> bool:
    """Whether two values are one version of a secret."""
    return one.version == other.version and one == other


def ttls_of(entries: Mapping[str, SecretEntry]) -> dict[Reference, float]:
    """Return the time to live of each document: the shortest that a secret made of it has."""
    found: dict[Reference, float] = {}
    for entry in entries.values():
        for source in entry.parts.values():
            for reference in source.references:
                ttl = entry.ttl or DEFAULT_TTL
                document = reference.document
                found[document] = min(ttl, found.get(document, ttl))
    return found


def named(secrets: Iterable[str]) -> list[str]:
    """Return names, each once; raises `MalformedInput` for one name, which is no list of them."""
    if isinstance(secrets, str):
        raise MalformedInput("get_many takes a list of names: of one name use get")
    return list(dict.fromkeys(secrets))
