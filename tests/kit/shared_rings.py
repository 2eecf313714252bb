"""A store of rings that processes share: right with a lock on a file, wrong with one in memory.

Wrong, too, with one that a second thread of the process drops.
"""

# ruff: noqa: D102, D103 - what is implemented says it

from __future__ import annotations

import fcntl
import os
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from sentra_kms.errors import Conflict, MalformedInput, TenantNotFound
from sentra_kms.hookspecs import RingHooks, hookimpl
from sentra_kms.hooktypes import BackendSettings, BackendType, Host, RingPage, StoredRing

ALONE = "alone in its process"
DROPS = "drops its process's locks"
_IN_PROCESS = threading.Lock()


class SharedSettings(BackendSettings, frozen=True):
    """`directory` is where the files are."""

    directory: str
    fault: str = ""


@hookimpl
def backend_type() -> BackendType:
    return BackendType(
        api=(1, 0),
        settings=SharedSettings,
        create=f"{__name__}:create",
        summary="rings in files",
    )


def create(settings: SharedSettings, host: Host) -> object:
    return Rings(Path(settings.directory), settings.fault)


class Rings(RingHooks):
    """A file a ring; the revision stands before the document."""

    def __init__(self, directory: Path, fault: str) -> None:
        self._directory = directory
        self._fault = fault

    @hookimpl
    def load_ring(self, tenant: str, timeout: float) -> StoredRing:
        if self._fault == DROPS:  # by closing the file
            (self._directory / "lock").touch()
            (self._directory / "lock").open().close()
            return self._find(tenant)
        with self._locked():
            return self._find(tenant)

    @hookimpl
    def save_ring(self, tenant: str, document: bytes, expected: str | None, timeout: float) -> str:
        if not document:
            raise MalformedInput("no ring is empty")
        revision = os.urandom(16).hex()
        with self._locked():
            self._expect(tenant, expected)
            written = self._directory / f"{revision}.tmp"
            written.write_bytes(revision.encode() + document)
            written.replace(self._path(tenant))
        return revision

    @hookimpl
    def delete_ring(self, tenant: str, expected: str, timeout: float) -> None:
        with self._locked():
            self._expect(tenant, expected)
            self._path(tenant).unlink()

    @hookimpl
    def list_rings(self, cursor: str | None, limit: int, timeout: float) -> RingPage:
        with self._locked():
            names = sorted(bytes.fromhex(path.stem).decode() for path in self._files())
        found = [name for name in names if cursor is None or name > cursor]
        return RingPage(tuple(found[:limit]), found[limit - 1] if len(found) > limit else None)

    @contextmanager
    def _locked(self) -> Generator[None]:
        self._directory.mkdir(exist_ok=True)
        with _IN_PROCESS, (self._directory / "lock").open("w") as file:
            if self._fault == DROPS:
                fcntl.lockf(file, fcntl.LOCK_EX)
            elif self._fault != ALONE:
                fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _files(self) -> list[Path]:
        return list(self._directory.glob("*.ring"))

    def _path(self, tenant: str) -> Path:
        return self._directory / f"{tenant.encode().hex()}.ring"

    def _find(self, tenant: str) -> StoredRing:
        try:
            data = self._path(tenant).read_bytes()
        except FileNotFoundError:
            raise TenantNotFound(f"tenant '{tenant}' has no ring") from None
        return StoredRing(data[32:], data[:32].decode())

    def _expect(self, tenant: str, expected: str | None) -> None:
        there = self._path(tenant).exists()
        found = self._find(tenant).revision if there or expected is not None else None
        if found != expected:
            raise Conflict(f"the ring of '{tenant}' was saved by somebody else")
        # As writing takes; another process may come between, and does if that is to be found.
        time.sleep(0.02 if self._fault else 0.002)
