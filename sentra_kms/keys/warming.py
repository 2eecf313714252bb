"""Keys fetched before they are needed, so that the first requests of a process do not wait."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import Context, copy_context

from sentra_kms.errors import KMSError, afresh
from sentra_kms.keys.tenant_keys import TenantKeys

_AT_ONCE = 16  # requests to the store and the KEKs


def warm(handles: Sequence[TenantKeys]) -> dict[str, KMSError]:
    """Fetch ring and primary key of each tenant; return the failures by tenant."""

    def fetch(handle: TenantKeys) -> KMSError | None:
        try:
            handle.warm()
        except KMSError as error:
            return afresh(error)
        return None

    def fetch_in(context: Context, handle: TenantKeys) -> KMSError | None:
        return context.run(fetch, handle)

    if not handles:
        return {}
    contexts = [copy_context() for _ in handles]
    with ThreadPoolExecutor(min(_AT_ONCE, len(handles)), "sentra-kms-warm") as pool:
        # Each on behalf of who warms, for the events; a context is entered by one thread at a time.
        outcomes = pool.map(fetch_in, contexts, handles)
        return {
            handle.tenant: outcome
            for handle, outcome in zip(handles, outcomes, strict=True)
            if outcome is not None
        }
