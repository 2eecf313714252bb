"""The program `vault`: from PATH, from the cache, or built from the pinned source. A test tool.

`python -m tests.servers.vault_binary` makes sure that there is one, and says what it does; and that
there is the plugin for PostgreSQL, which a build of our own leaves out.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SOURCE = Path(__file__).parent / "vault"
VERSION = "1.19.0"
MODULE = "github.com/hashicorp/vault"
PLUGIN = f"{MODULE}/plugins/database/postgresql/postgresql-database-plugin"
_FLAGS = ("-tags", "minimal", "-ldflags", "-s -w")
_BUILD_SECONDS = 3600


def cache() -> Path:
    """Return the directory, outside the tree, where what is built for tests is kept."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "sentra-kms-tests"


def find_vault() -> Path | None:
    """Return a `vault` or `bao` that is there already, `None` if there is none."""
    for name in ("vault", "bao"):
        found = shutil.which(name)
        if found is not None:
            return Path(found)
    return _built() if _built().is_file() else None


def provide_vault() -> Path | None:
    """Return a `vault` or `bao`; build one if there is Go and none is there yet."""
    found = find_vault()
    if found is not None or shutil.which("go") is None:
        return found
    with _alone():
        if not _built().is_file():  # another process may have built it meanwhile
            _build(
                MODULE,
                _built(),
                "HashiCorp Vault",
                "some 8 minutes on two cores, and 5 GB of disk for as long",
            )
    return _built()


def provide_postgres_plugin() -> Path | None:
    """Return the database engine's plugin, built if need be; `None` where there is no Go.

    It is the only file in its directory.
    """
    if not _plugin().is_file() and shutil.which("go") is not None:
        with _alone():
            if not _plugin().is_file():
                _build(PLUGIN, _plugin(), "Vault's plugin for PostgreSQL", "a minute or two")
    return _plugin() if _plugin().is_file() else None


def _built() -> Path:
    return _place("vault") / "vault"


def _plugin() -> Path:
    return _place("vault-database") / "postgresql-database-plugin"


def _place(name: str) -> Path:
    pinned = hashlib.sha256((SOURCE / "go.sum").read_bytes() + " ".join(_FLAGS).encode())
    return cache() / f"{name}-{VERSION}-{pinned.hexdigest()[:12]}"


@contextmanager
def _alone() -> Iterator[None]:
    """Let one process build at a time."""
    cache().mkdir(parents=True, exist_ok=True)
    with open(cache() / "vault.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _build(package: str, target: Path, what: str, cost: str) -> None:
    print(
        f"Building {what} {VERSION} for the tests, once, into {target.parent}: {cost} ...",
        file=sys.stderr,
        flush=True,
    )
    with tempfile.TemporaryDirectory(prefix="vault-build-", dir=cache()) as scratch:
        shutil.copytree(SOURCE, f"{scratch}/source")
        own = {
            "GOFLAGS": "-modcacherw -mod=readonly",
            "GOTOOLCHAIN": "local",
            "GOCACHE": f"{scratch}/cache",
            "GOMODCACHE": f"{scratch}/modules",
            "CGO_ENABLED": "0",
        }
        done = subprocess.run(
            ["go", "build", *_FLAGS, "-o", f"{scratch}/built", package],
            cwd=f"{scratch}/source", env={**os.environ, **own}, check=False,
            timeout=_BUILD_SECONDS, stdin=subprocess.DEVNULL, capture_output=True, text=True,
        )  # fmt: skip
        if done.returncode != 0:
            raise RuntimeError(f"{what} {VERSION} cannot be built here:\n{done.stderr[-2000:]}")
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(f"{scratch}/built", target)


if __name__ == "__main__":
    try:
        where = provide_vault()
        provide_postgres_plugin()
    except (RuntimeError, OSError, subprocess.SubprocessError) as error:
        sys.exit(f"{error}\nThe tests that need Vault will fail in CI, and be left out elsewhere.")
    if where is None:
        print("There is neither vault nor bao here, nor Go to build one: their tests are left out.")
