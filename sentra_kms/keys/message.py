"""Message format v1: sealing and opening one buffer under a tenant key.

`"SK" ‖ format 1 ‖ suite 1 ‖ ring id[12] ‖ u32be version ‖ salt[16] ‖ commitment[32] ‖ nonce[12] ‖
ciphertext ‖ tag[16]`, specified in `docs/spec/message.md`.

A writer keeps one salt, an *epoch*, so that subkey and prefix are derived once; the nonce is
drawn anew from the system inside each call, since a process that was forked or restored from a
snapshot would repeat a pool of them.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from io import BytesIO
from itertools import islice, repeat
from operator import length_hint

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from sentra_kms.derive import derive
from sentra_kms.encoding import lp, same_bytes, u32
from sentra_kms.errors import DecryptionFailed, MalformedInput
from sentra_kms.material import KeyMaterial

Buffer = bytes | bytearray | memoryview
"""What may be encrypted and decrypted; results are always bytes."""

Cipher = Callable[[Buffer, Buffer, Buffer | None], bytes]
"""Nonce, data and associated data to data; AES-256-GCM under one subkey."""

CipherInto = Callable[[bytes, bytes, bytes | None, memoryview], int]
"""The same into a place of its own; returns how many bytes it took."""

MAGIC = b"SK\x01\x01"  # then format 1, suite 1
HEADER_SIZE = 20
SALT_SIZE = 16
PREFIX_SIZE = 68
NONCE_SIZE = 12
BODY_START = PREFIX_SIZE + NONCE_SIZE
OVERHEAD = 96
MAX_PLAINTEXT = 64 * 1024 * 1024
MAX_MESSAGE = OVERHEAD + MAX_PLAINTEXT

EPOCH_TICKS = 2**16
TICK_BYTES = 2**14
"""A message costs one tick for each 16 KiB begun: 2^16 ticks are never more than 2^16 messages
nor 1 GiB, and one counter keeps both bounds."""

GIL_KEPT = 2**11
"""Smaller plaintexts are sealed without letting other Python threads run (cryptography 50)."""
JOINED = 2**16
"""Smaller messages are put together out of their parts, larger ones sealed in their place."""
SLICED = TICK_BYTES
"""The body of a message up to this size is opened as a copy, of a larger one as a view."""
# Each bound is where the other way is faster: docs/adr/0008-nonces-and-large-messages.md

NEVER = float("-inf")
"""The deadline of what serves no more."""

FAILED = "the message does not open: it was changed, or tenant, context or key are not its own"


_NO_USES: Iterator[tuple[bytes, Cipher]] = iter(())


class Sealer:
    """A writer's subkey for one prefix. Each message that it seals needs a tick of its epoch."""

    __slots__ = ("prefix", "seal", "seal_into")

    def __init__(self, key: KeyMaterial, tenant: str, ring_id: bytes, version: int) -> None:
        header = MAGIC + ring_id + u32(version)
        salt = os.urandom(SALT_SIZE)
        block = _derive(key, tenant, header, salt)
        self.prefix: bytes = header + salt + block.reveal()[32:]
        cipher = AESGCM(block.reveal()[:32])
        self.seal: Cipher = cipher.encrypt
        self.seal_into: CipherInto = cipher.encrypt_into

    def message(self, nonce: bytes, plaintext: bytes, aad: bytes | None) -> bytes:
        """Return a plaintext, for which ticks were drawn, as a message under a new nonce."""
        if len(plaintext) < JOINED:
            return self.prefix + nonce + self.seal(nonce, plaintext, aad)
        whole = BytesIO(bytes(OVERHEAD + len(plaintext)))
        with whole.getbuffer() as view, view[BODY_START:] as body:
            view[:BODY_START] = self.prefix + nonce
            self.seal_into(nonce, plaintext, aad, body)
        return whole.getvalue()  # itself, and no copy: nobody else holds it


class Epoch:
    """How long a sealer serves. `deadline` and `expires` are monotonic seconds.

    `deadline` is when the ring must be looked at again, `expires` when the epoch itself ends.
    Each tick drawn from `uses` is leave to seal one message of at most `TICK_BYTES`, and brings
    what that takes: prefix and cipher. Handles keep their epoch and ask nobody whether it still
    serves, so whoever forgets one has to `end` it.
    """

    __slots__ = ("deadline", "expires", "left", "sealer", "uses", "version")

    def __init__(self, sealer: Sealer, version: int, expires: float) -> None:
        self.version: int = version
        self.sealer: Sealer | None = sealer
        # Drawing is one bytecode's work: no two threads draw the same tick.
        self.uses: Iterator[tuple[bytes, Cipher]] = repeat(
            (sealer.prefix, sealer.seal), EPOCH_TICKS
        )
        self.expires: float = expires
        self.deadline: float = expires
        self.left: int = EPOCH_TICKS

    def draw(self, cost: int) -> Sealer | None:
        """Draw `cost` ticks; return what they are for, if all of them lie within the bound."""
        sealer = self.sealer
        return sealer if len(list(islice(self.uses, cost))) == cost else None

    def end(self) -> None:
        """Give no more ticks, whoever holds this and whatever its times become, nor keep a key."""
        self.uses = _NO_USES  # at first: a signal handler may raise before the rest
        self.sealer = None
        self.deadline = NEVER

    def was_used(self) -> bool:
        """Whether ticks were drawn since this was asked the last time; draws none."""
        left = length_hint(self.uses)
        used, self.left = left != self.left, left
        return used


def _no_epoch() -> Epoch:
    epoch = Epoch.__new__(Epoch)
    epoch.end()
    return epoch


NO_EPOCH = _no_epoch()
"""What stands where there is no epoch: nobody seals with it."""


class Opener:
    """A reader's subkey for one prefix, made of `key`. `deadline` is as an epoch's."""

    __slots__ = ("deadline", "key", "open", "prefix", "version")

    def __init__(self, key: KeyMaterial, tenant: str, prefix: bytes, deadline: float) -> None:
        header, salt = prefix[:HEADER_SIZE], prefix[HEADER_SIZE : HEADER_SIZE + SALT_SIZE]
        block = _derive(key, tenant, header, salt)
        if not same_bytes(block.reveal()[32:], prefix[HEADER_SIZE + SALT_SIZE :]):
            raise DecryptionFailed(FAILED, subject=tenant)
        self.version: int = version_of(prefix)
        self.prefix: bytes = prefix
        self.key: KeyMaterial = key
        self.open: Cipher = AESGCM(block.reveal()[:32]).decrypt
        self.deadline: float = deadline


def body_of(message: bytes) -> Buffer:
    """Return what is sealed of a message: a view where a copy would cost more."""
    return message[BODY_START:] if len(message) <= SLICED else memoryview(message)[BODY_START:]


def _open_nothing(nonce: Buffer, data: Buffer, aad: Buffer | None) -> bytes:
    raise InvalidTag


def _no_opener() -> Opener:
    opener = Opener.__new__(Opener)
    opener.prefix, opener.version, opener.open = b"", 0, _open_nothing
    opener.deadline = NEVER
    return opener


NO_OPENER = _no_opener()
"""What stands where there is no opener: no message has its prefix."""


def _random() -> Callable[[int], bytes]:
    with suppress(AttributeError, OSError):  # not Linux, or a sandbox that refuses it
        os.getrandom(NONCE_SIZE, os.GRND_NONBLOCK)
        return os.getrandom
    return os.urandom


quick_random: Callable[[int], bytes] = _random()
"""`os.urandom`, or what it asks on Linux, without letting other Python threads run meanwhile.

Gives all of up to 256 bytes (getrandom(2)); raises `OSError` with one of `REFUSALS` if a sandbox
refuses it later on.
"""
REFUSALS = (errno.EPERM, errno.ENOSYS)
"""What `os.urandom` gets along with, by reading /dev/urandom."""


def ticks(size: int) -> int:
    """Return what a plaintext of `size` bytes costs its epoch."""
    return max(1, -(-size // TICK_BYTES))


def version_of(message: bytes) -> int:
    """Return the key version that a message's header names."""
    return int.from_bytes(message[16:20], "big")


def check_plaintext(plaintext: Buffer) -> bytes:
    """Return the plaintext as bytes; raises `MalformedInput` for another type or over 64 MiB."""
    if type(plaintext) is bytes and len(plaintext) <= MAX_PLAINTEXT:
        return plaintext
    with _view(plaintext, "a plaintext") as view:
        if view.nbytes > MAX_PLAINTEXT:
            raise MalformedInput(
                f"a message has at most {MAX_PLAINTEXT} bytes of plaintext, this one {view.nbytes}"
            )
        return bytes(view)


def check_message(message: Buffer) -> bytes:
    """Return a message of the right form as bytes; raises `MalformedInput`."""
    with _view(message, "a message") as view:
        if not OVERHEAD <= view.nbytes <= MAX_MESSAGE:
            raise MalformedInput(
                f"a message has {OVERHEAD} to {MAX_MESSAGE} bytes, this has {view.nbytes}"
            )
        whole = message if type(message) is bytes else bytes(view)
    if not whole.startswith(MAGIC):
        if whole[:2] != MAGIC[:2]:
            raise MalformedInput("not a message of sentra_kms: it does not begin with 'SK'")
        raise MalformedInput(
            f"the message has format {whole[2]} and suite {whole[3]}; this version reads format 1, "
            "suite 1"
        )
    return whole


def _view(data: Buffer, what: str) -> memoryview:
    """Return what is really in a buffer, whatever a subclass of its type says of itself."""
    if isinstance(data, (bytes, bytearray, memoryview)):
        with suppress(ValueError):
            return memoryview(data)
        raise MalformedInput(f"{what} is a memoryview that was released")
    raise MalformedInput(f"{what} is bytes, not {type(data).__name__}: encode it first")


def _derive(key: KeyMaterial, tenant: str, header: bytes, salt: bytes) -> KeyMaterial:
    return derive(key, "message/v1", lp(tenant) + header + salt, 64)
