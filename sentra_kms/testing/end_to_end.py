"""Checks through `sentra_kms.load`: a tenant's life with this backend underneath."""

# ruff: noqa: S101 - checks are tests

from __future__ import annotations

from contextlib import suppress

import sentra_kms
from sentra_kms.errors import AlreadyExists, DecryptionFailed, ServiceUnavailable, TenantNotFound
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

    def test_warm_messages_ask_nothing(self, bench: Bench, subject: BackendHarness) -> None:
        """Once a tenant's key is cached, 100 messages make no request, whatever is underneath."""
        keks, store = self._underneath(bench, subject)
        before = len(able(subject.requests))
        with self._load(subject, keks, store) as kms:
            kms.keys.create("acme")
            message = kms.keys.encrypt("acme", b"first", _CONTEXT)
            asked = len(subject.requests())
            assert asked > before, "the harness's requests() sees nothing"
            for number in range(100):
                kms.keys.encrypt("acme", b"%d" % number, _CONTEXT)
                kms.keys.decrypt("acme", message, _CONTEXT)
            assert len(subject.requests()) == asked

    def test_rewrap_after_a_rotation_of_its_key(
        self, bench: Bench, subject: BackendHarness
    ) -> None:
        """After the service rotated its KEK a rewrap brings every version under the new one.

        What was encrypted opens as before, for its tenant only.
        """
        need(bench, "wrap_key")
        kek = must(subject.kek)
        with self._load(subject, [self._kek(subject)], _MEMORY) as kms:
            kms.keys.create("globex")
            before = kms.keys.create("acme").versions[0].wraps[0]
            message = kms.keys.encrypt("acme", b"earlier", _CONTEXT)
            able(subject.rotate_key, kek)
            after = kms.keys.rewrap("acme").versions[0].wraps[0]
            assert (after.key_id, after.key_version) != (before.key_id, before.key_version)
            kms.reload()
            assert kms.keys.decrypt("acme", message, _CONTEXT) == b"earlier"
            refused(DecryptionFailed, lambda: kms.keys.decrypt("globex", message, _CONTEXT))

    def test_lost_answer_of_rotate(self, bench: Bench, subject: BackendHarness) -> None:
        """A rotation whose save was not answered makes one version when it is retried."""
        need(bench, "save_ring")
        with self._load(subject, [f"{_MEMORY}:kek"], subject.name) as kms:
            kms.keys.create("acme")
            message = kms.keys.encrypt("acme", b"earlier", _CONTEXT)
            able(subject.lose_answer)
            with suppress(ServiceUnavailable):
                kms.keys.rotate("acme", request_id="one")
            assert kms.keys.rotate("acme", request_id="one").primary == 2
            assert len(kms.keys.describe("acme").versions) == 2
            assert kms.keys.decrypt("acme", message, _CONTEXT) == b"earlier"

    def _underneath(self, bench: Bench, subject: BackendHarness) -> tuple[list[str], str]:
        """Return the KEKs and the store of a configuration that uses all that the backend can."""
        wraps, keeps = "wrap_key" in bench.operations, "save_ring" in bench.operations
        if not wraps:
            need(bench, "save_ring")
        keks = [self._kek(subject) if wraps else f"{_MEMORY}:kek"]
        return keks, subject.name if keeps else _MEMORY

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
