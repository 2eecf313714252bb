"""Backups of key rings: what is in them, and how they come to be whole or not there."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from sentra_kms.errors import (
    AccessDenied,
    AlreadyExists,
    KMSError,
    MalformedInput,
    RingRejected,
    ServiceUnavailable,
    TenantNotFound,
)
from sentra_kms.hooktypes import RingPage
from sentra_kms.material import KeyMaterial
from sentra_kms.runtime import KMS
from tests.keys.conftest import Site, Spy
from tests.reader import reader


@pytest.fixture
def made(key_site: Site) -> KMS:
    """A KMS over real files with three tenants, one of them rotated."""
    kms = key_site.open()
    for tenant in ("acme", "Acme", "globex"):
        kms.keys.create(tenant)
    kms.keys.rotate("acme")
    return kms


def raw_key(site: Site, master: str = "m1") -> bytes:
    """The authentication key of a master key."""
    return reader.MasterKey.read(site.secret(master)).auth_key


def test_all_rings_are_in_it(key_site: Site, made: KMS, tmp_path: Path) -> None:
    """The documents of all tenants, byte for byte, which another reader verifies."""
    path = tmp_path / "rings.backup"
    begun = int(datetime.now(UTC).timestamp())
    report = made.keys.backup(path)
    records = reader.open_backup(path.read_bytes(), [raw_key(key_site)])
    assert {record.ring.tenant: record.document for record in records} == {
        tenant: key_site.document(tenant) for tenant in ("acme", "Acme", "globex")
    }
    assert (report.path, report.failed) == (str(path), ())
    assert report.backup_id == records[0].backup_id.hex()
    assert begun <= report.time.timestamp() == records[0].time
    assert [each.tenant for each in report.tenants] == list(made.keys.tenants())
    acme = next(each for each in report.tenants if each.tenant == "acme")
    info = made.keys.describe("acme")
    assert (acme.ring_id, acme.sequence, acme.versions) == (info.ring_id, 2, 2)


def test_some_rings_are_in_it(key_site: Site, made: KMS, tmp_path: Path) -> None:
    """Those that are named, each once, and no others."""
    path = tmp_path / "rings.backup"
    made.keys.backup(str(path), ["globex", "acme", "globex"])
    records = reader.open_backup(path.read_bytes(), [raw_key(key_site)])
    assert [record.ring.tenant for record in records] == ["globex", "acme"]


def test_a_tenant_that_the_store_lists_twice_is_in_it_once(
    key_site: Site, made: KMS, tmp_path: Path
) -> None:
    """A store whose pages shift while they are read makes no backup that nobody can restore."""
    path = tmp_path / "rings.backup"
    pages = Spy(made, "local", "list_rings")
    whole = pages._original(None, 10)

    def shift(cursor: str | None, limit: int) -> RingPage:
        return RingPage(whole.tenants, None if cursor else "more")

    pages.instead = shift
    report = made.keys.backup(path)
    assert [each.tenant for each in report.tenants] == list(whole.tenants)
    assert made.keys.restore(path, dry_run=True).failed == ()
    assert list(made.keys.tenants()) == list(whole.tenants)


def test_nothing_is_unwrapped(made: KMS, tmp_path: Path) -> None:
    """No KEK is asked to wrap or unwrap, for backup or restore; the file has no tenant key."""
    wraps, unwraps = (Spy(made, "local", name) for name in ("wrap_key", "unwrap_key"))
    made.keys.rotate("acme")
    key: KeyMaterial = wraps.calls[0][1]
    before = (wraps.count, unwraps.count)
    made.keys.backup(tmp_path / "rings.backup")
    made.keys.restore(tmp_path / "rings.backup")
    assert (wraps.count, unwraps.count) == before
    assert key.reveal() not in (tmp_path / "rings.backup").read_bytes()


@pytest.mark.parametrize("umask", [0o000, 0o777])
def test_the_file_is_private(made: KMS, tmp_path: Path, umask: int) -> None:
    """Mode 600 whatever the umask, and nothing else is left beside it."""
    before = os.umask(umask)
    try:
        made.keys.backup(tmp_path / "rings.backup")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "rings.backup").stat().st_mode) == 0o600
    assert not list(tmp_path.glob(".rings.backup.*"))


def test_what_is_there_is_left(made: KMS, tmp_path: Path) -> None:
    """A file, a directory or a link that leads nowhere is never replaced by a backup."""
    path = tmp_path / "there"
    path.write_text("an earlier backup")
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "nowhere")
    loads = Spy(made, "local", "load_ring")
    for target in (path, link, tmp_path):
        with pytest.raises(AlreadyExists, match="exists") as caught:
            made.keys.backup(target)
        assert caught.value.subject == str(target)
    assert loads.count == 0  # it is known before the work begins
    assert path.read_text() == "an earlier backup"
    assert not (tmp_path / "nowhere").exists()


def test_what_comes_meanwhile_is_left(
    made: KMS, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that appears while the rings are read is not replaced either."""
    path = tmp_path / "rings.backup"
    loads = Spy(made, "local", "load_ring")
    loads.before = lambda: path.write_text("somebody else's")
    with pytest.raises(AlreadyExists):
        made.keys.backup(path)
    assert path.read_text() == "somebody else's"
    assert not list(tmp_path.glob(".rings.backup.*"))


def test_what_comes_at_the_last_moment_is_left(
    made: KMS, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As another backup that ends at the same time: between the last look and the naming."""
    path = tmp_path / "rings.backup"

    def overtaken(call: Callable[..., None]) -> Callable[..., None]:
        def instead(*given: Any, **named: Any) -> None:
            path.write_text("somebody else's")
            call(*given, **named)

        return instead

    for name in ("rename", "link"):
        monkeypatch.setattr(os, name, overtaken(getattr(os, name)))
    with pytest.raises(AlreadyExists) as caught:
        made.keys.backup(path)
    assert caught.value.subject == str(path)
    assert path.read_text() == "somebody else's"
    assert not list(tmp_path.glob(".rings.backup.*"))


@pytest.mark.parametrize("damaged", [["acme"], ["acme", "globex"]], ids=len)
def test_a_ring_that_is_refused_is_left_out_and_told(
    key_site: Site, made: KMS, tmp_path: Path, damaged: list[str]
) -> None:
    """The others are in the file; the report names each that is not, with its error."""
    for tenant in damaged:
        key_site.put(key_site.document(tenant)[:-1], tenant)
    path = tmp_path / "rings.backup"
    report = made.keys.backup(path)
    assert [each.tenant for each in report.failed] == damaged
    assert {type(each.error) for each in report.failed} == {RingRejected}
    held = [r.ring.tenant for r in reader.open_backup(path.read_bytes(), [raw_key(key_site)])]
    assert set(held) == {"acme", "Acme", "globex"} - set(damaged)


def test_no_file_without_a_ring(key_site: Site, tmp_path: Path) -> None:
    """An empty store, a tenant that is not there, only damaged rings: an error, and no file."""
    kms = key_site.open()
    path = tmp_path / "rings.backup"
    with pytest.raises(TenantNotFound, match="no key ring to back up"):
        kms.keys.backup(path)
    kms.keys.create("acme")
    with pytest.raises(TenantNotFound, match="'nobody'"):
        kms.keys.backup(path, ["nobody"])
    key_site.put(key_site.document()[:-1])
    with pytest.raises(RingRejected, match="MAC is wrong"):
        kms.keys.backup(path)
    with pytest.raises(MalformedInput, match="tenant id"):
        kms.keys.backup(path, ["a/b"])
    assert not path.exists()
    assert not list(tmp_path.glob(".rings.backup.*"))


def test_the_mark_of_a_ring_that_moved_is_no_backup(
    key_site: Site, made: KMS, tmp_path: Path
) -> None:
    """What says only where a ring went is not backed up in its place."""
    key_site.forge({**key_site.payload("globex"), "moved_to": "vault"}, "globex")
    report = made.keys.backup(tmp_path / "rings.backup")
    (failed,) = report.failed
    assert failed.tenant == "globex"
    assert failed.error is not None
    assert "vault" in failed.error.message


FAILURES: dict[int, type[KMSError]] = {
    errno.ENOSPC: ServiceUnavailable,
    errno.EIO: ServiceUnavailable,
    errno.EROFS: AccessDenied,
    errno.EDQUOT: ServiceUnavailable,
}


@pytest.mark.parametrize("place", ["fsync", "link"])
@pytest.mark.parametrize("code", FAILURES, ids=lambda code: errno.errorcode[code])
def test_a_disk_that_fails_leaves_nothing(
    made: KMS, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, place: str
) -> None:
    """What the system refuses is an error of ours that names the file, and no half file stays."""

    def fail(*_: object, **__: object) -> None:
        raise OSError(code, "as the system says")

    monkeypatch.setattr(os, place, fail)
    path = tmp_path / "rings.backup"
    with pytest.raises(FAILURES[code], match=r"rings\.backup") as caught:
        made.keys.backup(path)
    assert not path.exists()
    assert not list(tmp_path.glob(".rings.backup.*"))
    assert errno.errorcode[code] in str(caught.value.__cause__)


@pytest.mark.parametrize("tail", ["no/such/rings.backup", "file/rings.backup", "n" * 300])
def test_a_path_that_leads_nowhere_is_malformed(made: KMS, tmp_path: Path, tail: str) -> None:
    """The directory is not made; the error names the path."""
    (tmp_path / "file").touch()
    with pytest.raises(MalformedInput, match="cannot be used as a file"):
        made.keys.backup(tmp_path / tail)


def test_a_path_with_nul_is_malformed(made: KMS, tmp_path: Path) -> None:
    """For both, and nothing is left."""
    with pytest.raises(MalformedInput, match="NUL"):
        made.keys.backup(f"{tmp_path}/a\0b")
    with pytest.raises(MalformedInput, match="NUL"):
        made.keys.restore(f"{tmp_path}/a\0b")
    assert not list(tmp_path.glob(".*"))


def test_a_relative_path_from_nowhere_is_malformed(
    made: KMS, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of a process whose working directory was removed."""
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    for operation in (made.keys.backup, made.keys.restore):
        with pytest.raises(MalformedInput, match="cannot be used as a file"):
            operation("rings.backup")


def test_the_longest_names_fit(made: KMS, tmp_path: Path) -> None:
    """A name of 255 bytes has a temporary one that fits, too."""
    path = tmp_path / ("é" * 127 + "x")
    made.keys.backup(path)
    assert made.keys.restore(path).failed == ()


def test_a_backup_is_of_one_key(key_site: Site, tmp_path: Path) -> None:
    """The first authentication key makes the MACs, also of rings that another signed."""
    key_site.open("local:m1").keys.create("acme")
    kms = key_site.open("local:m2", unwrap_with=("local:m1",))
    kms.keys.backup(tmp_path / "rings.backup")
    data = (tmp_path / "rings.backup").read_bytes()
    assert data[33:41] == reader.auth_id(raw_key(key_site, "m2"))
    assert len(reader.open_backup(data, [raw_key(key_site, "m2"), raw_key(key_site)])) == 1


def test_a_store_that_fails_half_way_is_told(made: KMS, tmp_path: Path) -> None:
    """A tenant that cannot be read now is told as that, and the next are read."""
    loads = Spy(made, "local", "load_ring")
    failure = ServiceUnavailable("it is down")

    def down_once() -> None:
        loads.failure = failure if loads.count == 2 else None

    loads.before = down_once
    report = made.keys.backup(tmp_path / "rings.backup")
    (failed,) = report.failed
    error: Any = failed.error
    assert type(error) is ServiceUnavailable
    assert error.retryable
    assert len(report.tenants) == 3
