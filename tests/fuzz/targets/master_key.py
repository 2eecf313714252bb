"""Master keys as their sources hold them: read or refused as by the independent reader."""

from __future__ import annotations

from sentra_kms.backends.master_key import read_master_key
from sentra_kms.errors import ConfigurationError
from sentra_kms.material import KeyMaterial
from tests.reader import reader


def run(data: bytes) -> None:
    """Try one key, in development and outside."""
    try:
        theirs = reader.MasterKey.read(data)
    except reader.ConfigurationError:
        theirs = None
    for development in (True, False):
        allowed = theirs is not None and (development or reader.allowed_outside_development(data))
        try:
            ours = read_master_key(KeyMaterial(data), where="here", development=development)
        except ConfigurationError as error:
            assert not allowed, f"only the package refuses it: {error}"
            continue
        assert allowed
        assert theirs is not None
        assert ours.key_id == theirs.key_id
        assert ours.ring_auth_key().reveal() == theirs.auth_key
