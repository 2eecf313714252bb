"""Type checkers show an author what is wrong with a part, at its line, while it is written."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import sentra_kms

pytest.importorskip("mypy", reason="needs both type checkers")
pytest.importorskip("pyright", reason="needs both type checkers")
pytestmark = pytest.mark.slow

ROOT = Path(sentra_kms.__file__).parents[1]
GOOD = """
from __future__ import annotations

from collections.abc import Sequence

from sentra_kms import KeyMaterial, KMSError, Reference
from sentra_kms.context import WrapContext
from sentra_kms.events import Event
from sentra_kms.hookspecs import (
    BatchKeyHooks,
    BatchSecretHooks,
    KeyHooks,
    ObserverHooks,
    PartHooks,
    RingHistoryHooks,
    RingHooks,
    SecretHooks,
    hookimpl,
)
from sentra_kms.hooktypes import (
    BackendSettings,
    BackendType,
    Finding,
    Host,
    KeyDescription,
    Remainder,
    RingPage,
    SecretRequest,
    SecretValue,
    StoredRing,
    UnwrapRequest,
    WrappedKey,
    WrapRequest,
)
from sentra_kms.testing import BackendConformance, BackendHarness, SecretSample


class Settings(BackendSettings, frozen=True):
    address: str
    token: Reference
    keys: tuple[str, ...] = ()


@hookimpl
def backend_type() -> BackendType:
    return BackendType(api=(1, 0), settings=Settings, create="acme:create", summary="Acme")


class Keys(KeyHooks, BatchKeyHooks, PartHooks):
    def __init__(self, settings: Settings, host: Host) -> None:
        self._token = host.secret(settings.token)

    @hookimpl
    def wrap_key(
        self, key: str, material: KeyMaterial, context: WrapContext, timeout: float
    ) -> WrappedKey:
        return WrappedKey(material.reveal() + context.canonical, key, None)

    @hookimpl
    def unwrap_key(
        self, key: str, wrapped: WrappedKey, context: WrapContext, timeout: float
    ) -> KeyMaterial:
        return KeyMaterial(wrapped.ciphertext)

    @hookimpl
    def describe_key(self, key: str, timeout: float) -> KeyDescription:
        return KeyDescription(key, None)

    @hookimpl
    def wrap_keys(
        self, key: str, requests: tuple[WrapRequest, ...], timeout: float
    ) -> list[WrappedKey]:
        return [self.wrap_key(key, each.material, each.context, timeout) for each in requests]

    @hookimpl
    def unwrap_keys(
        self, key: str, requests: tuple[UnwrapRequest, ...], timeout: float
    ) -> Sequence[KeyMaterial | KMSError]:
        return [KeyMaterial(each.wrapped.ciphertext) for each in requests]

    @hookimpl
    def check(self, timeout: float) -> list[Finding]:
        return [Finding("ok", "keys", "are there")]


class Secrets(SecretHooks, BatchSecretHooks, PartHooks):
    @hookimpl
    def fetch_secrets(
        self, requests: tuple[SecretRequest, ...], timeout: float
    ) -> list[SecretValue | KMSError]:
        return [self.fetch_secret(each, timeout) for each in requests]

    @hookimpl
    def fetch_secret(self, request: SecretRequest, timeout: float) -> SecretValue:
        return SecretValue(KeyMaterial(request.reference.path.encode()))


class Rings(RingHooks, RingHistoryHooks, PartHooks):
    @hookimpl
    def purge_ring_history(self, tenant: str, timeout: float) -> list[Remainder]:
        return [Remainder("backups", None)]

    @hookimpl
    def load_ring(self, tenant: str, timeout: float) -> StoredRing:
        return StoredRing(b"document", "1")

    @hookimpl
    def save_ring(self, tenant: str, document: bytes, expected: str | None, timeout: float) -> str:
        return "2"

    @hookimpl
    def delete_ring(self, tenant: str, expected: str, timeout: float) -> None:
        return

    @hookimpl
    def list_rings(self, cursor: str | None, limit: int, timeout: float) -> RingPage:
        return RingPage(("acme",), None)


class Audit(ObserverHooks):
    @hookimpl
    def audit_event(self, event: Event) -> None:
        print(event.operation)


def create(settings: Settings, host: Host) -> list[object]:
    return [Keys(settings, host), Secrets(), Rings()]


audit = Audit()


class Harness(BackendHarness):
    type = "acme"

    def settings(self) -> dict[str, object]:
        return {"address": str(self.path), "token": "env://TOKEN"}

    def kek(self) -> str:
        return "tenants"

    def secret(self) -> SecretSample:
        return SecretSample("acme://platform", b"correct horse battery")


class TestAcme(BackendConformance):
    harness = Harness
"""
UNWRAP = """    @hookimpl
    def unwrap_key(
        self, key: str, wrapped: WrappedKey, context: WrapContext, timeout: float
    ) -> KeyMaterial:
        return KeyMaterial(wrapped.ciphertext)

"""
SELF_WRAPPED = "self, key: str, wrapped: WrappedKey, context: WrapContext, timeout: float"
FAULTS: dict[str, tuple[str, str, str]] = {
    "drops the context": (
        SELF_WRAPPED,
        "self, key: str, wrapped: WrappedKey, timeout: float",
        "def unwrap_key",
    ),
    "drops the timeout": (
        "def fetch_secret(self, request: SecretRequest, timeout: float)",
        "def fetch_secret(self, request: SecretRequest)",
        "def fetch_secret(",
    ),
    "mistypes an argument": (
        "self, tenant: str, document: bytes, expected: str | None",
        "self, tenant: str, document: str, expected: str | None",
        "def save_ring",
    ),
    "narrows an argument": (
        "document: bytes, expected: str | None",
        "document: bytes, expected: str",
        "def save_ring",
    ),
    "renames an argument": (
        """describe_key(self, key: str, timeout: float) -> KeyDescription:
        return KeyDescription(key, None)""",
        """describe_key(self, name: str, timeout: float) -> KeyDescription:
        return KeyDescription(name, None)""",
        "def describe_key",
    ),
    "wants one more": (
        "def audit_event(self, event: Event)",
        "def audit_event(self, event: Event, more: int)",
        "def audit_event",
    ),
    "drops the timeout of a batch": (
        "key: str, requests: tuple[UnwrapRequest, ...], timeout: float",
        "key: str, requests: tuple[UnwrapRequest, ...]",
        "def unwrap_keys",
    ),
    "mistypes the requests of a batch": (
        "self, requests: tuple[SecretRequest, ...], timeout",
        "self, requests: tuple[str, ...], timeout",
        "def fetch_secrets",
    ),
    "has a foreign error among the ends of a batch": (
        ") -> list[SecretValue | KMSError]:",
        ") -> list[SecretValue | OSError]:",
        "def fetch_secrets",
    ),
    "says nothing of what remains": (
        "timeout: float) -> list[Remainder]:",
        "timeout: float) -> None:",
        "def purge_ring_history",
    ),
    "lacks a method": (UNWRAP, "", "return [Keys(settings, host)"),
    "returns another type": (
        "def load_ring(self, tenant: str, timeout: float) -> StoredRing:",
        "def load_ring(self, tenant: str, timeout: float) -> bytes:",
        "def load_ring",
    ),
    "returns None": (
        'return StoredRing(b"document", "1")',
        "return None",
        "return None",
    ),
    "returns bytes as a key": (
        "return KeyMaterial(wrapped.ciphertext)",
        "return wrapped.ciphertext",
        "return wrapped.ciphertext",
    ),
    "returns a coroutine": (
        "    def list_rings",
        "    async def list_rings",
        "async def list_rings",
    ),
    "changes an event": (
        "print(event.operation)",
        'event.operation = "changed"',
        "event.operation",
    ),
    "has an api of text": ("api=(1, 0)", 'api="1.0"', 'api="1.0"'),
    "has settings of another kind": ("settings=Settings", "settings=dict", "settings=dict"),
    "has a finding of another level": ('Finding("ok"', 'Finding("fine"', 'Finding("fine"'),
    "has a harness of another kind": (
        "    harness = Harness",
        "    harness = Settings",
        "harness = Settings",
    ),
}
"""Each as a replacement in the good file, and the line where it is shown, by what stands there."""

PYRIGHT_ONLY = {"renames an argument"}
"""What mypy lets through; the guard refuses it when the backend is bound."""


def _line(source: str, text: str) -> int:
    return source[: source.index(text)].count("\n") + 1


def _environment() -> dict[str, str]:
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PATH", "")]))
    return {**os.environ, "MYPYPATH": str(ROOT), "PYTHONPATH": str(ROOT), "PATH": path}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write all files into one directory, so that each checker runs once."""
    place = tmp_path_factory.mktemp("authors")
    (place / "good.py").write_text(GOOD)
    for number, (before, after, _) in enumerate(FAULTS.values()):
        assert GOOD.count(before) == 1
        (place / f"fault_{number}.py").write_text(GOOD.replace(before, after))
    # What an author has: the strict mode, and a configuration of their own.
    (place / "pyrightconfig.json").write_text(
        json.dumps({"typeCheckingMode": "strict", "extraPaths": [str(ROOT)]})
    )
    return place


Shown = dict[str, set[int]]
"""The lines of errors, by file."""


@pytest.fixture(scope="module")
def mypy(place: Path) -> Shown:
    """Return what mypy shows."""
    files = sorted(path.name for path in place.glob("*.py"))
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--config-file=", "--no-error-summary", *files],
        cwd=place,
        env=_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode in {0, 1}, done.stderr
    shown: Shown = {}
    for name, line in re.findall(r"^([^:\n]+):(\d+): error: ", done.stdout, re.MULTILINE):
        shown.setdefault(Path(name).name, set()).add(int(line))
    return shown


@pytest.fixture(scope="module")
def pyright(place: Path) -> Shown:
    """Return what pyright shows."""
    done = subprocess.run(
        [sys.executable, "-m", "pyright", "--outputjson", "--pythonpath", sys.executable],
        cwd=place,
        env=_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode in {0, 1}, done.stderr
    shown: Shown = {}
    for each in json.loads(done.stdout)["generalDiagnostics"]:
        if each["severity"] == "error":
            line = each["range"]["start"]["line"] + 1
            shown.setdefault(Path(each["file"]).name, set()).add(line)
    return shown


def test_good_file_passes(mypy: Shown, pyright: Shown) -> None:
    """A backend, an observer and a harness as the documentation has them are clean in both."""
    assert mypy.get("good.py", set()) == set()
    assert pyright.get("good.py", set()) == set()


@pytest.mark.parametrize(
    ("checker", "fault"),
    [
        (checker, fault)
        for checker in ("mypy", "pyright")
        for fault in FAULTS
        if checker == "pyright" or fault not in PYRIGHT_ONLY
    ],
)
def test_fault_is_shown(
    place: Path, request: pytest.FixtureRequest, checker: str, fault: str
) -> None:
    """A fault is shown by either checker at its line."""
    shown: Shown = request.getfixturevalue(checker)
    name = f"fault_{list(FAULTS).index(fault)}.py"
    source = (place / name).read_text()
    assert _line(source, FAULTS[fault][2]) in shown.get(name, set())
