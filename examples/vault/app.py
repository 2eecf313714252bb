"""An application whose keys are wherever SENTRA_KMS_ENV says; it names no key service."""

from __future__ import annotations

import sentra_kms


def main() -> None:
    """Keep a tenant's field, rotate its key, and open what was kept before and after."""
    context = {"table": "patients", "column": "ssn"}
    with sentra_kms.load() as kms:
        kms.keys.create("acme", exist_ok=True)
        acme = kms.keys.tenant("acme")
        before = acme.encrypt(b"078-05-1120", context)
        kms.keys.rotate("acme")
        after = acme.encrypt(b"219-09-9999", context)
        assert acme.decrypt(before, context) == b"078-05-1120"
        assert acme.decrypt(after, context) == b"219-09-9999"

        newest = kms.keys.describe("acme").versions[-1]
        print(f"{kms.environment}: version {newest.version}, wrapped by {newest.wraps[0].kek}")


if __name__ == "__main__":
    main()
