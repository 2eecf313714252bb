"""What the environment may not add to what the configuration says."""

from __future__ import annotations

import msgspec
import pytest
from sentra_kms_vault.environment import Connection, connection
from sentra_kms_vault.settings import VaultSettings

_ADDRESS = {"VAULT_ADDR": "https://vault.internal:8200"}


def _connect(environment: dict[str, str], **table: object) -> Connection:
    return connection(
        msgspec.convert(table, VaultSettings),
        {**_ADDRESS, **environment},
        name="vault",
        development=False,
        resolve=lambda path: f"/etc/{path}",
    )


@pytest.mark.parametrize("setting", ["ca_file", "ca_directory"])
def test_environment_adds_no_ca_to_those_of_the_configuration(setting: str) -> None:
    """CAs that the configuration names are the only ones that are trusted."""
    environment = {"VAULT_CACERT": "/other.pem", "VAULT_CAPATH": "/other"}
    found = _connect(environment, tls={setting: "ca"})
    trusted = {"ca_file": None, "ca_directory": None, setting: "/etc/ca"}
    assert {"ca_file": found.ca_file, "ca_directory": found.ca_directory} == trusted


def test_environment_gives_no_key_to_a_certificate_of_the_configuration() -> None:
    """A certificate that the configuration names has its key there or in its own file."""
    environment = {"VAULT_CLIENT_CERT": "/other.pem", "VAULT_CLIENT_KEY": "/other.key"}
    found = _connect(environment, tls={"client_certificate": "client.pem"})
    assert (found.client_certificate, found.client_key) == ("/etc/client.pem", None)
    found = _connect(environment)
    assert (found.client_certificate, found.client_key) == ("/other.pem", "/other.key")
