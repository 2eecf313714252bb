"""What happens to rings when answers are lost, servers die, and operators reach in."""

from __future__ import annotations

import base64
import json
import os
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest

from sentra_kms import (
    AccessDenied,
    ConfigurationError,
    Conflict,
    KMSError,
    MalformedInput,
    RingRejected,
    ServiceUnavailable,
    TenantNotFound,
)
from sentra_kms.hooktypes import Finding
from sentra_kms.testing import Bench
from sentra_kms.testing.base import together
from sentra_kms.testing.faults import CutAfterRequest, Fault, Garbage, Reset
from sentra_kms.testing.proxy import FaultProxy
from tests.servers.vault_server import KeptVault, Vault

pytestmark = pytest.mark.server

MOUNT = "secret"
LOST = CutAfterRequest()


class StepProxy(FaultProxy):
    """A proxy that asks, at each exchange of a `during` block, what is to happen to it."""

    _at: Callable[[int], Fault | None] | None = None
    _step = 0

    @contextmanager
    def during(self, at: Callable[[int], Fault | None]) -> Iterator[None]:
        """Ask `at` for each exchange's fault, by its number from 0."""
        self._step, self._at = 0, at
        yield
        self._at = None

    def begin(self) -> tuple[int, Fault | None]:
        """Begin an exchange."""
        number, fault = super().begin()
        if self._at is not None:
            fault = self._at(self._step)
            self._step += 1
        return number, fault


class Site:
    """A backend with rings below a prefix of its own, through a proxy and beside it."""

    def __init__(self, server: Vault, mount: str = MOUNT) -> None:
        self.server = server
        self.mount = mount
        self.prefix = f"site-{uuid.uuid4()}"
        self.proxy = StepProxy("127.0.0.1", server.port)
        self.bench = Bench("vault", self.table(self.proxy.url))
        self.rings = self.bench.binding

    def table(self, address: str) -> dict[str, object]:
        """The backend's table."""
        return {
            "type": "vault",
            "address": address,
            "auth": {"method": "token", "token": "env://SITE_TOKEN"},
            "rings": {"mount": self.mount, "prefix": self.prefix},
            "timeout": "60s",  # so that a busy machine is no fault
        }

    def beside(self) -> Bench:
        """Another process's backend, without the proxy."""
        return Bench("vault", self.table(self.server.address))

    def path(self, kind: str, tenant: str) -> str:
        """Return a path of the API."""
        return f"{self.mount}/{kind}/{self.prefix}/{tenant}"

    def fields(self, tenant: str) -> dict[str, object]:
        """Return what the newest version holds."""
        found: dict[str, object] = self.server.read(self.path("data", tenant))["data"]["data"]
        return found

    def put(self, tenant: str, **fields: object) -> None:
        """Write as somebody else does."""
        self.server.write(self.path("data", tenant), data=fields)

    def newest(self, tenant: str) -> int:
        """Return the number of the newest version."""
        found: int = self.server.read(self.path("metadata", tenant))["data"]["current_version"]
        return found

    def listed(self) -> list[str]:
        """Return all tenants in one page."""
        return list(self.rings.list_rings(None, 1000).tenants)

    def found(self, bench: Bench | None = None) -> list[Finding]:
        """Return what the rings' part found, among all that the backend's parts did."""
        return [
            each
            for each in (bench or self.bench).binding.check()
            if f"{each.subject}/".startswith(f"{self.mount}/")
        ]

    def close(self) -> None:
        """Close what is open."""
        self.bench.close()
        self.proxy.close()


@pytest.fixture
def site(vault: Vault, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """Return a site whose mount has been looked at."""
    monkeypatch.setenv("SITE_TOKEN", vault.token)
    site = Site(vault)
    assert site.listed() == []
    yield site
    site.close()


def message_of(kind: type[KMSError], call: Callable[[], object]) -> str:
    """Return the message of the error that a call ends with."""
    with pytest.raises(kind) as caught:
        call()
    return caught.value.message


# Lost answers


@pytest.mark.parametrize(
    ("fault", "times"), [(LOST, 1), (Reset(), 1), (Garbage(), 1), (LOST, 3)], ids=str
)
@pytest.mark.parametrize("step", range(3))
def test_a_trouble_at_any_step_changes_nothing(
    site: Site, step: int, fault: Fault, times: int
) -> None:
    """Whichever request of an operation is cut short, it ends as if it had not been.

    The answers are the ones that were lost: nobody is told of a conflict with himself.
    """
    rings = site.rings

    def troubled(operation: Callable[[], object]) -> object:
        with site.proxy.during(lambda number: fault if step <= number < step + times else None):
            return operation()

    assert troubled(lambda: rings.save_ring("acme", b"one", None)) == "1"
    assert troubled(lambda: rings.save_ring("acme", b"two", "1")) == "2"
    assert troubled(lambda: rings.load_ring("acme").document) == b"two"
    assert troubled(lambda: rings.delete_ring("acme", "2")) is None
    assert troubled(site.listed) == []
    assert troubled(lambda: rings.save_ring("acme", b"four", None)) == "4"
    assert troubled(site.listed) == ["acme"]
    assert troubled(lambda: rings.purge_ring_history("acme"))
    assert site.newest("acme") == 4
    assert rings.load_ring("acme").document == b"four"


def test_the_same_save_of_two_is_one_s(site: Site) -> None:
    """Two save the same bytes: who did not get an answer is told that the other was first."""
    site.rings.save_ring("acme", b"one", None)
    other = site.beside()
    assert other.binding.save_ring("acme", b"two", "1") == "2"
    site.proxy.script(Reset())
    with pytest.raises(Conflict):
        site.rings.save_ring("acme", b"two", "1")
    other.close()


def test_the_same_delete_of_two_is_one_s(site: Site) -> None:
    """So it is of two deletes: the second finds no ring, at whatever step the first came by."""
    site.rings.save_ring("acme", b"one", None)
    other = site.beside()
    site.proxy.script(None, Reset())
    other.binding.delete_ring("acme", "1")
    with pytest.raises(TenantNotFound):
        site.rings.delete_ring("acme", "1")
    assert site.newest("acme") == 2
    other.close()


def test_a_lost_answer_that_cannot_be_found_again(site: Site) -> None:
    """Where the version in question is gone it is not known whose it was: never a conflict."""
    site.rings.save_ring("acme", b"one", None)
    other = site.beside()
    other.binding.save_ring("acme", b"two", "1")
    other.binding.save_ring("acme", b"three", "2")
    other.binding.purge_ring_history("acme")
    site.proxy.script(Reset())
    told = message_of(ServiceUnavailable, lambda: site.rings.save_ring("acme", b"2", "1"))
    assert "is not known" in told
    with pytest.raises(Conflict):
        site.rings.save_ring("acme", b"2", "1")
    other.close()


def test_killed_between_marker_and_tombstone(site: Site) -> None:
    """A delete that got no further than its marker did nothing: the ring lives and is listed."""
    revision = site.rings.save_ring("acme", b"one", None)
    site.proxy.script(None, None, *[Reset()] * 4)
    with pytest.raises(ServiceUnavailable):
        site.rings.delete_ring("acme", revision)
    assert site.server.list(f"{MOUNT}/metadata/{site.prefix}/.deleted") == ["acme"]
    assert site.rings.load_ring("acme").revision == revision
    assert site.listed() == ["acme"]
    site.rings.delete_ring("acme", revision)
    assert site.listed() == []


def test_killed_after_the_tombstone(site: Site) -> None:
    """A delete whose every answer was lost is done, and says that it cannot know."""
    revision = site.rings.save_ring("acme", b"one", None)
    site.proxy.script(None, None, *[LOST] * 4)
    with pytest.raises(ServiceUnavailable):
        site.rings.delete_ring("acme", revision)
    with pytest.raises(TenantNotFound):
        site.rings.load_ring("acme")
    with pytest.raises(TenantNotFound):
        site.rings.delete_ring("acme", revision)
    assert site.listed() == []


def test_delete_against_save(site: Site) -> None:
    """A save that comes between a delete's look and its tombstone wins; the ring is listed."""
    site.rings.save_ring("acme", b"one", None)
    other = site.beside()

    def at(step: int) -> None:
        if step == 2:
            other.binding.save_ring("acme", b"two", "1")

    with site.proxy.during(at), pytest.raises(Conflict):
        site.rings.delete_ring("acme", "1")
    assert site.rings.load_ring("acme").document == b"two"
    assert site.listed() == ["acme"]
    other.close()


def test_many_create_over_a_tombstone(site: Site) -> None:
    """Of 8 that create over one tombstone at once one does, and the others are told so."""
    for _ in range(5):
        revision = site.rings.save_ring("acme", b"before", None)
        site.rings.delete_ring("acme", revision)
        ends = together(8, lambda number: site.rings.save_ring("acme", b"%d" % number, None))
        winners = [number for number, end in enumerate(ends) if isinstance(end, str)]
        assert len(winners) == 1
        assert {type(end) for end in ends if not isinstance(end, str)} == {Conflict}
        found = site.rings.load_ring("acme")
        assert (found.document, found.revision) == (b"%d" % winners[0], ends[winners[0]])
        site.rings.delete_ring("acme", found.revision)


def test_revisions_never_come_again(site: Site) -> None:
    """Whatever a tenant goes through, a revision of before is good for nothing."""
    seen: list[str] = []
    for _ in range(3):
        seen.append(site.rings.save_ring("acme", b"one", None))
        seen.append(site.rings.save_ring("acme", b"two", seen[-1]))
        site.rings.delete_ring("acme", seen[-1])
        site.rings.purge_ring_history("acme")
    last = site.rings.save_ring("acme", b"three", None)
    assert len({*seen, last}) == 7
    for revision in (*seen, "0", "-1", "01", "1.0", "x", "9" * 40, "٣"):
        with pytest.raises(Conflict):
            site.rings.save_ring("acme", b"mine", revision)
        with pytest.raises(Conflict):
            site.rings.delete_ring("acme", revision)
    assert site.rings.load_ring("acme").document == b"three"


# Operators


@pytest.mark.parametrize("how", ["delete", "destroy"])
def test_what_an_operator_deletes_is_no_missing_ring(site: Site, how: str) -> None:
    """A ring that was deleted or destroyed in Vault is refused, saying how to get it back.

    None is created in its place, nor is it taken from the list.
    """
    revision = site.rings.save_ring("acme", b"one", None)
    revision = site.rings.save_ring("acme", b"two", revision)
    if how == "delete":
        site.server.delete(site.path("data", "acme"))
        advice = "vault kv undelete"
    else:
        site.server.write(site.path("destroy", "acme"), versions=[2])
        advice = "vault kv rollback"
    for call in (
        lambda: site.rings.load_ring("acme"),
        lambda: site.rings.save_ring("acme", b"three", None),
        lambda: site.rings.delete_ring("acme", revision),
        lambda: site.rings.purge_ring_history("acme"),
    ):
        assert advice in message_of(RingRejected, call)
    assert site.listed() == ["acme"]
    assert site.newest("acme") == 2
    versions = site.server.read(site.path("metadata", "acme"))["data"]["versions"]
    assert versions["1"]["destroyed"] is False, "the one copy that is left"
    if how == "delete":
        site.server.write(site.path("undelete", "acme"), versions=[2])
        assert site.rings.load_ring("acme").document == b"two"


def test_an_operator_rolls_back(site: Site) -> None:
    """An earlier version that was put back is loaded as it was, under a revision of its own."""
    site.rings.save_ring("acme", b"one", None)
    earlier = site.fields("acme")
    site.rings.save_ring("acme", b"two", "1")
    site.server.write(site.path("destroy", "acme"), versions=[2])
    site.put("acme", **earlier)
    found = site.rings.load_ring("acme")
    assert (found.document, found.revision) == (b"one", "3")


def test_an_operator_deletes_the_metadata(site: Site) -> None:
    """Then nothing is there any more, and a ring can be created."""
    site.rings.save_ring("acme", b"one", None)
    site.server.delete(site.path("metadata", "acme"))
    with pytest.raises(TenantNotFound):
        site.rings.load_ring("acme")
    assert site.listed() == []
    assert site.rings.save_ring("acme", b"two", None) == "1"


def test_metadata_without_a_version(site: Site) -> None:
    """Settings that an operator makes before there is a ring are none, and are kept."""
    site.server.write(site.path("metadata", "acme"), cas_required=True)
    with pytest.raises(TenantNotFound):
        site.rings.load_ring("acme")
    assert site.rings.save_ring("acme", b"one", None) == "1"


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"password": "planted-elsewhere"},
        {"document": "not base64!"},
        {"document": "planted-ä"},
        {"document": "e!A=="},
        {"document": 7},
        {"document": None},
        {"document": ["x"]},
        {"document": "eA==", "deleted": True},
        {"deleted": "yes"},
        {"deleted": False},
        {"document": base64.b64encode(bytes(256 * 1024 + 1)).decode()},
        {"document": "A" * 900_000},
    ],
    ids=lambda fields: str(fields)[:30],
)
def test_what_somebody_else_wrote_there(site: Site, fields: dict[str, object]) -> None:
    """It is refused, not shown, not written over, and in the list."""
    site.rings.save_ring("acme", b"one", None)
    site.put("acme", **fields)
    for call in (
        lambda: site.rings.load_ring("acme"),
        lambda: site.rings.save_ring("acme", b"two", None),
        lambda: site.rings.delete_ring("acme", "2"),
        lambda: site.rings.purge_ring_history("acme"),
    ):
        told = message_of(RingRejected, call)
        assert "somebody else wrote there" in told
        assert "planted" not in told
    assert site.newest("acme") == 2
    assert site.listed() == ["acme"]
    versions = site.server.read(site.path("metadata", "acme"))["data"]["versions"]
    assert versions["1"]["destroyed"] is False


def test_foreign_names_below_the_prefix(site: Site) -> None:
    """What is no tenant id, and folders, are not listed and not touched; nor are markers."""
    for name in ("acme/notes", ".hidden", "-x", "ünder", "x" * 121, ".deleted", "a b"):
        site.put(name, other="thing")
    site.rings.save_ring("acme", b"one", None)
    assert site.listed() == ["acme"]
    site.rings.delete_ring("acme", "1")
    site.rings.purge_ring_history("acme")
    assert site.listed() == []
    assert site.fields("acme/notes") == {"other": "thing"}


@pytest.mark.parametrize("moment", range(3))
def test_purge_leaves_a_ring_that_is_saved_meanwhile(site: Site, moment: int) -> None:
    """What is saved while history is purged is live, whichever request it comes before."""
    revision = site.rings.save_ring("acme", b"one", None)
    site.rings.save_ring("acme", b"two", revision)
    other = site.beside()

    def at(step: int) -> None:
        if step == moment:
            other.binding.save_ring("acme", b"three", "2")

    with site.proxy.during(at):
        site.rings.purge_ring_history("acme")
    assert site.newest("acme") == 3
    assert site.rings.load_ring("acme").document == b"three"
    other.close()


def test_a_listing_while_tenants_are_made(site: Site) -> None:
    """Who was there all the time is listed once, who was deleted before is not, and it ends."""
    stays = [f"t{number:02}" for number in range(20)]
    for tenant in stays:
        site.rings.save_ring(tenant, b"one", None)
    site.rings.delete_ring("t05", "1")
    stop = threading.Event()
    other = site.beside()

    def churn() -> None:
        number = 0
        while not stop.is_set():
            tenant = f"u{number}"
            number += 1
            other.binding.save_ring(tenant, b"one", None)
            if number % 2:
                other.binding.delete_ring(tenant, "1")

    worker = threading.Thread(target=churn)
    worker.start()
    found: list[str] = []
    cursor: str | None = None
    for _ in range(1000):
        page = site.rings.list_rings(cursor, 3)
        found += page.tenants
        cursor = page.cursor
        if len(found) > 19 and cursor is not None:
            stop.set()
        if cursor is None:
            break
    stop.set()
    worker.join(60)
    other.close()
    assert cursor is None
    assert len(found) == len(set(found))
    assert [each for each in found if each[0] == "t"] == [each for each in stays if each != "t05"]


def test_many_deleted_tenants_do_not_hinder_a_listing(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When reading them leaves too little time a page ends early, and the next goes on."""
    for number in range(6):
        revision = site.rings.save_ring(f"t{number}", b"one", None)
        site.rings.delete_ring(f"t{number}", revision)
    site.rings.save_ring("t9", b"one", None)
    monkeypatch.setattr("sentra_kms_vault.kv_paths.KvPaths.allows", lambda *_: False)
    pages = [site.rings.list_rings(None, 100)]
    while (cursor := pages[-1].cursor) is not None:
        pages.append(site.rings.list_rings(cursor, 100))
    assert len(pages) == 7
    assert [tenant for page in pages for tenant in page.tenants] == ["t9"]


def test_a_list_of_100_000_tenants(site: Site) -> None:
    """It is longer than any other answer may be, and is taken; one without an end is not."""
    patient = Bench("vault", site.table(site.proxy.url))
    assert patient.binding.list_rings(None, 1).tenants == ()
    for count, end in ((100_000, None), (200_000, ServiceUnavailable)):
        names = ",".join(f'"{number:0120}"' for number in range(count))
        body = f'{{"data":{{"keys":[{names}]}}}}'.encode()
        head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % len(body)
        answer = Garbage(head + body)

        def at(step: int, answer: Fault = answer) -> Fault | None:
            return answer if step == 0 else None

        with site.proxy.during(at):
            if end is None:
                page = patient.binding.list_rings(f"{99_000:0120}", 10_000)
                assert len(page.tenants) == 999
                assert page.cursor is None
            else:
                told = message_of(end, lambda: patient.binding.list_rings(None, 1000))
                assert "more than" in told
    patient.close()


# Mounts


def test_key_value_version_1_is_never_written_to(
    vault: Vault, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An engine without versions is refused, saying why; nothing is written and nothing missing."""
    monkeypatch.setenv("SITE_TOKEN", vault.token)
    mount = f"rings-v1-{uuid.uuid4().hex[:12]}"
    vault.write(f"sys/mounts/{mount}", type="kv", options={"version": "1"})
    site = Site(vault, mount)
    vault.write(f"{mount}/data/{site.prefix}/there", document="eA==")
    for call in every_operation(site):
        assert "KV version 1" in message_of(ConfigurationError, call)
    assert [each.level for each in site.found()] == ["error"]
    assert vault.list(f"{mount}/") == ["data/"]
    assert vault.list(f"{mount}/data/{site.prefix}") == ["there"]
    site.close()
    vault.delete(f"sys/mounts/{mount}")


def every_operation(site: Site) -> list[Callable[[], object]]:
    """Return a call of each."""
    rings = site.rings
    return [
        lambda: rings.load_ring("acme"),
        lambda: rings.load_ring("there"),
        lambda: rings.save_ring("acme", b"one", None),
        lambda: rings.save_ring("acme", b"one", "1"),
        lambda: rings.delete_ring("acme", "1"),
        lambda: rings.list_rings(None, 10),
        lambda: rings.purge_ring_history("acme"),
    ]


@pytest.mark.parametrize(
    ("mount", "kind", "why"),
    [
        ("no-such-mount", (ConfigurationError, AccessDenied), "engine"),
        ("transit", (ConfigurationError,), "engine"),
        ("cubbyhole", (ConfigurationError,), "another engine"),
        ("secret/sub", (ConfigurationError,), "mounted at 'secret'"),
    ],
)
def test_a_wrong_mount_is_no_missing_ring(
    vault: Vault,
    monkeypatch: pytest.MonkeyPatch,
    mount: str,
    kind: tuple[type[KMSError], ...],
    why: str,
) -> None:
    """It is a mistake in the configuration, or a right that lacks: no ring is said to be absent."""
    monkeypatch.setenv("SITE_TOKEN", vault.token)
    site = Site(vault, mount)
    for call in every_operation(site):
        with pytest.raises(kind) as caught:
            call()
        assert "rings.mount" in caught.value.message
        assert why in caught.value.message
    told = site.found()
    assert [each.level for each in told] == ["error"]
    assert "rings.mount" in told[0].message
    site.close()


@pytest.mark.parametrize(
    "prefix", ["", "/x", "x/", "a//b", "../x", "a/../b", ".", ".deleted", "a%2fb", "a b"]
)
def test_a_prefix_that_leads_elsewhere(vault: Vault, prefix: str) -> None:
    """It is refused when the configuration is read."""
    table = {"type": "vault", "address": vault.address, "rings": {"mount": MOUNT, "prefix": prefix}}
    assert "prefix" in message_of(ConfigurationError, lambda: Bench("vault", table))


@pytest.mark.parametrize(
    "tenant", ["", ".", "..", "../x", "a/b", ".deleted/acme", "a%2fb", "ä", "x" * 121]
)
def test_a_tenant_that_leads_elsewhere(site: Site, tenant: str) -> None:
    """It is refused before anything is asked, whoever let it through."""
    before = len(site.proxy.requests())
    for call in (
        lambda: site.rings.load_ring(tenant),
        lambda: site.rings.save_ring(tenant, b"one", None),
        lambda: site.rings.delete_ring(tenant, "1"),
        lambda: site.rings.purge_ring_history(tenant),
    ):
        with pytest.raises(MalformedInput):
            call()
    assert len(site.proxy.requests()) == before


# What an operation costs, and what check finds


def test_requests_of_each_operation(site: Site) -> None:
    """One to load and one to save; three to delete, two to list."""

    def cost(operation: Callable[[], object]) -> int:
        before = len(site.proxy.requests())
        with suppress(KMSError):
            operation()
        return len(site.proxy.requests()) - before

    rings = site.rings
    assert cost(lambda: rings.load_ring("acme")) == 1
    assert cost(lambda: rings.save_ring("acme", b"one", None)) == 1
    assert cost(lambda: rings.load_ring("acme")) == 1
    assert cost(lambda: rings.save_ring("acme", b"two", "1")) == 1
    assert cost(lambda: rings.save_ring("acme", b"two", "1")) == 1
    assert cost(lambda: rings.list_rings(None, 10)) == 2
    assert cost(lambda: rings.delete_ring("acme", "2")) == 3
    assert cost(lambda: rings.save_ring("acme", b"one", None)) == 3
    assert cost(lambda: rings.list_rings(None, 10)) == 3
    assert cost(lambda: rings.purge_ring_history("acme")) == 3


def test_check_tells_what_the_mount_lacks(vault: Vault, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it advises is what helps: followed, nothing is left to say but that all is well."""
    monkeypatch.setenv("SITE_TOKEN", vault.token)
    mount = f"checked-{uuid.uuid4().hex[:12]}"
    vault.write(f"sys/mounts/{mount}", type="kv", options={"version": "2"})
    vault.wait_until(
        lambda: vault.write(f"{mount}/config", max_versions=3, delete_version_after="1h")
    )
    site = Site(vault, mount)
    site.rings.save_ring("acme", b"one", None)
    assert vault.read(site.path("data", "acme"))["data"]["metadata"]["deletion_time"]
    site.rings.save_ring("globex", b"one", None)
    vault.write(site.path("metadata", "globex"), max_versions=2, delete_version_after="30m")
    found = {(each.level, each.subject): each for each in site.found()}
    own = f"{mount}/{site.prefix}/globex"
    assert sorted(found) == [
        ("error", mount), ("error", own), ("warning", mount), ("warning", own),
    ]  # fmt: skip
    told = " ".join(each.message + each.advice for each in site.found())
    for part in (
        "cas_required=true", "max_versions=0", "delete_version_after=0s", "1h0m0s", "30m0s",
        "-max-versions=10", "-delete-version-after=0s", "keeps 3 versions", "keeps 2 versions",
    ):  # fmt: skip
        assert part in told
    vault.write(f"{mount}/config", cas_required=True, max_versions=0, delete_version_after="0s")
    vault.write(site.path("metadata", "globex"), max_versions=10, delete_version_after="0s")
    assert [(each.level, each.message) for each in site.found()] == [
        ("ok", "KV version 2 with 2 names of tenants")
    ]
    vault.write(site.path("undelete", "acme"), versions=[1])
    found_again = vault.read(site.path("data", "acme"))["data"]["metadata"]
    assert found_again["deletion_time"] == ""
    site.close()
    vault.delete(f"sys/mounts/{mount}")


def test_check_without_the_right_to_see_settings(
    site: Site, vault: Vault, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Is a warning that names the right; without the right to list, an error."""
    site.rings.save_ring("acme", b"one", None)
    for rights, expected in (
        (["list"], [f"read on secret/metadata/{site.prefix}/*", "read on secret/config"]),
        (["list", "read"], ["read on secret/config"]),
    ):
        vault.policy(
            site.prefix,
            f'path "secret/metadata/{site.prefix}/*" {{ capabilities = {json.dumps(rights)} }}',
        )
        monkeypatch.setenv("SITE_TOKEN", vault.new_token(site.prefix))
        other = site.beside()
        found = site.found(other)
        assert [each.level for each in found] == ["warning"] * len(expected)
        for each, right in zip(found, expected, strict=True):
            assert f"grant {right}," in each.advice
        other.close()
    vault.delete(f"sys/policies/acl/{site.prefix}")
    other = site.beside()
    assert [each.level for each in site.found(other)] == ["error"]
    other.close()


# A server that seals, stops and dies


def test_sealed_and_unsealed(kept_vault: KeptVault, monkeypatch: pytest.MonkeyPatch) -> None:
    """While it is sealed each operation is unavailable; then all is as it was."""
    monkeypatch.setenv("SITE_TOKEN", kept_vault.token)
    site = Site(kept_vault)
    revision = site.rings.save_ring("acme", b"one", None)
    kept_vault.seal()
    for call in (
        lambda: site.rings.load_ring("acme"),
        lambda: site.rings.load_ring("nobody"),
        lambda: site.rings.save_ring("acme", b"two", revision),
        lambda: site.rings.save_ring("globex", b"one", None),
        lambda: site.rings.delete_ring("acme", revision),
        lambda: site.rings.list_rings(None, 10),
        lambda: site.rings.purge_ring_history("acme"),
    ):
        assert "unseal" in message_of(ServiceUnavailable, call)
    kept_vault.unseal()
    assert site.listed() == ["acme"]
    assert site.rings.save_ring("acme", b"two", revision) == "2"
    site.close()


@pytest.mark.slow
def test_killed_in_the_middle_of_saves(
    kept_vault: KeptVault, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After SIGKILL and a restart each ring is whole, and what was said to be saved is there."""
    monkeypatch.setenv("SITE_TOKEN", kept_vault.token)
    site = Site(kept_vault)
    saved: dict[str, int] = {}
    begun = threading.Barrier(4)

    def save(tenant: str) -> None:
        revision: str | None = None
        for number in range(1, 100_000):
            document = b"%d:" % number + os.urandom(4096).hex().encode()
            try:
                revision = site.rings.save_ring(tenant, document, revision)
            except ServiceUnavailable:
                return
            saved[tenant] = number
            if number == 20:
                begun.wait(60)

    workers = [threading.Thread(target=save, args=(f"t{each}",)) for each in range(3)]
    for each in workers:
        each.start()
    begun.wait(60)
    kept_vault.kill()
    for each in workers:
        each.join(60)
    kept_vault.start()
    kept_vault.unseal()
    assert site.listed() == ["t0", "t1", "t2"]
    for tenant, number in saved.items():
        found = site.rings.load_ring(tenant)
        assert int(found.revision) in {number, number + 1}
        assert found.document.startswith(b"%d:" % int(found.revision))
        assert len(found.document.partition(b":")[2]) == 8192
        site.rings.save_ring(tenant, b"after", found.revision)
    site.close()
