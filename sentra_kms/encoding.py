"""The few byte encodings that every format here is built from.

Everything that is hashed, bound or authenticated is length-prefixed, so that no two different
inputs have one encoding.
"""

from __future__ import annotations

try:
    from _operator import _compare_digest as _compare  # pyright: ignore[reportPrivateUsage]
except ImportError:
    from hmac import compare_digest as _compare  # type: ignore[no-redef]

from sentra_kms.errors import MalformedInput
from sentra_kms.material import KeyMaterial


def u32(number: int) -> bytes:
    """Four bytes, big-endian.

    >>> u32(1).hex()
    '00000001'
    """
    return number.to_bytes(4, "big")


def lp(data: bytes | str) -> bytes:
    """Length-prefix: `u32be length ‖ data`; text is UTF-8.

    >>> lp("ab").hex()
    '000000026162'
    """
    raw = data.encode("utf-8") if isinstance(data, str) else data
    return len(raw).to_bytes(4, "big") + raw


def same_bytes(one: bytes, other: bytes) -> bool:
    """Whether two byte strings are equal, in a time that does not tell where they differ.

    This is `hmac.compare_digest` as Python has it without OpenSSL. cryptography's `bytes_eq` calls
    the one that comes with `hashlib`, which loads OpenSSL a second time: of what a process takes
    until its first message that would be 4 ms in 80.

    >>> same_bytes(b"ab", b"ab"), same_bytes(b"ab", b"ac"), same_bytes(b"ab", b"a")
    (True, False, False)
    """
    return _compare(one, other)


def strict_base64(text: bytes) -> bytes:
    """Decode standard, padded base64 (RFC 4648 section 4), canonical: it encodes back the same.

    Raises `MalformedInput`, which does not quote the input.

    >>> strict_base64(b"YWI=")
    b'ab'
    """
    return secret_base64(KeyMaterial(text)).reveal()


def secret_base64(text: KeyMaterial) -> KeyMaterial:
    """Decode a secret as `strict_base64` does, without a frame that shows it."""
    import binascii

    try:
        data = KeyMaterial(binascii.a2b_base64(text.reveal(), strict_mode=True))
    except binascii.Error:
        data = None
    if data is None or binascii.b2a_base64(data.reveal(), newline=False) != text.reveal():
        raise MalformedInput("not standard, padded base64 (RFC 4648 section 4)")
    return data
