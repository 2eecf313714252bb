"""Checks of what a secret may be and become: a field, bytes, large, versioned, deleted."""

# ruff: noqa: S101 - checks are tests

from __future__ import annotations

import pytest

from sentra_kms.errors import MalformedInput, SecretNotFound
from sentra_kms.hooktypes import SecretValue
from sentra_kms.reference import Reference
from sentra_kms.testing import leaks
from sentra_kms.testing.base import Conformance, able, must, need, refused
from sentra_kms.testing.bench import Bench
from sentra_kms.testing.harness import BackendHarness, SecretSample
from sentra_kms.testing.skips import LACKS_ABILITY
from sentra_kms.testing.user import picked, request_for

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
        assert value(bench, binary.reference) == binary.data

    def test_field_of_a_secret(
        self, bench: Bench, subject: BackendHarness, sample: SecretSample
    ) -> None:
        """A secret with several fields comes whole, as JSON: the core picks the field out of it.

        The backend is asked for the document, never for the field.
        """
        field = able(subject.field_secret)
        assert Reference(field.reference).field is not None
        assert value(bench, field.reference) == field.data

    @pytest.mark.parametrize("form", _SIZES)
    def test_secret_of_every_size(
        self, bench: Bench, subject: BackendHarness, sample: SecretSample, form: str
    ) -> None:
        """A secret of 1 byte comes whole, one of 32, and the largest that there may be."""
        size = _SIZES[form] or subject.largest_secret
        data = (b"0123456789abcdef" * (size // 16 + 1))[:size]
        able(subject.change_secret, sample.reference, data)
        assert value(bench, sample.reference) == data

    def test_changed_secret(
        self, bench: Bench, subject: BackendHarness, sample: SecretSample
    ) -> None:
        """A changed secret is seen at the next fetch: keeping secrets is the core's work."""
        before = fetch(bench, sample.reference)
        able(subject.change_secret, sample.reference, b"another value")
        after = fetch(bench, sample.reference)
        assert picked(after, sample.reference) == b"another value"
        assert after.version is None or after.version != before.version

    def test_version_of_a_secret(
        self, bench: Bench, subject: BackendHarness, sample: SecretSample
    ) -> None:
        """A reference to a version goes on giving that one; without a version it is the newest.

        What is given is told by its own version, so that an audit trail does not name another.
        """
        pinned = able(subject.secret_version, sample.reference)
        before = fetch(bench, pinned)
        assert picked(before, pinned) == sample.data
        able(subject.change_secret, sample.reference, b"another value")
        earlier, newest = fetch(bench, pinned), fetch(bench, sample.reference)
        assert picked(earlier, pinned) == sample.data
        assert picked(newest, sample.reference) == b"another value"
        assert earlier.version == before.version, "told by another version than asked for"
        assert newest.version is None or newest.version != earlier.version

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
    """Fetch the document of a reference through the binding, as the core asks for it."""
    return bench.binding.fetch_secret(request_for(reference))


def value(bench: Bench, reference: str) -> bytes:
    """Fetch what a reference names, its field picked out of the document."""
    return picked(fetch(bench, reference), reference)
