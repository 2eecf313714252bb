"""`sentra_kms_fake`: what an application's tests get, tried in pytests of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest

import sentra_kms
from sentra_kms.errors import MalformedInput, SecretNotFound, ServiceUnavailable
from sentra_kms.secrets.documents import DEFAULT_TTL
from sentra_kms.testing import Fake

CONFIG = """
[production.backends.remote]
type = "file"
directory = "/nonexistent"
[production.backends.local]
type = "local"
directory = "/nonexistent/keys"
master_keys = { k = "remote://master" }
[production.keys]
wrap_with = ["local:k"]
authenticate_with = ["remote://ring_key"]
store = "local"
[production.secrets]
DATABASE_URL = { from = ["docker://database_url", "remote://url"], ttl = "1m" }
COMPOSED = { template = "x:{a}", a = "remote://a#b" }
"""


@pytest.fixture
def fake() -> Fake:
    """Return a fake, without the fixture that applications use."""
    return Fake()


def test_secrets_by_name_and_reference(fake: Fake) -> None:
    """What a test puts there is what the application gets, at once."""
    fake.secrets["A"] = "one"
    fake.secrets["memory://doc#user"] = "u"
    fake.secrets["memory://doc#/login/password"] = "p"
    fake.secrets["docker://x"] = b"\xff"
    secrets = fake.kms.secrets
    assert secrets.get("A").reveal() == "one"
    assert secrets.get("memory://doc#user").reveal() == "u"
    assert secrets.get("memory://doc#/login/password").reveal() == "p"
    assert secrets.get("docker://x").reveal_bytes() == b"\xff"
    fake.secrets["A"] = "two"
    assert secrets.get("A").reveal() == "two"
    assert (secrets.get("A").version, secrets.previous("A")) == ("2", sentra_kms.Secret(b"one"))
    assert (list(fake.secrets), len(fake.secrets), fake.secrets["A"]) == (
        ["A", "memory://doc#user", "memory://doc#/login/password", "docker://x"], 4, "two",
    )  # fmt: skip
    assert "two" not in repr(fake.secrets)
    del fake.secrets["A"]
    with pytest.raises(SecretNotFound):
        secrets.get("A")
    with pytest.raises(KeyError):
        fake.secrets["A"]


def test_keys(fake: Fake) -> None:
    """Tenants' keys work, in memory."""
    fake.kms.keys.create("acme")
    box = fake.kms.keys.encrypt("acme", b"x")
    assert fake.kms.keys.decrypt("acme", box) == b"x"


def test_configuration_of_the_application(fake: Fake, tmp_path: Path) -> None:
    """Its own configuration is read and checked, and every backend is in memory under its name."""
    path = tmp_path / "sentra-kms.toml"
    path.write_text(CONFIG, encoding="utf-8")
    kms = fake.load(path, "production")
    assert kms is fake.kms
    with pytest.raises(SecretNotFound):
        kms.secrets.get("DATABASE_URL")
    fake.secrets["DATABASE_URL"] = "postgresql://x"
    fake.secrets["COMPOSED"] = "as a whole"
    assert kms.secrets.get("DATABASE_URL").reveal() == "postgresql://x"
    assert kms.secrets.get("COMPOSED").reveal() == "as a whole"
    kms.keys.create("acme")
    kms.keys.rotate("acme")
    again = fake.load(path, "production")
    assert again.secrets.get("DATABASE_URL").reveal() == "postgresql://x"
    with fake.outage("docker"), pytest.raises(ServiceUnavailable):
        again.secrets.refresh("DATABASE_URL")
    fake.close()


def test_outage(fake: Fake) -> None:
    """A backend is unreachable while a test says so, for secrets, keys and rings."""
    fake.secrets["A"] = "one"
    fake.kms.keys.create("acme")
    fake.outage("memory")
    with pytest.raises(ServiceUnavailable, match="plays an outage"):
        fake.kms.secrets.get("A")
    with pytest.raises(ServiceUnavailable):
        fake.kms.keys.rotate("acme")
    fake.recover("memory")
    assert fake.kms.secrets.get("A").reveal() == "one"
    with fake.outage("memory"):
        fake.clock.advance(DEFAULT_TTL + 1)
        assert fake.kms.secrets.get("A").reveal() == "one"  # coasting
    fake.kms.keys.rotate("acme")
    with pytest.raises(MalformedInput, match="no backend 'vault'"):
        fake.outage("vault")


def test_clock(fake: Fake) -> None:
    """Time passes when a test says so, and what is due is renewed before it is returned."""
    fake.secrets["A"] = "one"
    assert fake.kms.secrets.get("A").reveal() == "one"
    before = len(fake.events)
    fake.kms.secrets.get("A")
    assert len(fake.events) == before
    fake.clock.advance(DEFAULT_TTL + 1)
    fake.kms.secrets.get("A")
    assert len(fake.events) == before + 1


def test_events(fake: Fake) -> None:
    """What observers would have seen, without a value."""
    fake.secrets["A"] = "planted-s3cr3t-value"
    with sentra_kms.actor("user:42"):
        fake.kms.secrets.get("A")
    (event,) = [each for each in fake.events if each.operation == "fetch_secret"]
    assert (event.backend, event.outcome, event.actor) == ("memory", "ok", "user:42")
    assert "planted" not in repr(fake.events)


# --- in pytests of their own -------------------------------------------------------------------

PASSES = """
import sentra_kms

def application():
    with sentra_kms.load() as kms:
        return kms.secrets.get("DATABASE_URL").reveal()

def test_application(sentra_kms_fake, monkeypatch, tmp_path):
    (tmp_path / "sentra-kms.toml").write_text(
        '[production.secrets]\\nDATABASE_URL = "docker://database_url"\\n')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SENTRA_KMS_ENV", "production")
    sentra_kms_fake.secrets["DATABASE_URL"] = "sqlite://"
    assert application() == "sqlite://"
    assert [event.operation for event in sentra_kms_fake.events][0] == "fetch_secret"
"""
REACHES = """
import sentra_kms

kms = sentra_kms.load({"t": {"development": True, "secrets": {"A": "env://PATH"}}}, "t")

def test_reaches(sentra_kms_fake):
    kms.secrets.get("A")

def test_catches(sentra_kms_fake):
    try:
        kms.secrets.refresh("A")
    except BaseException:
        pass

def test_without_the_fixture():
    assert kms.secrets.get("A").reveal()
"""


def run(directory: Path, text: str) -> subprocess.CompletedProcess[str]:
    """Run a test module of an application."""
    (directory / "test_application.py").write_text(text, encoding="utf-8")
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-rA", "--tb=short", "-p", "no:cacheprovider"],
        cwd=directory, capture_output=True, text=True, check=False, env=dict(os.environ),
    )  # fmt: skip


def test_plugin_is_found() -> None:
    """Pytest finds the plugin where sentra_kms is installed."""
    (entry,) = [e for e in entry_points(group="pytest11") if e.name == "sentra_kms"]
    assert entry.value == "sentra_kms.testing.plugin"


def test_application_s_test_passes(tmp_path: Path) -> None:
    """An application that calls `load` itself gets the fake's KMS."""
    done = run(tmp_path, PASSES)
    assert "1 passed" in done.stdout, done.stdout + done.stderr


def test_real_backend_fails_the_test(tmp_path: Path) -> None:
    """A test that reaches a real backend fails and says which, also if the application hides it."""
    done = run(tmp_path, REACHES)
    told = "the test reached the real backend 'env' (type env) by fetch_secret of env://PATH"
    assert "1 failed, 2 passed, 2 errors" in done.stdout, done.stdout
    assert done.stdout.count(told) >= 3


BATCHES = """
import pytest
from sentra_kms.hooktypes import SecretRequest
from sentra_kms.reference import Reference
from tests.binding.batches import BatchSecrets
from tests.binding.fakes import bind

real = bind(BatchSecrets)

def test_batch(sentra_kms_fake):
    real.fetch_secrets([SecretRequest(Reference("fake://path"))])

def test_check(sentra_kms_fake):
    real.check()

def test_closes(sentra_kms_fake):
    real.close()
"""


def test_every_way_to_a_real_backend_fails_the_test(tmp_path: Path) -> None:
    """A batch and a check are calls, too; closing what is open is none."""
    done = run(tmp_path, BATCHES)
    assert "2 failed, 1 passed, 2 errors" in done.stdout, done.stdout
    told = "the test reached the real backend 'fake' (type fake) by "
    assert f"{told}fetch_secrets of fake://path: use" in done.stdout
    assert f"{told}check: use" in done.stdout


def test_plugin_imports_little(tmp_path: Path) -> None:
    """Every pytest of an application loads the plugin: it must not take the suite along."""
    text = (
        "import sys\n"
        "def test():\n"
        "    heavy = {'sentra_kms.testing.conformance', 'sentra_kms.runtime', 'cryptography'}\n"
        "    assert not heavy & set(sys.modules)\n"
        "    assert 'sentra_kms.testing.plugin' in sys.modules\n"
    )
    done = run(tmp_path, text)
    assert "1 passed" in done.stdout, done.stdout
