"""The author's guide, followed to the letter: what it shows is a backend that passes the suite."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import sentra_kms
from tests.plugin.distributions import install

ROOT = Path(sentra_kms.__file__).parents[1]
GUIDE = (ROOT / "docs" / "plugins" / "index.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL)
SAID = "from sentra_kms_acme.register import AcmeSettings\n"  # above the block, in words


def block(marker: str) -> str:
    """Return the one block that holds this."""
    (found,) = [each for each in BLOCKS if marker in each]
    return str(found)


@pytest.fixture
def guide(tmp_path: Path) -> Path:
    """Lay out what the guide shows as a distribution."""
    install(
        tmp_path,
        "sentra-kms-acme",
        backends={"acme": "sentra_kms_acme.register"},
        observers={"acme-audit": "sentra_kms_acme.audit:create_audit"},
        modules={
            "sentra_kms_acme.__init__": "",
            "sentra_kms_acme.register": block("def backend_type") + block("def register_commands"),
            "sentra_kms_acme.backend": SAID + block("def create(settings"),
            "sentra_kms_acme.audit": block("class Audit"),
            "test_conformance": block("class AcmeHarness"),
        },
    )
    assert 'acme = "sentra_kms_acme.register"' in GUIDE
    assert 'acme-audit = "sentra_kms_acme.audit:create_audit"' in GUIDE
    return tmp_path


def run(guide: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Python where the distribution is installed."""
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=guide, capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": str(guide), "ACME_AUDIT": str(guide / "audit.jsonl")},
    )  # fmt: skip


def test_guide_passes_the_suite(guide: Path) -> None:
    """Its parts, its settings and its harness pass every check that the harness allows."""
    done = run(guide, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_conformance.py")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "not proved" in done.stdout


def test_guides_observer_is_found(guide: Path) -> None:
    """The observer is made by what its entry point names, and writes what it sees."""
    script = (
        "import sentra_kms\n"
        "keys = {'wrap_with': ['m:k'], 'store': 'm'}\n"
        "table = {'development': True, 'backends': {'m': {'type': 'memory'}}, 'keys': keys,\n"
        "         'audit': {'observers': ['acme-audit']}}\n"
        "with sentra_kms.load({'dev': table}, 'dev') as kms:\n"
        "    kms.keys.create('acme')\n"
    )
    done = run(guide, "-c", script)
    assert done.returncode == 0, done.stderr
    assert "save_ring" in (guide / "audit.jsonl").read_text(encoding="utf-8")


def test_guides_commands_are_found(guide: Path) -> None:
    """The command that it registers is one of the command line."""
    pytest.importorskip("rich")
    done = run(guide, "-m", "sentra_kms.cli", "acme", "url")
    assert done.stdout == "https://console.acme.example\n", done.stderr


def test_guide_type_checks_strictly(guide: Path) -> None:
    """As the guide says, mypy's strict mode finds nothing in it."""
    pytest.importorskip("mypy")
    done = run(guide, "-m", "mypy", "--strict", "sentra_kms_acme")
    assert done.returncode == 0, done.stdout + done.stderr
