"""Secret bytes that do not show themselves.

`KeyMaterial` and `Secret` print as redacted on every path a value takes by accident: repr, str,
format, logging, exception arguments, traceback locals, `dataclasses.asdict`. They refuse to be
pickled and no serialiser can read them. The one way to the bytes is `.reveal()`, visible in code.

What this cannot do: Python keeps copies of `bytes` that nobody can wipe. A core dump of the
process shows its keys.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn, final

from sentra_kms.errors import MalformedInput

if TYPE_CHECKING:
    from datetime import datetime


class _Redacted:
    """What both kinds share; `_data` is the only slot that holds secret bytes."""

    __slots__ = ("_data",)
    _data: bytes

    def __repr__(self) -> str:
        return f"{type(self).__name__}(redacted)"

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        # A width or a conversion changes nothing: what is formatted is never the value.
        return format(repr(self), spec) if spec.isdigit() else repr(self)

    def __copy__(self) -> _Redacted:
        return self

    def __deepcopy__(self, memo: object) -> _Redacted:
        return self

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError(f"{type(self).__name__} is never pickled: pass a reference to it instead")

    def __getstate__(self) -> NoReturn:
        raise TypeError(f"{type(self).__name__} has no state to show")

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"{type(self).__name__} cannot be changed")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"{type(self).__name__} cannot be changed")

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        from hmac import compare_digest  # loads hashlib and OpenSSL: not before it is needed

        return compare_digest(self._data, other._data)

    def __hash__(self) -> int:
        raise TypeError(f"{type(self).__name__} has no hash: it would be compared by it")

    def __bool__(self) -> bool:
        raise TypeError(f"{type(self).__name__} has no truth value: compare with None")


def _refuse_again(value: _Redacted) -> None:
    if hasattr(value, "_data"):
        raise AttributeError(f"{type(value).__name__} cannot be changed")


@final
class KeyMaterial(_Redacted):
    """A symmetric key, as bytes.

    >>> key = KeyMaterial(bytes(32))
    >>> key, len(key.reveal())
    (KeyMaterial(redacted), 32)
    >>> f"{key}"
    'KeyMaterial(redacted)'
    """

    __slots__ = ()

    def __init__(self, data: bytes) -> None:
        if type(data) is not bytes:
            raise TypeError(f"key material is made of bytes, not {type(data).__name__}")
        _refuse_again(self)
        object.__setattr__(self, "_data", data)

    def reveal(self) -> bytes:
        """Return the key's bytes. Whoever calls this answers for where they go."""
        return self._data


@final
class Secret(_Redacted):
    """A secret's value with its version and expiry.

    `version` is the source's own name of the version, or `None`; `expires` is an aware datetime,
    or `None` if it does not expire by itself. `leased` says that it was made for this process, and
    ends when this closes what it came from.

    >>> secret = Secret(b"hunter2", version="3")
    >>> secret, secret.version
    (Secret(redacted), '3')
    >>> secret.reveal()
    'hunter2'
    """

    __slots__ = ("expires", "leased", "version")
    version: str | None
    expires: datetime | None
    leased: bool

    def __init__(
        self,
        data: bytes,
        *,
        version: str | None = None,
        expires: datetime | None = None,
        leased: bool = False,
    ) -> None:
        if type(data) is not bytes:
            raise TypeError(f"a secret is made of bytes, not {type(data).__name__}")
        _refuse_again(self)
        object.__setattr__(self, "_data", data)
        object.__setattr__(self, "version", version)
        object.__setattr__(self, "expires", expires)
        object.__setattr__(self, "leased", leased)

    def reveal(self) -> str:
        """Return the value as text; raises `MalformedInput` if it is not UTF-8."""
        try:
            return self._data.decode("utf-8")
        except UnicodeDecodeError:
            pass  # the exception object holds the bytes: raise ours outside its handler
        raise MalformedInput("the secret is not UTF-8 text: use reveal_bytes()")

    def reveal_bytes(self) -> bytes:
        """Return the value as bytes."""
        return self._data
