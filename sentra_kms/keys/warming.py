"""Keys fetched before they are needed, so that the first requests of a process do not wait."""

from __future__ import annotations

from collections.abc import Sequence

from sentra_kms.errors import KMSError, afresh
from sentra_kms.keys.tenant_keys import TenantKeys
from sentra_kms.together import together


def warm(handles: Sequence[TenantKeys]) -> dict[str, KMSError]:
    """Fetch ring and primary key of each tenant; return the failures by tenant."""

    def fetch(handle: TenantKeys) -> KMSError | None:
        try:
            handle.warm()
        except KMSError as error:
            return afresh(error)
        return None

    outcomes = together(fetch, handles)
    return {
        handle.tenant: outcome
        for handle, outcome in zip(handles, outcomes, strict=True)
        if outcome is not None
    }
