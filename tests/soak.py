"""How long the long tests run: bounded in `make test`, at full length in `make soak`.

A test that is scaled is marked `soak`, and draws its random choices from `seed`:

```python
@pytest.mark.soak
def test_kills() -> None:
    chance = random.Random(seed())
    for _ in range(scale(ci=200, soak=4000)):
        ...
```

The variables do not begin with `SENTRA_KMS_`: those are kept away from every test.
"""

from __future__ import annotations

import os
import random

_LENGTH = os.environ.get("SENTRA_SOAK", "0")
BRIEF = _LENGTH == "brief"
"""Whether this is one of the newer Pythons in `make test`, for which SENTRA_SOAK=brief is set."""
FULL_LENGTH = _LENGTH not in {"", "0", "brief"}
"""Whether this is `make soak`, which sets SENTRA_SOAK=1."""

_SEED = int(os.environ.get("SENTRA_SOAK_SEED") or random.SystemRandom().randrange(2**32))


def scale(ci: int, soak: int) -> int:
    """Return how often to do it: `ci` times in `make test`, `soak` times in `make soak`.

    On newer Pythons a quarter of `ci`: they do again what `make test` does in full on one.
    """
    if FULL_LENGTH:
        return soak
    return max(1, ci // 4) if BRIEF else ci


def seed() -> int:
    """Return the seed of this run, and print it: pytest shows it if the test fails.

    SENTRA_SOAK_SEED sets it, so that a run can be done again.
    """
    print(f"SENTRA_SOAK_SEED={_SEED}")  # noqa: T201
    return _SEED


def header() -> str:
    """Return the line about this run that pytest prints at its start."""
    length = "at full length" if FULL_LENGTH else "brief" if BRIEF else "shortened"
    return f"soak tests: {length}, SENTRA_SOAK_SEED={_SEED}"
