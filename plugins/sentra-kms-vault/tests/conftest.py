"""Servers that the plugin's tests share: started when one first asks for them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from vault_user import MakeUser, User

from tests.servers import vault_server
from tests.servers.vault_server import KeptVault, Vault


@pytest.fixture(scope="session")
def vault() -> Iterator[Vault]:
    """Return a server in development mode. Tests make keys, policies and paths of their own."""
    with vault_server.running() as server:
        yield server


@pytest.fixture
def kept_vault() -> Iterator[KeptVault]:
    """Return a server on disk of this test's own, to seal, stop and kill."""
    with vault_server.kept() as server:
        yield server


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the caller's own Vault away from every test."""
    for variable in (
        "ADDR", "CACERT", "CAPATH", "CLIENT_CERT", "CLIENT_KEY", "HTTP_PROXY", "NAMESPACE",
        "PROXY_ADDR", "SKIP_VERIFY", "TLS_SERVER_NAME", "TOKEN",
    ):  # fmt: skip
        for prefix in ("VAULT_", "BAO_"):
            monkeypatch.delenv(prefix + variable, raising=False)


@pytest.fixture
def make_user() -> Iterator[MakeUser]:
    """Return what makes users of Vault, who are closed when the test is over."""
    users: list[User] = []

    def make(*args: Any, **options: Any) -> User:
        users.append(User(*args, **options))
        return users[-1]

    yield make
    for user in users:
        user.close()
