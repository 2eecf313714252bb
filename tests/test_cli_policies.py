"""Policies, moves and health on the command line."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sentra_kms.binding import Binding
from sentra_kms.errors import ServiceUnavailable
from tests.test_cli_support import (
    ENVIRONMENT,
    child_environment,
    command,
    error_of,
    on_terminal,
    run,
    run_json,
)

CONFIG = """
[development]
development = true
[development.backends.local]
type = "local"
directory = "keys"
master_keys = {{ k = "env://OLD_MASTER_KEY" }}
[development.backends.other]
type = "local"
directory = "elsewhere"
master_keys = {{ k = "env://NEW_MASTER_KEY" }}
[development.keys]
wrap_with = ["local:k"]
authenticate_with = ["local:k"]
{keys}
[development.policies.bank]
wrap_with = ["other:k"]
rotate_after = "1ms"
[development.policies.both]
wrap_with = ["local:k", "other:k"]
min_wraps = 1
"""
IN_LOCAL = 'store = "local"'
IN_OTHER = 'store = "other"\nprevious_store = "local"'


def configure(keys: str = IN_LOCAL) -> None:
    """Write the configuration."""
    Path("sentra-kms.toml").write_text(CONFIG.format(keys=keys), encoding="utf-8")


@pytest.fixture(autouse=True)
def _project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    configure()


def keks(tenant: str) -> set[str]:
    """Return the KEKs that wrap something of a tenant."""
    ring = run_json("tenant", "show", tenant)
    return {wrap["kek"] for version in ring["versions"] for wrap in version["wraps"]}


@pytest.fixture
def other_fails() -> Iterator[pytest.MonkeyPatch]:
    """Let the KEKs of `other` be out of reach; gives what mends it."""
    patch = pytest.MonkeyPatch()
    for operation in ("wrap_key", "unwrap_key", "describe_key"):
        real = getattr(Binding, operation)

        def fail(self: Binding, *arguments: Any, real: Any = real) -> Any:
            if self.name == "other":
                raise ServiceUnavailable("no route to host")
            return real(self, *arguments)

        patch.setattr(Binding, operation, fail)
    yield patch
    patch.undo()


def test_create_under_a_policy() -> None:
    """Its KEKs wrap the ring; one that there is not is refused, and makes no ring."""
    assert run("tenant", "create", "bigbank", "--policy", "bank").exit_code == 0
    assert run_json("tenant", "show", "bigbank")["policy"] == "bank"
    assert keks("bigbank") == {"other:k"}
    refused = run("tenant", "create", "acme", "--policy", "gold", "--json")
    assert refused.exit_code == 3
    assert "the configuration has bank, both, default" in error_of(refused)["message"]
    assert run("tenant", "list", "--names").stdout == "bigbank\n"


def test_set_policy() -> None:
    """The new policy's KEKs wrap every version, no others do, and messages open as before."""
    run("tenant", "create", "acme")
    message = run("encrypt", "acme", stdin=b"hello").stdout_bytes
    run("tenant", "rotate", "acme")
    result = run("tenant", "set-policy", "acme", "bank")
    assert result.stdout == "acme: policy bank, wrapped by other:k\n"
    assert keks("acme") == {"other:k"}
    assert run("decrypt", "acme", stdin=message).stdout == "hello"
    assert run_json("tenant", "set-policy", "acme", "default")["policy"] == "default"
    assert run("tenant", "set-policy", "acme", "gold").exit_code == 3


def test_release() -> None:
    """The customer's KEK wraps nothing any more, and the data opens."""
    run("tenant", "create", "bigbank", "--policy", "bank")
    message = run("encrypt", "bigbank", stdin=b"hello").stdout_bytes
    result = run("tenant", "release", "bigbank")
    assert result.stdout == "bigbank: policy default, wrapped by local:k\n"
    assert run("decrypt", "bigbank", stdin=message).stdout == "hello"
    run("tenant", "set-policy", "bigbank", "bank")
    refused = run("tenant", "release", "bigbank", "--policy", "both")
    assert refused.exit_code == 7
    assert "other:k would go on wrapping" in refused.stderr
    assert keks("bigbank") == {"other:k"}


@pytest.mark.usefixtures("other_fails")
def test_release_needs_the_kek_once_more() -> None:
    """Who cannot be asked any more cannot be released; nothing changes."""
    run("tenant", "create", "acme", "--policy", "both")
    run("tenant", "create", "bigbank")
    assert run("tenant", "set-policy", "bigbank", "bank").exit_code == 11
    assert run_json("tenant", "show", "bigbank")["policy"] == "default"


def test_list_shows_policies_and_what_is_overdue() -> None:
    """A row has policy, primary, when rotation is due and whether that was before now."""
    run("tenant", "create", "acme")
    run("tenant", "create", "bigbank", "--policy", "bank")
    rows = [line.split("\t") for line in run("tenant", "list").stdout.splitlines()]
    assert rows[0] == ["acme", "default", "1", "1", "", "", ""]
    assert rows[1][:4] == ["bigbank", "bank", "1", "1"]
    assert rows[1][4].endswith("Z")
    assert rows[1][5:] == ["overdue", ""]
    _, found = run_json("tenant", "list")["tenants"]
    assert (found["policy"], found["is_overdue"]) == ("bank", True)
    _, shown = on_terminal("tenant", "list", NO_COLOR="1")
    assert "overdue since 2" in shown
    assert "Rotation due" in shown


def test_show_says_when_rotation_is_due() -> None:
    """As a fact of the ring, for programs and for a person."""
    run("tenant", "create", "bigbank", "--policy", "bank")
    (row,) = [
        line.split("\t")
        for line in run("tenant", "show", "bigbank").stdout.splitlines()
        if line.startswith("rotation due")
    ]
    assert row[1].endswith("Z, overdue")
    _, shown = on_terminal("tenant", "show", "bigbank", NO_COLOR="1")
    assert "Rotation due" in shown
    assert "UTC, overdue" in shown
    run("tenant", "create", "acme")
    assert "rotation" not in run("tenant", "show", "acme").stdout


def test_missing_wraps_are_shown_and_mended(other_fails: pytest.MonkeyPatch) -> None:
    """`min_wraps` lets one fail; list and show say which, until rewrap mends it."""
    assert run("tenant", "create", "acme", "--policy", "both").stderr == ""
    assert run("tenant", "list").stdout == "acme\tboth\t1\t1\t\t\tother:k\n"
    assert run_json("tenant", "list")["tenants"][0]["missing"] == ["other:k"]
    assert run("tenant", "show", "acme").stdout.splitlines()[-1].split("\t")[6] == "other:k"
    other_fails.undo()
    run("tenant", "rewrap", "acme")
    assert run("tenant", "list").stdout == "acme\tboth\t1\t1\t\t\t\n"
    assert keks("acme") == {"local:k", "other:k"}


def test_move_one_and_all(tmp_path: Path) -> None:
    """Rings are read where they are until they are moved; then the old store is not needed."""
    for name in ("acme", "globex", "initech"):
        run("tenant", "create", name)
    message = run("encrypt", "acme", stdin=b"hello").stdout_bytes
    configure(IN_OTHER)
    assert run("decrypt", "acme", stdin=message).stdout == "hello"
    assert not (tmp_path / "elsewhere").exists()
    sequence = run_json("tenant", "show", "acme")["sequence"]
    name, moved = run("tenant", "move", "acme").stdout.rstrip().split("\t")
    assert (name, int(moved) > sequence) == ("acme", True)
    assert sorted(each.name for each in (tmp_path / "elsewhere").glob("*.ring")) == ["acme.ring"]
    result = run("tenant", "move", "--all")
    assert result.exit_code == 0
    names = [line.split("\t")[0] for line in result.stdout.splitlines()]
    assert sorted(names) == ["acme", "globex", "initech"]
    again = run_json("tenant", "move", "--all")["tenants"]
    assert sorted(each["tenant"] for each in again) == sorted(names)
    assert [each["ring"]["sequence"] for each in again if each["tenant"] == "acme"] == [int(moved)]
    configure('store = "other"')
    assert run("decrypt", "acme", stdin=message).stdout == "hello"
    assert sorted(run("tenant", "list", "--names").stdout.split()) == sorted(names)
    _, shown = on_terminal("tenant", "move", "--all", NO_COLOR="1")
    assert shown.endswith("3 key rings in store.\n")


def test_move_all_goes_on_after_a_failure(tmp_path: Path) -> None:
    """The tenant that fails is named, the others are moved, and running it again does the rest."""
    for name in ("acme", "broken", "globex"):
        run("tenant", "create", name)
    ring = tmp_path / "keys" / "broken.ring"
    document = ring.read_bytes()
    ring.write_bytes(b"no ring")
    configure(IN_OTHER)
    result = run("tenant", "move", "--all", "--json")
    assert result.exit_code == 17
    ends = {each["tenant"]: each.get("error") for each in json.loads(result.stdout)["tenants"]}
    assert (ends["acme"], ends["globex"]) == (None, None)
    assert ends["broken"]["type"] == "RingRejected"
    assert len(list((tmp_path / "elsewhere").glob("*.ring"))) == 2
    ring.write_bytes(document)
    assert run("tenant", "move", "--all").exit_code == 0
    assert len(list((tmp_path / "elsewhere").glob("*.ring"))) == 3


@pytest.mark.parametrize("arguments", [[], ["acme", "--all"]])
def test_move_needs_one_of_name_and_all(arguments: list[str]) -> None:
    """Neither or both is wrong usage."""
    result = run("tenant", "move", *arguments)
    assert result.exit_code == 2
    assert "Name one tenant, or say --all." in result.stderr


def test_move_without_tenants() -> None:
    """Nothing to do is no failure."""
    configure(IN_OTHER)
    assert run("tenant", "move", "--all").exit_code == 0
    assert run("tenant", "move", "nobody").exit_code == 4
    assert on_terminal("tenant", "move", "--all") == (0, "There are no tenants.\n")


def test_health() -> None:
    """Every backend that keys need, and whether it answers."""
    run("tenant", "create", "acme")
    result = run("health")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == "ready\nbackend\tlocal\tok\t\nbackend\tother\tok\t\n"
    assert run_json("health") == {
        "live": True,
        "ready": True,
        "backends": [
            {"name": "local", "ok": True, "problems": []},
            {"name": "other", "ok": True, "problems": []},
        ],
    }
    assert "Ready to serve." in on_terminal("health", NO_COLOR="1")[1]


@pytest.mark.usefixtures("other_fails")
def test_health_of_a_kek_of_another_policy() -> None:
    """It is told, and no reason to take the process away."""
    result = run("health")
    assert result.exit_code == 0
    assert result.stdout.splitlines()[0] == "ready"
    assert "backend\tother\tfailed\tother:k: no route to host" in result.stdout


def test_health_when_it_cannot_serve(monkeypatch: pytest.MonkeyPatch) -> None:
    """A code of its own, with what is wrong on both outputs."""
    monkeypatch.delenv("OLD_MASTER_KEY")
    result = run("health")
    assert result.exit_code == 19
    assert result.stdout.splitlines()[0] == "not ready"
    assert result.stderr == "Error: not ready to serve: see local\n"
    document = run("health", "--json")
    assert document.exit_code == 19
    assert json.loads(document.stdout)["ready"] is False
    assert json.loads(document.stderr)["error"]["type"] == "NotReady"
    code, shown = on_terminal("health", NO_COLOR="1")
    assert (code, "Not ready to serve." in shown) == (19, True)


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("sentra-kms tenant set-policy acme ba", ["bank"]),
        ("sentra-kms tenant create acme --policy b", ["bank", "both"]),
        ("sentra-kms tenant release acme --policy d", ["default"]),
    ],
)
def test_policies_are_completed(typed: str, offered: list[str]) -> None:
    """From the configuration, and to nothing if there is none that can be read."""

    def completions() -> list[str]:
        words = typed.split()
        done = subprocess.run(
            command(),
            capture_output=True,
            env=child_environment(
                _SENTRA_KMS_COMPLETE="bash_complete",
                COMP_WORDS=typed,
                COMP_CWORD=str(len(words) - 1),
            ),
            check=False,
        )
        assert done.stderr == b""
        return done.stdout.decode().split()

    assert completions() == [f"plain,{each}" for each in offered]
    Path("sentra-kms.toml").write_text("nonsense", encoding="utf-8")
    assert completions() == []


def test_two_deployments_come_before_a_move() -> None:
    """In either order of the two stores each process finds what the other creates.

    A ring that has moved is refused by who still has the first order.
    """
    first, second = 'store = "local"\nprevious_store = "other"', IN_OTHER
    for own, keys, others in (("a", first, second), ("b", second, first)):
        configure(keys)
        assert run("tenant", "create", own).exit_code == 0
        configure(others)
        assert run("encrypt", own, "--base64", stdin=b"x").exit_code == 0
        assert run("tenant", "rotate", own).exit_code == 0
        assert run("tenant", "create", own).exit_code == 5
    configure(second)
    assert run("tenant", "move", "--all").exit_code == 0
    configure(first)
    refused = run("tenant", "rotate", "a")
    assert refused.exit_code == 12
    assert "has moved to 'other': name that as store" in refused.stderr
    assert run("tenant", "rotate", "b").exit_code == 0
