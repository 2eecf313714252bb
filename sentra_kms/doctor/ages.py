"""How old secrets are, where `max_age` says how old they may get."""

from __future__ import annotations

import time
from collections.abc import Iterator

from sentra_kms.errors import KMSError
from sentra_kms.hooktypes import Finding
from sentra_kms.runtime import KMS
from sentra_kms.settings import Settings

_DAY = 86400.0


def too_old(kms: KMS, settings: Settings) -> Iterator[Finding]:
    """Yield the secrets that are past their age limit, and those whose age nobody knows."""
    for name, entry in settings.secrets.items():
        if entry.max_age is None:
            continue
        try:
            created = kms.secrets.created(name)
        except KMSError:
            continue  # which is told already
        if created is None:
            yield Finding(
                "ok", name, "has a max_age, and its source does not tell when it was made"
            )
            continue
        age = time.time() - created.timestamp()
        if age > entry.max_age:
            yield Finding(
                "warning",
                name,
                f"was made {age / _DAY:.0f} days ago, and its max_age is "
                f"{entry.max_age / _DAY:g} days",
                "rotate it, and `sentra-kms secret check` it",
            )
