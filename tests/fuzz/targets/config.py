"""Configuration files: settings or an error of our tree, short, and without another's text."""

from __future__ import annotations

import atexit
import os
import tempfile

from sentra_kms.config import read_settings
from sentra_kms.errors import KMSError
from sentra_kms.settings import Settings

_, PATH = tempfile.mkstemp(prefix="sentra-kms-fuzz-", suffix=".toml")
os.close(_)
atexit.register(os.unlink, PATH)


def run(data: bytes) -> None:
    """Try one file, with the environment that it names itself and with one that is asked for."""
    with open(PATH, "wb") as file:
        file.write(data)
    for environment in (None, "development", "production"):
        found = read(environment)
        if isinstance(found, Settings):
            assert found == read(environment)
        else:
            assert PATH in found
            assert len(found) < 2 * len(data) + 1500


def read(environment: str | None) -> Settings | str:
    """Return the settings, or the text of the refusal."""
    try:
        return read_settings(PATH, environment)
    except KMSError as error:
        assert error.__cause__ is error.__context__ is None
        return error.message
