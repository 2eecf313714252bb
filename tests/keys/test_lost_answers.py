"""Saves whose outcome the caller is not told, or is told wrongly: nothing is lost or made twice."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from sentra_kms.errors import (
    AlreadyExists,
    Conflict,
    KMSError,
    PluginError,
    ServiceUnavailable,
    Throttled,
    Timeout,
)
from sentra_kms.runtime import KMS
from tests.keys.conftest import Site, Spy, version_in


class LosingStore(Spy):
    """Saves what it is given, and then says otherwise, as often as it is told to."""

    def __init__(self, kms: KMS, backend: str = "local") -> None:
        super().__init__(kms, backend, "save_ring")
        self.left = 0
        self.answer: KMSError = Conflict("the revision is not the expected one")
        self.after: Callable[[], object] | None = None
        self.instead = self._save

    def lose(self, answer: KMSError, times: int = 1) -> None:
        """Answer so instead, after each of the next saves."""
        self.answer, self.left = answer, times

    def _save(self, *arguments: Any) -> object:
        revision: object = self._original(*arguments)
        if self.left == 0:
            return revision
        self.left -= 1
        if self.after is not None:
            self.after()
        raise self.answer


@pytest.fixture
def kms(key_site: Site) -> KMS:
    """A KMS over real files with the tenant acme."""
    kms = key_site.open()
    kms.keys.create("acme")
    return kms


def versions(kms: KMS, tenant: str = "acme") -> list[int]:
    """Return the numbers of a tenant's versions, as they are stored."""
    return [version.version for version in kms.keys.describe(tenant).versions]


def check_all_open(site: Site, kms: KMS, messages: list[bytes], tenant: str = "acme") -> None:
    """Assert that every message opens here and elsewhere, and what is sealed now too."""
    elsewhere = site.open()
    for reader in (kms, elsewhere):
        assert reader.keys.decrypt_many(tenant, messages) == [b"x"] * len(messages)
    assert elsewhere.keys.decrypt(tenant, kms.keys.encrypt(tenant, b"y")) == b"y"
    assert kms.keys.decrypt(tenant, elsewhere.keys.encrypt(tenant, b"y")) == b"y"


# --- the save arrived, its answer did not -----------------------------------------------------

LOST = [
    ServiceUnavailable("the connection was reset"),
    Timeout("no answer within 5 s"),
    Throttled("slow down", retry_after=1.0),
    PluginError("the plugin broke after the call"),
]


@pytest.mark.parametrize("answer", LOST, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("request_id", [None, "r"])
def test_rotation_whose_answer_is_lost_fails_and_loses_nothing(
    key_site: Site, kms: KMS, answer: KMSError, request_id: str | None
) -> None:
    """Its version is in the ring and opens; this process writes under it once it reads the ring."""
    store = LosingStore(kms)
    messages = [kms.keys.encrypt("acme", b"x")]
    store.lose(answer)
    with pytest.raises(type(answer)):
        kms.keys.rotate("acme", request_id=request_id)
    assert versions(kms) == [1, 2]
    messages.append(kms.keys.encrypt("acme", b"x"))
    messages.append(key_site.open().keys.encrypt("acme", b"x"))
    assert [version_in(message) for message in messages] == [1, 1, 2]
    check_all_open(key_site, kms, messages)
    key_site.clock.advance(60)
    assert version_in(kms.keys.encrypt("acme", b"x")) == 2


@pytest.mark.parametrize("where", ["here", "elsewhere"])
def test_retry_with_the_request_id_finds_the_version_that_was_saved(
    key_site: Site, kms: KMS, where: str
) -> None:
    """However often the answer is lost and wherever it is asked again, one version is made."""
    store = LosingStore(kms)
    store.lose(ServiceUnavailable("reset"), times=3)
    with pytest.raises(ServiceUnavailable):
        kms.keys.rotate("acme", request_id="r")
    again = kms if where == "here" else key_site.open()
    for _ in range(3):
        info = again.keys.rotate("acme", request_id="r")
        assert (info.primary, info.versions[1].request) == (2, "r")
    assert versions(kms) == [1, 2]
    assert store.count == 1
    assert version_in(again.keys.encrypt("acme", b"x")) == 2


def test_retry_without_a_request_id_makes_another_version(key_site: Site, kms: KMS) -> None:
    """Nothing says that the two calls are one; both versions stay and open."""
    store = LosingStore(kms)
    store.lose(ServiceUnavailable("reset"))
    with pytest.raises(ServiceUnavailable):
        kms.keys.rotate("acme")
    between = key_site.open().keys.encrypt("acme", b"x")
    assert version_in(between) == 2
    assert kms.keys.rotate("acme").primary == 3
    check_all_open(key_site, kms, [between])


@pytest.mark.parametrize("answer", LOST, ids=lambda error: type(error).__name__)
def test_create_whose_answer_is_lost_can_be_asked_again_with_exist_ok(
    key_site: Site, kms: KMS, answer: KMSError
) -> None:
    """The ring is there, once; a second create says so and a third describes it."""
    store = LosingStore(kms)
    store.lose(answer)
    with pytest.raises(type(answer)):
        kms.keys.create("new")
    ring_id = key_site.open().keys.describe("new").ring_id
    with pytest.raises(AlreadyExists):
        kms.keys.create("new")
    info = kms.keys.create("new", exist_ok=True)
    assert (info.ring_id, info.sequence) == (ring_id, 1)
    check_all_open(key_site, kms, [kms.keys.encrypt("new", b"x")], "new")


def test_rewrap_whose_answer_is_lost_has_only_to_be_asked_again(key_site: Site, kms: KMS) -> None:
    """What was saved is current then, and is not saved again."""
    message = kms.keys.encrypt("acme", b"x")
    wider = key_site.open("local:m1", "spare:m2")
    store = LosingStore(wider)
    store.lose(ServiceUnavailable("reset"))
    with pytest.raises(ServiceUnavailable):
        wider.keys.rewrap("acme")
    before = key_site.document()
    assert [wrap.kek for wrap in wider.keys.rewrap("acme").versions[0].wraps] == [
        "local:m1",
        "spare:m2",
    ]
    assert key_site.document() == before
    assert store.count == 1
    assert wider.keys.decrypt("acme", message) == b"x"


def test_disk_that_fails_after_the_rename_is_a_lost_answer(
    key_site: Site, kms: KMS, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The directory could not be flushed: an error, the new ring in place, and a retry finds it."""
    real, flushed = os.fsync, []

    def fail_second(file: int) -> None:
        flushed.append(file)
        if len(flushed) == 2:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        real(file)

    message = kms.keys.encrypt("acme", b"x")
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", fail_second)
        with pytest.raises(ServiceUnavailable) as caught:
            kms.keys.rotate("acme", request_id="r")
    assert caught.value.retryable
    assert versions(kms) == [1, 2]
    assert kms.keys.rotate("acme", request_id="r").primary == 2
    assert versions(kms) == [1, 2]
    check_all_open(key_site, kms, [message])
    assert [path.name for path in key_site.directory.iterdir() if path.suffix == ".tmp"] == []


# --- a client below retried by itself, and met its own save -----------------------------------


@pytest.mark.parametrize("request_id", [None, "r"])
def test_conflict_with_its_own_save_makes_one_version(
    key_site: Site, kms: KMS, request_id: str | None
) -> None:
    """A rotation that finds its version in the ring is done, and has its key at hand."""
    message = kms.keys.encrypt("acme", b"x")
    store = LosingStore(kms)
    store.lose(Conflict("not the expected revision"))
    unwraps = Spy(kms, "local", "unwrap_key")
    info = kms.keys.rotate("acme", request_id=request_id)
    assert (info.primary, info.sequence, len(info.versions)) == (2, 2, 2)
    assert versions(kms) == [1, 2]
    assert store.count == 1
    sealed = kms.keys.encrypt("acme", b"x")
    assert version_in(sealed) == 2
    assert unwraps.count == 0
    check_all_open(key_site, kms, [message, sealed])


def test_own_save_is_found_under_those_that_others_made_since(key_site: Site, kms: KMS) -> None:
    """Its version is counted once; the primary is the newest, and its key is never mistaken."""
    store = LosingStore(kms)
    elsewhere = key_site.open()
    store.after = lambda: [elsewhere.keys.rotate("acme") for _ in range(2)]
    store.lose(Conflict("not the expected revision"))
    info = kms.keys.rotate("acme")
    assert (info.primary, len(info.versions)) == (4, 4)
    assert versions(kms) == [1, 2, 3, 4]
    message = kms.keys.encrypt("acme", b"x")
    assert version_in(message) == 4
    check_all_open(key_site, kms, [message])


def test_versions_of_others_are_not_taken_for_its_own(key_site: Site, kms: KMS) -> None:
    """A conflict that somebody else caused makes the rotation go on until its version is in."""
    store = LosingStore(kms)
    elsewhere = key_site.open()

    def overtake() -> None:
        if store.count <= 3:
            elsewhere.keys.rotate("acme")

    store.before = overtake
    info = kms.keys.rotate("acme")
    assert (info.primary, store.count) == (5, 4)
    message = kms.keys.encrypt("acme", b"x")
    assert version_in(message) == 5
    check_all_open(key_site, kms, [message])


@pytest.mark.parametrize("exist_ok", [False, True])
def test_create_that_conflicts_with_its_own_save_has_made_the_ring(
    key_site: Site,
    kms: KMS,
    exist_ok: bool,  # noqa: FBT001 - a case
) -> None:
    """The caller who made the tenant is told so, not that somebody else did."""
    store = LosingStore(kms)
    store.lose(Conflict("not the expected revision"))
    unwraps = Spy(kms, "local", "unwrap_key")
    info = kms.keys.create("new", exist_ok=exist_ok)
    assert (info.sequence, info.primary) == (1, 1)
    assert key_site.open().keys.describe("new") == info
    message = kms.keys.encrypt("new", b"x")
    assert unwraps.count == 0
    check_all_open(key_site, kms, [message], "new")


def test_created_ring_that_others_rotated_since_is_used_as_it_is_now(
    key_site: Site, kms: KMS
) -> None:
    """The key of version 1 is not taken for that of the version that is primary by then."""
    store = LosingStore(kms)
    store.after = lambda: key_site.open().keys.rotate("new")
    store.lose(Conflict("not the expected revision"))
    assert kms.keys.create("new").primary == 2
    message = kms.keys.encrypt("new", b"x")
    assert version_in(message) == 2
    check_all_open(key_site, kms, [message], "new")


@pytest.mark.parametrize("exist_ok", [False, True])
def test_create_that_lost_to_a_ring_that_is_gone_again_is_worth_a_retry(
    key_site: Site,
    kms: KMS,
    exist_ok: bool,  # noqa: FBT001 - a case
) -> None:
    """It is told of the conflict, and not to create the tenant that it should create."""
    saves = Spy(kms, "local", "save_ring")
    saves.failure = Conflict("somebody else was first")
    with pytest.raises(Conflict) as caught:
        kms.keys.create("new", exist_ok=exist_ok)
    assert caught.value.retryable
    saves.failure = None
    assert kms.keys.create("new", exist_ok=exist_ok).primary == 1


def test_shredding_that_conflicts_with_its_own_save_names_what_was_erased(
    key_site: Site, kms: KMS
) -> None:
    """The receipt is of the ring as it was last with its wraps, not of what the retry finds."""
    (wrap,) = kms.keys.describe("acme").versions[0].wraps
    LosingStore(kms).lose(Conflict("the revision is not the expected one"))
    done = kms.keys.shred("acme", confirm="acme")
    receipt = kms.keys.verify_receipt(done.receipt)
    assert [each.key_id for each in receipt.versions[0].wraps] == [wrap.key_id]
    assert any(wrap.key_id in each.where for each in done.destroyed.remains)


def test_destruction_that_conflicts_with_its_own_save_is_reported(key_site: Site, kms: KMS) -> None:
    """What the first attempt destroyed is told, though the retry finds nothing due."""
    kms.keys.rotate("acme")
    kms.keys.schedule_destroy("acme", 1, after=timedelta(0))
    kms.keys._clock = lambda: time.time() + 10
    LosingStore(kms).lose(Conflict("the revision is not the expected one"))
    (done,) = kms.keys.destroy_due().destroyed
    assert (done.tenant, done.versions) == ("acme", (1,))
    assert any("backups" in each.where for each in done.remains)


@pytest.mark.parametrize("answer", LOST, ids=lambda error: type(error).__name__)
def test_shredding_whose_answer_is_lost_has_its_receipt(
    key_site: Site, kms: KMS, answer: KMSError
) -> None:
    """The keys are gone, and a second one could not name any more what had wrapped them."""
    (wrap,) = kms.keys.describe("acme").versions[0].wraps
    LosingStore(kms).lose(answer)
    done = kms.keys.shred("acme", confirm="acme")
    receipt = kms.keys.verify_receipt(done.receipt)
    assert [each.key_id for each in receipt.versions[0].wraps] == [wrap.key_id]
    assert receipt.sequence == key_site.open().keys.describe("acme").sequence


def test_destruction_whose_answer_is_lost_is_reported(kms: KMS) -> None:
    """It is no failure, and the next run would have nothing to tell."""
    kms.keys.rotate("acme")
    kms.keys.schedule_destroy("acme", 1, after=timedelta(0))
    kms.keys._clock = lambda: time.time() + 10
    LosingStore(kms).lose(ServiceUnavailable("reset"))
    report = kms.keys.destroy_due()
    assert [each.versions for each in report.destroyed] == [(1,)]
    assert report.failed == {}


def test_shredding_that_never_reached_the_store_fails(kms: KMS) -> None:
    """Nothing is told to be gone that is not, whether the ring can be looked at or not."""
    saves, loads = Spy(kms, "local", "save_ring"), Spy(kms, "local", "load_ring")
    saves.failure = Timeout("no answer within 5 s")
    with pytest.raises(Timeout):
        kms.keys.shred("acme", confirm="acme")
    saves.before = lambda: setattr(loads, "failure", ServiceUnavailable("down"))
    with pytest.raises(Timeout):
        kms.keys.shred("acme", confirm="acme")
    saves.failure = saves.before = loads.failure = None
    assert [each.state for each in kms.keys.describe("acme").versions] == ["enabled"]


def test_destruction_that_was_overtaken_by_a_cancel_destroys_nothing(
    key_site: Site, kms: KMS
) -> None:
    """Nor does it say that it did."""
    kms.keys.rotate("acme")
    kms.keys.schedule_destroy("acme", 1, after=timedelta(0))
    kms.keys._clock = lambda: time.time() + 10
    other = key_site.open()
    saves = Spy(kms, "local", "save_ring")
    saves.before = lambda: other.keys.cancel_destroy("acme", 1)
    assert kms.keys.destroy_due().destroyed == ()
    assert kms.keys.describe("acme").versions[0].state == "disabled"


# --- races lost many times --------------------------------------------------------------------


def test_rotation_that_loses_many_times_makes_its_version(key_site: Site, kms: KMS) -> None:
    """A dozen others are faster; in the end each of the thirteen has its version."""
    saves = Spy(kms, "local", "save_ring")
    elsewhere = key_site.open()

    def overtake() -> None:
        if saves.count <= 12:
            elsewhere.keys.rotate("acme")

    saves.before = overtake
    assert kms.keys.rotate("acme", request_id="late").primary == 14
    info = kms.keys.describe("acme")
    assert [version.request for version in info.versions] == [*[None] * 13, "late"]
    assert saves.count == 13
    check_all_open(key_site, kms, [kms.keys.encrypt("acme", b"x")])


def test_rewrap_that_loses_many_times_covers_what_was_made_meanwhile(
    key_site: Site, kms: KMS
) -> None:
    """Every version that a faster rotation added is under the new KEK in the end, and opens."""
    messages = [kms.keys.encrypt("acme", b"x")]
    auth = ("local:m1",)
    new = key_site.open("local:m2", unwrap_with=("local:m1",), authenticate_with=auth)
    saves = Spy(new, "local", "save_ring")

    def overtake() -> None:
        if saves.count <= 6:
            kms.keys.rotate("acme")
            messages.append(kms.keys.encrypt("acme", b"x"))

    saves.before = overtake
    info = new.keys.rewrap("acme")
    assert len(info.versions) == 7
    assert {wrap.kek for version in info.versions for wrap in version.wraps} == {"local:m2"}
    alone = key_site.open("local:m2", authenticate_with=auth)
    assert alone.keys.decrypt_many("acme", messages) == [b"x"] * 7
