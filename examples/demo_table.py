"""A table whose sensitive fields are encrypted one by one, and what that costs."""

from __future__ import annotations

import base64
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from demo_data import SENSITIVE

import sentra_kms
from sentra_kms.binding import Binding
from sentra_kms.context import WrapContext
from sentra_kms.hooktypes import WrappedKey
from sentra_kms.material import KeyMaterial

Row = dict[str, str]


@dataclass
class Cost:
    """What a pass over the table took; `inside` is the seconds spent in sentra_kms."""

    fields: int = 0
    plain_bytes: int = 0
    message_bytes: int = 0
    seconds: float = 0.0
    inside: float = 0.0

    def lines(self) -> tuple[tuple[str, str], ...]:
        """Return what to show of it: label and text."""
        return (
            ("time", f"{self.seconds:.2f} s for {self.fields:,} fields, from file to file"),
            ("in sentra_kms", f"{self.inside / self.fields * 1e6:.1f} µs a field"),
        )


class KekCounter:
    """Counts wraps and unwraps: what would be calls to a key service, slow and paid for.

    In an application an observer sees them, which an installed distribution brings. Here nothing is
    to be installed, so this stands where each of them passes on its way to a backend.
    """

    def __init__(self) -> None:
        self._wraps = self._unwraps = 0
        counter, wrap, unwrap = self, Binding.wrap_key, Binding.unwrap_key

        def counted_wrap(
            self: Binding, key: str, material: KeyMaterial, context: WrapContext
        ) -> WrappedKey:
            counter._wraps += 1
            return wrap(self, key, material, context)

        def counted_unwrap(
            self: Binding, key: str, wrapped: WrappedKey, context: WrapContext
        ) -> KeyMaterial:
            counter._unwraps += 1
            return unwrap(self, key, wrapped, context)

        Binding.wrap_key = counted_wrap  # type: ignore[method-assign]
        Binding.unwrap_key = counted_unwrap  # type: ignore[method-assign]

    def take(self) -> tuple[int, int]:
        """Return the wraps and the unwraps since this was last asked."""
        found = self._wraps, self._unwraps
        self._wraps = self._unwraps = 0
        return found


def place(row: Row, column: str) -> dict[str, str]:
    """Return the context that binds a field to where it stands."""
    return {"table": "patients", "column": column, "id": row["id"]}


def seal(kms: sentra_kms.KMS, rows: Iterable[Row], cost: Cost) -> Iterator[Row]:
    """Yield each row with its sensitive fields encrypted under its clinic's key, in base64."""
    started = time.perf_counter()
    for row in rows:
        keys = kms.keys.tenant(row["clinic"])
        fields = [(row[column].encode(), place(row, column)) for column in SENSITIVE]
        begun = time.perf_counter()
        messages = [keys.encrypt(plain, context=context) for plain, context in fields]
        cost.inside += time.perf_counter() - begun
        cost.fields += len(messages)
        cost.plain_bytes += sum(len(plain) for plain, _ in fields)
        cost.message_bytes += sum(len(message) for message in messages)
        cells = [base64.b64encode(message).decode() for message in messages]
        yield row | dict(zip(SENSITIVE, cells, strict=True))
    cost.seconds += time.perf_counter() - started


def unseal(kms: sentra_kms.KMS, rows: Iterable[Row], cost: Cost) -> Iterator[Row]:
    """Yield each row with its sensitive fields decrypted."""
    started = time.perf_counter()
    for row in rows:
        keys = kms.keys.tenant(row["clinic"])
        fields = [(message_in(row, column), place(row, column)) for column in SENSITIVE]
        begun = time.perf_counter()
        plains = [keys.decrypt(message, context=context) for message, context in fields]
        cost.inside += time.perf_counter() - begun
        cost.fields += len(plains)
        texts = [plain.decode() for plain in plains]
        yield row | dict(zip(SENSITIVE, texts, strict=True))
    cost.seconds += time.perf_counter() - started


def message_in(row: Row, column: str) -> bytes:
    """Return the message in a cell."""
    return base64.b64decode(row[column])


def version_of(message: bytes) -> int:
    """Return the key version, which a message names in the clear."""
    return int.from_bytes(message[16:20], "big")
