"""The message path through `load()` with shipped defaults, and the peers, against LIMIT.

LIMIT is one prebuilt `AESGCM`: a nonce from `os.urandom(12)`, nonce and ciphertext joined, 32
bytes of associated data; for decryption the same undone. It has no tenants, no versions, no
commitment and no cache. Each is called alike: a bound method, plaintext and associated data.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from functools import partial

import sentra_kms
from benchmarks.harness import Work, ratios
from benchmarks.peers import Limit, Pair, peers
from benchmarks.site import ENVIRONMENT, write_config
from sentra_kms.keys.cache import KeyCache

SIZES = (64, 1024, 65536, 1048576)
PEER_SIZES = (64, 1024)
BATCH = 100
SALTS = 64
_PAIRS = {"table": "users", "column": "ssn", "id": "42"}


def run(rounds: int = 40) -> tuple[list[dict[str, object]], dict[str, str]]:
    """Measure every size; one row a size and direction. Then why absent peers are absent."""
    found, missing = peers()
    with (
        tempfile.TemporaryDirectory() as directory,
        sentra_kms.load(write_config(directory), ENVIRONMENT) as kms,
    ):
        kms.keys.create("acme")
        rows = [row for size in SIZES for row in _measure(kms, size, found, rounds)]
    return rows, missing


def _measure(
    kms: sentra_kms.KMS, size: int, others: dict[str, Pair], rounds: int
) -> list[dict[str, object]]:
    acme = kms.keys.tenant("acme")
    plain, associated = os.urandom(size), os.urandom(32)
    limit = Limit()
    sealed = limit.seal(plain, associated)
    contexts = {"32 B context": associated, "no context": None, "3 pairs": _PAIRS}
    seal: dict[str, Work] = {
        name: partial(acme.encrypt, plain, context) for name, context in contexts.items()
    }
    unseal: dict[str, Work] = {
        name: partial(acme.decrypt, acme.encrypt(plain, context), context)
        for name, context in contexts.items()
    }
    if size in PEER_SIZES:
        for name, (peer_seal, peer_open) in others.items():
            seal[name] = partial(peer_seal, plain, associated)
            unseal[name] = partial(peer_open, peer_seal(plain, associated), associated)
    found: list[dict[str, object]] = []
    for direction, work, candidates in (
        ("encrypt", partial(limit.seal, plain, associated), seal),
        ("decrypt", partial(limit.open, sealed, associated), unseal),
    ):
        seconds, figures = ratios(work, candidates, rounds=rounds)
        row: dict[str, object] = {"direction": direction, "bytes": size, "limit": seconds}
        row |= figures | (_batches(acme, direction, plain, work, rounds) if size <= 1024 else {})
        if direction == "decrypt":
            row |= _salts(kms, plain, associated, work, rounds)
        found.append(row)
    return found


def _batches(
    acme: sentra_kms.TenantKeys, direction: str, plain: bytes, limit: Work, rounds: int
) -> dict[str, float]:
    """Measure batches, against as many calls of LIMIT.

    A hundred large results at once would measure the allocator, and nothing of ours.
    """
    contexts = [os.urandom(32) for _ in range(BATCH)]
    plains = [plain] * BATCH
    works: dict[str, Callable[[], object]]
    if direction == "encrypt":
        works = {
            "batch": lambda: acme.encrypt_many(plains),
            "batch, contexts": lambda: acme.encrypt_many(plains, contexts),
        }
    else:
        bare, bound = acme.encrypt_many(plains), acme.encrypt_many(plains, contexts)
        works = {
            "batch": lambda: acme.decrypt_many(bare),
            "batch, contexts": lambda: acme.decrypt_many(bound, contexts),
        }

    def repeated() -> None:
        for _ in range(BATCH):
            limit()

    return ratios(repeated, works, rounds=rounds)[1]


def _salts(
    kms: sentra_kms.KMS, plain: bytes, associated: bytes, limit: Work, rounds: int
) -> dict[str, float]:
    """Measure messages as many writers leave them, each under a salt of its own."""
    kms.keys.create("many", exist_ok=True)
    many = kms.keys.tenant("many")
    cache: KeyCache = kms.keys._cache  # noqa: SLF001 - no caller can end an epoch early
    messages = []
    for _ in range(SALTS):
        for epoch in cache.epochs.values():
            epoch.end()
        messages.append(many.encrypt(plain, associated))

    def opened() -> None:
        for message in messages:
            many.decrypt(message, associated)

    def repeated() -> None:
        for _ in range(SALTS):
            limit()

    return ratios(repeated, {f"{SALTS} salts": opened}, rounds=rounds)[1]
