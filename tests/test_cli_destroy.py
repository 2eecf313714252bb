"""`tenant` disable, enable, schedule-destroy, cancel-destroy, destroy-due, shred and revoke."""

from __future__ import annotations

import base64
import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from sentra_kms import load
from sentra_kms.errors import ServiceUnavailable
from sentra_kms.keys.manager import KeyManager
from sentra_kms.keys.receipt import Receipt, verify_receipt
from tests.needs import need
from tests.test_cli_support import (
    CONFIG,
    ENVIRONMENT,
    child_environment,
    command,
    error_of,
    on_terminal,
    run,
    run_json,
    write_config,
)

BANK = """
[development.backends.bank]
type = "local"
directory = "unused"
master_keys = { k = "env://NEW_MASTER_KEY" }
[development.policies.bank]
wrap_with = ["bank:k"]
"""


@pytest.fixture(autouse=True)
def _project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    write_config(tmp_path)
    run("tenant", "create", "acme")
    run("tenant", "rotate", "acme")


def states(tenant: str = "acme") -> list[str]:
    """Return the states of a tenant's versions."""
    return [each["state"] for each in run_json("tenant", "show", tenant)["versions"]]


def verified(receipt: bytes) -> Receipt:
    """Return what an authentic receipt says."""
    with load() as kms:
        return verify_receipt(kms.keys._rings.store.authenticator, receipt)


def once_due(*arguments: str) -> Result:
    """Run `destroy-due` when a time of grace of nothing, rounded up to the second, is over."""
    end = time.time() + 60
    while not run_json("tenant", "show", "acme")["versions"][0]["destroy_after"] <= time.strftime(
        "%Y-%m-%dT%H:%M:%SZ", time.gmtime()
    ):
        assert time.time() < end
        time.sleep(0.02)
    return run("tenant", "destroy-due", *arguments)


def schedule(tenant: str = "acme", after: str = "0s") -> Result:
    """Schedule a tenant's first version."""
    return run("tenant", "schedule-destroy", tenant, "1", "--after", after, "--confirm", tenant)


def test_disable_and_enable() -> None:
    """A version that is disabled opens nothing until it is enabled; its message stays."""
    run("tenant", "rotate", "acme")
    message = run("encrypt", "acme", stdin=b"hello").stdout_bytes
    run("tenant", "rotate", "acme")
    assert run("tenant", "disable", "acme", "3").stdout == "acme: version 3 is disabled\n"
    assert run("tenant", "disable", "acme", "3").exit_code == 0
    assert run("decrypt", "acme", stdin=message).exit_code == 7
    assert run_json("tenant", "enable", "acme", "3")["versions"][2]["state"] == "enabled"
    assert run("decrypt", "acme", stdin=message).stdout == "hello"


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("disable", "acme", "2"), 12),
        (("disable", "acme", "9"), 4),
        (("disable", "nobody", "1"), 4),
        (("disable", "acme", "0"), 2),
        (("disable", "acme", "one"), 2),
        (("disable", "acme"), 2),
        (("enable", "../acme", "1"), 13),
        (("cancel-destroy", "acme", "1"), 7),
        (("schedule-destroy", "acme", "1", "--confirm", "acme"), 2),
        (("schedule-destroy", "acme", "1", "--after", "30", "--confirm", "acme"), 2),
        (("schedule-destroy", "acme", "1", "--after", "3651d", "--confirm", "acme"), 2),
        (("schedule-destroy", "acme", "1", "--after", f"{'9' * 400}d", "--confirm", "acme"), 2),
        (("schedule-destroy", "acme", "2", "--after", "1d", "--confirm", "acme"), 12),
        (("schedule-destroy", "nobody", "1", "--after", "1d", "--confirm", "nobody"), 4),
        (("schedule-destroy", "a/b", "1", "--after", "1d", "--confirm", "a/b"), 13),
    ],
)
def test_refusals_change_nothing(arguments: tuple[str, ...], code: int) -> None:
    """The primary version, what is not there, and what is no number or time."""
    assert run("tenant", *arguments).exit_code == code
    assert states() == ["enabled", "enabled"]


def test_schedule_and_cancel() -> None:
    """The time of grace is shown, and kept by who asks again; taken back it is disabled."""
    result = schedule(after="30d")
    assert result.stdout.startswith("acme: version 1 is scheduled, to be destroyed after 2")
    when = run_json("tenant", "show", "acme")["versions"][0]["destroy_after"]
    row = run("tenant", "show", "acme").stdout.splitlines()[5].split("\t")
    assert (row[2], row[7]) == ("scheduled", when)
    assert schedule(after="60d").exit_code == 0
    assert run_json("tenant", "show", "acme")["versions"][0]["destroy_after"] == when
    assert run("tenant", "destroy-due").stdout == ""
    assert run("tenant", "cancel-destroy", "acme", "1").stdout == "acme: version 1 is disabled\n"
    assert states() == ["disabled", "enabled"]


@pytest.mark.parametrize("command", ["schedule-destroy", "shred", "revoke"])
@pytest.mark.parametrize("confirm", [[], ["--confirm", "ACME"], ["--confirm", ""], ["--json"]])
def test_destroying_wants_the_name(command: str, confirm: list[str]) -> None:
    """Without a terminal it has to be given, with `--json` too; another name changes nothing."""
    options = ["1", "--after", "0s"] if command == "schedule-destroy" else []
    result = run("tenant", command, "acme", *options, *confirm)
    assert (result.exit_code, result.stdout) == (2, "")
    expected = "not the tenant's name" if "--confirm" in confirm else "--confirm NAME"
    assert expected in result.stderr
    assert states() == ["enabled", "enabled"]


def test_destroy_due() -> None:
    """What was destroyed, and what may remain where and until when, as rows and as JSON."""
    message = run("encrypt", "acme", stdin=b"hello").stdout_bytes
    schedule()
    result = once_due()
    assert result.exit_code == 0
    rows = [line.split("\t") for line in result.stdout.splitlines()]
    assert rows[0] == ["destroyed", "acme", "1"]
    assert {row[0] for row in rows[1:]} == {"remains"}
    assert rows[1][2].startswith("memory of processes that hold the keys")
    assert rows[1][3].endswith("Z")
    assert any(row[2].startswith("backups of the ring") and row[3] == "" for row in rows[1:])
    assert states() == ["destroyed", "enabled"]
    assert run("decrypt", "acme", stdin=message).stdout == "hello"
    assert run_json("tenant", "destroy-due") == {"tenants": []}


def test_destroy_due_goes_on_after_a_failure(tmp_path: Path) -> None:
    """The tenant that fails is named with its error, and the code is its own."""
    run("tenant", "create", "broken")
    schedule()
    (tmp_path / "keys" / "broken.ring").write_bytes(b"no ring")
    result = once_due("--json")
    assert result.exit_code == 17
    done, failed = json.loads(result.stdout)["tenants"]
    assert (done["tenant"], done["versions"], "error" in done) == ("acme", [1], False)
    assert [sorted(each) for each in done["remains"]] == [["until", "where"]] * 3
    assert (failed["tenant"], failed["error"]["type"]) == ("broken", "RingRejected")
    again = run("tenant", "destroy-due")
    assert (again.exit_code, again.stdout) == (17, "")
    assert "broken: RingRejected: " in again.stderr
    assert "Error: 1 tenant failed: run it again" in again.stderr


def test_shred_with_a_receipt_in_a_file(tmp_path: Path) -> None:
    """A new file of mode 600 has the receipt, standard output the report."""
    message = run("encrypt", "acme", stdin=b"hello").stdout_bytes
    before = os.umask(0)
    try:
        result = run("tenant", "shred", "acme", "--confirm", "acme", "--receipt", "acme.receipt")
    finally:
        os.umask(before)
    assert result.exit_code == 0
    assert result.stdout.splitlines()[0] == "destroyed\tacme\t1,2"
    file = tmp_path / "acme.receipt"
    assert file.stat().st_mode & 0o7777 == 0o600
    receipt = verified(file.read_bytes())
    assert (receipt.operation, receipt.tenant, len(receipt.versions)) == ("shred", "acme", 2)
    assert receipt.actor is not None
    assert receipt.actor.startswith("cli:")
    assert sorted(each.name for each in tmp_path.iterdir()) == [
        "acme.receipt",
        "keys",
        "sentra-kms.toml",
    ]
    assert states() == ["destroyed", "destroyed"]
    assert run("decrypt", "acme", stdin=message).exit_code == 7
    assert run("tenant", "create", "acme").exit_code == 5


def test_shred_with_the_receipt_on_standard_output() -> None:
    """It is there byte for byte; the report goes to standard error."""
    result = run("tenant", "shred", "acme", "--confirm", "acme")
    assert verified(result.stdout_bytes).tenant == "acme"
    assert result.stderr.startswith("acme: key versions 1, 2 destroyed\nMay remain until 2")


def test_shred_as_json() -> None:
    """One document has the report and the receipt."""
    document = run_json("tenant", "shred", "acme", "--confirm", "acme")
    assert (document["tenant"], document["versions"], document["path"]) == ("acme", [1, 2], None)
    assert (
        verified(base64.b64decode(document["receipt"])).remains[0].where
        == (document["remains"][0]["where"])
    )


def link(path: Path) -> None:
    """Make a link that leads nowhere."""
    path.symlink_to("nowhere")


@pytest.mark.parametrize("make", [Path.touch, Path.mkdir, link])
def test_receipt_replaces_nothing(make: Callable[[Path], None], tmp_path: Path) -> None:
    """Whatever stands there is left, and no key is destroyed."""
    make(tmp_path / "acme.receipt")
    before = sorted(tmp_path.iterdir())
    result = run("tenant", "shred", "acme", "--confirm", "acme", "--receipt", "acme.receipt")
    assert result.exit_code == 5
    assert "acme.receipt exists: it was left as it is" in result.stderr
    assert sorted(tmp_path.iterdir()) == before
    assert states() == ["enabled", "enabled"]


def test_receipt_that_cannot_be_written_is_known_before() -> None:
    """A directory that is not there ends it with no key destroyed."""
    result = run("tenant", "shred", "acme", "--confirm", "acme", "--receipt", "no/such/place")
    assert (result.exit_code, result.stdout) == (16, "")
    assert states() == ["enabled", "enabled"]


@pytest.mark.parametrize(
    "arguments", [("acme", "--confirm", "other"), ("nobody", "--confirm", "x")]
)
def test_nothing_is_left_behind_by_a_refusal(arguments: tuple[str, ...], tmp_path: Path) -> None:
    """The file that the receipt was to go to is not there."""
    before = sorted(tmp_path.iterdir())
    assert run("tenant", "shred", *arguments, "--receipt", "acme.receipt").exit_code in {2, 4}
    assert sorted(tmp_path.iterdir()) == before


def came_in_between(tmp_path: Path, patch: pytest.MonkeyPatch) -> None:
    """Put a file at the receipt's name while the keys are destroyed."""
    real = KeyManager.shred

    def shred(keys: KeyManager, tenant: str, confirm: str) -> object:
        (tmp_path / "acme.receipt").write_bytes(b"somebody else's")
        return real(keys, tenant, confirm)

    patch.setattr(KeyManager, "shred", shred)


def test_receipt_is_not_lost_when_the_file_comes_in_between(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other file stays, and the receipt is on standard error and in the file beside it."""
    came_in_between(tmp_path, monkeypatch)
    result = run("tenant", "shred", "acme", "--confirm", "acme", "--receipt", "acme.receipt")
    assert result.exit_code == 16
    assert (tmp_path / "acme.receipt").read_bytes() == b"somebody else's"
    told, text, *_ = result.stderr.splitlines()
    assert told.endswith("for `base64 -d`:")
    receipt = base64.b64decode(text)
    assert verified(receipt).tenant == "acme"
    (kept,) = tmp_path.glob(".acme.receipt.*.tmp")
    assert (kept.read_bytes(), kept.stat().st_mode & 0o777) == (receipt, 0o600)


def test_receipt_is_not_lost_when_standard_output_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk behind a redirection, or a reader who went away: it is on standard error."""

    def fail(_: bytes) -> None:
        raise OSError(28, "No space left on device", "standard output")

    monkeypatch.setattr("sentra_kms.cli.receipt_file.write", fail)
    result = run("tenant", "shred", "acme", "--confirm", "acme")
    assert (result.exit_code, result.stdout) == (16, "")
    assert verified(base64.b64decode(result.stderr.splitlines()[1])).tenant == "acme"


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_receipt_is_not_lost_on_a_full_disk(options: list[str]) -> None:
    """Neither as bytes nor as a field of the JSON: it is on standard error."""
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            command("tenant", "shred", "acme", "--confirm", "acme", *options),
            env=child_environment(), timeout=60, stdout=full, stderr=subprocess.PIPE, check=False,
        )  # fmt: skip
    assert done.returncode == 16
    assert states() == ["destroyed", "destroyed"]
    receipt = verified(base64.b64decode(done.stderr.splitlines()[1]))
    assert [len(version.wraps) for version in receipt.versions] == [1, 1]


@pytest.mark.parametrize("path", ["missing/", ".", "", "n" * 300, "n" * 255 + "/x"])
def test_receipt_whose_name_cannot_be_is_known_before(path: str, tmp_path: Path) -> None:
    """What would only fail once the keys are gone ends it with no key destroyed."""
    before = sorted(tmp_path.iterdir())
    result = run("tenant", "shred", "acme", "--confirm", "acme", "--receipt", path)
    assert (result.exit_code, result.stdout) == (16, "")
    assert sorted(tmp_path.iterdir()) == before
    assert states() == ["enabled", "enabled"]


@pytest.mark.parametrize("what", ["shred", "backup"])
def test_planted_link_on_the_way_is_not_followed(tmp_path: Path, what: str) -> None:
    """Where everybody may write, another user's link to a directory is not gone through."""
    need(os.geteuid() == 0, "the right to give files to another user, which root has")
    (tmp_path / "theirs").mkdir()
    (tmp_path / "public").mkdir()
    (tmp_path / "public").chmod(0o1777)
    planted = tmp_path / "public" / "app"
    planted.symlink_to(tmp_path / "theirs")
    os.lchown(planted, 65534, 65534)
    words = {
        "shred": ["shred", "acme", "--confirm", "acme", "--receipt", "public/app/out"],
        "backup": ["backup", "public/app/out"],
    }
    result = run("tenant", *words[what])
    assert result.exit_code == 6
    assert "another user" in result.stderr
    assert list((tmp_path / "theirs").iterdir()) == []
    assert states() == ["enabled", "enabled"]


@pytest.mark.parametrize("code", [errno.EPERM, errno.EOPNOTSUPP])
def test_receipt_where_no_file_has_two_names(code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on FAT: it is renamed there, and replaces nothing either."""

    def link(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "link", link)
    words = ("tenant", "shred", "acme", "--confirm", "acme", "--receipt")
    assert run(*words, "one").exit_code == 0
    assert verified(Path("one").read_bytes()).tenant == "acme"
    assert list(Path().glob(".*")) == []
    came_in_between(Path(), monkeypatch)
    result = run(*words, "acme.receipt")
    assert result.exit_code == 16
    assert verified(base64.b64decode(result.stderr.splitlines()[1])).tenant == "acme"
    assert Path("acme.receipt").read_bytes() == b"somebody else's"


SIGNALLED = """
import os, signal, sys
from sentra_kms.cli import destroy
from sentra_kms.cli.__main__ import main
from sentra_kms.keys.manager import KeyManager
from sentra_kms.keys.store import RingStore
def interrupted(call):
    def instead(*given, **named):
        if "{of}" in ("", *map(str, given)):
            os.kill(os.getpid(), signal.SIG{name})
        return call(*given, **named)
    return instead
for place, call in ((KeyManager, "shred"), (destroy, "confirmed"), (RingStore, "load")):
    if call == "{call}":
        setattr(place, call, interrupted(getattr(place, call)))
sys.exit(main())
"""


def signalled(name: str, call: str, *arguments: str, of: str = "") -> tuple[bytes, bytes]:
    """Run a command that gets a signal at a call, or at one of a tenant; return what it writes."""
    program = SIGNALLED.format(name=name, call=call, of=of)
    done = subprocess.run(
        [sys.executable, "-c", program, "tenant", *arguments],
        env=child_environment(), timeout=60, capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode == (130 if name == "INT" else -getattr(signal, f"SIG{name}"))
    return done.stdout, done.stderr


@pytest.mark.no_cover
@pytest.mark.parametrize("name", ["TERM", "INT", "HUP"])
@pytest.mark.parametrize("options", [["--receipt", "acme.receipt"], [], ["--json"]])
def test_signal_while_keys_are_destroyed_costs_no_receipt(name: str, options: list[str]) -> None:
    """What is begun is ended and told before the signal is obeyed."""
    output, _ = signalled(name, "shred", "shred", "acme", "--confirm", "acme", *options)
    assert states() == ["destroyed", "destroyed"]
    if "--json" in options:
        output = base64.b64decode(json.loads(output)["receipt"])
    elif options:
        assert output == b""
        output = Path("acme.receipt").read_bytes()
    assert [len(version.wraps) for version in verified(output).versions] == [1, 1]
    assert list(Path().glob(".*")) == []


@pytest.mark.no_cover
@pytest.mark.parametrize("name", ["TERM", "INT", "HUP"])
def test_signal_before_anything_is_done_leaves_nothing(name: str) -> None:
    """Who is asked may go away: no key is destroyed, and no empty file stays."""
    before = sorted(os.listdir())
    words = ("shred", "acme", "--confirm", "acme", "--receipt", "acme.receipt")
    signalled(name, "confirmed", *words)
    assert states() == ["enabled", "enabled"]
    signalled(name, "load", "backup", "rings.backup")
    assert sorted(os.listdir()) == before


@pytest.mark.no_cover
@pytest.mark.parametrize("name", ["TERM", "INT", "HUP"])
def test_signal_stops_destroy_due_which_tells_what_is_gone(name: str) -> None:
    """At once, in the middle of all tenants."""
    run("tenant", "create", "other")
    run("tenant", "rotate", "other")
    schedule("other")
    schedule()
    once_due("--help")  # no more than the wait for it
    _, told = signalled(name, "load", "destroy-due", of="other")
    assert b"interrupted after it had destroyed of 'acme': version 1" in told
    assert (states(), states("other")) == (["destroyed", "enabled"], ["scheduled", "enabled"])


def test_shred_again_is_no_error() -> None:
    """It says what was destroyed, with another receipt."""
    run("tenant", "shred", "acme", "--confirm", "acme")
    again = run("tenant", "shred", "acme", "--confirm", "acme", "--receipt", "again")
    assert again.exit_code == 0
    assert again.stdout.splitlines()[0] == "destroyed\tacme\t1,2"


def test_revoke(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a tenant with a KEK of its own, which is asked nothing; the default policy has none."""
    (tmp_path / "sentra-kms.toml").write_text(CONFIG.format(wrap="old", unwrap="[]") + BANK)
    run("tenant", "create", "bigbank", "--policy", "bank")
    monkeypatch.delenv("NEW_MASTER_KEY")
    assert run("encrypt", "bigbank", stdin=b"x").exit_code == 4
    result = run("tenant", "revoke", "bigbank", "--confirm", "bigbank")
    assert result.exit_code == 0
    receipt = verified(result.stdout_bytes)
    assert (receipt.operation, receipt.policy) == ("revoke", "bank")
    assert states("bigbank") == ["destroyed"]
    refused = run("tenant", "revoke", "acme", "--confirm", "acme")
    assert refused.exit_code == 12
    assert "has no KEK of its own" in refused.stderr


def test_asking_at_a_terminal(tmp_path: Path) -> None:
    """It says what is lost; the name goes on, and anything else changes nothing."""
    for typed in (b"\n", b"ACME\n", b"y\n", b"\x04", b"acm\xe9\n"):
        code, shown = on_terminal(
            *("tenant", "shred", "acme", "--receipt", "acme.receipt"),
            typed=typed,
            NO_COLOR="1",
            PYTHONIOENCODING="utf-8:strict",  # as it is where a language is set
        )
        assert code == 2
        assert "destroys all 2 key versions of acme" in shown
        assert "nothing was changed" in shown
    assert states() == ["enabled", "enabled"]
    code, shown = on_terminal(
        "tenant", "shred", "acme", "--receipt", "acme.receipt", typed=b"acme\n", NO_COLOR="1"
    )
    assert code == 0
    assert "acme: key versions 1, 2 destroyed" in shown
    assert "What may remain" in shown
    assert "until it is erased" in shown
    assert verified((tmp_path / "acme.receipt").read_bytes()).tenant == "acme"


def test_programs_are_not_asked_at_a_terminal() -> None:
    """With `--json` nothing but JSON is written, so the name has to be given."""
    code, shown = on_terminal("tenant", "shred", "acme", "--json", typed=b"acme\n")
    assert code == 2
    assert "--confirm NAME" in shown
    assert "Type the tenant's name" not in shown
    assert states() == ["enabled", "enabled"]


def test_receipt_is_refused_to_a_terminal() -> None:
    """Before anybody is asked, and with no key destroyed."""
    code, shown = on_terminal("tenant", "shred", "acme", typed=b"acme\n", NO_COLOR="1")
    assert code == 2
    assert "add --receipt FILE" in shown
    assert "Type the tenant's name" not in shown
    assert states() == ["enabled", "enabled"]


def test_states_at_a_terminal() -> None:
    """A person learns when others obey, and that nothing is due."""
    _, shown = on_terminal("tenant", "disable", "acme", "1", NO_COLOR="1")
    assert shown.splitlines()[0] == "acme: version 1 is disabled"
    assert "within ring_ttl" in shown
    assert on_terminal("tenant", "destroy-due") == (0, "Nothing is due.\n")
    code, shown = on_terminal(
        *("tenant", "schedule-destroy", "acme", "1", "--after", "30d"),
        typed=b"acme\n",
        NO_COLOR="1",
    )
    assert code == 0
    assert "Version 1 of acme opens nothing from now on" in shown
    assert "acme: version 1 is scheduled, to be destroyed after" in shown


def test_destroy_due_when_the_store_cannot_be_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    """That is the error of the command, and of no tenant."""

    def fail(_: KeyManager) -> object:
        raise ServiceUnavailable("the store went away")

    monkeypatch.setattr(KeyManager, "destroy_due", fail)
    result = run("tenant", "destroy-due", "--json")
    assert result.exit_code == 11
    assert error_of(result)["message"] == "the store went away"
