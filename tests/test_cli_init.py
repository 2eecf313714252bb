"""`init` and the configuration that it writes."""

from __future__ import annotations

import os
import re
import stat
import tomllib
from datetime import date
from pathlib import Path

import msgspec
import pytest
from jsonschema import Draft202012Validator

import sentra_kms
from sentra_kms.backends.local import LocalSettings
from sentra_kms.cli.template import config_text
from sentra_kms.settings import AuditSettings, CacheSettings, KeysSettings
from tests.test_cli_support import MASTER_KEY, error_of, run, run_json

ENVIRONMENTS = ("development", "production")


@pytest.fixture(autouse=True)
def _empty_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_what_is_written_loads(environment: str) -> None:
    """Both environments of the file load as they are."""
    assert run("init").exit_code == 0
    with sentra_kms.load(environment=environment) as kms:
        assert kms.environment == environment


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_what_is_commented_out_loads_too(environment: str, tmp_path: Path) -> None:
    """Every setting that the file only shows is valid when it is put in force."""
    text = config_text(date(2026, 11, 23))
    in_force = re.sub(r"^#(?=[^ \n:-])", "", text, flags=re.MULTILINE)
    assert in_force.count("\n#") < text.count("\n#")
    (tmp_path / "sentra-kms.toml").write_text(in_force, encoding="utf-8")
    sentra_kms.load(environment=environment).close()
    assert tomllib.loads(in_force)["default_environment"] == "production"
    assert "audit" in tomllib.loads(in_force)["shared"]


def test_the_first_line_is_for_editors(tmp_path: Path) -> None:
    """It names the schema, and the next lines the command that makes it."""
    run("init")
    text = (tmp_path / "sentra-kms.toml").read_text(encoding="utf-8")
    first, *others = text.splitlines()
    assert first == "#:schema ./sentra-kms.schema.json"
    assert "#   sentra-kms config schema --output sentra-kms.schema.json" in others[:4]


def test_the_schema_takes_what_is_written() -> None:
    """An editor that reads the schema finds no fault in the file, nor with every setting set."""
    validator = Draft202012Validator(run_json("config", "schema"))
    text = config_text(date(2026, 11, 23))
    in_force = re.sub(r"^#(?=[^ \n:-])", "", text, flags=re.MULTILINE)
    for each in (text, in_force):
        assert [error.message for error in validator.iter_errors(tomllib.loads(each))] == []


def test_it_works_as_its_advice_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the environment and the master key that it names, a tenant is made and used."""
    run("init")
    monkeypatch.setenv("SENTRA_KMS_ENV", "development")
    monkeypatch.setenv("ENCRYPTION_MASTER_KEY", run("keygen").stdout.strip())
    assert run("tenant", "create", "acme").exit_code == 0
    message = run("encrypt", "acme", "--base64", stdin=b"hello").stdout_bytes
    assert run("decrypt", "acme", "--base64", stdin=message).stdout_bytes == b"hello"


@pytest.mark.parametrize("settings", [CacheSettings, KeysSettings, LocalSettings, AuditSettings])
def test_every_setting_is_explained(settings: type[msgspec.Struct]) -> None:
    """No setting that exists is missing from the file, in force or commented out."""
    text = config_text(date(2026, 11, 23))
    for field in msgspec.structs.fields(settings):
        assert re.search(rf"^#?(\[.*\.)?{field.encode_name}(\]| = )", text, re.MULTILINE), (
            field.name
        )


def test_settings_of_every_backend_and_of_the_file_are_explained() -> None:
    """The keys that stand outside the tables of one kind are there, too."""
    text = config_text(date(2026, 11, 23))
    for key in ("default_environment", "development", "timeout", "type"):
        assert re.search(rf"^#?{key} = ", text, re.MULTILINE), key


def test_master_keys_are_named_after_the_month() -> None:
    """The KEK of January is `local:2027-01`, wherever it is named."""
    tables = tomllib.loads(config_text(date(2027, 1, 5)))
    for environment in ENVIRONMENTS:
        assert tables[environment]["keys"]["wrap_with"] == ["local:2027-01"]
        assert list(tables[environment]["backends"]["local"]["master_keys"]) == ["2027-01"]


def test_the_environments_are_what_the_platform_uses() -> None:
    """Development reads the master key from a variable, production from its Docker secret."""
    tables = tomllib.loads(config_text(date(2026, 11, 23)))
    development, production = (tables[name]["backends"]["local"] for name in ENVIRONMENTS)
    assert development["directory"] == "keys"
    assert development["master_keys"] == {"2026-11": "env://ENCRYPTION_MASTER_KEY"}
    assert production["directory"] == "/app/keys"
    assert production["master_keys"] == {"2026-11": "file:///run/secrets/encryption_master_key"}
    assert tables["development"]["development"] is True
    assert "development" not in tables["production"]


def test_nothing_secret_is_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The master key of the environment stays out of the file."""
    monkeypatch.setenv("ENCRYPTION_MASTER_KEY", MASTER_KEY)
    run("init")
    assert MASTER_KEY not in (tmp_path / "sentra-kms.toml").read_text(encoding="utf-8")


@pytest.mark.parametrize("force", [[], ["--force"]])
@pytest.mark.parametrize("mask", [0o000, 0o077])
def test_mode(force: list[str], mask: int, tmp_path: Path) -> None:
    """The file has mode 644 whatever the umask is."""
    before = os.umask(mask)
    try:
        assert run("init", *force).exit_code == 0
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "sentra-kms.toml").stat().st_mode) == 0o644


def test_an_existing_file_is_left(tmp_path: Path) -> None:
    """Without `--force` a file that is there stays, and the error says what to do."""
    file = tmp_path / "sentra-kms.toml"
    file.write_text("mine", encoding="utf-8")
    result = run("init")
    assert result.exit_code == 5
    assert "--force" in result.stderr
    assert file.read_text(encoding="utf-8") == "mine"
    assert error_of(run("init", "--json"))["type"] == "AlreadyExists"


def test_force_overwrites(tmp_path: Path) -> None:
    """With `--force` the file is replaced, and nothing else is left behind."""
    file = tmp_path / "sentra-kms.toml"
    file.write_text("mine", encoding="utf-8")
    assert run("init", "--force").exit_code == 0
    assert "[production.keys]" in file.read_text(encoding="utf-8")
    assert os.listdir(tmp_path) == ["sentra-kms.toml"]


def test_a_dangling_link_is_not_written_through(tmp_path: Path) -> None:
    """A link that leads nowhere counts as there."""
    (tmp_path / "sentra-kms.toml").symlink_to(tmp_path / "elsewhere")
    assert run("init").exit_code == 5
    assert not (tmp_path / "elsewhere").exists()


def test_path_may_be_a_directory(tmp_path: Path) -> None:
    """In a directory the file has its usual name."""
    (tmp_path / "conf").mkdir()
    assert run_json("init", "conf") == {
        "path": "conf/sentra-kms.toml",
        "environments": ["development", "production"],
    }
    assert (tmp_path / "conf" / "sentra-kms.toml").exists()


def test_it_says_what_comes_next() -> None:
    """The output names the next commands, and the variable for a file of another name."""
    usual = run("init").stdout
    assert 'export ENCRYPTION_MASTER_KEY="$(sentra-kms keygen)"' in usual
    assert "sentra-kms tenant create" in usual
    assert "SENTRA_KMS_CONFIG" not in usual
    assert "sentra-kms config schema --output sentra-kms.schema.json\n" in usual
    assert "sentra-kms doctor" in usual
    assert "export SENTRA_KMS_CONFIG='a b.toml'" in run("init", "a b.toml").stdout


def test_the_schema_belongs_beside_the_file(tmp_path: Path) -> None:
    """For a file elsewhere the advice names the directory where its first line looks."""
    (tmp_path / "a b").mkdir()
    assert "--output 'a b/sentra-kms.schema.json'\n" in run("init", "a b").stdout


def test_no_such_directory() -> None:
    """A path in a directory that is not there is an error of the file, and names it."""
    result = run("init", "nowhere/x.toml")
    assert result.exit_code == 16
    assert result.stderr == "Error: nowhere/x.toml: No such file or directory\n"
