"""Checks of what happens to a KEK in its service: disabled, scheduled, destroyed, rotated."""

# ruff: noqa: S101 - checks are tests

from __future__ import annotations

import os
from functools import partial

import msgspec
import pytest

from sentra_kms.errors import DecryptionFailed, KeyNotFound, KeyUnavailable, PluginError
from sentra_kms.hooktypes import WrappedKey
from sentra_kms.material import KeyMaterial
from sentra_kms.testing.base import PLACE, Conformance, able, must, need, refused
from sentra_kms.testing.bench import Bench
from sentra_kms.testing.harness import BackendHarness

_ELSEWHERE = msgspec.structs.replace(PLACE, tenant="globex")


class KeyStateConformance(Conformance):
    """For a backend that wraps keys."""

    @pytest.fixture
    def kek(self, bench: Bench, subject: BackendHarness) -> str:
        """Return a KEK that can be used."""
        need(bench, "wrap_key")
        return must(subject.kek)

    @pytest.fixture
    def material(self) -> KeyMaterial:
        """Return a new tenant key."""
        return KeyMaterial(os.urandom(32))

    @pytest.fixture
    def wrapped(self, bench: Bench, kek: str, material: KeyMaterial) -> WrappedKey:
        """Return `material` wrapped under `kek` at `PLACE`."""
        return bench.binding.wrap_key(kek, material, PLACE)

    def test_disabled_key_on_wrap(
        self, bench: Bench, subject: BackendHarness, kek: str, material: KeyMaterial
    ) -> None:
        """A disabled KEK wraps nothing: `KeyUnavailable`."""
        able(subject.disable_key, kek)
        refused(KeyUnavailable, lambda: bench.binding.wrap_key(kek, material, PLACE))

    def test_disabled_key_on_unwrap(
        self, bench: Bench, subject: BackendHarness, kek: str, wrapped: WrappedKey
    ) -> None:
        """A KEK that was disabled does not unwrap what it wrapped: `KeyUnavailable`.

        Nor what it unwrapped before: to keep keys is the core's work, which knows for how long.
        """
        bench.binding.unwrap_key(kek, wrapped, PLACE)
        able(subject.disable_key, kek)
        refused(KeyUnavailable, lambda: bench.binding.unwrap_key(kek, wrapped, PLACE))

    def test_disabled_key_on_describe(
        self, bench: Bench, subject: BackendHarness, kek: str
    ) -> None:
        """To describe a disabled KEK is `KeyUnavailable`: no wrap could be made with it now."""
        bench.binding.describe_key(kek)
        able(subject.disable_key, kek)
        refused(KeyUnavailable, lambda: bench.binding.describe_key(kek))

    def test_scheduled_key_on_describe(
        self, bench: Bench, subject: BackendHarness, kek: str
    ) -> None:
        """Nor with one that is scheduled for destruction."""
        bench.binding.describe_key(kek)
        able(subject.schedule_key, kek)
        refused(KeyUnavailable, lambda: bench.binding.describe_key(kek))

    def test_scheduled_key_on_wrap(
        self, bench: Bench, subject: BackendHarness, kek: str, material: KeyMaterial
    ) -> None:
        """A KEK that is scheduled for destruction wraps nothing: `KeyUnavailable`."""
        able(subject.schedule_key, kek)
        refused(KeyUnavailable, lambda: bench.binding.wrap_key(kek, material, PLACE))

    def test_scheduled_key_on_unwrap(
        self, bench: Bench, subject: BackendHarness, kek: str, wrapped: WrappedKey
    ) -> None:
        """Nor does it unwrap what it wrapped and unwrapped before."""
        bench.binding.unwrap_key(kek, wrapped, PLACE)
        able(subject.schedule_key, kek)
        refused(KeyUnavailable, lambda: bench.binding.unwrap_key(kek, wrapped, PLACE))

    def test_deleted_key(
        self,
        bench: Bench,
        subject: BackendHarness,
        kek: str,
        material: KeyMaterial,
        wrapped: WrappedKey,
    ) -> None:
        """A KEK that is destroyed is used no more: nothing of it was kept."""
        bench.binding.unwrap_key(kek, wrapped, PLACE)
        bench.binding.describe_key(kek)
        able(subject.delete_key, kek)
        gone = (KeyUnavailable, KeyNotFound)
        refused(gone, lambda: bench.binding.unwrap_key(kek, wrapped, PLACE))
        if not subject.makes_keys:
            refused(gone, lambda: bench.binding.wrap_key(kek, material, PLACE))
            refused(gone, lambda: bench.binding.describe_key(kek))

    def test_rotated_key_unwraps_what_it_wrapped(
        self,
        bench: Bench,
        subject: BackendHarness,
        kek: str,
        material: KeyMaterial,
        wrapped: WrappedKey,
    ) -> None:
        """What a KEK wrapped before it was rotated in its service is unwrapped as ever."""
        able(subject.rotate_key, kek)
        assert bench.binding.unwrap_key(kek, wrapped, PLACE) == material

    def test_rotated_key_records_its_version(
        self,
        bench: Bench,
        subject: BackendHarness,
        kek: str,
        material: KeyMaterial,
        wrapped: WrappedKey,
    ) -> None:
        """A wrap made after a rotation tells the new version, and so does `describe_key`."""
        bench.binding.describe_key(kek)
        able(subject.rotate_key, kek)
        later = bench.binding.wrap_key(kek, material, PLACE)
        assert _named(later) != (wrapped.key_id, wrapped.key_version), "the new version is not told"
        found = bench.binding.describe_key(kek)
        assert (found.key_id, found.key_version) == _named(later)
        assert bench.binding.unwrap_key(kek, later, PLACE) == material

    def test_rotation_keeps_the_binding(
        self,
        bench: Bench,
        subject: BackendHarness,
        kek: str,
        material: KeyMaterial,
        wrapped: WrappedKey,
    ) -> None:
        """Before and after a rotation of its KEK, a wrap is refused for another tenant."""
        able(subject.rotate_key, kek)
        later = bench.binding.wrap_key(kek, material, PLACE)
        for each in (wrapped, later):
            refused(DecryptionFailed, partial(bench.binding.unwrap_key, kek, each, _ELSEWHERE))

    @pytest.mark.parametrize("size", [0, 31, 33])
    def test_answer_of_another_size(
        self, bench: Bench, subject: BackendHarness, kek: str, wrapped: WrappedKey, size: int
    ) -> None:
        """A service that unwraps to 31 or 33 bytes is told on: nothing is cut or padded to fit."""
        able(subject.answer_unwrap, bytes(range(size)))
        told = refused(PluginError, lambda: bench.binding.unwrap_key(kek, wrapped, PLACE))
        assert f"unwrapped {size} bytes" in told


def _named(wrapped: WrappedKey) -> tuple[str, str | None]:
    return wrapped.key_id, wrapped.key_version
