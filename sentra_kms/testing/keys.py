"""Checks of the keys part: what is wrapped comes back, there and nowhere else."""

# ruff: noqa: S101 - checks are tests

from __future__ import annotations

import os

import msgspec
import pytest

from sentra_kms.context import MAX_VERSION, WrapContext
from sentra_kms.errors import (
    DecryptionFailed,
    KeyNotFound,
    KMSError,
    MalformedInput,
    PluginError,
)
from sentra_kms.hooktypes import WrappedKey
from sentra_kms.material import KeyMaterial
from sentra_kms.testing import leaks
from sentra_kms.testing.base import PLACE, able, often, refused
from sentra_kms.testing.bench import Bench
from sentra_kms.testing.harness import BackendHarness
from sentra_kms.testing.key_names import KeyNameConformance


class _Nothing(WrapContext, frozen=True):
    """No context at all, as from a backend that forgets to hand it on."""

    @property
    def canonical(self) -> bytes:
        """Nothing."""
        return b""

    @property
    def pairs(self) -> dict[str, str]:
        """Nothing."""
        return {}


class _More(WrapContext, frozen=True):
    """The context with something added to it."""

    @property
    def canonical(self) -> bytes:
        """A byte more."""
        return super().canonical + b"\x00"

    @property
    def pairs(self) -> dict[str, str]:
        """A pair more."""
        return {**super().pairs, "sentra-kms:more": "1"}


_ELSEWHERE = {
    "tenant": WrapContext("globex", PLACE.ring_id, PLACE.version),
    "case of tenant": WrapContext("Acme", PLACE.ring_id, PLACE.version),
    "ring": WrapContext(PLACE.tenant, bytes(range(1, 13)), PLACE.version),
    "version": WrapContext(PLACE.tenant, PLACE.ring_id, PLACE.version + 1),
    "missing": _Nothing(PLACE.tenant, PLACE.ring_id, PLACE.version),
    "extra": _More(PLACE.tenant, PLACE.ring_id, PLACE.version),
}
_KEYS = {
    "zeros": bytes(32),
    "ones": b"\xff" * 32,
    "text": b"0123456789abcdef0123456789abcdef",
    "newline at the end": b"\n" * 32,
    "NUL at the end": b"\x01" * 31 + b"\x00",
    "not UTF-8": bytes(range(224, 256)),
}


class KeyConformance(KeyNameConformance):
    """For a backend that wraps keys."""

    def test_round_trip(
        self, bench: Bench, kek: str, material: KeyMaterial, wrapped: WrappedKey
    ) -> None:
        """What was wrapped is unwrapped to the same bytes, more than once."""
        for _ in range(2):
            assert bench.binding.unwrap_key(kek, wrapped, PLACE) == material

    @pytest.mark.parametrize("form", _KEYS)
    def test_round_trip_of_any_bytes(self, bench: Bench, kek: str, form: str) -> None:
        """Whatever bytes a key has, they come back: none is text, none is stripped."""
        material = KeyMaterial(_KEYS[form])
        wrapped = bench.binding.wrap_key(kek, material, PLACE)
        assert bench.binding.unwrap_key(kek, wrapped, PLACE) == material

    def test_longest_context(self, bench: Bench, kek: str, material: KeyMaterial) -> None:
        """The longest tenant id and the highest version can be bound."""
        place = WrapContext("a" * 120, b"\xff" * 12, MAX_VERSION)
        wrapped = bench.binding.wrap_key(kek, material, place)
        assert bench.binding.unwrap_key(kek, wrapped, place) == material

    def test_wraps_differ(
        self, bench: Bench, kek: str, material: KeyMaterial, wrapped: WrappedKey
    ) -> None:
        """Wraps of one key in one place have different ciphertexts, by parts made anew, too.

        A nonce that is counted from the start of each process comes again in the next one.
        """
        again = bench.again()
        wraps = [
            wrapped.ciphertext,
            bench.binding.wrap_key(kek, material, PLACE).ciphertext,
            again.wrap_key(kek, material, PLACE).ciphertext,
            again.wrap_key(kek, material, PLACE).ciphertext,
        ]
        again.close()
        assert len(set(wraps)) == len(wraps)

    def test_wrap_hides_the_key(self, wrapped: WrappedKey, material: KeyMaterial) -> None:
        """Nothing that a wrap records shows the key."""
        told = f"{wrapped!r} {wrapped.ciphertext.hex()}"
        assert material.reveal() not in wrapped.ciphertext
        assert not leaks.shows(told, material.reveal())

    @pytest.mark.parametrize("other", _ELSEWHERE)
    def test_context_is_bound(
        self, bench: Bench, kek: str, wrapped: WrappedKey, other: str
    ) -> None:
        """A wrap is refused for another tenant, ring or version, without context, or with more."""
        place = _ELSEWHERE[other]
        refused(DecryptionFailed, lambda: bench.binding.unwrap_key(kek, wrapped, place))

    def test_other_key_is_refused(
        self, bench: Bench, subject: BackendHarness, kek: str, wrapped: WrappedKey
    ) -> None:
        """A wrap is refused under another KEK than its own."""
        other = able(subject.second_kek)
        bench.binding.wrap_key(other, KeyMaterial(bytes(32)), PLACE)
        refused(
            (DecryptionFailed, KeyNotFound),
            lambda: bench.binding.unwrap_key(other, wrapped, PLACE),
        )

    def test_other_key_is_refused_by_any_name(
        self, bench: Bench, subject: BackendHarness, kek: str, wrapped: WrappedKey
    ) -> None:
        """A wrap is refused under another KEK even if its record was changed to name that one."""
        other = able(subject.second_kek)
        ours = bench.binding.wrap_key(other, KeyMaterial(bytes(32)), PLACE)
        forged = WrappedKey(wrapped.ciphertext, ours.key_id, ours.key_version)
        refused(
            (DecryptionFailed, KeyNotFound),
            lambda: bench.binding.unwrap_key(other, forged, PLACE),
        )

    def test_every_byte_is_authenticated(self, bench: Bench, kek: str, wrapped: WrappedKey) -> None:
        """A ciphertext with any one byte changed is refused."""
        size = len(wrapped.ciphertext)
        count = min(size, often(self.harness, size, live=8))
        for place in [number * size // count for number in range(count)]:
            changed = bytearray(wrapped.ciphertext)
            changed[place] ^= 1
            self._refuse(bench, kek, wrapped, bytes(changed), f"byte {place} changed")

    def test_truncated_is_refused(self, bench: Bench, kek: str, wrapped: WrappedKey) -> None:
        """A ciphertext that lost bytes at either end is refused."""
        whole = wrapped.ciphertext
        for size in sorted({0, 1, 12, 16, len(whole) // 2, len(whole) - 16, len(whole) - 1}):
            if 0 <= size < len(whole):
                self._refuse(bench, kek, wrapped, whole[:size], f"cut to {size} bytes")
        self._refuse(bench, kek, wrapped, whole[1:], "without its first byte")

    def test_extended_is_refused(self, bench: Bench, kek: str, wrapped: WrappedKey) -> None:
        """A ciphertext that gained bytes is refused."""
        whole = wrapped.ciphertext
        for what, longer in {
            "a NUL at the end": whole + b"\x00",
            "a newline at the end": whole + b"\n",
            "16 bytes at the end": whole + bytes(16),
            "a byte in front": b"\x00" + whole,
            "itself twice": whole + whole,
        }.items():
            self._refuse(bench, kek, wrapped, longer, what)

    @pytest.mark.parametrize("size", [0, 1, 16, 31, 33, 64])
    def test_other_sizes_do_not_come_back(self, bench: Bench, kek: str, size: int) -> None:
        """Bytes that are no tenant key are refused, or come back unusable: never cut or padded."""
        try:
            wrapped = bench.binding.wrap_key(kek, KeyMaterial(os.urandom(size)), PLACE)
        except MalformedInput:
            return
        told = refused(PluginError, lambda: bench.binding.unwrap_key(kek, wrapped, PLACE))
        assert f"unwrapped {size} bytes" in told

    def test_key_id_is_stable(
        self, bench: Bench, kek: str, material: KeyMaterial, wrapped: WrappedKey
    ) -> None:
        """Every wrap under a KEK records the same id, which is not empty."""
        assert wrapped.key_id
        again = bench.binding.wrap_key(kek, material, PLACE)
        assert (again.key_id, again.key_version) == (wrapped.key_id, wrapped.key_version)

    def test_key_ids_differ(
        self, bench: Bench, subject: BackendHarness, wrapped: WrappedKey
    ) -> None:
        """Two KEKs have two ids."""
        assert bench.binding.describe_key(able(subject.second_kek)).key_id != wrapped.key_id

    def test_description_agrees(self, bench: Bench, kek: str, wrapped: WrappedKey) -> None:
        """`describe_key` says what a wrap records."""
        found = bench.binding.describe_key(kek)
        assert (found.key_id, found.key_version) == (wrapped.key_id, wrapped.key_version)

    def test_made_anew_unwraps(
        self, bench: Bench, kek: str, material: KeyMaterial, wrapped: WrappedKey
    ) -> None:
        """Parts that are made anew, as after a fork, unwrap what earlier ones wrapped."""
        again = bench.again()
        assert again.unwrap_key(kek, wrapped, PLACE) == material
        again.close()

    def test_unknown_key_on_wrap(
        self, bench: Bench, subject: BackendHarness, kek: str, material: KeyMaterial
    ) -> None:
        """A KEK that is not there is `KeyNotFound`, unless the backend makes it now."""
        unknown = subject.unknown_kek()
        if subject.makes_keys:
            wrapped = bench.binding.wrap_key(unknown, material, PLACE)
            assert bench.binding.unwrap_key(unknown, wrapped, PLACE) == material
        else:
            refused(KeyNotFound, lambda: bench.binding.wrap_key(unknown, material, PLACE))

    def test_unknown_key_on_unwrap(
        self, bench: Bench, subject: BackendHarness, wrapped: WrappedKey
    ) -> None:
        """To unwrap under a KEK that is not there is `KeyNotFound`."""
        unknown = subject.unknown_kek()
        refused(KeyNotFound, lambda: bench.binding.unwrap_key(unknown, wrapped, PLACE))

    def test_unknown_key_on_describe(self, bench: Bench, subject: BackendHarness, kek: str) -> None:
        """To describe a KEK that is not there is `KeyNotFound`, unless the backend makes it."""
        unknown = subject.unknown_kek()
        if subject.makes_keys:
            assert bench.binding.describe_key(unknown).key_id
        else:
            refused(KeyNotFound, lambda: bench.binding.describe_key(unknown))

    def _refuse(
        self, bench: Bench, kek: str, wrapped: WrappedKey, ciphertext: bytes, what: str
    ) -> None:
        changed = msgspec.structs.replace(wrapped, ciphertext=ciphertext)
        end: str
        try:
            bench.binding.unwrap_key(kek, changed, PLACE)
        except DecryptionFailed:
            return
        except KMSError as error:
            end = f"{type(error).__name__}: {error.message}"
        else:
            end = "a key"
        pytest.fail(f"a ciphertext with {what} gave {end}, not DecryptionFailed")
