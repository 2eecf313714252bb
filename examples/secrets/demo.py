"""Run `app.py` three times: from environment variables, Docker secrets, and a secret service.

Nothing differs between the runs but SENTRA_KMS_ENV. The sources are made in a temporary directory,
which is removed at the end.
"""

from __future__ import annotations

import base64
import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent


def main() -> None:
    """Make the sources, and run the application under each environment."""
    with tempfile.TemporaryDirectory(prefix="sentra-kms-example-") as name:
        work = Path(name)
        shutil.copy(HERE / "sentra-kms.toml", work)
        variables = {**os.environ, **make_sources(work)}
        for environment in ("development", "docker", "service"):
            subprocess.run(
                [sys.executable, HERE / "app.py"],
                cwd=work,
                env={**variables, "SENTRA_KMS_ENV": environment},
                check=True,
            )


def make_sources(work: Path) -> dict[str, str]:
    """Write the files of two sources, and return the variables of the third."""
    values = {
        "encryption_master_key": base64.b64encode(os.urandom(32)).decode("ascii"),
        "session_secret": secrets.token_urlsafe(32),
        "database_url": "postgresql://app:p%40ss%2Fword@localhost/app",
    }
    for name, value in values.items():
        write(work / "run" / "secrets" / name, f"{value}\n")
    database = {"user": "app", "password": "p@ss/word"}
    write(work / "vault" / "platform.json", json.dumps({**values, "database": database}))
    return {
        "ENCRYPTION_MASTER_KEY": values["encryption_master_key"],
        "SENTRASCAN_SECRET": values["session_secret"],
        "DATABASE_URL": values["database_url"],
    }


def write(path: Path, text: str) -> None:
    """Write a file that only its owner reads."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(0o600)
    path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
