"""Somebody who writes the store of rings, encrypts under the KEKs, and lacks one key.

They have every document that the store ever held, of every tenant, a tenant of their own whose key
they came to know, and both KEKs for *wrapping* (an RSA public key is enough for that). They do not
have what authenticates rings, and can unwrap nothing.
"""

from __future__ import annotations

import base64
import json
import secrets
from collections.abc import Callable
from typing import Any

from sentra_kms.backends.master_key import MasterKey
from sentra_kms.context import WrapContext
from sentra_kms.keys.document import AuthKey
from sentra_kms.keys.message import BODY_START, PREFIX_SIZE, Opener
from sentra_kms.keys.ring import check_value
from sentra_kms.material import KeyMaterial
from sentra_kms.runtime import KMS
from tests.keys.conftest import Site

KEKS = ("local:m1", "spare:m2")
HEADER = 96  # bytes before the payload
KNOWN = KeyMaterial(b"a tenant key that they do know..")

Fields = dict[str, Any]
Forge = Callable[["Attacker", bytes], bytes]
Attack = Callable[["Attacker"], bytes]


class Scene:
    """Rings under two KEKs and an authentication key of its own, and what was sealed under them."""

    def __init__(self, site: Site) -> None:
        self.site = site
        kms = self.witness = self.open()
        self.messages: list[bytes] = []
        for tenant in ("acme", "Acme", "mallory"):
            kms.keys.create(tenant)
        self.messages.append(kms.keys.encrypt("acme", b"x"))
        self.past = [site.document()]
        for request in (None, "r-1"):
            kms.keys.rotate("acme", request_id=request)
            self.messages.append(kms.keys.encrypt("acme", b"x"))
            self.past.append(site.document())
        self.sign_and_put(with_state(site.payload(), 2, "disabled"))
        self.past.append(site.document())

    def open(self, *wrap_with: str, **options: Any) -> KMS:
        """Open a KMS as each process of the fleet does."""
        options.setdefault("authenticate_with", (self.site.reference("auth"),))
        return self.site.open(*(wrap_with or KEKS), **options)

    def auth_key(self, name: str = "auth") -> AuthKey:
        """Return what the attacker lacks."""
        return AuthKey(name, KeyMaterial(base64.b64decode(self.site.secret(name))))

    def sign(self, payload: bytes, tenant: str = "acme") -> bytes:
        """Return a document as only a holder of the authentication key can."""
        return document(self.auth_key(), payload, tenant)

    def sign_and_put(self, fields: Fields, *, up: int = 1) -> None:
        """Store a ring as a writer with the authentication key would, `up` above its sequence."""
        self.site.put(self.sign(text({**fields, "sequence": fields["sequence"] + up})))


class Attacker:
    """What they have of the scene."""

    def __init__(self, scene: Scene) -> None:
        site = scene.site
        self.past = list(scene.past)
        self.others = {tenant: site.document(tenant) for tenant in ("Acme", "mallory")}
        self._keks = {kek: MasterKey(KeyMaterial(site.secret(kek[-2:]))) for kek in KEKS}

    @property
    def current(self) -> bytes:
        """The ring as it is stored."""
        return self.past[-1]

    def fields(self) -> Fields:
        """Return the fields of the ring as it is stored, to be changed."""
        return payload_of(self.current)

    def wrap(self, key: KeyMaterial, where: WrapContext, kek: str = KEKS[0]) -> Fields:
        """Encrypt under a KEK, for any place."""
        made = self._keks[kek].wrap(key, where)
        return {
            "kek": kek,
            "key_id": made.key_id,
            "key_version": made.key_version,
            "ciphertext": base64.b64encode(made.ciphertext).decode(),
        }

    def known_version(self, fields: Fields, number: int) -> Fields:
        """Return a version in which all is right, and whose key they know."""
        where = place(fields, number)
        return {
            **fields["versions"][0],
            "version": number,
            "state": "enabled",
            "check": base64.b64encode(check_value(KNOWN, where)).decode(),
            "wraps": [self.wrap(KNOWN, where, kek) for kek in KEKS],
        }

    def appended(self, *, primary: bool = True) -> bytes:
        """Return the payload with one more version, which they know."""
        fields = self.fields()
        fields["versions"].append(self.known_version(fields, 4))
        return text(raised(fields) | ({"primary": 4} if primary else {}))

    def replaced(self) -> bytes:
        """Return the payload with the primary replaced by a version that they know."""
        fields = self.fields()
        fields["versions"][2] = self.known_version(fields, 3)
        return text(raised(fields))

    def renewed(self) -> bytes:
        """Return the payload of a ring that is all theirs, for the same tenant."""
        fields = self.fields()
        fields |= {"ring_id": base64.b64encode(secrets.token_bytes(12)).decode(), "primary": 1}
        fields["versions"] = [self.known_version(fields, 1)]
        return text(raised(fields))


def reads(message: bytes, fields: Fields) -> bytes:
    """Return the plaintext of a message that was sealed under the key they know."""
    assert message[4:16] == base64.b64decode(fields["ring_id"])
    opener = Opener(KNOWN, fields["tenant"], message[:PREFIX_SIZE], float("inf"))
    return opener.open(message[PREFIX_SIZE:BODY_START], message[BODY_START:], None)


def text(fields: Fields) -> bytes:
    """Return a payload as the library writes it."""
    return json.dumps(fields, separators=(",", ":")).encode()


def payload_of(stored: bytes) -> Fields:
    """Return the fields of a document."""
    fields: Fields = json.loads(stored[HEADER:])
    return fields


def raised(fields: Fields) -> Fields:
    """Return the fields with the next sequence."""
    return {**fields, "sequence": fields["sequence"] + 1}


def with_state(fields: Fields, number: int, state: str) -> Fields:
    """Return the fields with a version in another state."""
    fields["versions"][number - 1]["state"] = state
    return fields


def place(fields: Fields, number: int) -> WrapContext:
    """Return the wrap context of a version."""
    return WrapContext(fields["tenant"], base64.b64decode(fields["ring_id"]), number)


def document(key: AuthKey, payload: bytes, tenant: str, auth_id: str | None = None) -> bytes:
    """Return a document under an authentication key, or under its MAC and another id."""
    mac = key.mac(tenant, payload).hex()
    return f"sentra-ring 1 {auth_id or key.auth_id} {mac}\n".encode() + payload


# --- how they would authenticate what they wrote ----------------------------------------------


def _id_of(attacker: Attacker) -> str:
    return attacker.current[14:30].decode()


def _with_key(key: KeyMaterial, *, own_id: bool) -> Forge:
    def forge(attacker: Attacker, payload: bytes) -> bytes:
        auth_id = None if own_id else _id_of(attacker)
        return document(AuthKey("theirs", key), payload, "acme", auth_id)

    return forge


def _with_mac(mac: bytes) -> Forge:
    return lambda attacker, payload: (
        b"sentra-ring 1 " + _id_of(attacker).encode() + b" " + mac + b"\n" + payload
    )


FORGERIES: dict[str, Forge] = {
    "the ring's own header": lambda attacker, payload: attacker.current[:HEADER] + payload,
    "the first ring's header": lambda attacker, payload: attacker.past[0][:HEADER] + payload,
    "their tenant's header": lambda attacker, payload: (
        attacker.others["mallory"][:HEADER] + payload
    ),
    "a key of theirs": _with_key(KeyMaterial(b"\x55" * 32), own_id=True),
    "a key of theirs under the ring's auth id": _with_key(KeyMaterial(b"\x55" * 32), own_id=False),
    "the tenant key that they know": _with_key(KNOWN, own_id=True),
    "the tenant key that they know under the ring's auth id": _with_key(KNOWN, own_id=False),
    "zeros": _with_mac(b"0" * 64),
    "no MAC": _with_mac(b""),
    "half a MAC": lambda attacker, payload: attacker.current[:63] + b"\n" + payload,
}
"""What stands before a payload of theirs, by its name."""
