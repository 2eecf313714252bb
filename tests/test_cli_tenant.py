"""`tenant`: create, list, show, rotate, rewrap."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from sentra_kms.errors import ServiceUnavailable
from sentra_kms.keys.manager import KeyManager
from tests.test_cli_support import ENVIRONMENT, error_of, run, run_json, write_config


@pytest.fixture(autouse=True)
def _project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    write_config(tmp_path)


def test_create() -> None:
    """A new tenant has one version, which is primary."""
    result = run("tenant", "create", "acme")
    assert (result.exit_code, result.stdout) == (0, "acme: version 1 is primary\n")
    assert run_json("tenant", "show", "acme")["primary"] == 1


def test_create_twice() -> None:
    """A tenant that is there is an error, and with `--exist-ok` described as it is."""
    run("tenant", "create", "acme")
    run("tenant", "rotate", "acme")
    assert run("tenant", "create", "acme").exit_code == 5
    again = run_json("tenant", "create", "acme", "--exist-ok")
    assert again["primary"] == 2
    assert again["ring_id"] == run_json("tenant", "show", "acme")["ring_id"]


def test_ids_that_are_not_valid() -> None:
    """An id that could leave the directory is malformed input."""
    assert run("tenant", "create", "../acme").exit_code == 13
    assert run("tenant", "show", "").exit_code == 13
    assert run("tenant", "rotate", "a/b").exit_code == 13
    assert run("tenant", "rewrap", "é").exit_code == 13


def test_list() -> None:
    """A row or an object each, the name first."""
    assert run("tenant", "list").stdout == ""
    assert run_json("tenant", "list") == {"tenants": []}
    for name in ("acme", "Acme", "globex"):
        run("tenant", "create", name)
    run("tenant", "rotate", "acme")
    rows = [line.split("\t") for line in run("tenant", "list").stdout.splitlines()]
    assert sorted(rows) == [
        ["Acme", "default", "1", "1", "", "", ""],
        ["acme", "default", "2", "2", "", "", ""],
        ["globex", "default", "1", "1", "", "", ""],
    ]
    assert run_json("tenant", "list")["tenants"][0] == {
        "tenant": rows[0][0],
        "policy": "default",
        "primary": 1,
        "versions": 1,
        "is_overdue": False,
    }


def test_list_of_names_reads_no_ring(tmp_path: Path) -> None:
    """One a line, or as JSON; rings that cannot be read are names like others."""
    assert run("tenant", "list", "--names").stdout == ""
    assert run_json("tenant", "list", "--names") == {"tenants": []}
    for name in ("acme", "Acme", "globex"):
        run("tenant", "create", name)
    for ring in (tmp_path / "keys").glob("*.ring"):
        ring.write_bytes(b"no ring")
    lines = run("tenant", "list", "--names").stdout.splitlines()
    assert sorted(lines) == ["Acme", "acme", "globex"]
    assert run_json("tenant", "list", "--names") == {"tenants": lines}


def test_list_goes_on_after_a_ring_that_cannot_be_read(tmp_path: Path) -> None:
    """It is told with its error, the others are rows, and the code is its own."""
    for name in ("acme", "broken", "globex"):
        run("tenant", "create", name)
    (tmp_path / "keys" / "broken.ring").write_bytes(b"no ring")
    result = run("tenant", "list")
    assert result.exit_code == 17
    assert [line.split("\t")[0] for line in result.stdout.splitlines()] == ["acme", "globex"]
    assert "broken: RingRejected: " in result.stderr
    assert "Error: 1 key ring could not be read" in result.stderr
    document = json.loads(run("tenant", "list", "--json").stdout)
    found = {each["tenant"]: each.get("error", {}).get("type") for each in document["tenants"]}
    assert found == {"acme": None, "broken": "RingRejected", "globex": None}


def test_show() -> None:
    """Into a pipe go rows with tabs, the versions last."""
    run("tenant", "create", "acme")
    run("tenant", "rotate", "acme")
    rows = [line.split("\t") for line in run("tenant", "show", "acme").stdout.splitlines()]
    ring = run_json("tenant", "show", "acme")
    assert rows[:5] == [
        ["tenant", "acme"],
        ["ring", ring["ring_id"]],
        ["policy", "default"],
        ["sequence", "2"],
        ["primary", "2"],
    ]
    wrap = ring["versions"][0]["wraps"][0]
    assert rows[5:] == [
        [
            "version",
            str(version["version"]),
            "enabled",
            version["created"],
            "generated",
            f"local:old ({wrap['key_id']})",
            "",
            "",
        ]
        for version in ring["versions"]
    ]


@pytest.mark.parametrize("command", ["show", "rotate", "rewrap"])
def test_no_such_tenant(command: str) -> None:
    """No command but `create` makes a tenant; the error names it."""
    result = run("tenant", command, "acme", "--json")
    assert result.exit_code == 4
    error = error_of(result)
    assert (error["type"], error["subject"]) == ("TenantNotFound", "acme")
    assert run("tenant", "list").stdout == ""


def test_rotate() -> None:
    """Each rotation makes a version, which is primary."""
    run("tenant", "create", "acme")
    assert run("tenant", "rotate", "acme").stdout == "acme: version 2 is primary\n"
    assert run_json("tenant", "rotate", "acme")["primary"] == 3


def test_rotate_with_a_request_id() -> None:
    """A retry with the same id makes no second version, another id does."""
    run("tenant", "create", "acme")
    primaries = [
        run_json("tenant", "rotate", "acme", "--request-id", request)["primary"]
        for request in ("r1", "r1", "r2")
    ]
    assert primaries == [2, 2, 3]
    versions = run_json("tenant", "show", "acme")["versions"]
    assert [version["request"] for version in versions] == [None, "r1", "r2"]


def test_rewrap_one(tmp_path: Path) -> None:
    """One tenant's versions get the KEKs of today; the KEKs that wrap something are listed."""
    run("tenant", "create", "acme")
    run("tenant", "rotate", "acme")
    run("tenant", "create", "globex")
    write_config(tmp_path, wrap="new", unwrap=["old"])
    document = run_json("tenant", "rewrap", "acme")
    assert [entry["tenant"] for entry in document["tenants"]] == ["acme"]
    versions = document["tenants"][0]["ring"]["versions"]
    assert [[wrap["kek"] for wrap in version["wraps"]] for version in versions] == [
        ["local:new"],
        ["local:new"],
    ]
    [use] = document["keks"]
    assert (use["kek"], use["tenants"], use["versions"]) == ("local:new", 1, 2)
    globex = run_json("tenant", "show", "globex")
    assert globex["versions"][0]["wraps"][0]["kek"] == "local:old"


def test_rewrap_all(tmp_path: Path) -> None:
    """Every tenant is rewrapped, after which the old KEK is needed no more."""
    for name in ("acme", "globex"):
        run("tenant", "create", name)
    message = run("encrypt", "acme", stdin=b"hello").stdout_bytes
    write_config(tmp_path, wrap="new", unwrap=["old"])
    result = run("tenant", "rewrap", "--all")
    assert result.exit_code == 0
    rows = [line.split("\t") for line in result.stdout.splitlines()]
    assert sorted(rows[:2]) == [["tenant", "acme", "1"], ["tenant", "globex", "1"]]
    [kek] = rows[2:]
    assert kek[:2] == ["kek", "local:new"]
    assert kek[3:] == ["", "2", "2"]
    write_config(tmp_path, wrap="new")
    assert run("decrypt", "acme", stdin=message).stdout_bytes == b"hello"


def test_rewrap_all_goes_on_after_a_failure(tmp_path: Path) -> None:
    """A tenant that fails is named with its error, the others are done, and the code is its own."""
    for name in ("acme", "broken", "globex"):
        run("tenant", "create", name)
    ring = tmp_path / "keys" / "broken.ring"
    ring.write_bytes(ring.read_bytes().replace(b'"default"', b'"DEFAULT"'))
    write_config(tmp_path, wrap="new", unwrap=["old"])
    result = run("tenant", "rewrap", "--all")
    assert result.exit_code == 17
    assert "broken: RingRejected: " in result.stderr
    assert "Error: 1 of 3 tenants failed" in result.stderr
    assert {line.split("\t")[1] for line in result.stdout.splitlines()} == {
        "acme",
        "globex",
        "local:new",
    }
    for name in ("acme", "globex"):
        [version] = run_json("tenant", "show", name)["versions"]
        assert [wrap["kek"] for wrap in version["wraps"]] == ["local:new"]


def test_rewrap_all_with_a_failure_as_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The document has every tenant, what failed with its error, and what it still depends on."""
    run("tenant", "create", "acme")
    write_config(tmp_path, wrap="new", unwrap=["old"])
    monkeypatch.delenv("NEW_MASTER_KEY")
    result = run("tenant", "rewrap", "--all", "--json")
    assert result.exit_code == 17
    [line] = result.stdout.splitlines()
    document = json.loads(line)
    [entry] = document["tenants"]
    assert entry["error"]["type"] == "SecretNotFound"
    assert [use["kek"] for use in document["keks"]] == ["local:old"]
    assert '"type":"SomeFailed"' in result.stderr


def test_rewrap_tells_what_was_done_when_the_store_stops_answering(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """If the list of tenants breaks off, what was done is told before the error."""
    run("tenant", "create", "acme")

    def stop_half_way(_: KeyManager) -> Iterator[str]:
        yield "acme"
        raise ServiceUnavailable("the store went away")

    monkeypatch.setattr(KeyManager, "tenants", stop_half_way)
    result = run("tenant", "rewrap", "--all")
    assert result.exit_code == 11
    assert result.stderr == "Error: the store went away\nThis may pass: try again.\n"
    assert [line.split("\t")[0] for line in result.stdout.splitlines()] == ["tenant", "kek"]


def test_rewrap_all_without_tenants() -> None:
    """Nothing to do is no failure."""
    assert (run("tenant", "rewrap", "--all").exit_code, run("tenant", "list").stdout) == (0, "")
    assert run_json("tenant", "rewrap", "--all") == {"tenants": [], "keks": []}


@pytest.mark.parametrize("arguments", [[], ["acme", "--all"]])
def test_rewrap_needs_one_of_name_and_all(arguments: list[str]) -> None:
    """Neither or both is wrong usage."""
    result = run("tenant", "rewrap", *arguments)
    assert result.exit_code == 2
    assert "Name one tenant, or say --all." in result.stderr
