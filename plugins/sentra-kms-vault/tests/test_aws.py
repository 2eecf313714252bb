"""Logins as an AWS principal: signed here, sent by Vault, and answered by STS."""

from __future__ import annotations

import importlib.util
import json
import logging
import threading
from collections.abc import Iterator
from importlib.machinery import ModuleSpec
from pathlib import Path
from socket import create_server
from types import ModuleType
from typing import NamedTuple

import botocore.session
import pytest
from sentra_kms_vault.auth.sts import SignedRequest, sign
from vault_user import MakeUser

from sentra_kms import AuthenticationFailed, ConfigurationError, ServiceUnavailable
from sentra_kms.testing.leaks import all_logs
from tests.fakes.aws_login import AwsLogin, AwsRole
from tests.fakes.vault_login import in_front_of
from tests.servers import moto_server
from tests.servers.vault_server import Vault

pytestmark = pytest.mark.server

ACCOUNT = "123456789012"  # moto's
ALLOWED = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Action": "sts:*", "Resource": "*"}],
}
TRUST = {
    "Version": "2012-10-17",
    "Statement": [
        {
            "Effect": "Allow",
            "Action": "sts:AssumeRole",
            "Principal": {"AWS": f"arn:aws:iam::{ACCOUNT}:root"},
        }
    ],
}


class Principal(NamedTuple):
    """Access keys, and whose they are."""

    key_id: str
    secret: str
    token: str | None = None


class Account(NamedTuple):
    """An AWS account at a moto server that checks signatures: a user `app`, a session of `web`."""

    url: str
    user: Principal
    session: Principal


@pytest.fixture(scope="module")
def account() -> Iterator[Account]:
    """Return an account with two principals."""
    with moto_server.running() as url:
        moto_server.check_signatures(url, after=1_000_000)
        made = botocore.session.Session()
        root = {"endpoint_url": url, "aws_access_key_id": "AKIAROOT", "aws_secret_access_key": "x"}
        iam = made.create_client("iam", "us-east-1", **root)
        sts = made.create_client("sts", "us-east-1", **root)
        iam.create_user(UserName="app")
        iam.put_user_policy(UserName="app", PolicyName="p", PolicyDocument=json.dumps(ALLOWED))
        key = iam.create_access_key(UserName="app")["AccessKey"]
        iam.create_role(RoleName="web", AssumeRolePolicyDocument=json.dumps(TRUST))
        iam.put_role_policy(RoleName="web", PolicyName="p", PolicyDocument=json.dumps(ALLOWED))
        assumed = sts.assume_role(
            RoleArn=f"arn:aws:iam::{ACCOUNT}:role/web", RoleSessionName="pod-1"
        )["Credentials"]
        moto_server.check_signatures(url)
        yield Account(
            url,
            Principal(key["AccessKeyId"], key["SecretAccessKey"]),
            Principal(assumed["AccessKeyId"], assumed["SecretAccessKey"], assumed["SessionToken"]),
        )


ROLES = {
    "app": AwsRole((f"arn:aws:iam::{ACCOUNT}:user/app",), ("default",)),
    "web": AwsRole((f"arn:aws:iam::{ACCOUNT}:role/web",), ("default",)),
}


class Front(NamedTuple):
    """A Vault that logs AWS principals in; `login` saw what it was given."""

    address: str
    login: AwsLogin


@pytest.fixture
def front(vault: Vault, account: Account) -> Iterator[Front]:
    """Return a Vault that asks that account's STS."""
    login = AwsLogin(account.url, ROLES, server_id="vault.example")
    with in_front_of(vault, "aws", login) as url:
        yield Front(url, login)


@pytest.fixture(autouse=True)
def _no_credentials(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Keep this machine's own credentials away."""
    for name in ("AWS_PROFILE", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


def use(monkeypatch: pytest.MonkeyPatch, principal: Principal) -> None:
    """Give this process a principal's keys."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", principal.key_id)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", principal.secret)
    if principal.token is not None:
        monkeypatch.setenv("AWS_SESSION_TOKEN", principal.token)


def table(front: Front, **auth: object) -> dict[str, object]:
    """Return a backend's table."""
    return {
        "address": front.address,
        "auth": {"method": "aws", "server_id": "vault.example", **auth},
    }


@pytest.mark.parametrize("role", ["app", None])
def test_user(
    front: Front, account: Account, make_user: MakeUser, monkeypatch: pytest.MonkeyPatch,
    role: str | None,
) -> None:  # fmt: skip
    """A user's keys log in, for a role or for that of the user's name."""
    use(monkeypatch, account.user)
    auth = {} if role is None else {"role": role}
    user = make_user(table(front, **auth))
    assert user.policies() == {"default"}
    assert user.policies() == {"default"}
    assert front.login.hosts == ["sts.amazonaws.com"]


def test_session_of_a_role(
    front: Front, account: Account, make_user: MakeUser, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Temporary keys, as machines and pods have them, log in."""
    use(monkeypatch, account.session)
    assert make_user(table(front, role="web")).policies() == {"default"}


def test_region(
    front: Front, account: Account, make_user: MakeUser, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The request is signed for the region's own endpoint."""
    use(monkeypatch, account.user)
    assert make_user(table(front, role="app", region="eu-west-1")).policies() == {"default"}
    assert front.login.hosts == ["sts.eu-west-1.amazonaws.com"]


def test_profile(
    front: Front, account: Account, make_user: MakeUser, monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:  # fmt: skip
    """Keys come from wherever botocore looks, anew at each login."""
    monkeypatch.setenv("AWS_PROFILE", "shop")
    user = make_user(table(front, role="app"))
    with pytest.raises(AuthenticationFailed, match="botocore cannot get credentials of AWS"):
        user.who()
    (tmp_path / "credentials").write_text(
        f"[shop]\naws_access_key_id = {account.user.key_id}\n"
        f"aws_secret_access_key = {account.user.secret}\n"
    )
    assert user.policies() == {"default"}


def test_another_principal(
    front: Front, account: Account, make_user: MakeUser, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who is not the role's is refused."""
    use(monkeypatch, account.user)
    with pytest.raises(AuthenticationFailed, match="login by 'aws' with status 400"):
        make_user(table(front, role="web")).who()


def test_wrong_secret_key(
    front: Front, account: Account, make_user: MakeUser, monkeypatch: pytest.MonkeyPatch
) -> None:
    """AWS refuses the signature, and Vault the login."""
    use(monkeypatch, account.user._replace(secret="planted-wrong-secret-key"))
    with pytest.raises(AuthenticationFailed, match="login by 'aws' with status 400"):
        make_user(table(front, role="app")).who()
    assert front.login.hosts == ["sts.amazonaws.com"]


@pytest.mark.parametrize("server_id", ["another.example", None])
def test_server_id(
    front: Front, account: Account, make_user: MakeUser, monkeypatch: pytest.MonkeyPatch,
    server_id: str | None,
) -> None:  # fmt: skip
    """A request that was signed for another Vault is not sent on."""
    use(monkeypatch, account.user)
    auth = {"method": "aws", "role": "app"} | (
        {} if server_id is None else {"server_id": server_id}
    )
    with pytest.raises(AuthenticationFailed, match="login by 'aws' with status 400"):
        make_user({"address": front.address, "auth": auth}).who()
    assert front.login.hosts == []


def test_no_credentials(front: Front, make_user: MakeUser) -> None:
    """Without credentials it is said where to give some."""
    with pytest.raises(AuthenticationFailed, match="botocore finds no credentials of AWS"):
        make_user(table(front)).who()


def test_credentials_that_do_not_come(
    front: Front, make_user: MakeUser, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Who has the credentials may be silent: the login ends in its own time, not in botocore's."""
    (tmp_path / "jwt").write_text("planted")
    ends: list[object] = []

    def who() -> None:
        try:
            ends.append(user.read("auth/token/lookup-self", timeout=1.0))
        except BaseException as error:  # noqa: BLE001 - that is what is looked at
            ends.append(error)

    with create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(tmp_path / "jwt"))
        monkeypatch.setenv("AWS_ROLE_ARN", f"arn:aws:iam::{ACCOUNT}:role/web")
        monkeypatch.setenv("AWS_ENDPOINT_URL_STS", f"http://127.0.0.1:{silent.getsockname()[1]}")
        user = make_user(table(front))
        asking = threading.Thread(target=who, daemon=True)
        asking.start()
        asking.join(30)  # botocore's own time is 60 s, five times
        assert not asking.is_alive()
    assert type(ends[0]) is ServiceUnavailable
    assert "credentials of AWS did not answer" in str(ends[0])


def test_no_region_of_aws(front: Front, make_user: MakeUser) -> None:
    """A mistyped region is a mistake in the settings."""
    with pytest.raises(ConfigurationError, match=r"auth\.region of backend 'vault'"):
        make_user(table(front, region="nowhere-1")).who()


def test_china_has_another_domain(account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    """The domain is that of the region's partition."""
    use(monkeypatch, account.user)
    assert sign("cn-north-1", None, "vault", 10.0).url == "https://sts.cn-north-1.amazonaws.com.cn/"


def test_without_botocore(
    front: Front, make_user: MakeUser, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without botocore it is said what to install."""
    found = importlib.util.find_spec

    def find_spec(name: str, package: str | None = None) -> ModuleSpec | None:
        return None if name == "botocore" else found(name, package)

    monkeypatch.setattr(importlib.util, "find_spec", find_spec)
    with pytest.raises(ConfigurationError, match=r"pip install 'sentra-kms-vault\[aws\]'"):
        make_user(table(front)).who()


def test_silent(
    front: Front, account: Account, make_user: MakeUser, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither key nor session token nor signature gets into a log, whatever its level."""
    use(monkeypatch, account.session)
    logging.getLogger("botocore").setLevel(logging.DEBUG)
    with all_logs() as logs:
        request = sign("us-east-1", "vault.example", "vault", 10.0)
        user = make_user(table(front, role="web"))
        assert user.policies() == {"default"}
        told = logs.getvalue()
    logging.getLogger("botocore").setLevel(logging.NOTSET)
    assert account.session.token is not None
    for planted in (
        account.session.secret,
        account.session.token,
        request.headers["Authorization"],
    ):
        assert planted not in told
    assert "redacted" in repr(request)
    assert isinstance(request, SignedRequest)


def test_logs_of_others_go_on(account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    """What an application asks botocore for is logged as it wants."""
    use(monkeypatch, account.user)
    sign("us-east-1", None, "vault", 10.0)
    auth: ModuleType = botocore.auth
    with all_logs() as logs:
        logging.getLogger(auth.__name__).debug("of the application")
    assert "of the application" in logs.getvalue()
