"""The example of a third party's backend, as its wheel: its command, its tests, a life on it."""

from __future__ import annotations

import base64
import shutil
from pathlib import Path

import pytest

from tests.plugin.environments import ROOT, Installed, build_wheel, install_wheel

pytest.importorskip("hatchling", reason="building wheels needs hatchling")
pytestmark = pytest.mark.slow

EXAMPLE = ROOT / "examples" / "sqlite_backend"
CONFIGURATION = """
[production.backends.db]
type = "sqlite"
database = "keys.db"
master = "file://{place}/master"

[production.keys]
wrap_with = ["db:tenants"]
authenticate_with = ["file://{place}/ring-key"]
store = "db"
"""
CREATE = """
import sentra_kms
with sentra_kms.load(environment="production") as kms:
    kms.keys.create("acme")
    open("message", "wb").write(kms.keys.encrypt("acme", b"hello", {"id": "42"}))
"""
DECRYPT = """
import sentra_kms
with sentra_kms.load(environment="production") as kms:
    kms.keys.rewrap("acme")
    print(kms.keys.decrypt("acme", open("message", "rb").read(), {"id": "42"}))
    print(kms.keys.describe("acme").versions[0].wraps[0].key_version)
"""
ADD_VERSION = """
import subprocess, sys
with open("master", "rb") as master:
    subprocess.run(
        [sys.executable, "-m", "sentra_kms_sqlite", "keys.db", "tenants"], stdin=master, check=True
    )
"""


@pytest.fixture(scope="module")
def environment(fresh_environment: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the example beside the core; return the interpreter."""
    place = tmp_path_factory.mktemp("example")
    ignored = shutil.ignore_patterns("__pycache__")
    project = shutil.copytree(EXAMPLE, place / "project", ignore=ignored)
    install_wheel(fresh_environment, build_wheel(project, place))
    return fresh_environment


def test_passes_its_tests(environment: Path, tmp_path: Path) -> None:
    """Installed, it passes the suite."""
    shutil.copy(EXAMPLE / "tests" / "test_conformance.py", tmp_path)
    told = Installed(tmp_path, environment).run(
        "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "error"
    )
    assert " failed" not in told
    assert int(told.splitlines()[-1].partition(" passed")[0]) >= 90


def test_life(environment: Path, tmp_path: Path) -> None:
    """Its command makes a KEK and then a version; processes share tenants, and rewrap."""
    (tmp_path / "sentra-kms.toml").write_text(CONFIGURATION.format(place=tmp_path))
    for number, name in enumerate(("master", "ring-key")):
        path = tmp_path / name
        path.touch(0o600)
        path.write_bytes(base64.b64encode(bytes([number]) * 32) + b"\n")
    installed = Installed(tmp_path, environment)
    assert installed.run("-c", ADD_VERSION) == "tenants: version 1"
    assert (tmp_path / "keys.db").stat().st_mode & 0o777 == 0o600
    installed.run("-c", CREATE)
    assert installed.run("-c", ADD_VERSION) == "tenants: version 2"
    assert installed.run("-c", DECRYPT) == "b'hello'\n2"
