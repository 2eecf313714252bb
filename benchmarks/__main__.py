"""`python -m benchmarks`: measure, print one table, keep it as JSON."""

from __future__ import annotations

import json
import os
import platform
import sys
from importlib.metadata import version

from benchmarks import boundary, messages, secrets

OUTPUT = os.path.join("build", "bench.json")
_COLUMNS = ("no context", "32 B context", "3 pairs", "batch")


def main() -> int:
    """Run every benchmark; figures are times LIMIT, lower is better."""
    rows = messages.run()
    edges = boundary.run()
    fetched = secrets.run()
    versions = {
        "python": platform.python_version(),
        **{name: version(name) for name in ("sentra-kms", "cryptography", "msgspec", "pluggy")},
    }
    print("x LIMIT (one prebuilt AESGCM, os.urandom nonce, 32 B associated data); batch: of 100")
    print("  ".join(f"{name} {number}" for name, number in versions.items()))
    print(f"{'':8}{'bytes':>7}{'LIMIT us':>10}" + "".join(f"{name:>14}" for name in _COLUMNS))
    for row in rows:
        print(
            f"{row['direction']:8}{row['bytes']:>7}{float(str(row['limit'])) * 1e6:>10.2f}"
            + "".join(_cell(row.get(name)) for name in _COLUMNS)
        )
    print()
    print("plugin boundary: a hook by the part's own method; a backend by a bare plugin manager")
    for edge in edges:
        print(
            f"{edge['what']:16}{float(str(edge['peer'])) * 1e6:>10.1f} us"
            f"{float(str(edge['ours'])) * 1e6:>10.1f} us ours{float(str(edge['ratio'])):>8.1f} x"
        )
    print()
    print("secrets: a cached get by a dict; threads by one fetch; exec by the command alone")
    for each in fetched:
        print(
            f"{each['what']:20}{float(str(each['peer'])) * 1e6:>11.2f} us"
            f"{float(str(each['ours'])) * 1e6:>13.2f} us ours"
        )
    os.makedirs(os.path.dirname(OUTPUT), exist_ok=True)
    with open(OUTPUT, "w", encoding="utf-8") as file:
        json.dump(
            {"versions": versions, "messages": rows, "boundary": edges, "secrets": fetched},
            file,
            indent=2,
        )
    print(f"kept in {OUTPUT}")
    return 0


def _cell(figure: object) -> str:
    return f"{figure:>14.2f}" if isinstance(figure, float) else f"{'':>14}"


if __name__ == "__main__":
    sys.exit(main())
