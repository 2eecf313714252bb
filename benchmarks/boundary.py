"""What the plugin boundary costs: a hook call through the binding, and building a backend.

Peers: the part's own method called directly, and a bare plugin manager with the same hooks and
parts, without the guard.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pluggy

from benchmarks.harness import ratios
from sentra_kms.binding import Binding
from sentra_kms.discovery import find_create, find_type
from sentra_kms.guard import PROTOCOLS
from sentra_kms.hookspecs import PROJECT
from sentra_kms.hooktypes import Host
from sentra_kms.material import KeyMaterial
from sentra_kms.reference import Reference


def run(rounds: int = 15) -> list[dict[str, Any]]:
    """Measure both; one row each, with the peer's and our seconds."""
    found = find_type("memory")
    settings = found.kind.settings()
    host = Host(
        name="memory",
        environment="benchmark",
        development=True,
        clock=lambda: 0.0,
        secret=_no_secret,
        resolve=str,
        state={},
    )
    create = find_create(found)
    binding = Binding(found, settings, host, timeout=5.0)
    parts = create(settings, host)
    keys = parts[0] if isinstance(parts, list) else parts

    def bare() -> None:
        manager = pluggy.PluginManager(PROJECT)
        for protocol in PROTOCOLS:
            manager.add_hookspecs(protocol)
        for part in parts if isinstance(parts, list) else [parts]:
            manager.register(part)

    describe: Callable[..., object] = getattr(keys, "describe_key")  # noqa: B009 - untyped part
    return [
        _row(
            "hook call",
            lambda: describe(key="k", timeout=5.0),
            lambda: binding.describe_key("k"),
            rounds,
        ),
        _row(
            "build a backend",
            bare,
            lambda: Binding(found, settings, host, timeout=5.0),
            rounds,
        ),
    ]


def _row(
    what: str, peer: Callable[[], object], ours: Callable[[], object], rounds: int
) -> dict[str, Any]:
    seconds, found = ratios(peer, {"ours": ours}, rounds=rounds, seconds=0.005)
    return {"what": what, "peer": seconds, "ratio": found["ours"], "ours": seconds * found["ours"]}


def _no_secret(reference: Reference) -> KeyMaterial:
    raise LookupError(reference)
