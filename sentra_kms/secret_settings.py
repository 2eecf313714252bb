"""The table `[ENV.secrets]`, checked, as records."""

from __future__ import annotations

import msgspec

from sentra_kms.reference import Reference


class SecretSource(msgspec.Struct, frozen=True):
    """References in the order in which they are asked, and what is done to the value found."""

    references: tuple[Reference, ...]
    transforms: tuple[str, ...] = ()


class TemplatePiece(msgspec.Struct, frozen=True):
    """Text as it stands, then one part's value, URL-quoted unless `raw`; `part` may be absent."""

    text: str
    part: str | None = None
    raw: bool = False


class SecretEntry(msgspec.Struct, frozen=True):
    """One entry of `[ENV.secrets]`; times in seconds.

    Without a `template` its value is that of the only part, which is called `""`.
    """

    parts: dict[str, SecretSource]
    template: tuple[TemplatePiece, ...] = ()
    ttl: float | None = None
    max_age: float | None = None
