"""Leases of secrets that an engine makes on demand: one for each path, kept alive and given back.

Each fetch looks at the lease that is held, so that one which an operator revoked, or which went
with the token that it was made under, is not given out again. When a third of a lease's time, or
a little more, is left it is renewed, by a fetch or in the background. Where that is refused, or
gains nothing as the longest time is near, a fetch has another made; the old one runs out by itself:
it may be in use.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import TypeVar

from hvac.api.system_backend import Lease as LeaseApi
from hvac.utils import format_url

from sentra_kms import (
    AccessDenied,
    ConfigurationError,
    KMSError,
    NotFound,
    SecretNotFound,
    ServiceUnavailable,
    Timeout,
    UnsupportedOperation,
)
from sentra_kms.errors import afresh
from sentra_kms.hooktypes import Finding, SecretValue
from sentra_kms_vault.call import Call
from sentra_kms_vault.deadline import Deadline
from sentra_kms_vault.documents import understood
from sentra_kms_vault.engines import Place, explain
from sentra_kms_vault.failures import Refused, Special, Unanswered, ask
from sentra_kms_vault.lease import Issued, Lease, LookedUp, Renewed
from sentra_kms_vault.vault import Vault

_T = TypeVar("_T")
MAX_LEASES = 200
"""Leases that are kept alive at a time; what was fetched longest ago is then let run out."""
_LAST_RENEWAL = 1.0  # seconds before its end, within which a lease is not renewed any more
_CLOSING = 5.0  # seconds for giving all of them back
_RIGHTS = {
    "sys/leases/lookup": "what was made on demand cannot be read again",
    "sys/leases/renew": "leases are not renewed, and others made instead",
    "sys/leases/revoke": "leases are not revoked on close, and end by themselves",
}
_USABLE = frozenset({"update", "root"})
_SAYS_NO = frozenset({400, 403, 404, 405, 500})
"""Statuses with which a lease is not renewed, and the next attempt would not be either."""


class _Slot:
    """One path's lease, and how the last attempt to have one made ended."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.lease: Lease | None = None
        self.attempts = 0
        self.failure: KMSError | None = None


class Leases:
    """The leases of one backend. Safe from many threads, and from a signal handler.

    A forked child has its own.
    """

    def __init__(self, vault: Vault) -> None:
        self._vault = vault
        self._lock = threading.RLock()
        self._slots: OrderedDict[str, _Slot] = OrderedDict()
        self._let_go: list[Lease] = []
        self._closed = False

    def fetch(self, place: Place, subject: str, deadline: Deadline) -> SecretValue:
        """Return what a path's lease is of, having one made if none is held that is good."""
        slot = self._slot(f"{place.mount}/{place.path}")
        lease = slot.lease
        if lease is None or not self._is_good(lease, subject, deadline):
            lease = self._have_made(slot, lease, place, subject, deadline)
        elif not lease.tended:
            self._keep_alive(slot, lease)
        return self._value(lease)

    def check(self, call: Call) -> list[Finding]:
        """Return what is to be said of the rights to leases, and of those that are held."""
        return self._lacking_rights(call) + self.failing()

    def failing(self) -> list[Finding]:
        """Return a finding for each lease that could not be renewed."""
        return [
            Finding(
                "warning",
                f"{self._vault.name}://{path}",
                "its lease could not be renewed: another is made before it ends",
                "look at the token's rights, and at the engine in Vault",
            )
            for path, slot in self._held().items()
            if slot.lease is not None and slot.lease.failing
        ]

    def close(self) -> None:
        """Revoke every lease, also those that were let go; what cannot be ends by itself."""
        with self._lock:
            self._closed = True
            leases = [slot.lease for slot in self._slots.values() if slot.lease is not None]
            leases += self._let_go
            self._slots.clear()
            self._let_go.clear()
        deadline = Deadline(_CLOSING)
        alive = [each for each in leases if each.left > 0]
        for number, lease in enumerate(alive):
            if not self._revoke(lease, deadline):
                self._vault.host.logger.warning(
                    "leases that were not revoked, and end by themselves: %d (Vault is away, or "
                    "the token's policies do not grant update on sys/leases/revoke)",
                    len(alive) - number,
                )
                return

    def _lacking_rights(self, call: Call) -> list[Finding]:
        try:
            answer = ask(
                "to tell the token's rights",
                lambda: call.post("/v1/sys/capabilities-self", json={"paths": list(_RIGHTS)}),
                missing=NotFound,
            )
        except AccessDenied:
            return []
        except KMSError as error:
            return [Finding("error", self._vault.name, error.message)]
        granted = understood(answer, dict[str, object]) or {}
        return [
            Finding(
                "warning",
                f"{self._vault.name}: {path}",
                f"the token may not use it: {means}",
                f"grant it update on {path}",
            )
            for path, means in _RIGHTS.items()
            if not _USABLE & set(understood(granted.get(path), list[str]) or ())
        ]

    def _held(self) -> dict[str, _Slot]:
        with self._lock:
            return dict(self._slots)

    def _slot(self, path: str) -> _Slot:
        """Return a path's slot, as the one that was asked for last."""
        with self._lock:
            slot = self._slots.setdefault(path, _Slot())
            with suppress(KeyError):  # a signal handler came between, and asked for many others
                self._slots.move_to_end(path)
            while len(self._slots) > MAX_LEASES:
                self._drop(self._slots.popitem(last=False)[1])
            return slot

    def _drop(self, slot: _Slot) -> None:
        """Let a path's lease run out; it is still revoked at the end."""
        lease, slot.lease = slot.lease, None
        if lease is not None:
            alive = [each for each in self._let_go if each.left > 0]
            self._let_go = [*alive[1 - MAX_LEASES :], lease]

    def _is_good(self, lease: Lease, subject: str, deadline: Deadline) -> bool:
        """Look at a lease, or renew it; say whether it is alive and will be for a while."""
        try:
            if not (lease.renewable and lease.is_due):
                self._look_up(lease, subject, deadline)
            if lease.renewable and lease.is_due:  # it may have come to be due meanwhile
                self._renew(lease, subject, deadline)
        except NotFound:
            return False
        return not lease.is_due and not self._goes_with_its_token(lease)

    def _goes_with_its_token(self, lease: Lease) -> bool:
        """Note when its token ends; say whether that is soon, and another would live longer."""
        login, token = self._vault.login, lease.token
        held = login.held
        if held is None or token is None:
            return False
        if held.value == token.value:
            lease.token_ends = login.ends  # it may have been renewed
            return False
        return lease.token_ends - time.monotonic() < lease.spare

    def _look_up(self, lease: Lease, subject: str, deadline: Deadline) -> None:
        """Take over what Vault knows of a lease; raises `NotFound` if it knows none."""
        asked = time.monotonic()
        found = self._ask(
            f"to look up the lease of {subject} (which needs update on sys/leases/lookup)",
            lambda leases: leases.read_lease(lease.id),
            _revoked,
            LookedUp,
            deadline,
        ).data
        if found.ttl <= 0:
            raise NotFound("the lease is at its end")
        lease.ends = min(lease.ends, asked + found.ttl + 1)  # it tells whole seconds
        lease.renewable = lease.renewable and found.renewable

    def _renew(self, lease: Lease, subject: str, deadline: Deadline) -> None:
        """Renew a lease; raises `NotFound` if Vault does not, and nothing will change that."""
        asked = time.monotonic()
        found = self._ask(
            f"to renew the lease of {subject}",
            lambda leases: leases.renew_lease(lease.id),
            _not_renewed,
            Renewed,
            deadline,
        )
        lease.renewed(asked + found.lease_duration, renewable=found.renewable)

    def _ask(
        self,
        what: str,
        send: Callable[[LeaseApi], object],
        special: Special,
        kind: type[_T],
        deadline: Deadline,
    ) -> _T:
        """Ask of one lease; raises `NotFound` also for an answer that tells nothing of it."""
        answer = ask(
            what,
            lambda: send(LeaseApi(self._vault.call(deadline.left()))),
            missing=NotFound,
            special=special,
        )
        found = understood(answer, kind)
        if found is None:
            raise NotFound("Vault does not tell of the lease")
        return found

    def _have_made(
        self, slot: _Slot, stale: Lease | None, place: Place, subject: str, deadline: Deadline
    ) -> Lease:
        """Have one made, once for all threads that found none or the same one stale."""
        attempts = slot.attempts
        patience = ask(f"to read {subject}", deadline.left, missing=SecretNotFound)
        if not slot.lock.acquire(timeout=patience):
            raise Timeout(f"{subject}: another thread's request did not end in time")
        try:
            if slot.lease is not None and slot.lease is not stale:
                return slot.lease
            if slot.attempts != attempts and slot.failure is not None:
                raise afresh(slot.failure)  # of a request that went on while we waited
            return self._make(slot, place, subject, deadline)
        finally:
            slot.lock.release()

    def _make(self, slot: _Slot, place: Place, subject: str, deadline: Deadline) -> Lease:
        slot.failure = None
        try:
            lease = self._issue(place, subject, deadline)
        except KMSError as error:
            slot.failure = afresh(error)
            raise
        finally:
            slot.attempts += 1
        with self._lock:
            self._drop(slot)
            slot.lease = lease
            if slot not in self._slots.values():  # too many others came meanwhile
                self._drop(slot)
            closed = self._closed
        if closed:
            self._revoke(lease, Deadline(_CLOSING))
            raise UnsupportedOperation(f"backend '{self._vault.name}' is closed: load() again")
        self._keep_alive(slot, lease)
        return lease

    def _issue(self, place: Place, subject: str, deadline: Deadline) -> Lease:
        asked, created = time.monotonic(), datetime.fromtimestamp(self._vault.host.clock(), UTC)
        url = format_url("/v1/{mount}/{path}", mount=place.mount, path=place.path)
        answer = ask(
            f"to have {subject} made",
            # Sent once: where the answer was lost one may have been made, which ends by itself.
            lambda: self._vault.call(deadline.left(), repeatable=False).get(url),
            missing=SecretNotFound,
            special=lambda refusal: explain(refusal, subject),
        )
        issued = understood(answer, Issued)
        if issued is None:
            raise ServiceUnavailable(
                f"{subject}: what answered is not Vault: look at the address and at proxies"
            )
        if not issued.lease_id or issued.lease_duration <= 0:
            raise ConfigurationError(
                f"{subject}: what was read has no lease, so that it was not made on demand: "
                "correct the reference, or what `mounts` says of its engine"
            )
        return Lease(issued, asked, created, self._vault.login.held)

    def _keep_alive(self, slot: _Slot, lease: Lease) -> None:
        """Renew a lease in the background when it is due."""
        lease.tended = lease.renewable and lease.left > _LAST_RENEWAL
        if lease.tended:
            held = weakref.ref(lease)  # so that what is let go of is not kept until then
            self._vault.keeper.at(lease.rest, lambda: self._renew_behind(slot, held()))

    def _renew_behind(self, slot: _Slot, lease: Lease | None) -> None:
        if lease is None or slot.lease is not lease or self._closed:
            return
        if lease.is_due:
            try:
                self._renew(lease, "a secret", Deadline(self._vault.keeper.patience))
            except KMSError:  # it is used until it ends; the next fetch has another made
                lease.failing = True
        self._keep_alive(slot, lease)

    def _revoke(self, lease: Lease, deadline: Deadline) -> bool:
        """Give a lease back; say whether it is gone."""
        try:
            LeaseApi(self._vault.call(deadline.left())).revoke_lease(lease.id)
        except Refused as refusal:
            return _revoked(refusal) is not None
        except (Unanswered, KMSError):
            return False
        return True

    def _value(self, lease: Lease) -> SecretValue:
        """Return what a lease is of. It ends with the token that it was made under, too."""
        self._goes_with_its_token(lease)
        left = min(lease.ends, lease.token_ends) - time.monotonic()
        expires = datetime.fromtimestamp(self._vault.host.clock() + left, UTC)
        return SecretValue(lease.document, expires=expires, created=lease.created, leased=True)


def _revoked(refusal: Refused) -> KMSError | None:
    known = refusal.status in {400, 404} and refusal.texts  # else a proxy said it
    return NotFound("the lease is not there any more") if known else None


def _not_renewed(refusal: Refused) -> KMSError | None:
    known = refusal.status in _SAYS_NO and refusal.texts
    return NotFound("the lease is not renewed") if known else None
