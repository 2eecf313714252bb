"""How a server is verified, and what of the environment is heeded."""

from __future__ import annotations

import os
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from socket import create_connection, create_server
from typing import Any

import pytest
from sentra_kms_vault.environment import Connection, connection
from sentra_kms_vault.settings import Tls, VaultSettings
from vault_user import MakeUser

import sentra_kms
from sentra_kms import AuthenticationFailed, ConfigurationError, ServiceUnavailable
from sentra_kms.testing.proxy import FaultProxy
from tests.servers import vault_server
from tests.servers.certificates import Authority, Certificate
from tests.servers.vault_server import Vault

pytestmark = pytest.mark.server


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory for certificates."""
    return tmp_path_factory.mktemp("tls")


@pytest.fixture(scope="module")
def authority(home: Path) -> Authority:
    """Return the CA of the server and of its clients."""
    return Authority(home)


@pytest.fixture(scope="module")
def client(authority: Authority) -> Certificate:
    """Return a client's certificate."""
    return authority.issue("client", "client.example")


@pytest.fixture(scope="module")
def server(authority: Authority) -> Iterator[Vault]:
    """Return a server over TLS, whose method `cert` knows clients of the authority."""
    made = authority.issue("server", "127.0.0.1", "vault.example")
    given = {
        "tls_cert_file": str(made.certificate),
        "tls_key_file": str(made.key),
        "tls_client_ca_file": str(authority.file),
    }
    with vault_server.kept(given) as vault:
        vault.write("sys/auth/cert", type="cert")
        vault.write(
            "auth/cert/certs/app", certificate=authority.file.read_text(), token_policies="default"
        )
        yield vault


def tls_table(server: Vault, **tls: object) -> dict[str, Any]:
    """Return a backend's table."""
    return {
        "address": server.address,
        "auth": {"method": "token", "token": "env://T"},
        "tls": {name: str(value) for name, value in tls.items()},
    }


def by_certificate(server: Vault, authority: Authority, client: Certificate) -> dict[str, Any]:
    """Return a backend's table with the method cert."""
    given = {"client_certificate": client.certificate, "client_key": client.key}
    table = tls_table(server, ca_file=authority.file, **given)
    return {**table, "auth": {"method": "cert"}}


@pytest.mark.parametrize("role", ["app", None])
def test_certificate(
    server: Vault, authority: Authority, client: Certificate, make_user: MakeUser, role: str | None
) -> None:
    """A client certificate logs in, for one role or any that fits."""
    table = by_certificate(server, authority, client)
    if role is not None:
        table["auth"]["role"] = role
    assert make_user(table).policies() == {"default"}


def test_certificate_of_others(
    server: Vault, authority: Authority, home: Path, make_user: MakeUser
) -> None:
    """A certificate of an authority that Vault does not know is refused."""
    foreign = Authority(home, "other CA").issue("foreign", "client.example")
    with pytest.raises(AuthenticationFailed, match="login by 'cert'"):
        make_user(by_certificate(server, authority, foreign)).who()


def test_certificate_for_a_role_that_is_not(
    server: Vault, authority: Authority, client: Certificate, make_user: MakeUser
) -> None:
    """A role that is not there is refused."""
    table = by_certificate(server, authority, client)
    table["auth"]["role"] = "nobody"
    with pytest.raises(AuthenticationFailed, match="login by 'cert'"):
        make_user(table).who()


@pytest.mark.parametrize("tls", [{}, {"ca_file": "x"}])
def test_certificate_that_is_not_there(
    server: Vault, make_user: MakeUser, tls: dict[str, str]
) -> None:
    """The method cert without a certificate is a mistake in the settings."""
    table = {**tls_table(server, **tls), "auth": {"method": "cert"}}
    with pytest.raises(
        ConfigurationError, match=r"needs an address .* and a tls.client_certificate|CA"
    ):
        make_user(table)


def test_ca_file(server: Vault, authority: Authority, make_user: MakeUser) -> None:
    """The CA that is named is trusted."""
    user = make_user(tls_table(server, ca_file=authority.file), {"T": server.token})
    assert user.policies() == {"root"}


def test_ca_directory(
    server: Vault, authority: Authority, tmp_path: Path, make_user: MakeUser
) -> None:
    """Each file of a directory is trusted, whatever its name: as Vault's own programs do it."""
    (tmp_path / "ours.crt").write_bytes(authority.file.read_bytes())
    (tmp_path / "another.pem").write_bytes(Authority(tmp_path.parent, "x").file.read_bytes())
    user = make_user(tls_table(server, ca_directory=tmp_path), {"T": server.token})
    assert user.policies() == {"root"}


def test_wrong_ca(server: Vault, tmp_path: Path, make_user: MakeUser) -> None:
    """A server of another CA is refused before anything is sent to it."""
    other = Authority(tmp_path, "test CA")
    user = make_user(tls_table(server, ca_file=other.file), {"T": server.token})
    before = len(server.requests("auth/token/lookup-self"))
    with pytest.raises(ServiceUnavailable, match="its certificate is not trusted"):
        user.who()
    assert len(server.requests("auth/token/lookup-self")) == before


def test_system_cas(server: Vault, make_user: MakeUser) -> None:
    """Without a CA those of the system are trusted, and not the test's."""
    with pytest.raises(ServiceUnavailable, match="its certificate is not trusted"):
        make_user(tls_table(server), {"T": server.token}).who()


def test_system_cas_are_where_openssl_looks(
    server: Vault, authority: Authority, make_user: MakeUser, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SSL_CERT_FILE says where the system's are; it adds nothing to a CA that is named."""
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
    assert make_user(tls_table(server), {"T": server.token}).policies() == {"root"}
    (authority.file.parent / "another").mkdir()
    another = Authority(authority.file.parent / "another", "another CA")
    with pytest.raises(ServiceUnavailable, match="its certificate is not trusted"):
        make_user(tls_table(server, ca_file=another.file), {"T": server.token}).who()


@pytest.mark.parametrize("text", ["false", "0", "False", ""])
def test_skip_verify_false_means_verify(
    server: Vault, make_user: MakeUser, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    """VAULT_SKIP_VERIFY=false does not skip, as it does where any text counts as true."""
    monkeypatch.setenv("VAULT_SKIP_VERIFY", text)
    with pytest.raises(ServiceUnavailable, match="its certificate is not trusted"):
        make_user(tls_table(server), {"T": server.token}).who()


@pytest.mark.filterwarnings("ignore:Unverified HTTPS request")
def test_skip_verify_in_development(
    server: Vault, make_user: MakeUser, monkeypatch: pytest.MonkeyPatch
) -> None:
    """VAULT_SKIP_VERIFY=true skips, in development."""
    monkeypatch.setenv("VAULT_SKIP_VERIFY", "true")
    assert make_user(tls_table(server), {"T": server.token}).policies() == {"root"}


def test_setting_comes_before_skip_verify(
    server: Vault, make_user: MakeUser, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A setting that says verify stands against the variable."""
    monkeypatch.setenv("VAULT_SKIP_VERIFY", "true")
    table = tls_table(server)
    table["tls"] = {"skip_verify": False}
    with pytest.raises(ServiceUnavailable, match="its certificate is not trusted"):
        make_user(table, {"T": server.token}).who()


@pytest.mark.parametrize("by", ["setting", "variable"])
def test_skip_verify_elsewhere(monkeypatch: pytest.MonkeyPatch, by: str) -> None:
    """Outside development a backend that would accept any certificate is refused at load."""
    table: dict[str, Any] = {"type": "vault", "address": "https://vault.example:8200"}
    if by == "setting":
        table["tls"] = {"skip_verify": True}
    else:
        monkeypatch.setenv("VAULT_SKIP_VERIFY", "1")
    with pytest.raises(ConfigurationError, match="accepts any certificate"):
        sentra_kms.load({"production": {"backends": {"vault": table}}}, "production")


ELSEWHERE = (
    "http://vault.internal:8200",
    "http://10.0.0.1:8200",
    "http://127.0.0.1.example:8200",
    "http://localhost.example",
    "http://127.1",
    "http://0.0.0.0:8200",
    "http://[2001:db8::1]:8200",
    "http://[::1",
)
HERE = ("http://127.0.0.1:8200", "http://127.8.9.1", "http://[::1]:8200/", "http://localhost:8200")


@pytest.mark.parametrize("address", ELSEWHERE)
@pytest.mark.parametrize("by", ["setting", "variable"])
def test_plain_http_to_another_machine(
    monkeypatch: pytest.MonkeyPatch, address: str, by: str
) -> None:
    """Outside development it is refused at load, unless the table lets it be."""
    table: dict[str, Any] = {"type": "vault"}
    if by == "setting":
        table["address"] = address
    else:
        monkeypatch.setenv("VAULT_ADDR", address)

    def load() -> None:
        sentra_kms.load({"production": {"backends": {"vault": table}}}, "production").close()

    with pytest.raises(ConfigurationError, match=r"whoever is on the way .* Use https://"):
        load()
    sentra_kms.load({"try": {"development": True, "backends": {"vault": table}}}, "try").close()
    table["tls"] = {"allow_plain_http": True}
    load()


@pytest.mark.parametrize("address", HERE)
def test_plain_http_to_an_agent_of_this_machine(address: str) -> None:
    """What does not leave the machine needs no TLS."""
    assert connect({}, address=address).address == address.rstrip("/")


def test_plain_http_through_a_proxy() -> None:
    """A proxy elsewhere would be told everything; behind TLS it sees nothing."""
    assert connect({}, address=HERE[0], proxy="http://127.0.0.1:3128").proxy
    assert connect({}, address="https://vault.internal", proxy="http://proxy.internal").proxy
    for address, proxy in ((HERE[0], "http://proxy.internal"), (ELSEWHERE[0], HERE[0])):
        with pytest.raises(ConfigurationError, match="a proxy to one"):
            connect({}, address=address, proxy=proxy)
    with pytest.raises(ConfigurationError, match="a proxy to one"):
        connect({"VAULT_HTTP_PROXY": "http://proxy.internal"}, address=HERE[0])


def test_server_name(
    server: Vault, authority: Authority, make_user: MakeUser, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The certificate has to be of the name that is given, whatever the address."""
    given = {"T": server.token}
    table = tls_table(server, ca_file=authority.file, server_name="vault.example")
    assert make_user(table, given).policies() == {"root"}
    other = tls_table(server, ca_file=authority.file, server_name="other.example")
    with pytest.raises(ServiceUnavailable, match="its certificate is not trusted"):
        make_user(other, given).who()
    monkeypatch.setenv("VAULT_TLS_SERVER_NAME", "other.example")
    with pytest.raises(ServiceUnavailable, match="its certificate is not trusted"):
        make_user(tls_table(server, ca_file=authority.file), given).who()
    assert make_user(table, given).policies() == {"root"}


def test_address_that_the_certificate_does_not_have(
    server: Vault, authority: Authority, make_user: MakeUser
) -> None:
    """An address that is not in the certificate is refused."""
    table = tls_table(server, ca_file=authority.file)
    table["address"] = f"https://localhost:{server.port}"
    with pytest.raises(ServiceUnavailable, match="its certificate is not trusted"):
        make_user(table, {"T": server.token}).who()


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1:DeprecationWarning")
def test_old_tls(authority: Authority, make_user: MakeUser) -> None:
    """A server that speaks nothing newer than TLS 1.1 is refused."""
    made = authority.issue("old", "127.0.0.1")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(made.certificate, made.key)
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = ssl.TLSVersion.TLSv1
    context.maximum_version = ssl.TLSVersion.TLSv1_1
    seen: list[str] = []

    def serve(listener: Any) -> None:
        for _ in range(2):
            try:
                with context.wrap_socket(listener.accept()[0], server_side=True) as talk:
                    seen.append(talk.version() or "")
            except OSError as error:
                seen.append(str(error))

    with create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, args=(listener,), daemon=True)
        thread.start()
        old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        old.load_verify_locations(authority.file)
        old.set_ciphers("ALL:@SECLEVEL=0")
        old.minimum_version = ssl.TLSVersion.TLSv1
        address = listener.getsockname()
        with (
            create_connection(address) as plain,
            old.wrap_socket(plain, server_hostname="127.0.0.1"),
        ):
            pass  # it does speak what it is thought to
        table = {
            "address": f"https://127.0.0.1:{address[1]}",
            "auth": {"method": "token", "token": "env://T"},
            "tls": {"ca_file": str(authority.file)},
        }
        with pytest.raises(ServiceUnavailable, match="TLS could not be agreed on"):
            make_user(table, {"T": "planted-token"}).who()
        thread.join(60)
    assert seen[0] == "TLSv1.1"
    assert "TLSv1" not in seen[1]


@pytest.mark.parametrize("kind", ["missing", "no PEM", "encrypted", "empty directory"])
def test_files_that_are_none(
    server: Vault, authority: Authority, tmp_path: Path, make_user: MakeUser, kind: str
) -> None:
    """What cannot be loaded is a mistake in the settings; nobody is asked for a password."""
    locked = authority.issue(f"locked-{kind.replace(' ', '-')}", password=b"secret")
    (tmp_path / "text").write_text("no PEM")
    (tmp_path / "empty").mkdir()
    tls: dict[str, object] = {
        "missing": {"ca_file": tmp_path / "nowhere"},
        "no PEM": {"ca_file": tmp_path / "text"},
        "encrypted": {"client_certificate": locked.certificate, "client_key": locked.key},
        "empty directory": {"ca_directory": tmp_path / "empty"},
    }[kind]  # type: ignore[assignment]
    with pytest.raises(ConfigurationError, match="cannot be read as PEM without a password"):
        make_user(tls_table(server, **tls))


def test_environment_stands_in(
    server: Vault, authority: Authority, client: Certificate, make_user: MakeUser,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """With variables alone, by either prefix, the same connection comes about."""
    monkeypatch.setenv("BAO_ADDR", server.address)
    monkeypatch.setenv("VAULT_CACERT", str(authority.file))
    monkeypatch.setenv("VAULT_CLIENT_CERT", str(client.certificate))
    monkeypatch.setenv("BAO_CLIENT_KEY", str(client.key))
    assert make_user({"auth": {"method": "cert"}}).policies() == {"default"}


VARIABLES = {
    "address": ("ADDR", "https://a.example", "https://b.example", "https://c.example"),
    "namespace": ("NAMESPACE", "a", "b/c", "d"),
    "ca_file": ("CACERT", "/a", "/b", "/c"),
    "ca_directory": ("CAPATH", "/a", "/b", "/c"),
    "client_certificate": ("CLIENT_CERT", "/a", "/b", "/c"),
    "client_key": ("CLIENT_KEY", "/a", "/b", "/c"),
    "server_name": ("TLS_SERVER_NAME", "a", "b", "c"),
    "proxy": ("PROXY_ADDR", "http://a", "http://b", "http://c"),
}


def connect(environment: dict[str, str], **given: Any) -> Connection:
    """Return what comes of settings and variables."""
    tls = {name: given.pop(name) for name in list(given) if name in Tls.__struct_fields__}
    return connection(
        VaultSettings(tls=Tls(**tls), **given), environment, name="v", development=False,
        resolve=os.path.abspath,
    )  # fmt: skip


@pytest.mark.parametrize("name", VARIABLES)
def test_order(name: str) -> None:
    """A setting comes before VAULT_X, and that before BAO_X; an empty variable is none."""
    suffix, setting, vault, bao = VARIABLES[name]
    base = {"BAO_ADDR": "https://x", "BAO_CLIENT_CERT": "/x"}
    both = {**base, f"VAULT_{suffix}": vault, f"BAO_{suffix}": bao}
    assert getattr(connect(both, **{name: setting}), name) == setting
    assert getattr(connect(both), name) == vault
    assert getattr(connect({**both, f"VAULT_{suffix}": ""}), name) == bao


@pytest.mark.parametrize("given", ["ca_file", "ca_directory"])
def test_variables_add_no_ca_to_the_settings(given: str) -> None:
    """Where the settings name whom to trust, no variable has anybody else trusted."""
    environment = {"VAULT_ADDR": "https://x", "VAULT_CACERT": "/v", "BAO_CAPATH": "/b"}
    found = connect(environment, **{given: "/own"})
    assert {found.ca_file, found.ca_directory} == {"/own", None}
    found = connect(environment)
    assert (found.ca_file, found.ca_directory) == ("/v", "/b")


def test_key_of_a_variable_is_not_for_the_certificate_of_the_settings() -> None:
    """A certificate that is set has its key beside it or in its file, and not in a variable."""
    environment = {"VAULT_ADDR": "https://x", "VAULT_CLIENT_CERT": "/v", "VAULT_CLIENT_KEY": "/k"}
    found = connect(environment, client_certificate="/own")
    assert (found.client_certificate, found.client_key) == ("/own", None)


def test_proxy_of_the_older_name() -> None:
    """VAULT_HTTP_PROXY is heeded, after VAULT_PROXY_ADDR; the proxies of others are not."""
    base = {"VAULT_ADDR": "https://x", "HTTPS_PROXY": "http://other", "http_proxy": "http://other"}
    assert connect(base).proxy is None
    older = {**base, "VAULT_HTTP_PROXY": "http://a"}
    assert connect(older).proxy == "http://a"
    assert connect({**older, "VAULT_PROXY_ADDR": "http://b"}).proxy == "http://b"


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("VAULT_ADDR", "ftp://x"),
        ("VAULT_ADDR", "https://user:planted-password@x"),
        ("VAULT_NAMESPACE", "a\r\nX-Vault-Token: planted"),
        ("VAULT_NAMESPACE", "../up"),
        ("VAULT_PROXY_ADDR", "http://user:planted-password@proxy"),
        ("VAULT_PROXY_ADDR", "planted"),
        ("VAULT_SKIP_VERIFY", "planted"),
        ("VAULT_TLS_SERVER_NAME", "planted name"),
        ("VAULT_CLIENT_KEY", "/planted"),
    ],
)
def test_variables_that_are_none(variable: str, value: str) -> None:
    """A variable that cannot be used is named, and its value is not shown."""
    with pytest.raises(ConfigurationError) as caught:
        connect({"VAULT_ADDR": "https://x", variable: value})
    assert "planted" not in str(caught.value)


@pytest.mark.parametrize("text", ["admin/", "/admin", "admin"])
def test_namespace_with_slashes(text: str) -> None:
    """A namespace may end in a slash, as Vault itself writes it."""
    found = connect({"VAULT_ADDR": "https://x", "VAULT_NAMESPACE": text})
    assert found.namespace == "admin"


def test_proxy(vault: Vault, make_user: MakeUser) -> None:
    """Requests go through the proxy that is named."""
    with FaultProxy("127.0.0.1", vault.port) as proxy:
        table = {
            "address": vault.address,
            "proxy": proxy.url,
            "auth": {"method": "token", "token": "env://T"},
        }
        make_user(table, {"T": vault.token}).who()
        first = proxy.requests()[0].split(b"\r\n")[0]
        assert first.startswith(f"GET {vault.address}/v1/auth/token/lookup-self ".encode())


def test_proxies_of_others_are_not_used(
    vault: Vault, make_user: MakeUser, monkeypatch: pytest.MonkeyPatch
) -> None:
    """HTTP_PROXY and the like are for others: a token does not go there."""
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    table = {"address": vault.address, "auth": {"method": "token", "token": "env://T"}}
    assert make_user(table, {"T": vault.token}).policies() == {"root"}
