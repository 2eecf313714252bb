"""KEKs made of a master key: how it is read, named, and used to wrap.

Two backends share it: `local`, whose master keys come from references, and `memory`, which makes
its own. The formats are specified in `docs/spec/ring.md`.
"""

from __future__ import annotations

import os
import re

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA512
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from sentra_kms.context import WrapContext
from sentra_kms.derive import derive
from sentra_kms.encoding import lp
from sentra_kms.errors import ConfigurationError, DecryptionFailed, KeyNotFound, MalformedInput
from sentra_kms.hooktypes import KeyDescription, WrappedKey
from sentra_kms.material import KeyMaterial

MIN_MASTER_KEY = 32  # bytes
_EXTRACT_SALT = b"sentra-kms/local/v1"
_MAGIC = b"SKW\x01\x00"  # format 1, alg 0: under a master key
_SALT_SIZE = 16
_KEY_SIZE = 32
_WRAP_SIZE = len(_MAGIC) + _SALT_SIZE + _KEY_SIZE + 16
_HEX = r"[0-9A-Fa-f]{64,}"
_BASE64 = r"[A-Za-z0-9+/_-]+={0,2}"
_ADVICE = "make one with `sentra-kms keygen`"


class MasterKey:
    """A KEK derived from a master key of 32 bytes or more.

    >>> key = MasterKey(KeyMaterial(bytes(32)))
    >>> key.key_id
    'd6e6525a45b39549'
    """

    def __init__(self, master: KeyMaterial) -> None:
        self._prk = KeyMaterial(HKDF.extract(SHA512(), _EXTRACT_SALT, master.reveal()))
        self.key_id: str = derive(self._prk, "local/key-id/v1", b"", 8).reveal().hex()

    def describe(self) -> KeyDescription:
        """Return this key's id; a master key has no versions."""
        return KeyDescription(self.key_id, None)

    def ring_auth_key(self) -> KeyMaterial:
        """Return the key that authenticates rings when none is configured."""
        return derive(self._prk, "local/ring-auth/v1", b"", 32)

    def wrap(self, material: KeyMaterial, context: WrapContext) -> WrappedKey:
        """Wrap 32 bytes, bound to `context`, under a one-time key and nonce."""
        if len(material.reveal()) != _KEY_SIZE:
            raise MalformedInput("a tenant key has 32 bytes")
        salt = os.urandom(_SALT_SIZE)
        once = self._one_time(salt, context)
        sealed = _cipher(once).encrypt(once.reveal()[32:], material.reveal(), None)
        return WrappedKey(_MAGIC + salt + sealed, self.key_id, None)

    def unwrap(self, name: str, wrapped: WrappedKey, context: WrapContext) -> KeyMaterial:
        """Undo `wrap`; `name` is the KEK's name, for the error."""
        if wrapped.key_id != self.key_id:
            raise KeyNotFound(
                f"the key was wrapped by the master key with id {wrapped.key_id}, but '{name}' is "
                f"now the one with id {self.key_id}: configure the earlier master key under a name "
                "of its own and add it to unwrap_with"
            )
        blob = wrapped.ciphertext
        if len(blob) != _WRAP_SIZE or not blob.startswith(_MAGIC):
            raise DecryptionFailed(f"what '{name}' should unwrap is not a local wrap")
        salt = blob[len(_MAGIC) : len(_MAGIC) + _SALT_SIZE]
        once = self._one_time(salt, context)
        try:
            return KeyMaterial(
                _cipher(once).decrypt(once.reveal()[32:], blob[len(_MAGIC) + _SALT_SIZE :], None)
            )
        except InvalidTag:
            raise DecryptionFailed(f"'{name}' cannot unwrap the tenant key") from None

    def _one_time(self, salt: bytes, context: WrapContext) -> KeyMaterial:
        return derive(self._prk, "local/wrap/v1", salt + lp(context.canonical), 44)


def _cipher(once: KeyMaterial) -> AESGCM:
    return AESGCM(once.reveal()[:32])


def read_master_key(source: KeyMaterial, *, where: str, development: bool) -> MasterKey:
    """Make a KEK of a master key as its source holds it.

    The bytes are used as they are and never decoded, but for one trailing LF or CRLF after
    printable ASCII. Outside development text must be hex or base64 of 32 bytes or more: a net
    against pass-phrases. Raises `ConfigurationError` naming `where`, never the key.
    """
    stripped = _strip_newline(source)
    size = len(stripped.reveal())
    if size < MIN_MASTER_KEY:
        raise ConfigurationError(
            f"{where}: the master key has {size} bytes, it needs {MIN_MASTER_KEY}: {_ADVICE}"
        )
    if not development and _is_text(stripped) and not _is_encoded(stripped):
        raise ConfigurationError(
            f"{where}: the master key is text but neither hex (64 digits or more) nor base64 of "
            f"{MIN_MASTER_KEY} bytes or more. A pass-phrase can be guessed: {_ADVICE}"
        )
    return MasterKey(stripped)


def _strip_newline(key: KeyMaterial) -> KeyMaterial:
    for ending in (b"\r\n", b"\n"):
        if key.reveal().endswith(ending):
            body = KeyMaterial(key.reveal().removesuffix(ending))
            return body if all(0x20 <= byte <= 0x7E for byte in body.reveal()) else key
    return key


def _is_text(key: KeyMaterial) -> bool:
    # Wider than ASCII, so that a pass-phrase in any language is caught, with a byte order mark or
    # joined emoji in it. Of random keys not one in 10^11 decodes without a control character.
    from unicodedata import category

    try:
        return all(c.isspace() or category(c) != "Cc" for c in key.reveal().decode("utf-8"))
    except UnicodeDecodeError:
        return False


def _is_encoded(key: KeyMaterial) -> bool:
    try:
        if re.fullmatch(_HEX, key.reveal().decode("ascii")) is not None:
            return True
        if re.fullmatch(_BASE64, key.reveal().decode("ascii")) is None:
            return False
        return len(_base64_of_either_kind(key).reveal()) >= MIN_MASTER_KEY
    except ValueError:  # neither ASCII nor base64
        return False


def _base64_of_either_kind(key: KeyMaterial) -> KeyMaterial:
    import base64

    padding = b"=" * (-len(key.reveal().rstrip(b"=")) % 4)
    return KeyMaterial(
        base64.b64decode(
            key.reveal().rstrip(b"=").replace(b"-", b"+").replace(b"_", b"/") + padding,
            validate=True,
        )
    )
