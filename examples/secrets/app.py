"""An application that takes its secrets from wherever SENTRA_KMS_ENV says; it names no source."""

from __future__ import annotations

import hashlib
import hmac
import logging
from urllib.parse import urlsplit

import sentra_kms


def main() -> None:
    """Sign a session, look where the database is, and keep a tenant's field."""
    logging.basicConfig()
    with sentra_kms.load() as kms:
        kms.secrets.redact_logs()
        secrets = kms.secrets.get_many(["SENTRASCAN_SECRET", "DATABASE_URL"])

        key = secrets["SENTRASCAN_SECRET"].reveal_bytes()
        signature = hmac.new(key, b"session of user 42", hashlib.sha256).hexdigest()
        database = urlsplit(secrets["DATABASE_URL"].reveal())

        kms.keys.create("acme", exist_ok=True)
        acme = kms.keys.tenant("acme")
        box = acme.encrypt(b"078-05-1120", context={"column": "ssn"})
        assert acme.decrypt(box, context={"column": "ssn"}) == b"078-05-1120"

        # A slip: what is logged is masked.
        logging.getLogger("app").warning("connecting to %s", database.geturl())
        print(
            f"{kms.environment}: signed {signature[:8]}…, database at {database.hostname}, "
            f"{len(box)} bytes kept; secrets: {secrets}"
        )


if __name__ == "__main__":
    main()
