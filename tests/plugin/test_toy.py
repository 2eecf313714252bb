"""A third party's distribution: built, installed beside the core, chosen by configuration."""

from __future__ import annotations

import base64
import json
import shutil
from pathlib import Path

import pytest

from tests.plugin.environments import TOY, Installed, build_wheel, install_wheel

pytest.importorskip("hatchling", reason="building wheels needs hatchling")
pytestmark = pytest.mark.slow

CONFIGURATION = """
[production.backends.toy-one]
type = "toy"
token = "file://{place}/token"
keys = ["tenants", "others"]

[production.keys]
wrap_with = ["toy-one:tenants"]
authenticate_with = ["file://{place}/ring-key"]
store = "toy-one"

[production.audit]
observers = ["toy-lines"]
"""
LIFE = """
import sentra_kms
with sentra_kms.load(environment="production") as kms:
    kms.keys.create("acme")
    acme = kms.keys.tenant("acme")
    earlier = acme.encrypt(b"earlier", context={"id": "42"})
    kms.keys.rotate("acme")
    later = acme.encrypt(b"later")
    print(acme.decrypt(earlier, context={"id": "42"}), acme.decrypt(later))
    print(list(kms.keys.tenants()), kms.keys.describe("acme").primary)
"""
CREDENTIAL = """
import os, sentra_kms
with sentra_kms.load(environment="production") as kms:
    open("token", "w").write("wrong")
    try:
        kms.keys.create("acme")
    except sentra_kms.AuthenticationFailed as error:
        print(error.backend, error.operation)
    open("token", "w").write("open-sesame-and-stay-open")
    print(kms.keys.create("acme").primary)
"""
NOT_CONFIGURED = """
import sys, sentra_kms
sentra_kms.load(
    {"dev": {"development": True, "backends": {"memory": {"type": "memory"}},
             "keys": {"wrap_with": ["memory:k"], "store": "memory"}}}, "dev").keys.create("acme")
print([name for name in sys.modules if name.startswith("sentra_kms_toy")])
"""
REGISTERED_ONLY = """
import sys
from sentra_kms.config import read_settings
read_settings(environment="production")
print(sorted(name for name in sys.modules if name.startswith("sentra_kms_toy")))
"""
DIAGNOSIS = """
from sentra_kms.doctor import diagnose
found = diagnose(environment="production")
print(found.level, *[each[1:] for each in found.distributions if each[0] == "sentra-kms-toy"][0])
"""
COMMANDS = """
import click
from click.testing import CliRunner
from sentra_kms.discovery import registered_module
group = click.Group("sentra-kms")
registered_module("toy").register_commands(group)
print(CliRunner().invoke(group, ["toy", "hello", "world"]).output)
"""


@pytest.fixture(scope="module")
def environment(fresh_environment: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the toy beside the core; return the interpreter."""
    place = tmp_path_factory.mktemp("toy")
    # Of a copy: a build writes beside its sources.
    install_wheel(fresh_environment, build_wheel(shutil.copytree(TOY, place / "toy"), place))
    return fresh_environment


@pytest.fixture
def installed(environment: Path, tmp_path: Path) -> Installed:
    """Return the environment, with a configuration of this test's own."""
    (tmp_path / "sentra-kms.toml").write_text(CONFIGURATION.format(place=tmp_path))
    for name, value in (
        ("token", "open-sesame-and-stay-open\n"),
        ("ring-key", base64.b64encode(bytes(32))),
    ):
        path = tmp_path / name
        path.touch(0o600)
        path.write_bytes(value if isinstance(value, bytes) else value.encode())
    return Installed(tmp_path, environment, {"TOY_EVENTS": str(tmp_path / "events.jsonl")})


def test_core_is_the_wheel(installed: Installed) -> None:
    """What is tested here is what was installed, and not the tree."""
    path = Path(installed.run("-c", "import sentra_kms; print(sentra_kms.__file__)"))
    assert path.is_relative_to(installed.python.parents[1])


def test_life(installed: Installed) -> None:
    """The configuration chooses the toy for KEKs and rings; no code names it."""
    assert installed.run("-c", LIFE) == "b'earlier' b'later'\n['acme'] 2"


def test_observer_sees_events(installed: Installed) -> None:
    """The observer that the toy brings is told of every KEK, ring and secret operation."""
    installed.run("-c", LIFE)
    lines = (installed.place / "events.jsonl").read_text().splitlines()
    seen = {(event["operation"], event["backend"]) for event in map(json.loads, lines)}
    assert seen >= {
        ("wrap_key", "toy-one"),
        ("save_ring", "toy-one"),
        ("list_rings", "toy-one"),
        ("fetch_secret", "file"),
    }
    assert not any("open-sesame-and-stay-open" in line for line in lines)


def test_credential_is_read_at_each_login(installed: Installed) -> None:
    """A credential that was mended is picked up without loading anew."""
    assert installed.run("-c", CREDENTIAL) == "toy-one load_ring\n1"


def test_not_configured_is_not_imported(installed: Installed) -> None:
    """Being installed costs nothing: what no configuration names is not imported."""
    assert installed.run("-c", NOT_CONFIGURED) == "[]"


def test_reading_imports_the_registration_only(installed: Installed) -> None:
    """To read a configuration the registering module is enough; parts come when they are made."""
    assert installed.run("-c", REGISTERED_ONLY) == "['sentra_kms_toy', 'sentra_kms_toy.register']"


def test_doctor_names_it(installed: Installed) -> None:
    """The doctor tries the toy and names its distribution's version."""
    level, version, api = installed.run("-c", DIAGNOSIS).split()
    assert level in {"ok", "warning"}
    assert (version, api) == ("1.0.0", "1.0")


def test_commands(installed: Installed) -> None:
    """The toy's command can be added to a command line."""
    assert installed.run("-c", COMMANDS) == "hello world"


def test_conformance(installed: Installed) -> None:
    """The toy passes the suite, where it is installed."""
    shutil.copy(TOY / "conformance.py", installed.place)  # away from this tree's conftest
    told = installed.run(
        "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "error", "conformance.py"
    )
    assert " failed" not in told
    assert int(told.splitlines()[-1].partition(" passed")[0]) > 60
