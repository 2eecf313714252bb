"""What importing and loading costs: nothing heavy is imported before it is needed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import sentra_kms

HEAVY = ["click", "rich", "asyncio", "filelock", "importlib.metadata"]
VENDORS = (
    "boto3",
    "botocore",
    "hvac",
    "azure",
    "google",
    "requests",
    "httpx",
    "aiohttp",
    "urllib3",
)
"""Clients; none is a dependency, so each would be there by chance, or by a plugin."""

UNUSED = [
    "_hashlib",
    "base64",
    "concurrent.futures",
    "hashlib",
    "heapq",
    "hmac",
    "logging",
    "queue",
    "secrets",
    "struct",
    "unicodedata",
    "urllib.parse",
    "sentra_kms.doctor",
    "sentra_kms.health",
    "sentra_kms.keys.aio",
    "sentra_kms.keys.backup",
    "sentra_kms.keys.backup_file",
    "sentra_kms.keys.destruction",
    "sentra_kms.keys.info",
    "sentra_kms.keys.private_file",
    "sentra_kms.keys.receipt",
    "sentra_kms.keys.restore",
    "sentra_kms.keys.restore_report",
    "sentra_kms.keys.states",
    "sentra_kms.keys.warming",
    "sentra_kms.observers",
    "sentra_kms.redaction",
    "sentra_kms.schema",
    "sentra_kms.secrets.compose",
    "sentra_kms.secrets.declaration",
    "sentra_kms.secrets.documents",
    "sentra_kms.secrets.manager",
    "sentra_kms.secrets.transforms",
    "sentra_kms.secrets.watch",
]
"""What a process needs for none of its messages, unless the libraries below us have it."""

BELOW = """
import cryptography.hazmat.primitives.ciphers.aead, cryptography.hazmat.primitives.hmac
import cryptography.hazmat.primitives.kdf.hkdf, msgspec, pluggy, threading, tomllib
"""
IMPORT = "import sentra_kms"
LOAD = """
import sentra_kms
backend = {"type": sys.argv[1]}
if sys.argv[1] == "local":
    backend |= {"directory": sys.argv[2], "master_keys": {"k": "env://MASTER"}}
name = sys.argv[1]
kms = sentra_kms.load(
    {"dev": {"development": True, "backends": {name: backend},
             "keys": {"wrap_with": [name + ":k"], "store": name}}},
    environment="dev",
)
"""
LOAD_FILE = """
import sentra_kms
kms = sentra_kms.load(sys.argv[2] + "/sentra-kms.toml", "prod")
"""
MESSAGES = """
import sentra_kms
kms = sentra_kms.load(sys.argv[1], "prod")
acme = kms.keys.tenant("acme")
assert acme.decrypt(acme.encrypt(b"text", b"context"), b"context") == b"text"
kms.close()
"""
REPORT = "\nimport json\nprint(json.dumps(sorted(name for name in sys.modules)))"
TOML = """
[prod.backends.local]
type = "local"
directory = "keys"
master_keys = { k = "file:///nowhere/key" }
[prod.keys]
wrap_with = ["local:k"]
store = "local"
"""


def modules(code: str, *arguments: str) -> list[str]:
    """Return the modules that a new interpreter has after running the code."""
    root = Path(__file__).parents[2]
    path = os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COV")}
    done = subprocess.run(
        [sys.executable, "-c", "import sys\n" + code + REPORT, *arguments],
        env=environment | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=True,
    )
    found: list[str] = json.loads(done.stdout.splitlines()[-1])
    return found


def vendors(found: set[str]) -> list[str]:
    """Return the modules of vendors' clients among those found."""
    return sorted(name for name in found if name.split(".")[0] in VENDORS)


@pytest.fixture
def before() -> set[str]:
    """Return what an interpreter has before it runs anything, such as a coverage tracer."""
    return set(modules(""))


def test_import_is_light(before: set[str]) -> None:
    """`import sentra_kms` brings none of the heavy ones, no manager, no backend, no cipher."""
    found = set(modules(IMPORT)) - before
    assert "sentra_kms.errors" in found
    assert found.isdisjoint(HEAVY)
    assert not vendors(found)
    assert not [name for name in found if name.startswith("sentra_kms.backends")]
    assert "sentra_kms.runtime" not in found
    assert "cryptography" not in found
    assert "pluggy" not in found


@pytest.mark.parametrize("kind", ["local", "memory"])
def test_load_of_a_built_in_type_is_light(kind: str, before: set[str], tmp_path: Path) -> None:
    """`load()` brings what the named types need and none of the heavy ones."""
    found = set(modules(LOAD, kind, str(tmp_path))) - before
    assert f"sentra_kms.backends.{kind}" in found
    assert found.isdisjoint(HEAVY)
    assert not vendors(found)
    other = {"local": "memory", "memory": "local"}[kind]
    assert f"sentra_kms.backends.{other}" not in found


def test_load_of_a_file_is_light(before: set[str], tmp_path: Path) -> None:
    """Reading a file brings the TOML parser, and neither the heavy ones nor types not named."""
    (tmp_path / "sentra-kms.toml").write_text(TOML)
    loaded = set(modules(LOAD_FILE, "", str(tmp_path)))
    found = loaded - before
    assert "tomllib" in loaded
    assert found.isdisjoint(HEAVY)
    assert not vendors(found)
    assert "sentra_kms.backends.memory" not in found


def test_first_messages_are_light(tmp_path: Path) -> None:
    """From a file and keys on disk to a message and back: only what that needs is imported."""
    master = tmp_path / "master"
    master.write_bytes(bytes(32))
    master.chmod(0o600)
    config = tmp_path / "sentra-kms.toml"
    # The temporary directory may be on any file system, which only development allows.
    config.write_text(
        TOML.replace("/nowhere/key", str(master)).replace(
            "[prod", "[prod]\ndevelopment = true\n[prod", 1
        )
    )
    with sentra_kms.load(config, "prod") as kms:
        kms.keys.create("acme")
    found = set(modules(MESSAGES, str(config)))
    assert "sentra_kms.keys.message" in found
    assert found.isdisjoint(set(UNUSED + HEAVY) - set(modules(BELOW)))


def test_unused_modules_would_be_seen() -> None:
    """There are such modules, and the test above sees them when they are imported."""
    assert set(modules(f"import {', '.join(UNUSED)}")).issuperset(UNUSED)


@pytest.mark.parametrize("name", HEAVY)
def test_heavy_module_would_be_seen(name: str, before: set[str]) -> None:
    """The tests above see such an import when there is one."""
    pytest.importorskip(name)
    assert name in set(modules(f"import {name}")) - before


@pytest.mark.parametrize("name", VENDORS)
def test_vendors_module_would_be_seen(tmp_path: Path, name: str, before: set[str]) -> None:
    """So they do with a vendor's client, here one of its name."""
    (tmp_path / name).mkdir()
    (tmp_path / name / "__init__.py").write_text("")
    code = f"sys.path.insert(0, sys.argv[1])\nimport {name}"
    assert vendors(set(modules(code, str(tmp_path))) - before) == [name]
