"""The example runs on a disk and on a real Vault, by SENTRA_KMS_ENV alone."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import sentra_kms
from tests.servers import vault_server
from tests.servers.vault_binary import find_vault

pytestmark = pytest.mark.server

ROOT = Path(sentra_kms.__file__).parents[1]
EXAMPLE = ROOT / "examples" / "vault"


def run(*words: str, work: Path, **variables: str) -> str:
    """Run a program in the example's directory; return what it printed."""
    done = subprocess.run(
        [sys.executable, *words],
        cwd=work,
        env={**os.environ, "PYTHONPATH": str(ROOT), **variables},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_example_runs_on_a_disk_and_on_vault(tmp_path: Path) -> None:
    """Made ready as its page says, each run ends well; a second one goes on where the first was."""
    for name in ("app.py", "sentra-kms.toml"):
        shutil.copy(EXAMPLE / name, tmp_path)
    (tmp_path / "run").mkdir(mode=0o700)
    for name in ("master_key", "ring_key"):
        (tmp_path / "run" / name).touch(0o600)
        (tmp_path / "run" / name).write_text(
            run("-m", "sentra_kms.cli", "keygen", work=tmp_path), encoding="ascii"
        )
    with vault_server.running() as vault:  # of its own: the configuration names what is in it
        vault.write("transit/keys/tenants")
        vault.write("secret/config", cas_required=True)
        for version in (2, 3):
            for environment, kek in (("local", "local:2026-11"), ("vault", "vault:tenants")):
                told = run(
                    "app.py",
                    work=tmp_path,
                    SENTRA_KMS_ENV=environment,
                    VAULT_ADDR=vault.address,
                    VAULT_TOKEN=vault.token,
                )
                assert told == f"{environment}: version {version}, wrapped by {kek}\n"
        assert vault.list("secret/metadata/sentra/rings") == ["acme"]


def test_five_minutes_of_the_readme(tmp_path: Path) -> None:
    """Its commands, as they are printed, lead a new user from an empty Vault to a message."""
    page = (ROOT / "plugins" / "sentra-kms-vault" / "README.md").read_text(encoding="utf-8")
    section = page.partition("\n## Five minutes")[2].partition("\n## ")[0]
    (table,) = re.findall(r"```toml\n(.*?)```", section, re.DOTALL)
    (tmp_path / "sentra-kms.toml").write_text(table, encoding="utf-8")
    words = [
        line.removeprefix("$ ")
        for block in re.findall(r"```console\n(.*?)```", section, re.DOTALL)
        for line in block.splitlines()
        if "vault server" not in line and "export VAULT_ADDR" not in line  # which is there
    ]
    with vault_server.running() as vault:
        vault.delete("sys/mounts/transit")
        program = find_vault()
        assert program is not None
        (tmp_path / "vault").symlink_to(program)
        programs = (str(tmp_path), str(Path(sys.executable).parent), os.environ["PATH"])
        done = subprocess.run(
            ["sh", "-e", "-c", "\n".join(words)],
            cwd=tmp_path,
            env={
                **os.environ,
                "HOME": str(tmp_path),
                "PATH": os.pathsep.join(programs),
                "VAULT_ADDR": vault.address,
                "VAULT_TOKEN": vault.token,
            },
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    assert [line for line in done.stdout.splitlines() if line == "hello"]
    assert "postgresql://app@db/app" in done.stdout
    assert done.stdout.splitlines()[-1] == "acme"


def test_application_names_no_key_service() -> None:
    """Its code says nothing of where keys are, and its page shows what it prints."""
    text = (EXAMPLE / "app.py").read_text(encoding="utf-8").lower()
    assert "vault" not in text
    assert "local" not in text
