"""The example application and its worker, as a client and an operator meet them."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

import httpx
import pytest

import sentra_kms
from sentra_kms.errors import ServiceUnavailable
from tests.keys.conftest import Spy, version_in

EXAMPLES = Path(__file__).parent.parent / "examples"
TOKENS = {
    "ann-token": {"name": "ann", "tenant": "acme"},
    "bob-token": {"name": "bob", "tenant": "globex"},
    "root-token": {"name": "root", "super_admin": True},
}
CONFIG = """
default_environment = "production"
[production.backends.local]
type = "local"
directory = "keys"
master_keys = { m1 = "file://HOME/master" }
[production.keys]
wrap_with = ["local:m1"]
store = "local"
"""
_T = TypeVar("_T")


class Site:
    """The application in this process, its database and its configuration."""

    def __init__(self, home: Path) -> None:
        from notes_app import Site as AppSite
        from notes_app import User, create_app
        from notes_store import Notes

        self.home = home
        master = home / "master"
        master.touch(0o600)
        master.write_text("bWFkZSB1cCBtYXN0ZXIga2V5IG9mIDMyIGJ5dGVzISE=")
        (home / "sentra-kms.toml").write_text(CONFIG.replace("HOME", str(home)))
        self.kms = sentra_kms.load(home / "sentra-kms.toml")
        self.notes = Notes(home / "notes.db")
        self.users = {
            hashlib.sha256(token.encode()).hexdigest(): User.model_validate(fields)
            for token, fields in TOKENS.items()
        }
        self.app = create_app(AppSite(self.kms, self.notes, self.users))

    def ask(
        self, method: str, path: str, who: str | None, body: Any = None, **headers: str
    ) -> httpx.Response:
        """One request, as a browser sends it."""
        if who is not None:
            headers["Authorization"] = f"Bearer {who}-token"
        return _run(self._ask(method, f"/api/v1/tenants/{path}", body, headers))

    async def _ask(
        self, method: str, path: str, body: Any, headers: dict[str, str]
    ) -> httpx.Response:
        transport = httpx.ASGITransport(app=self.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://notes") as client:
            return await client.request(method, path, json=body, headers=headers)

    def work(self, *tenants: str) -> subprocess.CompletedProcess[str]:
        """Run the worker as a process of its own."""
        return subprocess.run(
            [sys.executable, str(EXAMPLES / "notes_worker.py"), *tenants],
            capture_output=True,
            text=True,
            env={
                **os.environ,
                "SENTRA_KMS_CONFIG": str(self.home / "sentra-kms.toml"),
                "NOTES_DATABASE": str(self.home / "notes.db"),
                "PYTHONPATH": str(EXAMPLES.parent),
            },
            timeout=60,
            check=False,
        )


def _run(work: Coroutine[Any, Any, _T]) -> _T:
    return asyncio.run(work)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """The application with the tenants acme and globex."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    site = Site(tmp_path)
    for tenant in ("acme", "globex"):
        assert site.ask("PUT", tenant, "root").status_code == 204
    yield site
    site.kms.close()


def test_notes_come_back_and_are_not_in_the_database(site: Site) -> None:
    """What a user wrote the user reads; the file of the database has no word of it."""
    assert site.ask("PUT", "acme/notes/1", "ann", {"text": "the secret é"}).status_code == 204
    found = site.ask("GET", "acme/notes/1", "ann")
    assert (found.status_code, found.json()) == (200, {"text": "the secret é"})
    assert b"the secret" not in (site.home / "notes.db").read_bytes()


@pytest.mark.parametrize(
    ("who", "status"), [(None, 401), ("nobody", 401), ("bob", 403), ("root", 403)]
)
def test_notes_are_for_the_tenant_alone(site: Site, who: str | None, status: int) -> None:
    """Neither another tenant's user nor a super admin reads them."""
    site.ask("PUT", "acme/notes/1", "ann", {"text": "secret"})
    for method, body in (("GET", None), ("PUT", {"text": "x"})):
        found = site.ask(method, "acme/notes/1", who, body)
        assert found.status_code == status
        assert "secret" not in found.text
    assert site.ask("GET", "acme/notes/1", "ann").json() == {"text": "secret"}


def test_a_row_that_was_moved_does_not_open(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    """Whoever writes the database cannot pass one note, or one tenant's, off as another's."""
    site.ask("PUT", "acme/notes/1", "ann", {"text": "one"})
    message = site.notes.get("acme", "1")
    assert message is not None
    site.notes.put("acme", "2", message)
    site.notes.put("globex", "1", message)
    for path, who in (("acme/notes/2", "ann"), ("globex/notes/1", "bob")):
        found = site.ask("GET", path, who)
        assert (found.status_code, found.json()) == (500, {"error": "DecryptionFailed"})
    assert "DecryptionFailed" in caplog.text


@pytest.mark.parametrize(("who", "status"), [(None, 401), ("ann", 403), ("bob", 403)])
def test_only_super_admins_rotate(site: Site, who: str | None, status: int) -> None:
    """Nor does anybody else make tenants."""
    assert site.ask("POST", "acme/rotate-key", who).status_code == status
    assert site.ask("PUT", "new", who).status_code == status
    assert site.kms.keys.describe("acme").primary == 1


def test_a_rotation_that_is_retried_makes_one_version(site: Site) -> None:
    """By its idempotency key; another one makes another."""
    for _ in range(2):
        found = site.ask("POST", "acme/rotate-key", "root", **{"Idempotency-Key": "r-1"})
        assert found.json() == {"tenant": "acme", "version": 2}
    found = site.ask("POST", "acme/rotate-key", "root", **{"Idempotency-Key": "r-2"})
    assert found.json()["version"] == 3


def test_errors_have_a_status_and_no_detail(site: Site) -> None:
    """What is not there, what is not a name, and what is out of reach for now."""
    assert site.ask("GET", "acme/notes/none", "ann").status_code == 404
    found = site.ask("POST", "nobody/rotate-key", "root")
    assert (found.status_code, found.json()) == (404, {"error": "TenantNotFound"})
    assert site.ask("PUT", ".hidden", "root").status_code == 400
    saves = Spy(site.kms, "local", "save_ring")
    saves.failure = ServiceUnavailable("the disk is full")
    found = site.ask("POST", "acme/rotate-key", "root")
    assert (found.status_code, found.json()) == (503, {"error": "ServiceUnavailable"})
    assert found.headers["Retry-After"] == "5"


def test_the_worker_renews_what_is_stale(site: Site) -> None:
    """After a rotation every note of the tenant is under the new version; others are untouched."""
    for number in range(120):
        site.notes.put("acme", f"{number:03}", _sealed(site, "acme", f"{number:03}"))
    site.notes.put("globex", "1", _sealed(site, "globex", "1"))
    untouched = site.notes.get("globex", "1")
    site.ask("POST", "acme/rotate-key", "root")
    site.ask("PUT", "acme/notes/new", "ann", {"text": "new"})
    done = site.work()
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "acme: 120 notes encrypted anew\nglobex: 0 notes encrypted anew\n"
    for name in ("000", "119", "new"):
        message = site.notes.get("acme", name)
        assert message is not None
        assert version_in(message) == 2
    assert site.ask("GET", "acme/notes/119", "ann").json() == {"text": "note 119"}
    assert site.notes.get("globex", "1") == untouched
    assert site.work("acme").stdout == "acme: 0 notes encrypted anew\n"


def test_the_worker_writes_over_nobody(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A note that is written while it is renewed keeps what was written."""
    import notes_worker

    site.ask("PUT", "acme/notes/1", "ann", {"text": "old"})
    site.kms.keys.rotate("acme")
    exchange = site.notes.exchange

    def late(tenant: str, note: str, old: bytes, new: bytes) -> bool:
        site.ask("PUT", "acme/notes/1", "ann", {"text": "written meanwhile"})
        return exchange(tenant, note, old, new)

    monkeypatch.setattr(site.notes, "exchange", late)
    assert notes_worker.renew(site.kms, site.notes, "acme") == 0
    assert site.ask("GET", "acme/notes/1", "ann").json() == {"text": "written meanwhile"}


def test_the_worker_tells_what_failed(site: Site) -> None:
    """A tenant that is not there does not keep it from the next; the exit code tells."""
    done = site.work("nobody", "acme")
    assert done.returncode == 1
    assert done.stdout == "acme: 0 notes encrypted anew\n"
    assert done.stderr.startswith("nobody: ")


def test_the_application_is_made_from_the_environment(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a server makes it, from files that variables name."""
    import notes_app

    tokens = site.home / "tokens.json"
    tokens.write_text(json.dumps({d: user.model_dump() for d, user in site.users.items()}))
    monkeypatch.setenv("SENTRA_KMS_CONFIG", str(site.home / "sentra-kms.toml"))
    monkeypatch.setenv("NOTES_DATABASE", str(site.home / "notes.db"))
    monkeypatch.setenv("NOTES_TOKENS", str(tokens))
    site.ask("PUT", "acme/notes/1", "ann", {"text": "kept"})
    site.app = notes_app.from_environment()
    assert site.ask("GET", "acme/notes/1", "ann").json() == {"text": "kept"}


def _sealed(site: Site, tenant: str, note: str) -> bytes:
    from notes_store import place

    return site.kms.keys.encrypt(tenant, f"note {note}".encode(), place(tenant, note))
