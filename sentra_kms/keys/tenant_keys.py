"""The bound handle: one tenant's messages, at the speed of the cipher."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from os import urandom
from typing import ClassVar

from cryptography.exceptions import InvalidTag

from sentra_kms.context import MAX_CONTEXT, Context, encode_context
from sentra_kms.errors import (
    DecryptionFailed,
    KeyNotFound,
    KeyUnavailable,
    MalformedInput,
)
from sentra_kms.forks import ProcessBound
from sentra_kms.keys.cache import KeyCache
from sentra_kms.keys.held import Entry
from sentra_kms.keys.message import (
    BODY_START,
    FAILED,
    GIL_KEPT,
    MAX_MESSAGE,
    NO_EPOCH,
    NO_OPENER,
    NONCE_SIZE,
    OVERHEAD,
    PREFIX_SIZE,
    REFUSALS,
    SLICED,
    TICK_BYTES,
    Buffer,
    Opener,
    Sealer,
    body_of,
    check_message,
    check_plaintext,
    quick_random,
    ticks,
    version_of,
)
from sentra_kms.keys.source import NotAtHandError
from sentra_kms.tenant import check_tenant

# Made once: to write a slice where it is used makes it anew each time.
_PREFIX = slice(PREFIX_SIZE)
_NONCE = slice(PREFIX_SIZE, BODY_START)
_BODY = slice(BODY_START, None)
_NONCES = f"{NONCE_SIZE}s"
_RUN = 128  # small messages of a batch for each look at the clock: 2 MiB at most


class TenantKeys(ProcessBound):
    """Encrypts and decrypts for one tenant; made by `KeyManager.tenant`, cheap to keep.

    Safe to use from many threads. A warm call takes no lock and asks nobody.
    """

    __slots__ = ("_cache", "_entries", "_epoch", "_now", "_tenant")
    _waits: ClassVar[bool] = True  # for backends

    def __init__(self, cache: KeyCache, tenant: str) -> None:
        self._tenant = check_tenant(tenant)
        self._cache = cache
        self._entries = cache.entries
        self._epoch = NO_EPOCH  # the last one used; the cache ends it when it is to be used no more
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
        aad = (
            b"\x01" + context  # what encode_context does for bytes, without calling it
            if type(context) is bytes and len(context) < MAX_CONTEXT
            else None
            if context is None
            else encode_context(context)
        )
        epoch = self._epoch
        now = self._now  # by itself: to call what a slot holds takes half as long again
        if type(plaintext) is bytes:
            if len(plaintext) < GIL_KEPT:
                for prefix, seal in epoch.uses:
                    # This `try` has in it what it is for and no more: else it would take what a
                    # signal handler raises meanwhile for its own.
                    try:
                        nonce = quick_random(NONCE_SIZE)
                    except OSError as error:
                        if error.errno not in REFUSALS:
                            raise
                        nonce = urandom(NONCE_SIZE)
                    if epoch.deadline > now():  # here, right after a system call, at least cost
                        return prefix + nonce + seal(nonce, plaintext, aad)
                    break
            elif len(plaintext) <= TICK_BYTES and epoch.deadline > now():
                for prefix, seal in epoch.uses:
                    nonce = urandom(NONCE_SIZE)
                    return prefix + nonce + seal(nonce, plaintext, aad)
        plaintext = check_plaintext(plaintext)
        sealer = self._sealer(ticks(len(plaintext)))
        return sealer.message(urandom(NONCE_SIZE), plaintext, aad)

    def decrypt(self, message: Buffer, context: Context = None) -> bytes:
        """Return what `encrypt` was given.

        Raises `DecryptionFailed` if the message was changed or is not this tenant's, or the
        context differs: which of these is not said. `MalformedInput` if it is no message;
        `KeyNotFound` for a version that the ring never had, `KeyUnavailable` for one that is not
        enabled; and what the store or the KEKs raise.
        """
        aad = (
            b"\x01" + context
            if type(context) is bytes and len(context) < MAX_CONTEXT
            else None
            if context is None
            else encode_context(context)
        )
        tried = False
        now = self._now
        if type(message) is bytes:
            prefix = message[_PREFIX]
            try:
                entry = self._entries[self._tenant]
                if (opener := entry.newest).prefix != prefix:
                    opener = entry.openers[prefix]
            except KeyError:
                opener = NO_OPENER
            if opener.deadline > now():
                unseal = opener.open
                try:
                    if len(message) <= SLICED:
                        return unseal(message[_NONCE], message[_BODY], aad)
                    if len(message) <= MAX_MESSAGE:
                        return unseal(message[_NONCE], body_of(message), aad)
                except InvalidTag:
                    tried = len(message) >= OVERHEAD  # else it is cut off after its nonce
                except ValueError:
                    if len(message) >= OVERHEAD:
                        raise
                    # It is cut off in its nonce.
        return self._open(message, aad, tried=tried)

    def encrypt_many(
        self, plaintexts: Sequence[Buffer], contexts: Sequence[Context] | None = None
    ) -> list[bytes]:
        """Encrypt each; `contexts`, if given, has one context for each plaintext.

        Cheaper than as many calls. Raises as `encrypt` does; then nothing is returned.
        """
        from struct import iter_unpack

        plains = [check_plaintext(plaintext) for plaintext in plaintexts]
        aads = self._encoded(contexts, len(plains))
        # Drawn for this call alone, and used up by it.
        nonces = [nonce for (nonce,) in iter_unpack(_NONCES, urandom(NONCE_SIZE * len(plains)))]
        messages: list[bytes] = []
        while (done := len(messages)) < len(plains):
            run = slice(done, done + _RUN)
            messages += self._seal_run(plains[run], nonces[run], aads[run])
            if len(messages) == done:
                sealer = self._sealer(ticks(len(plains[done])))
                messages.append(sealer.message(nonces[done], plains[done], aads[done]))
        return messages

    def decrypt_many(
        self, messages: Sequence[Buffer], contexts: Sequence[Context] | None = None
    ) -> list[bytes]:
        """Decrypt each; raises as `decrypt` does on the first that fails, and returns nothing."""
        items = list(messages)
        given: list[Context] = [None] * len(items) if contexts is None else list(contexts)
        _check_lengths(len(items), len(given))
        plains: list[bytes] = []
        try:
            while (done := len(plains)) < len(items):
                run = slice(done, done + _RUN)
                plains += self._open_run(items[run], given[run])
                if len(plains) == done:
                    plains.append(self.decrypt(items[done], given[done]))
        except BaseException:
            plains.clear()  # else a traceback that shows variables shows plaintexts
            raise
        return plains

    def _seal_run(
        self, plains: list[bytes], nonces: list[bytes], aads: Sequence[bytes | None]
    ) -> list[bytes]:
        """Seal the first of these, up to one that needs a new epoch or more than one tick."""
        messages: list[bytes] = []
        epoch = self._epoch
        if epoch.deadline <= self._now():
            return messages
        # The uses come last: they are drawn only if there is something to seal.
        each = zip(plains, nonces, aads, epoch.uses)  # noqa: B905 - the shortest ends it
        for plain, nonce, aad, (prefix, seal) in each:
            if len(plain) > TICK_BYTES:
                break
            messages.append(prefix + nonce + seal(nonce, plain, aad))
        return messages

    def _open_run(self, messages: list[Buffer], contexts: list[Context]) -> list[bytes]:
        """Open the first of these, up to one that `decrypt` has to look at."""
        plains: list[bytes] = []
        entry = self._entries.get(self._tenant)
        if entry is None:
            return plains
        try:
            _open_small(entry, messages, contexts, self._now(), plains)
        except BaseException:
            plains.clear()
            raise
        return plains

    def warm(self) -> None:
        """Fetch the primary key now, so that the first message need not; raises as `encrypt`."""
        entry = self._entry_to_seal()
        self._cache.key(entry, self._primary(entry))

    def _encoded(self, contexts: Sequence[Context] | None, size: int) -> Sequence[bytes | None]:
        if contexts is None:
            return [None] * size
        given = list(contexts)
        _check_lengths(size, len(given))
        return [
            None
            if context is None
            else b"\x01" + context
            if type(context) is bytes and len(context) < MAX_CONTEXT
            else encode_context(context)
            for context in given
        ]

    def _sealer(self, cost: int) -> Sealer:
        """Return what seals, with `cost` ticks drawn, of a new epoch if the last is used up."""
        epoch = self._epoch
        sealer = epoch.draw(cost) if epoch.deadline > self._now() else None
        if sealer is None:
            entry = self._entry_to_seal()
            sealer = self._cache.sealer(entry, self._primary(entry), cost, wait=self._waits)
            self._epoch = self._cache.epochs.get(self._tenant, NO_EPOCH)
        return sealer

    def _entry_to_seal(self) -> Entry:
        entry = self._entry()
        # One without a primary may have been read while it was created.
        return self._cache.reload(entry) if entry.primary is None else entry

    def _entry(self) -> Entry:
        return self._cache.entry(self._tenant)

    def _primary(self, entry: Entry) -> int:
        primary = entry.primary
        if primary is None:
            raise KeyUnavailable(
                f"tenant '{self._tenant}' has no primary key version: unless it was shredded, "
                "rotate to make one",
                subject=self._tenant,
            )
        return primary

    def _open(self, message: Buffer, aad: bytes | None, *, tried: bool) -> bytes:
        """Open any message, asking whoever must be asked, unless that was `tried` in vain."""
        if not tried:
            whole = check_message(message)
            opener = self._opener(whole)
            with suppress(InvalidTag):
                return opener.open(whole[_NONCE], body_of(whole), aad)
        raise DecryptionFailed(FAILED, subject=self._tenant)

    def _opener(self, message: bytes) -> Opener:
        entry = self._entry()
        if message[4:16] != entry.ring_id:
            raise DecryptionFailed(FAILED, subject=self._tenant)
        number = version_of(message)
        entry = self._entry_with(entry, number)
        if entry.is_imported(number):
            # An imported key opens what its old format sealed, and nothing else.
            raise DecryptionFailed(FAILED, subject=self._tenant)
        return self._cache.opener(entry, number, message[:PREFIX_SIZE], wait=self._waits)

    def _entry_with(self, entry: Entry, number: int) -> Entry:
        """Return an entry that has a version; raises `KeyNotFound`."""
        if entry.state(number) is not None:
            return entry
        # Another process may have rotated since the ring was read.
        asked = self._now()
        fresh = self._cache.reload(entry)
        if fresh.state(number) is not None:
            return fresh
        # What another thread was reading already may be older than the message.
        recent = fresh is entry or fresh.read < asked
        raise KeyNotFound(
            f"the message names version {number} of tenant '{self._tenant}', which its ring "
            + ("did not have a moment ago" if recent else "never had"),
            subject=self._tenant,
            retryable=recent,
        )


def _open_small(
    entry: Entry, messages: list[Buffer], contexts: list[Context], now: float, plains: list[bytes]
) -> None:
    """Append what is opened to `plains`, up to what is large, has no opener or does not open."""
    known: bytes | None = None
    unseal = NO_OPENER.open
    for message, context in zip(messages, contexts, strict=True):
        if context is None:
            aad = None
        elif type(context) is bytes and len(context) < MAX_CONTEXT:
            aad = b"\x01" + context
        else:
            aad = encode_context(context)
        if type(message) is not bytes or len(message) > TICK_BYTES:
            break
        prefix = message[_PREFIX]
        if prefix != known:
            opener = entry.openers.get(prefix, NO_OPENER)
            if opener.deadline <= now:
                break
            known, unseal = prefix, opener.open
        try:
            plains.append(unseal(message[_NONCE], message[_BODY], aad))
        except InvalidTag:
            break
        except ValueError:
            if len(message) >= OVERHEAD:
                raise
            break  # it is cut off in its nonce


class WarmKeys(TenantKeys):
    """Does what needs no backend and no waiting, and says so of what does."""

    __slots__ = ()
    _waits = False

    def try_encrypt(self, plaintext: Buffer, context: Context = None) -> bytes | None:
        """Encrypt if the key is at hand; `None` if a backend would have to be asked."""
        try:
            return self.encrypt(plaintext, context)
        except NotAtHandError:
            return None

    def try_decrypt(self, message: Buffer, context: Context = None) -> bytes | None:
        """Decrypt if the key is at hand; `None` if a backend would have to be asked."""
        try:
            return self.decrypt(message, context)
        except NotAtHandError:
            return None

    def _entry(self) -> Entry:
        entry = self._entries.get(self._tenant)
        if entry is None or entry.deadline <= self._now():
            raise NotAtHandError
        entry.asked = True
        return entry

    def _entry_to_seal(self) -> Entry:
        entry = self._entry()
        if entry.primary is None:
            raise NotAtHandError
        return entry

    def _entry_with(self, entry: Entry, number: int) -> Entry:
        if entry.state(number) is None:
            raise NotAtHandError
        return entry


def _check_lengths(items: int, contexts: int) -> None:
    if items != contexts:
        raise MalformedInput(f"{items} items need as many contexts, not {contexts}")
