"""A configuration for the benchmarks: the local backend with shipped defaults, in a directory."""

from __future__ import annotations

import os

ENVIRONMENT = "benchmark"


def config_text(directory: str) -> str:
    """Return a `sentra-kms.toml` for keys in this directory, whose master key is made now."""
    master = os.path.join(directory, "master.key")
    with open(master, "xb") as file:
        file.write(os.urandom(32))
    os.chmod(master, 0o600)
    # The temporary directory may be on any file system, which only development allows.
    return f"""
[{ENVIRONMENT}]
development = true
[{ENVIRONMENT}.backends.local]
type = "local"
directory = "{directory}/keys"
master_keys = {{ now = "file://{master}" }}
[{ENVIRONMENT}.keys]
wrap_with = ["local:now"]
store = "local"
"""


def write_config(directory: str) -> str:
    """Write the file and return its path."""
    path = os.path.join(directory, "sentra-kms.toml")
    with open(path, "x", encoding="utf-8") as file:
        file.write(config_text(directory))
    return path
