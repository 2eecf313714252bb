"""Distributions as an installer lays them out, so that importlib.metadata finds them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from textwrap import dedent


def install(
    site: Path,
    name: str,
    *,
    version: str = "1.0",
    backends: Mapping[str, str] | None = None,
    observers: Mapping[str, str] | None = None,
    modules: Mapping[str, str] | None = None,
) -> None:
    """Lay out a distribution under `site`: entry points by name, modules by name and source."""
    info = site / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    lines: list[str] = []
    for group, entries in (
        ("sentra_kms.backends", backends or {}),
        ("sentra_kms.observers", observers or {}),
    ):
        lines += [f"[{group}]", *(f"{entry} = {value}" for entry, value in entries.items())]
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n")
    for module, source in (modules or {}).items():
        path = site.joinpath(*module.split(".")).with_suffix(".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(dedent(source))
