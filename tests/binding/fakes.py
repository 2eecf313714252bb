"""A backend type whose parts each test makes itself, and parts to begin from."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from sentra_kms.binding import Binding
from sentra_kms.context import WrapContext
from sentra_kms.discovery import FoundType
from sentra_kms.events import Event
from sentra_kms.hookspecs import (
    API_VERSION,
    KeyHooks,
    PartHooks,
    RingHooks,
    SecretHooks,
    hookimpl,
)
from sentra_kms.hooktypes import (
    BackendSettings,
    BackendType,
    Finding,
    Host,
    KeyDescription,
    RingPage,
    SecretRequest,
    SecretValue,
    StoredRing,
    WrappedKey,
)
from sentra_kms.material import KeyMaterial

WHERE = WrapContext("acme", bytes(12), 1)
KEY = KeyMaterial(b"planted-tenant-key-of-32-bytes!!")


def create(settings: BackendSettings, host: Host) -> object:
    """Make what the test has put into the host's state."""
    make: Any = host.state["make"]
    return make()


FAKE = FoundType(
    "fake",
    BackendType(
        api=API_VERSION,
        settings=BackendSettings,
        create="tests.binding.fakes:create",
        summary="a backend for tests",
    ),
    "tests",
    "1",
)


def bind(
    make: Callable[[], object],
    *,
    timeout: float = 5.0,
    emit: Callable[[Event], None] | None = None,
    clock: Callable[[], float] = lambda: 0.0,
    name: str = "fake",
) -> Binding:
    """Bind the parts that `make` returns; it is called again in a forked child."""
    host = Host(
        name=name,
        environment="test",
        development=True,
        clock=clock,
        secret=lambda _: KeyMaterial(b""),
        resolve=os.path.abspath,
        state={"make": make},
    )
    return Binding(FAKE, BackendSettings(), host, timeout=timeout, emit=emit)


class Keys(KeyHooks, PartHooks):
    """A keys part that calls `act(operation, arguments)` for every answer."""

    def __init__(self, act: Callable[[str, dict[str, Any]], Any] | None = None) -> None:
        self._act = act or answer

    @hookimpl
    def wrap_key(
        self, key: str, material: KeyMaterial, context: WrapContext, timeout: float
    ) -> WrappedKey:
        """Answer as the test says."""
        found: WrappedKey = self._act(
            "wrap_key", {"key": key, "material": material, "context": context, "timeout": timeout}
        )
        return found

    @hookimpl
    def unwrap_key(
        self, key: str, wrapped: WrappedKey, context: WrapContext, timeout: float
    ) -> KeyMaterial:
        """Answer as the test says."""
        found: KeyMaterial = self._act(
            "unwrap_key", {"key": key, "wrapped": wrapped, "context": context, "timeout": timeout}
        )
        return found

    @hookimpl
    def describe_key(self, key: str, timeout: float) -> KeyDescription:
        """Answer as the test says."""
        found: KeyDescription = self._act("describe_key", {"key": key, "timeout": timeout})
        return found


class Rings(RingHooks, PartHooks):
    """A rings part that calls `act(operation, arguments)` for every answer."""

    def __init__(self, act: Callable[[str, dict[str, Any]], Any] | None = None) -> None:
        self._act = act or answer

    @hookimpl
    def load_ring(self, tenant: str, timeout: float) -> StoredRing:
        """Answer as the test says."""
        found: StoredRing = self._act("load_ring", {"tenant": tenant, "timeout": timeout})
        return found

    @hookimpl
    def save_ring(self, tenant: str, document: bytes, expected: str | None, timeout: float) -> str:
        """Answer as the test says."""
        found: str = self._act(
            "save_ring",
            {"tenant": tenant, "document": document, "expected": expected, "timeout": timeout},
        )
        return found

    @hookimpl
    def delete_ring(self, tenant: str, expected: str, timeout: float) -> None:
        """Answer as the test says."""
        self._act("delete_ring", {"tenant": tenant, "expected": expected, "timeout": timeout})

    @hookimpl
    def list_rings(self, cursor: str | None, limit: int, timeout: float) -> RingPage:
        """Answer as the test says."""
        found: RingPage = self._act(
            "list_rings", {"cursor": cursor, "limit": limit, "timeout": timeout}
        )
        return found


class Secrets(SecretHooks, PartHooks):
    """A secrets part that calls `act(operation, arguments)` for every answer."""

    def __init__(self, act: Callable[[str, dict[str, Any]], Any] | None = None) -> None:
        self._act = act or answer

    @hookimpl
    def fetch_secret(self, request: SecretRequest, timeout: float) -> SecretValue:
        """Answer as the test says."""
        found: SecretValue = self._act("fetch_secret", {"request": request, "timeout": timeout})
        return found


class Checked(PartHooks):
    """A part that only tells how it is, and that it was closed."""

    def __init__(self, name: str, log: list[str] | None = None) -> None:
        self._name = name
        self._log = [] if log is None else log

    @hookimpl
    def check(self, timeout: float) -> list[Finding]:
        """Find itself well."""
        return [Finding("ok", self._name, f"well within {timeout:g} s")]

    @hookimpl
    def close(self) -> None:
        """Note that it was closed."""
        self._log.append(self._name)


ANSWERS: dict[str, Any] = {
    "wrap_key": WrappedKey(b"wrapped", "id", None),
    "unwrap_key": KEY,
    "describe_key": KeyDescription("id", None),
    "load_ring": StoredRing(b"ring", "1"),
    "save_ring": "2",
    "delete_ring": None,
    "list_rings": RingPage(("acme",), None),
    "fetch_secret": SecretValue(KEY),
}


def answer(operation: str, arguments: dict[str, Any]) -> Any:
    """Answer each operation as a backend should."""
    return ANSWERS[operation]
