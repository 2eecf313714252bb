"""`env://`: secrets from environment variables."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sentra_kms.backends import env
from sentra_kms.errors import ConfigurationError, MalformedInput, SecretNotFound
from sentra_kms.hooktypes import SecretRequest
from sentra_kms.reference import Reference
from tests.backends.hosts import fetch, make_host
from tests.ground.leaks import locals_inside

SECRETS = env.create(env.EnvSettings(), make_host("env"))


def test_type_is_for_development_only() -> None:
    """The core refuses the type elsewhere."""
    assert env.backend_type().development_only is True
    assert env.backend_type().settings is env.EnvSettings


@pytest.mark.parametrize("value", [b"x", b" x ", b"x\n", "grün".encode(), b"\xff\xfe", b"a=b"])
def test_value_as_it_is(value: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """The variable's bytes come as they are, text or not."""
    monkeypatch.setenv("A_SECRET", os.fsdecode(value))
    assert fetch(SECRETS, "env://A_SECRET") == value


def test_value_is_read_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable that was changed in this process is seen."""
    monkeypatch.setenv("A_SECRET", "one")
    assert fetch(SECRETS, "env://A_SECRET") == b"one"
    monkeypatch.setenv("A_SECRET", "two")
    assert fetch(SECRETS, "env://A_SECRET") == b"two"


def test_name_is_percent_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name with a character that a reference cannot hold is reachable."""
    monkeypatch.setenv("A SECRET", "x")
    assert fetch(SECRETS, "env://A%20SECRET") == b"x"


@pytest.mark.parametrize("value", [None, ""])
def test_absent_or_empty(value: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable that is not set, or empty, is not found by its name."""
    if value is not None:
        monkeypatch.setenv("A_SECRET", value)
    with pytest.raises(SecretNotFound, match="A_SECRET is not set, or empty"):
        fetch(SECRETS, "env://A_SECRET")


@pytest.mark.parametrize("reference", ["env://A_SECRET#field", "env://A_SECRET?version=1"])
def test_no_options_and_no_field(reference: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a variable does not have is refused, not ignored."""
    monkeypatch.setenv("A_SECRET", "planted-secret")
    with pytest.raises(MalformedInput, match="no options and no field") as caught:
        fetch(SECRETS, reference)
    assert "planted" not in locals_inside(caught.value)


def test_other_variables_are_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is missing is told without anything of what is there."""
    monkeypatch.setenv("ANOTHER_SECRET", "planted-secret")
    with pytest.raises(SecretNotFound) as caught:
        fetch(SECRETS, "env://A_SECRET")
    assert "planted" not in locals_inside(caught.value) + str(caught.value)
    assert "ANOTHER" not in str(caught.value)


def test_answer_is_redacted(monkeypatch: pytest.MonkeyPatch) -> None:
    """The value leaves the backend as key material, with neither version nor expiry."""
    monkeypatch.setenv("A_SECRET", "planted-secret")
    assert isinstance(SECRETS, env.EnvSecrets)
    answer = SECRETS.fetch_secret(SecretRequest(Reference("env://A_SECRET")), 5.0)
    assert repr(answer).startswith("SecretValue(data=KeyMaterial(redacted), version=None")


def test_name_file_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where NAME is not set, or empty, the file that NAME_FILE names is read, as Docker does it."""
    path = tmp_path / "secret"
    path.touch(0o600)
    path.write_bytes(b"from the file\n")
    monkeypatch.setenv("A_SECRET_FILE", str(path))
    assert fetch(SECRETS, "env://A_SECRET") == b"from the file\n"
    monkeypatch.setenv("A_SECRET", "")
    assert fetch(SECRETS, "env://A_SECRET") == b"from the file\n"
    monkeypatch.setenv("A_SECRET_FILE", "")
    with pytest.raises(SecretNotFound):
        fetch(SECRETS, "env://A_SECRET")


def test_name_and_name_file_together_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both set could differ: it is an error that names both, and lets no chain go on."""
    monkeypatch.setenv("A_SECRET", "planted-secret")
    monkeypatch.setenv("A_SECRET_FILE", "/etc/passwd")
    with pytest.raises(ConfigurationError, match="both A_SECRET and A_SECRET_FILE") as caught:
        fetch(SECRETS, "env://A_SECRET")
    assert "planted" not in str(caught.value)


def test_name_file_of_a_missing_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that is not there is not found; one that is named by a relative path is refused."""
    monkeypatch.setenv("A_SECRET_FILE", str(tmp_path / "nothing"))
    with pytest.raises(SecretNotFound, match="nothing does not exist"):
        fetch(SECRETS, "env://A_SECRET")
    monkeypatch.setenv("A_SECRET_FILE", "nothing")
    with pytest.raises(ConfigurationError, match="absolute path"):
        fetch(SECRETS, "env://A_SECRET")
