"""What transit's refusals are to callers. Its texts are looked at here, and never shown."""

from __future__ import annotations

from sentra_kms import (
    ConfigurationError,
    DecryptionFailed,
    KeyNotFound,
    KeyUnavailable,
    KMSError,
)
from sentra_kms_vault.failures import Refused, vendor_error

NO_TYPE = "none"
"""A type that no key has, given to each encryption: so that Vault cannot make the key at it."""
AEAD = ("aes128-gcm96", "aes256-gcm96", "chacha20-poly1305")
"""The types whose keys bind associated data."""

_UNKNOWN_KEY = ("encryption key not found", f"unknown key type {NO_TYPE}")
_TOO_OLD = ("disallowed by policy (too old)",)
_DIFFERENT = (
    "message authentication failed",
    "invalid ciphertext",
    "missing ciphertext",
    "missing 'context' for key derivation",  # an empty one, which no wrap is bound to
)
_UNBOUND = ("non-aead cipher suite",)


class TransitErrors:
    """The errors of the keys of one mount; `name` is the backend's."""

    def __init__(self, name: str, mount: str) -> None:
        self._name = name
        self._mount = mount

    def of(self, key: str, refusal: Refused) -> KMSError | None:
        """Return what a refusal is, where more is known than its status."""
        failure = self._known(key, refusal)
        if failure is not None:
            failure.__cause__ = vendor_error(refusal)
        return failure

    def key_not_found(self, key: str) -> KeyNotFound:
        """Return the error of a KEK that is not there."""
        return KeyNotFound(
            f"the transit engine '{self._mount}' has no key for the KEK '{self._name}:{key}': make "
            f"one of type {AEAD[1]}, or look at its name; none is ever made here"
        )

    def decryption_failed(self, key: str) -> DecryptionFailed:
        """Return the one error of whatever does not open."""
        return DecryptionFailed(
            f"'{self._name}:{key}' cannot unwrap this tenant key: it was tampered with, or it was "
            "wrapped under another KEK or for another tenant, ring or version"
        )

    def not_bound(self, key: str, kind: str | None = None) -> ConfigurationError:
        """Return the error of a key that cannot bind a wrap to its place."""
        told = f", of type {kind}," if kind else ""
        return ConfigurationError(
            f"the KEK '{self._name}:{key}'{told} cannot bind a wrap to its tenant: make one of "
            f"type {', '.join(AEAD[:2])} or {AEAD[2]}"
        )

    def convergent(self, key: str) -> ConfigurationError:
        """Return the error of a key that encrypts the same to the same."""
        return ConfigurationError(
            f"the KEK '{self._name}:{key}' is convergent: equal tenant keys would have equal "
            "wraps. Make one without convergent_encryption"
        )

    def no_engine(self) -> ConfigurationError:
        """Return the error of a mount where nothing is."""
        return ConfigurationError(
            f"nothing is mounted at '{self._mount}', where backend '{self._name}' looks for its "
            "KEKs: set `transit` to the mount of the transit engine, and look at `namespace`"
        )

    def no_transit(self) -> ConfigurationError:
        """Return the error of a mount of another engine."""
        return ConfigurationError(
            f"what is mounted at '{self._mount}' is no transit engine: set `transit` of backend "
            f"'{self._name}' to the mount of one"
        )

    def mounted_anew(self) -> ConfigurationError:
        """Return the error of a transit engine that is another one than before."""
        return ConfigurationError(
            f"the transit engine at '{self._mount}' was mounted anew since this process began, and "
            "the KEKs of before are not in it: restore them and restart the process, or correct "
            f"`transit` of backend '{self._name}'"
        )

    def _known(self, key: str, refusal: Refused) -> KMSError | None:
        if refusal.status == 404:
            missing = refusal.says("no handler for route")
            return self.no_engine() if missing else self.no_transit()
        if refusal.status not in {400, 500}:
            return None
        if refusal.says(*_UNKNOWN_KEY):
            return self.key_not_found(key)
        if refusal.says(*_TOO_OLD):
            return KeyUnavailable(
                f"the version of the KEK '{self._name}:{key}' that wrapped this tenant key is "
                "below the key's min_decryption_version: lower it, rewrap, and raise it again; a "
                "version that was trimmed is gone"
            )
        if refusal.says(*_DIFFERENT):
            return self.decryption_failed(key)
        return self.not_bound(key) if refusal.says(*_UNBOUND) else None
