"""The backend's table of the configuration; imports neither hvac nor an HTTP client."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from sentra_kms import Reference
from sentra_kms.hooktypes import BackendSettings

MOUNT_PATTERN = r"\A[A-Za-z0-9_][A-Za-z0-9._-]*(/[A-Za-z0-9_][A-Za-z0-9._-]*)*\Z"
Mount = Annotated[str, Meta(pattern=MOUNT_PATTERN)]
"""Where an engine is mounted: segments of letters, digits, '.', '_' and '-', without slashes at
either end."""
ADDRESS_PATTERN = r"\Ahttps?://[^/?#@\s]+/?\Z"
Address = Annotated[str, Meta(pattern=ADDRESS_PATTERN)]
"""A server, without a path."""
Word = Annotated[str, Meta(pattern=r"\A[\x21-\x7e]+\Z")]
"""What fits into a header: printable ASCII without spaces."""
Path = Annotated[str, Meta(pattern=r"\A[^\x00]+\Z")]
"""A file, from the configuration file if it is relative."""


class _Table(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A table inside the backend's table."""


class TokenAuth(_Table, frozen=True, tag_field="method", tag="token"):
    """A token; read again through its reference when Vault does not accept it any more."""

    token: Annotated[
        Reference | None, Meta(description="The token; VAULT_TOKEN or BAO_TOKEN if absent.")
    ] = None


class TokenFileAuth(_Table, frozen=True, tag_field="method", tag="token_file"):
    """A file that an agent keeps a token in; read again when it changes, renewed by the agent."""

    path: Annotated[
        Path | None, Meta(description="The file; ~/.vault-token, where `vault login` puts one.")
    ] = None


class AppRoleAuth(_Table, frozen=True, tag_field="method", tag="approle"):
    """AppRole. The secret id is itself, or a wrapping token with `secret_id_wrapped`."""

    role_id: Annotated[Reference, Meta(description="The role id.")]
    secret_id: Annotated[
        Reference | None, Meta(description="The secret id, unless the role needs none.")
    ] = None
    secret_id_wrapped: Annotated[
        bool,
        Meta(
            description="The secret id is a response-wrapping token: unwrapped once, and what "
            "was in it kept in memory."
        ),
    ] = False
    mount: Mount = "approle"


class KubernetesAuth(_Table, frozen=True, tag_field="method", tag="kubernetes"):
    """The service account of a pod; its token is read at each login, as the kubelet renews it."""

    role: str
    token_path: Path = "/var/run/secrets/kubernetes.io/serviceaccount/token"  # noqa: S105
    mount: Mount = "kubernetes"


class JwtAuth(_Table, frozen=True, tag_field="method", tag="jwt"):
    """A signed JWT, as of a CI system or an OIDC provider; read at each login."""

    jwt: Annotated[Reference, Meta(description="The JWT.")]
    role: Annotated[str | None, Meta(description="The role; the mount's default if absent.")] = None
    mount: Mount = "jwt"


class UserpassAuth(_Table, frozen=True, tag_field="method", tag="userpass"):
    """A user and a password."""

    username: Annotated[
        str,
        Meta(
            pattern=r"\A[A-Za-z0-9_]([A-Za-z0-9_.@-]*[A-Za-z0-9_])?\Z",
            description="The user: letters, digits, '_', and inside also '.', '@' and '-'.",
        ),
    ]
    password: Reference
    mount: Mount = "userpass"


class CertAuth(_Table, frozen=True, tag_field="method", tag="cert"):
    """The client certificate of `tls`."""

    role: Annotated[str | None, Meta(description="The role; any that fits if absent.")] = None
    mount: Mount = "cert"


class AwsAuth(_Table, frozen=True, tag_field="method", tag="aws"):
    """AWS IAM: a signed request to STS that Vault sends. Needs the extra `aws` for botocore."""

    role: str | None = None
    region: Annotated[
        str,
        Meta(
            pattern=r"\A[a-z0-9-]+\Z",
            description="The region of the STS endpoint that the request is signed for.",
        ),
    ] = "us-east-1"
    server_id: Annotated[
        Word | None,
        Meta(description="The value of X-Vault-AWS-IAM-Server-ID, if Vault wants it."),
    ] = None
    mount: Mount = "aws"


Auth = (
    TokenAuth
    | TokenFileAuth
    | AppRoleAuth
    | KubernetesAuth
    | JwtAuth
    | UserpassAuth
    | CertAuth
    | AwsAuth
)


class Tls(_Table, frozen=True):
    """How the server is verified, and who we are to it. TLS 1.2 and later only."""

    ca_file: Annotated[
        Path | None, Meta(description="PEM certificates of the CAs to trust; VAULT_CACERT.")
    ] = None
    ca_directory: Annotated[
        Path | None, Meta(description="A directory of such files; VAULT_CAPATH.")
    ] = None
    client_certificate: Annotated[
        Path | None, Meta(description="Our certificate, PEM; VAULT_CLIENT_CERT.")
    ] = None
    client_key: Annotated[Path | None, Meta(description="Its key, PEM; VAULT_CLIENT_KEY.")] = None
    server_name: Annotated[
        str | None,
        Meta(description="The name in the server's certificate; VAULT_TLS_SERVER_NAME."),
    ] = None
    skip_verify: Annotated[
        bool | None,
        Meta(description="Accept any certificate; in development only. VAULT_SKIP_VERIFY."),
    ] = None
    allow_plain_http: Annotated[
        bool,
        Meta(
            description="Let an address outside development be http:// although it is not of "
            "this machine: who is on the way can read tokens, keys and secrets."
        ),
    ] = False


class RingSettings(_Table, frozen=True):
    """Where key rings are kept: an engine KV version 2, and a path in it."""

    mount: Mount
    prefix: Mount = "sentra/rings"


class VaultSettings(BackendSettings, frozen=True):
    """`[ENV.backends.NAME]` of type `vault`. Environment variables stand in for what it omits."""

    address: Annotated[
        Address | None, Meta(description="https://HOST:PORT; VAULT_ADDR or BAO_ADDR if absent.")
    ] = None
    namespace: Annotated[
        Mount | None, Meta(description="The namespace of every path; VAULT_NAMESPACE.")
    ] = None
    auth: Annotated[Auth, Meta(description="How to log in, by `method`.")] = TokenAuth()
    tls: Tls = Tls()
    proxy: Annotated[
        Address | None,
        Meta(description="A proxy that asks for us; VAULT_PROXY_ADDR or VAULT_HTTP_PROXY."),
    ] = None
    max_connections: Annotated[
        int, Meta(ge=1, le=1024, description="Connections that are kept open at most.")
    ] = 32
    transit: Annotated[Mount, Meta(description="Where the transit engine is mounted.")] = "transit"
    mounts: Annotated[
        dict[Mount, Literal["kv-v2", "kv-v1", "dynamic"]],
        Meta(
            description="What secrets engine is mounted where. What is not named is taken to be "
            "KV version 2, mounted under the first segment of a reference's path."
        ),
    ] = {}  # noqa: RUF012 - msgspec gives each its own
    rings: Annotated[
        RingSettings | None, Meta(description="Where key rings are kept; without it none are.")
    ] = None
