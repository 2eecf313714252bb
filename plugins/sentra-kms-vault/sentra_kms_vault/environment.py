"""What the environment says where the configuration is silent: `VAULT_*`, and OpenBao's `BAO_*`.

Read here and nowhere else: hvac reads some of them when it is imported and ignores others.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping
from functools import partial
from urllib.parse import urlsplit

import msgspec

from sentra_kms import ConfigurationError
from sentra_kms_vault.settings import ADDRESS_PATTERN, MOUNT_PATTERN, VaultSettings

_TRUE = frozenset({"1", "t", "true", "yes", "on"})
_FALSE = frozenset({"", "0", "f", "false", "no", "off"})


class Connection(msgspec.Struct, frozen=True, kw_only=True):
    """Where the server is and how it is verified: by settings or environment; paths absolute."""

    address: str
    namespace: str | None
    ca_file: str | None
    ca_directory: str | None
    client_certificate: str | None
    client_key: str | None
    server_name: str | None
    verify: bool
    may_be_plain: bool
    proxy: str | None
    max_connections: int


def connection(
    settings: VaultSettings,
    environment: Mapping[str, str],
    *,
    name: str,
    development: bool,
    resolve: Callable[[str], str],
) -> Connection:
    """Return what the backend `name` connects to.

    A setting comes before a variable, and `VAULT_X` before `BAO_X`; an empty variable is none. To
    settings that say whom to trust, or who we are, no variable adds anything.
    Raises `ConfigurationError` if no address is given, a variable is no boolean, a client key
    comes without its certificate, or verification is turned off outside development; and if
    requests would go to another machine without TLS there, unless a setting says so.
    """
    tls = settings.tls
    variable = partial(_variable, environment)
    trusts = tls.ca_file is not None or tls.ca_directory is not None
    shows = tls.client_certificate is not None
    found = Connection(
        address=_address(settings.address or variable("ADDR"), name),
        namespace=settings.namespace or _namespace(variable("NAMESPACE"), name),
        ca_file=_path(tls.ca_file, resolve) if trusts else variable("CACERT"),
        ca_directory=_path(tls.ca_directory, resolve) if trusts else variable("CAPATH"),
        client_certificate=_path(tls.client_certificate, resolve) or variable("CLIENT_CERT"),
        client_key=_path(tls.client_key, resolve) or (None if shows else variable("CLIENT_KEY")),
        server_name=_server_name(tls.server_name or variable("TLS_SERVER_NAME"), name),
        verify=not _skips(tls.skip_verify, variable("SKIP_VERIFY"), name, development=development),
        may_be_plain=development or tls.allow_plain_http,
        proxy=_proxy(settings.proxy or variable("PROXY_ADDR", "HTTP_PROXY"), name),
        max_connections=settings.max_connections,
    )
    if found.client_key is not None and found.client_certificate is None:
        raise ConfigurationError(
            f"backend '{name}' has a client key without its certificate: give "
            "tls.client_certificate",
            backend=name,
        )
    if goes_in_plain(found) and not found.may_be_plain:
        raise ConfigurationError(
            f"backend '{name}' has an address of http:// that is not of this machine, or a proxy "
            "to one: whoever is on the way could read tokens, keys and secrets. Use https://, or "
            "an agent on this machine; tls.allow_plain_http lets it be",
            backend=name,
        )
    return found


def goes_in_plain(connection: Connection) -> bool:
    """Whether requests leave this machine without TLS."""
    if not connection.address.startswith("http:"):
        return False
    hops = [connection.address, *([] if connection.proxy is None else [connection.proxy])]
    return not all(is_here(each) for each in hops)


def is_here(url: str) -> bool:
    """Whether a URL is of this machine: `localhost`, or an address of loopback.

    >>> [is_here(f"http://{host}:8200") for host in ("127.0.0.1", "[::1]", "127.0.0.1.example")]
    [True, True, False]
    """
    try:
        host = urlsplit(url).hostname or ""
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:  # a name; or no URL, and nobody knows where it would go
        return False


def _variable(environment: Mapping[str, str], *names: str) -> str | None:
    for each in names:
        for prefix in ("VAULT_", "BAO_"):
            if environment.get(prefix + each):
                return environment[prefix + each]
    return None


def _path(given: str | None, resolve: Callable[[str], str]) -> str | None:
    return None if given is None else resolve(given)


def _address(given: str | None, name: str) -> str:
    if given is None:
        raise ConfigurationError(
            f"backend '{name}' has no address: give it `address`, or set VAULT_ADDR", backend=name
        )
    if re.fullmatch(ADDRESS_PATTERN, given) is None:
        raise ConfigurationError(
            f"backend '{name}': VAULT_ADDR is no https://HOST:PORT", backend=name
        )
    return given.rstrip("/")


def _namespace(given: str | None, name: str) -> str | None:
    """Return a namespace as a setting would give it: Vault's own programs end it in a slash."""
    found = (given or "").strip("/")
    if found and re.fullmatch(MOUNT_PATTERN, found) is None:
        raise ConfigurationError(f"backend '{name}': VAULT_NAMESPACE is no namespace", backend=name)
    return found or None


def _server_name(given: str | None, name: str) -> str | None:
    if given is not None and re.fullmatch(r"[A-Za-z0-9._:-]+", given) is None:
        raise ConfigurationError(
            f"backend '{name}': tls.server_name or VAULT_TLS_SERVER_NAME is no host's name",
            backend=name,
        )
    return given


def _proxy(given: str | None, name: str) -> str | None:
    if given is not None and re.fullmatch(ADDRESS_PATTERN, given) is None:
        raise ConfigurationError(
            f"backend '{name}': VAULT_PROXY_ADDR or VAULT_HTTP_PROXY is no http://HOST:PORT, "
            "without a user's name",
            backend=name,
        )
    return given


def _skips(given: bool | None, text: str | None, name: str, *, development: bool) -> bool:  # noqa: FBT001
    """Whether any certificate is accepted."""
    skips = _truth(text, "VAULT_SKIP_VERIFY", name) if given is None else given
    if skips and not development:
        raise ConfigurationError(
            f"backend '{name}' accepts any certificate (tls.skip_verify or VAULT_SKIP_VERIFY), "
            "which is for development only: name the server's CA with tls.ca_file",
            backend=name,
        )
    return skips


def _truth(text: str | None, variable: str, name: str) -> bool:
    word = (text or "").strip().lower()
    if word in _TRUE:
        return True
    if word in _FALSE:
        return False
    raise ConfigurationError(
        f"backend '{name}': {variable} is neither true nor false", backend=name
    )
