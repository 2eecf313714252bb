"""What threads, signals and failures do to a login, with a way to log in that a test scripts."""

from __future__ import annotations

import itertools
import os
import pickle
import signal
import threading
from collections.abc import Callable, Iterator
from functools import partial

import pytest
from sentra_kms_vault import login as login_module
from sentra_kms_vault.deadline import Deadline
from sentra_kms_vault.failures import Refused
from sentra_kms_vault.keeper import Keeper
from sentra_kms_vault.login import Login, Token
from vault_user import until

from sentra_kms import (
    AuthenticationFailed,
    ServiceUnavailable,
    Timeout,
    UnsupportedOperation,
)

PATIENCE = 60.0  # seconds until something that has to happen is given up


class Scripted:
    """A way to log in that does what a test says."""

    name = "scripted"

    def __init__(self, act: Callable[[Deadline], Token]) -> None:
        self._act = act
        self.calls = 0

    def log_in(self, deadline: Deadline) -> Token:
        """Do it."""
        self.calls += 1
        return self._act(deadline)

    def changed(self) -> bool:
        """Return `False`."""
        return False

    def makes_tokens(self) -> bool:
        """Return `True`."""
        return True


@pytest.fixture
def keeper() -> Iterator[Keeper]:
    """Return a keeper with a short patience."""
    made = Keeper("test", 5.0)
    yield made
    made.close(5.0)


def no_renewal(token: str, deadline: Deadline) -> Token:
    """Refuse, as Vault does."""
    raise Refused(400, (), {})


def waiting(login: Login, threads: int, deadline: float = PATIENCE) -> list[object]:
    """Ask for the token from many threads at once; return what each gets."""
    ends: list[object] = []

    def ask_for_it() -> None:
        try:
            ends.append(login.token(Deadline(deadline)))
        except BaseException as error:  # noqa: BLE001 - that is what is looked at
            ends.append(error)

    started = [threading.Thread(target=ask_for_it, daemon=True) for _ in range(threads)]
    for each in started:
        each.start()
    for each in started:
        each.join(PATIENCE)
    return ends


def test_failure_is_told_to_all_who_waited(keeper: Keeper) -> None:
    """One failing login fails all who waited for it, each with an error of its own."""
    waiters = threading.Semaphore(0)

    def act(_: Deadline) -> Token:
        for _waiter in range(16):
            assert waiters.acquire(timeout=PATIENCE)
        raise AuthenticationFailed("planted")

    login = Login(method := Scripted(act), no_renewal, keeper, print)
    real = login._lock

    class Counting:
        """The lock, which tells who comes to wait for it."""

        def acquire(self, timeout: float) -> bool:
            waiters.release()
            return real.acquire(timeout=timeout)

        def release(self) -> None:
            real.release()

    login._lock = Counting()  # type: ignore[assignment]
    ends = waiting(login, 16)
    assert method.calls == 1
    assert all(isinstance(end, AuthenticationFailed) for end in ends)
    assert len({id(end) for end in ends}) == 16


def test_timeout_of_one_is_not_that_of_others(keeper: Keeper) -> None:
    """Who has more time than the one who logged in for all tries by himself."""
    ends: list[object] = []
    begun = threading.Event()

    def act(_: Deadline) -> Token:
        if not begun.is_set():
            begun.set()
            until(lambda: bool(login_waits.is_set()))
            raise Timeout("planted")
        return Token("second")

    login_waits = threading.Event()
    login = Login(Scripted(act), no_renewal, keeper, print)
    first = threading.Thread(target=lambda: ends.extend(waiting(login, 1)), daemon=True)
    first.start()
    assert begun.wait(PATIENCE)
    second = threading.Thread(target=lambda: ends.extend(waiting(login, 1)), daemon=True)
    second.start()
    login_waits.set()
    first.join(PATIENCE)
    second.join(PATIENCE)
    assert "second" in ends
    assert any(isinstance(end, Timeout) for end in ends)


def test_interrupted_login(keeper: Keeper) -> None:
    """After Ctrl-C in a login nobody waits for ever, and no older failure is told again."""
    acts = iter([AuthenticationFailed("old"), KeyboardInterrupt()])

    def act(_: Deadline) -> Token:
        for error in acts:
            raise error
        return Token("good")

    login = Login(Scripted(act), no_renewal, keeper, print)
    with pytest.raises(AuthenticationFailed):
        login.token(Deadline(5))
    with pytest.raises(KeyboardInterrupt):
        login.token(Deadline(5))
    assert login._failure is None
    assert waiting(login, 4) == ["good"] * 4


def test_signal_during_a_login(keeper: Keeper) -> None:
    """A signal handler that needs the token gets one, though its own thread is logging in."""
    told: list[str] = []

    def act(_: Deadline) -> Token:
        if not told:
            told.append("interrupted")
            os.kill(os.getpid(), signal.SIGUSR1)
            until(lambda: len(told) == 2)
        return Token("good")

    login = Login(Scripted(act), no_renewal, keeper, print)
    before = signal.signal(signal.SIGUSR1, lambda *_: told.append(login.token(Deadline(5))))
    try:
        assert login.token(Deadline(5)) == "good"
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert told == ["interrupted", "good"]


def test_waits_no_longer_than_its_time(keeper: Keeper) -> None:
    """Who waits for another thread's login gives up when his own time is over."""
    go_on = threading.Event()

    def act(_: Deadline) -> Token:
        assert go_on.wait(PATIENCE)
        return Token("good")

    login = Login(method := Scripted(act), no_renewal, keeper, print)
    first = threading.Thread(target=login.token, args=(Deadline(PATIENCE),), daemon=True)
    first.start()
    until(lambda: method.calls == 1)
    with pytest.raises(Timeout, match="another thread's login"):
        login.token(Deadline(0.2))
    go_on.set()
    first.join(PATIENCE)
    assert login.token(Deadline(5)) == "good"


class UnderWay:
    """A login that is under way until `go_on` is set."""

    def __init__(self, keeper: Keeper) -> None:
        self.go_on = threading.Event()
        self.ends: list[object] = []
        inside = threading.Event()

        def act(_: Deadline) -> Token:
            inside.set()
            assert self.go_on.wait(PATIENCE)
            return Token("late")

        self.login = Login(Scripted(act), no_renewal, keeper, print)
        ask = partial(waiting, self.login, 1)
        self._thread = threading.Thread(target=lambda: self.ends.extend(ask()), daemon=True)
        self._thread.start()
        assert inside.wait(PATIENCE)

    def is_given_to_nobody(self) -> bool:
        """Wait for its end; say whether it gave no token."""
        self._thread.join(PATIENCE)
        return isinstance(self.ends[0], UnsupportedOperation) and self.login.held is None


def test_login_that_ends_after_close(keeper: Keeper) -> None:
    """A login that was under way at the close gives no token to anybody."""
    under_way = UnderWay(keeper)
    assert under_way.login.forget(0.05) == []
    under_way.go_on.set()
    assert under_way.is_given_to_nobody()


def test_token_of_a_login_under_way_is_given_up(keeper: Keeper) -> None:
    """A close that has the time to wait for a login has what came of it to revoke."""
    under_way = UnderWay(keeper)
    real = under_way.login._lock

    class Waited:
        """The lock, which lets the login end once somebody waits for it."""

        def acquire(self, timeout: float) -> bool:
            under_way.go_on.set()
            return real.acquire(timeout=timeout)

        def release(self) -> None:
            real.release()

    under_way.login._lock = Waited()  # type: ignore[assignment]
    assert [each.value for each in under_way.login.forget(PATIENCE)] == ["late"]
    assert under_way.is_given_to_nobody()


def test_tokens_that_were_replaced_are_given_up(
    keeper: Keeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A close has those to revoke, too, that are not at their end; a bounded number of them."""
    monkeypatch.setattr(login_module, "_DENIED_AGAIN", 0.0)
    monkeypatch.setattr(login_module, "_REPLACED", 3)
    lives = iter([0.0, 3600.0, None, 3600.0, 3600.0, 3600.0])
    numbers = itertools.count()
    login = Login(
        Scripted(lambda _: Token(str(next(numbers)), life=next(lives))), no_renewal, keeper, print
    )
    deadline = Deadline(PATIENCE)
    login.token(deadline)
    for _ in range(5):
        token = login.token(deadline) if login.held is None else login.held.value
        assert login.renew_after(token, Refused(403, (), {}), deadline)
    assert [each.value for each in login.forget(1.0)] == ["5", "4", "3", "2"]
    assert login.held is None


def test_token_is_never_written_down() -> None:
    """It neither prints itself nor is pickled."""
    token = Token("planted", policies=("app",))
    assert "planted" not in f"{token!r} {token}"
    with pytest.raises(TypeError, match="not pickled"):
        pickle.dumps(token)


def test_tokens_are_not_renewed_all_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes that logged in together renew one after the other, after 0.6 to 0.67 of a life."""
    waits: list[float] = []

    class Noting(Keeper):
        def at(self, seconds: float, task: Callable[[], None]) -> None:
            waits.append(seconds)

    def act(_: Deadline) -> Token:
        return Token("good", life=3600.0, renewable=True)

    for _ in range(20):
        Login(Scripted(act), no_renewal, Noting("test", 5.0), print).token(Deadline(PATIENCE))
    assert len({round(wait) for wait in waits}) > 5
    assert max(waits) - min(waits) > 40
    assert all(3600 * 0.57 < wait < 3600 * 0.67 for wait in waits)


def test_failing_renewals_are_told_and_tried_again(
    keeper: Keeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While Vault is away the token is used on; each try is nearer to its end, and said."""
    monkeypatch.setattr(login_module, "_SOONEST", 0.05)
    monkeypatch.setattr(login_module, "RENEW_AT", 0.01)
    told: list[str] = []
    tries = 0

    def renew(token: str, deadline: Deadline) -> Token:
        nonlocal tries
        tries += 1
        raise ServiceUnavailable("planted")

    def act(_: Deadline) -> Token:
        return Token("good", life=60.0, renewable=True)

    login = Login(method := Scripted(act), renew, keeper, told.append)
    assert login.token(Deadline(5)) == "good"
    until(lambda: len(told) >= 2)
    assert (tries, method.calls) == (len(told), 1)
    assert all("planted" in each and "good" not in each for each in told)


def test_renewal_that_gives_nothing_more(keeper: Keeper) -> None:
    """A renewal answered with no life at all is the end, and not a token that never ends."""

    def renew(token: str, deadline: Deadline) -> Token:
        return Token("good", life=None, renewable=True)

    def act(_: Deadline) -> Token:
        if method.calls > 1:
            raise AuthenticationFailed("planted")
        return Token("good", life=1.0, renewable=True)

    told: list[str] = []
    login = Login(method := Scripted(act), renew, keeper, told.append)
    login.token(Deadline(5))
    until(lambda: bool(told))
    assert "ends in 0 s: planted" in told[0]


def test_keeper_survives(keeper: Keeper) -> None:
    """What a task raises is dropped with it; a wait of ages is no error; closed it does nothing."""
    done = threading.Event()

    def fail() -> None:
        raise ValueError

    keeper.at(1e18, fail)
    keeper.at(0, fail)
    keeper.at(0, done.set)
    assert done.wait(PATIENCE)
    keeper.close(PATIENCE)
    assert keeper._thread is not None
    assert not keeper._thread.is_alive()
    done.clear()
    keeper.at(0, done.set)
    assert not done.is_set()


def test_keeper_without_a_thread(keeper: Keeper, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no thread is to be had the token is got all the same; later it may be."""

    def start(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", start)
        keeper.at(0, lambda: None)
    done = threading.Event()
    keeper.at(0, done.set)
    assert done.wait(PATIENCE)
