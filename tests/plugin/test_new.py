"""What `sentra-kms plugin new` writes: built, installed beside the core, chosen and proved."""

from __future__ import annotations

import base64
import subprocess
import sys
from pathlib import Path

import pytest

from tests.plugin.environments import Installed, build_wheel, install_wheel, own_variables

pytest.importorskip("hatchling", reason="building wheels needs hatchling")
pytestmark = pytest.mark.slow

NAME = "acme-cloud"
PACKAGE = "sentra_kms_acme_cloud"
CONFIGURATION = """
[production.backends.acme-eu]
type = "acme-cloud"
address = "https://eu.acme.example"
token = "file://{place}/token"
rings = "sentra/rings"

[production.keys]
wrap_with = ["acme-eu:tenants", "acme-eu:others"]
authenticate_with = ["file://{place}/ring-key"]
store = "acme-eu"
"""
LIFE = """
import sentra_kms
with sentra_kms.load(environment="production") as kms:
    kms.keys.create("acme")
    earlier = kms.keys.encrypt("acme", b"earlier", {"id": "42"})
    kms.keys.rotate("acme")
    print(kms.keys.decrypt("acme", earlier, {"id": "42"}), kms.keys.describe("acme").primary)
"""


@pytest.fixture(scope="module")
def written(fresh_environment: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """Write a distribution with the installed command line, and install what is built of it."""
    place = tmp_path_factory.mktemp("new")
    Installed(place, fresh_environment).run("-m", "sentra_kms.cli", "plugin", "new", NAME)
    project = place / f"sentra-kms-{NAME}"
    install_wheel(fresh_environment, build_wheel(project, place))
    return Installed(project, fresh_environment)


def test_passes_the_suite_at_once(written: Installed) -> None:
    """As it was written, with nothing added, it passes the suite and its own test of errors."""
    # From the tests' directory, so that it is the wheel that is proved.
    told = Installed(written.place / "tests", written.python).run(
        "-P", "-m", "pytest", "-q", "-p", "no:cacheprovider"
    )
    last = told.splitlines()[-1]
    assert "failed" not in last
    assert int(last.partition(" passed")[0]) > 200
    assert "lacks the ability" not in told
    for reason in (
        "share(), the stand-in is in the memory",
        "field_secret(), its secrets are bytes",
    ):
        assert f"declared absent: {reason}" in told


def test_is_the_wheel(written: Installed, tmp_path: Path) -> None:
    """What is proved is what was installed, of both distributions."""
    code = f"import sentra_kms, {PACKAGE} as it; print(sentra_kms.__file__); print(it.__file__)"
    for path in Installed(tmp_path, written.python).run("-c", code).splitlines():
        assert Path(path).is_relative_to(written.python.parents[1])


def test_type_checks_strictly(written: Installed) -> None:
    """It has no fault for mypy's strict mode, against the installed core."""
    subprocess.run(
        [
            sys.executable, "-m", "mypy", "--strict", "--no-incremental",
            "--python-executable", written.python, PACKAGE, "tests",
        ],
        cwd=written.place,
        env=own_variables(),
        check=True,
        stdout=subprocess.DEVNULL,
    )  # fmt: skip


def test_is_chosen_by_configuration(written: Installed, tmp_path: Path) -> None:
    """A configuration that names its type is all that it takes to use it."""
    (tmp_path / "sentra-kms.toml").write_text(CONFIGURATION.format(place=tmp_path))
    for name, value in (
        ("token", b"open-sesame-and-stay-open\n"),
        ("ring-key", base64.b64encode(bytes(32))),
    ):
        path = tmp_path / name
        path.touch(0o600)
        path.write_bytes(value)
    installed = Installed(tmp_path, written.python)
    assert installed.run("-c", LIFE) == "b'earlier' 2"
    rows = installed.run("-m", "sentra_kms.cli", "backends", "--env", "production").splitlines()
    assert any(row.startswith(f"{NAME}\tsentra-kms-{NAME}\t0.1.0\tusable") for row in rows)
