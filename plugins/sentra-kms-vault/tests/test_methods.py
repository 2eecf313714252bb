"""Logins by AppRole, by a user's password, and by a JWT."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest
from vault_user import MakeUser

from sentra_kms import AccessDenied, AuthenticationFailed, ConfigurationError
from tests.fakes.httpd import Answered, Asked, answering
from tests.fakes.jwt import Issuer
from tests.servers.vault_server import Vault, VaultError

pytestmark = pytest.mark.server


@pytest.fixture
def mount(vault: Vault) -> Iterator[str]:
    """Return the name of a mount of the test's own, and unmount it in the end."""
    name = f"auth-{uuid4().hex[:12]}"
    yield name
    vault.delete(f"sys/auth/{name}")


def wrapped_secret_id(vault: Vault, mount: str, role: str = "app") -> str:
    """Return a wrapping token with a secret id in it."""
    path = f"auth/{mount}/role/{role}/secret-id"
    token: str = vault.ask("POST", path, {}, headers={"X-Vault-Wrap-TTL": "60"})["wrap_info"][
        "token"
    ]
    return token


def approle(vault: Vault, mount: str, **options: object) -> dict[str, str | bytes]:
    """Make a role `app`, and return its ids."""
    vault.write(f"sys/auth/{mount}", type="approle")
    vault.policy(mount, 'path "secret/data/app" { capabilities = ["read"] }')
    vault.write(f"auth/{mount}/role/app", token_policies=[mount], **options)
    return {
        "ROLE": vault.read(f"auth/{mount}/role/app/role-id")["data"]["role_id"],
        "SECRET": vault.write(f"auth/{mount}/role/app/secret-id")["data"]["secret_id"],
    }


def approle_table(vault: Vault, mount: str, **auth: object) -> dict[str, object]:
    """Return a backend's table."""
    given = {"role_id": "env://ROLE", "secret_id": "env://SECRET", "mount": mount, **auth}
    return {"address": vault.address, "auth": {"method": "approle", **given}}


def test_approle(vault: Vault, mount: str, make_user: MakeUser) -> None:
    """A role and a secret id give a token, which is revoked on close."""
    user = make_user(approle_table(vault, mount), approle(vault, mount))
    assert user.policies() == {mount, "default"}
    accessor = user.who()["accessor"]
    assert vault.write("auth/token/lookup-accessor", accessor=accessor)
    user.close()
    with pytest.raises(VaultError, match="invalid accessor"):
        vault.write("auth/token/lookup-accessor", accessor=accessor)


def test_approle_without_secret_id(vault: Vault, mount: str, make_user: MakeUser) -> None:
    """A role may need none."""
    given = approle(vault, mount)
    vault.write(
        f"auth/{mount}/role/open", bind_secret_id=False, token_policies=[mount],
        secret_id_bound_cidrs=[], token_bound_cidrs=["127.0.0.1/32"],
    )  # fmt: skip
    given["ROLE"] = vault.read(f"auth/{mount}/role/open/role-id")["data"]["role_id"]
    auth = {"method": "approle", "role_id": "env://ROLE", "mount": mount}
    assert mount in make_user({"address": vault.address, "auth": auth}, given).policies()


def test_rotated_credential_is_picked_up(vault: Vault, mount: str, make_user: MakeUser) -> None:
    """A credential is read anew at each login."""
    given = approle(vault, mount)
    user = make_user(approle_table(vault, mount), given)
    first = user.who()
    vault.write(f"auth/{mount}/role/app/secret-id/destroy", secret_id=given["SECRET"])
    vault.write("auth/token/revoke-accessor", accessor=first["accessor"])
    given["SECRET"] = vault.write(f"auth/{mount}/role/app/secret-id")["data"]["secret_id"]
    assert user.who()["accessor"] != first["accessor"]


def test_secret_id_exhausted(vault: Vault, mount: str, make_user: MakeUser) -> None:
    """A secret id that is used up logs in no more: told as a matter of the credentials."""
    given = approle(vault, mount, secret_id_num_uses=1)
    user = make_user(approle_table(vault, mount), given)
    first = user.who()
    vault.write("auth/token/revoke-accessor", accessor=first["accessor"])
    with pytest.raises(
        AuthenticationFailed, match="login by 'approle' with status 400: look at its"
    ):
        user.who()
    given["SECRET"] = vault.write(f"auth/{mount}/role/app/secret-id")["data"]["secret_id"]
    assert user.who()["accessor"] != first["accessor"]


def test_wrapped_secret_id(vault: Vault, mount: str, make_user: MakeUser) -> None:
    """It is unwrapped once and kept: also for the logins that follow, and after a fork."""
    given = approle(vault, mount)
    given["SECRET"] = wrapped_secret_id(vault, mount)
    table = approle_table(vault, mount, secret_id_wrapped=True)
    state: dict[str, object] = {}
    before = len(vault.requests("sys/wrapping/unwrap"))
    user = make_user(table, given, state=state)
    first = user.who()
    vault.write("auth/token/revoke-accessor", accessor=first["accessor"])
    assert user.who()["accessor"] != first["accessor"]
    assert make_user(table, given, state=state).policies() == {mount, "default"}
    assert len(vault.requests("sys/wrapping/unwrap")) == before + 1
    assert "redacted" in repr(state)


def test_new_wrapped_secret_id_is_picked_up(vault: Vault, mount: str, make_user: MakeUser) -> None:
    """Another wrapping token is unwrapped when it is there."""
    given = approle(vault, mount, secret_id_num_uses=1)
    given["SECRET"] = wrapped_secret_id(vault, mount)
    user = make_user(approle_table(vault, mount, secret_id_wrapped=True), given)
    first = user.who()
    given["SECRET"] = wrapped_secret_id(vault, mount)
    vault.write("auth/token/revoke-accessor", accessor=first["accessor"])
    assert user.who()["accessor"] != first["accessor"]


def test_wrapping_token_used_already(vault: Vault, mount: str, make_user: MakeUser) -> None:
    """Somebody else has unwrapped it: that is said, as it may be an attack."""
    given = approle(vault, mount)
    token = wrapped_secret_id(vault, mount)
    vault.ask("POST", "sys/wrapping/unwrap", {}, token=token)
    given["SECRET"] = token
    user = make_user(approle_table(vault, mount, secret_id_wrapped=True), given)
    with pytest.raises(AuthenticationFailed, match="may have been intercepted"):
        user.who()


def test_wrapping_token_swapped(vault: Vault, mount: str, make_user: MakeUser) -> None:
    """A token that wraps what somebody chose is refused, and not used up."""
    given = approle(vault, mount)
    made = vault.ask(
        "POST", "sys/wrapping/wrap", {"secret_id": "planted-by-an-attacker"},
        headers={"X-Vault-Wrap-TTL": "60"},
    )  # fmt: skip
    token = made["wrap_info"]["token"]
    given["SECRET"] = token
    user = make_user(approle_table(vault, mount, secret_id_wrapped=True), given)
    before = len(vault.requests("auth", mount, "login"))
    with pytest.raises(AuthenticationFailed, match="somebody may have put it in the place of"):
        user.who()
    assert len(vault.requests("auth", mount, "login")) == before
    assert vault.write("sys/wrapping/lookup", token=token)["data"]


def test_wrapping_token_of_another_mount(vault: Vault, mount: str, make_user: MakeUser) -> None:
    """A secret id of another mount is refused, also where the names begin alike."""
    given = approle(vault, mount)
    other = f"{mount}x"
    approle(vault, other)
    given["SECRET"] = wrapped_secret_id(vault, other)
    user = make_user(approle_table(vault, mount, secret_id_wrapped=True), given)
    with pytest.raises(AuthenticationFailed, match="was not made as a secret id of the mount"):
        user.who()
    vault.delete(f"sys/auth/{other}")


def test_userpass(vault: Vault, mount: str, make_user: MakeUser) -> None:
    """A user and a password, which may have spaces and signs beyond ASCII."""
    vault.write(f"sys/auth/{mount}", type="userpass")
    password = "pass word: größer"
    vault.write(f"auth/{mount}/users/ann.b-1", password=password, token_policies=["default"])
    auth = {"method": "userpass", "username": "ann.b-1", "password": "env://P", "mount": mount}
    table = {"address": vault.address, "auth": auth}
    assert make_user(table, {"P": f"{password}\n"}).policies() == {"default"}
    with pytest.raises(AuthenticationFailed, match="login by 'userpass'"):
        make_user(table, {"P": "wrong"}).who()


@pytest.mark.parametrize("name", ["..", ".", "a%2fb", "?x=y", "#a", "a/b", "", "a b", "a\n"])
def test_user_name_that_leaves_its_path(vault: Vault, make_user: MakeUser, name: str) -> None:
    """A name that Vault's rule does not allow could be more than a segment of a path."""
    auth = {"method": "userpass", "username": name, "password": "env://P"}
    with pytest.raises(ConfigurationError, match="username"):
        make_user({"address": vault.address, "auth": auth})


@pytest.fixture
def issuer(vault: Vault, mount: str) -> Issuer:
    """Return an issuer whose JWTs the mount accepts for its role `ci`, the default one."""
    made = Issuer()
    vault.write(f"sys/auth/{mount}", type="jwt")
    vault.write(
        f"auth/{mount}/config", jwt_validation_pubkeys=[made.public_pem],
        bound_issuer="https://ci.example", default_role="ci",
    )  # fmt: skip
    vault.write(
        f"auth/{mount}/role/ci", role_type="jwt", user_claim="sub", bound_audiences=["vault"],
        token_policies=["default"], clock_skew_leeway=-1, not_before_leeway=-1,
        expiration_leeway=-1,
    )  # fmt: skip
    return made


def claims(**other: object) -> dict[str, Any]:
    """Return what a JWT claims that is good now."""
    now = int(time.time())
    return {
        "iss": "https://ci.example", "aud": "vault", "sub": "job-1", "iat": now - 30,
        "nbf": now - 30, "exp": now + 300, **other,
    }  # fmt: skip


@pytest.mark.parametrize("role", ["ci", None])
def test_jwt(
    vault: Vault, mount: str, issuer: Issuer, make_user: MakeUser, role: str | None
) -> None:
    """A JWT logs in for a role, or the mount's default one."""
    auth: dict[str, object] = {"method": "jwt", "jwt": "env://JWT", "mount": mount}
    if role is not None:
        auth["role"] = role
    user = make_user({"address": vault.address, "auth": auth}, {"JWT": issuer.sign(claims())})
    assert user.policies() == {"default"}


def test_token_of_an_oidc_provider(vault: Vault, mount: str, make_user: MakeUser) -> None:
    """On a mount of type oidc a JWT is good that its provider signed, whose keys Vault fetches."""
    provider = Issuer()

    def answer(asked: Asked) -> Answered:
        if asked.path == "/keys":
            return Answered(200, provider.jwks)
        found = {
            "issuer": url, "jwks_uri": f"{url}/keys", "authorization_endpoint": f"{url}/auth",
            "token_endpoint": f"{url}/token", "response_types_supported": ["code"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["RS256"],
        }  # fmt: skip
        return Answered(200, json.dumps(found).encode())

    vault.write(f"sys/auth/{mount}", type="oidc")
    with answering(answer) as url:
        vault.write(f"auth/{mount}/config", oidc_discovery_url=url, default_role="ci")
        vault.write(
            f"auth/{mount}/role/ci", role_type="jwt", user_claim="sub",
            bound_audiences=["vault"], token_policies=["default"],
        )  # fmt: skip
        auth = {"method": "jwt", "jwt": "env://JWT", "mount": mount}
        table = {"address": vault.address, "auth": auth}
        jwt = provider.sign(claims(iss=url))
        assert make_user(table, {"JWT": jwt}).policies() == {"default"}
        with pytest.raises(AuthenticationFailed):
            make_user(table, {"JWT": Issuer().sign(claims(iss=url))}).who()


@pytest.mark.parametrize(
    "other",
    [
        {"nbf": int(time.time()) + 3600, "iat": int(time.time()) + 3600},
        {"exp": int(time.time()) - 3600},
        {"aud": "another"},
        {"iss": "https://another.example"},
    ],
    ids=["not yet valid", "expired", "audience", "issuer"],
)
def test_jwt_refused(
    vault: Vault, mount: str, issuer: Issuer, make_user: MakeUser, other: dict[str, object]
) -> None:
    """A JWT from a clock that is wrong, or for others, is no credential."""
    auth = {"method": "jwt", "jwt": "env://JWT", "role": "ci", "mount": mount}
    table = {"address": vault.address, "auth": auth}
    with pytest.raises(AuthenticationFailed, match="login by 'jwt' with status 400"):
        make_user(table, {"JWT": issuer.sign(claims(**other))}).who()


def test_jwt_of_another_key(vault: Vault, mount: str, issuer: Issuer, make_user: MakeUser) -> None:
    """A JWT of a key that the mount does not know is refused."""
    auth = {"method": "jwt", "jwt": "env://JWT", "role": "ci", "mount": mount}
    table = {"address": vault.address, "auth": auth}
    with pytest.raises(AuthenticationFailed, match="login by 'jwt'"):
        make_user(table, {"JWT": Issuer().sign(claims())}).who()


def test_wrong_mount(vault: Vault, make_user: MakeUser) -> None:
    """A mount that is not there is named among what to look at; and no policy is spoken of."""
    auth = {"method": "jwt", "jwt": "env://JWT", "role": "ci", "mount": "no-such-mount"}
    with pytest.raises(
        AuthenticationFailed, match="mount and the namespace of its `auth`"
    ) as caught:
        make_user({"address": vault.address, "auth": auth}, {"JWT": "a.b.c"}).who()
    assert not isinstance(caught.value, AccessDenied)
