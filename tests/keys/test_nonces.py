"""No nonce is drawn twice under one salt, whoever forks, and a salt ends where it must."""

from __future__ import annotations

import ctypes
import errno
import multiprocessing
import os
import signal
import sys
import threading
import warnings
from collections import Counter
from collections.abc import Callable, Iterable
from multiprocessing.connection import Connection
from typing import Literal

import pytest

from sentra_kms.keys import message as message_format
from sentra_kms.keys import tenant_keys
from sentra_kms.keys.tenant_keys import TenantKeys
from sentra_kms.runtime import KMS
from tests.keys.conftest import WAIT, nonce_of, salt_of
from tests.soak import scale

LIBC = ctypes.PyDLL(None)  # its calls keep the GIL, without which the child could not go on
BATCHES = (1, 99, 150, 250)
MESSAGES = 1000
SIZES = [2**11, 2**14 + 1, 2**16] * 3  # bytes: each is sealed in a way of its own
SALT, RECORD = 16, 28  # bytes: a salt, and a salt with a nonce
GIB = 2**30
TICK = 16 * 1024

Fork = Literal["seen", "unseen"]


def seal(acme: TenantKeys) -> bytes:
    """Seal 1,000 messages, half of them in batches; return salt and nonce of each."""
    sizes = [1] * (MESSAGES // 2 - len(SIZES)) + SIZES
    messages = [acme.encrypt(bytes(size)) for size in sizes]
    for size in BATCHES:
        messages += acme.encrypt_many([b"x"] * size)
    assert len(messages) == MESSAGES
    return records(messages)


def records(messages: Iterable[bytes]) -> bytes:
    """Return salt and nonce of each message."""
    return b"".join(salt_of(message) + nonce_of(message) for message in messages)


def salts_in(found: bytes) -> set[bytes]:
    """Return the salts in a run of records."""
    return {found[start : start + SALT] for start in range(0, len(found), RECORD)}


class Ledger:
    """Refuses a nonce that comes twice under one salt. Forgets the nonces of salts that ended."""

    def __init__(self) -> None:
        self.messages = 0
        self._nonces: dict[bytes, set[bytes]] = {}
        self._ended: set[bytes] = set()

    def enter(self, found: bytes, going_on: bytes | None = None) -> None:
        """Take records. Every salt but `going_on` has ended with them, and may not come again."""
        assert len(found) % RECORD == 0
        for start in range(0, len(found), RECORD):
            salt, nonce = found[start : start + SALT], found[start + SALT : start + RECORD]
            assert salt not in self._ended, "a salt came again after it had ended"
            nonces = self._nonces.setdefault(salt, set())
            assert nonce not in nonces, "a nonce came twice under one salt"
            nonces.add(nonce)
        self.messages += len(found) // RECORD
        for salt in self._nonces.keys() - {going_on}:
            self._ended.add(salt)
            del self._nonces[salt]


class Child:
    """A forked process that answers with bytes: by `os.fork`, or by one that Python misses."""

    def __init__(self, kind: Fork, work: Callable[[], bytes]) -> None:
        self._pipe, answer = os.pipe()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # forking with threads is a case
            self._pid = os.fork() if kind == "seen" else LIBC.fork()
        if self._pid == 0:
            self._run(work, answer)
        os.close(answer)

    def _run(self, work: Callable[[], bytes], answer: int) -> None:
        # Not by os._exit, where a measurement of coverage would be saved, each of these times.
        leave = LIBC._exit
        try:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(int(WAIT))
            found = memoryview(work())
            while found:
                found = found[os.write(answer, found) :]
            leave(0)
        finally:
            leave(1)

    def answer(self) -> bytes:
        """Return what the child answered."""
        with os.fdopen(self._pipe, "rb") as pipe:
            found = pipe.read()
        assert os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1]) == 0
        return found


@pytest.mark.soak
@pytest.mark.parametrize("kind", ["seen", "unseen"])
def test_parent_and_child_seal_on_and_share_no_nonce(memory_kms: KMS, kind: Fork) -> None:
    """Fork after fork within an epoch, 1,000 messages on each side of it: all nonces differ.

    A fork that Python sees gives the child a salt of its own. One that it does not see leaves
    parent and child with one salt, and the nonces drawn inside each call keep them apart.
    """
    acme = memory_kms.keys.tenant("acme")
    ledger = Ledger()
    forks = scale(ci=50, soak=10_000)
    shared = 0
    for _ in range(forks):
        before = acme.encrypt(b"x")
        child = Child(kind, lambda: seal(acme))
        mine = seal(acme)
        theirs = child.answer()
        shared += salt_of(before) in salts_in(theirs)
        ledger.enter(records([before]) + mine + theirs, mine[-RECORD:][:SALT])
    assert ledger.messages == forks * (2 * MESSAGES + 1)
    assert shared == (forks if kind == "unseen" else 0)


@pytest.mark.parametrize("second", ["seen", "unseen"])
@pytest.mark.parametrize("first", ["seen", "unseen"])
def test_forks_of_forks_share_no_nonce(memory_kms: KMS, first: Fork, second: Fork) -> None:
    """A child that has used its epoch forks in turn, either way."""
    acme = memory_kms.keys.tenant("acme")

    def work() -> bytes:
        mine = records([acme.encrypt(b"x")])
        grandchildren = [Child(second, lambda: seal(acme)) for _ in range(2)]
        return mine + seal(acme) + b"".join(each.answer() for each in grandchildren)

    before = records([acme.encrypt(b"x")])
    child = Child(first, work)
    whole = before + seal(acme) + child.answer()
    ledger = Ledger()
    ledger.enter(whole)
    assert ledger.messages == 2 + 4 * MESSAGES
    seen = (first == "seen") + 2 * (second == "seen")
    assert len(salts_in(whole)) == 1 + seen


@pytest.mark.soak
def test_forks_while_threads_seal_share_no_salt(memory_kms: KMS) -> None:
    """Children of a process whose threads go on sealing have salts of their own, each another."""
    acme = memory_kms.keys.tenant("acme")
    acme.encrypt(b"x")
    stop = threading.Event()
    sealed: list[list[bytes]] = [[], [], [], []]

    def work(found: list[bytes]) -> None:
        while not stop.wait(0.0005):  # so that the others have their turn
            found.append(records([acme.encrypt(b"x"), *acme.encrypt_many([b"x"] * 49)]))

    threads = [threading.Thread(target=work, args=(found,), daemon=True) for found in sealed]
    for thread in threads:
        thread.start()
    try:
        children = [
            Child("seen", lambda: seal(acme)).answer() for _ in range(scale(ci=10, soak=300))
        ]
    finally:
        stop.set()
        for thread in threads:
            thread.join(WAIT)
    mine = b"".join(piece for found in sealed for piece in found)
    assert mine
    ledger = Ledger()
    for found in (mine, *children):
        ledger.enter(found)  # which refuses the salts of those before
    assert ledger.messages == len(mine) // RECORD + len(children) * MESSAGES


def test_processes_of_multiprocessing_share_no_salt(memory_kms: KMS) -> None:
    """Workers that multiprocessing forks have salts of their own."""
    acme = memory_kms.keys.tenant("acme")
    before = records([acme.encrypt(b"x")])
    context = multiprocessing.get_context("fork")

    def work(answer: Connection) -> None:
        answer.send_bytes(seal(acme))

    ledger = Ledger()
    ledger.enter(before + seal(acme))
    pipes = [context.Pipe(duplex=False) for _ in range(4)]
    workers = [context.Process(target=work, args=(there,)) for _, there in pipes]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        for worker in workers:
            worker.start()
    for here, _ in pipes:
        assert here.poll(WAIT)
        ledger.enter(here.recv_bytes())
    for worker in workers:
        worker.join(WAIT)
        assert worker.exitcode == 0
    assert ledger.messages == 1 + 5 * MESSAGES


# --- where a salt ends --------------------------------------------------------------------------


def test_copy_of_an_epoch_rolls_over_to_a_salt_of_its_own(
    memory_kms: KMS, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a fork that Python missed, both sides use up the epoch and go on apart."""
    bound = 8
    monkeypatch.setattr(message_format, "EPOCH_TICKS", bound)
    acme = memory_kms.keys.tenant("acme")
    before = [acme.encrypt(b"x") for _ in range(3)]

    def work() -> bytes:
        return records([acme.encrypt(b"x") for _ in range(3 * bound)])

    child = Child("unseen", work)
    sides = [work(), child.answer()]
    for side in sides:
        assert side[:SALT] == salt_of(before[0])
        ends = range(0, len(side), RECORD)
        assert max(Counter(side[start : start + SALT] for start in ends).values()) == bound
    assert salts_in(sides[0]) & salts_in(sides[1]) == {salt_of(before[0])}
    ledger = Ledger()
    ledger.enter(records(before) + sides[0] + sides[1])


def test_batch_of_more_than_2_to_the_16_messages_gets_a_second_salt(memory_kms: KMS) -> None:
    """The bound of messages holds within one batch, at its real size."""
    messages = memory_kms.keys.encrypt_many("acme", [b""] * (2**16 + 10))
    assert list(Counter(map(salt_of, messages)).values()) == [2**16, 10]
    assert len(set(map(nonce_of, messages))) == len(messages)


@pytest.mark.soak
@pytest.mark.parametrize(
    ("size", "fit"),
    [(64 * 1024 * 1024, 16), (1024 * 1024, 1024), (TICK, 2**16), (TICK + 1, 2**15)][: scale(1, 4)],
)
def test_salt_ends_after_a_gib_of_plaintext(memory_kms: KMS, size: int, fit: int) -> None:
    """As many messages as fit into 1 GiB are sealed under one salt, the next under another."""
    acme = memory_kms.keys.tenant("acme")
    plaintext = bytes(size)
    salts = Counter(salt_of(acme.encrypt(plaintext)) for _ in range(fit + 1))
    assert list(salts.values()) == [fit, 1]
    assert fit * size <= GIB


def no_getrandom(*_: object) -> bytes:
    """Do what a sandbox does."""
    raise PermissionError(errno.EPERM, "refused")


def test_nonces_are_drawn_where_there_is_no_getrandom(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the system has none, or a sandbox refuses it, they come from `os.urandom`."""
    choose = message_format._random
    if sys.platform == "linux":
        assert message_format.quick_random is choose() is os.getrandom
        monkeypatch.setattr(os, "getrandom", no_getrandom)
        assert choose() is os.urandom
        monkeypatch.delattr(os, "getrandom")
    assert choose() is os.urandom


def test_getrandom_that_is_refused_later_on_stops_nobody(
    memory_kms: KMS, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that gives up the right to call it goes on with `os.urandom`."""
    acme = memory_kms.keys.tenant("acme")
    salt = salt_of(acme.encrypt(b""))
    monkeypatch.setattr(tenant_keys, "quick_random", no_getrandom)
    messages = [acme.encrypt(b"x") for _ in range(100)]
    assert {salt_of(message) for message in messages} == {salt}
    assert len({nonce_of(message) for message in messages}) == 100
    assert acme.decrypt_many(messages) == [b"x"] * 100
