"""Checks that no key and no secret shows: in logs, output, errors or events."""

# ruff: noqa: S101 - checks are tests

from __future__ import annotations

import os
from collections.abc import Callable

import msgspec
import pytest

from sentra_kms.binding import Binding
from sentra_kms.errors import KMSError
from sentra_kms.hooktypes import SecretRequest
from sentra_kms.material import KeyMaterial
from sentra_kms.reference import Reference
from sentra_kms.testing import leaks
from sentra_kms.testing.base import PLACE, Conformance, must, need
from sentra_kms.testing.bench import Bench
from sentra_kms.testing.harness import BackendHarness


class SilenceConformance(Conformance):
    """For every backend."""

    def test_logs_show_no_secret(
        self, bench: Bench, subject: BackendHarness, capfd: pytest.CaptureFixture[str]
    ) -> None:
        """With the root logger at DEBUG, nothing logged or printed shows a key or a secret."""
        planted = [KeyMaterial(os.urandom(32))]
        with leaks.all_logs() as logs:
            if "wrap_key" in bench.operations:
                _ends_of_wrapping(bench.binding, subject, planted[0])
            if "fetch_secret" in bench.operations:
                sample = must(subject.secret)
                planted.append(KeyMaterial(sample.data))
                bench.binding.fetch_secret(SecretRequest(Reference(sample.reference)))
            bench.binding.check()
            bench.binding.close()
        printed = "".join(capfd.readouterr())
        for each in planted:
            assert not leaks.shows(logs.getvalue(), each.reveal()), "a log shows it"
            assert not leaks.shows(printed, each.reveal()), "it was printed"

    def test_errors_show_no_key(self, bench: Bench, subject: BackendHarness) -> None:
        """No error about a key shows it: not its text, its cause, nor its frames."""
        need(bench, "wrap_key")
        planted = KeyMaterial(os.urandom(32))
        for error in _ends_of_wrapping(bench.binding, subject, planted):
            assert not leaks.shows(leaks.everything(error), planted.reveal()), type(error)

    def test_events_show_no_key(self, bench: Bench, subject: BackendHarness) -> None:
        """What observers are told of a key does not show it."""
        need(bench, "wrap_key")
        planted = KeyMaterial(os.urandom(32))
        _ends_of_wrapping(bench.binding, subject, planted)
        assert bench.events
        assert not leaks.shows(repr(bench.events), planted.reveal())


def _ends_of_wrapping(
    bound: Binding, subject: BackendHarness, material: KeyMaterial
) -> list[KMSError]:
    """Wrap and unwrap a key well and in every wrong way; return the errors that came."""
    kek, unknown = must(subject.kek), subject.unknown_kek()
    wrapped = bound.wrap_key(kek, material, PLACE)
    bound.unwrap_key(kek, wrapped, PLACE)
    bound.describe_key(kek)
    elsewhere = msgspec.structs.replace(PLACE, tenant="globex")
    tampered = msgspec.structs.replace(wrapped, ciphertext=wrapped.ciphertext[:-1])
    longer = KeyMaterial(material.reveal() + b"\x00")
    calls: list[Callable[[], object]] = [
        lambda: bound.wrap_key(unknown, material, PLACE),
        lambda: bound.wrap_key("", material, PLACE),
        lambda: bound.wrap_key(kek, longer, PLACE),
        lambda: bound.unwrap_key(kek, bound.wrap_key(kek, longer, PLACE), PLACE),
        lambda: bound.unwrap_key(kek, wrapped, elsewhere),
        lambda: bound.unwrap_key(kek, tampered, PLACE),
        lambda: bound.unwrap_key(unknown, wrapped, PLACE),
    ]
    errors: list[KMSError] = []
    for call in calls:
        try:
            call()
        except KMSError as error:
            errors.append(error)
    assert errors
    return errors
