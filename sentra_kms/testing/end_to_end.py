"""Checks through `sentra_kms.load`: a tenant's life with this backend underneath."""

# ruff: noqa: S101 - checks are tests

from __future__ import annotations

import sentra_kms
from sentra_kms.errors import AlreadyExists, DecryptionFailed, TenantNotFound
from sentra_kms.runtime import KMS
from sentra_kms.testing.base import Conformance, able, must, need, refused, table
from sentra_kms.testing.bench import ENVIRONMENT, Bench, configuration
from sentra_kms.testing.harness import BackendHarness

_MEMORY = "kit-memory"
_CONTEXT = {"table": "users", "id": "42"}


class EndToEndConformance(Conformance):
    """For a backend that wraps keys or keeps rings."""

    def test_life_with_its_keys(self, bench: Bench, subject: BackendHarness) -> None:
        """With its KEK, and rings in memory, tenants are made, encrypted for and rotated."""
        need(bench, "wrap_key")
        with self._load(subject, [self._kek(subject)], _MEMORY) as kms:
            live(kms)

    def test_life_with_its_rings(self, bench: Bench, subject: BackendHarness) -> None:
        """With its rings, and a KEK in memory, the same."""
        need(bench, "save_ring")
        with self._load(subject, [f"{_MEMORY}:kek"], subject.name) as kms:
            live(kms)
            assert sorted(kms.keys.tenants()) == ["acme", "globex"]

    def test_life_with_its_keys_and_rings(self, bench: Bench, subject: BackendHarness) -> None:
        """With its KEK and its rings, the same."""
        need(bench, "wrap_key")
        need(bench, "save_ring")
        with self._load(subject, [self._kek(subject)], subject.name) as kms:
            live(kms)

    def test_life_with_two_keys(self, bench: Bench, subject: BackendHarness) -> None:
        """With two KEKs each version has two wraps, which either of them can undo."""
        need(bench, "wrap_key")
        second = f"{subject.name}:{able(subject.second_kek)}"
        with self._load(subject, [self._kek(subject), second], _MEMORY) as kms:
            live(kms)

    def _kek(self, subject: BackendHarness) -> str:
        return f"{subject.name}:{must(subject.kek)}"

    def _load(self, subject: BackendHarness, keks: list[str], store: str) -> KMS:
        return sentra_kms.load(
            configuration(
                subject.name,
                table(subject),
                backends={_MEMORY: {"type": "memory"}},
                keys={
                    "wrap_with": keks,
                    "authenticate_with": [f"{_MEMORY}:authentication"],
                    "store": store,
                },
            ),
            ENVIRONMENT,
        )


def live(kms: KMS) -> None:
    """Lead two tenants through everything that a tenant goes through."""
    refused(TenantNotFound, lambda: kms.keys.encrypt("acme", b"too early"))
    assert kms.keys.create("acme").primary == 1
    refused(AlreadyExists, lambda: kms.keys.create("acme"))
    kms.keys.create("globex")
    earlier = kms.keys.encrypt("acme", b"earlier", _CONTEXT)
    assert kms.keys.rotate("acme").primary == 2
    later = kms.keys.encrypt("acme", b"later", _CONTEXT)
    assert len(kms.keys.rewrap("acme").versions) == 2
    assert kms.keys.decrypt("acme", earlier, _CONTEXT) == b"earlier"
    assert kms.keys.decrypt("acme", later, _CONTEXT) == b"later"
    refused(DecryptionFailed, lambda: kms.keys.decrypt("globex", earlier, _CONTEXT))
    refused(DecryptionFailed, lambda: kms.keys.decrypt("acme", earlier, {}))
