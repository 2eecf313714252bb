"""AppRole: a role id, and a secret id that may come wrapped."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable

import msgspec
from hvac.api.auth_methods import AppRole
from hvac.api.system_backend import Wrapping

from sentra_kms import AuthenticationFailed, KeyMaterial, KMSError, NotFound
from sentra_kms_vault.auth.answers import logging_in, part_of, token_of_login
from sentra_kms_vault.auth.credentials import credential, word_of
from sentra_kms_vault.auth.means import Maker, Means
from sentra_kms_vault.deadline import Deadline
from sentra_kms_vault.failures import Refused, ask, vendor_error
from sentra_kms_vault.login import Token
from sentra_kms_vault.settings import AppRoleAuth

_UNWRAPPED = "approle"  # where the host's state, which outlives a fork, has what was unwrapped


class _Unwrapped(msgspec.Struct, frozen=True):
    """A secret id, and the hash of the token that it came in."""

    token: bytes
    secret_id: KeyMaterial


class _Lookup(msgspec.Struct, frozen=True):
    creation_path: str


class _SecretId(msgspec.Struct, frozen=True):
    secret_id: str

    def __repr__(self) -> str:
        return "_SecretId(redacted)"


class AppRoleMethod(Maker):
    """Reads both ids at each login. A wrapped secret id is unwrapped once and kept in memory."""

    name = "approle"

    def __init__(self, auth: AppRoleAuth, means: Means) -> None:
        self._auth = auth
        self._means = means

    def log_in(self, deadline: Deadline) -> Token:
        """Return a new token."""
        auth, host = self._auth, self._means.host
        role_id = word_of(credential(host, auth.role_id, "the role id"), "the role id")
        given: str | None = None
        if auth.secret_id is not None:
            given = word_of(credential(host, auth.secret_id, "the secret id"), "the secret id")

        def log_in() -> Token:
            secret_id = given
            if given is not None and auth.secret_id_wrapped:
                secret_id = self._unwrapped(given, deadline)
            return token_of_login(
                AppRole(self._means.call(deadline)).login(
                    role_id, secret_id, use_token=False, mount_point=auth.mount
                )
            )

        return logging_in(self.name, self._means, (role_id, given or ""), log_in)

    def _unwrapped(self, token: str, deadline: Deadline) -> str:
        """Return the secret id in a wrapping token; raises `AuthenticationFailed`.

        Where it was made is looked at first: a token that somebody has put in the place of ours
        was made elsewhere, and what he wrapped would be sent to Vault as ours.
        """
        state = self._means.host.state
        mark = hashlib.sha256(token.encode("ascii")).digest()
        kept = state.get(_UNWRAPPED)
        if isinstance(kept, _Unwrapped) and kept.token == mark:
            return kept.secret_id.reveal().decode()
        call = self._means.call(deadline)
        found = part_of(
            _unwrapping(lambda: call.post("/v1/sys/wrapping/lookup", json={"token": token})),
            "data",
            _Lookup,
        )
        place = rf"auth/{re.escape(self._auth.mount)}/role/[^/]+/secret-id"
        if re.fullmatch(place, found.creation_path) is None:
            raise AuthenticationFailed(
                "the wrapping token was not made as a secret id of the mount "
                f"'{self._auth.mount}', so it is not used: somebody may have put it in the place "
                "of another. Revoke it, and find out who"
            )
        answer = _unwrapping(lambda: Wrapping(self._means.call_with(token, deadline)).unwrap())
        secret_id = part_of(answer, "data", _SecretId).secret_id
        state[_UNWRAPPED] = _Unwrapped(mark, KeyMaterial(secret_id.encode()))
        return secret_id


def _unwrapping(call: Callable[[], object]) -> object:
    """Return what a request about a wrapping token answers."""

    def special(refusal: Refused) -> KMSError | None:
        if refusal.status not in {400, 403, 404}:
            return None
        failure = AuthenticationFailed(
            "the wrapping token of the secret id has expired, or was used already: if not by this "
            "process, it may have been intercepted. Revoke that secret id, find out who used it "
            "(Vault's audit log tells), and give a new wrapping token"
        )
        failure.__cause__ = vendor_error(refusal)
        return failure

    return ask("to unwrap the secret id", call, missing=NotFound, special=special)
