"""Logins that Vault refuses are not tried again and again, and never keep the right one waiting."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from uuid import uuid4

import pytest
from sentra_kms_vault.pace import ELSEWHERE, Pace
from vault_user import MakeUser, User

from sentra_kms import (
    AuthenticationFailed,
    ConfigurationError,
    KMSError,
    ServiceUnavailable,
    Throttled,
    VendorError,
)
from sentra_kms.errors import afresh
from sentra_kms.testing.base import together
from sentra_kms.testing.leaks import shows
from tests.servers.scripted import Scripted, http
from tests.servers.vault_server import Vault, VaultError

_PATIENCE = 60.0
_LOCKS_AT, _WITHIN = 5, 900.0  # refusals, each so many seconds after the one before: Vault's own


class Clock:
    """Monotonic seconds that go on when a test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        """Return them."""
        return self.now


class Door:
    """A login that is refused, or not, and counts who comes."""

    def __init__(self, method: str = "token") -> None:
        self.clock = Clock()
        self.pace = Pace(self.clock)
        self.error: KMSError | None = AuthenticationFailed("planted")
        self.tries: list[float] = []
        self._method = method

    def come(self, *credentials: str) -> str:
        """Log in."""

        def send() -> str:
            self.tries.append(self.clock.now)
            if self.error is not None:
                raise afresh(self.error)
            return "good"

        return self.pace.log_in(self._method, credentials, send)

    def refused(self, *credentials: str) -> KMSError:
        """Log in; return the error."""
        with pytest.raises(KMSError) as caught:
            self.come(*credentials)
        return caught.value

    def gaps(self) -> list[float]:
        """Return the seconds between tries."""
        return [later - one for one, later in zip(self.tries, self.tries[1:], strict=False)]


def test_pauses_double_up_to_a_bound() -> None:
    """A request each half second: from a second to a minute, and then each minute."""
    door = Door()
    for _ in range(4000):
        door.refused("wrong")
        door.clock.now += 0.5
    gaps = door.gaps()
    for number, gap in enumerate(gaps[:6]):
        assert 2.0**number <= gap <= 2.0**number * 1.25 + 0.5
    assert all(64 <= gap <= 80.5 for gap in gaps[6:])
    assert len(gaps) > 20


@pytest.mark.parametrize("method", ["userpass", "approle"])
def test_pauses_of_what_vault_counts(method: str) -> None:
    """In a day of requests Vault never counts the fifth refusal; one is tried each 20 minutes.

    It forgets what it counted when 15 minutes are between two.
    """
    door = Door(method)
    for _ in range(8640):
        door.refused("wrong")
        door.clock.now += 10
    counted = most = 1
    for gap in door.gaps():
        counted = counted + 1 if gap < _WITHIN else 1
        most = max(most, counted)
    assert 2 < most < _LOCKS_AT
    assert max(door.gaps()) <= 1210


@pytest.mark.parametrize("ends", ["pv", "ppv", "vp", "vvp", "vvppp", "pppppppv"])
def test_pauses_where_a_proxy_refuses_now_and_then(ends: str) -> None:
    """A proxy's refusals between Vault's never let Vault count the fifth."""
    door = Door("userpass")
    by_proxy = AuthenticationFailed("planted")
    by_proxy.__cause__ = VendorError(ELSEWHERE)
    counted, told = [], 0
    for _ in range(8640):
        by = ends[len(door.tries) % len(ends)]
        door.error = by_proxy if by == "p" else AuthenticationFailed("planted")
        door.refused("wrong")
        if len(door.tries) > told and by == "v":
            counted.append(door.tries[-1])
        told = len(door.tries)
        door.clock.now += 1
    run = most = 1
    for one, later in pairwise(counted):
        run = run + 1 if later - one < _WITHIN else 1
        most = max(most, run)
    assert len(counted) > 2
    assert most < _LOCKS_AT


def test_processes_do_not_try_at_the_same_moment() -> None:
    """Those that were refused together come again one after the other."""
    doors = [Door() for _ in range(20)]
    for door in doors:
        for _ in range(1000):
            door.refused("wrong")
            door.clock.now += 0.01
    assert len({round(door.gaps()[0], 2) for door in doors}) > 5


def test_others_are_tried_at_once() -> None:
    """Other credentials wait for nothing; those that were refused wait on, also in turns."""
    door = Door()
    for _ in range(5):
        for each in ("one", "two", "three"):
            door.refused("user", each)
    assert len(door.tries) == 3
    door.refused("use", "rone")  # no other two look alike
    assert len(door.tries) == 4
    door.error = None
    assert door.come("user", "four") == "good"
    assert door.come("user", "one") == "good"  # something has changed


def test_only_so_many_are_remembered() -> None:
    """A source that gives others each time does not fill the memory."""
    door = Door()
    for number in range(100):
        door.refused(str(number))
    door.refused("99")
    assert len(door.tries) == 100
    assert len(door.pace._refused) == 8


def test_pause_begins_anew_after_a_login() -> None:
    """After a login went well the next refusal is the first."""
    door = Door("userpass")
    for _ in range(3):
        door.refused("x")
        door.clock.now += 2000
    door.error = None
    door.come("x")
    door.error = AuthenticationFailed("planted")
    door.refused("x")
    door.clock.now += 151
    door.refused("x")
    assert len(door.tries) == 6


@pytest.mark.parametrize("error", [ServiceUnavailable("planted"), Throttled("planted")])
def test_what_is_no_refusal_has_no_pause(error: KMSError) -> None:
    """A Vault that was away is asked at once when it is back."""
    door = Door()
    door.error = error
    for _ in range(5):
        assert "tried again" not in door.refused("x").message
    door.error = None
    assert door.come("x") == "good"


@pytest.mark.parametrize("kind", [AuthenticationFailed, ConfigurationError])
def test_refusal_is_told_again_afresh(kind: type[KMSError]) -> None:
    """Each has an error of its own, of the same kind, that says when it is tried again."""
    door = Door("userpass")
    planted = kind("planted")
    planted.__cause__ = VendorError("vault", code="400", request_id="x")
    door.error = planted
    first = door.refused("hunter2")
    door.clock.now += 100
    again = door.refused("hunter2")
    assert len(door.tries) == 1
    assert type(first) is type(again) is kind
    assert first is not again
    assert (first.retryable, again.retryable) == (False, False)
    assert again.message.startswith("planted. The same credentials are tried again in ")
    left = [int(each.message.partition(" again in ")[2].split()[0]) for each in (first, again)]
    assert again.message.endswith(" s or after a restart, and others at once")
    assert 120 <= left[0] <= 150
    assert left[0] - left[1] == 100
    assert isinstance(again.__cause__, VendorError)
    assert again.__cause__.code == "400"
    shown = f"{first!r} {again!r} {door.pace!r} {vars(door.pace)!r}"
    assert not shows(shown, b"hunter2")


class Userpass:
    """A user with a password, at a mount of a test's own."""

    def __init__(self, vault: Vault) -> None:
        self.vault = vault
        self.mount = f"pace-{uuid4().hex[:12]}"
        vault.write(f"sys/auth/{self.mount}", type="userpass")
        vault.write(f"auth/{self.mount}/users/ann", password="right", token_policies=["default"])
        auth = {"method": "userpass", "username": "ann", "password": "env://P"}
        self.table = {"address": vault.address, "auth": {**auth, "mount": self.mount}}

    def logins(self) -> int:
        """Return how often Vault was asked."""
        return len(self.vault.requests(f"auth/{self.mount}/login"))

    def is_let_in(self, password: str) -> bool:
        """Whether Vault accepts a password."""
        try:
            self.vault.write(f"auth/{self.mount}/login/ann", password=password)
        except VaultError:
            return False
        return True


@pytest.fixture
def userpass(vault: Vault) -> Iterator[Userpass]:
    """Return a user."""
    made = Userpass(vault)
    yield made
    vault.delete(f"sys/auth/{made.mount}")


def clocked() -> tuple[Clock, dict[str, object]]:
    """Return a clock, and the state of a host whose logins are paced by it."""
    clock = Clock()
    return clock, {"refused logins": Pace(clock)}


@pytest.mark.server
def test_wrong_password_does_not_lock_its_user_out(userpass: Userpass, make_user: MakeUser) -> None:
    """200 threads with a wrong password, in half an hour: the right one is let in at once.

    The control: five refusals, and Vault refuses the right password, too.
    """
    clock, state = clocked()
    user = make_user(userpass.table, {"P": "wrong"}, state=state)

    def ask(_: int) -> str:
        try:
            user.who()
        except AuthenticationFailed as error:
            return error.message
        return "let in"

    tries = []
    for seconds in (0, 1, 60, 110, 100, 200, 200, 200, 400, 200):
        clock.now += seconds
        told = together(200, ask, _PATIENCE)
        assert all("tried again in" in str(each) for each in told)
        tries.append(userpass.logins())
    assert clock.now - 1000 > 1400
    assert 3 <= tries[-1] < _LOCKS_AT
    assert all(later - one <= 1 for one, later in zip([0, *tries], tries, strict=False))
    user.given["P"] = "right"
    assert together(200, ask, _PATIENCE) == ["let in"] * 200
    assert userpass.logins() == tries[-1] + 1
    for _ in range(_LOCKS_AT):
        assert not userpass.is_let_in("wrong")
    assert not userpass.is_let_in("right")


@pytest.mark.server
def test_after_a_pause_one_tries_for_all(userpass: Userpass, make_user: MakeUser) -> None:
    """A password that was put right in Vault is found by one login, when the pause is over."""
    clock, state = clocked()
    user = make_user(userpass.table, {"P": "new"}, state=state)
    with pytest.raises(AuthenticationFailed):
        user.who()
    userpass.vault.write(f"auth/{userpass.mount}/users/ann", password="new")
    clock.now += 119
    with pytest.raises(AuthenticationFailed, match="status 400"):
        user.who()
    clock.now += 32
    ends = together(50, lambda _: str(user.who()["display_name"]), _PATIENCE)
    assert ends == [f"{userpass.mount}-ann"] * 50
    assert userpass.logins() == 2


@pytest.mark.server
def test_pause_outlives_a_fork_and_a_reload(userpass: Userpass, make_user: MakeUser) -> None:
    """Children, and parts made anew, do not try what was refused; with other settings they do."""
    _, state = clocked()
    user = make_user(userpass.table, {"P": "wrong"}, state=state)
    for each in (user, make_user(userpass.table, {"P": "wrong"}, state=state)):
        with pytest.raises(AuthenticationFailed, match="tried again in"):
            each.who()
    assert userpass.logins() == 1
    assert _forked(user, userpass.table) == "The same credentials are tried again"
    assert userpass.logins() == 1
    other = Userpass(userpass.vault)
    userpass.vault.write(f"auth/{other.mount}/users/ann", password="wrong")
    assert make_user(other.table, {"P": "wrong"}, state=state).policies() == {"default"}
    userpass.vault.delete(f"sys/auth/{other.mount}")


def _forked(user: User, table: Mapping[str, object]) -> str:
    """Return what a child is told, whose parts are made anew over the same state."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        told = "nothing"
        try:
            User(table, {"P": "wrong"}, state=user.host.state).who()
        except AuthenticationFailed as error:
            told = error.message
        os.write(writing, told.encode())
        os._exit(0)
    os.close(writing)
    told = os.read(reading, 4096).decode()
    os.close(reading)
    os.waitpid(child, 0)
    return told.partition(". ")[2].partition(" in ")[0]


@pytest.mark.server
def test_spent_wrapping_token_is_not_asked_for_again(vault: Vault, make_user: MakeUser) -> None:
    """A wrapped secret id that cannot be unwrapped is looked at once in a pause."""
    made = vault.ask("POST", "sys/wrapping/wrap", {"a": "b"}, headers={"X-Vault-Wrap-TTL": "60"})
    token = made["wrap_info"]["token"]
    vault.ask("POST", "sys/wrapping/unwrap", {}, token=token)
    auth = {
        "method": "approle", "role_id": "env://R", "secret_id": "env://S",
        "secret_id_wrapped": True,
    }  # fmt: skip
    user = make_user({"address": vault.address, "auth": auth}, {"R": "role", "S": token})
    before = len(vault.requests("sys/wrapping/lookup"))
    for _ in range(3):
        with pytest.raises(AuthenticationFailed, match=r"intercepted.*tried again in"):
            user.who()
    assert len(vault.requests("sys/wrapping/lookup")) == before + 1


@pytest.mark.server
def test_dead_token_file_is_looked_up_once_in_a_pause(
    vault: Vault, make_user: MakeUser, tmp_path: Path
) -> None:
    """Requests with a file whose token is dead do not each ask Vault for it."""
    file = tmp_path / "token"
    file.write_text("planted-dead-token")
    auth = {"method": "token_file", "path": str(file)}
    _, state = clocked()
    user = make_user({"address": vault.address, "auth": auth}, state=state)
    before = len(vault.requests("auth/token/lookup-self"))
    for _ in range(5):
        with pytest.raises(AuthenticationFailed, match="tried again in"):
            user.who()
    assert len(vault.requests("auth/token/lookup-self")) == before + 1
    file.write_text(vault.new_token("default"))
    assert user.policies() == {"default"}


def test_refusal_by_a_proxy_is_not_vaults(make_user: MakeUser) -> None:
    """Vault has not counted what never came to it: who has the right password is back in seconds.

    The error does not send its reader to the credentials.
    """
    page, told = b"<html>RBAC: access denied</html>", {"errors": ["permission denied"]}
    auth = {"method": "userpass", "username": "ann", "password": "env://P"}
    paused = []
    for body in (page, told):
        with Scripted(lambda _: http(403, body)) as server:  # noqa: B023 - asked before the next
            user = make_user({"address": server.url, "auth": auth}, {"P": "right"})
            with pytest.raises(AuthenticationFailed) as caught:
                user.who()
        assert ("is not Vault: look at the address and at proxies" in caught.value.message) == (
            body == page
        )
        paused.append(int(caught.value.message.partition(" again in ")[2].split()[0]))
    assert paused[0] <= 2
    assert paused[1] >= 120
