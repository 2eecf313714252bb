"""`python -m benchmarks`: measure, print one table, keep it as JSON."""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

from benchmarks import boundary, cold, messages, peers, residence, secrets, vault, warm

OUTPUT = os.path.join("build", "bench.json")
_CORE = ("sentra-kms", "cryptography", "msgspec", "pluggy")


def main() -> int:
    """Run every benchmark; ratios are of CPU time to LIMIT's in one run, lower is better."""
    versions = {"python": platform.python_version(), **{name: version(name) for name in _CORE}}
    versions |= peers.versions()
    print("  ".join(f"{name} {number}" for name, number in versions.items()))
    rows, missing = messages.run()
    _print_messages(rows, missing)
    edges = boundary.run()
    print("\nplugin boundary: a hook by the part's own method; a backend by a bare plugin manager")
    for edge in edges:
        print(f"  {edge['what']:18}{edge['peer'] * 1e6:>9.1f} us{edge['ours'] * 1e6:>9.1f} us ours")
    fetched = secrets.run()
    print("\nsecrets: a cached get by a dict; threads by one fetch; exec by the command alone")
    for each in fetched:
        print(
            f"  {each['what']:22}{each['peer'] * 1e6:>11.2f} us{each['ours'] * 1e6:>13.2f} us ours"
        )
    unwraps = vault.run()
    print("\nVault: an unwrap by hvac's own, over one connection to a server on this machine")
    if isinstance(unwraps, str):
        print(f"  not measured: {unwraps}")
    else:
        for each in unwraps:
            print(
                f"  {each['what']:22}{each['peer'] * 1e6:>11.0f} us{each['ours'] * 1e6:>13.0f} us "
                f"ours, {each['ratio']:.2f} x"
            )
    start = cold.run()
    _print_cold(start)
    flight = residence.unwraps()
    print(
        f"\n{flight['threads']} threads ask for one cold tenant: {flight['opened']} opened, "
        f"{flight['load_ring']} ring load, {flight['unwrap_key']} unwrap"
    )
    busy = warm.run()
    print(
        f"\n{busy['messages']} warm messages sealed and opened: {busy['calls']} backend calls; "
        f"a tenant's look-up {busy['look-up']['ours'] * 1e9:.0f} ns "
        f"(a dict's {busy['look-up']['dict'] * 1e9:.0f})\n{busy['threads']} threads, messages a "
        "second over those of as many LIMIT threads: "
        + ", ".join(f"{size} B {found:.2f}" for size, found in busy["throughput"].items())
    )
    held = residence.memory()
    print(
        f"\nresident, bytes a tenant of {held['tenants']:.0f}: ring and key "
        f"{held['entry and key']:.0f} ({held['entry and key, MiB per 100k']:.0f} MiB for 100,000), "
        "with an epoch for writing "
        f"{held['and an epoch']:.0f}, with a subkey for reading {held['and an opener']:.0f}"
    )
    os.makedirs(os.path.dirname(OUTPUT), exist_ok=True)
    with open(OUTPUT, "w", encoding="utf-8") as file:
        found = {
            "versions": versions,
            "messages": rows,
            "missing": missing,
            "boundary": edges,
            "secrets": fetched,
            "vault": unwraps,
            "cold": start,
            "flight": flight,
            "warm": busy,
            "resident": held,
        }
        json.dump(found, file, indent=2)
    print(f"\nkept in {OUTPUT}")
    return 0


def _print_messages(rows: Sequence[Mapping[str, Any]], missing: Mapping[str, str]) -> None:
    columns = {(row["bytes"], row["direction"]): row for row in rows}
    print("\nx LIMIT (one prebuilt AESGCM, os.urandom nonce, 32 B associated data), CPU time")
    print(f"{'':26}" + "".join(f"{_size(size):>9} {way[:3]}" for size, way in columns))
    limits = (f"{row['limit'] * 1e6:>10.2f} us" for row in rows)
    print(f"{'LIMIT':26}" + "".join(limits))
    names = [name for name in rows[0] if name not in {"bytes", "direction", "limit"}]
    names += [name for row in rows for name in row if name not in rows[0]]
    for name in dict.fromkeys(names):
        ours = name in _OURS or name.endswith("salts")
        figures = "".join(_cell(row.get(name)) for row in rows)
        print(f"{('sentra_kms, ' if ours else '') + name:26}{figures}")
    for name, why in missing.items():
        print(f"{name:26}  not measured: {why}")


_OURS = ("32 B context", "no context", "3 pairs", "batch", "batch, contexts")


def _print_cold(start: Mapping[str, Any]) -> None:
    seconds = start["seconds"]
    told = "  ".join(f"{name} {taken * 1e3:.0f} ms" for name, taken in seconds.items())
    ratio = f"{start['ratio']:.2f} x tink" if "ratio" in start else "tink is missing"
    print(f"\ncold start to a first ciphertext, CPU time: {told}: {ratio}, bare python subtracted")
    spent = ", ".join(f"{name} {taken:.1f}" for name, taken in start["imports"].items())
    print(f"  imports, ms: {spent}")


def _size(size: int) -> str:
    return f"{size} B" if size < 1024 else f"{size // 1024} KiB"


def _cell(figure: object) -> str:
    if not isinstance(figure, float):
        return f"{'':>13}"
    return f"{figure:>13.2f}" if figure < 100 else f"{figure:>13.0f}"


if __name__ == "__main__":
    sys.exit(main())
