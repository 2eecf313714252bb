r"""The authenticated envelope of a stored ring: one header line, then the payload.

`"sentra-ring 1 " ‖ hex(auth id) ‖ " " ‖ hex(mac) ‖ "\n" ‖ payload`. It is verified before
anything in it is parsed and before any KMS is asked, with a key that neither the store's writers
nor whoever may encrypt under the KEK can have: `authenticate_with`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import partial
from typing import NoReturn

from cryptography.hazmat.primitives.hashes import SHA512
from cryptography.hazmat.primitives.hmac import HMAC

from sentra_kms.derive import Label, derive
from sentra_kms.encoding import lp, same_bytes
from sentra_kms.errors import KMSError, RingRejected
from sentra_kms.keys.flight import SingleFlight
from sentra_kms.material import KeyMaterial

MAX_DOCUMENT = 256 * 1024  # bytes
MAC_SIZE = 32
AUTH_ID_SIZE = 8
_MAGIC = b"sentra-ring "
_HEX_DIGITS = b"0123456789abcdef"
_HEADER_SIZE = len(_MAGIC) + len("1 ") + 2 * AUTH_ID_SIZE + len(" ") + 2 * MAC_SIZE + len("\n")


class AuthKey:
    """A ring authentication key: `label` says in errors where it came from."""

    def __init__(self, label: str, material: KeyMaterial) -> None:
        self.label = label
        self.auth_id: str = derive(material, "ring-auth-id/v1", b"", AUTH_ID_SIZE).reveal().hex()
        self._material = material

    def mac(self, tenant: str, payload: bytes) -> bytes:
        """Return the MAC of a tenant's payload under this key."""
        key = derive(self._material, "ring-mac/v1", lp(tenant), 32)
        code = HMAC(key.reveal(), SHA512())
        code.update(_MAGIC + b"1 " + self.auth_id.encode("ascii") + b"\n")
        code.update(payload)
        return code.finalize()[:MAC_SIZE]

    def mac_under(self, label: Label, tenant: str, data: bytes) -> bytes:
        """Return the MAC that ends a receipt or a backup's record: over all bytes before it."""
        code = HMAC(derive(self._material, label, lp(tenant), 32).reveal(), SHA512())
        code.update(data)
        return code.finalize()[:MAC_SIZE]


class Authenticator:
    """Signs documents with the first of its keys and verifies them with any.

    `sources` yield the keys in order, each fetched when it is first needed and then kept. Who
    needs one that is being fetched waits for that, and shares its failure.
    """

    def __init__(self, sources: Sequence[Callable[[], AuthKey]]) -> None:
        self._sources = tuple(sources)
        self._keys: dict[int, AuthKey] = {}
        self._fetches: SingleFlight[AuthKey] = SingleFlight()

    def sign(self, tenant: str, payload: bytes, *, room: int = 0) -> bytes:
        """Return the document of a payload; raises `RingRejected` if it would be too large.

        So it is, too, if it left less than `room` bytes.
        """
        key = self._key(0)
        mac = key.mac(tenant, payload).hex()
        header = f"sentra-ring 1 {key.auth_id} {mac}\n".encode("ascii")
        if len(header) + len(payload) > MAX_DOCUMENT - room:
            raise RingRejected(
                f"the ring of '{tenant}' is full: with this change it would pass "
                f"{MAX_DOCUMENT - room} bytes, and it was not saved. Destroy versions that nothing "
                "needs, or name fewer KEKs in wrap_with and rewrap it",
                subject=tenant,
            )
        return header + payload

    def verify(self, tenant: str, document: bytes) -> bytes:
        """Return the payload of an authentic document; raises `RingRejected`."""
        if len(document) > MAX_DOCUMENT:
            _reject(tenant, f"it is larger than any ring ({MAX_DOCUMENT} bytes)")
        header = _parse_header(document[:_HEADER_SIZE])
        if header is None:
            _reject(tenant, _what_header(document))
        auth_id, mac = header
        key = self._find(_ring_of(tenant), tenant, auth_id)
        payload = document[_HEADER_SIZE:]
        if not same_bytes(key.mac(tenant, payload), mac):
            _reject(
                tenant,
                "its MAC is wrong: it was changed, or is another tenant's, since it was saved. "
                "Restore it from a backup",
            )
        return payload

    def signer(self) -> AuthKey:
        """Return the first key, which signs."""
        return self._key(0)

    def verify_mac(
        self, label: Label, tenant: str, auth_id: str, data: bytes, mac: bytes, *, what: str
    ) -> None:
        """Raise `RingRejected` unless the key of this auth id made the MAC; `what` names whose."""
        key = self._find(what, tenant, auth_id)
        if not same_bytes(key.mac_under(label, tenant, data), mac):
            _refuse(what, tenant, "its MAC is wrong: it was changed since it was made")

    def signs_as(self, auth_id: str) -> bool:
        """Whether the key that signs is the one with this auth id."""
        return self._key(0).auth_id == auth_id

    def clear(self) -> None:
        """Forget the keys that were fetched, and keep none that is being fetched."""
        before, self._keys = self._keys, {}
        before.clear()

    def _find(self, what: str, tenant: str, auth_id: str) -> AuthKey:
        # What is at hand first: a source that does not answer holds up one reader and not all.
        for key in list(self._keys.values()):
            if key.auth_id == auth_id:
                return key
        known: list[str] = []
        failure: KMSError | None = None
        for index in range(len(self._sources)):
            try:
                key = self._key(index)
            except KMSError as error:
                failure = failure or error
                continue
            if key.auth_id == auth_id:
                return key
            known.append(f"{key.auth_id} ({key.label})")
        if failure is not None:
            # The key that could not be fetched may be the right one.
            raise failure
        _refuse(
            what,
            tenant,
            f"it is authenticated by a key with id {auth_id}, configured are "
            f"{', '.join(known)}: another master key? Add the one that signed it to "
            "authenticate_with",
        )

    def _key(self, index: int) -> AuthKey:
        found = self._keys.get(index)
        return found or self._fetches.do(index, partial(self._fetched, index))

    def _fetched(self, index: int) -> AuthKey:
        keys = self._keys
        # The flight before this one may have landed since this thread looked.
        found = keys.get(index) or self._sources[index]()
        keys[index] = found
        return found


def signer_of(document: bytes) -> str:
    """Return the auth id in a document that verified."""
    return document[len(_MAGIC) + 2 :][: 2 * AUTH_ID_SIZE].decode("ascii")


def _parse_header(line: bytes) -> tuple[str, bytes] | None:
    """Return auth id and MAC of a document's first line, `None` if it is none of format 1."""
    words = line[:-1].split(b" ")
    if len(line) != _HEADER_SIZE or line[-1:] != b"\n" or len(words) != 4:
        return None
    magic, number, auth_id, mac = words
    if magic + b" " != _MAGIC or number != b"1" or len(mac) != 2 * MAC_SIZE:
        return None
    if (auth_id + mac).strip(_HEX_DIGITS):
        return None
    return auth_id.decode("ascii"), bytes.fromhex(mac.decode("ascii"))


def _what_header(document: bytes) -> str:
    found = re.match(rb"sentra-ring ([0-9]{1,9}) ", document)
    if found is not None and found[1] != b"1":
        return f"its format is {found[1].decode('ascii')}, this version reads 1: upgrade sentra_kms"
    return "it does not begin like a ring: truncated, edited, or another file"


def _ring_of(tenant: str) -> str:
    return f"the stored ring of '{tenant}'"


def _reject(tenant: str, why: str) -> NoReturn:
    _refuse(_ring_of(tenant), tenant, why)


def _refuse(what: str, tenant: str, why: str) -> NoReturn:
    raise RingRejected(f"{what} was refused: {why}", subject=tenant)
