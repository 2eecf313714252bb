"""The ways to log in, by what they need; `make_method` picks by the settings."""

from __future__ import annotations

from sentra_kms_vault.auth.approle import AppRoleMethod
from sentra_kms_vault.auth.aws import AwsMethod
from sentra_kms_vault.auth.cert import CertMethod
from sentra_kms_vault.auth.jwt import JwtMethod, KubernetesMethod
from sentra_kms_vault.auth.means import Means
from sentra_kms_vault.auth.token import TokenFileMethod, TokenMethod
from sentra_kms_vault.auth.userpass import UserpassMethod
from sentra_kms_vault.login import Method
from sentra_kms_vault.settings import (
    AppRoleAuth,
    Auth,
    AwsAuth,
    CertAuth,
    JwtAuth,
    KubernetesAuth,
    TokenAuth,
    TokenFileAuth,
    UserpassAuth,
)


def make_method(auth: Auth, means: Means) -> Method:
    """Return the way to log in that the settings name."""
    method: Method
    match auth:
        case TokenAuth():
            method = TokenMethod(auth, means)
        case TokenFileAuth():
            method = TokenFileMethod(auth, means)
        case AppRoleAuth():
            method = AppRoleMethod(auth, means)
        case KubernetesAuth():
            method = KubernetesMethod(auth, means)
        case JwtAuth():
            method = JwtMethod(auth, means)
        case UserpassAuth():
            method = UserpassMethod(auth, means)
        case CertAuth():
            method = CertMethod(auth, means)
        case AwsAuth():
            method = AwsMethod(auth, means)
    return method
