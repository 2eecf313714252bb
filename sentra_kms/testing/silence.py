"""Checks that no key and no secret shows: in logs, output, errors or events."""

# ruff: noqa: S101 - checks are tests

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial

import msgspec
import pytest

from sentra_kms.binding import Binding
from sentra_kms.errors import KMSError
from sentra_kms.hooktypes import WrappedKey
from sentra_kms.material import KeyMaterial
from sentra_kms.testing import leaks
from sentra_kms.testing.base import PLACE, Conformance, must, need
from sentra_kms.testing.bench import Bench
from sentra_kms.testing.declared import reason_of
from sentra_kms.testing.harness import BackendHarness, SecretSample
from sentra_kms.testing.user import request_for, useful_calls


class SilenceConformance(Conformance):
    """For every backend."""

    def test_logs_show_no_secret(
        self, bench: Bench, subject: BackendHarness, capfd: pytest.CaptureFixture[str]
    ) -> None:
        """With the root logger at DEBUG, nothing logged, warned of or printed shows a secret."""
        key = KeyMaterial(os.urandom(32))
        planted = _whole_and_halves(key)
        with leaks.all_logs() as logs:
            if "wrap_key" in bench.operations:
                _ends_of_wrapping(bench.binding, subject, key)
            if "fetch_secret" in bench.operations:
                samples = _samples(subject)
                planted += _planted(samples)
                _ends_of_fetching(bench.binding, _asked_for(subject, samples))
            if "load_ring" in bench.operations:
                with suppress(KMSError):
                    bench.binding.load_ring("acme")
            bench.binding.check()
            bench.binding.close()
        printed = "".join(capfd.readouterr())
        for each in planted + _credentials(bench):
            assert not leaks.shows(logs.getvalue(), each.reveal()), "a log shows it"
            assert not leaks.shows(printed, each.reveal()), "it was printed"

    def test_errors_show_no_key(self, bench: Bench, subject: BackendHarness) -> None:
        """No error about a key shows it: not its text, its cause, nor its frames."""
        need(bench, "wrap_key")
        planted = KeyMaterial(os.urandom(32))
        for error in _ends_of_wrapping(bench.binding, subject, planted):
            for each in _whole_and_halves(planted):
                assert not leaks.shows(leaks.everything(error), each.reveal()), type(error)

    def test_events_show_no_key(self, bench: Bench, subject: BackendHarness) -> None:
        """What observers are told of a key does not show it."""
        need(bench, "wrap_key")
        planted = KeyMaterial(os.urandom(32))
        _ends_of_wrapping(bench.binding, subject, planted)
        assert bench.events
        assert not leaks.shows(repr(bench.events), planted.reveal())

    def test_errors_show_no_secret(self, bench: Bench, subject: BackendHarness) -> None:
        """No error about a secret shows it, nor another field of it: text, cause and frames."""
        need(bench, "fetch_secret")
        samples = _samples(subject)
        for error in _ends_of_fetching(bench.binding, _asked_for(subject, samples)):
            told = leaks.everything(error)
            for each in _planted(samples):
                assert not leaks.shows(told, each.reveal()), type(error)

    def test_events_show_no_secret(self, bench: Bench, subject: BackendHarness) -> None:
        """What observers are told of a secret, its version among it, does not show it."""
        need(bench, "fetch_secret")
        samples = _samples(subject)
        _ends_of_fetching(bench.binding, _asked_for(subject, samples))
        assert bench.events
        for each in _planted(samples):
            assert not leaks.shows(repr(bench.events), each.reveal())

    def test_errors_show_no_credential(self, bench: Bench, subject: BackendHarness) -> None:
        """What the backend logs in with shows in no error and no event, also if it is refused."""
        calls = useful_calls(bench.binding, subject)
        for call in calls.values():
            with suppress(KMSError):
                call()
        errors = _raised(call for call, _, _ in _missing(bench, subject).values())
        with suppress(NotImplementedError):
            if reason_of(subject.deny) is None:
                subject.deny()
                errors += _raised(partial(_call, call) for call in calls.values())
        told = [leaks.everything(error) for error in errors]
        told += [f"{each}" for each in bench.binding.check()]
        for each in _credentials(bench):
            assert not leaks.shows(repr(bench.events), each.reveal()), "an event shows it"
            assert not any(leaks.shows(text, each.reveal()) for text in told), "an error shows it"

    def test_errors_name_nobody_else(self, bench: Bench, subject: BackendHarness) -> None:
        """An error about one KEK, tenant or secret names no other: its reader may be a tenant."""
        for operation, (call, other, own) in _missing(bench, subject).items():
            told = ""
            for name in (other, own):
                with pytest.raises(KMSError) as caught:
                    call(name)
                told = f"{caught.value} {caught.value.subject} {caught.value.__cause__!r}"
            assert other not in told, operation


def _missing(
    bench: Bench, subject: BackendHarness
) -> dict[str, tuple[Callable[[str], object], str, str]]:
    """Return by operation a call that finds nothing, and two names for it."""
    bound = bench.binding
    found: dict[str, tuple[Callable[[str], object], str, str]] = {}
    if "unwrap_key" in bench.operations:
        wrapped: WrappedKey = bound.wrap_key(must(subject.kek), KeyMaterial(bytes(32)), PLACE)
        unknown = subject.unknown_kek()
        found["unwrap_key"] = (
            lambda name: bound.unwrap_key(name, wrapped, PLACE), f"{unknown}-of-another", unknown,
        )  # fmt: skip
    if "fetch_secret" in bench.operations:
        missing = request_for(subject.missing_secret()).reference
        found["fetch_secret"] = (
            lambda name: bound.fetch_secret(request_for(name)), f"{missing}-of-another", missing,
        )  # fmt: skip
    if "load_ring" in bench.operations:
        found["load_ring"] = (bound.load_ring, "acme-of-another", "acme")
    return found


def _credentials(bench: Bench) -> list[KeyMaterial]:
    """Return what the backend was given to log in with, as far as it can be told from chance."""
    found = (each.reveal().strip() for each in bench.credentials)
    return [KeyMaterial(each) for each in found if len(each) >= leaks.SHORTEST]


def _call(call: Callable[[], object], name: str) -> object:
    return call()


def _raised(calls: Iterable[Callable[[str], object]]) -> list[KMSError]:
    """Make each call, about what there is not; return the errors that came."""
    errors: list[KMSError] = []
    for call in calls:
        try:
            call("sentra-kms-no-such-thing")
        except KMSError as error:
            errors.append(error)
    return errors


def _whole_and_halves(key: KeyMaterial) -> list[KeyMaterial]:
    """Return what may not show of a key: half of one, to tell it by, is half too much."""
    raw = key.reveal()
    return [key, KeyMaterial(raw[:16]), KeyMaterial(raw[16:])]


def _samples(subject: BackendHarness) -> list[SecretSample]:
    samples = [must(subject.secret)]
    with suppress(NotImplementedError):
        samples.append(subject.field_secret())
    return samples


def _planted(samples: list[SecretSample]) -> list[KeyMaterial]:
    return [KeyMaterial(each.data) for each in samples if len(each.data) >= leaks.SHORTEST]


def _asked_for(subject: BackendHarness, samples: list[SecretSample]) -> list[str]:
    """Return references to the secrets, and to options, versions and paths that are not."""
    references = [subject.missing_secret()]
    for sample in samples:
        whole = sample.reference.partition("#")[0]
        joint = "&" if "?" in whole else "?"
        references.append(sample.reference)
        references.append(f"{whole}{joint}sentra-kms-no-such-option=1")
        references.append(f"{whole}{joint}version=sentra-kms-no-such-version")
    return references


def _ends_of_fetching(bound: Binding, references: list[str]) -> list[KMSError]:
    """Fetch each; return the errors that came. No secret may stand in this frame."""
    errors: list[KMSError] = []
    for reference in references:
        try:
            bound.fetch_secret(request_for(reference))
        except KMSError as error:
            errors.append(error)
    assert errors
    return errors


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
