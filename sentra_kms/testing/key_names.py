"""Checks that a KEK answers to its whole name only, and a wrap for the key that is in it."""

# ruff: noqa: S101 - checks are tests

from __future__ import annotations

import os
from collections.abc import Callable

import msgspec
import pytest

from sentra_kms.errors import (
    AccessDenied,
    DecryptionFailed,
    KeyNotFound,
    KeyUnavailable,
    MalformedInput,
)
from sentra_kms.hooktypes import WrappedKey
from sentra_kms.material import KeyMaterial
from sentra_kms.testing.base import PLACE, refused
from sentra_kms.testing.bench import Bench
from sentra_kms.testing.harness import BackendHarness
from sentra_kms.testing.key_states import KeyStateConformance
from sentra_kms.testing.skips import LACKS_ABILITY

_NO_SUCH = (KeyNotFound, KeyUnavailable, AccessDenied, MalformedInput)
"""What a name may be that is no KEK's; rights may be given by name."""

_ALIKE: dict[str, Callable[[str], str]] = {
    "a letter more": lambda kek: f"{kek}0",
    "a word more": lambda kek: f"{kek}-of-another",
    "a letter less": lambda kek: kek[:-1],
    "the first letter": lambda kek: kek[:1],
}


class KeyNameConformance(KeyStateConformance):
    """For a backend that wraps keys."""

    @pytest.mark.parametrize("change", _ALIKE)
    def test_names_of_keys_are_whole(
        self, bench: Bench, subject: BackendHarness, kek: str, wrapped: WrappedKey, change: str
    ) -> None:
        """A name that begins as a KEK's does, or with it, is another's: one tenant's begins so."""
        self._is_another(bench, subject, _ALIKE[change](kek), kek, wrapped)

    def test_names_of_keys_that_differ_in_case(
        self, bench: Bench, subject: BackendHarness, kek: str, wrapped: WrappedKey
    ) -> None:
        """A KEK named otherwise in case is another one, or none, unless its service says so.

        Where each tenant has a KEK of its own, two tenants would share one otherwise.
        """
        other = kek.swapcase()
        if subject.folds_key_names:
            assert bench.binding.describe_key(other).key_id == wrapped.key_id
        else:
            self._is_another(bench, subject, other, kek, wrapped)

    def test_unwrapped_is_not_kept(
        self, bench: Bench, kek: str, material: KeyMaterial, wrapped: WrappedKey
    ) -> None:
        """What was unwrapped once is not kept: at its place each wrap has its own key or none."""
        assert bench.binding.unwrap_key(kek, wrapped, PLACE) == material
        second = KeyMaterial(os.urandom(32))
        later = bench.binding.wrap_key(kek, second, PLACE)
        assert bench.binding.unwrap_key(kek, later, PLACE) == second
        flipped = wrapped.ciphertext[:-1] + bytes([wrapped.ciphertext[-1] ^ 1])
        tampered = msgspec.structs.replace(wrapped, ciphertext=flipped)
        refused(DecryptionFailed, lambda: bench.binding.unwrap_key(kek, tampered, PLACE))
        elsewhere = msgspec.structs.replace(PLACE, version=PLACE.version + 1)
        refused(DecryptionFailed, lambda: bench.binding.unwrap_key(kek, wrapped, elsewhere))

    def _is_another(
        self, bench: Bench, subject: BackendHarness, name: str, kek: str, wrapped: WrappedKey
    ) -> None:
        if name in {"", kek}:
            pytest.skip(f"{LACKS_ABILITY} kek() with a name of several letters")
        refused(
            (*_NO_SUCH, DecryptionFailed), lambda: bench.binding.unwrap_key(name, wrapped, PLACE)
        )
        if not subject.makes_keys:
            material = KeyMaterial(bytes(32))
            refused(_NO_SUCH, lambda: bench.binding.wrap_key(name, material, PLACE))
