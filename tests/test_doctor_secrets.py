"""What the doctor says of secrets: whether they can be had, how old they are, who shares them."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest

from sentra_kms.doctor import Diagnosis, diagnose
from sentra_kms.hooktypes import Finding

DAY = 86400
PLANTED = b"planted-s3cr3t-value"


@pytest.fixture
def mount(tmp_path: Path) -> Path:
    """Return a directory of secrets."""
    path = tmp_path / "secrets"
    path.mkdir()
    for name in ("url", "other"):
        put(path / name, PLANTED)
    return path


def put(path: Path, data: bytes, *, days: float = 0) -> None:
    """Write a secret that is so many days old."""
    path.touch(0o600)
    path.write_bytes(data)
    then = time.time() - days * DAY
    os.utime(path, (then, then))


def tables(mount: Path, **secrets: object) -> dict[str, Any]:
    """Return a production environment with these secrets, whose Docker directory is the mount."""
    docker = {"type": "docker", "directory": str(mount)}
    return {"production": {"backends": {"docker": docker}, "secrets": secrets}}


def about(diagnosis: Diagnosis, subject: str) -> list[Finding]:
    """Return what was found about one thing; no finding shows a value."""
    assert PLANTED.decode() not in repr(diagnosis)
    return [finding for finding in diagnosis.findings if finding.subject == subject]


def test_secrets_are_tried(mount: Path) -> None:
    """Each declared secret is fetched; one that cannot be had is an error with its place."""
    found = diagnose(tables(mount, URL="docker://url", GONE="docker://gone"), "production")
    (fine,) = about(found, "URL")
    assert (fine.level, fine.message) == ("ok", "can be had")
    (gone,) = about(found, "GONE")
    assert (gone.level, gone.advice) == (
        "error", "put it there, or correct [production.secrets] GONE",
    )  # fmt: skip
    assert found.level == "error"


def test_offline_fetches_nothing(mount: Path) -> None:
    """Offline nothing is fetched, and nothing that would be."""
    found = diagnose(tables(mount, GONE="docker://gone"), "production", offline=True)
    assert found.level == "ok"


def test_environment_with_secrets_alone_is_well(mount: Path) -> None:
    """An environment may have secrets and no keys."""
    assert diagnose(tables(mount, URL="docker://url"), "production").level == "ok"


@pytest.mark.parametrize(("days", "level"), [(89, "ok"), (91, "warning")])
def test_age(mount: Path, days: float, level: str) -> None:
    """A secret that is older than its `max_age` is warned of."""
    put(mount / "url", PLANTED, days=days)
    entry = {"from": "docker://url", "max_age": "90d"}
    found = diagnose(tables(mount, URL=entry), "production")
    assert found.level == level
    if level == "warning":
        (told,) = [each for each in about(found, "URL") if each.level == "warning"]
        assert told.message == "was made 91 days ago, and its max_age is 90 days"
        assert "rotate" in told.advice


def test_age_of_the_oldest_part(mount: Path) -> None:
    """A composed secret is as old as its oldest part."""
    put(mount / "other", PLANTED, days=100)
    entry = {
        "template": "{a}:{b}", "a": "docker://url", "b": "docker://other", "max_age": "90d",
    }  # fmt: skip
    assert diagnose(tables(mount, URL=entry), "production").level == "warning"


def test_age_that_nobody_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a source does not tell the age, the doctor says so, and that is no fault."""
    monkeypatch.setenv("A_SECRET", "x")
    entry = {"from": "env://A_SECRET", "max_age": "90d"}
    table = {"t": {"development": True, "secrets": {"A": entry}}}
    found = diagnose(table, "t")
    assert found.level == "ok"
    assert any("does not tell" in each.message for each in about(found, "A"))


def test_age_in_the_application(mount: Path) -> None:
    """The age limit is the doctor's: an old secret is still given."""
    put(mount / "url", PLANTED, days=1000)
    import sentra_kms

    entry = {"from": "docker://url", "max_age": "1d"}
    with sentra_kms.load(tables(mount, URL=entry), "production") as kms:
        assert kms.secrets.get("URL").reveal_bytes() == PLANTED
        created = kms.secrets.created("URL")
        assert created is not None
        assert abs(created.timestamp() - (time.time() - 1000 * DAY)) < DAY


def test_shared_references_are_warned_of(mount: Path) -> None:
    """One reference in two environments is told, also if it is a secret's."""
    both = tables(mount, URL="docker://url#a")
    both["staging"] = both["production"]
    found = diagnose(both, "production", offline=True)
    assert any(
        each.level == "warning" and "production and staging" in each.message
        for each in about(found, "docker://url#a")
    )


@pytest.mark.parametrize(
    ("reference", "warned"),
    [
        ("file://{mount}/url", False),
        ("file://{mount}/../loose", True),
        ("file:///run/secrets/x", False),
        ("file:///etc/x", True),
        ("app://url", False),
    ],
)
def test_files_outside_declared_directories(mount: Path, reference: str, warned: bool) -> None:  # noqa: FBT001
    """`file://` in production is warned of, unless it is inside a directory that is declared."""
    text = reference.format(mount=mount).replace("secrets/../", "")
    both = tables(mount, URL=text)
    both["production"]["backends"]["app"] = {"type": "file", "directory": str(mount)}
    found = diagnose(both, "production", offline=True)
    assert [each.level for each in about(found, text)] == ["warning"] * warned


def test_explained(mount: Path) -> None:
    """The declared secrets are among the settings in force, references and not values."""
    entry = {"template": "x://u:{p}@h", "p": "docker://url"}
    found = diagnose(tables(mount, URL=entry, A="docker://url"), "production")
    shown = {each.path: each.value for each in found.explained}
    assert shown["secrets.A"] == "docker://url"
    assert shown["secrets.URL.p"] == "docker://url"
    assert shown["backends.docker.directory"] == str(mount)
