"""Logins with a pod's service account."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from vault_user import MakeUser, User

from sentra_kms import AuthenticationFailed
from tests.fakes.kubernetes import Cluster, KubernetesLogin, Role
from tests.fakes.vault_login import in_front_of
from tests.servers.vault_server import Vault

pytestmark = pytest.mark.server

ROLES = {
    "app": Role(("app",), ("shop",), ("default",), audience="vault"),
    "any-audience": Role(("app",), ("shop",), ("default",)),
}


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """Return a cluster with the service account `app` in `shop`."""
    made = Cluster()
    made.create_account("shop", "app")
    with made.serving():
        yield made


@pytest.fixture
def address(vault: Vault, cluster: Cluster) -> Iterator[str]:
    """Return the address of a Vault that knows the cluster."""
    with in_front_of(vault, "kubernetes", KubernetesLogin(cluster, ROLES)) as url:
        yield url


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    """Return where a pod finds its token."""
    return tmp_path / "token"


def table(address: str, token_file: Path, role: str = "app") -> dict[str, object]:
    """Return a backend's table."""
    auth = {"method": "kubernetes", "role": role, "token_path": str(token_file)}
    return {"address": address, "auth": auth}


@contextmanager
def refused(user: User) -> Iterator[None]:
    """Check that a login is refused, before the block."""
    with pytest.raises(AuthenticationFailed, match=r"login by 'kubernetes' with status 40[03]"):
        user.who()
    yield


@pytest.mark.parametrize(("role", "audience"), [("app", "vault"), ("any-audience", "another")])
def test_service_account(
    cluster: Cluster, address: str, token_file: Path, make_user: MakeUser, role: str, audience: str
) -> None:
    """A pod's token is reviewed, and gives the role's policies; one login serves many reads."""
    token_file.write_text(cluster.new_token("shop", "app", audience=audience))
    user = make_user(table(address, token_file, role))
    for _ in range(5):
        assert user.policies() == {"default"}
    assert cluster.reviews == 1


def test_renewed_token_is_read(
    vault: Vault, cluster: Cluster, address: str, token_file: Path, make_user: MakeUser
) -> None:
    """The token that the kubelet has written meanwhile is used for the next login."""
    token_file.write_text(cluster.new_token("shop", "app", audience="vault"))
    user = make_user(table(address, token_file))
    first = user.who()
    cluster.delete_account("shop", "app")
    cluster.create_account("shop", "app")
    vault.write("auth/token/revoke-accessor", accessor=first["accessor"])
    with refused(user):
        token_file.write_text(cluster.new_token("shop", "app", audience="vault"))
    assert user.who()["accessor"] != first["accessor"]


def test_another_audience(
    cluster: Cluster, address: str, token_file: Path, make_user: MakeUser
) -> None:
    """A token for others than the role's audience is refused."""
    token_file.write_text(cluster.new_token("shop", "app", audience="another"))
    with refused(make_user(table(address, token_file))):
        assert cluster.reviews == 0


def test_expired(cluster: Cluster, address: str, token_file: Path, make_user: MakeUser) -> None:
    """An expired token is refused by the review."""
    token_file.write_text(cluster.new_token("shop", "app", audience="vault", seconds=-60))
    with refused(make_user(table(address, token_file))):
        assert cluster.reviews == 1


def test_deleted_account(
    cluster: Cluster, address: str, token_file: Path, make_user: MakeUser
) -> None:
    """A token of an account that is no more is refused by the review."""
    token_file.write_text(cluster.new_token("shop", "app", audience="vault"))
    cluster.delete_account("shop", "app")
    with refused(make_user(table(address, token_file))):
        assert cluster.reviews == 1


def test_another_account(
    cluster: Cluster, address: str, token_file: Path, make_user: MakeUser
) -> None:
    """An account, or a namespace, that the role does not have is refused."""
    for account in (("shop", "other"), ("other", "app")):
        cluster.create_account(*account)
        token_file.write_text(cluster.new_token(*account, audience="vault"))
        with refused(make_user(table(address, token_file))):
            pass


def test_another_cluster(
    cluster: Cluster, address: str, token_file: Path, make_user: MakeUser
) -> None:
    """A token that another cluster has signed is refused by the review."""
    foreign = Cluster()
    foreign.create_account("shop", "app")
    token_file.write_text(foreign.new_token("shop", "app", audience="vault"))
    with refused(make_user(table(address, token_file))):
        assert cluster.reviews == 1


def test_unknown_role(
    cluster: Cluster, address: str, token_file: Path, make_user: MakeUser
) -> None:
    """A role that Vault does not have is a matter of the credentials' settings."""
    token_file.write_text(cluster.new_token("shop", "app", audience="vault"))
    with refused(make_user(table(address, token_file, "nobody"))):
        assert cluster.reviews == 0


def test_no_token(address: str, token_file: Path, make_user: MakeUser) -> None:
    """Outside a pod the file that is missing is named."""
    with pytest.raises(AuthenticationFailed, match=f"{token_file} cannot be read"):
        make_user(table(address, token_file)).who()
