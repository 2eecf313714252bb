"""The message path through `load()` with shipped defaults, against LIMIT.

LIMIT is one prebuilt `AESGCM`: a nonce from `os.urandom(12)`, nonce and ciphertext joined, 32
bytes of associated data; for decryption the same undone. It has no tenants, no versions, no
commitment and no cache.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping
from functools import partial

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

import sentra_kms
from benchmarks.harness import Work, ratios

SIZES = (64, 1024, 65536)
BATCH = 100
_CONTEXT = {"table": "users", "column": "ssn", "id": "42"}
_ENVIRONMENT = "benchmark"


def run(rounds: int = 15) -> list[dict[str, object]]:
    """Measure every size; one row a size and direction."""
    with tempfile.TemporaryDirectory() as directory:
        master = os.path.join(directory, "master.key")
        with open(master, "xb") as file:
            file.write(os.urandom(32))
        os.chmod(master, 0o600)
        with sentra_kms.load(_config(directory, master), environment=_ENVIRONMENT) as kms:
            kms.keys.create("acme")
            acme = kms.keys.tenant("acme")
            return [row for size in SIZES for row in _measure(acme, size, rounds)]


def _config(directory: str, master: str) -> dict[str, object]:
    return {
        _ENVIRONMENT: {
            "development": True,  # the temporary directory may be on any file system
            "backends": {
                "local": {
                    "type": "local",
                    "directory": os.path.join(directory, "keys"),
                    "master_keys": {"now": f"file://{master}"},
                }
            },
            "keys": {"wrap_with": ["local:now"], "store": "local"},
        }
    }


def _measure(acme: sentra_kms.TenantKeys, size: int, rounds: int) -> list[dict[str, object]]:
    plain, associated = os.urandom(size), os.urandom(32)
    calls = 2000 if size <= 1024 else 100
    cipher = AESGCM(os.urandom(32))
    sealed = _limit_seal(cipher, plain, associated)()
    boxes = {
        "no context": (acme.encrypt(plain), None),
        "32 B context": (acme.encrypt(plain, associated), associated),
        "3 pairs": (acme.encrypt(plain, _CONTEXT), _CONTEXT),
    }
    many = [plain] * BATCH
    batch = acme.encrypt_many(many)
    rows: list[tuple[str, Work, Mapping[str, Work], Work]] = [
        (
            "encrypt",
            _limit_seal(cipher, plain, associated),
            {name: partial(acme.encrypt, plain, context) for name, (_, context) in boxes.items()},
            lambda: acme.encrypt_many(many),
        ),
        (
            "decrypt",
            lambda: cipher.decrypt(sealed[:12], sealed[12:], associated),
            {name: partial(acme.decrypt, box, context) for name, (box, context) in boxes.items()},
            lambda: acme.decrypt_many(batch),
        ),
    ]
    found: list[dict[str, object]] = []
    for direction, limit, singles, batched in rows:
        seconds, single = ratios(limit, singles, rounds=rounds, calls=calls)
        # A hundred large results at once measure the allocator, and nothing of ours.
        whole: dict[str, float] = {}
        if size <= 1024:
            _, whole = ratios(
                _repeated(limit), {"batch": batched}, rounds=rounds, calls=calls // BATCH
            )
        found.append({"direction": direction, "bytes": size, "limit": seconds, **single, **whole})
    return found


def _limit_seal(cipher: AESGCM, plain: bytes, associated: bytes) -> Callable[[], bytes]:
    def seal() -> bytes:
        nonce = os.urandom(12)
        return nonce + cipher.encrypt(nonce, plain, associated)

    return seal


def _repeated(work: Callable[[], object]) -> Callable[[], None]:
    def repeat() -> None:
        for _ in range(BATCH):
            work()

    return repeat
