"""Checks of what a secret may be and become: a field, bytes, large, versioned, deleted."""

# ruff: noqa: S101 - checks are tests

from __future__ import annotations

import pytest

from sentra_kms.errors import MalformedInput, SecretNotFound
from sentra_kms.hooktypes import SecretRequest, SecretValue
from sentra_kms.reference import Reference
from sentra_kms.testing import leaks
from sentra_kms.testing.base import Conformance, able, must, need, refused
from sentra_kms.testing.bench import Bench
from sentra_kms.testing.harness import BackendHarness, SecretSample
from sentra_kms.testing.skips import LACKS_ABILITY

_SIZES = {"1 byte": 1, "32 bytes": 32, "the largest": None}


class SecretFormConformance(Conformance):
    """For a backend that fetches secrets."""

    @pytest.fixture
    def sample(self, bench: Bench, subject: BackendHarness) -> SecretSample:
        """Return a secret that the service holds."""
        need(bench, "fetch_secret")
        sample = must(subject.secret)
        assert len(sample.data) >= leaks.SHORTEST, "a shorter secret cannot be looked for in a log"
        return sample

    def test_binary_secret(
        self, bench: Bench, subject: BackendHarness, sample: SecretSample
    ) -> None:
        """A secret that is no text comes byte for byte: nothing is decoded, nothing stripped."""
        binary = able(subject.binary_secret)
        assert b"\x00" in binary.data
        assert binary.data.endswith(b"\n")
        assert fetch(bench, binary.reference).data.reveal() == binary.data

    def test_field_of_a_secret(
        self, bench: Bench, subject: BackendHarness, sample: SecretSample
    ) -> None:
        """A reference with a field gives that field's value, and not the secret that it is of."""
        field = able(subject.field_secret)
        assert Reference(field.reference).field is not None
        assert fetch(bench, field.reference).data.reveal() == field.data

    @pytest.mark.parametrize("form", _SIZES)
    def test_secret_of_every_size(
        self, bench: Bench, subject: BackendHarness, sample: SecretSample, form: str
    ) -> None:
        """A secret of 1 byte comes whole, one of 32, and the largest that there may be."""
        size = _SIZES[form] or subject.largest_secret
        data = (b"0123456789abcdef" * (size // 16 + 1))[:size]
        able(subject.change_secret, sample.reference, data)
        assert fetch(bench, sample.reference).data.reveal() == data

    def test_changed_secret(
        self, bench: Bench, subject: BackendHarness, sample: SecretSample
    ) -> None:
        """A changed secret is seen at the next fetch: keeping secrets is the core's work."""
        before = fetch(bench, sample.reference)
        able(subject.change_secret, sample.reference, b"another value")
        after = fetch(bench, sample.reference)
        assert after.data.reveal() == b"another value"
        assert after.version is None or after.version != before.version

    def test_version_of_a_secret(
        self, bench: Bench, subject: BackendHarness, sample: SecretSample
    ) -> None:
        """A reference to a version goes on giving that one; without a version it is the newest."""
        pinned = able(subject.secret_version, sample.reference)
        assert fetch(bench, pinned).data.reveal() == sample.data
        able(subject.change_secret, sample.reference, b"another value")
        assert fetch(bench, pinned).data.reveal() == sample.data
        assert fetch(bench, sample.reference).data.reveal() == b"another value"

    @pytest.mark.parametrize("version", ["sentra-kms-no-such-version", "999999"])
    def test_unknown_version(
        self, bench: Bench, subject: BackendHarness, sample: SecretSample, version: str
    ) -> None:
        """A version that there is not is refused; the newest is not given in its place."""
        pinned = able(subject.secret_version, sample.reference)
        present = Reference(sample.reference).options
        added = [each for each in Reference(pinned).options if each not in present]
        if not added:
            pytest.skip(f"{LACKS_ABILITY} secret_version() with an option that names it")
        reference = pinned
        for name, value in added:
            reference = reference.replace(f"{name}={value}", f"{name}={version}")
        assert reference != pinned
        refused((SecretNotFound, MalformedInput), lambda: fetch(bench, reference))

    def test_deleted_secret(
        self, bench: Bench, subject: BackendHarness, sample: SecretSample
    ) -> None:
        """A deleted secret is `SecretNotFound` at the next fetch."""
        fetch(bench, sample.reference)
        able(subject.delete_secret, sample.reference)
        refused(SecretNotFound, lambda: fetch(bench, sample.reference))


def fetch(bench: Bench, reference: str) -> SecretValue:
    """Fetch a secret through the binding."""
    return bench.binding.fetch_secret(SecretRequest(Reference(reference)))
