"""What an operator should know of the engine that keeps rings."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TypeVar

from sentra_kms import AccessDenied, KMSError, TenantNotFound
from sentra_kms.hooktypes import Finding
from sentra_kms.tenant import is_tenant
from sentra_kms_vault.failures import Special, ask
from sentra_kms_vault.kv_paths import KvPaths, Metadata

_T = TypeVar("_T")

VERSIONS_KEPT = 10
"""What KV keeps of a path where `max_versions` is 0.

https://developer.hashicorp.com/vault/api-docs/secret/kv/kv-v2#max_versions
"""
_SAMPLE = 10  # rings whose own settings are looked at


def look(paths: KvPaths, mount: str, prefix: str, special: Special) -> list[Finding]:
    """Return what there is to say; changes nothing. `special` is as in `failures.ask`."""

    def asked(what: str, work: Callable[[], _T]) -> _T:
        return ask(what, work, missing=TenantNotFound, special=special)

    subject = f"{mount}/{prefix}"
    known: dict[str, Metadata] = {}
    found: list[Finding] = []
    try:
        tenants = sorted(filter(is_tenant, asked("to list key rings", paths.names)))
        try:
            for tenant in tenants[:_SAMPLE]:
                each = asked(f"to describe the ring of '{tenant}'", partial(paths.metadata, tenant))
                if each is not None:
                    known[tenant] = each
                    found += _of_ring(mount, prefix, tenant, each)
        except AccessDenied as error:
            found.append(_unseen(subject, error, f"{mount}/metadata/{prefix}/*"))
        try:
            settings = asked(f"to read '{mount}/config'", paths.configuration)
            found += _of_mount(mount, settings, sum(each.cas_required for each in known.values()))
        except AccessDenied as error:
            found.append(_unseen(mount, error, f"{mount}/config"))
    except KMSError as error:
        return [*found, Finding("error", subject, error.message)]
    return found or [Finding("ok", subject, f"KV version 2 with {len(tenants)} names of tenants")]


def _unseen(subject: str, error: AccessDenied, path: str) -> Finding:
    advice = f"grant read on {path}, to see whether check-and-set is required and what is kept"
    return Finding("warning", subject, error.message, advice)


def _of_mount(mount: str, settings: Metadata, guarded: int) -> list[Finding]:
    found: list[Finding] = []
    if not settings.cas_required:
        also = f" ({guarded} of the rings looked at require it themselves)" if guarded else ""
        found.append(
            Finding(
                "warning",
                mount,
                "does not require check-and-set: whoever may write there, with `vault kv put` for "
                f"one, can write over a ring that another just saved{also}",
                f"vault write {mount}/config cas_required=true",
            )
        )
    if 0 < settings.max_versions < VERSIONS_KEPT:
        found.append(_drops(mount, settings, f"vault write {mount}/config max_versions=0"))
    if _expires(settings):
        found.append(
            _vanishes(mount, settings, f"vault write {mount}/config delete_version_after=0s")
        )
    return found


def _of_ring(mount: str, prefix: str, tenant: str, known: Metadata) -> list[Finding]:
    path = f"{prefix}/{tenant}"
    put = f"vault kv metadata put -mount={mount}"
    found: list[Finding] = []
    if 0 < known.max_versions < VERSIONS_KEPT:
        found.append(
            _drops(f"{mount}/{path}", known, f"{put} -max-versions={VERSIONS_KEPT} {path}")
        )
    if _expires(known):
        found.append(_vanishes(f"{mount}/{path}", known, f"{put} -delete-version-after=0s {path}"))
    return found


def _drops(subject: str, settings: Metadata, advice: str) -> Finding:
    return Finding(
        "warning",
        subject,
        f"keeps {settings.max_versions} versions of a ring, and drops what came before: fewer to "
        "roll back to, and a save whose answer was lost may not be found again",
        advice,
    )


def _vanishes(subject: str, settings: Metadata, advice: str) -> Finding:
    return Finding(
        "error",
        subject,
        f"deletes every version after {settings.delete_version_after}, the live ring too",
        f"{advice}, and then `vault kv undelete` the newest version of each ring",
    )


def _expires(settings: Metadata) -> bool:
    return settings.delete_version_after not in {"", "0s"}
