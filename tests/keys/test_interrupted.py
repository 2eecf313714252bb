"""What a signal handler raises in the middle of a message reaches whoever waits for it."""

from __future__ import annotations

import errno
import gc
import os
import signal
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import pytest

from sentra_kms.config import read_settings
from sentra_kms.errors import KMSError
from sentra_kms.keys import tenant_keys
from sentra_kms.keys.tenant_keys import TenantKeys
from sentra_kms.runtime import KMS
from tests.ground.leaks import locals_inside, shows
from tests.keys.conftest import Later, memory_config, nonce_of

SMALL, LARGE = b"x" * 64, bytes(100_000)
TIMES = 100
RAISED = [TimeoutError, KeyError, ValueError, KeyboardInterrupt]
SECRET = b"a secret that no frame may show in the end"


class Clock:
    """A clock at whose next look a signal comes, if the test says so."""

    armed = False

    def __call__(self) -> float:
        """Return the time."""
        if self.armed:
            self.armed = False
            signal.raise_signal(signal.SIGUSR1)
        return 1000.0


@pytest.fixture
def clock() -> Clock:
    """A clock that stands still."""
    return Clock()


@pytest.fixture
def acme(clock: Clock) -> Iterator[TenantKeys]:
    """A tenant in memory, with a message's worth of warmth."""
    settings = read_settings(memory_config(), "test")
    with KMS(settings, now=clock, background=Later()) as kms:
        kms.keys.create("acme")
        handle = kms.keys.tenant("acme")
        handle.decrypt(handle.encrypt(b"warm"))
        yield handle


@pytest.fixture
def handle_signal() -> Iterator[Callable[[signal.Signals, Callable[[], object]], None]]:
    """Have something done when a signal comes; what was done before is put back."""
    before: dict[signal.Signals, Any] = {}

    def handle(number: signal.Signals, act: Callable[[], object]) -> None:
        def handler(_: int, frame: FrameType | None) -> None:
            act()

        before.setdefault(number, signal.signal(number, handler))

    yield handle
    signal.setitimer(signal.ITIMER_REAL, 0)
    for number, handler in before.items():
        signal.signal(number, handler)


Handle = Callable[[signal.Signals, Callable[[], object]], None]


def works(acme: TenantKeys) -> dict[str, Callable[[], object]]:
    """Return the ways through the hot path."""
    small, large = acme.encrypt(SMALL), acme.encrypt(LARGE)
    return {
        "encrypt small": lambda: acme.encrypt(SMALL),
        "encrypt large": lambda: acme.encrypt(LARGE),
        "decrypt small": lambda: acme.decrypt(small),
        "decrypt large": lambda: acme.decrypt(large),
        "encrypt_many": lambda: acme.encrypt_many([SMALL, LARGE]),
        "decrypt_many": lambda: acme.decrypt_many([small, small, large]),
    }


WORKS = [f"{way} {size}" for way in ("encrypt", "decrypt") for size in ("small", "large")]
WORKS += ["encrypt_many", "decrypt_many"]


@pytest.mark.parametrize("kind", RAISED)
@pytest.mark.parametrize("work", WORKS)
def test_handler_that_raises_at_the_look_at_the_clock_is_heard(
    acme: TenantKeys, clock: Clock, handle_signal: Handle, work: str, kind: type[BaseException]
) -> None:
    """A handler's error is not taken for a key that is not at hand, nor for a refused nonce."""

    def act() -> None:
        raise kind("the handler's own")

    handle_signal(signal.SIGUSR1, act)
    attempt = works(acme)[work]
    clock.armed = True
    with pytest.raises(kind, match="the handler's own"):
        attempt()
    assert not clock.armed
    attempt()


@pytest.mark.parametrize("kind", RAISED)
@pytest.mark.parametrize("work", WORKS)
def test_handler_that_raises_at_any_time_is_heard(
    acme: TenantKeys, handle_signal: Handle, work: str, kind: type[BaseException]
) -> None:
    """An alarm ends the loop that it is set for, each time, wherever in a message it falls."""
    attempt = works(acme)[work]
    fired: list[None] = []

    def act() -> None:
        fired.append(None)
        raise kind("the handler's own")

    def until_it_fires(number: int) -> None:
        signal.setitimer(signal.ITIMER_REAL, 5e-5 + number * 1e-6)
        while len(fired) == number:
            attempt()

    handle_signal(signal.SIGALRM, act)
    gc.disable()  # an error within a collection is heard by nobody
    try:
        for number in range(TIMES):
            with pytest.raises(kind, match="the handler's own"):
                until_it_fires(number)
            assert len(fired) == number + 1
    finally:
        gc.enable()
    attempt()


@pytest.mark.parametrize(
    "error", [TimeoutError("late"), BrokenPipeError(errno.EPIPE, "a handler's file")]
)
def test_error_of_the_system_that_no_sandbox_gives_is_not_taken_for_its_refusal(
    acme: TenantKeys, monkeypatch: pytest.MonkeyPatch, error: OSError
) -> None:
    """What a handler raises while a nonce is drawn is his, too."""

    def interrupted(_: int) -> bytes:
        raise error

    monkeypatch.setattr(tenant_keys, "quick_random", interrupted)
    with pytest.raises(type(error)) as caught:
        acme.encrypt(SMALL)
    assert caught.value is error


def test_handler_that_seals_and_opens_in_the_middle_of_a_message_draws_nonces_of_its_own(
    acme: TenantKeys, handle_signal: Handle
) -> None:
    """Both messages open, and no nonce comes twice."""
    found: list[bytes] = []

    def act() -> None:
        found.extend([acme.encrypt(SMALL), acme.encrypt(LARGE), *acme.encrypt_many([SMALL] * 3)])
        assert acme.decrypt_many(found[-5:]) == [SMALL, LARGE, *[SMALL] * 3]

    handle_signal(signal.SIGALRM, act)
    signal.setitimer(signal.ITIMER_REAL, 1e-4, 3e-4)
    mine: list[bytes] = []
    while len(found) < 5 * TIMES:
        mine += [acme.encrypt(SMALL), acme.encrypt(LARGE), *acme.encrypt_many([SMALL] * 3)]
        mine = mine[-1000:]
        assert acme.decrypt(mine[-1]) == SMALL
    signal.setitimer(signal.ITIMER_REAL, 0)
    assert acme.decrypt_many(mine) == ([SMALL, LARGE, SMALL, SMALL, SMALL] * 200)[-len(mine) :]
    assert len({nonce_of(message) for message in mine + found}) == len(mine) + len(found)


@pytest.mark.parametrize("kind", [RuntimeError, KeyError, ValueError, KeyboardInterrupt])
@pytest.mark.parametrize("place", [1, 3, 200])
def test_batch_that_ends_in_anybodys_error_leaves_no_plaintext_in_its_frames(
    acme: TenantKeys, kind: type[BaseException], place: int
) -> None:
    """Also what the caller's own context raises: a traceback that shows variables shows none."""

    class Raises(dict[str, str]):
        def __iter__(self) -> Iterator[str]:
            raise kind("his own")

        keys = __iter__  # type: ignore[assignment]

    messages = acme.encrypt_many([SECRET] * (place + 1))
    contexts: list[Any] = [None] * place + [Raises(a="1")]
    with pytest.raises(kind, match="his own") as caught:
        acme.decrypt_many(messages, contexts)
    assert not shows(locals_inside(caught.value), SECRET)


@pytest.mark.parametrize("place", [0, 1, 200])
def test_batch_with_a_message_that_does_not_open_leaves_no_plaintext_in_its_frames(
    acme: TenantKeys, place: int
) -> None:
    """Whichever way it fails, and wherever it stands."""
    messages = acme.encrypt_many([SECRET] * (place + 1))
    last = messages[-1]
    large = acme.encrypt(SECRET * 1000)
    foreign = last[:4] + os.urandom(12) + last[16:]
    unknown = last[:16] + b"\0\0\0\x09" + last[20:]
    for wrong in (last[:-1], last[:95], last[:70], b"", large[:-1], foreign, unknown):
        with pytest.raises(KMSError) as caught:
            acme.decrypt_many([*messages[:-1], large, wrong])
        told = locals_inside(caught.value)
        assert "messages" in told
        assert not shows(told, SECRET)
