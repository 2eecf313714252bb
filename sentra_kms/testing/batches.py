"""Checks of the optional batch hooks: each request ends as it would alone."""

# ruff: noqa: S101 - checks are tests

from __future__ import annotations

import os

import msgspec
import pytest

from sentra_kms.context import WrapContext
from sentra_kms.errors import (
    AccessDenied,
    DecryptionFailed,
    KeyNotFound,
    KeyUnavailable,
    KMSError,
    MalformedInput,
    SecretNotFound,
    ServiceUnavailable,
)
from sentra_kms.hooktypes import (
    SecretValue,
    UnwrapRequest,
    WrappedKey,
    WrapRequest,
)
from sentra_kms.material import KeyMaterial
from sentra_kms.testing import leaks
from sentra_kms.testing.base import PLACE, Conformance, able, must, need
from sentra_kms.testing.bench import Bench
from sentra_kms.testing.harness import BackendHarness, SecretSample
from sentra_kms.testing.skips import LIVE_PROFILE
from sentra_kms.testing.user import picked, request_for

_SIZES = (1, 2, 100, 101)
"""Requests of a batch: one, several, as many as one call has at most, and one more."""

_NEAR = (
    WrapContext(PLACE.tenant, PLACE.ring_id, PLACE.version + 1),
    WrapContext(PLACE.tenant, bytes(range(1, 13)), PLACE.version),
    WrapContext("globex", PLACE.ring_id, PLACE.version),
)
"""Places that differ from `PLACE` in one part each."""

_LIVE_SIZE = 2
"""The largest batch where each request is paid for."""


class BatchKeyConformance(Conformance):
    """For a backend that wraps many keys at once."""

    @pytest.fixture
    def batch_kek(self, bench: Bench, subject: BackendHarness) -> str:
        """Return a KEK that can be used, of a backend that takes batches."""
        need(bench, "wrap_keys")
        return must(subject.kek)

    @pytest.mark.parametrize("count", _SIZES)
    def test_batch_round_trip(self, bench: Bench, batch_kek: str, count: int) -> None:
        """Every key comes back, at its own place in the order."""
        _few_enough(self.harness, count)
        asked = _several(count)
        wraps = _wrapped(bench, batch_kek, asked)
        assert len({each.ciphertext for each in wraps}) == count
        ends = bench.binding.unwrap_keys(batch_kek, _unwraps(wraps, asked))
        assert ends == [each.material for each in asked]

    def test_batch_and_single_agree(self, bench: Bench, batch_kek: str) -> None:
        """What one of the two wrapped the other unwraps, and both record the same KEK."""
        asked = _several(3)
        for each, wrap in zip(asked, _wrapped(bench, batch_kek, asked), strict=True):
            assert bench.binding.unwrap_key(batch_kek, wrap, each.context) == each.material
        wraps = [bench.binding.wrap_key(batch_kek, each.material, each.context) for each in asked]
        ends = bench.binding.unwrap_keys(batch_kek, _unwraps(wraps, asked))
        assert ends == [each.material for each in asked]
        (batched,) = _wrapped(bench, batch_kek, asked[:1])
        assert (batched.key_id, batched.key_version) == (wraps[0].key_id, wraps[0].key_version)

    def test_batch_binds_each_context(self, bench: Bench, batch_kek: str) -> None:
        """A wrap is refused at another's place, and its neighbours come back all the same."""
        asked = _several(4)
        wraps = _wrapped(bench, batch_kek, asked)
        wraps[1], wraps[2] = wraps[2], wraps[1]
        ends = bench.binding.unwrap_keys(batch_kek, _unwraps(wraps, asked))
        assert (ends[0], ends[3]) == (asked[0].material, asked[3].material)
        assert [type(end) for end in ends[1:3]] == [DecryptionFailed] * 2

    def test_batch_binds_all_of_each_context(self, bench: Bench, batch_kek: str) -> None:
        """In one batch wraps of one tenant differ by ring and version, and none fits another's.

        Each is also what the single hook unwraps at its place, and there alone.
        """
        places = [PLACE, *_NEAR]
        asked = [WrapRequest(KeyMaterial(os.urandom(32)), place) for place in places]
        wraps = _wrapped(bench, batch_kek, asked)
        for wrap, each in zip(wraps, asked, strict=True):
            assert bench.binding.unwrap_key(batch_kek, wrap, each.context) == each.material
        moved = [*wraps[1:], wraps[0]]
        ends = bench.binding.unwrap_keys(batch_kek, _unwraps(moved, asked))
        assert [type(end) for end in ends] == [DecryptionFailed] * len(places)

    def test_batch_refuses_what_was_tampered_with(self, bench: Bench, batch_kek: str) -> None:
        """A wrap that was changed, cut or is empty is refused, its neighbours come back."""
        asked = _several(5)
        wraps = _wrapped(bench, batch_kek, asked)
        for place, change in ((1, _flipped), (2, _cut), (3, _emptied)):
            wraps[place] = msgspec.structs.replace(
                wraps[place], ciphertext=change(wraps[place].ciphertext)
            )
        ends = bench.binding.unwrap_keys(batch_kek, _unwraps(wraps, asked))
        assert (ends[0], ends[4]) == (asked[0].material, asked[4].material)
        assert [type(end) for end in ends[1:4]] == [DecryptionFailed] * 3

    def test_batch_under_another_key(
        self, bench: Bench, subject: BackendHarness, batch_kek: str
    ) -> None:
        """Under another KEK none comes back; under one that is not there all are `KeyNotFound`."""
        asked = _several(2)
        wraps = _wrapped(bench, batch_kek, asked)
        for end in bench.binding.unwrap_keys(subject.unknown_kek(), _unwraps(wraps, asked)):
            assert type(end) is KeyNotFound
        other = able(subject.second_kek)
        bench.binding.wrap_key(other, KeyMaterial(bytes(32)), PLACE)
        for end in bench.binding.unwrap_keys(other, _unwraps(wraps, asked)):
            assert isinstance(end, (DecryptionFailed, KeyNotFound))

    def test_batch_after_a_rotation(
        self, bench: Bench, subject: BackendHarness, batch_kek: str
    ) -> None:
        """Wraps of several versions of a KEK come back out of one batch."""
        asked = _several(2)
        (earlier,) = _wrapped(bench, batch_kek, asked[:1])
        able(subject.rotate_key, batch_kek)
        (later,) = _wrapped(bench, batch_kek, asked[1:])
        assert (earlier.key_id, earlier.key_version) != (later.key_id, later.key_version)
        ends = bench.binding.unwrap_keys(batch_kek, _unwraps([earlier, later], asked))
        assert ends == [each.material for each in asked]

    def test_batch_under_a_disabled_key(
        self, bench: Bench, subject: BackendHarness, batch_kek: str
    ) -> None:
        """Under a disabled KEK each request of a batch is `KeyUnavailable`."""
        asked = _several(2)
        wraps = _wrapped(bench, batch_kek, asked)
        assert bench.binding.unwrap_keys(batch_kek, _unwraps(wraps, asked)) == [
            each.material for each in asked
        ]
        able(subject.disable_key, batch_kek)
        ends: list[object] = [
            *bench.binding.wrap_keys(batch_kek, asked),
            *bench.binding.unwrap_keys(batch_kek, _unwraps(wraps, asked)),
        ]
        assert [type(end) for end in ends] == [KeyUnavailable] * 4

    def test_batch_refuses_other_sizes(self, bench: Bench, batch_kek: str) -> None:
        """Bytes that are no tenant key do not come back cut or padded; its neighbours do."""
        asked = _several(3)
        asked[1] = WrapRequest(KeyMaterial(os.urandom(33)), asked[1].context)
        ends = bench.binding.wrap_keys(batch_kek, asked)
        assert isinstance(ends[0], WrappedKey)
        assert isinstance(ends[2], WrappedKey)
        if not isinstance(ends[1], WrappedKey):
            assert type(ends[1]) is MalformedInput
            return
        (end,) = bench.binding.unwrap_keys(batch_kek, [UnwrapRequest(ends[1], asked[1].context)])
        assert isinstance(end, KMSError)
        assert "unwrapped 33 bytes" in end.message

    def test_batch_shows_no_key(
        self, bench: Bench, batch_kek: str, capfd: pytest.CaptureFixture[str]
    ) -> None:
        """Neither log, output, event nor error of a batch shows a key."""
        asked = _several(2)
        with leaks.all_logs() as logs:
            wraps = _wrapped(bench, batch_kek, asked)
            wraps[1] = msgspec.structs.replace(wraps[1], ciphertext=wraps[1].ciphertext[:-1])
            _, failed = bench.binding.unwrap_keys(batch_kek, _unwraps(wraps, asked))
        assert isinstance(failed, KMSError)
        printed = "".join(capfd.readouterr())
        told = f"{logs.getvalue()} {printed} {bench.events!r} {leaks.everything(failed)}"
        for each in asked:
            assert not leaks.shows(told, each.material.reveal())

    def test_batch_while_away(self, bench: Bench, subject: BackendHarness, batch_kek: str) -> None:
        """While the service is away each request of a batch is `ServiceUnavailable`."""
        asked = _several(3)
        wraps = _wrapped(bench, batch_kek, asked)
        able(subject.cut)
        ends: list[object] = [
            *bench.binding.wrap_keys(batch_kek, asked),
            *bench.binding.unwrap_keys(batch_kek, _unwraps(wraps, asked)),
        ]
        assert len(ends) == 6
        assert all(isinstance(end, ServiceUnavailable) for end in ends)

    def test_batch_denied(self, bench: Bench, subject: BackendHarness, batch_kek: str) -> None:
        """Without rights each request of a batch is `AccessDenied`."""
        asked = _several(3)
        wraps = _wrapped(bench, batch_kek, asked)
        able(subject.deny)
        ends: list[object] = [
            *bench.binding.wrap_keys(batch_kek, asked),
            *bench.binding.unwrap_keys(batch_kek, _unwraps(wraps, asked)),
        ]
        assert [type(end) for end in ends] == [AccessDenied] * 6


class BatchSecretConformance(Conformance):
    """For a backend that fetches many secrets at once."""

    @pytest.fixture
    def batch_sample(self, bench: Bench, subject: BackendHarness) -> SecretSample:
        """Return a secret that the service holds, of a backend that takes batches."""
        need(bench, "fetch_secrets")
        return must(subject.secret)

    @pytest.mark.parametrize("count", _SIZES)
    def test_batch_of_secrets(
        self, bench: Bench, subject: BackendHarness, batch_sample: SecretSample, count: int
    ) -> None:
        """Secrets that are there and those that are not end each in its place, as alone."""
        _few_enough(self.harness, count)
        there, missing = request_for(batch_sample.reference), request_for(subject.missing_secret())
        asked = [missing if number % 3 == 1 else there for number in range(count)]
        alone = bench.binding.fetch_secret(there)
        for request, end in zip(asked, bench.binding.fetch_secrets(asked), strict=True):
            if request is missing:
                assert type(end) is SecretNotFound
                continue
            assert isinstance(end, SecretValue)
            assert picked(end, batch_sample.reference) == batch_sample.data
            assert end.version == alone.version

    def test_batch_sees_a_changed_secret(
        self, bench: Bench, subject: BackendHarness, batch_sample: SecretSample
    ) -> None:
        """A batch keeps no secret from an earlier one."""
        request = request_for(batch_sample.reference)
        bench.binding.fetch_secrets([request])
        able(subject.change_secret, batch_sample.reference, b"another value")
        (end,) = bench.binding.fetch_secrets([request])
        assert isinstance(end, SecretValue)
        assert picked(end, batch_sample.reference) == b"another value"

    def test_batch_of_secrets_while_away(
        self, bench: Bench, subject: BackendHarness, batch_sample: SecretSample
    ) -> None:
        """While the service is away each is `ServiceUnavailable`, and none as if it were not."""
        able(subject.cut)
        ends = bench.binding.fetch_secrets([request_for(batch_sample.reference)] * 3)
        assert all(isinstance(end, ServiceUnavailable) for end in ends)

    def test_batch_of_secrets_denied(
        self, bench: Bench, subject: BackendHarness, batch_sample: SecretSample
    ) -> None:
        """Without rights each is `AccessDenied`, as alone: a chain must not go on from it."""
        able(subject.deny)
        ends = bench.binding.fetch_secrets([request_for(batch_sample.reference)] * 3)
        assert [type(end) for end in ends] == [AccessDenied] * 3

    def test_batch_shows_no_secret(
        self, bench: Bench, batch_sample: SecretSample, capfd: pytest.CaptureFixture[str]
    ) -> None:
        """Neither log, output nor event of a batch shows a secret."""
        with leaks.all_logs() as logs:
            bench.binding.fetch_secrets([request_for(batch_sample.reference)])
        told = f"{logs.getvalue()} {''.join(capfd.readouterr())} {bench.events!r}"
        assert not leaks.shows(told, batch_sample.data)


def _few_enough(harness: type[BackendHarness], count: int) -> None:
    if harness.live and count > _LIVE_SIZE:
        pytest.skip(f"{LIVE_PROFILE}: a batch of {count}")


def _several(count: int) -> list[WrapRequest]:
    return [
        WrapRequest(
            KeyMaterial(os.urandom(32)),
            WrapContext(f"tenant-{number}", PLACE.ring_id, PLACE.version),
        )
        for number in range(count)
    ]


def _wrapped(bench: Bench, kek: str, asked: list[WrapRequest]) -> list[WrappedKey]:
    ends = bench.binding.wrap_keys(kek, asked)
    wraps = [end for end in ends if isinstance(end, WrappedKey)]
    assert len(wraps) == len(asked), [end for end in ends if isinstance(end, KMSError)]
    return wraps


def _unwraps(wraps: list[WrappedKey], asked: list[WrapRequest]) -> list[UnwrapRequest]:
    return [UnwrapRequest(wrap, each.context) for wrap, each in zip(wraps, asked, strict=True)]


def _flipped(ciphertext: bytes) -> bytes:
    return ciphertext[:-1] + bytes([ciphertext[-1] ^ 1])


def _cut(ciphertext: bytes) -> bytes:
    return ciphertext[:-1]


def _emptied(ciphertext: bytes) -> bytes:
    return b""
