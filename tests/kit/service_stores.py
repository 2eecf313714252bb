"""The parts of the service's backend that keep secrets and rings, and their mistakes."""

# ruff: noqa: D102 - what is overridden says it

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TypeVar

import msgspec

from sentra_kms.errors import (
    AccessDenied,
    Conflict,
    DecryptionFailed,
    KMSError,
    MalformedInput,
    SecretNotFound,
    ServiceUnavailable,
    TenantNotFound,
)
from sentra_kms.hookspecs import (
    BatchSecretHooks,
    PartHooks,
    RingHistoryHooks,
    RingHooks,
    SecretHooks,
    hookimpl,
)
from sentra_kms.hooktypes import (
    Remainder,
    RingPage,
    SecretRequest,
    SecretValue,
    StoredRing,
)
from sentra_kms.material import KeyMaterial
from sentra_kms.reference import Reference
from tests.kit.service import FIELDS, Service

SHORT_PAGES = "short pages"
"""No fault, but what a store may do: a page without a tenant, and yet with a next."""

_R = TypeVar("_R")
_T = TypeVar("_T")


def each_end(
    fault: str, requests: tuple[_R, ...], single: Callable[[_R], _T]
) -> list[_T | KMSError]:
    """Do for each request what the single hook does, or make the mistake."""
    ends: list[_T | KMSError] = []
    for request in requests:
        try:
            ends.append(single(request))
        except (DecryptionFailed, MalformedInput, SecretNotFound) as error:
            if fault == "batch fails for one":
                raise
            if fault != "batch drops a failed one":
                ends.append(error)
    if fault == "batch out of order":
        ends.reverse()
    if fault == "first of a batch":
        ends = ends[:1] * len(ends)
    return ends


class Secrets(SecretHooks, BatchSecretHooks, PartHooks):
    def __init__(self, service: Service, fault: str) -> None:
        self._service = service
        self._fault = fault
        self._kept: dict[str, bytes] = {}
        self._missing: str | None = None

    @hookimpl
    def fetch_secret(self, request: SecretRequest, timeout: float) -> SecretValue:
        reference = request.reference
        if self._fault == "swallows a denial":
            try:
                self._service.ask("read a secret", timeout)
            except AccessDenied:
                raise SecretNotFound(f"there is no secret {reference.path}") from None
        else:
            self._service.ask("read a secret", timeout, self._fault)
        if self._fault == "knows one name" and reference.backend != "service":
            raise MalformedInput(f"{reference}: it begins with service://")
        if reference.field is not None:
            raise MalformedInput(f"{reference}: a field is never asked for")
        if self._fault != "passes over options" and (
            {name for name, _ in reference.options} - {"version"}
        ):
            whole = self._whole(Reference(f"service://{reference.path}")).data.reveal()
            if self._fault == "secret in an error":
                raise MalformedInput(f"{reference}: there is no such option of {whole!r}")
            if self._fault == "secret of a refusal in a log":
                logging.getLogger(__name__).debug("no such option of %s", whole)
            raise MalformedInput(f"{reference}: no other option than 'version'")
        return self._whole(reference)

    def _whole(self, reference: Reference) -> SecretValue:
        versions = self._service.secrets.get(reference.path, [])
        if reference.path == "fields":
            document = {name: value.decode() for name, value in FIELDS.items()}
            versions = [msgspec.json.encode(document)]
            if self._fault == "fields as they print":
                versions = [str(document).encode()]
        if self._fault == "keeps a deleted secret" and versions:
            self._kept.setdefault(reference.path, versions[-1])
        if (
            self._fault == "keeps a deleted secret"
            and not versions
            and reference.path in self._kept
        ):
            versions = [self._kept[reference.path]]
        if not versions:
            if self._fault == "empty for a missing secret":
                return SecretValue(KeyMaterial(b""))
            missing = reference.path
            if self._fault == "keeps an error":
                self._missing = missing = self._missing or missing
            raise SecretNotFound(f"there is no secret {missing}")
        newest = str(len(versions))
        wanted = dict(reference.options).get("version", newest)
        there = wanted in {str(number + 1) for number in range(len(versions))}
        if self._fault == "passes over versions":
            there, wanted = True, newest
        if self._fault == "newest for an unknown version" and not there:
            there, wanted = True, newest
        if not there:
            raise SecretNotFound(f"{reference}: there is no such version")
        found = versions[int(wanted) - 1]
        if self._fault == "keeps secrets":
            found = self._kept.setdefault(reference.path, found)
        if self._fault == "strips secrets":
            found = found.strip()
        if self._fault == "cuts long secrets":
            found = found[:1000]
        if self._fault == "secret as its version":
            return SecretValue(KeyMaterial(found), version=found.decode("latin-1"))
        told = newest if self._fault == "tells the newest version" else wanted
        return SecretValue(KeyMaterial(found), version=told)

    @hookimpl
    def fetch_secrets(
        self, requests: tuple[SecretRequest, ...], timeout: float
    ) -> list[SecretValue | KMSError]:
        try:
            ends = each_end(self._fault, requests, lambda each: self.fetch_secret(each, timeout))
        except ServiceUnavailable:
            if self._fault != "an outage of a batch is a lack":
                raise
            return [SecretNotFound("there is no such secret") for _ in requests]
        except AccessDenied:
            if self._fault != "swallows a denial of a batch":
                raise
            return [SecretNotFound("there is no such secret") for _ in requests]
        if self._fault == "keeps secrets of a batch":
            for request, end in zip(requests, ends, strict=True):
                if isinstance(end, SecretValue):
                    self._kept.setdefault(request.reference.path, end.data.reveal())
            kept = [self._kept.get(each.reference.path) for each in requests]
            return [
                end if data is None else SecretValue(KeyMaterial(data))
                for data, end in zip(kept, ends, strict=True)
            ]
        return ends

    @hookimpl
    def close(self) -> None:
        if self._fault == "closes for all":
            self._service.secrets.clear()


class Rings(RingHooks, RingHistoryHooks, PartHooks):
    def __init__(self, service: Service, fault: str) -> None:
        self._service = service
        self._fault = fault
        self._kept: dict[str, StoredRing] = {}
        self._missing: str | None = None

    @hookimpl
    def load_ring(self, tenant: str, timeout: float) -> StoredRing:
        found = self._find(tenant, timeout)
        if found is None:
            if self._fault == "keeps an error":
                self._missing = tenant = self._missing or tenant
            raise TenantNotFound(f"tenant '{tenant}' has no ring")
        if self._fault == "stale ring":
            return self._kept.setdefault(tenant, found)
        return found

    @hookimpl
    def save_ring(self, tenant: str, document: bytes, expected: str | None, timeout: float) -> str:
        try:
            return self._save(tenant, document, expected, timeout)
        except ServiceUnavailable:
            if self._service.trouble or self._fault not in {"repeats a save", "makes up an answer"}:
                raise
        if self._fault == "makes up an answer":
            return "done"
        return self._save(tenant, document, expected, timeout)

    def _save(self, tenant: str, document: bytes, expected: str | None, timeout: float) -> str:
        if self._fault == "compares, then saves":
            self._expect(tenant, expected, timeout)
            time.sleep(0.01)  # as a request takes
        with self._service.lock:
            if self._fault in {"ignores the revision", "compares, then saves"}:
                self._service.ask("save", timeout, self._fault)
            else:
                self._expect(tenant, expected, timeout)
            self._service.saves += 1
            revision = str(self._service.saves)
            if self._fault == "counts each ring's saves":
                revision = str(int(expected or 0) + 1)
            self._replace(tenant)
            if self._fault == "text documents":
                document = document.decode("utf-8", "replace").encode()
            if self._fault == "strips documents":
                document = document.strip(b" \n")
            if self._fault == "cuts documents":
                document = document[: 256 * 1024]
            self._service.rings[self._name(tenant)] = StoredRing(document, revision)
            self._service.answer()
        return revision

    @hookimpl
    def delete_ring(self, tenant: str, expected: str, timeout: float) -> None:
        try:
            self._delete(tenant, expected, timeout)
        except ServiceUnavailable:
            if self._service.trouble or self._fault != "repeats a delete":
                raise
            self._delete(tenant, expected, timeout)

    def _delete(self, tenant: str, expected: str, timeout: float) -> None:
        if self._fault == "compares, then deletes":
            self._expect(tenant, expected, timeout)
            time.sleep(0.01)  # as a request takes
        with self._service.lock:
            if self._fault in {"deletes whatever is there", "compares, then deletes"}:
                self._service.ask("delete", timeout, self._fault)
            else:
                self._expect(tenant, expected, timeout)
            self._replace(tenant)
            self._service.rings.pop(self._name(tenant), None)
            self._service.answer()

    @hookimpl
    def purge_ring_history(self, tenant: str, timeout: float) -> list[Remainder]:
        self._service.ask("purge", timeout, self._fault)
        with self._service.lock:
            if self._fault == "purges nothing":
                return []
            if self._fault == "purges what is live":
                self._service.rings.pop(tenant, None)
            if self._fault == "purges everybody":
                self._service.replaced.clear()
            for name in list(self._service.replaced):
                if name == tenant or (
                    self._fault == "purges by prefix" and name.startswith(tenant)
                ):
                    del self._service.replaced[name]
        return []

    @hookimpl
    def list_rings(self, cursor: str | None, limit: int, timeout: float) -> RingPage:
        self._service.ask("list", timeout, self._fault)
        if self._fault == SHORT_PAGES and cursor is None:
            return RingPage((), "!")  # which stands before every tenant
        found = sorted(name for name in self._service.rings if cursor is None or name > cursor)
        if self._fault == "first page only":
            return RingPage(tuple(found[: min(limit, 100)]), None)
        if self._fault in {"counts to its cursor", "looks for its cursor"}:
            return self._page(sorted(self._service.rings), cursor, limit)
        page = tuple(found[:limit])
        return RingPage(page, page[-1] if len(found) > limit else None)

    def _page(self, names: list[str], cursor: str | None, limit: int) -> RingPage:
        if self._fault == "counts to its cursor":
            start = int(cursor or 0)
            more = str(start + limit)
        else:
            start = names.index(cursor) + 1 if cursor in names else 0 if cursor is None else 1 << 30
            more = names[min(start + limit, len(names)) - 1] if names else ""
        page = tuple(names[start : start + limit])
        return RingPage(page, more if start + limit < len(names) else None)

    def _replace(self, tenant: str) -> None:
        found = self._service.rings.get(self._name(tenant))
        if found is not None:
            self._service.replaced.setdefault(tenant, []).append(found.document)

    def _name(self, tenant: str) -> str:
        return tenant.lower() if self._fault == "folds case" else tenant

    def _find(self, tenant: str, timeout: float) -> StoredRing | None:
        self._service.ask("load", timeout, self._fault)
        return self._service.rings.get(self._name(tenant))

    def _expect(self, tenant: str, expected: str | None, timeout: float) -> None:
        found = self._find(tenant, timeout)
        if (found.revision if found else None) != expected:
            if found is None:
                raise TenantNotFound(f"tenant '{tenant}' has no ring any more")
            raise Conflict(f"the ring of '{tenant}' was saved by somebody else")
