"""A signed request for `sts:GetCallerIdentity`, by botocore, which is imported here alone."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, NamedTuple

from sentra_kms import (
    AuthenticationFailed,
    ConfigurationError,
    KMSError,
    ServiceUnavailable,
    VendorError,
)

if TYPE_CHECKING:
    from botocore.credentials import ReadOnlyCredentials
    from botocore.session import Session

_BODY = "Action=GetCallerIdentity&Version=2011-06-15"
_GLOBAL = (
    "us-east-1"  # whose requests go to the global endpoint, as Vault's do that is told nothing
)
_signing: ContextVar[bool] = ContextVar("signing", default=False)


class SignedRequest(NamedTuple):
    """A POST that whoever has it can send for some minutes, as Vault does."""

    url: str
    headers: dict[str, str]
    body: str
    credentials: tuple[str, ...]
    """What tells its signer from others."""

    def __repr__(self) -> str:
        return f"SignedRequest({self.url!r}, redacted)"


def sign(region: str, server_id: str | None, backend: str, timeout: float) -> SignedRequest:
    """Return a request signed with the credentials that botocore finds now.

    `timeout` is in seconds, for each answer of an STS that has them; asked once, and not five times
    with a minute for each, as botocore would.

    Raises `ConfigurationError` without botocore, `AuthenticationFailed` without credentials,
    `ServiceUnavailable` if who has them does not answer.
    """
    if importlib.util.find_spec("botocore") is None:
        raise ConfigurationError(
            f"backend '{backend}' logs in by 'aws', which needs botocore: "
            "pip install 'sentra-kms-vault[aws]'",
            backend=backend,
        )
    from botocore.auth import SigV4Auth
    from botocore.awsrequest import AWSRequest

    headers = {"Content-Type": "application/x-www-form-urlencoded; charset=utf-8"}
    if server_id is not None:
        headers["X-Vault-AWS-IAM-Server-ID"] = server_id
    with _quiet():
        url, credentials = _found(region, backend, timeout)
        request = AWSRequest("POST", url, headers=headers, data=_BODY)
        SigV4Auth(credentials, "sts", region).add_auth(request)
    signer = (credentials.access_key, credentials.secret_key, credentials.token or "")
    return SignedRequest(url, dict(request.headers.items()), _BODY, signer)


def _found(region: str, backend: str, timeout: float) -> tuple[str, ReadOnlyCredentials]:
    """Return where to and with what to sign, as botocore knows now."""
    from botocore.config import Config
    from botocore.exceptions import (
        BotoCoreError,
        ClientError,
        HTTPClientError,
        UnknownRegionError,
    )
    from botocore.session import Session

    failure: KMSError
    cause: VendorError | None = None
    try:
        session = Session()
        once = {"total_max_attempts": 1}
        session.set_default_client_config(
            Config(connect_timeout=timeout, read_timeout=timeout, retries=once)
        )
        url = _url(session, region)
        found = session.get_credentials()
        if found is not None:
            return url, found.get_frozen_credentials()
    except UnknownRegionError:
        failure = ConfigurationError(f"auth.region of backend '{backend}' is no region of AWS")
    except HTTPClientError as error:
        cause = VendorError(type(error).__name__)
        failure = ServiceUnavailable("what has the credentials of AWS did not answer")
    except (BotoCoreError, ClientError, OSError, ValueError) as error:
        cause = VendorError(type(error).__name__)
        failure = AuthenticationFailed(
            f"botocore cannot get credentials of AWS for backend '{backend}': look at the "
            "variables AWS_*, the profile, and the role of this machine"
        )
    else:
        failure = AuthenticationFailed(
            f"botocore finds no credentials of AWS for backend '{backend}': give this process a "
            "role, a profile or the variables AWS_*"
        )
    failure.__cause__ = cause
    raise failure


def _url(session: Session, region: str) -> str:
    if region == _GLOBAL:
        return "https://sts.amazonaws.com/"
    partition = session.get_partition_for_region(region)
    known = session.get_data("partitions")["partitions"]
    suffix = next(each["outputs"]["dnsSuffix"] for each in known if each["id"] == partition)
    return f"https://sts.{region}.{suffix}/"


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep this thread's requests for credentials, and what is signed, out of botocore's logs.

    At DEBUG these print session tokens, and the answers of those who give out keys.
    """
    import botocore.session  # which makes the loggers

    assert botocore.session  # noqa: S101
    for name, logger in list(logging.root.manager.loggerDict.items()):
        if name.startswith("botocore") and isinstance(logger, logging.Logger):
            logger.addFilter(_unless_signing)  # a second time does nothing
    mark = _signing.set(True)
    try:
        yield
    finally:
        _signing.reset(mark)


def _unless_signing(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.WARNING or not _signing.get()
