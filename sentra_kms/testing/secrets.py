"""Checks of the secrets part: the bytes that the service holds, and nothing in their place."""

# ruff: noqa: S101 - checks are tests

from __future__ import annotations

from sentra_kms.errors import MalformedInput, SecretNotFound
from sentra_kms.testing import leaks
from sentra_kms.testing.base import need, refused
from sentra_kms.testing.bench import Bench
from sentra_kms.testing.harness import BackendHarness, SecretSample
from sentra_kms.testing.secret_forms import SecretFormConformance, fetch, value
from sentra_kms.testing.user import picked, request_for


class SecretConformance(SecretFormConformance):
    """For a backend that fetches secrets."""

    def test_fetched_as_it_is(self, bench: Bench, sample: SecretSample) -> None:
        """A secret's bytes come as the service holds them, each time."""
        for _ in range(2):
            assert value(bench, sample.reference) == sample.data

    def test_version_and_expiry(self, bench: Bench, sample: SecretSample) -> None:
        """A version is text that is not empty; an expiry is an aware datetime; or each is none."""
        found = fetch(bench, sample.reference)
        assert found.version is None or found.version
        assert found.expires is None or found.expires.tzinfo is not None

    def test_secret_shows_nothing(self, bench: Bench, sample: SecretSample) -> None:
        """What was fetched does not show itself."""
        found = fetch(bench, sample.reference)
        assert not leaks.shows(f"{found!r} {found} {found.data!r} {found.data}", sample.data)

    def test_missing_secret(self, bench: Bench, subject: BackendHarness) -> None:
        """A secret that is not there is `SecretNotFound`: the one error that lets a chain go on."""
        need(bench, "fetch_secret")
        refused(SecretNotFound, lambda: fetch(bench, subject.missing_secret()))

    def test_unknown_option(self, bench: Bench, sample: SecretSample) -> None:
        """An option that the backend does not know is refused, not passed over."""
        joint = "&" if "?" in sample.reference else "?"
        head, hash_sign, field = sample.reference.partition("#")
        reference = f"{head}{joint}sentra-kms-no-such-option=1{hash_sign}{field}"
        refused(MalformedInput, lambda: fetch(bench, reference))

    def test_made_anew_fetches(self, bench: Bench, sample: SecretSample) -> None:
        """Parts that are made anew, as after a fork, fetch the same."""
        again = bench.again()
        found = again.fetch_secret(request_for(sample.reference))
        assert picked(found, sample.reference) == sample.data
        again.close()
