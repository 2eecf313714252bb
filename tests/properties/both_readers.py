"""The package and the independent reader before one payload: both take it, alike, or neither."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

from sentra_kms.errors import RingRejected
from sentra_kms.keys.document import Authenticator, AuthKey
from sentra_kms.keys.ring import Ring, decode, encode
from sentra_kms.material import KeyMaterial
from tests.reader import reader, writer

KEY = bytes(range(32))
AUTHENTICATOR = Authenticator([lambda: AuthKey("a key", KeyMaterial(KEY))])


def read_by_both(payload: bytes, tenant: str) -> Ring | None:
    """Read a payload that a key holder signed with both readers; `None` if both refuse it."""
    signed = writer.sign(KEY, tenant, payload)
    assert AUTHENTICATOR.verify(tenant, signed) == payload
    ours: Ring | None = None
    refusal = ""
    try:
        ours = decode(payload, tenant)
    except RingRejected as error:
        refusal = error.message
        assert error.__cause__ is None
        assert error.subject == tenant
    try:
        theirs = reader.open_ring(signed, tenant, [KEY])
    except reader.RingRejected as error:
        assert ours is None, f"only the independent reader refuses it: {error}"
        return None
    if ours is None and has_a_field_twice(payload):
        return None  # which a reader need not notice, and may
    assert ours is not None, f"only the package refuses it: {refusal}"
    assert fields_of(ours) == fields_of_reader(theirs)
    return ours


def has_a_field_twice(payload: bytes) -> bool:
    """Whether an object in the payload has one name twice."""
    found = False

    def look(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        nonlocal found
        found = found or len(dict(pairs)) < len(pairs)
        return dict(pairs)

    json.loads(payload, object_pairs_hook=look)
    return found


def fields_of(ring: Ring) -> dict[str, Any]:
    """What the package read."""
    whole: dict[str, Any] = json.loads(encode(ring))
    return whole


def time_of(when: datetime) -> str:
    """A time as a ring writes it."""
    return when.isoformat().removesuffix("+00:00") + "Z"


def fields_of_reader(ring: reader.Ring) -> dict[str, Any]:
    """What the independent reader read, as the payload that it would write."""
    return {
        "format": 1,
        "tenant": ring.tenant,
        "ring_id": writer.b64(ring.ring_id),
        "sequence": ring.sequence,
        "policy": ring.policy,
        "primary": ring.primary,
        "moved_to": ring.moved_to,
        "versions": [
            {
                "version": version.number,
                "state": version.state,
                "created": time_of(version.created),
                "origin": version.origin,
                "check": writer.b64(version.check),
                "request": version.request,
                "destroy_after": version.destroy_after and time_of(version.destroy_after),
                "missing": list(version.missing),
                "wraps": [
                    {
                        "kek": wrap.kek,
                        "key_id": wrap.key_id,
                        "key_version": wrap.key_version,
                        "ciphertext": writer.b64(wrap.ciphertext),
                    }
                    for wrap in version.wraps
                ],
            }
            for version in ring.versions.values()
        ],
        "extensions": ring.extensions,
    }
