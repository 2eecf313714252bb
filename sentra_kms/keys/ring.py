"""The key ring: a tenant's key versions as a value, and its JSON payload.

Specified in `docs/spec/ring.md`. Nothing here trusts a payload: it is checked whole before a
`Ring` comes of it, although it was authenticated before.
"""

# Without `from __future__ import annotations`: msgspec would compile and evaluate each of them
# anew, a millisecond of each start.

from contextlib import suppress
from datetime import UTC, datetime
from typing import Annotated, Literal, NoReturn

import msgspec
from msgspec import Meta

from sentra_kms.context import MAX_VERSION, RING_ID_SIZE, WrapContext
from sentra_kms.derive import derive
from sentra_kms.encoding import lp, u32
from sentra_kms.errors import RingRejected
from sentra_kms.material import KeyMaterial
from sentra_kms.reference import is_backend_name

FORMAT = 1
MAX_WRAPS = 16  # a version
CHECK_SIZE = 32
_TIME_SIZE = len("YYYY-MM-DDTHH:MM:SSZ")

State = Literal["enabled", "disabled", "scheduled", "destroyed"]
Origin = Literal["generated", "imported"]
Number = Annotated[int, Meta(ge=1, le=MAX_VERSION)]
Text = Annotated[str, Meta(min_length=1)]


class Wrap(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One tenant key under one KEK, named `BACKEND:KEY`."""

    kek: str
    key_id: Text
    key_version: Text | None
    ciphertext: Annotated[bytes, Meta(min_length=1)]


class Version(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One tenant key: its wraps, and what is known of it without unwrapping."""

    version: Number
    state: State
    created: str
    origin: Origin
    check: bytes
    request: Text | None
    destroy_after: str | None
    missing: tuple[str, ...]
    wraps: tuple[Wrap, ...]


class Ring(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A tenant's versions. Made by `decode`, `first_ring` and the functions that change one."""

    format: int
    tenant: str
    ring_id: bytes
    sequence: Annotated[int, Meta(ge=1, le=2**63 - 1)]
    policy: Text
    primary: Number | None
    moved_to: str | None
    versions: tuple[Version, ...]
    extensions: dict[str, msgspec.Raw]

    def find(self, number: int) -> Version | None:
        """Return a version, `None` if this ring never had it."""
        for version in self.versions:
            if version.version == number:
                return version
        return None

    def where(self, number: int) -> WrapContext:
        """Return the wrap context of a version."""
        return WrapContext(self.tenant, self.ring_id, number)

    def weight(self) -> int:
        """Return how much there is in the ring that a rotation or another KEK adds to."""
        return sum(1 + len(version.wraps) for version in self.versions)

    def next_number(self) -> int:
        """Return the number that the next version gets; raises `RingRejected` after the last."""
        number = self.versions[-1].version + 1
        if number > MAX_VERSION:
            raise RingRejected(
                f"the ring of '{self.tenant}' is full: {MAX_VERSION} is the last version number",
                subject=self.tenant,
            )
        return number


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Ring)


def encode(ring: Ring) -> bytes:
    """Return the payload of a ring, without white space; raises `RingRejected`."""
    with suppress(ValueError):  # a lone surrogate
        return _encoder.encode(ring)
    _reject(ring.tenant, "it holds text that JSON cannot")


def decode(payload: bytes, tenant: str) -> Ring:
    """Return the ring in an authenticated payload; raises `RingRejected`.

    `tenant` is whose ring was asked for; a payload that names another is refused.
    """
    failure: str
    try:
        payload.decode("utf-8")  # msgspec does not look at what it passes over
        ring = _decoder.decode(payload)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        failure = _explain(payload, str(error))
    else:
        check_ring(ring, tenant)
        if not _has_same_text(encode(ring), payload):
            _reject(tenant, "its base64 is not canonical")
        return ring
    _reject(tenant, failure)


def _has_same_text(again: bytes, payload: bytes) -> bool:
    # White space and the order of fields are free; what msgspec lets through in base64 is not.
    return again == payload or _written(again) == _written(payload)


def _written(payload: bytes) -> list[object]:
    """Return the text that stands for the bytes of a ring that was decoded."""
    fields = msgspec.json.decode(payload, type=dict[str, msgspec.Raw])
    versions = msgspec.json.decode(fields["versions"])
    found: list[object] = [msgspec.json.decode(fields["ring_id"])]
    found += [version["check"] for version in versions]
    found += [[wrap["ciphertext"] for wrap in version["wraps"]] for version in versions]
    return found


def check_ring(ring: Ring, tenant: str) -> None:
    """Raise `RingRejected` unless the ring holds every rule that its types do not."""
    _check_head(ring, tenant)
    before = 0
    for version in ring.versions:
        if version.version <= before:
            _reject(tenant, "its versions do not ascend")
        before = version.version
        _check_version(version, tenant)
    if ring.primary is not None:
        primary = ring.find(ring.primary)
        if primary is None or primary.state != "enabled" or primary.origin != "generated":
            _reject(tenant, "its primary is not an enabled, generated version")


def _check_head(ring: Ring, tenant: str) -> None:
    if ring.format != FORMAT:
        _reject(tenant, f"its format is {ring.format}, this version reads {FORMAT}")
    if ring.tenant != tenant:
        _reject(tenant, "it is the ring of another tenant")
    if len(ring.ring_id) != RING_ID_SIZE:
        _reject(tenant, f"a ring id has {RING_ID_SIZE} bytes")
    if not ring.versions:
        _reject(tenant, "it has no version")
    if any(not key.startswith("x-") for key in ring.extensions):
        _reject(tenant, "the keys of its extensions begin with 'x-'")
    if ring.moved_to is not None and not is_backend_name(ring.moved_to):
        _reject(tenant, "what it has moved to is no backend's name")


def _check_version(version: Version, tenant: str) -> None:
    where = f"version {version.version}"
    if len(version.check) != CHECK_SIZE:
        _reject(tenant, f"the check value of {where} has not {CHECK_SIZE} bytes")
    if len(version.wraps) > MAX_WRAPS:
        _reject(tenant, f"{where} has {len(version.wraps)} wraps, {MAX_WRAPS} is the bound")
    if bool(version.wraps) == (version.state == "destroyed"):
        _reject(tenant, f"{where} is {version.state} with {len(version.wraps)} wraps")
    if len({wrap.kek for wrap in version.wraps}) != len(version.wraps):
        _reject(tenant, f"{where} is wrapped twice under one KEK")
    if version.state == "scheduled" and version.destroy_after is None:
        _reject(tenant, f"{where} is scheduled without a time")
    if version.state in {"enabled", "disabled"} and version.destroy_after is not None:
        _reject(tenant, f"{where} is {version.state} with a time to destroy it")
    if not all(_is_kek(kek) for kek in (*version.missing, *(wrap.kek for wrap in version.wraps))):
        _reject(tenant, f"{where} names a KEK that is not written BACKEND:KEY")
    for text in (version.created, version.destroy_after):
        if text is not None and parse_time(text) is None:
            _reject(tenant, f"{where} has a time that is no date and time, ending in Z")


def _is_kek(name: str) -> bool:
    backend, _, key = name.partition(":")
    return is_backend_name(backend) and key != ""


def _explain(payload: bytes, error: str) -> str:
    try:
        found = msgspec.json.decode(payload, type=dict[str, msgspec.Raw]).get("format")
    except (msgspec.MsgspecError, ValueError, RecursionError):
        found = None
    if found is not None and bytes(found) != str(FORMAT).encode("ascii"):
        return f"its format is not {FORMAT}, the one that this version reads"
    return error


def _reject(tenant: str, why: str) -> NoReturn:
    raise RingRejected(f"the stored ring of '{tenant}' is not valid: {why}", subject=tenant)


def check_value(material: KeyMaterial, where: WrapContext) -> bytes:
    """Return what tells, without revealing the key, whether an unwrapped key is the right one."""
    data = lp(where.tenant) + where.ring_id + u32(where.version)
    return derive(material, "key-check/v1", data, CHECK_SIZE).reveal()


def first_ring(tenant: str, ring_id: bytes, policy: str, version: Version) -> Ring:
    """Return a new tenant's ring with its first version."""
    return Ring(
        format=FORMAT,
        tenant=tenant,
        ring_id=ring_id,
        sequence=1,
        policy=policy,
        primary=version.version,
        moved_to=None,
        versions=(version,),
        extensions={},
    )


def unsettled(ring: Ring) -> Ring:
    """Return a tenant's first ring without a primary, as long as there may be another one."""
    return msgspec.structs.replace(ring, primary=None)


def is_unsettled(ring: Ring) -> bool:
    """Whether nothing can be sealed under a ring yet, since there may be another one."""
    last = ring.versions[-1]
    return ring.primary is None and (last.state, last.origin) == ("enabled", "generated")


def in_use(ring: Ring) -> Ring:
    """Return an unsettled ring with its primary, for a save."""
    return _changed(ring, primary=ring.versions[-1].version)


def with_version(ring: Ring, version: Version) -> Ring:
    """Return the ring with one more version, which is primary."""
    return _changed(ring, primary=version.version, versions=(*ring.versions, version))


def with_versions(ring: Ring, versions: tuple[Version, ...]) -> Ring:
    """Return the ring with its versions replaced, for a save."""
    return _changed(ring, versions=versions)


def with_policy(ring: Ring, policy: str, versions: tuple[Version, ...]) -> Ring:
    """Return the ring under another policy, whose KEKs wrap its versions, for a save."""
    return _changed(ring, policy=policy, versions=versions)


def without_primary(ring: Ring, versions: tuple[Version, ...]) -> Ring:
    """Return the ring with its versions replaced and none of them primary, for a save."""
    return _changed(ring, primary=None, versions=versions)


def moved(ring: Ring, store: str) -> Ring:
    """Return the ring with the mark that it has moved to `store`, for a save where it was."""
    return _changed(ring, moved_to=store)


def moved_here(ring: Ring) -> Ring:
    """Return the ring without the mark of a move, to be created where it has moved to."""
    return _changed(ring, moved_to=None)


def _changed(ring: Ring, **fields: object) -> Ring:
    return msgspec.structs.replace(ring, sequence=ring.sequence + 1, **fields)


def new_version(
    number: int,
    created: float,
    check: bytes,
    wraps: tuple[Wrap, ...],
    request: str | None,
    missing: tuple[str, ...] = (),
) -> Version:
    """Return a generated, enabled version; `created` is in seconds since the epoch."""
    return Version(
        version=number,
        state="enabled",
        created=format_time(created),
        origin="generated",
        check=check,
        request=request,
        destroy_after=None,
        missing=missing,
        wraps=wraps,
    )


def format_time(seconds: float) -> str:
    """Return RFC 3339 to the second, in UTC.

    >>> format_time(0.0)
    '1970-01-01T00:00:00Z'
    """
    return datetime.fromtimestamp(int(seconds), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def parse_time(text: str) -> datetime | None:
    """Return the aware datetime of a ring's time, `None` if it is none, or written otherwise."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    if len(text) != _TIME_SIZE or found.isoformat() != text.removesuffix("Z") + "+00:00":
        return None
    return found
