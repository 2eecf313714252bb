"""Bytes and keys that every run makes alike, and the rings that several vectors share."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

from tests.reader import writer
from tests.reader.reader import MasterKey


def fixed(label: str, size: int) -> bytes:
    """Bytes that look random and depend on the label alone."""
    return hashlib.shake_256(b"sentra_kms vectors: " + label.encode()).digest(size)


# Master keys as their sources hold them: base64 text.
RAW_MASTERS = {f"local:k{n}": writer.b64(fixed(f"master k{n}", 32)).encode("ascii") for n in (1, 2)}
MASTERS = {kek: MasterKey.read(raw) for kek, raw in RAW_MASTERS.items()}
AUTH_KEY = fixed("a ring authentication key of its own", 32)


@dataclass(frozen=True)
class FixedRing:
    """A ring to make vectors of: where its keys come from, and its payload before signing."""

    tenant: str
    ring_id: bytes
    keys: dict[int, bytes]
    payload: dict[str, Any]

    def document(self) -> bytes:
        """The document signed by `local:k1`'s authentication key."""
        return sign(self.tenant, self.payload)


def sign(tenant: str, payload: object) -> bytes:
    """Sign a payload with `local:k1`'s authentication key."""
    return writer.sign(MASTERS["local:k1"].auth_key, tenant, writer.to_json(payload))


def ring(
    tenant: str,
    versions: int = 1,
    *,
    label: str | None = None,
    keks: tuple[str, ...] = ("local:k1",),
) -> FixedRing:
    """A ring of enabled, generated versions; two rings of one label share ring id and keys."""
    label = label or tenant
    ring_id = fixed(f"ring id {label}", 12)
    keys = {n: fixed(f"tenant key {label} {n}", 32) for n in range(1, versions + 1)}
    records = []
    for number, key in keys.items():
        wraps = [
            writer.wrap_record(
                kek,
                MASTERS[kek],
                writer.wrap_local(
                    MASTERS[kek], key, tenant, ring_id, number,
                    fixed(f"wrap salt {tenant} {number} {kek}", 16),
                ),
            )
            for kek in keks
        ]  # fmt: skip
        records.append(writer.version_record(key, tenant, ring_id, number, wraps))
    return FixedRing(tenant, ring_id, keys, writer.ring_payload(tenant, ring_id, records))


def ring_of_states() -> FixedRing:
    """One version of every state and origin: disabled, scheduled, destroyed, imported, enabled."""
    made = ring("states", 5)
    first, second, third, fourth, _ = made.payload["versions"]
    first["state"] = "disabled"
    second.update(state="scheduled", destroy_after="2026-03-01T00:00:00Z")
    third.update(state="destroyed", wraps=[])
    fourth["origin"] = "imported"
    return made


def ring_shredded() -> FixedRing:
    """All versions destroyed, no primary."""
    made = ring("shredded", 2)
    for version in made.payload["versions"]:
        version.update(state="destroyed", wraps=[])
    made.payload["primary"] = None
    return made
