"""AWS as moto plays it, on loopback: for its STS and IAM, which check signatures when told to."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import urllib3

from tests.needs import need
from tests.servers.lifeline import free_port, serving, wait_until


@contextmanager
def running() -> Iterator[str]:
    """Run moto's server for as long as the block lasts; give its URL."""
    need(importlib.util.find_spec("moto"), "moto[server], of the dependency group test")
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    kept = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    words = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with serving(words, env=kept) as process:
        wait_until(lambda: _ready(url), process)
        yield url


def check_signatures(url: str, *, after: int = 0) -> None:
    """Let it refuse each request that is not signed by a user who may, but for the next `after`."""
    urllib3.request("POST", f"{url}/moto-api/reset-auth", body=str(after), retries=False)


def _ready(url: str) -> None:
    if urllib3.request("GET", f"{url}/moto-api/data.json", retries=False).status != 200:
        raise ConnectionError
