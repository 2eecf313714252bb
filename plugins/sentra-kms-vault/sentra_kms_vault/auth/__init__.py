"""The ways to log in, one module each; `make_method` picks by the settings."""

from __future__ import annotations

from sentra_kms import UnsupportedOperation
from sentra_kms_vault.auth.means import Means
from sentra_kms_vault.auth.token import TokenMethod
from sentra_kms_vault.login import Method
from sentra_kms_vault.settings import Auth, TokenAuth


def make_method(auth: Auth, means: Means) -> Method:
    """Return the way to log in that the settings name."""
    match auth:
        case TokenAuth():
            return TokenMethod(auth, means)
        case _:
            raise UnsupportedOperation(f"{type(auth).__name__} is not built")
