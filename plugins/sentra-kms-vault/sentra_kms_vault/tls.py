"""How a server is verified, and who we are to it."""

from __future__ import annotations

import os
import ssl

from sentra_kms import ConfigurationError
from sentra_kms_vault.environment import Connection


def tls_context(connection: Connection, name: str) -> ssl.SSLContext:
    """Return what TLS is spoken with: version 1.2 or later, the CAs named, or else the system's.

    Raises `ConfigurationError` for a file that cannot be read, is no PEM or is encrypted.
    """
    failure: str
    try:
        context = _context(connection)
    except (OSError, ValueError) as error:
        failure = type(error).__name__
    else:
        return context
    raise ConfigurationError(
        f"backend '{name}': a CA, certificate or key of `tls` cannot be read as PEM without a "
        f"password ({failure})",
        backend=name,
    )


def _context(connection: Connection) -> ssl.SSLContext:
    named = connection.ca_file is not None or connection.ca_directory is not None
    # Not `create_default_context`: that heeds SSLKEYLOGFILE, and whoever has such a file can read
    # our tokens on the network.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if connection.ca_file is not None:
        context.load_verify_locations(cafile=connection.ca_file)
    if connection.ca_directory is not None:
        for each in _files(connection.ca_directory):
            context.load_verify_locations(cafile=each)
    if not named:
        context.load_default_certs()
    if connection.client_certificate is not None:
        context.load_cert_chain(
            connection.client_certificate,
            connection.client_key,
            password=lambda: "",  # an encrypted key is refused, and nobody is asked
        )
    if not connection.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _files(directory: str) -> list[str]:
    """Return the files of a directory, under whatever names, as `VAULT_CAPATH` has them.

    OpenSSL would look for names that are hashes, and trust nothing where there are none.
    """
    with os.scandir(directory) as entries:
        found = sorted(entry.path for entry in entries if entry.is_file())
    if not found:
        raise FileNotFoundError
    return found
