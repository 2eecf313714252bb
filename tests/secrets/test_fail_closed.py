"""Lists of references: only *not found* goes on to the next, whatever else the first one is."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import sentra_kms
from sentra_kms.doctor import diagnose
from sentra_kms.errors import (
    AccessDenied,
    AuthenticationFailed,
    ConfigurationError,
    KeyNotFound,
    KMSError,
    MalformedInput,
    PluginError,
    SecretNotFound,
    ServiceUnavailable,
    TenantNotFound,
    Throttled,
    Timeout,
    UnsupportedOperation,
)
from sentra_kms.hookspecs import BatchSecretHooks, hookimpl
from sentra_kms.hooktypes import SecretRequest, SecretValue
from sentra_kms.material import KeyMaterial
from sentra_kms.reference import Reference
from sentra_kms.secrets import documents
from sentra_kms.secrets.manager import SecretManager
from tests.backends.hosts import in_unprivileged_child, open_directory
from tests.binding.fakes import Secrets, bind
from tests.conftest import ManualClock
from tests.secrets.sources import PATIENCE, Source, make_manager

OLD = "planted-old-value"
FAILURES: list[KMSError] = [
    AccessDenied("no"),
    AuthenticationFailed("who are you?"),
    ConfigurationError("the backend is not set up"),
    KeyNotFound("a key of the source's own is gone"),
    MalformedInput("not a secret"),
    PluginError("a fault of the plugin"),
    ServiceUnavailable("down"),
    TenantNotFound("odd"),
    Throttled("slower", retry_after=5),
    Timeout("slow"),
    UnsupportedOperation("cannot"),
    SecretNotFound("the source's own password is not there", backend="other"),
]
VALUES: list[Callable[[], Any]] = [
    lambda: b"",
    lambda: b"x" * (1024 * 1024 + 1),
    lambda: SecretValue("text"),  # type: ignore[arg-type]
    lambda: SecretValue(KeyMaterial(b"x"), expires="soon"),  # type: ignore[arg-type]
    lambda: SecretValue(None),  # type: ignore[arg-type]
    lambda: 1 / 0,
]


def ways(made: SecretManager) -> list[Callable[[], object]]:
    """Return every way to ask for the secret A."""
    return [
        lambda: made.get("A"),
        lambda: made.get_many(["A"]),
        lambda: made.get_many(["A", "B", "fake://old"]),
        lambda: made.get_many(["B", "A"]),
        lambda: made.refresh("A"),
        lambda: made.created("A"),
        lambda: made.watch("A", lambda _: None),
        lambda: made.environ()["A"],
    ]


@pytest.mark.parametrize("failure", FAILURES, ids=lambda each: type(each).__name__)
@pytest.mark.parametrize("batched", [False, True])
def test_failure_ends_the_list(failure: KMSError, batched: bool, clock: ManualClock) -> None:  # noqa: FBT001
    """An error of the first is an error of the secret, and the next one's value is never used."""
    source = Source(first=failure, old=OLD.encode(), b=b"b")
    if batched:
        source.binding = bind(lambda: Batched(source))
    made = make_manager(source, clock, A={"from": ["fake://first", "fake://old"]}, B="fake://b")
    kind = type(failure) if failure.backend is None else AuthenticationFailed
    for way in ways(made):
        with pytest.raises(kind):
            way()
        assert made.held("A") is None
        clock.advance(documents.MAX_PAUSE)
    made.close()


class Batched(Secrets, BatchSecretHooks):
    """Answers several requests in one call, as the source does one."""

    def __init__(self, source: Source) -> None:
        super().__init__(source._answer)
        self._source = source

    @hookimpl
    def fetch_secrets(
        self, requests: tuple[SecretRequest, ...], timeout: float
    ) -> list[SecretValue | KMSError]:
        """Answer each."""
        ends: list[SecretValue | KMSError] = []
        for request in requests:
            try:
                ends.append(self._source._answer("fetch_secret", {"request": request}))
            except KMSError as error:
                ends.append(error)
        return ends


@pytest.mark.parametrize("value", VALUES, ids=range(len(VALUES)))
def test_useless_value_ends_the_list(value: Callable[[], Any], clock: ManualClock) -> None:
    """So does a value that is empty, too large, no record or no answer at all."""
    source = Source(first=value, old=OLD.encode(), b=b"b")
    made = make_manager(source, clock, A={"from": ["fake://first", "fake://old"]}, B="fake://b")
    for way in ways(made):
        with pytest.raises((MalformedInput, PluginError)):
            way()
    made.close()


@pytest.mark.parametrize(
    "document", [b"no json", b'["a"]', b'{"f":""}', b'{"f":"x"', b'{"f":"\\ud800"}', b"\xff"]
)
def test_document_that_is_malformed_ends_the_list(document: bytes, clock: ManualClock) -> None:
    """A field is not found only in a document in which it could be."""
    source = Source(first=document, old=OLD.encode())
    made = make_manager(source, clock, A={"from": ["fake://first#f", "fake://old"]})
    if document == b'["a"]':  # an array has items, and this is none of them
        assert made.get("A").reveal() == OLD
        return
    with pytest.raises(MalformedInput):
        made.get("A")


@pytest.mark.parametrize("failure", [ServiceUnavailable("x"), AccessDenied("x"), Throttled("x")])
def test_first_that_fails_later(failure: KMSError, clock: ManualClock) -> None:
    """Nor is the next one used when the first was there and fails now, at any time after."""
    source = Source(first=b"first", old=OLD.encode())
    made = make_manager(source, clock, A={"from": ["fake://first", "fake://old"]})
    assert made.get("A").reveal() == "first"
    source.answers["first"] = failure
    for _ in range(80):
        clock.advance(120)
        try:
            assert made.get("A").reveal() == "first"
        except KMSError as error:
            assert type(error) is type(failure)
    assert source.asked.count("fake://old") == 0


@pytest.mark.parametrize("failure", [ServiceUnavailable("x"), AccessDenied("x"), Timeout("x")])
def test_first_that_was_not_there_and_fails_now(failure: KMSError, clock: ManualClock) -> None:
    """The next one's value ends with the look that says so; what is held is coasted on at most."""
    source = Source(old=OLD.encode())
    made = make_manager(source, clock, A={"from": ["fake://first", "fake://old"]})
    assert made.get("A").reveal() == OLD
    source.answers["first"] = failure
    clock.advance(documents.NEGATIVE_TTL + 0.1)
    with pytest.raises(type(failure)):
        made.get("A")
    del source.answers["first"]
    assert made.get("A").reveal() == OLD


def test_timeout_of_a_first_that_is_slow(clock: ManualClock) -> None:
    """Threads that wait for the first one's end get its error, none of them the next value."""
    go, asked = threading.Event(), threading.Event()

    def slow() -> bytes:
        asked.set()
        go.wait(PATIENCE)
        raise Timeout("slow")

    source = Source(first=slow, old=OLD.encode())
    made = make_manager(source, clock, A={"from": ["fake://first", "fake://old"]})
    told: list[str] = []

    def work() -> None:
        try:
            told.append(made.get("A").reveal())
        except KMSError as error:
            told.append(type(error).__name__)

    threads = [threading.Thread(target=work) for _ in range(20)]
    for thread in threads:
        thread.start()
    assert asked.wait(PATIENCE)
    go.set()
    for thread in threads:
        thread.join(PATIENCE)
    assert told == ["Timeout"] * 20


# --- real files, as a user for whom permissions count --------------------------------------------


def unreadable(place: Path) -> None:
    """A file that this user may not read."""
    (place / "first").write_text("first")
    (place / "first").chmod(0o000)


def closed_directory(place: Path) -> None:
    """A directory that this user may not enter: whether the file is there cannot be known."""
    place.chmod(0o600)


def folder(place: Path) -> None:
    """A directory where the file should be."""
    (place / "first").mkdir()


def pipe(place: Path) -> None:
    """A pipe that nobody writes to."""
    os.mkfifo(place / "first")


def listening(place: Path) -> None:
    """A socket."""
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(place / "first"))


def circle(place: Path) -> None:
    """A link to itself."""
    (place / "first").symlink_to("first")


def way_out(place: Path) -> None:
    """A link that leads out."""
    (place / "first").symlink_to("/etc/hostname")


def empty(place: Path) -> None:
    """An empty file, as one that is being written."""
    (place / "first").touch()


def huge(place: Path) -> None:
    """A file that is no secret."""
    (place / "first").touch()
    os.truncate(place / "first", 1 << 40)


TROUBLES = [
    unreadable, closed_directory, folder, pipe, listening, circle, way_out, empty, huge,
]  # fmt: skip


@pytest.mark.parametrize("trouble", TROUBLES, ids=lambda each: each.__name__)
def test_files(trouble: Callable[[Path], None]) -> None:
    """What keeps a file from being read ends the list, for `get` and in the doctor's eyes."""

    def work() -> str:
        place = Path("place")
        place.mkdir(0o700)
        old = Path("old")
        old.touch(0o600)
        old.write_text(OLD)
        trouble(place)
        table = {
            "production": {
                "backends": {"app": {"type": "file", "directory": str(place.absolute())}},
                "secrets": {"A": {"from": ["app://first", f"file://{old.absolute()}"]}},
            }
        }
        with sentra_kms.load(table, "production") as kms:
            for ask in (kms.secrets.get, kms.secrets.refresh):
                with pytest.raises((AccessDenied, MalformedInput)):
                    ask("A")
            with pytest.raises((AccessDenied, MalformedInput)):
                kms.secrets.get_many(["A", f"file://{old.absolute()}"])
        found = diagnose(table, "production").findings
        place.chmod(0o700)
        place.rename("away")
        place.mkdir()
        with sentra_kms.load(table, "production") as kms:
            assert kms.secrets.get("A").reveal() == OLD  # that is: only this is *not found*
        return ",".join(sorted({each.level for each in found if each.subject == "A"}))

    with open_directory() as home:
        home.chmod(0o777)
        before = os.getcwd()
        os.chdir(home)
        try:
            assert in_unprivileged_child(work) == "error"
        finally:
            os.chdir(before)


@pytest.mark.parametrize("field", ["", "#password", "#/db/password", "#user"])
def test_credential_that_is_not_there(tmp_path: Path, field: str) -> None:
    """A backend that cannot log in has said nothing of the secret, also if its own is not found.

    Nor has it if what holds its credential is there, and the field in it is not, or is null.
    """
    old = tmp_path / "old"
    old.touch(0o600)
    old.write_text(OLD)

    kms = sentra_kms.load(
        {
            "test": {
                "development": True,
                "backends": {"app": {"type": "file", "directory": str(tmp_path)}},
                "secrets": {"A": {"from": ["app://first", f"file://{old}"]}},
            }
        },
        "test",
    )
    wiring = kms._wiring
    login = Reference(f"file://{tmp_path}/password{field}")
    if field:
        document = tmp_path / "password"
        document.touch(0o600)
        document.write_text('{"user": null, "db": {}}')
    # It lets the error of its own credential's source escape.
    wiring.bindings["app"] = bind(lambda: Secrets(lambda *_: wiring.secret(login)), name="app")
    with kms, pytest.raises(AuthenticationFailed, match="password") as caught:
        kms.secrets.get("A")
    assert (caught.value.backend, caught.value.subject) == ("app", "app://first")
