"""Hosts for backends that are tried without a configuration."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sentra_kms.hooktypes import Host, SecretRequest
from sentra_kms.material import KeyMaterial
from sentra_kms.reference import Reference


def make_host(
    name: str = "backend",
    *,
    development: bool = True,
    secret: Callable[[Reference], KeyMaterial] | None = None,
) -> Host:
    """Return a host as the core lends it."""

    def no_secret(reference: Reference) -> KeyMaterial:
        raise AssertionError(f"nobody should ask for {reference}")

    return Host(
        name=name,
        environment="test",
        development=development,
        clock=lambda: 0.0,
        secret=secret or no_secret,
        resolve=os.path.abspath,
        state={},
    )


def fetch(part: Any, reference: str) -> bytes:
    """Return the bytes that a secrets part has under a reference."""
    data: KeyMaterial = part.fetch_secret(SecretRequest(Reference(reference)), 5.0).data
    return data.reveal()


NOBODY = 65534


def in_unprivileged_child(work: Callable[[], str]) -> str:
    """Return what a child tells that has given up its privileges, and is seen to have done so."""
    receive, send = os.pipe()
    child = os.fork()
    if child == 0:
        told = ""
        try:
            if os.geteuid() == 0:
                os.setgroups([])
                os.setgid(NOBODY)
                os.setuid(NOBODY)
            assert os.geteuid() != 0
            assert not os.access("/etc/shadow", os.R_OK)
            told = work()
        except BaseException as error:  # noqa: BLE001 - told to the parent
            told = f"raised {error!r}"
        finally:
            os.write(send, told.encode())
            os._exit(0)
    os.close(send)
    with os.fdopen(receive) as answer:
        told = answer.read()
    assert os.waitpid(child, 0)[1] == 0
    return told


@contextmanager
def open_directory() -> Iterator[Path]:
    """Make a directory that every user may enter, which those of pytest are not."""
    path = Path(tempfile.mkdtemp(prefix="sentra-kms-"))
    path.chmod(0o755)
    try:
        yield path
    finally:
        shutil.rmtree(path)
