"""Fuzzers: one module in `targets` for each parser, and a corpus of seeds for each in `corpus`.

```console
$ .venv/bin/python -m tests.fuzz reference -max_total_time=60
```

fuzzes one parser, with libFuzzer's options, from its seeds. A seed that once found a fault is kept.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path

HOME = Path(__file__).parent
TARGETS = tuple(
    sorted(path.stem for path in (HOME / "targets").glob("*.py") if path.stem != "__init__")
)


def load_target(name: str) -> Callable[[bytes], None]:
    """Return what tries one input; it raises if the parser does what it may not."""
    run: Callable[[bytes], None] = import_module(f"tests.fuzz.targets.{name}").run
    return run


def seeds(name: str) -> Iterator[bytes]:
    """Yield the seeds of a target.

    A `.hex` file has one in each line, and so has a `.jsonl` file: a JSON string, where a lone
    surrogate from U+DC80 stands for a byte that is not UTF-8. Any other file is one seed.
    """
    for path in sorted((HOME / "corpus" / name).iterdir()):
        if path.suffix == ".hex":
            yield from map(bytes.fromhex, path.read_text("ascii").splitlines())
        elif path.suffix == ".jsonl":
            for line in path.read_text("utf-8").splitlines():
                yield json.loads(line).encode("utf-8", "surrogateescape")
        else:
            yield path.read_bytes()


def text_of(data: bytes) -> str:
    """Return an input as text; what is not UTF-8 becomes lone surrogates."""
    return data.decode("utf-8", "surrogateescape")
