"""Fetched documents, kept for a bounded time and in bounded number.

A document is what one reference without its field names, options and all: no two references that
differ in anything else share one. Of one document there is one fetch at a time, and whoever waited
for it takes its outcome, an error too. In an outage values are used up to a hard maximum.
"""

from __future__ import annotations

import os
import threading
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from itertools import count

from sentra_kms.errors import KMSError, MalformedInput, SecretNotFound, Throttled, afresh
from sentra_kms.forks import tell_after_fork
from sentra_kms.hooktypes import SecretValue
from sentra_kms.reference import Reference
from sentra_kms.secrets.fetch import (
    Batch,
    Bound,
    Outcome,
    batch_of,
    fetch_document,
    in_one_call,
    is_local,
)
from sentra_kms.together import together

DEFAULT_TTL = 300.0  # seconds for which a value is used before its source is asked again
NEGATIVE_TTL = 10.0  # seconds for which what was not found is not looked for again
RETRY_AFTER = 5.0  # seconds between looks at a source that failed
REFRESH_AT = 2 / 3  # of the time until a value expires, after which its source is asked again
MAX_PAUSE = 60.0  # seconds for which a source that asks for fewer calls is left alone at most
MAX_DOCUMENTS = 1000
MAX_AT_ONCE = 8  # documents that one call fetches at a time
MAX_BACKGROUND = 8  # renewals in the background at a time
_JITTER = 0.1  # of a TTL, taken off

IsKept = Callable[[str], bool]
"""Whether a backend of this name is the source that it was."""

Spawn = Callable[[Callable[[], None]], None]
"""Runs a renewal in the background."""


class Held:
    """A document as it was fetched, or that it was not found. Times are monotonic seconds."""

    __slots__ = ("failure", "fresh_until", "hard_until", "value")

    def __init__(
        self, value: SecretValue | None, failure: KMSError | None, fresh: float, hard: float
    ) -> None:
        self.value: SecretValue | None = value
        self.failure: KMSError | None = failure
        self.fresh_until: float = fresh
        self.hard_until: float = hard


class _Slot:
    """One document's lock and what the last look came to, which `begun` and `ended` tell."""

    __slots__ = ("begun", "ended", "failure", "held", "lock", "quiet_until", "renewing")

    def __init__(self) -> None:
        self.lock = threading.RLock()  # a signal handler may ask while its own thread looks
        self.held: Held | None = None
        self.failure: KMSError | None = None
        self.begun = -1
        self.ended = -1
        self.quiet_until = float("-inf")
        self.renewing = False


class Documents:
    """Documents by reference. `now` is monotonic, `clock` seconds since the epoch.

    `ttls` has the time in seconds of documents that have one of their own; `generation` changes
    whenever a document does.
    """

    def __init__(
        self,
        bound: Bound,
        *,
        now: Callable[[], float],
        clock: Callable[[], float],
        max_stale: float,
        ttls: Mapping[Reference, float],
        spawn: Spawn | None = None,
    ) -> None:
        self.generation: int = 0
        self._bound = bound
        self._now = now
        self._clock = clock
        self._max_stale = max_stale
        self._ttls = ttls
        self._spawn = spawn or _in_thread
        self._ticks = count()
        self._slots: dict[Reference, _Slot] = {}
        self._closed = False
        self.after_fork()
        tell_after_fork(self)

    def after_fork(self) -> None:
        """Replace locks that others may have held; what the parent may give back is due."""
        self._lock = threading.RLock()
        self._background = 0
        for slot in self._slots.values():
            slot.lock = threading.RLock()
            slot.renewing = False
            _make_due(slot.held)
        self.generation += 1

    def adopt(self, max_stale: float, ttls: Mapping[Reference, float], is_kept: IsKept) -> None:
        """Hold documents by other times from the next look on, and none of backends not kept.

        What is being fetched is held by nobody: its slot is gone. What has an end of its own is
        looked at when it is next asked for: a backend may be bound anew, and one that is closed
        gives leases back.
        """
        kept: dict[str, bool] = {}
        with self._lock:
            self._max_stale, self._ttls = max_stale, ttls
            for document, slot in list(self._slots.items()):
                name = document.backend
                if name not in kept:
                    kept[name] = is_kept(name)
                if kept[name]:
                    self._slots[document] = _again(slot)
                else:
                    del self._slots[document]
            self.generation += 1

    def get(self, document: Reference) -> Held:
        """Return a document that may be used now, asking its source if that is due.

        Raises the source's error, but not a passing one while the value is not too old.
        """
        slot = self._slot(document)
        found = self._usable(document, slot)
        if found is not None:
            return found
        return self._shared(document, slot, next(self._ticks))

    def get_many(self, documents: Sequence[Reference]) -> dict[Reference, Held | KMSError]:
        """Ask for all that is due, together; return what that came to."""
        found: dict[Reference, Held | KMSError] = {}
        # Slots first, and then who is asked: after a reload in between they are nobody's any more.
        slots = {document: self._slot(document) for document in documents}
        groups: defaultdict[str, list[Reference]] = defaultdict(list)
        for document, slot in slots.items():
            if self._usable(document, slot) is None:
                groups[document.backend].append(document)
        work: list[Callable[[], None]] = []
        for name, group in groups.items():
            batch = batch_of(self._bound, name) if len(group) > 1 else None
            if batch is not None:
                pairs = [(document, slots[document]) for document in group]
                work.append(partial(self._look_at_many, batch, pairs, found))
            elif is_local(self._bound, name):  # sooner done than a thread is started
                for document in group:
                    self._try(document, found)
            else:
                work += [partial(self._try, document, found) for document in group]
        together(lambda each: each(), work, MAX_AT_ONCE)
        return found

    def _try(self, document: Reference, found: dict[Reference, Held | KMSError]) -> None:
        try:
            found[document] = self.get(document)
        except KMSError as error:
            found[document] = afresh(error)

    def _look_at_many(
        self,
        batch: Batch,
        every: Sequence[tuple[Reference, _Slot]],
        found: dict[Reference, Held | KMSError],
    ) -> None:
        asked = next(self._ticks)
        with ExitStack() as locks:
            slots: list[tuple[Reference, _Slot]] = []
            for document, slot in every:
                # Who holds locks waits for none, so that no two calls wait for each other.
                if not slot.lock.acquire(blocking=False):
                    continue
                locks.callback(slot.lock.release)
                if slot.ended < asked and self._now() >= slot.quiet_until:
                    slots.append((document, slot))
            begun = next(self._ticks)
            outcomes = in_one_call(batch, [document for document, _ in slots]) if slots else []
            for (document, slot), outcome in zip(slots, outcomes, strict=True):
                self._take(document, slot, outcome, begun)
        for document, slot in every:
            try:
                found[document] = self._shared(document, slot, asked)
            except KMSError as error:
                found[document] = afresh(error)

    def _shared(self, document: Reference, slot: _Slot, asked: int) -> Held:
        """Return what a look that ended after `asked` came to, or one that is made now."""
        with slot.lock:
            quiet = self._now() < slot.quiet_until and slot.failure is not None
            if slot.ended < asked and not quiet:
                self._look(document, slot)
            return self._outcome(slot)

    def renew(self, document: Reference) -> Held:
        """Ask the source now, whatever is held; threads that ask at once share one look.

        It begins after each of them asked. Raises the source's error, also one that passes; again,
        while the source asks for fewer calls.
        """
        slot = self._slot(document)
        asked = next(self._ticks)
        with slot.lock:
            paused = isinstance(slot.failure, Throttled) and self._now() < slot.quiet_until
            if slot.begun < asked and not paused:
                self._look(document, slot)
            if slot.failure is not None and not isinstance(slot.failure, SecretNotFound):
                raise afresh(slot.failure)
            return self._outcome(slot)

    def is_current(self, document: Reference, held: Held) -> bool:
        """Whether this is what is held of a document now."""
        slot = self._slots.get(document)
        return slot is not None and slot.held is held

    def doubt(self, document: Reference) -> None:
        """Have a document that turned out useless looked at again soon."""
        held = self._slot(document).held
        if held is not None:
            held.fresh_until = min(held.fresh_until, self._now() + RETRY_AFTER)

    def expire(self) -> None:
        """Make everything due; what was not found, and pauses after failures, are forgotten."""
        for slot in list(self._slots.values()):
            slot.quiet_until = float("-inf")
            held = slot.held
            if held is not None and held.value is None:
                slot.held = None
            elif held is not None:
                held.fresh_until = min(held.fresh_until, self._now())
        self.generation += 1

    def values(self) -> list[SecretValue]:
        """Return what is held."""
        found = [slot.held for slot in list(self._slots.values())]
        return [held.value for held in found if held is not None and held.value is not None]

    def close(self) -> None:
        """Forget everything, and hold nothing from now on."""
        with self._lock:
            self._closed = True
            self._slots.clear()
            self.generation += 1

    def _slot(self, document: Reference) -> _Slot:
        slot = self._slots.get(document)
        if slot is not None:
            return slot
        with self._lock:
            slot = self._slots.get(document) or _Slot()
            if not self._closed:
                self._slots[document] = slot
                while len(self._slots) > MAX_DOCUMENTS:  # what was first asked for longest ago
                    del self._slots[next(iter(self._slots))]
            return slot

    def _usable(self, document: Reference, slot: _Slot) -> Held | None:
        """Return what is held if it may be used; renew it behind its user's back if it is due."""
        held, now = slot.held, self._now()
        if held is None or now >= held.hard_until:
            return None
        if now < held.fresh_until:
            return held
        ttl = self._ttl(document)
        if held.value is None or now >= held.fresh_until + ttl:
            return None  # one that was not looked at for long may be wrong, and is waited for
        self._renew_behind(document, slot)
        return slot.held if slot.held is not None and now < slot.held.hard_until else None

    def _renew_behind(self, document: Reference, slot: _Slot) -> None:
        with self._lock:
            if slot.renewing or self._background >= MAX_BACKGROUND:
                return
            if self._now() < slot.quiet_until:
                return
            slot.renewing = True
            self._background += 1

        def renew() -> None:
            try:
                with slot.lock:
                    self._look(document, slot)
            finally:
                self._renewed(slot)

        try:
            self._spawn(renew)
        except RuntimeError:  # no thread can be started: at the interpreter's end
            self._renewed(slot)

    def _renewed(self, slot: _Slot) -> None:
        with self._lock:
            slot.renewing = False
            self._background = max(0, self._background - 1)

    def _look(self, document: Reference, slot: _Slot) -> None:
        begun = next(self._ticks)
        try:
            outcome: Outcome = fetch_document(self._bound, document)
        except KMSError as error:
            outcome = afresh(error)
        self._take(document, slot, outcome, begun)

    def _take(self, document: Reference, slot: _Slot, outcome: Outcome, begun: int) -> None:
        now, before = self._now(), slot.held
        held: Held | None = None
        failure: KMSError | None = None
        quiet = float("-inf")
        if isinstance(outcome, SecretValue):
            held = Held(outcome, None, *self._times(document, outcome, now))
        elif isinstance(outcome, SecretNotFound):
            failure = outcome
            held = Held(None, outcome, now + NEGATIVE_TTL, now + NEGATIVE_TTL)
        else:
            failure = outcome
            pause = RETRY_AFTER if before is not None and before.value is not None else 0.0
            if isinstance(outcome, Throttled) and outcome.retry_after is not None:
                pause = max(pause, min(MAX_PAUSE, outcome.retry_after))
            quiet = now + pause
            if _passes(outcome) and before is not None and before.value is not None:
                held = before
                held.fresh_until = min(held.hard_until, now + self._jittered(RETRY_AFTER))
        last = begun, next(self._ticks), held, failure, quiet
        if slot.begun > begun:
            return  # a signal handler looked while this look was under way, and knows better
        # Nothing is called since that comparison, so that no handler comes between.
        slot.begun, slot.ended, slot.held, slot.failure, slot.quiet_until = last
        if held is not before and not (
            before is not None and held is not None and before.value == held.value
        ):
            self.generation += 1

    def _outcome(self, slot: _Slot) -> Held:
        held = slot.held
        if held is not None and self._now() < held.hard_until:
            return held
        if slot.failure is not None:
            raise afresh(slot.failure)
        if held is not None:  # fetched this moment, and expired by its own account
            return held
        raise MalformedInput("this secret was dropped while it was fetched: ask again")

    def _times(self, document: Reference, found: SecretValue, now: float) -> tuple[float, float]:
        ttl = self._ttl(document)
        fresh, hard = now + self._jittered(ttl), now + max(ttl, self._max_stale)
        if found.expires is not None:
            left = found.expires.timestamp() - self._clock()
            # Ahead of its end, so that nobody waits for the next; but not ever faster before it.
            ahead = max(self._jittered(left * REFRESH_AT), min(left, RETRY_AFTER))
            fresh, hard = min(fresh, now + ahead), min(hard, now + left)
        return fresh, hard

    def _ttl(self, document: Reference) -> float:
        return self._ttls.get(document, DEFAULT_TTL)

    def _jittered(self, seconds: float) -> float:
        return seconds * (1 - _JITTER * int.from_bytes(os.urandom(2), "big") / 0xFFFF)


def _again(slot: _Slot) -> _Slot:
    """Return another slot that holds the same, for which nothing is under way."""
    made = _Slot()
    made.held, made.failure, made.quiet_until = slot.held, slot.failure, slot.quiet_until
    _make_due(made.held)
    return made


def _make_due(held: Held | None) -> None:
    """Have what has an end of its own looked at when it is next asked for."""
    if held is not None and held.value is not None and held.value.expires is not None:
        held.fresh_until = float("-inf")


def _passes(error: KMSError) -> bool:
    """Whether a value is used on for a while after this error: nobody said that it is wrong."""
    return error.retryable or isinstance(error, MalformedInput)


def _in_thread(work: Callable[[], None]) -> None:
    threading.Thread(target=work, name="sentra-kms-secrets", daemon=True).start()
