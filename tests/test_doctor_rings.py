"""The doctor on policies, stores and what the stored key rings ask for."""

from __future__ import annotations

import time
from base64 import b64encode
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import sentra_kms
from sentra_kms.config import read_settings
from sentra_kms.doctor import diagnose
from sentra_kms.hooktypes import Finding
from sentra_kms.keys.manager import KeyManager
from sentra_kms.runtime import KMS
from tests.test_doctor import House, bad, shown

DAY = 86400.0


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> House:
    """An environment without a fault, with a second backend `bank` and a policy on it."""
    house = House(tmp_path, monkeypatch)
    house.secret("bank", b64encode(bytes(32)))
    house.production["backends"]["bank"] = {
        "type": "local",
        "directory": str(tmp_path / "bank-keys"),
        "master_keys": {"k": f"file://{house.secrets / 'bank'}"},
    }
    house.production["keys"]["authenticate_with"] = ["local:k"]
    house.production["policies"] = {"bank": {"wrap_with": ["bank:k"]}}
    return house


def create(house: House, *tenants: str, policy: str | None = None) -> None:
    """Make tenants."""
    with sentra_kms.load(house.tables) as kms:
        for tenant in tenants:
            kms.keys.create(tenant, policy)


class Earlier:
    """A wall clock that goes so many seconds behind."""

    def __init__(self, behind: float) -> None:
        self._behind = behind

    def __call__(self) -> float:
        """Return the time."""
        return time.time() - self._behind


def told(found: list[Finding]) -> list[tuple[str, str, str]]:
    """Return what findings say, without the advice."""
    return [(each.level, each.subject, each.message) for each in found]


def test_policy_without_a_fault(house: House) -> None:
    """Its KEKs are tried, its tenants' rings are read, and all is well."""
    create(house, "bigbank", policy="bank")
    found = house.diagnose()
    assert bad(found) == []
    assert ("ok", "key rings", "2 read, which is all of them") in told(list(found.findings))
    assert any(each.subject == "bank:k" for each in found.findings)


def test_policies_are_explained(house: House) -> None:
    """What a policy says, and where it has what it does not say."""
    house.production["keys"] |= {"rotate_after": "365d", "min_wraps": 1}
    house.production["policies"]["bank"]["key_ttl"] = "0s"
    rows = shown(house.diagnose(offline=True))
    assert rows["keys.rotate_after"] == ("365d", "[production]")
    assert rows["keys.min_wraps"] == ("1", "[production]")
    assert {path: row for path, row in rows.items() if path.startswith("policies.")} == {
        "policies.bank.wrap_with": ("[bank:k]", "[production]"),
        "policies.bank.unwrap_with": ("[]", "as in keys"),
        "policies.bank.min_wraps": ("1", "as in keys"),
        "policies.bank.rotate_after": ("365d", "as in keys"),
        "policies.bank.key_ttl": ("0s", "[production]"),
    }
    del house.production["policies"]["bank"]["key_ttl"]
    rows = shown(house.diagnose(offline=True))
    assert rows["policies.bank.key_ttl"] == ("5m", "as in cache")


def test_policys_kek_without_a_master_key(house: House) -> None:
    """It is told by the table where it stands."""
    house.production["policies"]["bank"]["wrap_with"] = ["bank:other"]
    (found,) = bad(house.diagnose(offline=True))
    assert (found.level, found.subject) == ("error", "bank:other")
    assert "is named in [production.policies.bank] wrap_with, but backend 'bank'" in found.message


def test_kek_for_each_tenant(house: House) -> None:
    """It has no one name that could be missing or tried."""
    house.production["policies"]["bank"]["wrap_with"] = ["bank:{tenant}"]
    found = house.diagnose()
    assert bad(found) == []
    untried = ("ok", "bank:{tenant}", "is another KEK for each tenant, none of which was tried")
    assert untried in told(list(found.findings))


def test_environments_that_share_a_customers_kek(house: House) -> None:
    """A policy's KEK is one like those of [keys], also under another name of the backend."""
    other = house.environment("other", "other-keys")
    house.secret("other", b64encode(bytes(range(32))))
    other["backends"]["customer"] = house.production["backends"]["bank"]
    other["keys"]["authenticate_with"] = ["local:k"]
    other["policies"] = {"bank": {"wrap_with": ["customer:k"]}}
    house.tables["staging"] = other
    messages = [each.message for each in bad(house.diagnose(offline=True))]
    assert messages == ["is used by the environments production and staging"]


def test_overdue_rotation(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """How many tenants, some by name; after the rotation it is gone."""
    house.production["keys"]["rotate_after"] = "30d"
    create(house, *"bcdefg")
    assert bad(house.diagnose()) == []
    house.production["keys"]["rotate_after"] = "1ms"
    (found,) = bad(house.diagnose())
    assert told([found]) == [
        ("warning", "rotate_after", "rotation is due for 7 tenants (acme, b, c, d, e and 2 more)")
    ]
    assert "tenant rotate" in found.advice


def test_missing_wrap(house: House) -> None:
    """A KEK that was added wraps nothing old until `rewrap` mends it."""
    house.production["keys"]["wrap_with"] = ["local:k", "bank:k"]
    (found,) = bad(house.diagnose())
    assert told([found]) == [
        ("warning", "bank:k", "does not wrap every version of tenant acme, although it should")
    ]
    assert "rewrap --all" in found.advice
    with sentra_kms.load(house.tables) as kms:
        kms.keys.rewrap("acme")
    assert bad(house.diagnose()) == []


def test_kek_that_need_not_wrap_any_more(house: House) -> None:
    """That is no fault, but worth to know before it is taken out."""
    house.production["keys"] |= {"wrap_with": ["bank:k"], "unwrap_with": ["local:k"]}
    found = house.diagnose()
    assert ("ok", "local:k", "still wraps versions of tenant acme, and wraps nothing new") in told(
        list(found.findings)
    )


def test_version_that_no_kek_unwraps(house: House) -> None:
    """The KEK was taken out while it was needed."""
    house.production["keys"]["wrap_with"] = ["bank:k"]
    lost, missing = bad(house.diagnose())
    assert (lost.level, missing.level) == ("error", "warning")
    assert lost.message == "no KEK of the policy unwraps a version of tenant acme"


def test_destroyed_version_needs_no_wrap(house: House) -> None:
    """It has none, and that is as it should be."""
    with sentra_kms.load(house.tables) as kms:
        kms.keys.shred("acme", "acme")
    assert bad(house.diagnose()) == []


def test_policy_that_is_gone(house: House) -> None:
    """Its tenants' keys cannot be unwrapped, which is an error."""
    create(house, "bigbank", "otherbank", policy="bank")
    del house.production["policies"]
    (found,) = bad(house.diagnose())
    assert (found.level, found.subject) == ("error", "policies.bank")
    assert found.message.startswith("is followed by 2 tenants (bigbank, otherbank), and the")
    assert "set-policy" in found.advice


def test_rings_that_are_refused(house: House) -> None:
    """One finding for each kind of error, with how many and the first one's text."""
    create(house, "b", "c")
    for name in ("b", "c"):
        (house.keys / f"{name}.ring").write_bytes(b"no ring")
    (found,) = bad(house.diagnose())
    assert (found.level, found.subject) == ("error", "key rings")
    assert found.message.startswith("the ring of 2 tenants (b, c) cannot be read (RingRejected): ")


def test_destruction_that_nobody_runs(house: House) -> None:
    """A version that was due a day ago is still there; one that is due now is no fault."""
    for tenant, ago in (("now", DAY - 60), ("late", DAY + 60)):
        assert bad(house.diagnose()) == []
        with KMS(read_settings(house.tables, "production"), clock=Earlier(ago)) as kms:
            kms.keys.create(tenant)
            kms.keys.rotate(tenant)
            kms.keys.schedule_destroy(tenant, 1, timedelta(0))
    (found,) = bad(house.diagnose())
    assert (found.level, found.subject) == ("warning", "destroy-due")
    assert found.message == "a version of tenant late should have been destroyed a day ago or more"


def moving(house: House) -> None:
    """Let the rings be on their way to `bank`."""
    house.production["keys"] |= {"store": "bank", "previous_store": "local"}


def test_rings_still_in_the_previous_store(house: House) -> None:
    """They are counted by name; once moved, it is said that the store is not needed."""
    create(house, *"bcdefg")
    moving(house)
    with sentra_kms.load(house.tables) as kms:
        kms.keys.move("acme")
    (waiting,) = bad(house.diagnose())
    assert told([waiting]) == [
        (
            "warning",
            "local",
            "6 key rings are here and not in 'bank' yet: b, c, d, e, f …",
        )
    ]
    assert "tenant move --all" in waiting.advice
    with sentra_kms.load(house.tables) as kms:
        for tenant in kms.keys.tenants():
            kms.keys.move(tenant)
    found = house.diagnose()
    assert bad(found) == []
    assert ("ok", "local", "holds no key ring that is not in 'bank'") in told(list(found.findings))


def test_directory_of_the_previous_store_is_looked_at(house: House) -> None:
    """It is used as long as rings are there."""
    moving(house)
    with sentra_kms.load(house.tables) as kms:
        kms.keys.move("acme")
    (house.keys / "notes.txt").touch()
    (found,) = bad(house.diagnose())
    assert found.subject.endswith("notes.txt")


@pytest.mark.parametrize(
    ("limit", "expected"),
    [
        (2, "2 of more were read: `--rings all` reads every one"),
        (3, "3 read, which is all of them"),
        (4, "3 read, which is all of them"),
        (0, "0 of more were read: `--rings all` reads every one"),
        (None, "3 read, which is all of them"),
    ],
)
def test_so_many_rings_are_read(
    house: House, limit: int | None, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No more than was asked for, and it is said whether these were all."""
    create(house, "b", "c")
    read: list[str] = []
    real = KeyManager.describe

    def describe(keys: KeyManager, tenant: str) -> Any:
        read.append(tenant)
        return real(keys, tenant)

    monkeypatch.setattr(KeyManager, "describe", describe)
    found = diagnose(house.tables, rings=limit)
    assert ("ok", "key rings", expected) in told(list(found.findings))
    assert len(read) == (3 if limit is None else min(limit, 3))


def test_list_that_breaks_off(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is an error of the store, and what was read before is not passed off as all."""

    def break_off(_: KeyManager) -> Iterator[str]:
        yield "acme"
        raise sentra_kms.ServiceUnavailable("the store went away")

    monkeypatch.setattr(KeyManager, "tenants", break_off)
    found = diagnose(house.tables)
    (error,) = bad(found)
    assert (error.level, error.subject, error.message) == ("error", "local", "the store went away")
    assert not any(each.subject == "key rings" for each in found.findings)
