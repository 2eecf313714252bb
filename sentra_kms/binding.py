"""One configured backend bound to its hooks: fork, timing, events and the error contract."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from typing import TypeVar, cast

from sentra_kms.answers import findings_of, own_error, version_of, wrong_answer, wrong_ends
from sentra_kms.context import WrapContext
from sentra_kms.discovery import FoundType
from sentra_kms.errors import KMSError, PluginError, UnsupportedOperation, afresh
from sentra_kms.events import Event, current_actor
from sentra_kms.forks import RLock, tell_after_fork
from sentra_kms.hookspecs import BATCH_SIZE
from sentra_kms.hooktypes import (
    BackendSettings,
    Finding,
    Host,
    KeyDescription,
    Remainder,
    RingPage,
    SecretRequest,
    SecretValue,
    StoredRing,
    UnwrapRequest,
    WrappedKey,
    WrapRequest,
)
from sentra_kms.material import KeyMaterial
from sentra_kms.parts import make_parts

_R = TypeVar("_R")
_T = TypeVar("_T")


class Binding:
    """A backend in use. Each has a plugin manager of its own, so who answers is never in doubt.

    `timeout` is in seconds and is passed to every hook. `emit` gets an event for each operation.
    """

    def __init__(
        self,
        found: FoundType,
        settings: BackendSettings,
        host: Host,
        *,
        timeout: float,
        emit: Callable[[Event], None] | None = None,
    ) -> None:
        self.name: str = host.name
        self._type = found
        self._settings = settings
        self._host = host
        self._timeout = timeout
        self._emit = emit
        self._closed = False
        self._build()
        self.after_fork()
        self._pid = os.getpid()
        tell_after_fork(self)

    def after_fork(self) -> None:
        """Replace a lock that another thread may have held when this child was forked."""
        self._lock = RLock()  # a signal handler may close what is being built

    @property
    def kind(self) -> str:
        """The name of the backend's type."""
        return self._type.name

    def require(self, operation: str, why: str) -> None:
        """Raise `UnsupportedOperation` unless a part implements `operation`."""
        if operation not in self.operations:
            raise UnsupportedOperation(
                f"{why}, but backend '{self.name}' does not implement {operation} as it is "
                f"configured: name another backend, or give '{self.name}' the settings that enable "
                "it",
                backend=self.name,
                operation=operation,
            )

    def wrap_key(self, key: str, material: KeyMaterial, context: WrapContext) -> WrappedKey:
        """Wrap a tenant key under the KEK `key` of this backend."""
        return self._ask(
            WrappedKey,
            "wrap_key",
            f"{self.name}:{key}",
            key=key,
            material=material,
            context=context,
            timeout=self._timeout,
        )

    def unwrap_key(self, key: str, wrapped: WrappedKey, context: WrapContext) -> KeyMaterial:
        """Unwrap a tenant key; an answer that is not 32 bytes is a `PluginError`."""
        return self._ask(
            KeyMaterial,
            "unwrap_key",
            f"{self.name}:{key}",
            key=key,
            wrapped=wrapped,
            context=context,
            timeout=self._timeout,
        )

    def describe_key(self, key: str) -> KeyDescription:
        """Return what a wrap made now would record."""
        subject = f"{self.name}:{key}"
        return self._ask(KeyDescription, "describe_key", subject, key=key, timeout=self._timeout)

    def ring_auth_key(self, key: str) -> KeyMaterial:
        """Return the ring authentication key of a local or memory KEK."""
        return self._ask(KeyMaterial, "ring_auth_key", f"{self.name}:{key}", key=key)

    def fetch_secret(self, request: SecretRequest) -> SecretValue:
        """Fetch a secret."""
        return self._ask(
            SecretValue,
            "fetch_secret",
            str(request.reference),
            request=request,
            timeout=self._timeout,
        )

    def wrap_keys(self, key: str, requests: Sequence[WrapRequest]) -> list[WrappedKey | KMSError]:
        """Wrap many tenant keys under one KEK; return each one's answer or error, in order."""
        return self._ask_each(
            WrappedKey,
            "wrap_keys",
            requests,
            lambda _: f"{self.name}:{key}",
            lambda each: self.wrap_key(key, each.material, each.context),
            key=key,
        )

    def unwrap_keys(
        self, key: str, requests: Sequence[UnwrapRequest]
    ) -> list[KeyMaterial | KMSError]:
        """Unwrap many tenant keys under one KEK; return each one's answer or error, in order."""
        return self._ask_each(
            KeyMaterial,
            "unwrap_keys",
            requests,
            lambda _: f"{self.name}:{key}",
            lambda each: self.unwrap_key(key, each.wrapped, each.context),
            key=key,
        )

    def fetch_secrets(self, requests: Sequence[SecretRequest]) -> list[SecretValue | KMSError]:
        """Fetch many secrets; return each one's answer or error, in order."""
        return self._ask_each(
            SecretValue,
            "fetch_secrets",
            requests,
            lambda each: str(each.reference),
            self.fetch_secret,
        )

    def load_ring(self, tenant: str) -> StoredRing:
        """Return a tenant's stored ring."""
        return self._ask(StoredRing, "load_ring", tenant, tenant=tenant, timeout=self._timeout)

    def save_ring(self, tenant: str, document: bytes, expected: str | None) -> str:
        """Store a tenant's ring by compare-and-set; return the new revision."""
        return self._ask(
            str,
            "save_ring",
            tenant,
            tenant=tenant,
            document=document,
            expected=expected,
            timeout=self._timeout,
        )

    def delete_ring(self, tenant: str, expected: str) -> None:
        """Delete a tenant's ring if its revision is still the expected one."""
        self._ask(
            type(None),
            "delete_ring",
            tenant,
            tenant=tenant,
            expected=expected,
            timeout=self._timeout,
        )

    def list_rings(self, cursor: str | None, limit: int) -> RingPage:
        """Return a page of tenants; one that leads to itself is a `PluginError`."""
        page = self._ask(
            RingPage, "list_rings", "*", cursor=cursor, limit=limit, timeout=self._timeout
        )
        if cursor is not None and page.cursor == cursor:
            raise PluginError(
                f"backend '{self.name}' answered list_rings with the cursor that it was given, by "
                "which a list would never end",
                backend=self.name,
                operation="list_rings",
                subject="*",
            )
        return page

    def purge_ring_history(self, tenant: str) -> tuple[Remainder, ...]:
        """Erase what a store keeps of a tenant's ring beside the live one; return what remains.

        Raises `UnsupportedOperation` if the store cannot: what it still holds is then not known.
        """
        self.require("purge_ring_history", f"the history of '{tenant}' was to be purged")
        found = cast(
            "list[Remainder]",
            self._ask(list, "purge_ring_history", tenant, tenant=tenant, timeout=self._timeout),
        )
        return tuple(found)

    def check(self) -> list[Finding]:
        """Ask every part whether it would work; what one raises becomes a finding."""
        try:
            self._be_ready()
        except KMSError as error:
            return [Finding("error", self.name, error.message)]
        found: list[Finding] = []
        answers, failures = self._ask_parts("check", timeout=self._timeout)
        for answer in answers:
            found += findings_of(self.name, answer)
        return found + [Finding("error", self.name, failure.message) for failure in failures]

    def close(self) -> None:
        """Close every part; closing again does nothing, other calls raise."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        # Parts that came over a fork are the parent's: closing them could end its sessions.
        if self._pid == os.getpid():
            _, failures = self._ask_parts("close")
            if failures:
                raise failures[0]

    def _ask_parts(
        self, operation: str, **arguments: object
    ) -> tuple[list[object], list[KMSError]]:
        """Ask every part, also after one that raised; one event tells what the first raised."""
        answers: list[object] = []
        failures: list[KMSError] = []
        begun, start = self._host.clock(), time.monotonic()
        for part in reversed(getattr(self._hooks, operation).get_hookimpls()):
            try:
                answers.append(part.function(**arguments))
            except Exception as error:  # noqa: BLE001 - the boundary, as in _call
                failures.append(own_error(self.name, error, operation))
        first = failures[0] if failures else None
        self._tell(operation, self.name, begun, time.monotonic() - start, first)
        return answers, failures

    def _ask_each(
        self,
        kind: type[_T],
        operation: str,
        requests: Sequence[_R],
        subject: Callable[[_R], str],
        single: Callable[[_R], _T],
        **arguments: object,
    ) -> list[_T | KMSError]:
        """Ask a part that takes batches for them, any other for one after the other."""
        self._be_ready()
        ends: list[_T | KMSError] = []
        if operation not in self.operations:
            for request in requests:
                try:
                    ends.append(single(request))
                except KMSError as error:
                    ends.append(afresh(error))
            return ends
        for start in range(0, len(requests), BATCH_SIZE):
            some = requests[start : start + BATCH_SIZE]
            subjects = [subject(request) for request in some]
            ends += cast(
                "list[_T | KMSError]",
                self._call_batch(kind, operation, subjects, {"requests": tuple(some), **arguments}),
            )
        return ends

    def _call_batch(
        self, kind: type, operation: str, subjects: list[str], arguments: dict[str, object]
    ) -> list[object]:
        """Call a batch hook; return one end for each subject and emit its event, come what may."""
        answers: object = None
        whole: KMSError | None = None
        begun, start = self._host.clock(), time.monotonic()
        try:
            answers = getattr(self._hooks, operation)(timeout=self._timeout, **arguments)
        except Exception as error:  # noqa: BLE001 - the boundary, as in _call
            whole = own_error(self.name, error, operation)
        latency = time.monotonic() - start
        if type(answers) is list:
            answers = tuple(cast("list[object]", answers))  # the plugin may keep the list
        if whole is None:
            whole = wrong_ends(self.name, operation, answers, len(subjects))
        given = [whole] * len(subjects) if whole else cast("Sequence[object]", answers)
        ends: list[object] = []
        for subject, end in zip(subjects, given, strict=True):
            failure = (
                own_error(self.name, end, operation)
                if issubclass(type(end), KMSError)
                else wrong_answer(self.name, operation, subject, end, kind)
            )
            # Told as what it is on its own, so that who looks for it need not know of batches.
            self._tell(operation.removesuffix("s"), subject, begun, latency, failure, end)
            ends.append(end if failure is None else failure)
        return ends

    def _be_ready(self) -> None:
        if self._closed:
            raise UnsupportedOperation(
                f"backend '{self.name}' is closed: load() again", backend=self.name
            )
        if self._pid != os.getpid():
            self._build_in_child()

    def _ask(self, kind: type[_T], operation: str, subject: str, **arguments: object) -> _T:
        self._be_ready()
        self.require(operation, f"{operation} was asked for '{subject}'")
        answer = self._call(operation, subject, arguments, kind)
        assert isinstance(answer, kind)  # noqa: S101 - _call has refused anything else
        return answer

    def _call(
        self, operation: str, subject: str, arguments: dict[str, object], kind: type
    ) -> object:
        """Call a hook; raise our own error of what it raised or wrongly answered."""
        failure: KMSError | None = None
        answer: object = None
        begun, start = self._host.clock(), time.monotonic()
        try:
            answer = getattr(self._hooks, operation)(**arguments)
        except Exception as error:  # noqa: BLE001 - the boundary: nothing foreign gets past it
            failure = own_error(self.name, error, operation)
        if failure is None:
            failure = wrong_answer(self.name, operation, subject, answer, kind)
        self._tell(operation, subject, begun, time.monotonic() - start, failure, answer)
        if failure is not None:
            answer = None  # a refused one may hold a key, and this frame is in the traceback
            # Outside the handler: the error that a plugin raised, its frames and what they hold
            # are not reachable from the one that callers see.
            raise failure
        return answer

    def _tell(
        self,
        operation: str,
        subject: str,
        begun: float,
        latency: float,
        failure: KMSError | None,
        answer: object = None,
    ) -> None:
        """Say in an error where it arose, and to observers how it went."""
        if failure is not None:
            failure.backend = failure.backend or self.name
            failure.operation = failure.operation or operation
            failure.subject = failure.subject or subject
        if self._emit is None:
            return
        acting = current_actor()
        self._emit(
            Event(
                time=begun,
                operation=operation,
                backend=self.name,
                subject=subject,
                outcome="ok" if failure is None else type(failure).__name__,
                latency=latency,
                version=version_of(answer) if failure is None else None,
                actor=acting.name if acting else None,
                request_id=acting.request_id if acting else None,
                late=latency > self._timeout,
            )
        )

    def _build(self) -> None:
        made = make_parts(self._type, self._settings, self._host)
        self.operations: frozenset[str] = made.operations
        self._hooks = made.hooks

    def _build_in_child(self) -> None:
        # A connection inherited over a fork serves two masters: parts are made anew.
        with self._lock:
            if self._pid != os.getpid():
                self._build()
                self._pid = os.getpid()
