"""The bound handle: one tenant's messages, at the speed of the cipher."""

from __future__ import annotations

from collections.abc import Sequence
from os import urandom

from cryptography.exceptions import InvalidTag

from sentra_kms.context import MAX_CONTEXT, Context, encode_context
from sentra_kms.errors import DecryptionFailed, KeyNotFound, KeyUnavailable, MalformedInput
from sentra_kms.forks import ProcessBound
from sentra_kms.keys.cache import Entry, KeyCache
from sentra_kms.keys.message import (
    BODY_START,
    EPOCH_TICKS,
    FAILED,
    MAX_MESSAGE,
    NONCE_SIZE,
    OVERHEAD,
    PREFIX_SIZE,
    TICK_BYTES,
    Buffer,
    Epoch,
    Opener,
    check_message,
    check_plaintext,
    ticks,
    version_of,
)
from sentra_kms.keys.ring import Version
from sentra_kms.tenant import check_tenant


class TenantKeys(ProcessBound):
    """Encrypts and decrypts for one tenant; made by `KeyManager.tenant`, cheap to keep.

    Safe to use from many threads. A warm call takes no lock and asks nobody.
    """

    __slots__ = ("_cache", "_entries", "_epochs", "_now", "_tenant")

    def __init__(self, cache: KeyCache, tenant: str) -> None:
        self._tenant = check_tenant(tenant)
        self._cache = cache
        self._entries = cache.entries
        self._epochs = cache.epochs
        self._now = cache.now

    def __repr__(self) -> str:
        return f"TenantKeys({self._tenant!r})"

    @property
    def tenant(self) -> str:
        """The tenant's id."""
        return self._tenant

    def encrypt(self, plaintext: Buffer, context: Context = None) -> bytes:
        """Return `plaintext` as a message under the tenant's primary key, 96 bytes longer.

        `plaintext` has at most 64 MiB. The same `context` must be given to decrypt; it is
        authenticated and not stored. Raises `MalformedInput`, `TenantNotFound`,
        `KeyUnavailable`, `RingRejected`, and what the store or the KEKs raise.
        """
        epoch = self._epochs.get(self._tenant)
        if (
            epoch is None
            or type(plaintext) is not bytes
            or len(plaintext) > TICK_BYTES
            or self._now() >= epoch.deadline
            or epoch.tick() >= EPOCH_TICKS
        ):
            plaintext = check_plaintext(plaintext)
            epoch = self._epoch(ticks(len(plaintext)))
        nonce = urandom(NONCE_SIZE)
        if context is not None:
            # What encode_context does for bytes, without the cost of calling it.
            if type(context) is bytes and len(context) < MAX_CONTEXT:
                context = b"\x01" + context
            else:
                context = encode_context(context)
        return epoch.prefix + nonce + epoch.seal(nonce, plaintext, context)

    def decrypt(self, message: Buffer, context: Context = None) -> bytes:
        """Return what `encrypt` was given.

        Raises `DecryptionFailed` if the message was changed or is not this tenant's, or the
        context differs: which of these is not said. `MalformedInput` if it is no message;
        `KeyNotFound` for a version that the ring never had, `KeyUnavailable` for one that is not
        enabled; and what the store or the KEKs raise.
        """
        if context is not None:
            if type(context) is bytes and len(context) < MAX_CONTEXT:
                context = b"\x01" + context
            else:
                context = encode_context(context)
        entry = self._entries.get(self._tenant)
        opener = None
        if entry is not None and type(message) is bytes and OVERHEAD <= len(message) <= MAX_MESSAGE:
            opener = entry.openers.get(message[:PREFIX_SIZE])
        if opener is None or (now := self._now()) >= opener.expires or now >= entry.deadline:  # type: ignore[union-attr]  # there is no opener without an entry
            message = check_message(message)
            opener = self._opener(message)
        try:
            return opener.open(message[PREFIX_SIZE:BODY_START], message[BODY_START:], context)
        except InvalidTag:
            pass
        raise DecryptionFailed(FAILED, subject=self._tenant)

    def encrypt_many(
        self, plaintexts: Sequence[Buffer], contexts: Sequence[Context] | None = None
    ) -> list[bytes]:
        """Encrypt each; `contexts`, if given, has one context for each plaintext.

        Cheaper than as many calls. Raises as `encrypt` does; then nothing is returned.
        """
        plains = [check_plaintext(plaintext) for plaintext in plaintexts]
        aads = self._encoded(contexts, len(plains))
        nonces = urandom(NONCE_SIZE * len(plains))
        epoch = self._epochs.get(self._tenant)
        messages: list[bytes] = []
        start = 0
        for plain, aad in zip(plains, aads, strict=True):
            if (
                epoch is None
                or len(plain) > TICK_BYTES
                or self._now() >= epoch.deadline
                or epoch.tick() >= EPOCH_TICKS
            ):
                epoch = self._epoch(ticks(len(plain)))
            nonce = nonces[start : start + NONCE_SIZE]
            start += NONCE_SIZE
            messages.append(epoch.prefix + nonce + epoch.seal(nonce, plain, aad))
        return messages

    def decrypt_many(
        self, messages: Sequence[Buffer], contexts: Sequence[Context] | None = None
    ) -> list[bytes]:
        """Decrypt each; raises as `decrypt` does on the first that fails, and returns nothing."""
        if contexts is None:
            return [self.decrypt(message) for message in messages]
        _check_lengths(len(messages), len(contexts))
        return [
            self.decrypt(message, context)
            for message, context in zip(messages, contexts, strict=True)
        ]

    def _encoded(self, contexts: Sequence[Context] | None, size: int) -> Sequence[bytes | None]:
        if contexts is None:
            return [None] * size
        _check_lengths(size, len(contexts))
        return [None if context is None else encode_context(context) for context in contexts]

    def _epoch(self, cost: int) -> Epoch:
        """Return an epoch with `cost` ticks drawn from it, a new one if the last is used up."""
        entry = self._cache.entry(self._tenant)
        epoch = self._epochs.get(self._tenant)
        if epoch is not None and self._now() < epoch.deadline and epoch.draw(cost):
            return epoch
        primary = entry.ring.find(entry.ring.primary) if entry.ring.primary else None
        if primary is None:
            raise KeyUnavailable(
                f"tenant '{self._tenant}' has no primary key version: rotate to make one",
                subject=self._tenant,
            )
        return self._cache.epoch(entry, primary, cost)

    def _opener(self, message: bytes) -> Opener:
        entry = self._cache.entry(self._tenant)
        if message[4:16] != entry.ring.ring_id:
            raise DecryptionFailed(FAILED, subject=self._tenant)
        entry, version = self._version(entry, version_of(message))
        if version.origin != "generated":
            # An imported key opens what its old format sealed, and nothing else.
            raise DecryptionFailed(FAILED, subject=self._tenant)
        return self._cache.opener(entry, version, message[:PREFIX_SIZE])

    def _version(self, entry: Entry, number: int) -> tuple[Entry, Version]:
        found = entry.ring.find(number)
        if found is not None:
            return entry, found
        # Another process may have rotated since the ring was read.
        fresh = self._cache.reload(entry)
        found = fresh.ring.find(number)
        if found is None:
            recent = fresh is entry
            raise KeyNotFound(
                f"the message names version {number} of tenant '{self._tenant}', which its ring "
                + ("did not have a moment ago" if recent else "never had"),
                subject=self._tenant,
                retryable=recent,
            )
        return fresh, found


def _check_lengths(items: int, contexts: int) -> None:
    if items != contexts:
        raise MalformedInput(f"{items} items need as many contexts, not {contexts}")
