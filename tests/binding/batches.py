"""Parts that implement the optional hooks too."""

from __future__ import annotations

from collections.abc import Sequence

from sentra_kms.errors import KMSError
from sentra_kms.hookspecs import BatchKeyHooks, BatchSecretHooks, RingHistoryHooks, hookimpl
from sentra_kms.hooktypes import (
    Remainder,
    SecretRequest,
    SecretValue,
    UnwrapRequest,
    WrappedKey,
    WrapRequest,
)
from sentra_kms.material import KeyMaterial
from tests.binding.fakes import Keys, Rings, Secrets


class BatchKeys(Keys, BatchKeyHooks):
    """A keys part that takes batches, and answers as the test says."""

    @hookimpl
    def wrap_keys(
        self, key: str, requests: tuple[WrapRequest, ...], timeout: float
    ) -> Sequence[WrappedKey | KMSError]:
        """Answer as the test says."""
        found: Sequence[WrappedKey | KMSError] = self._act(
            "wrap_keys", {"key": key, "requests": requests, "timeout": timeout}
        )
        return found

    @hookimpl
    def unwrap_keys(
        self, key: str, requests: tuple[UnwrapRequest, ...], timeout: float
    ) -> Sequence[KeyMaterial | KMSError]:
        """Answer as the test says."""
        found: Sequence[KeyMaterial | KMSError] = self._act(
            "unwrap_keys", {"key": key, "requests": requests, "timeout": timeout}
        )
        return found


class BatchSecrets(Secrets, BatchSecretHooks):
    """A secrets part that takes batches, and answers as the test says."""

    @hookimpl
    def fetch_secrets(
        self, requests: tuple[SecretRequest, ...], timeout: float
    ) -> Sequence[SecretValue | KMSError]:
        """Answer as the test says."""
        found: Sequence[SecretValue | KMSError] = self._act(
            "fetch_secrets", {"requests": requests, "timeout": timeout}
        )
        return found


class HistoryRings(Rings, RingHistoryHooks):
    """A rings part that keeps history, and answers as the test says."""

    @hookimpl
    def purge_ring_history(self, tenant: str, timeout: float) -> list[Remainder]:
        """Answer as the test says."""
        found: list[Remainder] = self._act(
            "purge_ring_history", {"tenant": tenant, "timeout": timeout}
        )
        return found
