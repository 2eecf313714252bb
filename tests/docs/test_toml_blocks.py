"""Every configuration in the documentation loads, or is refused for exactly what is not there.

All `toml` blocks of README.md and docs/ are tested, in each of their environments. A block that is
only a piece of a configuration has the line `<!-- fragment -->` above it and need only be TOML.
"""

from __future__ import annotations

import re
import textwrap
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest

import sentra_kms
from sentra_kms.backends.local import LocalSettings
from sentra_kms.config import read_settings
from sentra_kms.discovery import installed_types
from sentra_kms.settings import AuditSettings, CacheSettings, KeysSettings

ROOT = Path(__file__).parent.parent.parent
FRAGMENT = "<!-- fragment -->"
NOT_BUILT: tuple[tuple[str, ...], ...] = (
    ("audit", "required"),
    ("audit", "path"),
    ("audit", "wrap_with"),
)
"""What this version refuses by name. Built ones go from here, and the pages that show them load."""

PLANNED = frozenset({"vault", "aws", "azure", "gcp"})
"""Backend types that distributions of this project bring, installed or not."""

_FENCE = re.compile(
    r"^(?P<indent> *)(?P<fence>`{3,}|~{3,}) *toml\b[^\n]*\n(?P<body>.*?)^ *(?P=fence) *$",
    re.MULTILINE | re.DOTALL,
)
_WORD = re.compile(r"^[ `~]*toml\b", re.MULTILINE)


class Block(NamedTuple):
    """One block: where it stands, and its text."""

    page: str
    line: int
    text: str
    fragment: bool

    @property
    def tables(self) -> dict[str, Any]:
        """The block, parsed."""
        return tomllib.loads(self.text)

    def environments(self) -> list[str]:
        """Return the names of its environments."""
        return [name for name in self.tables if name not in {"shared", "default_environment"}]


def _pages() -> list[Path]:
    plugins = sorted((ROOT / "plugins").glob("*/README.md"))
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), *plugins]


def _blocks() -> Iterator[Block]:
    for page in _pages():
        text = page.read_text(encoding="utf-8")
        found = list(_FENCE.finditer(text))
        assert len(found) == len(_WORD.findall(text)), f"{page}: a toml block was not understood"
        for match in found:
            before = text[: match.start()].rstrip().rpartition("\n")[2].strip()
            yield Block(
                str(page.relative_to(ROOT)),
                text.count("\n", 0, match.start()) + 1,
                textwrap.dedent(match["body"]),
                before == FRAGMENT,
            )


BLOCKS = list(_blocks())
WHOLE = [
    pytest.param(block, environment, id=f"{block.page}:{block.line}-{environment}")
    for block in BLOCKS
    if not block.fragment
    for environment in block.environments()
]


def test_the_pages_have_blocks() -> None:
    """None of the pages that configure something has lost its blocks to this test."""
    found = {block.page for block in BLOCKS if not block.fragment}
    assert found >= {
        "README.md", "docs/configuration.md", "docs/operations.md", "docs/design.md",
        "plugins/sentra-kms-vault/README.md",
    }  # fmt: skip
    assert len(WHOLE) >= 12


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: f"{block.page}:{block.line}")
def test_it_is_toml_with_an_environment(block: Block) -> None:
    """Each block is TOML, and one that is not marked as a fragment has an environment."""
    assert block.tables
    assert block.fragment or block.environments()


@pytest.mark.parametrize(("block", "environment"), WHOLE)
def test_it_loads_or_is_refused_for_what_is_not_there(
    block: Block, environment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A block loads as it stands, unless it names what is not built or not installed.

    Then it is refused for that, and without what is not built it loads, or is refused for the
    backends that are not installed.
    """
    for variable in ("SENTRA_KMS_ENV", "SENTRA_KMS_CONFIG", "ENCRYPTION_KEYS_DIR"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("VAULT_ADDR", "http://127.0.0.1:8200")
    file = tmp_path / "sentra-kms.toml"
    file.write_text(block.text, encoding="utf-8")
    tables = block.tables
    merged = [tables.get("shared", {}), tables[environment]]
    keys = [path for path in NOT_BUILT if any(_has(table, path) for table in merged)]
    types = _types(merged) & PLANNED - set(installed_types())

    if not keys and not types:
        assert read_settings(file, environment).environment == environment
        sentra_kms.load(file, environment).close()
        return
    with pytest.raises(sentra_kms.KMSError) as refused:
        read_settings(file, environment)
    assert _is_for(refused.value, keys, types)
    for path in keys:
        for table in merged:
            _remove(table, path)
    if types:
        with pytest.raises(sentra_kms.ConfigurationError) as not_installed:
            read_settings(tables, environment)
        assert _is_for(not_installed.value, [], types)
    else:
        assert read_settings(tables, environment).environment == environment


def test_a_default_environment_is_the_one_that_loads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a block names a default environment, a process that names none gets that one."""
    monkeypatch.delenv("SENTRA_KMS_ENV", raising=False)
    blocks = [block for block in BLOCKS if "default_environment" in block.tables]
    assert blocks
    for block in blocks:
        file = tmp_path / "sentra-kms.toml"
        file.write_text(block.text, encoding="utf-8")
        assert read_settings(file).environment == block.tables["default_environment"]


def test_the_configuration_page_has_every_key() -> None:
    """Each key that can be set has a row in docs/configuration.md; each that cannot is named."""
    page = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    rows = set(re.findall(r"^\| `([^`]+)` \|", page, re.MULTILINE))
    fields = {
        field.name
        for kind in (CacheSettings, KeysSettings, LocalSettings)
        for field in msgspec.structs.fields(kind)
    }
    toml = {key for block in BLOCKS if block.page == "docs/configuration.md" for key in _all(block)}
    assert fields - {"key_ttl", "ring_ttl", "max_keys"} <= rows
    assert fields | {"type", "timeout", "development", "default_environment"} <= rows | toml
    assert {field.name for field in msgspec.structs.fields(AuditSettings)} <= toml
    for path in NOT_BUILT:
        assert f"`{path[-1]}`" in page


def _has(table: dict[str, Any], path: tuple[str, ...]) -> bool:
    found: object = table
    for key in path:
        if not isinstance(found, dict) or key not in found:
            return False
        found = found[key]
    return True


def _remove(table: dict[str, Any], path: tuple[str, ...]) -> None:
    if _has(table, path):
        for key in path[:-1]:
            table = table[key]
        del table[path[-1]]


def _types(tables: list[dict[str, Any]]) -> set[str]:
    return {backend["type"] for table in tables for backend in table.get("backends", {}).values()}


def _is_for(error: sentra_kms.KMSError, keys: list[tuple[str, ...]], types: set[str]) -> bool:
    """Whether an error is the refusal of one of these, and of nothing else."""
    if isinstance(error, sentra_kms.UnsupportedOperation):
        return any(f": {path[-1]} is not supported by this version" in str(error) for path in keys)
    return isinstance(error, sentra_kms.ConfigurationError) and any(
        f": no backend type '{kind}' is installed" in str(error) for kind in types
    )


def _all(block: Block) -> Iterator[str]:
    pending: list[dict[str, Any]] = [block.tables]
    while pending:
        for key, value in pending.pop().items():
            yield key
            if isinstance(value, dict):
                pending.append(value)
