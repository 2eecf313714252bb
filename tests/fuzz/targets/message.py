"""Messages, cold and warm: they open, or are refused, as by the independent reader.

An input that begins with a digit is a fixed message of that number, overwritten with the rest from
a place that a byte names; one that begins with `+` is sealed and opened again; any other is the
message itself.
"""

from __future__ import annotations

from collections.abc import Callable

from sentra_kms.context import Context
from sentra_kms.errors import KMSError
from sentra_kms.keys.cache import KeyCache
from sentra_kms.keys.ring import Ring, Version, decode
from sentra_kms.keys.source import Bounds
from sentra_kms.keys.tenant_keys import TenantKeys
from sentra_kms.material import KeyMaterial
from tests.reader import reader, writer
from tests.vectors.fixed import MASTERS, ring_of_states

MADE = ring_of_states()  # versions that are disabled, scheduled, destroyed, imported, enabled
PAYLOAD = writer.to_json(MADE.payload)
RING = decode(PAYLOAD, MADE.tenant)
THEIR_RING = reader.open_ring(
    MADE.document(), MADE.tenant, [master.auth_key for master in MASTERS.values()]
)
CONTEXT: Context = {"table": "users", "id": "1"}


def fixed(version: int) -> bytes:
    """Return a message under a version, whatever its state."""
    key, salt, nonce = MADE.keys[version], bytes([version] * 16), bytes([version] * 12)
    return writer.seal(
        key, MADE.tenant, MADE.ring_id, version, salt, nonce, b"a plaintext", CONTEXT
    )


MESSAGES = {version: fixed(version) for version in MADE.keys}


class Source:
    """Where the cache gets ring and keys from, as from a store and a KEK."""

    def load(self, tenant: str) -> tuple[Ring, str]:
        """Return the ring, and where it was."""
        return RING, ""

    def failed_at(self, error: KMSError) -> str:
        """Return the place of the store."""
        return ""

    def seen(self, tenant: str) -> int:
        """Return the ring's sequence."""
        return RING.sequence

    def unwrap(self, ring: Ring, version: Version) -> KeyMaterial:
        """Return a version's key."""
        return KeyMaterial(MADE.keys[version.version])

    def key_ttl(self, policy: str) -> float:
        """Hold keys for a minute."""
        return 60.0

    def is_out_of_reach(self, ring: Ring, version: Version) -> bool:
        """Nobody fails."""
        return False


CACHE = KeyCache(Source(), Bounds(60.0, 0.0, 10), now=lambda: 0.0)
HANDLE = TenantKeys(CACHE, MADE.tenant)


def run(data: bytes) -> None:
    """Try one message under the right context and another, without and with a cache."""
    message = data
    if data[:1] == b"+":
        message = HANDLE.encrypt(data[1:], CONTEXT)
        assert HANDLE.decrypt(message, CONTEXT) == data[1:]
        assert HANDLE.decrypt_many([message], [CONTEXT]) == [data[1:]]
    elif data[:1].isdigit():
        good = MESSAGES[int(data[:1]) % len(MESSAGES) + 1]
        place = data[1] % (len(good) + 1) if len(data) > 1 else 0
        message = good[:place] + data[2:] + good[place + len(data[2:]) :]
    for context in (CONTEXT, None):
        theirs = outcome(lambda: reader.decrypt(THEIR_RING, message, context, MASTERS))  # noqa: B023
        for _ in range(2):
            assert outcome(lambda: HANDLE.decrypt(message, context)) == theirs  # noqa: B023
        if isinstance(theirs, bytes):
            assert context is CONTEXT
            assert data[:1] == b"+" or message in MESSAGES.values()
    if len(CACHE.entries) and data[-1:] == b"\x00":
        CACHE.clear()


def outcome(opened: Callable[[], bytes]) -> object:
    """Return the plaintext, or the name of the error, which both readers share."""
    try:
        return opened()
    except (KMSError, reader.ReadError) as error:
        return type(error).__name__
