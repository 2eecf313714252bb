"""The demo does what it says, and fails as soon as something that it says is not so."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
DEMO = ROOT / "examples" / "demo.py"

_HEAD = """
import runpy, sys
sys.path.insert(0, {folder!r})
from sentra_kms.errors import DecryptionFailed
from sentra_kms.keys.memory import Memory
from sentra_kms.keys.manager import KeyManager
from sentra_kms.keys.tenant_keys import TenantKeys
encrypt, decrypt = TenantKeys.encrypt, TenantKeys.decrypt
"""
_TAIL = """
sys.argv = [{demo!r}]
runpy.run_path({demo!r}, run_name="__main__")
"""

SABOTAGE = {
    "decrypt returns something else": (
        "TenantKeys.decrypt = lambda *a, **k: decrypt(*a, **k) + b'!'",
        "rows are what they were",
    ),
    "the message is the plaintext": (
        "TenantKeys.encrypt = lambda self, plaintext, context=None: plaintext",
        "each field grew by exactly 96 bytes",
    ),
    "the context binds nothing": (
        (
            "TenantKeys.encrypt = lambda self, plaintext, context=None: encrypt(self, plaintext)\n"
            "TenantKeys.decrypt = lambda self, message, context=None: decrypt(self, message)"
        ),
        "moved to another patient is refused: DecryptionFailed (it was accepted)",
    ),
    "what does not open counts as empty": (
        (
            "def lax(self, message, context=None):\n"
            "    try:\n"
            "        return decrypt(self, message, context)\n"
            "    except DecryptionFailed:\n"
            "        return b''\n"
            "TenantKeys.decrypt = lax"
        ),
        "northgate is refused a row of lakeview: DecryptionFailed (it was accepted)",
    ),
    "nothing is cached": (
        "Memory.admit = lambda self, asked, held: None",
        "18,000 fields took 2 KEK operations",
    ),
    "rotate makes no version": (
        "KeyManager.rotate = KeyManager.describe",
        "a handle made before now writes under 2",
    ),
    "rewrap changes nothing": (
        "KeyManager.rewrap = KeyManager.describe",
        "are rewrapped under local:2026",
    ),
    "the new master key is the old one": (
        "import secrets\nsecrets.token_bytes = bytes",
        "the old master key alone no longer opens lakeview",
    ),
    "key rings are open to others": (
        "from sentra_kms.backends import ring_files\nring_files._FILE_MODE = 0o644",
        "the directory has mode 700, each key ring 600",
    ),
}


def _environment(scratch: Path) -> dict[str, str]:
    # Nor is it measured, which would make it thrice as long: what it runs other tests run, too.
    ours = (
        "SENTRA_KMS_", "ENCRYPTION_", "NO_COLOR", "FORCE_COLOR", "PYTHONOPTIMIZE", "COVERAGE_",
    )  # fmt: skip
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    path = os.pathsep.join(filter(None, [str(ROOT), kept.get("PYTHONPATH")]))
    return kept | {"TMPDIR": str(scratch), "PYTHONPATH": path, "PYTHONUTF8": "1"}


def _run(scratch: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        env=_environment(scratch),
        cwd=scratch,
        capture_output=True,
        encoding="utf-8",
        timeout=120,
        check=False,
    )


def test_it_does_every_step(tmp_path: Path) -> None:
    """All seven steps run, their claims hold, and no trace is left."""
    done = _run(tmp_path, str(DEMO))
    assert (done.returncode, done.stderr) == (0, "")
    assert re.findall(r"^(\d)\. ", done.stdout, re.MULTILINE) == list("1234567")
    for claim in (
        "3,000 rows were encrypted, and none shows any of its sensitive values",
        "18,000 fields took 2 KEK operations",
        "all 3,300 rows are what they were, field by field",
        "northgate is refused a row of lakeview: DecryptionFailed",
        "an account number moved to another column is refused: DecryptionFailed",
        "a field whose last byte was changed is refused: DecryptionFailed",
        "all 2 key rings are rewrapped under local:2026 and nothing else",
        "the old master key alone no longer opens northgate: RingRejected",
        "the old master key is deleted, and every row still opens as it was",
    ):
        assert f"✓ {claim}" in done.stdout
    assert "✗" not in done.stdout
    assert "What to do next" in done.stdout
    assert "\x1b" not in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_keep_leaves_the_files_and_shows_no_key(tmp_path: Path) -> None:
    """`--keep` leaves a directory that only its owner can enter; no master key was shown."""
    done = _run(tmp_path, str(DEMO), "--keep")
    assert done.returncode == 0
    (folder,) = tmp_path.iterdir()
    assert folder.stat().st_mode & 0o777 == 0o700
    assert f"cd {folder}" in done.stdout
    assert {path.name for path in folder.iterdir()} == {
        "keys", "patients.csv", "patients.encrypted.csv", "secrets", "sentra-kms.toml",
    }  # fmt: skip
    (master,) = (folder / "secrets").iterdir()
    assert master.name == "master-2026"
    assert master.read_text().strip() not in done.stdout


def test_what_it_advises_can_be_done(tmp_path: Path) -> None:
    """Commands that it names exist, pages too, and the command for what it kept works there."""
    pytest.importorskip("rich")
    done = _run(tmp_path, str(DEMO), "--keep")
    _, _, advice = done.stdout.partition("What to do next\n")
    commands = re.findall(r"^   \S*sentra-kms ((?:[a-z]+ )+) ", advice, re.MULTILINE)
    assert [command.strip() for command in commands] == ["init", "keygen", "tenant create acme"]
    for command in commands:
        helped = _run(tmp_path, "-m", "sentra_kms.cli", *command.split(), "--help")
        assert helped.returncode == 0, helped.stderr
    pages = re.findall(r"^   (docs/\S+) ", advice, re.MULTILINE)
    assert len(pages) == 2
    assert all((ROOT / page).is_file() for page in pages)

    found = re.search(r"cd (\S+)\n +SENTRA_KMS_ENV=(\w+) \S+ (.+)\n", advice)
    assert found is not None
    folder, environment, arguments = found.groups()
    config = str(Path(folder) / "sentra-kms.toml")
    options = ("--config", config, "--env", environment)
    shown = _run(tmp_path, "-m", "sentra_kms.cli", *options, *arguments.split())
    assert shown.returncode == 0, shown.stderr
    assert "local:2026" in shown.stdout


@pytest.mark.parametrize("fault", SABOTAGE)
def test_it_fails_when_a_claim_is_broken(fault: str, tmp_path: Path) -> None:
    """With the library made to do the wrong thing, the demo names the claim and exits with 1.

    Under `python -O` as well, which takes `assert` out.
    """
    patch, claim = SABOTAGE[fault]
    program = (_HEAD + patch + _TAIL).format(folder=str(DEMO.parent), demo=str(DEMO))
    done = _run(tmp_path, "-O", "-c", program)
    assert done.returncode == 1, done.stdout + done.stderr
    assert done.stderr == ""
    last = done.stdout.splitlines()[-1]
    assert last.startswith("   ✗ This should hold, and does not: ")
    assert claim in last
    assert f"✓ {claim}" not in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_a_terminal_gets_colours_and_the_same_words(tmp_path: Path) -> None:
    """On a terminal the claims are coloured; without the colours they read the same."""
    pytest.importorskip("rich")
    ours, theirs = pty.openpty()
    child = subprocess.Popen(
        [sys.executable, str(DEMO)],
        env=_environment(tmp_path) | {"TERM": "xterm-256color"},
        cwd=tmp_path,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    shown = b""
    try:
        while piece := os.read(ours, 65536):
            shown += piece
    except OSError:
        pass  # how a terminal says that its other side has closed
    finally:
        os.close(ours)
    assert child.wait(timeout=60) == 0
    text = shown.decode()
    assert "\x1b[32m   ✓ each field grew by exactly 96 bytes\x1b[0m" in text
    plain = re.sub(r"\x1b\[[0-9;]*m", "", text)
    assert "   ✓ each field grew by exactly 96 bytes\r\n" in plain
    assert "What to do next" in plain
