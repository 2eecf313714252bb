"""Values by the names under which they were asked for: held, used on for a while, and told apart.

What is given together is of one state of each document, also where the newest makes no sense.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from sentra_kms.errors import KMSError, MalformedInput, afresh
from sentra_kms.forks import tell_after_fork
from sentra_kms.material import Secret
from sentra_kms.reference import Reference
from sentra_kms.secret_settings import SecretEntry
from sentra_kms.secrets.compose import Attempt, Composed, same
from sentra_kms.secrets.documents import RETRY_AFTER, Documents, Held, IsKept
from sentra_kms.secrets.view import View, are_of_one_state

MAX_VIEWS = 1000  # names and references whose values are held


class _Previous(NamedTuple):
    secret: Secret
    until: float
    parts: tuple[Secret, ...]


class Values:
    """Safe from many threads. `entries` are the declared secrets, by name, and may be replaced.

    `on_change` is called with a name after a change of its value; `now` is monotonic.
    """

    def __init__(
        self,
        documents: Documents,
        entries: Mapping[str, SecretEntry],
        max_stale: float,
        now: Callable[[], float],
        on_change: Callable[[str], None],
    ) -> None:
        self.entries: Mapping[str, SecretEntry] = entries
        self._documents = documents
        self._max_stale = max_stale
        self._now = now
        self._on_change = on_change
        self._views: dict[str, View] = {}
        self._previous: dict[str, _Previous] = {}
        self.after_fork()
        tell_after_fork(self)

    def after_fork(self) -> None:
        """Replace a lock that another thread may have held when this child was forked."""
        # A signal handler may ask while a value is put away.
        self.lock: threading.RLock = threading.RLock()

    def held(self, secret: str) -> View | None:
        """Return a value that may be used without a look, `None` if there is none. Never waits."""
        view = self._views.get(secret)
        if (
            view is not None
            and self._now() < view.fresh_until
            and view.generation == self._documents.generation
        ):
            return view
        return None

    def held_together(self, names: Sequence[str]) -> dict[str, Secret] | None:
        """Return values that are held if all of them are, of one state of all documents."""
        generation = self._documents.generation
        views: dict[str, View] = {}
        for name in names:
            view = self.held(name)
            if view is None:
                return None
            views[name] = view
        if generation != self._documents.generation or not are_of_one_state(views.values()):
            return None
        return {name: view.secret for name, view in views.items()}

    def last(self, secret: str) -> View | None:
        """Return what was held last, however old."""
        return self._views.get(secret)

    def previous(self, secret: str) -> Secret | None:
        """Return the value before the last change, for `max_stale` after that."""
        found = self._previous.get(secret)
        return None if found is None or self._now() >= found.until else found.secret

    def live(self) -> list[Secret]:
        """Return every value, current and previous, and its parts."""
        found = [each for view in list(self._views.values()) for each in (view.secret, *view.parts)]
        for before in list(self._previous.values()):
            found += [before.secret, *before.parts]
        return found

    def adopt(self, entries: Mapping[str, SecretEntry], max_stale: float, is_kept: IsKept) -> None:
        """Go on by other declarations; called with the lock held."""
        before, self.entries, self._max_stale = self.entries, entries, max_stale
        for name, view in list(self._views.items()):
            view.fresh_until = float("-inf")
            as_before = before.get(name) == entries.get(name)
            if not as_before or not all(is_kept(each.backend) for each in view.made_of):
                view.hard_until = float("-inf")  # kept to tell a change from, and for nothing else

    def clear(self) -> None:
        """Forget all."""
        self._views.clear()
        self._previous.clear()

    def together(
        self, entries: Mapping[str, SecretEntry], made: Mapping[str, Attempt]
    ) -> dict[str, Secret]:
        """Return values that were made of one snapshot, or of one earlier state of what they share.

        Raises the first error, in the order of the names.
        """
        useless: dict[Reference, MalformedInput] = {}
        for end, seen in made.values():
            if isinstance(end, MalformedInput):
                useless |= dict.fromkeys(seen, end)
        views: dict[str, View] = {}
        for name, (end, seen) in made.items():
            # What makes no sense for one of them is used for none.
            shared = [useless[each] for each in seen if each in useless]
            told = shared[0] if isinstance(end, Composed) and shared else end
            views[name] = self.ended(name, entries[name], Attempt(told, seen))
        if not are_of_one_state(views.values()):
            raise afresh(next(iter(useless.values())))
        return {name: view.secret for name, view in views.items()}

    def ended(self, secret: str, entry: SecretEntry, made: Attempt, *, coast: bool = True) -> View:
        """Hold what was made; of what makes no sense, go on with what is held for a while."""
        end, seen = made
        if isinstance(end, Composed):
            return self._kept(secret, entry, end, seen)
        if not isinstance(end, MalformedInput):
            raise end
        for document in seen:
            self._documents.doubt(document)  # it may be half written: look again soon
        with self.lock:
            generation = self._documents.generation
            view, now = self._views.get(secret), self._now()
            if not coast or view is None or now >= view.hard_until:
                raise afresh(end)
            if self._is_current(secret, entry, seen):
                view.fresh_until = min(view.hard_until, now + RETRY_AFTER)
                view.generation = generation
        _warn(secret, end)
        return view

    def _is_current(self, secret: str, entry: SecretEntry, seen: Mapping[Reference, Held]) -> bool:
        """Whether this is what is declared, and what its documents hold, now."""
        return (self.entries.get(secret) is entry or "://" in secret) and all(
            self._documents.is_current(document, held) for document, held in seen.items()
        )

    def _kept(
        self, secret: str, entry: SecretEntry, composed: Composed, seen: Mapping[Reference, Held]
    ) -> View:
        """Hold a value, unless what it is made of has changed meanwhile; note a change."""
        with self.lock:
            view = View(
                composed,
                seen,
                self._documents.generation,
                min(held.fresh_until for held in seen.values()),
                min(held.hard_until for held in seen.values() if held.value is not None),
            )
            if not self._is_current(secret, entry, seen):
                return view
            before = self._views.get(secret)
            changed = before is not None and not same(before.secret, view.secret)
            if before is not None and changed:
                until = self._now() + self._max_stale
                self._previous[secret] = _Previous(before.secret, until, before.parts)
            elif before is not None and before.secret.expires == view.secret.expires:
                view.secret = before.secret
            self._views[secret] = view
            while len(self._views) > MAX_VIEWS:
                oldest = next(iter(self._views))
                del self._views[oldest]
                self._previous.pop(oldest, None)
        if changed:
            self._on_change(secret)
        return view


def _warn(secret: str, failure: KMSError) -> None:
    import logging

    logging.getLogger("sentra_kms.secrets").warning(
        "%s: its new value is not used: %s", secret, failure.message
    )
