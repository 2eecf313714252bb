"""Secrets and tenants' encryption keys on any key service, by one import.

>>> import os, tempfile
>>> os.environ["DEMO_MASTER_KEY"] = "please-make-a-real-one-with-keygen"
>>> kms = load(
...     {
...         "development": {
...             "development": True,
...             "backends": {
...                 "local": {
...                     "type": "local",
...                     "directory": tempfile.mkdtemp(),
...                     "master_keys": {"2026-11": "env://DEMO_MASTER_KEY"},
...                 }
...             },
...             "keys": {"wrap_with": ["local:2026-11"], "store": "local"},
...         }
...     },
...     environment="development",
... )
>>> kms.keys.create("acme").primary
1
>>> acme = kms.keys.tenant("acme")
>>> box = acme.encrypt(b"secret", context={"table": "users", "id": "42"})
>>> acme.decrypt(box, context={"table": "users", "id": "42"})
b'secret'
>>> kms.close()
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sentra_kms.errors import (
    AccessDenied,
    AlreadyExists,
    AuditFailed,
    AuthenticationFailed,
    ConfigurationError,
    Conflict,
    DecryptionFailed,
    KeyNotFound,
    KeyUnavailable,
    KMSError,
    MalformedInput,
    NotFound,
    PluginError,
    RingRejected,
    SecretNotFound,
    ServiceUnavailable,
    TenantNotFound,
    Throttled,
    Timeout,
    UnsupportedOperation,
    VendorError,
)
from sentra_kms.events import actor
from sentra_kms.material import KeyMaterial, Secret
from sentra_kms.reference import Reference
from sentra_kms.version import VERSION

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping

    from sentra_kms.health import BackendHealth, Health
    from sentra_kms.keys.aio import AsyncKeyManager, AsyncTenantKeys
    from sentra_kms.keys.destruction import Destroyed, DestroyReport, Shredded
    from sentra_kms.keys.info import RingInfo, VersionInfo, WrapInfo
    from sentra_kms.keys.manager import KeyManager
    from sentra_kms.keys.receipt import Remains
    from sentra_kms.keys.tenant_keys import TenantKeys
    from sentra_kms.runtime import KMS
    from sentra_kms.secrets.manager import SecretManager
    from sentra_kms.secrets.watch import Watch

__version__ = VERSION
_LAZY = {
    "AsyncKeyManager": "sentra_kms.keys.aio",
    "AsyncTenantKeys": "sentra_kms.keys.aio",
    "BackendHealth": "sentra_kms.health",
    "DestroyReport": "sentra_kms.keys.destruction",
    "Destroyed": "sentra_kms.keys.destruction",
    "Health": "sentra_kms.health",
    "KMS": "sentra_kms.runtime",
    "KeyManager": "sentra_kms.keys.manager",
    "Remains": "sentra_kms.keys.receipt",
    "RingInfo": "sentra_kms.keys.info",
    "SecretManager": "sentra_kms.secrets.manager",
    "Shredded": "sentra_kms.keys.destruction",
    "TenantKeys": "sentra_kms.keys.tenant_keys",
    "VersionInfo": "sentra_kms.keys.info",
    "Watch": "sentra_kms.secrets.watch",
    "WrapInfo": "sentra_kms.keys.info",
}
__all__ = [
    "KMS",
    "AccessDenied",
    "AlreadyExists",
    "AsyncKeyManager",
    "AsyncTenantKeys",
    "AuditFailed",
    "AuthenticationFailed",
    "BackendHealth",
    "ConfigurationError",
    "Conflict",
    "DecryptionFailed",
    "DestroyReport",
    "Destroyed",
    "Health",
    "KMSError",
    "KeyManager",
    "KeyMaterial",
    "KeyNotFound",
    "KeyUnavailable",
    "MalformedInput",
    "NotFound",
    "PluginError",
    "Reference",
    "Remains",
    "RingInfo",
    "RingRejected",
    "Secret",
    "SecretManager",
    "SecretNotFound",
    "ServiceUnavailable",
    "Shredded",
    "TenantKeys",
    "TenantNotFound",
    "Throttled",
    "Timeout",
    "UnsupportedOperation",
    "VendorError",
    "VersionInfo",
    "Watch",
    "WrapInfo",
    "__version__",
    "actor",
    "load",
]


def load(
    source: str | os.PathLike[str] | Mapping[str, object] | None = None,
    environment: str | None = None,
) -> KMS:
    """Return a `KMS` for one environment of a configuration.

    `source` is the path of a `sentra-kms.toml`, a mapping of the same shape, or `None`: the file
    that `SENTRA_KMS_CONFIG` names, else `sentra-kms.toml` in the working directory. `environment`
    defaults to `SENTRA_KMS_ENV`, then to the file's `default_environment`. Opens no connection
    and fetches no secret. Raises `ConfigurationError`, and `UnsupportedOperation` for a setting
    whose behaviour this version does not have.
    """
    from sentra_kms.runtime import open_kms

    return open_kms(source, environment)


if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        """Import what programs name in annotations when they do: it takes the core along."""
        if name not in _LAZY:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib import import_module

        return getattr(import_module(_LAZY[name]), name)
