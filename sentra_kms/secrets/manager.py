"""`kms.secrets`: secrets by name or reference."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING

from sentra_kms.errors import (
    ConfigurationError,
    KMSError,
    MalformedInput,
    SecretNotFound,
    UnsupportedOperation,
)
from sentra_kms.forks import tell_after_fork
from sentra_kms.material import Secret
from sentra_kms.reference import Reference
from sentra_kms.secret_settings import SecretEntry, SecretSource
from sentra_kms.secrets.compose import Snapshot, attempt, named, ttls_of
from sentra_kms.secrets.documents import DEFAULT_TTL, Documents, IsKept, Spawn
from sentra_kms.secrets.fetch import Bound
from sentra_kms.secrets.transforms import drop_newline
from sentra_kms.secrets.values import Values

if TYPE_CHECKING:
    import logging

    from sentra_kms.redaction import RedactionFilter
    from sentra_kms.secrets.aio import AsyncSecrets
    from sentra_kms.secrets.environ import SecretEnviron
    from sentra_kms.secrets.watch import Watch

DEFAULT_MAX_STALE = 3600.0  # seconds


class SecretManager:
    """Secrets by name or reference. Safe to use from many threads and after a fork.

    `entries` are the declared ones, by name. `now` is a monotonic clock, `clock` gives seconds
    since the epoch; `max_stale` is how old a value may get in an outage, in seconds. `where` says
    in errors where names are declared.
    """

    def __init__(
        self,
        bound: Bound,
        entries: Mapping[str, SecretEntry],
        *,
        max_stale: float = DEFAULT_MAX_STALE,
        clock: Callable[[], float] = time.time,
        now: Callable[[], float] = time.monotonic,
        spawn: Spawn | None = None,
        where: str = "[secrets]",
    ) -> None:
        self.adoptions: int = 0
        self._bound = bound
        self._where = where
        self._documents = Documents(
            bound, now=now, clock=clock, max_stale=max_stale, ttls=ttls_of(entries), spawn=spawn
        )
        self._values = Values(self._documents, entries, max_stale, now, self._wake)
        self._watches: list[Watch] = []
        self._made_aio: dict[None, AsyncSecrets] = {}  # none or one
        self._closed = False
        self.after_fork()
        tell_after_fork(self)

    def after_fork(self) -> None:
        """Start the child with locks of its own, and its watches anew at the next look."""
        self._lock = threading.RLock()  # a signal handler may ask while a value is put away
        self._asleep = bool(self._watches)

    def __repr__(self) -> str:
        return f"SecretManager({', '.join(self.names())})"

    @property
    def aio(self) -> AsyncSecrets:
        """The same for `asyncio`."""
        found = self._made_aio.get(None)
        if found is None:
            from sentra_kms.secrets.aio import AsyncSecrets

            found = self._made_aio.setdefault(None, AsyncSecrets(self))
        return found

    def adopt(
        self,
        entries: Mapping[str, SecretEntry],
        max_stale: float,
        is_kept: IsKept = lambda _: True,
    ) -> None:
        """Go on by other declarations.

        What is held of backends that are kept stays for as long as it may, and of others nothing.
        """
        with self._values.lock:
            self._documents.adopt(max_stale, ttls_of(entries), is_kept)
            self._values.adopt(entries, max_stale, is_kept)
            self.adoptions += 1
        for watch in list(self._watches):
            watch.wake()

    def names(self) -> tuple[str, ...]:
        """Return the names of the declared secrets, sorted."""
        return tuple(sorted(self._values.entries))

    def get(self, secret: str) -> Secret:
        """Return a secret, by a declared name or by a reference.

        Its source is asked at most once in its time to live, however many threads ask. Raises
        `SecretNotFound`, also for a name that is not declared; `MalformedInput` if the value is
        empty or not of the declared form; and what the source raises, in an outage once the last
        value is older than `max_stale`.
        """
        held = self.held(secret)
        return self._look(secret) if held is None else held

    def get_many(self, secrets: Iterable[str]) -> dict[str, Secret]:
        """Return several secrets, fetched together, and in one call where a backend can.

        Those that are fields of one document are of one state of it, also while it is rotated.
        Raises the first error, in the order of the names.
        """
        names = named(secrets)
        held = self.held_together(names)
        if held is not None:
            return held
        entries = {name: self._entry(name) for name in names}
        self._wake_watches()
        snapshot = self._snapshot(entries.values())
        made = {
            name: attempt(name, entry, snapshot, self._bound) for name, entry in entries.items()
        }
        return self._values.together(entries, made)

    def refresh(self, secret: str) -> Secret:
        """Ask the source now, for example after the secret was not accepted, and return its value.

        Threads that refresh at once share one look, which begins after each of them asked. Raises
        as `get` does, and what the source raises also in an outage.
        """
        entry = self._entry(secret)
        self._wake_watches()
        renewing = Snapshot(self._documents, renew=True)
        return self._build(secret, entry, renewing, coast=False)

    def previous(self, secret: str) -> Secret | None:
        """Return the value before the last change that this process saw, else `None`.

        For the time of an overlap, such as a session signed under the earlier value: it is given
        for `max_stale` after the change was seen.
        """
        self._entry(secret)
        return self._values.previous(secret)

    def created(self, secret: str) -> datetime | None:
        """Return when a secret's version was made, `None` if its source does not tell.

        Of a composed one it is that of its oldest part. Raises as `get` does.
        """
        self.get(secret)
        view = self._values.last(secret)
        return None if view is None else view.created

    def watch(
        self,
        secret: str,
        callback: Callable[[Secret], object],
        *,
        interval: float | None = None,
        on_error: Callable[[KMSError], object] | None = None,
    ) -> Watch:
        """Call `callback` with the new value after each change, until the handle's `stop()`.

        It is called in a thread of this watch alone, one call at a time; while it takes its time
        no other watch waits, and changes meanwhile are told as one. The source is asked every
        `interval` seconds (default: the secret's time to live); a change that anything else in
        this process sees is told at once. Errors are logged, given to `on_error` in the same
        thread, and the source is asked again; the last good value stays. What the callback raises
        is logged by its kind. Raises as `get` does, which tells the value to begin from.
        """
        from sentra_kms.secrets.watch import Watch

        entry = self._entry(secret)
        view = self._values.last(secret)
        found = self.get(secret)
        seen = found if view is None else view.secret  # what this process went by until now
        every = interval if interval is not None else entry.ttl or DEFAULT_TTL
        if not every > 0:
            raise MalformedInput("a watch asks every so many seconds, more than none")
        watch = Watch(self, secret, seen, callback, every, on_error)
        with self._lock:
            if self._closed:
                raise UnsupportedOperation("these secrets are closed: load() again")
            self._watches.append(watch)
        watch.start()
        watch.wake()  # to tell of what has changed before it was there
        return watch

    def environ(self) -> SecretEnviron:
        """Return the declared secrets as a mapping of text, for settings modules."""
        from sentra_kms.secrets.environ import SecretEnviron

        return SecretEnviron(self)

    def redact_logs(self, logger: logging.Logger | None = None) -> RedactionFilter:
        """Mask every secret that is held in what a logger's handlers write (default: the root's).

        Returns the filter, to be added to handlers that come later. Raises `ConfigurationError` if
        there is no handler yet: it would mask nothing.
        """
        import logging

        from sentra_kms.redaction import RedactionFilter

        handlers = (logger or logging.getLogger()).handlers
        if not handlers:
            raise ConfigurationError(
                "this logger has no handlers yet, so that nothing would be masked: configure "
                "logging before redact_logs()"
            )
        found = RedactionFilter(self.live)
        for handler in handlers:
            handler.addFilter(found)
        return found

    def live(self) -> list[Secret]:
        """Return every value that is held, current and previous, and its parts, for redaction."""
        documents = [drop_newline(value.data) for value in self._documents.values()]
        return self._values.live() + [Secret(document.reveal()) for document in documents]

    def held(self, secret: str) -> Secret | None:
        """Return a value that may be used without a look, `None` if there is none. Never waits."""
        view = self._values.held(secret)
        return None if view is None else view.secret

    def expire(self) -> None:
        """Have everything that is held looked at anew when it is next asked for."""
        self._documents.expire()
        for watch in list(self._watches):
            watch.wake()

    def forget(self, watch: Watch) -> None:
        """Drop a watch that was stopped."""
        with self._lock:
            if watch in self._watches:
                self._watches.remove(watch)

    def close(self) -> None:
        """Stop every watch, forget every value, and hold none from now on."""
        with self._lock:
            self._closed = True
        if self._watches:
            from sentra_kms.secrets.watch import stop_all

            stop_all(self._watches)
        for made in list(self._made_aio.values()):
            made.close()
        with self._values.lock:
            self._documents.close()
            self._values.clear()

    def _look(self, secret: str) -> Secret:
        entry = self._entry(secret)
        self._wake_watches()
        return self._build(secret, entry, self._snapshot([entry]))

    def _snapshot(self, entries: Iterable[SecretEntry]) -> Snapshot:
        """Ask for what the entries are made of, side by side if it is more than one document."""
        first = [
            source.references[0].document for entry in entries for source in entry.parts.values()
        ]
        known = self._documents.get_many(first) if len(first) > 1 else None
        return Snapshot(self._documents, known=known)

    def _entry(self, secret: str) -> SecretEntry:
        if not isinstance(secret, str):
            raise MalformedInput(f"a secret's name is text, not {type(secret).__name__}")
        entry = self._values.entries.get(secret)
        if entry is not None:
            return entry
        if "://" in secret:
            reference = Reference(secret)
            self._bound(reference.backend).require("fetch_secret", f"{reference} is asked for")
            return SecretEntry({"": SecretSource((reference,))})
        from difflib import get_close_matches  # only for an error

        close = get_close_matches(secret, self.names(), n=1)
        raise SecretNotFound(
            f"no secret of this name is declared in {self._where}; there are "
            + (", ".join(self.names()) or "none")
            + (f"; did you mean '{close[0]}'?" if close else "")
        )

    def _build(
        self, secret: str, entry: SecretEntry, snapshot: Snapshot, *, coast: bool = True
    ) -> Secret:
        made = attempt(secret, entry, snapshot, self._bound)
        return self._values.ended(secret, entry, made, coast=coast).secret

    def _wake(self, secret: str) -> None:
        for watch in list(self._watches):
            if watch.secret == secret:
                watch.wake()

    def held_together(self, names: list[str]) -> dict[str, Secret] | None:
        """Return values that are held if all of them are, of one state of all documents."""
        return self._values.held_together(names)

    def _wake_watches(self) -> None:
        """Start watches whose threads stayed in the parent when this process was forked."""
        if not self._asleep:
            return
        with self._lock:
            self._asleep = False
            for watch in self._watches:
                watch.start()
