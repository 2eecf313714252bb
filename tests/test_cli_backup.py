"""`tenant backup`, `restore` and `receipt`."""

from __future__ import annotations

import json
import re
import stat
from pathlib import Path

import pytest

from sentra_kms.backends.master_key import MasterKey
from sentra_kms.keys.document import Authenticator, AuthKey
from sentra_kms.keys.receipt import Remains, make_receipt
from sentra_kms.keys.ring import decode
from sentra_kms.material import KeyMaterial
from tests.test_cli_support import (
    ENVIRONMENT,
    MASTER_KEY,
    OTHER_MASTER_KEY,
    error_of,
    on_terminal,
    process,
    run,
    run_json,
    write_config,
)


@pytest.fixture(autouse=True)
def _project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    write_config(tmp_path)


@pytest.fixture
def rings() -> list[str]:
    """Two tenants."""
    for name in ("acme", "globex"):
        run("tenant", "create", name)
    return ["acme", "globex"]


def sequence(name: str = "acme") -> int:
    """A tenant's sequence now."""
    found: int = run_json("tenant", "show", name)["sequence"]
    return found


@pytest.mark.usefixtures("rings")
def test_backup() -> None:
    """One row for each ring that is in the file: tenant, ring id, sequence, versions."""
    run("tenant", "rotate", "acme")
    result = run("tenant", "backup", "rings")
    assert (result.exit_code, result.stderr) == (0, "")
    rows = [line.split("\t") for line in result.stdout.splitlines()]
    ids = {name: run_json("tenant", "show", name)["ring_id"] for name in ("acme", "globex")}
    assert rows == [["acme", ids["acme"], "2", "2"], ["globex", ids["globex"], "1", "1"]]
    assert stat.S_IMODE(Path("rings").stat().st_mode) == 0o600


@pytest.mark.usefixtures("rings")
def test_backup_of_some() -> None:
    """Only those that are named; as JSON with where it is and what it is called."""
    document = run_json("tenant", "backup", "rings", "globex")
    assert document["path"] == str(Path("rings").resolve())
    assert len(document["backup_id"]) == 32
    assert document["time"].endswith("Z")
    (globex,) = document["tenants"]
    assert (globex["tenant"], globex["sequence"], globex["error"]) == ("globex", 1, None)
    assert run("tenant", "restore", "rings", "acme").exit_code == 4


@pytest.mark.usefixtures("rings")
def test_backup_over_a_file() -> None:
    """A file that is there is left as it is."""
    Path("rings").write_text("kept")
    assert run("tenant", "backup", "rings").exit_code == 5
    assert Path("rings").read_text() == "kept"


@pytest.mark.usefixtures("rings")
def test_backup_without_a_damaged_ring() -> None:
    """The others are in the file; which is not is told, and the command ends with 17."""
    ring = Path("keys/acme.ring")
    ring.write_bytes(ring.read_bytes()[:-1])
    result = run("tenant", "backup", "rings")
    assert result.exit_code == 17
    assert result.stdout.startswith("globex\t")
    assert result.stderr.splitlines()[0].startswith("acme: RingRejected: ")
    assert "1 of 2 tenants failed" in result.stderr
    result = run("tenant", "backup", "again", "--json")
    assert result.exit_code == 17
    failed, _ = json.loads(result.stdout)["tenants"]
    assert (failed["tenant"], failed["error"]["type"]) == ("acme", "RingRejected")


@pytest.mark.usefixtures("rings")
def test_restore() -> None:
    """Rows: tenant, what was done, sequence before and after, and what a forced one lost."""
    run("tenant", "backup", "rings")
    Path("keys/acme.ring").unlink()
    result = run("tenant", "restore", "rings", "--dry-run")
    assert result.stdout == "acme\tcreate\t\t1\t\nglobex\tunchanged\t1\t\t\n"
    assert not Path("keys/acme.ring").exists()
    result = run("tenant", "restore", "rings")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == "acme\tcreate\t\t1\t\nglobex\tunchanged\t1\t\t\n"
    assert sequence() == 1


@pytest.mark.usefixtures("rings")
def test_restore_over_a_newer_ring() -> None:
    """It is left, told with what would be lost, and ends with 17."""
    run("tenant", "backup", "rings")
    run("tenant", "rotate", "acme")
    for extra in ([], ["--dry-run"]):
        result = run("tenant", "restore", "rings", *extra)
        assert result.exit_code == 17
        assert result.stdout == "globex\tunchanged\t1\t\t\n"
        line = result.stderr.splitlines()[0]
        assert line.startswith("acme: Conflict: ")
        assert "loses key version 2" in line
    result = run("tenant", "restore", "rings", "--json")
    acme, _ = json.loads(result.stdout)["tenants"]
    assert (acme["action"], acme["stored"], acme["backed_up"]) == ("refuse", 2, 1)
    assert acme["losses"] == {"versions": [2], "states": [], "keks": [], "unknown": False}
    assert acme["error"]["type"] == "Conflict"
    assert sequence() == 2


@pytest.mark.usefixtures("rings")
def test_forced_restore() -> None:
    """With `--yes` nobody is asked; what is lost is told."""
    run("tenant", "backup", "rings")
    run("tenant", "rotate", "acme")
    planned = run("tenant", "restore", "rings", "--force", "--dry-run")
    assert planned.exit_code == 0
    assert sequence() == 2
    result = run("tenant", "restore", "rings", "--force", "--yes")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == planned.stdout
    assert result.stdout.splitlines()[0] == "acme\tforce\t2\t3\tloses key version 2"
    assert sequence() == 3


@pytest.mark.usefixtures("rings")
@pytest.mark.parametrize("json", [[], ["--json"]], ids=["text", "json"])
def test_forced_restore_that_nobody_can_confirm(json: list[str]) -> None:
    """Without a terminal or with `--json`, `--yes` has to be said; nothing is changed."""
    run("tenant", "backup", "rings")
    run("tenant", "rotate", "acme")
    result = run("tenant", "restore", "rings", "--force", *json, stdin=b"restore\n")
    assert result.exit_code == 2
    assert "loses key version 2" in result.stderr
    assert "--yes" in result.stderr
    assert result.stdout == ""
    assert sequence() == 2


@pytest.mark.usefixtures("rings")
def test_forced_restore_that_loses_nothing_asks_nobody() -> None:
    """The question is for what is lost."""
    run("tenant", "backup", "rings")
    Path("keys/acme.ring").unlink()
    assert run("tenant", "restore", "rings", "--force").exit_code == 0
    assert sequence() == 1


@pytest.mark.usefixtures("rings")
def test_forced_restore_asks_a_person() -> None:
    """It goes on for the word `restore` and for nothing else."""
    run("tenant", "backup", "rings")
    run("tenant", "rotate", "acme")
    for typed in (b"yes\n", b"\n", b"restor\n", b"\x04"):
        code, shown = on_terminal("tenant", "restore", "rings", "--force", typed=typed)
        assert code == 130
        assert "acme: the restore loses key version 2" in shown
        assert "Type `restore` to go on" in shown
        assert re.search(r"The backup is of \d{4}-\d\d-\d\d \d\d:\d\d UTC", shown)
        assert sequence() == 2
    code, shown = on_terminal("tenant", "restore", "rings", "--force", typed=b"restore\n")
    assert (code, sequence()) == (0, 3)
    assert "acme: replaced, which loses key version 2" in shown
    assert "globex: as in the backup" in shown


@pytest.mark.usefixtures("rings")
def test_a_person_sees_sentences() -> None:
    """At a terminal, what was done stands in words."""
    code, shown = on_terminal("tenant", "backup", "rings")
    assert code == 0
    assert "Wrote 2 key rings into " in shown
    Path("keys/acme.ring").unlink()
    code, shown = on_terminal("tenant", "restore", "rings", "--dry-run")
    assert "acme: would be created" in shown
    assert re.search(r"A backup of \d{4}-\d\d-\d\d \d\d:\d\d UTC, id [0-9a-f]{32}\.", shown)
    code, shown = on_terminal("tenant", "restore", "rings")
    assert "acme: created" in shown


@pytest.mark.usefixtures("rings")
def test_what_is_no_backup() -> None:
    """Malformed input, another key's file, a file that is not there: a code of its own each."""
    Path("text").write_text("no backup")
    assert run("tenant", "restore", "text").exit_code == 13
    assert run("tenant", "restore", "nothing").exit_code == 13
    run("tenant", "backup", "rings")
    data = Path("rings").read_bytes()
    Path("edited").write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    assert run("tenant", "restore", "edited").exit_code == 9
    error = error_of(run("tenant", "restore", "edited", "--json"))
    assert (error["type"], error["subject"]) == ("RingRejected", "globex")


@pytest.mark.usefixtures("rings")
def test_another_process_restores() -> None:
    """Backup and restore as processes of their own."""
    assert process("tenant", "backup", "rings").returncode == 0
    Path("keys/globex.ring").unlink()
    done = process("tenant", "restore", "rings", "globex")
    assert (done.returncode, done.stdout) == (0, b"globex\tcreate\t\t1\t\n")


# --- receipts ---------------------------------------------------------------------------------


def authenticator(master: str) -> Authenticator:
    """An authenticator whose key follows from a master key."""
    key = MasterKey(KeyMaterial(master.encode())).ring_auth_key()
    return Authenticator([lambda: AuthKey("", key)])


def made(master: str) -> bytes:
    """A receipt for acme, made with a key that follows from a master key."""
    document = Path("keys/acme.ring").read_bytes()
    ring = decode(authenticator(MASTER_KEY).verify("acme", document), "acme")
    remains = [Remains("backups", None), Remains("older revisions", "2027-01-01T00:00:00Z")]
    return make_receipt(
        authenticator(master),
        "shred",
        ring,
        2,
        time=1_770_000_000.0,
        actor="cli:root",
        request=None,
        remains=remains,
    )


@pytest.fixture
def receipt(rings: list[str]) -> bytes:
    """A receipt for acme, made with the project's authentication key."""
    return made(MASTER_KEY)


def test_receipt(receipt: bytes) -> None:
    """It is verified and shown: rows of facts, versions, and what remains."""
    Path("acme.receipt").write_bytes(receipt)
    result = run("tenant", "receipt", "acme.receipt")
    assert (result.exit_code, result.stderr) == (0, "")
    rows = [line.split("\t") for line in result.stdout.splitlines()]
    ring = run_json("tenant", "show", "acme")
    wrap = ring["versions"][0]["wraps"][0]
    fields = json.loads(receipt[:-32])
    assert rows == [
        ["authentic", fields["auth_id"]],
        ["operation", "shred"],
        ["tenant", "acme"],
        ["ring", ring["ring_id"]],
        ["sequence", "2"],
        ["policy", "default"],
        ["time", "2026-02-02T02:40:00Z"],
        ["actor", "cli:root"],
        ["request", ""],
        ["version", "1", f"local:old ({wrap['key_id']})"],
        ["remains", "backups", "until it is erased"],
        ["remains", "older revisions", "2027-01-01T00:00:00Z"],
    ]
    assert run_json("tenant", "receipt", "acme.receipt") == fields
    assert run_json("tenant", "receipt", "-", stdin=receipt) == fields


def test_receipt_that_is_none(receipt: bytes) -> None:
    """Edited, cut, or of a key that is not configured: refused with a code of its own."""
    Path("edited").write_bytes(receipt.replace(b"cli:root", b"cli:toor"))
    assert run("tenant", "receipt", "edited").exit_code == 9
    Path("cut").write_bytes(receipt[:-1])
    assert run("tenant", "receipt", "cut").exit_code == 13
    assert run("tenant", "receipt", "nothing").exit_code == 16
    result = run("tenant", "receipt", "-", stdin=made(OTHER_MASTER_KEY))
    assert result.exit_code == 9
    assert "another master key?" in result.stderr
