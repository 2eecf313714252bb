"""The demo's master keys and configuration, as files."""

from __future__ import annotations

import base64
import json
import os
import secrets
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

ENVIRONMENT = "demo"


class Configuration:
    """`sentra-kms.toml` in a directory, and master keys in `secrets` beside it."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "sentra-kms.toml"
        self._secrets = folder / "secrets"
        self._secrets.mkdir(mode=0o700)

    def master_key(self, name: str) -> Path:
        """Return the file of a master key."""
        return self._secrets / f"master-{name}"

    def make_master_key(self, name: str) -> Path:
        """Make a master key as `sentra-kms keygen` does, in a file that is its owner's alone."""
        path = self.master_key(name)
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(file, "wb") as out:
            out.write(base64.b64encode(secrets.token_bytes(32)) + b"\n")
        return path

    def write(self, wrap_with: str, unwrap_with: Sequence[str] = ()) -> None:
        """Configure the named master keys, the first to wrap, the others only to unwrap."""
        names = [wrap_with, *unwrap_with]
        keys = [f'"{name}" = "file://{quote(str(self.master_key(name)))}"' for name in names]
        older = [f"unwrap_with = {json.dumps([f'local:{name}' for name in unwrap_with])}"]
        lines = [
            f"[{ENVIRONMENT}]",
            "development = true",
            f"[{ENVIRONMENT}.backends.local]",
            'type = "local"',
            'directory = "keys"',
            f"[{ENVIRONMENT}.backends.local.master_keys]",
            *keys,
            f"[{ENVIRONMENT}.keys]",
            f'wrap_with = ["local:{wrap_with}"]',
            *(older if unwrap_with else []),
            'store = "local"',
        ]
        self.path.write_text("\n".join(lines) + "\n", encoding="utf-8")

    def text(self, table: str = ENVIRONMENT) -> str:
        """Return what is written, from a table on."""
        _, head, rest = self.path.read_text(encoding="utf-8").partition(f"[{table}]\n")
        return head + rest
