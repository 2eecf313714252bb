"""Signed JWTs, as an issuer makes them: RS256 of RFC 7518, in the compact form of RFC 7515."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa


class Issuer:
    """Signs claims with an RSA key of its own."""

    def __init__(self) -> None:
        self._key = rsa.generate_private_key(public_exponent=65537, key_size=2048)

    @property
    def public_pem(self) -> str:
        """The public key, PEM."""
        return (
            self._key.public_key()
            .public_bytes(
                serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
            )
            .decode()
        )

    @property
    def jwks(self) -> bytes:
        """The public key as a set of one, as a provider publishes it (RFC 7517)."""
        public = self._key.public_key().public_numbers()
        key = {
            "kty": "RSA", "alg": "RS256", "use": "sig",
            "n": _part(public.n.to_bytes(256)), "e": _part(public.e.to_bytes(3)),
        }  # fmt: skip
        return json.dumps({"keys": [key]}).encode()

    def sign(self, claims: Mapping[str, object]) -> str:
        """Return a JWT with these claims."""
        head = _part(json.dumps({"alg": "RS256", "typ": "JWT"}).encode())
        text = f"{head}.{_part(json.dumps(dict(claims)).encode())}"
        signature = self._key.sign(text.encode(), padding.PKCS1v15(), hashes.SHA256())
        return f"{text}.{_part(signature)}"

    def claims(self, jwt: str) -> dict[str, object] | None:
        """Return the claims of a JWT that this issuer has signed, `None` for any other."""
        text, _, signature = jwt.rpartition(".")
        try:
            self._key.public_key().verify(
                _whole(signature), text.encode(), padding.PKCS1v15(), hashes.SHA256()
            )
        except (InvalidSignature, ValueError):
            return None
        return unverified(jwt)


def unverified(jwt: str) -> dict[str, object]:
    """Return what a JWT claims; raises `ValueError` for what is none."""
    parts = jwt.split(".")
    if len(parts) != 3:
        raise ValueError
    found: dict[str, object] = json.loads(_whole(parts[1]))
    return found


def _part(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _whole(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
