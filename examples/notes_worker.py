"""A worker: after a rotation it encrypts anew what is under earlier key versions of a tenant.

`python notes_worker.py [TENANT ...]`; without one, of all tenants. It may be stopped at any point
and run again, and while the application writes. `NOTES_DATABASE` says where the notes are.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from notes_store import Notes, place

import sentra_kms
from sentra_kms import KMS, KMSError

BATCH = 100
_TRY_AGAIN = 75  # what sysexits.h calls a temporary failure


def renew(kms: KMS, notes: Notes, tenant: str) -> int:
    """Encrypt a tenant's stale notes under its primary version; return how many these were."""
    keys = kms.keys.tenant(tenant)
    current = keys.encrypt(b"")  # begins as every message under the primary version does
    done, after = 0, ""
    while batch := notes.stale(tenant, current, after, BATCH):
        contexts = [place(tenant, note) for note, _ in batch]
        texts = keys.decrypt_many([message for _, message in batch], contexts)
        renewed = keys.encrypt_many(texts, contexts)
        for (note, old), new in zip(batch, renewed, strict=True):
            done += notes.exchange(tenant, note, old, new)
        after = batch[-1][0]
    return done


def main() -> int:
    """Renew, and tell a scheduler whether it makes sense to come back."""
    notes = Notes(Path(os.environ["NOTES_DATABASE"]))
    end = 0
    with sentra_kms.load() as kms, sentra_kms.actor("worker:renew"):
        for tenant in sys.argv[1:] or kms.keys.tenants():
            try:
                print(f"{tenant}: {renew(kms, notes, tenant)} notes encrypted anew")
            except KMSError as error:
                print(f"{tenant}: {error}", file=sys.stderr)
                end = end or (_TRY_AGAIN if error.retryable else 1)
    return end


if __name__ == "__main__":
    sys.exit(main())
